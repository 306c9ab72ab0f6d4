"""Episodes worked out by hand from the rules of epicmp, at 100 Hz."""

import numpy as np

from model.ec57.episodes import (
    AF,
    FLUTTER,
    VF,
    compare_episodes,
    rhythm_episodes,
    segment_counts,
    union,
    vf_episodes,
)
from model.ec57.marks import marks

FS, START, END = 100.0, 30_000, 100_000


def spans(*pairs: tuple[int, int]) -> "np.ndarray[tuple[int, ...], np.dtype[np.int64]]":
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def test_af_runs_from_its_rhythm_change_to_the_next_of_another_name() -> None:
    at = [10, 40_000, 45_000, 50_000, 60_000, 70_000]
    of = marks(at, ["+"] * 6, aux=["(N", "(AFIB", "(AFIB", "(AFL", "(N", "(AFIB"])
    assert rhythm_episodes(of, AF, END).tolist() == [[40_000, 50_000], [70_000, END]]
    assert rhythm_episodes(of, FLUTTER, END).tolist() == [[50_000, 60_000]]


def test_notes_on_other_marks_change_no_rhythm() -> None:
    of = marks([10, 20, 30], ["+", '"', "+"], aux=["(VF", "(N", "(N"])
    assert rhythm_episodes(of, VF, END).tolist() == [[10, 30]]


def test_vf_runs_from_bracket_to_bracket_and_to_the_end_where_none_closes_it() -> None:
    of = marks([10, 20, 30, 40, 50], ["[", "[", "]", "]", "["])
    assert vf_episodes(of, END).tolist() == [[10, 30], [50, END]]
    assert vf_episodes(marks([], []), END).shape == (0, 2)


def test_any_overlap_finds_an_episode_and_durations_weigh_its_length() -> None:
    ref = spans((40_000, 50_000), (60_000, 61_000))
    test = spans((49_000, 52_000), (70_000, 71_000))
    rates = compare_episodes(ref, test, FS, END).rates()
    assert rates == {
        "episode Se": (1, 2),
        "episode +P": (1, 2),
        "duration Se": (1000, 11_000),
        "duration +P": (1000, 4000),
    }


def test_episodes_that_only_touch_do_not_overlap() -> None:
    rates = compare_episodes(spans((40_000, 50_000)), spans((50_000, 60_000)), FS, END).rates()
    assert rates["episode Se"] == (0, 1)
    assert rates["duration +P"] == (0, 10_000)


def test_what_lies_in_the_learning_period_and_after_the_end_is_cut_off() -> None:
    ref = spans((1000, 20_000), (25_000, 31_000), (99_000, 120_000))
    found = compare_episodes(ref, spans((0, 120_000)), FS, END)
    assert found.ref.tolist() == [[START, 31_000], [99_000, END]]
    assert found.rates()["duration Se"] == (2000, 2000)
    assert found.rates()["duration +P"] == (2000, END - START)


def test_an_episode_that_ends_as_the_learning_period_does_is_asked_for_as_epicmp_asks() -> None:
    assert compare_episodes(spans((1000, START)), spans((1000, START)), FS, END).rates()["episode Se"] == (0, 1)


def test_an_open_episode_lasts_to_the_last_mark_where_that_lies_beyond_the_end() -> None:
    assert vf_episodes(marks([10, END + 50], ["[", "N"]), END).tolist() == [[10, END + 50]]


def test_one_episode_may_answer_many_and_many_one() -> None:
    ref, test = spans((40_000, 60_000)), spans((41_000, 42_000), (43_000, 44_000), (59_000, 61_000))
    rates = compare_episodes(ref, test, FS, END).rates()
    assert rates["episode Se"] == (1, 1)
    assert rates["episode +P"] == (3, 3)
    assert rates["duration Se"] == (3000, 20_000)
    assert rates["duration +P"] == (3000, 4000)


def test_excluded_flutter_takes_its_part_off_the_positive_predictivity_alone() -> None:
    ref, test = spans((40_000, 50_000)), spans((45_000, 56_000), (57_000, 58_000))
    flutter = spans((50_000, 60_000))
    found = compare_episodes(ref, test, FS, END, exclude=flutter)
    assert found.rates() == {
        "episode Se": (1, 1),
        "episode +P": (1, 1),
        "duration Se": (5000, 10_000),
        "duration +P": (5000, 5000),
    }
    # An episode that begins within it keeps what comes after.
    late = compare_episodes(spans((60_000, 70_000)), spans((59_000, 62_000)), FS, END, exclude=flutter)
    assert late.test.tolist() == [[60_000, 62_000]]
    assert late.rates()["duration +P"] == (2000, 2000)
    # One that holds it whole loses its length.
    round_it = compare_episodes(ref, spans((45_000, 65_000)), FS, END, exclude=flutter)
    assert round_it.test_duration == 10_000


def test_episodes_too_short_are_not_asked_for_and_may_answer() -> None:
    ref, test = spans((40_000, 40_500), (50_000, 52_000)), spans((50_100, 50_200))
    rates = compare_episodes(ref, test, FS, END, at_least_s=10).rates()
    assert rates["episode Se"] == (1, 1)
    assert rates["episode +P"] == (0, 0)


def test_a_union_joins_what_overlaps_or_touches() -> None:
    joined = union(spans((10, 20), (50, 60)), spans((15, 30), (30, 40)), spans())
    assert joined.tolist() == [[10, 40], [50, 60]]


def test_segments_are_called_by_their_larger_part_and_split_ones_are_left_out() -> None:
    # Segments of 10 s: [0,1000) [1000,2000) ...; the reference splits the third and fills the fourth and fifth.
    ref = spans((2500, 5000))
    test = spans((0, 500), (3600, 4400), (5499, 6000))
    # Segment 0: said (500 of 1000); 1: not; 2: split; 3: not said (400); 4: not said (400); 5: said (501).
    assert segment_counts(ref, test, FS, 6999, 10) == (0, 2, 2, 1)
    assert segment_counts(ref, spans((3000, 5000)), FS, 6999, 10) == (2, 0, 0, 3)
    assert segment_counts(ref, test, FS, 6999, 10, skip=spans((0, 1))) == (0, 2, 1, 1)
    assert segment_counts(ref, test, FS, 999, 10) == (0, 0, 0, 0)
