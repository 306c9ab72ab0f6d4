"""Episodes of AF and of VF, one annotator's against the other's (epicmp), and the same by fixed segments.

After WFDB epicmp (revision of April 2020): an episode counts as found where any of it overlaps an episode of the
other annotator; durations weigh length. What lies in the learning period or after the end is cut off. An episode
without an end lasts to the end of the record. AF is the rhythm `(AFIB` alone, flutter ends it; VF runs from `[` to `]`.

epicmp excludes reference flutter from the positive predictivity of AF only where asked for it (`-x`, as EC38:1998
had it): `exclude` here. There we depart from it: epicmp lengthens an episode that begins inside an exclusion by the
part that is excluded (a sign), we shorten it. Ours: any rhythm by name, so that VT, SVT and records whose VF is told by
rhythm changes (vfdb) are scored in the same way, and segments, so that short episodes count.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.ec57.beats import START_S
from model.ec57.marks import Marks, Samples, samples_of

Episodes = Samples  # int64 (n, 2): onset and end of each, in samples, in order, not overlapping

AF = ("(AFIB",)
FLUTTER = ("(AFL",)
VF = ("(VFL", "(VFIB", "(VF")
VT = ("(VT",)


@dataclass(frozen=True, slots=True)
class EpisodeComparison:
    """Episodes of one kind in one record compared; durations in samples.

    `ref_found` says for each reference episode of the test period, and `test_found` for each test episode, whether
    it overlaps; `ref` and `test` are those episodes, cut to the period.
    """

    ref: Episodes
    test: Episodes
    ref_found: npt.NDArray[np.bool_]
    test_found: npt.NDArray[np.bool_]
    ref_duration: int
    ref_overlap: int
    test_duration: int
    test_overlap: int

    def rates(self) -> dict[str, tuple[int, int]]:
        """Numerator and denominator of each rate; those of durations in samples."""
        return {
            "episode Se": (int(self.ref_found.sum()), len(self.ref)),
            "episode +P": (int(self.test_found.sum()), len(self.test)),
            "duration Se": (self.ref_overlap, self.ref_duration),
            "duration +P": (self.test_overlap, self.test_duration),
        }


def rhythm_episodes(of: Marks, names: Sequence[str], end: int) -> Episodes:
    """Stretches under a rhythm whose name begins with one of `names`.

    `end`: the record's length in samples, where a rhythm without an end ends.
    """
    found: list[tuple[int, int]] = []
    onset: int | None = None
    for at, symbol, note in zip(of.sample.tolist(), of.symbol, of.aux, strict=True):
        if symbol != "+":
            continue
        ours = note.startswith(tuple(names))
        if ours and onset is None:
            onset = at
        elif not ours and onset is not None:
            found.append((onset, at))
            onset = None
    return _closed(found, onset, of, end)


def vf_episodes(of: Marks, end: int) -> Episodes:
    """Stretches from `[` to `]`, in which WFDB counts flutter too."""
    found: list[tuple[int, int]] = []
    onset: int | None = None
    for at, symbol in zip(of.sample.tolist(), of.symbol, strict=True):
        if symbol == "[" and onset is None:
            onset = at
        elif symbol == "]" and onset is not None:
            found.append((onset, at))
            onset = None
    return _closed(found, onset, of, end)


def union(*groups: Episodes) -> Episodes:
    """All episodes of several groups, those that overlap or touch made one."""
    every = sorted((int(a), int(b)) for group in groups for a, b in group)
    joined: list[tuple[int, int]] = []
    for onset, end in every:
        if joined and onset <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((onset, end))
    return _array(joined)


def compare_episodes(
    ref: Episodes,
    test: Episodes,
    fs: float,
    end: int,
    start_s: float = START_S,
    exclude: Episodes | None = None,
    at_least_s: float = 0.0,
) -> EpisodeComparison:
    """Compare the episodes of two annotators of one record of `end` samples.

    `exclude`: stretches left out of the positive predictivity (`-x` of epicmp: reference flutter, for AF).
    `at_least_s`: shorter episodes are not asked for, though they may answer (`-i` of epicmp).
    """
    start, least = samples_of(start_s, fs), samples_of(at_least_s, fs)
    asked, ref_lengths = _asked(ref, start, end, least, None)
    told, test_lengths = _asked(test, start, end, least, exclude)
    ref_overlap, test_overlap = _overlap(asked, test), _overlap(told, ref)
    return EpisodeComparison(
        asked,
        told,
        ref_overlap > 0,
        test_overlap > 0,
        int(ref_lengths.sum()),
        int(ref_overlap.sum()),
        int(test_lengths.sum()),
        int(test_overlap.sum()),
    )


def segment_counts(
    ref: Episodes,
    test: Episodes,
    fs: float,
    end: int,
    length_s: float,
    start_s: float = 0.0,
    skip: Episodes | None = None,
) -> tuple[int, int, int, int]:
    """TP, FN, FP, TN over segments of `length_s` from `start_s` on, each called by what fills most of it.

    Segments that a reference change splits are left out, as their truth is not one thing, and so are those that
    overlap `skip` (unlabelled stretches).
    """
    width, start = samples_of(length_s, fs), samples_of(start_s, fs)
    n = max(0, (end - start) // width)
    edges = start + width * np.arange(n, dtype=np.int64)
    windows = np.stack([edges, edges + width], axis=1).reshape(n, 2)
    truth = _overlap(windows, ref)
    keep = (truth == 0) | (truth == width)
    if skip is not None:
        keep &= _overlap(windows, skip) == 0
    is_true = truth[keep] > 0
    said = 2 * _overlap(windows, test)[keep] >= width
    return (
        int((is_true & said).sum()),
        int((is_true & ~said).sum()),
        int((~is_true & said).sum()),
        int((~is_true & ~said).sum()),
    )


def _asked(of: Episodes, start: int, end: int, least: int, exclude: Episodes | None) -> tuple[Episodes, Samples]:
    """The episodes of the test period that are asked for, cut to it, and what is left of the length of each."""
    kept: list[tuple[int, int]] = []
    lengths: list[int] = []
    for onset, over in of.tolist():
        if over < start or onset >= end:
            continue
        first, last = max(onset, start), min(over, end)
        length = last - first
        for ex_first, ex_last in [] if exclude is None else exclude.tolist():
            if last <= ex_first:
                break
            if ex_first <= first <= ex_last:
                if last <= ex_last:
                    length = -1
                    break
                length -= ex_last - first
                first = ex_last
            elif first <= ex_first <= last:
                if ex_last < last:
                    length -= ex_last - ex_first
                else:
                    length -= last - ex_first
                    last = ex_first
        if length >= least:
            kept.append((first, last))
            lengths.append(length)
    return _array(kept), np.array(lengths, dtype=np.int64)


def _overlap(windows: Episodes, of: Episodes) -> Samples:
    """Samples of each window that lie in the episodes `of`, which do not overlap each other."""
    if len(of) == 0 or len(windows) == 0:
        return np.zeros(len(windows), np.int64)
    before = np.concatenate([[0], np.cumsum(of[:, 1] - of[:, 0])])

    def covered(until: Samples) -> Samples:
        k = np.searchsorted(of[:, 0], until, side="right")
        last = np.maximum(k - 1, 0)
        partial = np.clip(until - of[last, 0], 0, of[last, 1] - of[last, 0])
        return np.asarray(np.where(k > 0, before[last] + partial, 0), dtype=np.int64)

    return covered(windows[:, 1]) - covered(windows[:, 0])


def _closed(found: list[tuple[int, int]], onset: int | None, of: Marks, end: int) -> Episodes:
    if onset is not None:
        found.append((onset, max(end, int(of.sample[-1]))))
    return _array(found)


def _array(pairs: Iterable[tuple[int, int]]) -> Episodes:
    return np.array(list(pairs), dtype=np.int64).reshape(-1, 2)
