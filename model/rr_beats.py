"""Beats known by their class and time alone: those of the VitalDB arrhythmia database, which has no waveforms.

They go through the same `BeatCutter` as detected ones, so the RR expert meets in service what it learnt from. Of 386
patients some two hundred have supraventricular ectopic beats, against eleven in the half of mitdb that has waveforms.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from model import datasets
from model.datasets import RrRows
from model.labels import BEATS
from model.periods import Beats
from model.pool import Pool
from model.resample import TICK_RATE
from model.segments import CONTEXT, N_FEATURES, BeatCutter, Float, Int

SOURCE = "vitaldb-rhythm"
CLASSES = "NSV"
UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class RrBeats:
    """Beats (n) of all cases one after another, those without a class left out."""

    of_beat: Int  # (n,) number of the case
    context: Float  # (n, N_CONTEXT): the RR context of `model.segments`
    label: npt.NDArray[np.int8]  # (n,) index into CLASSES

    def of_patients(self, patients: Int) -> "RrBeats":
        """Beats of these cases, by their number."""
        mine = np.isin(self.of_beat, patients)
        return RrBeats(self.of_beat[mine], self.context[mine], self.label[mine])

    def features(self, index: Int) -> Float:
        """Features (k, N_FEATURES) of beats, 0 where they need samples."""
        out = np.zeros((index.size, N_FEATURES), np.float32)
        out[:, CONTEXT] = self.context[index]
        return out


def load(limit: int | None = None) -> RrBeats:
    """All cases, or `limit` of them. Raises DatasetError where the database is not found."""
    cases = datasets.rr_cases(SOURCE)
    if limit is not None:
        cases = cases[:: max(len(cases) // limit, 1)][:limit]
    parts = [_cut(datasets.rr_rows(case, SOURCE)) for case in tqdm(cases, desc=f"cut {SOURCE}", unit="case")]
    of_beat = np.repeat(np.arange(len(parts)), [label.size for _, label in parts])
    return RrBeats(of_beat, np.concatenate([c for c, _ in parts]), np.concatenate([y for _, y in parts]))


def of_pool(pool: Pool, beats: Int) -> RrBeats:
    """Detected beats `beats` of the pool, where the database is not at hand: far fewer patients."""
    label = np.array([CLASSES.find(name) for name in BEATS])[pool.beat[beats]]
    beats, label = beats[label >= 0], label[label >= 0]
    return RrBeats(pool.of_beat[beats], pool.beat_features[beats, CONTEXT], label.astype(np.int8))


def _cut(rows: RrRows) -> tuple[Float, npt.NDArray[np.int8]]:
    """Context and class of the beats that have one.

    The database calls every beat of atrial fibrillation S; here they are N, as in mitdb, where S is an early beat.
    Those of sinus node dysfunction, many of them escape beats, are left out, as is what was marked as of bad quality.
    """
    at = np.round((rows.time_s - rows.time_s[0]) * TICK_RATE).astype(np.int64)
    beat, rhythm = np.array(rows.beats), np.array(rows.rhythms)
    label = np.array([CLASSES.find(symbol) if symbol else UNKNOWN for symbol in rows.beats])
    label[(beat == "S") & (rhythm == "AFIB/AFL")] = CLASSES.index("N")
    label[((beat == "S") & (rhythm == "SND")) | rows.bad] = UNKNOWN
    first = np.concatenate([[True], np.diff(at) > 30])
    at, label = at[first], label[first]
    row, zero, far = np.zeros(1, np.int64), np.zeros(at.size, np.int64), np.array([at[-1] + 10**6])
    cut = BeatCutter(1).push(row, far, Beats(zero, at, at, zero.astype(np.float32), zero), far)
    known = label >= 0
    return cut.features[known, CONTEXT], label[known].astype(np.int8)
