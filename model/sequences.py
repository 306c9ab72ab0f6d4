"""RR sequences without waveforms: beats of the VitalDB arrhythmia database, as windows for the rhythm path.

The beats go through the same `BeatCutter` as detected ones, so they have the same RR features; what needs samples is
0, and so are the tokens. To the model they are patients whose leads say nothing.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from model import datasets
from model.datasets import RrRows
from model.labels import RHYTHMS
from model.periods import Beats
from model.resample import TICK_RATE
from model.segments import HOP_TICKS, SHAPE, TOKEN_BEATS, TOKEN_HOPS, BeatCutter, Float, Int

SOURCE = "vitaldb-rhythm"
RHYTHM_OF_LABEL = {
    "N": "N", "AFIB/AFL": "AF", "SVTA": "SVT", "VT": "VT", "SR-mPVC-BT": "OTHER", "SR-mPAC-BT": "OTHER",
    "SND": "OTHER", "MAT": "OTHER", "AVB": "OTHER",
}  # fmt: skip
"""Its labels in `RHYTHMS`: bigeminy, sinus node dysfunction, multifocal atrial tachycardia and block are OTHER."""

DELAY = 62  # ticks from an R peak to its decision, as from the detector
UNKNOWN = -1


@dataclass(slots=True)
class Sequences:
    """Beats (n) of all cases one after another, and a window (m) every two seconds that ends with them."""

    patient: npt.NDArray[np.str_]  # (r,)
    of_beat: Int  # (n,)
    beat_at: Int
    features: Float  # (n, SHAPE): the RR features
    of_window: Int  # (m,)
    end: Int  # tick
    last: Int  # number of the beat after the newest one that was ready
    first: Int  # number of the oldest one of the last 30 s
    rhythm: npt.NDArray[np.int8]  # of the last 4 s where these have one label, -1 else
    segment: npt.NDArray[np.int8]  # of the last 10 s

    def of_patients(self, patients: Int) -> Int:
        """Windows with a rhythm, of these patients."""
        return np.flatnonzero(np.isin(self.of_window, patients) & (self.rhythm >= 0))

    def windows(self, index: Int) -> tuple[Float, Float, npt.NDArray[np.bool_]]:
        """RR features (k, 48, SHAPE), age in s (k, 48) and mask (k, 48) of windows, newest last."""
        beats = self.last[index, None] + np.arange(-TOKEN_BEATS, 0)
        there = beats >= self.first[index, None]
        beats = np.where(there, beats, 0)
        age = (self.end[index, None] - self.beat_at[beats]) / np.float32(TICK_RATE)
        return self.features[beats] * there[..., None], (age * there).astype(np.float32), there


def load(limit: int | None, rng: np.random.Generator | None = None) -> Sequences:
    """All cases, or `limit` of them. With `rng`, as a detector sees them on another patient: faster or slower, peaks
    a little off, some missed and some too many. Raises DatasetError where the database is not found."""
    cases = datasets.rr_cases(SOURCE)
    if limit is not None:
        cases = cases[:: max(len(cases) // limit, 1)][:limit]
    parts = [_windows(datasets.rr_rows(case, SOURCE), rng) for case in tqdm(cases, desc=f"cut {SOURCE}", unit="case")]
    n_beats, n_windows = [p[0].size for p in parts], [p[2].size for p in parts]
    first = np.repeat(np.cumsum(n_beats) - n_beats, n_windows)
    at, features, end, last, oldest, rhythm, segment = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Sequences(
        np.array([f"{SOURCE}/{case}" for case in cases]), np.repeat(np.arange(len(cases)), n_beats), at, features,
        np.repeat(np.arange(len(cases)), n_windows), end, last + first, oldest + first, rhythm, segment,
    )  # fmt: skip


def _windows(rows: RrRows, rng: np.random.Generator | None) -> tuple[Any, ...]:
    beat = np.array([symbol != "" for symbol in rows.beats])
    label = np.array([RHYTHMS.index(RHYTHM_OF_LABEL[r]) if r in RHYTHM_OF_LABEL else UNKNOWN for r in rows.rhythms])
    label = np.where(rows.bad, UNKNOWN, label)[beat]
    time = rows.time_s[beat] - rows.time_s[0] + 1.0
    seen = time
    if rng is not None:
        time = time * np.exp(rng.uniform(-0.3, 0.3))
        seen = np.sort(time + rng.normal(0, 0.006, time.size))[rng.random(time.size) > 0.01 * rng.integers(0, 3)]
        extra = rng.uniform(time[0], time[-1], int(0.005 * time.size * rng.integers(0, 3)))
        seen = np.sort(np.concatenate([seen, extra]))
    ticks = (time * TICK_RATE).astype(np.int64)
    at = np.unique((seen * TICK_RATE).astype(np.int64))
    row, zero = np.zeros(1, np.int64), np.zeros(at.size, np.int64)
    cutter, far = BeatCutter(1), np.array([at[-1] + 10 * HOP_TICKS])
    cut = cutter.push(row, far, Beats(zero, at, at + DELAY, zero.astype(np.float32), zero), far)
    end = np.arange(2 * HOP_TICKS, int(at[-1]), HOP_TICKS)
    last = np.searchsorted(cut.ready, end, side="right")
    first = np.maximum(np.searchsorted(cut.at, end - TOKEN_HOPS * HOP_TICKS), last - TOKEN_BEATS)
    rhythm, segment = (_label(ticks, label, end, span * HOP_TICKS) for span in (2, 5))
    return cut.at, cut.features[:, :SHAPE], end, last, np.minimum(first, last), rhythm, segment


def _label(at: Int, label: Int, end: Int, span: int) -> npt.NDArray[np.int8]:
    """The one label of all beats in the `span` ticks before each end; -1 where they have several, or are under two."""
    a, b = np.searchsorted(at, end - span), np.searchsorted(at, end)
    changes = np.concatenate([[0], np.cumsum(label[1:] != label[:-1])])
    same = (b - a >= 2) & (changes[np.maximum(b - 1, 0)] == changes[np.minimum(a, at.size - 1)])
    return np.where(same, label[np.minimum(a, at.size - 1)], UNKNOWN).astype(np.int8)
