"""From samples to what must be judged: the streaming stages of `model` in a row, for all beds at once.

    samples ▶ Resampler ▶ 250 Hz ▶ PeriodDetector ▶ R peaks ▶ BeatCutter ▶ beats
                               ├──▶ Quality ▶ which two leads the model sees
                               ├──▶ VfIndex
                               └──▶ ModelRate ▶ 125 Hz ring ▶ Templates, hops

A chunk goes through every stage before the next one; each result carries the tick it was decided at.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from model.periods import Beats, PeriodDetector
from model.quality import Quality, QualityReport
from model.resample import ModelRate, Resampler
from model.segments import BeatCutter, CompleteBeats, HopCutter, Templates, beat_start, cut_hops, hop_start
from model.vf import VfIndex, VfReport
from stream.rings import Rings

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

MAX_CHUNK_S = 8.0  # a longer push is for the caller to split: the ring must still hold what is cut from it
RING_SAMPLES = 2048  # 16 s at 125 Hz
CHOICES = 64  # seconds for which the choice of leads is remembered
SIGNAL_DELAY = ModelRate.DELAY - 2  # ticks after a cut's end at which its last model sample is there
SUSPICIOUS_VF = 0.35  # VF index from which a window is urgent
SUSPICIOUS_RR = 250  # ticks: the last RR was shorter than a second's half (120/min) or the last beat is old
SETTLED = 1.15  # how much better another lead must be to be taken


class Findings(NamedTuple):
    """What a push brought to light. `head` (n_rows,): tick after the newest, per row."""

    beats: Beats
    quality: QualityReport
    vf: VfReport
    complete: CompleteBeats
    wave: Floats
    features: Floats
    hop_row: Ints
    hop_end: Ints
    hop_ready: Ints
    hop_wave: Floats
    hop_mask: Floats
    hop_urgent: npt.NDArray[np.bool_]


class Analysis:
    """The stages of one shard; `n_rows` beds of up to `n_leads` leads."""

    def __init__(self, n_rows: int, n_leads: int) -> None:
        self.n_leads = n_leads
        self.resampler = Resampler(n_rows, n_leads)
        self.head = np.zeros(n_rows, np.int64)
        self._detector = PeriodDetector(n_rows, n_leads)
        self._quality = Quality(n_rows, n_leads)
        self._vf = VfIndex(n_rows, n_leads)
        self._model_rate = ModelRate(n_rows, n_leads)
        self._ring = Rings(n_rows, n_leads, RING_SAMPLES)
        self._cutter = BeatCutter(n_rows, SIGNAL_DELAY)
        self._templates = Templates(n_rows, n_leads)
        self._hops = HopCutter(n_rows)
        self._lead_quality = np.zeros((n_rows, n_leads), np.float32)
        self._choice = np.full((n_rows, CHOICES, 2), -1, np.int64)
        self._choice_quality = np.zeros((n_rows, CHOICES), np.float32)
        self._vf_index = np.zeros(n_rows, np.float32)
        self._last_beats = np.full((n_rows, 2), -(2**62), np.int64)

    def start(self, row: int, fs: float) -> None:
        """A new epoch of the bed in `row`, at `fs` Hz. Raises ValueError for a rate outside 50..2000 Hz."""
        self.resampler.configure(row, fs)
        rows = np.array([row])
        self.reset(rows, np.zeros(1, np.int64))
        self._templates.reset(rows)
        self._choice[row] = -1

    def reset(self, rows: Ints, first_sample: Ints) -> None:
        """The signal of `rows` (k,) goes on at sample `first_sample` (k,) of the source after a gap."""
        before = self._choice[rows, (self.head[rows] // 250) % CHOICES]
        self._choice[rows] = before[:, None]
        self.resampler.reset(rows, first_sample)
        first = self.resampler.next_tick(rows)
        self.head[rows] = first
        self._detector.reset(rows, first)
        self._quality.reset(rows, first)
        self._vf.reset(rows, first)
        self._model_rate.reset(rows, first)
        for row, sample in zip(rows.tolist(), ((first + 1) // 2).tolist(), strict=True):
            self._ring.skip_to(row, sample)
        self._cutter.reset(rows)
        self._hops.reset(rows, first)
        self._lead_quality[rows] = 0.0
        self._vf_index[rows] = 0.0
        self._last_beats[rows] = -(2**62)

    def push(self, rows: Ints, x: Floats, n: Ints) -> Findings:
        """The next samples of `rows` (k,): x (k, n_leads, n_max) float32 mV at each row's own rate, NaN missing,
        of which n (k,) are valid; no more than MAX_CHUNK_S of signal."""
        y, m, _ = self.resampler.push(rows, x, n)
        beats = self._detector.push(rows, y, m)
        return self._find(rows, y, m, beats, self._model_rate.push(rows, y, m))

    def flush(self, rows: Ints) -> Findings:
        """What is pending at the end of the signal of `rows` (k,). A `reset` or `start` must follow."""
        y, m, _ = self.resampler.flush(rows)
        found = self._detector.push(rows, y, m)
        last = self._detector.flush(rows)
        beats = Beats(*(np.concatenate(pair) for pair in zip(found, last, strict=True)))
        beats = Beats(*(column[np.lexsort((beats.at, beats.row))] for column in beats))
        z, j, _ = self._model_rate.push(rows, y, m)
        rest, k, _ = self._model_rate.flush(rows)
        self._ring.push(rows, z, j)
        return self._find(rows, y, m, beats, (rest, k, k), ended=True)

    def _find(
        self, rows: Ints, y: Floats, m: Ints, beats: Beats, modelled: tuple[Floats, Ints, Ints], ended: bool = False
    ) -> Findings:
        self.head[rows] += m
        quality = self._quality.push(rows, y, m)
        _choose(quality.row, quality.at, quality.quality, self._lead_quality, self._choice, self._choice_quality)
        vf = self._vf.push(rows, y, m)
        self._vf_index[vf.row] = vf.index
        z, j, _ = modelled
        self._ring.push(rows, z, j)
        available = 2 * self._ring.head[rows]
        if ended:
            complete = self._cutter.flush(rows, self.head[rows])
        else:
            complete = self._cutter.push(rows, self._detector.watermark(rows), beats, available + 1)
        hops = self._hops.push(rows, available)
        for row, at in zip(beats.row.tolist(), beats.at.tolist(), strict=True):
            self._last_beats[row] = self._last_beats[row, 1], at
        lead, good = self._leads(complete.row, complete.ready)
        start = beat_start(complete.at) % RING_SAMPLES
        wave, features = self._templates.cut(self._ring.x, complete, lead, start, good)
        ready = hops.end + SIGNAL_DELAY
        lead, _ = self._leads(hops.row, ready)
        hop_wave, hop_mask = cut_hops(self._ring.x, hops.row, lead, hop_start(hops.end) % RING_SAMPLES)
        urgent = self._urgent(hops.row)
        return Findings(
            beats, quality, vf, complete, wave, features, hops.row, hops.end, ready, hop_wave, hop_mask, urgent
        )

    def _leads(self, rows: Ints, ticks: Ints) -> tuple[Ints, Floats]:
        """The two leads (k, 2) that `rows` show the model at `ticks`, -1 for none, and the quality of the first."""
        slot = (ticks // 250) % CHOICES
        lead = self._choice[rows, slot]
        return lead, self._choice_quality[rows, slot]

    def _urgent(self, rows: Ints) -> npt.NDArray[np.bool_]:
        """Which rows look suspicious: their windows jump the queue. It orders the work and changes no result."""
        rr = self._last_beats[rows, 1] - self._last_beats[rows, 0]
        silence = self.head[rows] - self._last_beats[rows, 1]
        return (self._vf_index[rows] > SUSPICIOUS_VF) | (rr < SUSPICIOUS_RR // 2) | (silence > 2 * SUSPICIOUS_RR)

    def state_dict(self) -> dict[str, Any]:
        """Every stage's state, rows first, with the part of the ring that cuts still need."""
        return {
            "stages": {name: getattr(self, name).state_dict() for name in _STAGES},
            **{name: getattr(self, name).copy() for name in _ARRAYS},
            "ring": self._ring.x[:, :, :RING_SAMPLES].copy(),
            "ring_head": self._ring.head.copy(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        for name in _STAGES:
            getattr(self, name).load_state_dict(state["stages"][name])
        for name in _ARRAYS:
            getattr(self, name)[...] = state[name]
        self._ring.x[:, :, :RING_SAMPLES] = state["ring"]
        self._ring.x[:, :, RING_SAMPLES:] = state["ring"]
        self._ring.head[...] = state["ring_head"]


_STAGES = ("resampler", "_detector", "_quality", "_vf", "_model_rate", "_cutter", "_templates", "_hops")
_ARRAYS = ("head", "_lead_quality", "_choice", "_choice_quality", "_vf_index", "_last_beats")


@njit(cache=True)  # type: ignore[untyped-decorator]
def _choose(row, at, quality, smooth, choice, choice_quality):  # type: ignore[no-untyped-def]
    """Each second: the best lead stays until another is clearly better; the second is the best of the rest.

    An unusable lead (quality 0) is never shown."""
    n_leads = smooth.shape[1]
    for i in range(row.shape[0]):
        r = row[i]
        second = at[i] // 250
        for lead in range(n_leads):
            q = quality[i, lead]
            before = smooth[r, lead]
            smooth[r, lead] = q if q == 0.0 or before == 0.0 else before + 0.2 * (q - before)
        best, other = choice[r, (second - 1) % CHOICES]
        if best >= 0 and smooth[r, best] == 0.0:
            best = -1
        for lead in range(n_leads):
            if smooth[r, lead] > 0.0 and (best < 0 or smooth[r, lead] > SETTLED * smooth[r, best] + 0.02):
                best = lead
        if other == best or (other >= 0 and smooth[r, other] == 0.0):
            other = -1
        for lead in range(n_leads):
            if lead == best or smooth[r, lead] == 0.0:
                continue
            if other < 0 or smooth[r, lead] > SETTLED * smooth[r, other] + 0.02:
                other = lead
        slot = second % CHOICES
        choice[r, slot, 0] = best
        choice[r, slot, 1] = other
        choice_quality[r, slot] = smooth[r, best] if best >= 0 else 0.0
