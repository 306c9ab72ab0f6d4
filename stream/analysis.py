"""From samples to what must be judged: the streaming stages of `model` in a row, for all beds at once.

    samples ▶ Resampler ▶ 250 Hz, Rails ▶ PeriodDetector ▶ R peaks ▶ BeatCutter ▶ beats
                               ├──▶ Quality ▶ which two leads the model sees
                               ├──▶ VfIndex
                               └──▶ ModelRate ▶ 125 Hz ring ▶ Templates, hops
    PLETH, ABP ▶ Resampler ▶ 250 Hz ▶ PulseDetector ▶ pulse beats

A chunk goes through every stage before the next one; each result carries the tick it was decided at.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from model.periods import Beats, PeriodDetector
from model.pulse import NO_PULSES, SIGNALS, PulseDetector, Pulses
from model.quality import Quality, QualityReport
from model.rails import Rails
from model.resample import ModelRate, Resampler
from model.rows import ALL, Rows
from model.segments import (
    HOP_SAMPLES,
    BeatCutter,
    CompleteBeats,
    HopCutter,
    Templates,
    beat_start,
    choose_leads,
    cut_hops,
    hop_start,
)
from model.vf import PERIOD, VfIndex, VfReport
from stream.rings import Rings

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

TICKS_PER_S = 250
MAX_CHUNK_S = 8.0  # a longer push is for the caller to split: the ring must still hold what is cut from it
RING_SAMPLES = 2048  # 16 s at 125 Hz
CUT_SAMPLES = 768  # of these may still be cut from at the next push: a hop's 4 s, a beat waiting for its next
REPORTS = 64  # seconds for which the quality of the leads is remembered
VF_REPORTS = 32  # half seconds for which the VF index is: the longest push, and what a hop lags
SIGNAL_DELAY = ModelRate.DELAY - 2  # ticks after a cut's end at which its last model sample is there
SUSPICIOUS_VF = 0.35  # VF index from which a window is urgent
SUSPICIOUS_RR = 250  # ticks: the last RR was shorter than a second's half (120/min) or the last beat is old


class Findings(NamedTuple):
    """What a push brought to light. `head` (n_rows,): tick after the newest, per row."""

    beats: Beats
    quality: QualityReport
    vf: VfReport
    pulses: Pulses
    complete: CompleteBeats
    wave: Floats
    features: Floats
    form: Ints
    hop_row: Ints
    hop_end: Ints
    hop_ready: Ints
    hop_wave: Floats
    hop_mask: Floats
    hop_vf: Floats  # VF index at the end of the hop, NaN where there is none
    hop_leads_on: npt.NDArray[np.bool_]  # whether any lead was there in the 4 s of the hop
    hop_urgent: npt.NDArray[np.bool_]
    beat_urgent: npt.NDArray[np.bool_]  # of `complete`


class Analysis(Rows):
    """The stages of one shard; `n_rows` beds of up to `n_leads` leads."""

    STATE = ("head", "_lead_quality", "_vf_index", "_last_beats")

    def __init__(self, n_rows: int, n_leads: int) -> None:
        self.n_leads = n_leads
        self.resampler = Resampler(n_rows, n_leads)
        self.head = np.zeros(n_rows, np.int64)
        self._rails = Rails(n_rows, n_leads)
        self._detector = PeriodDetector(n_rows, n_leads)
        self._quality = Quality(n_rows, n_leads)
        self._vf = VfIndex(n_rows, n_leads)
        self._pulse_resampler = Resampler(n_rows, len(SIGNALS))
        self._pulse = PulseDetector(n_rows)
        self._model_rate = ModelRate(n_rows, n_leads)
        self._ring = Rings(n_rows, n_leads, RING_SAMPLES)
        self._cutter = BeatCutter(n_rows, SIGNAL_DELAY)
        self._templates = Templates(n_rows, n_leads)
        self._hops = HopCutter(n_rows)
        self._lead_quality = np.zeros((n_rows, REPORTS, n_leads), np.float32)
        self._vf_index = np.full((n_rows, VF_REPORTS), np.nan, np.float32)
        self._last_beats = np.full((n_rows, 2), -(2**62), np.int64)

    def start(self, row: int, fs: float) -> None:
        """A new epoch of the bed in `row`, at `fs` Hz. Raises ValueError for a rate outside 50..2000 Hz."""
        self.resampler.configure(row, fs)
        self._pulse_resampler.configure(row, fs)
        rows, first = np.array([row]), np.zeros(1, np.int64)
        self._ring.reset(rows, first)  # it goes back to sample 0, which `reset` alone takes for no gap
        self.reset(rows, first)
        self._templates.reset(rows)
        self._lead_quality[row] = 0.0

    def reset(self, rows: Ints, first_sample: Ints) -> None:
        """The signal of `rows` (k,) goes on at sample `first_sample` (k,) of the source after a gap."""
        self._lead_quality[rows] = self._quality_at(rows, self.head[rows])[:, None]
        self.resampler.reset(rows, first_sample)
        self._pulse_resampler.reset(rows, first_sample)
        first = self.resampler.next_tick(rows)
        self.head[rows] = first
        self._rails.reset(rows, first)
        self._detector.reset(rows, first)
        self._quality.reset(rows, first)
        self._vf.reset(rows, first)
        self._pulse.reset(rows, first)
        self._model_rate.reset(rows, first)
        for row, sample in zip(rows.tolist(), ((first + 1) // 2).tolist(), strict=True):
            self._ring.skip_to(row, sample)
        self._cutter.reset(rows)
        self._hops.reset(rows, first)
        self._vf_index[rows] = np.nan
        self._last_beats[rows] = -(2**62)

    def push(
        self, rows: Ints, x: Floats, n: Ints, pulsing: npt.NDArray[np.bool_] | None = None, pulse: Floats | None = None
    ) -> Findings:
        """The next samples of `rows` (k,): x (k, n_leads, n_max) float32 mV at each row's own rate, NaN missing,
        of which n (k,) are valid; no more than MAX_CHUNK_S of signal. `pulse`: of the j rows that are `pulsing` (k,),
        which do so from their start on or never, PLETH and ABP (j, len(SIGNALS), n_max) in any unit, NaN missing."""
        y, m = self._sampled(*self.resampler.push(rows, x, n)[:2], rows)
        beats = self._detector.push(rows, y, m)
        pulses = NO_PULSES
        if pulsing is not None and pulse is not None:
            p, j, _ = self._pulse_resampler.push(rows[pulsing], pulse, n[pulsing])
            pulses = self._pulse.push(rows[pulsing], p, j)
        return self._find(rows, y, m, beats, self._model_rate.push(rows, y, m), pulses)

    def flush(self, rows: Ints) -> Findings:
        """What is pending at the end of the signal of `rows` (k,). A `reset` or `start` must follow."""
        y, m = self._sampled(*self.resampler.flush(rows)[:2], rows)
        beats = _joined(self._detector.push(rows, y, m), self._detector.flush(rows))
        z, j, _ = self._model_rate.push(rows, y, m)
        rest, k, _ = self._model_rate.flush(rows)
        self._ring.push(rows, z, j)
        return self._find(rows, y, m, beats, (rest, k, k), NO_PULSES, ended=True)

    def _sampled(self, y: Floats, m: Ints, rows: Ints) -> tuple[Floats, Ints]:
        """Of the samples at 250 Hz, what is a signal."""
        y = np.ascontiguousarray(y, np.float32)
        self._rails.push(rows, y, m)
        return y, m

    def _find(
        self,
        rows: Ints,
        y: Floats,
        m: Ints,
        beats: Beats,
        modelled: tuple[Floats, Ints, Ints],
        pulses: Pulses,
        ended: bool = False,
    ) -> Findings:
        self.head[rows] += m
        quality = self._quality.push(rows, y, m)
        self._lead_quality[quality.row, quality.at // TICKS_PER_S % REPORTS] = quality.quality
        vf = self._vf.push(rows, y, m)
        self._vf_index[vf.row, vf.at // PERIOD % VF_REPORTS] = vf.index
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
        leads = self._quality_at(complete.row, complete.at)
        lead = choose_leads(leads)
        start = beat_start(complete.at) % RING_SAMPLES
        good = np.take_along_axis(leads, np.maximum(lead[:, :1], 0), axis=1)[:, 0]
        wave, features, form = self._templates.cut(self._ring.x, complete, lead, start, good)
        ready = hops.end + SIGNAL_DELAY
        last = np.minimum(hops.end, self.head[hops.row])  # at the end of the signal, a hop ends a tick after it
        lead = choose_leads(self._quality_at(hops.row, last))
        start = hop_start(hops.end) % RING_SAMPLES
        hop_wave, hop_mask = cut_hops(self._ring.x, hops.row, lead, start)
        # Where all are of quality 0 the lead chosen may be off beside a flat one, which is an asystole.
        leads_on: npt.NDArray[np.bool_] = hop_mask.max(axis=1) > 0
        dark = np.flatnonzero(~leads_on)
        leads_on[dark] = self._any_lead(hops.row[dark], start[dark])
        return Findings(
            beats,
            quality,
            vf,
            pulses,
            complete,
            wave,
            features,
            form,
            hops.row,
            hops.end,
            ready,
            hop_wave,
            hop_mask,
            self._vf_index_at(hops.row, last),
            leads_on,
            self._urgent(hops.row),
            self._urgent(complete.row),
        )

    def _quality_at(self, rows: Ints, ticks: Ints) -> Floats:
        """Quality (k, n_leads) of the leads by the last report at or before each tick."""
        return self._lead_quality[rows, ticks // TICKS_PER_S % REPORTS]

    def _any_lead(self, rows: Ints, start: Ints) -> npt.NDArray[np.bool_]:
        """Whether any lead of each row (k,) has a sample in the hop that starts there."""
        at = (start[:, None] + np.arange(HOP_SAMPLES)) % RING_SAMPLES
        found: npt.NDArray[np.bool_] = np.isfinite(self._ring.x[rows[:, None], :, at]).max(axis=(1, 2), initial=False)
        return found

    def _vf_index_at(self, rows: Ints, ticks: Ints) -> Floats:
        """VF index (k,) by the last report at or before each tick."""
        return self._vf_index[rows, ticks // PERIOD % VF_REPORTS]

    def _urgent(self, rows: Ints) -> npt.NDArray[np.bool_]:
        """Which rows look suspicious: their windows jump the queue. It orders the work and changes no result."""
        rr = self._last_beats[rows, 1] - self._last_beats[rows, 0]
        silence = self.head[rows] - self._last_beats[rows, 1]
        urgent: npt.NDArray[np.bool_] = (rr < SUSPICIOUS_RR // 2) | (silence > 2 * SUSPICIOUS_RR)
        return urgent | (self._vf_index_at(rows, self.head[rows]) > SUSPICIOUS_VF)

    def state_dict(self, rows: slice = ALL) -> dict[str, Any]:
        """Every stage's state of these rows, with the part of the ring that cuts still need."""
        return {
            "stages": {name: getattr(self, name).state_dict(rows) for name in _STAGES},
            **super().state_dict(rows),
            "ring": self._ring.recent(CUT_SAMPLES, rows),
            "ring_head": self._ring.head[rows].copy(),
        }

    def load_state_dict(self, state: dict[str, Any], rows: slice = ALL) -> None:
        """Go on from a `state_dict` of these rows."""
        for name in _STAGES:
            getattr(self, name).load_state_dict(state["stages"][name], rows)
        super().load_state_dict(state, rows)
        self._ring.put_back(state["ring"], state["ring_head"], rows)


_STAGES = (
    "resampler", "_rails", "_detector", "_quality", "_vf", "_pulse_resampler", "_pulse", "_model_rate", "_cutter",
    "_templates", "_hops",
)  # fmt: skip


def _joined(one: Beats, other: Beats) -> Beats:
    """The beats of both, sorted by (row, at)."""
    row, at = np.concatenate([one.row, other.row]), np.concatenate([one.at, other.at])
    order = np.lexsort((at, row))
    return Beats(
        row[order],
        at[order],
        np.concatenate([one.decided, other.decided])[order],
        np.concatenate([one.amplitude, other.amplitude])[order],
        np.concatenate([one.lead, other.lead])[order],
    )
