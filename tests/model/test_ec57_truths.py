"""What the reference says should alarm, and whole records scored, at 100 Hz."""

from pathlib import Path

import numpy as np
import pytest

from model.ec57.beats import compare_marks
from model.ec57.marks import Marks, marks, read_marks
from model.ec57.scoring import score_record, shockable_counts
from model.ec57.truths import alarm_truths, fibrillation, has_beats, is_paced, unlabelled, ventricular_runs

FS, END = 100.0, 60_000


def run_of(symbol: str, n: int, rr: int, first: int = 1000) -> Marks:
    """Normal beats before and after a run."""
    at = [first - 200, first - 100, *(first + i * rr for i in range(n)), first + n * rr + 50]
    return marks(at, ["N", "N", *[symbol] * n, "N"])


def test_five_ventricular_beats_at_100_per_minute_are_a_tachycardia_and_four_or_slower_ones_are_none() -> None:
    assert ventricular_runs(run_of("V", 5, 60), FS).tolist() == [[1000, 1240]]
    assert len(ventricular_runs(run_of("V", 4, 60), FS)) == 0
    assert len(ventricular_runs(run_of("V", 5, 61), FS)) == 0
    assert len(ventricular_runs(run_of("F", 5, 60), FS)) == 0
    assert len(ventricular_runs(run_of("E", 5, 60), FS)) == 1


def test_a_slow_run_counts_from_the_beats_at_which_it_grows_fast() -> None:
    at = [1000, 1100, 1200, 1250, 1300, 1350, 1400, 1500]
    assert ventricular_runs(marks(at, list("VVVVVVVN")), FS).tolist() == [[1200, 1400]]


def test_silence_of_four_seconds_is_asystole_unless_vf_or_noise_fills_it() -> None:
    assert alarm_truths(marks([100, 500, 899], list("NNN")), FS, END)["ASYSTOLE"].tolist() == [[100, 500]]
    for between, subtype in (("[]", 0), ("~~", -1)):
        of = marks([100, 200, 400, 500], ["N", *between, "N"], [0, subtype, 0, 0])
        assert len(alarm_truths(of, FS, END)["ASYSTOLE"]) == 0


def test_extreme_rates_are_those_of_the_heart_rate_rule() -> None:
    fast = alarm_truths(marks(range(100, 4000, 40), ["N"] * 98), FS, END)  # 150 per minute
    assert len(fast["X_TACHY"]) == 1
    assert len(fast["X_BRADY"]) == 0
    slow = alarm_truths(marks(range(100, 4000, 160), ["N"] * 25), FS, END)  # 37.5 per minute
    assert len(slow["X_BRADY"]) == 1


def test_a_record_of_rhythms_alone_has_its_episodes_by_them_and_no_rates() -> None:
    of = marks([18, 100, 200, 300, 400], ["+"] * 5, aux=["(N", "(VT", "(ASYS", "(VFIB", "(N"])
    found = alarm_truths(of, FS, END)
    assert set(found) == {"AFIB", "VFIB", "VTACH", "ASYSTOLE"}
    assert found["VTACH"].tolist() == [[100, 200]]
    assert found["ASYSTOLE"].tolist() == [[200, 300]]
    assert found["VFIB"].tolist() == [[300, 400]]
    assert unlabelled(of, END).tolist() == [[0, 18]]
    assert not has_beats(of)


def test_brackets_tell_vf_where_there_are_some() -> None:
    of = marks([100, 110, 300, 310], ["+", "[", "]", "+"], aux=["(VFL", "", "", "(N"])
    assert fibrillation(of, END).tolist() == [[110, 300]]


@pytest.mark.recordings
def test_the_beats_and_runs_of_ds1_are_as_many_as_published(recordings: Path) -> None:
    names = [
        "101",
        "106",
        "108",
        "109",
        "112",
        "114",
        "115",
        "116",
        "118",
        "119",
        "122",
        "124",
        "201",
        "203",
        "205",
        "207",
        "208",
        "209",
        "215",
        "220",
        "223",
        "230",
    ]
    beats = tachycardias = 0
    for name in names:
        of = read_marks(recordings / "mitdb" / name, "atr")
        found = compare_marks(of, of, 360.0, end=650_000)
        assert found.qrs[1:] == (0, 0)
        beats += found.qrs[0]
        tachycardias += len(ventricular_runs(of, 360.0))
    assert (beats, tachycardias) == (42_463, 9)


def test_paced_records_are_known_by_their_beats() -> None:
    assert is_paced(marks([1, 2], list("N/")))
    assert not is_paced(marks([1, 2], list("Nf")))


def test_shockable_segments_beside_a_change_are_left_out() -> None:
    truth = [(i * 500, (i + 1) * 500, i >= 3) for i in range(6)]  # 3, 4, 5 shockable; 2 and 3 are beside the change
    said = np.array([[0, 250], [2000, 2249], [2500, 3000]], dtype=np.int64)
    # 0: half said (false); 1: not; 4: 249 of 500, not; 5: said.
    assert shockable_counts(truth, said) == (1, 1, 1, 1)


def test_a_record_is_scored_on_all_that_its_reference_holds() -> None:
    beats = list(range(100, 59_000, 100))
    ref = marks(
        [*beats, 50, 35_000, 45_000, 50_010, 52_010],
        [*["N"] * len(beats), "+", "+", "+", "[", "]"],
        aux=[*[""] * len(beats), "(N", "(AFIB", "(N", "", ""],
    )
    found = score_record("r", "p", ref, ref, FS, END)
    assert found.beat_parts("bxb")["QRS Se"] == found.beat_parts("bxb")["QRS +P"]
    assert found.beat_parts("bxb")["QRS Se"][0] == sum(s >= 30_000 and not 50_010 < s < 52_010 for s in beats)
    assert found.other_parts()["AF episode Se"] == (1, 1)
    assert found.other_parts()["VF duration +P"] == (20_000, 20_000)  # ms
    assert found.segments["AF 10 s"] == (10, 0, 0, 49)  # the first one is split from the unlabelled start
    assert found.heart_rate is not None and found.heart_rate.bpm == 0.0
    assert found.vf_beats_per_min == pytest.approx(60.0)
    assert found.hours == pytest.approx(1 / 6)


def test_a_record_without_reference_beats_has_no_beat_tables() -> None:
    ref = marks([10, 30_000], ["+", "+"], aux=["(N", "(VT"])
    found = score_record("r", "p", ref, marks([], []), FS, END)
    assert found.beats == {} and found.runs == {} and found.heart_rate is None
    assert found.other_parts()["VT episode Se"] == (0, 1)
    assert found.segments["VT said to be VF 4 s"] == (0, 75, 0, 0)


def test_durations_of_records_of_different_rates_are_told_in_ms() -> None:
    ref = marks([10, 36_000, 37_000], ["+", "+", "+"], aux=["(N", "(AFIB", "(N"])
    slow = score_record("a", "a", ref, ref, 100.0, END).other_parts()["AF duration Se"]
    fast = score_record("b", "b", ref, ref, 110.0, END).other_parts()["AF duration Se"]
    assert slow == (10_000, 10_000)
    assert fast == (9_091, 9_091)


def test_near_rates_hold_within_10_percent_of_the_limit() -> None:
    found = alarm_truths(marks(range(100, 4000, 45), ["N"] * 87), FS, END)  # 133 per minute
    assert len(found["X_TACHY"]) == 0
    assert len(found["near X_TACHY"]) == 1
