"""Everything that one record's annotations can be scored on against the reference's, by what the reference holds."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from model.ec57.beats import START_S, Comparison, LabelMap, compare_marks
from model.ec57.episodes import (
    AF,
    FLUTTER,
    VT,
    EpisodeComparison,
    Episodes,
    compare_episodes,
    rhythm_episodes,
    segment_counts,
    union,
)
from model.ec57.marks import Marks
from model.ec57.rates import RateError, heart_rate, measurement_error
from model.ec57.reader import LABEL_MAPS
from model.ec57.runs import RunComparison, compare_runs
from model.ec57.summary import beat_rates, shutdown_rates
from model.ec57.truths import fibrillation, has_beats, has_rhythms, is_paced, unlabelled

AF_SEGMENT_S, VF_SEGMENT_S = 10.0, 4.0

Segments = Mapping[str, tuple[int, int, int, int]]  # TP, FN, FP, TN


@dataclass(frozen=True, slots=True)
class RecordScore:
    """Scores of one record. `paced` records are scored and stay out of the EC57 tables.

    beats: by label map, empty where the reference has no beats; runs: by "V" and "S"; episodes: by "AF", "AF -x", "VF"
    and "VT"; segments: counts by name, over the whole labelled record.
    """

    name: str
    patient: str
    fs: float
    n: int
    paced: bool
    beats: dict[LabelMap, Comparison]
    runs: dict[str, RunComparison]
    episodes: dict[str, EpisodeComparison]
    segments: dict[str, tuple[int, int, int, int]]
    heart_rate: RateError | None
    vf_beats_per_min: float | None  # test beats within reference VF, which no table counts

    @property
    def hours(self) -> float:
        return self.n / self.fs / 3600.0

    def beat_parts(self, label_map: LabelMap) -> dict[str, tuple[int, int]]:
        """Numerators and denominators of the beat rates; empty where there are no reference beats."""
        if label_map not in self.beats:
            return {}
        counts = self.beats[label_map].counts
        return {**beat_rates(counts), **shutdown_rates(counts)}

    def other_parts(self) -> dict[str, tuple[int, int]]:
        """Numerators and denominators of the rates of runs and episodes; durations in ms, as records differ in rate."""
        names = {"V": "VE", "S": "SVE"}
        runs = {f"{names[k]} {name}": part for k, run in self.runs.items() for name, part in run.rates().items()}
        episodes = {f"{k} {name}": part for k, e in self.episodes.items() for name, part in e.rates().items()}
        for name, (top, bottom) in episodes.items():
            if "duration" in name:
                episodes[name] = (round(1000 * top / self.fs), round(1000 * bottom / self.fs))
        return {**runs, **episodes}


def score_record(
    name: str,
    patient: str,
    ref: Marks,
    test: Marks,
    fs: float,
    n: int,
    start_s: float = START_S,
    shockable: list[tuple[int, int, bool]] | None = None,
) -> RecordScore:
    """Score the marks `test` of a record of `n` samples at `fs` against `ref`.

    `shockable`: samples and truth of segments that are scored by shockable rhythm (VF, flutter, VT), as cudb has them;
    segments beside a change of truth are left out.
    """
    beats: dict[LabelMap, Comparison] = {}
    runs: dict[str, RunComparison] = {}
    rate: RateError | None = None
    if has_beats(ref):
        label_map: LabelMap
        for label_map in ("bxb", "literature"):
            beats[label_map] = compare_marks(ref, test, fs, start_s, n, label_map)
        runs = {kind: compare_runs(ref, test, fs, kind, start_s, n) for kind in ("V", "S")}
        rate = measurement_error(*heart_rate(ref, fs, n), *heart_rate(test, fs, n), fs, start_s, n)
    episodes = _episodes(ref, test, fs, n, start_s) if has_rhythms(ref) else {}
    segments = _segments(ref, test, fs, n) if has_rhythms(ref) else {}
    if shockable:
        segments["shockable 5 s"] = shockable_counts(shockable, shocks(test, n))
    return RecordScore(
        name, patient, fs, n, is_paced(ref), beats, runs, episodes, segments, rate, _beats_in_vf(ref, test, fs, n)
    )


def shocks(of: Marks, n: int) -> Episodes:
    """Where an annotator says that the rhythm is shockable: VF, flutter or VT."""
    return union(fibrillation(of, n), rhythm_episodes(of, VT, n))


def shockable_counts(truth: list[tuple[int, int, bool]], said: Episodes) -> tuple[int, int, int, int]:
    """TP, FN, FP, TN over given segments (first sample, end sample, shockable), those beside a change left out."""
    counts = [0, 0, 0, 0]
    for i, (first, end, shockable) in enumerate(truth):
        beside = [truth[j][2] for j in (i - 1, i + 1) if 0 <= j < len(truth)]
        if any(other != shockable for other in beside):
            continue
        covered = sum(max(0, min(end, b) - max(first, a)) for a, b in said.tolist())
        counts[(0 if shockable else 2) + (0 if (2 * covered >= end - first) == shockable else 1)] += 1
    true_positive, false_negative, true_negative, false_positive = counts
    return true_positive, false_negative, false_positive, true_negative


def _episodes(ref: Marks, test: Marks, fs: float, n: int, start_s: float) -> dict[str, EpisodeComparison]:
    ref_af, test_af = rhythm_episodes(ref, AF, n), rhythm_episodes(test, AF, n)
    ref_vt, test_vt = rhythm_episodes(ref, VT, n), rhythm_episodes(test, VT, n)
    return {
        "AF": compare_episodes(ref_af, test_af, fs, n, start_s),
        "AF -x": compare_episodes(ref_af, test_af, fs, n, start_s, exclude=rhythm_episodes(ref, FLUTTER, n)),
        "VF": compare_episodes(fibrillation(ref, n), fibrillation(test, n), fs, n, start_s),
        "VT": compare_episodes(ref_vt, test_vt, fs, n, start_s),
    }


def _segments(ref: Marks, test: Marks, fs: float, n: int) -> dict[str, tuple[int, int, int, int]]:
    """AF by 10 s, flutter left out; VF by 4 s, VT left out, and by itself: how much of it was said to be VF."""
    unknown = unlabelled(ref, n)
    flutter = rhythm_episodes(ref, FLUTTER, n)
    vt = rhythm_episodes(ref, VT, n)
    vf, said_vf = fibrillation(ref, n), fibrillation(test, n)
    af, said_af = rhythm_episodes(ref, AF, n), rhythm_episodes(test, AF, n)
    found = {
        "AF 10 s": segment_counts(af, said_af, fs, n, AF_SEGMENT_S, skip=union(unknown, flutter)),
        "VF 4 s": segment_counts(vf, said_vf, fs, n, VF_SEGMENT_S, skip=union(unknown, vt)),
    }
    said, silent, _, _ = segment_counts(vt, said_vf, fs, n, VF_SEGMENT_S, skip=unknown)
    return {**found, "VT said to be VF 4 s": (said, silent, 0, 0)}


def _beats_in_vf(ref: Marks, test: Marks, fs: float, n: int) -> float | None:
    """Test beats per minute of reference VF, over the whole record; None where there is no VF."""
    vf = fibrillation(ref, n)
    if not len(vf):
        return None
    beats = np.array([s for s, y in zip(test.sample.tolist(), test.symbol, strict=True) if y in LABEL_MAPS["bxb"]], int)
    inside = sum(int(((beats >= first) & (beats < end)).sum()) for first, end in vf.tolist())
    return inside / (float((vf[:, 1] - vf[:, 0]).sum()) / fs / 60.0)
