"""Runs of ectopic beats, ventricular and supraventricular, one annotator's against the other's (rxr).

After WFDB rxr (revision of April 2020). A run of one annotator opens a window from 150 ms before its first beat
to 150 ms after its last; the longest run of the other annotator within that window answers it. Lengths are capped
at 6. Sensitivity goes by the reference's runs, positive predictivity by the test's.

As rxr has it: F beats belong to ventricular runs; VF is a ventricular run of full length; AF and flutter (any
rhythm that begins with `(AF`) are a supraventricular run of full length, and normal beats within count as S; a run
that is still open at the end of the file is closed there, one that goes on past the end of the test period is not
counted. One departure: each pass starts afresh, where rxr's second pass begins with the mark its first pass ended at.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from model.ec57.beats import START_S, WINDOW_S
from model.ec57.marks import SHUTDOWN_BITS, Marks, samples_of

MAX_RUN = 6
Ectopic = Literal["V", "S"]
Matrix = npt.NDArray[np.int64]

_BEATS = {
    **dict.fromkeys("JASajen", "S"),
    **dict.fromkeys("VrE", "V"),
    "F": "F",
    **dict.fromkeys("Q?/f", "Q"),
}
_NORMAL = frozenset("NLRB")


@dataclass(frozen=True, slots=True)
class RunComparison:
    """Runs of one record compared. Both matrices int64 (7, 7): rows reference and columns test run length, 0 to 6.

    `by_reference`: one count per run of the reference; `by_test`: one per run of the test annotator.
    """

    by_reference: Matrix
    by_test: Matrix

    def rates(self) -> dict[str, tuple[int, int]]:
        """Numerator and denominator of each rate: couplets (2), short runs (3 to 5), long runs (6 and more)."""
        found: dict[str, tuple[int, int]] = {}
        for name, first, last in (("couplet", 2, 2), ("short", 3, 5), ("long", 6, MAX_RUN)):
            reference = self.by_reference[first : last + 1]
            found[f"{name} Se"] = (int(reference[:, first:].sum()), int(reference.sum()))
            test = self.by_test[:, first : last + 1]
            found[f"{name} +P"] = (int(test[first:].sum()), int(test.sum()))
        return found


def compare_runs(
    ref: Marks, test: Marks, fs: float, kind: Ectopic = "V", start_s: float = START_S, end: int | None = None
) -> RunComparison:
    """Compare the ventricular ("V") or supraventricular ("S") runs of two annotators of one record.

    `end`: the record's length in samples, or None to go on to the last mark.
    """
    window, start = samples_of(WINDOW_S, fs), samples_of(start_s, fs)
    by_reference = np.zeros((MAX_RUN + 1, MAX_RUN + 1), np.int64)
    by_test = np.zeros_like(by_reference)
    for mine, other in _runs(ref, test, kind, window, start, end):
        by_reference[mine, other] += 1
    for mine, other in _runs(test, ref, kind, window, start, end):
        by_test[other, mine] += 1
    return RunComparison(by_reference, by_test)


def _runs(of: Marks, by: Marks, kind: Ectopic, window: int, start: int, end: int | None) -> list[tuple[int, int]]:
    """Length of each run of `of`, beside that of the longest run of `by` in its window."""
    label, other = _Labeller(of), _Other(by, kind)
    begins, ends, belongs = ("[", "]", "VF") if kind == "V" else ("{", "}", "S")
    n, i, length = len(of), 0, 0
    while i < n and of.sample[i] < start:
        met = label(i)
        if met == begins:
            length = MAX_RUN
        elif met in "]}":
            length = 0
        i += 1
    # What began in the learning period is taken to begin where that ends.
    first, last = (start - window, start + window) if length else (0, 0)

    found: list[tuple[int, int]] = []
    while i < n and (end is None or of.sample[i] <= end):
        at, met = int(of.sample[i]), label(i)
        i += 1
        if length == 0:
            if met in belongs:
                length, first, last = 1, at - window, at + window
            elif met == begins:
                # As in rxr the window's end is set by the mark that ends the episode, and is stale until then.
                length, first = MAX_RUN, at - window
        elif met in belongs:
            length, last = min(length + 1, MAX_RUN), at + window
        elif met == ends:
            last = at + window
        elif met in "NQUVFS":
            found.append((length, other.longest(first, last)))
            length = 0
    if i == n and length:
        found.append((length, other.longest(first, last)))
    return found


class _Labeller:
    """Labels of the run comparison: N S V F Q, `[` `]` VF, `{` `}` AF, U unreadable, C readable again, O the rest.

    A label depends on the state that the marks before have left, so each mark is labelled once, in order.
    """

    def __init__(self, of: Marks) -> None:
        self._of = of
        self._af = self._vf = self._unreadable = False

    def __call__(self, i: int) -> str:
        symbol = self._of.symbol[i]
        if symbol in _NORMAL:
            return "S" if self._af else "N"
        if symbol in _BEATS:
            return _BEATS[symbol]
        if symbol == "~":
            return self._noise((int(self._of.subtype[i]) & SHUTDOWN_BITS) == SHUTDOWN_BITS)
        if symbol == "[" or (symbol == "+" and self._of.aux[i].startswith("(VF")):
            if self._vf:
                return "O"
            self._af, self._vf = False, True
            return "["
        if symbol == "]":
            was, self._vf = self._vf, False
            return "]" if was else "O"
        if symbol == "+" and self._of.aux[i]:
            return self._rhythm(self._of.aux[i])
        return "O"

    def _noise(self, shutdown: bool) -> str:
        was, self._unreadable = self._unreadable, shutdown
        return "O" if was == shutdown else ("U" if shutdown else "C")

    def _rhythm(self, name: str) -> str:
        if name.startswith("(AF"):
            was, self._af = self._af, True
            if not was:
                self._vf = False
            return "O" if was else "{"
        if self._af:
            self._af = False
            return "}"
        if self._vf:
            self._vf = False
            return "]"
        return "O"


class _Other:
    """The annotator that answers: read forward only, as windows come in order."""

    def __init__(self, of: Marks, kind: Ectopic) -> None:
        self._of = of
        self._label = _Labeller(of)
        self._begins, self._over, self._belongs = ("[", "]{U", "VF") if kind == "V" else ("{", "}[U", "S")
        self._i = 0
        self._episode_end: int | None = 0

    def longest(self, first: int, last: int) -> int:
        """Length of the longest run between samples `first` and `last`, both included."""
        if self._episode_end is None or self._episode_end > first:
            return MAX_RUN
        at = self._of.sample
        while self._i < len(at) and at[self._i] < first:
            if self._next() == self._begins:
                self._pass_episode()
                if self._episode_end is None or self._episode_end > first:
                    return MAX_RUN
                self._i += 1  # the mark that ended it is done with
        best = length = 0
        while self._i < len(at) and at[self._i] <= last:
            met = self._next()
            if met == self._begins:
                self._pass_episode()
                return MAX_RUN
            if met in self._belongs:
                length = min(length + 1, MAX_RUN)
            elif met in "NQUVFS[{":
                best, length = max(best, length), 0
        return max(best, length)

    def _next(self) -> str:
        self._i += 1
        return self._label(self._i - 1)

    def _pass_episode(self) -> None:
        """Go to the mark that ends an episode of VF or AF, and note its time; None where the file ends first."""
        self._episode_end = None
        while self._i < len(self._of):
            if self._label(self._i) in self._over:
                self._episode_end = int(self._of.sample[self._i])
                return
            self._i += 1
