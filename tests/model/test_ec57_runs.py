"""Runs worked out by hand from the rules of rxr, at 100 Hz: windows reach 15 samples beyond a run."""

import numpy as np
import pytest

from model.ec57.marks import Marks, marks
from model.ec57.runs import RunComparison, compare_runs

FS, START = 100.0, 30_000


def beats(
    symbols: str, shift: int = 0, aux: dict[int, str] | None = None, subtypes: dict[int, int] | None = None
) -> Marks:
    """A mark each 0.5 s from one second after the learning period on; a dot leaves its place empty."""
    at = [START + 100 + 50 * i + shift for i, symbol in enumerate(symbols) if symbol != "."]
    kept = [(i, symbol) for i, symbol in enumerate(symbols) if symbol != "."]
    notes = [(aux or {}).get(i, "") for i, _ in kept]
    return marks(at, [symbol for _, symbol in kept], [(subtypes or {}).get(i, 0) for i, _ in kept], notes)


def cells(of: "np.ndarray[tuple[int, int], np.dtype[np.int64]]") -> dict[tuple[int, int], int]:
    return {(int(i), int(j)): int(of[i, j]) for i, j in zip(*np.nonzero(of), strict=True)}


def both(found: RunComparison) -> list[dict[tuple[int, int], int]]:
    return [cells(found.by_reference), cells(found.by_test)]


def test_equal_runs_are_found_at_their_length() -> None:
    every = beats("NVNVVNVVVNVVVVVNVVVVVVVVN")
    found = compare_runs(every, beats("NVNVVNVVVNVVVVVNVVVVVVVVN", 10), FS)
    assert both(found) == [{(1, 1): 1, (2, 2): 1, (3, 3): 1, (5, 5): 1, (6, 6): 1}] * 2
    assert found.rates() == {
        "couplet Se": (1, 1),
        "couplet +P": (1, 1),
        "short Se": (2, 2),
        "short +P": (2, 2),
        "long Se": (1, 1),
        "long +P": (1, 1),
    }


def test_a_long_run_broken_in_two_is_missed_as_long_and_its_parts_are_right_as_short() -> None:
    found = compare_runs(beats("NVVVVVVVVN"), beats("NVVVNVVVVN"), FS)
    # A run of the test annotator sees of the reference what lies in its own window.
    assert both(found) == [{(6, 4): 1}, {(3, 3): 1, (4, 4): 1}]
    rates = found.rates()
    assert rates["long Se"] == (0, 1)
    assert rates["short +P"] == (2, 2)


def test_a_longer_test_run_answers_a_couplet_and_is_a_false_short_run() -> None:
    found = compare_runs(beats("NNVVNNN"), beats("NNVVVNN"), FS)
    # The window of the couplet ends 150 ms after it, so the third beat is outside of it.
    assert both(found) == [{(2, 2): 1}, {(2, 3): 1}]
    assert found.rates()["couplet Se"] == (1, 1)
    assert found.rates()["short +P"] == (0, 1)


def test_fusion_beats_belong_to_ventricular_runs_and_supraventricular_ones_end_them() -> None:
    assert both(compare_runs(beats("NVFVN"), beats("NVVVN"), FS)) == [{(3, 3): 1}] * 2
    assert both(compare_runs(beats("NVVAVN"), beats("NVVAVN"), FS)) == [{(2, 2): 1, (1, 1): 1}] * 2


def test_vf_is_a_run_of_full_length_for_either() -> None:
    found = compare_runs(beats("NN[..]NN"), beats("NNVVVVNN"), FS)
    assert both(found) == [{(6, 4): 1}, {(6, 4): 1}]
    # The window that a test run opens lies inside of VF.
    assert compare_runs(beats("NN[....]NN"), beats("NN..VV..NN"), FS).rates()["couplet +P"] == (1, 1)


def test_a_rhythm_change_that_says_vf_stands_for_its_brackets() -> None:
    told = beats("NN+..+NN", aux={2: "(VFL", 5: "(N"})
    assert both(compare_runs(told, beats("NN[..]NN"), FS)) == [{(6, 6): 1}] * 2


def test_vf_that_began_in_the_learning_period_runs_from_its_end() -> None:
    ref = marks([START - 500, START + 300, START + 400], list("[]N"))
    assert both(compare_runs(ref, ref, FS)) == [{(6, 6): 1}] * 2


def test_af_is_a_supraventricular_run_of_full_length_and_its_beats_are_s() -> None:
    ref = beats("NN+NNNN+NN", aux={2: "(AFIB", 7: "(N"})
    found = compare_runs(ref, beats("NN.SSNN.NN"), FS, kind="S")
    assert both(found) == [{(6, 2): 1}, {(6, 2): 1}]
    assert cells(compare_runs(ref, ref, FS, kind="V").by_reference) == {}


def test_af_that_was_over_in_the_learning_period_is_no_run() -> None:
    at = [START - 500, START - 400, START + 100, START + 200]
    ref = marks(at, list("++NN"), aux=["(AFIB", "(N", "", ""])
    assert both(compare_runs(ref, ref, FS, kind="S")) == [{}, {}]


def test_an_unreadable_stretch_ends_a_run() -> None:
    ref = beats("NVV~~VVN", subtypes={3: -1})
    assert both(compare_runs(ref, ref, FS)) == [{(2, 2): 2}] * 2


def test_a_run_that_the_file_ends_in_is_closed_there() -> None:
    assert both(compare_runs(beats("NVVV"), beats("NVVV"), FS)) == [{(3, 3): 1}] * 2


def test_a_run_that_goes_on_past_the_end_of_the_test_period_is_not_counted() -> None:
    ref = beats("NVVVVN")
    assert both(compare_runs(ref, ref, FS, end=START + 260)) == [{}, {}]


def test_runs_of_the_learning_period_are_not_counted() -> None:
    at = [START - 300, START - 250, START - 200, START + 100]
    assert both(compare_runs(marks(at, list("VVVN")), marks(at, list("VVVN")), FS)) == [{}, {}]


@pytest.mark.parametrize("other", [marks([], []), beats("NNNN")])
def test_what_the_other_does_not_have_counts_as_length_0(other: Marks) -> None:
    found = compare_runs(beats("NVVN"), other, FS)
    assert both(found) == [{(2, 0): 1}, {}]
    assert both(compare_runs(other, beats("NVVN"), FS)) == [{}, {(0, 2): 1}]
