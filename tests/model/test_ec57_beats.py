"""Pairs of annotations with outcomes worked out by hand from the rules of bxb, at 100 Hz: the window is 15 samples."""

import math
from pathlib import Path

import numpy as np
import pytest

from model.ec57.beats import LABELS, Comparison, compare, compare_marks
from model.ec57.marks import Marks, marks, read_marks, samples_of, write_marks

FS = 100.0
START = 30_000  # the first five minutes


def pairs(found: Comparison) -> str:
    """The pairs as bxb's verbose mode tells them: reference label, test label in lower case."""
    return " ".join(r + t.lower() for r, t in zip(found.ref, found.test, strict=True))


def counts(found: Comparison) -> dict[str, int]:
    return {
        LABELS[i] + LABELS[j].lower(): int(found.counts[i, j]) for i, j in zip(*np.nonzero(found.counts), strict=True)
    }


def beats(samples: list[int], symbols: str = "", subtypes: dict[int, int] | None = None) -> Marks:
    kinds = [(subtypes or {}).get(i, 0) for i in range(len(samples))]
    return marks(samples, list(symbols or "N" * len(samples)), kinds)


def after(*samples: int) -> list[int]:
    return [START + sample for sample in samples]


def test_each_symbol_goes_to_its_class_and_escapes_are_s_under_the_map_of_bxb() -> None:
    symbols = "NLRBJASajenVrEFQ/f?"
    at = after(*range(100, 100 + 100 * len(symbols), 100))
    found = compare(at, list(symbols), at, ["N"] * len(at), FS)
    assert "".join(found.ref) == "NNNNSSSSSSSVVVFQQQQ"
    assert counts(found) == {"Nn": 4, "Sn": 7, "Vn": 3, "Fn": 1, "Qn": 4}
    assert found.qrs == (19, 0, 0)
    literature = compare(at, list(symbols), at, ["N"] * len(at), FS, label_map="literature")
    assert "".join(literature.ref) == "NNNNSSSSNNNVVVFQQQQ"


def test_a_match_at_the_edge_of_the_window_counts_and_one_sample_further_does_not() -> None:
    ref = after(100, 300, 500, 700)
    found = compare(ref, "NVNV", after(115, 285, 516, 684), "NVNV", FS)
    assert pairs(found) == "Nn Vv No On Ov Vo"
    assert found.ref_at.tolist() == [*after(100, 300, 500), -1, -1, START + 700]
    assert found.test_at.tolist() == [*after(115, 285), -1, *after(516, 684), -1]


@pytest.mark.parametrize(("fs", "window"), [(100.0, 15), (125.0, 19), (250.0, 38), (360.0, 54), (128.0, 19)])
def test_the_window_is_150_ms_with_half_a_sample_rounded_up(fs: float, window: int) -> None:
    assert samples_of(0.15, fs) == window
    first = samples_of(300, fs) + 1000
    assert compare([first], "N", [first + window], "N", fs).qrs == (1, 0, 0)
    assert compare([first], "N", [first + window + 1], "N", fs).qrs == (0, 1, 0)


def test_of_two_test_beats_for_one_reference_beat_the_nearer_one_is_its_partner() -> None:
    assert pairs(compare(after(100, 500), "NN", after(90, 104, 500), "VNN", FS)) == "Ov Nn Nn"
    assert pairs(compare(after(100, 500), "NN", after(96, 110, 500), "NVN", FS)) == "Nn Ov Nn"
    assert pairs(compare(after(100, 500), "NN", after(102, 108, 500), "NVN", FS)) == "Nn Ov Nn"


def test_of_two_test_beats_equally_near_the_later_one_is_taken() -> None:
    assert pairs(compare(after(100, 500), "NN", after(95, 105, 500), "VNN", FS)) == "Ov Nn Nn"


def test_of_two_reference_beats_for_one_test_beat_the_nearer_one_is_its_partner() -> None:
    assert pairs(compare(after(90, 104, 500), "VNN", after(100, 500), "NN", FS)) == "Vo Nn Nn"
    assert pairs(compare(after(95, 105, 500), "VNN", after(100, 500), "NN", FS)) == "Vo Nn Nn"


def test_a_rival_that_has_a_better_partner_of_its_own_is_no_rival() -> None:
    # The example that bxb gives for its rule of 2002, at 250 Hz with its window of 37: here scaled to 15.
    ref, test = after(96, 110), after(103, 112)
    # test 103 is as near to reference 110 as to 96, but 112 is the nearer partner of 110.
    assert pairs(compare(ref, "VN", test, "VN", FS)) == "Vv Nn"
    # Roles reversed.
    assert pairs(compare(test, "VN", ref, "VN", FS)) == "Vv Nn"
    # Without the better partner the tie costs the first reference beat.
    assert pairs(compare(ref, "VN", after(103), "V", FS)) == "Vo Nv"


def test_beats_of_the_learning_period_are_not_counted() -> None:
    found = compare(
        [100, START - 50, START, START + 200], "NVNV", [100, START - 50, START + 1, START + 200], "VNNV", FS
    )
    assert pairs(found) == "Nn Vv"


def test_the_last_test_beat_of_the_learning_period_may_match_the_first_reference_beat_after_it() -> None:
    found = compare(after(5, 200), "VN", after(-8, 200), "VN", FS)
    assert pairs(found) == "Vv Nn"
    # One that is further than the next test beat may not.
    assert pairs(compare(after(5, 200), "VN", after(-8, 7, 200), "NVN", FS)) == "Vv Nn"


def test_a_test_beat_just_after_the_learning_period_whose_partner_lies_in_it_is_dropped() -> None:
    found = compare(after(-3, 100), "NN", after(2, 100), "VN", FS)
    assert pairs(found) == "Nn"
    # Beyond 150 ms into the test period it counts as an extra beat.
    assert pairs(compare(after(-3, 100), "NN", after(16, 100), "VN", FS)) == "Ov Nn"


def test_with_no_learning_period_the_first_beats_count() -> None:
    assert pairs(compare([50, 150], "NV", [52, 148], "NV", FS, start_s=0)) == "Nn Vv"


def test_a_missed_beat_is_o_and_one_missed_in_declared_shutdown_is_x() -> None:
    ref = beats(after(100, 200, 300, 400, 500))
    test = beats(after(100, 150, 350, 400, 500), "N~~NN", {1: -1})
    assert pairs(compare_marks(ref, test, FS)) == "Nn Nx Nx Nn Nn"
    found = compare_marks(ref, beats(after(100, 400, 500)), FS)
    assert pairs(found) == "Nn No No Nn Nn"
    assert found.qrs == (3, 2, 0)
    assert compare_marks(ref, test, FS).shutdown_s == 2.0


def test_a_noise_mark_that_leaves_a_lead_readable_is_no_shutdown() -> None:
    ref, test = beats(after(100, 200, 300)), beats(after(100, 150, 250, 300), "N~~N", {1: 0x10})
    assert pairs(compare_marks(ref, test, FS)) == "Nn No Nn"


def test_a_lone_shutdown_mark_reaches_from_the_beat_before_it_to_the_mark_after_it() -> None:
    # From 100 + 15 to 400 - 15: 300 is inside.
    ref = beats(after(100, 300, 400))
    test = beats(after(100, 250, 400), "N~N", {1: -1})
    found = compare_marks(ref, test, FS)
    assert pairs(found) == "Nn Nx Nn"
    assert found.shutdown_s == pytest.approx(2.7)
    # A beat nearer than the window to the beat before is outside of the shutdown: 114 < 115.
    close = compare_marks(beats(after(100, 114, 400)), test, FS)
    assert pairs(close) == "Nn No Nn"


def test_a_shutdown_without_an_end_lasts_to_the_end_of_the_record() -> None:
    ref = beats(after(100, 200, 300))
    test = beats(after(100, 150), "N~", {1: -1})
    found = compare_marks(ref, test, FS, end=START + 500)
    assert pairs(found) == "Nn Nx Nx"
    assert found.shutdown_s == 3.5


def test_test_beats_in_reference_shutdown_are_x_and_false_positives() -> None:
    ref = beats(after(100, 150, 350, 400), "N~~N", {1: -1})
    found = compare_marks(ref, beats(after(100, 200, 300, 400), "NVNN"), FS)
    assert counts(found) == {"Nn": 2, "Xv": 1, "Xn": 1}
    assert found.qrs == (2, 0, 2)


def test_beats_in_reference_vf_are_not_counted_and_flutter_waves_are_no_beats() -> None:
    ref = beats(after(100, 150, 180, 200, 220, 350, 400), "N[!!!]N")
    found = compare_marks(ref, beats(after(100, 200, 300, 400), "NVVN"), FS)
    assert pairs(found) == "Nn *v *v Nn"
    assert counts(found) == {"Nn": 2}


def test_reference_beats_in_test_marked_vf_are_missed_as_any_other() -> None:
    found = compare_marks(beats(after(100, 200, 300)), beats(after(100, 150, 250, 300), "N[]N"), FS)
    assert pairs(found) == "Nn No Nn"


def test_vf_without_an_end_swallows_what_follows() -> None:
    found = compare_marks(beats(after(100, 150, 200), "N[N"), beats(after(100, 200), "NN"), FS, end=START + 400)
    assert pairs(found) == "Nn *n"


def test_beats_after_the_end_are_not_read_and_test_beats_before_it_are() -> None:
    ref, test = after(100, 900), after(100, 400, 900)
    assert pairs(compare(ref, "NN", test, "NVN", FS, end=START + 500)) == "Nn Ov"
    # Without a known end the comparison goes on to the last reference beat.
    assert pairs(compare(ref, "NN", after(100, 400, 900, 1200), "NVNN", FS)) == "Nn Ov Nn"


def test_no_test_beats_at_all_are_all_missed() -> None:
    found = compare(after(100, 200), "NV", [], "", FS, end=START + 300)
    assert pairs(found) == "No Vo"
    assert math.isnan(found.rr_ms) and math.isnan(found.rr_matched_ms)


def test_no_reference_beats_make_all_test_beats_extra() -> None:
    assert pairs(compare([], "", after(100, 200), "NV", FS, end=START + 300)) == "On Ov"


def test_the_rr_error_of_bxb_takes_every_pair_and_ours_beside_it_only_matches() -> None:
    # Intervals: reference 100 100 100; test 100+2, then an extra beat splits the second, then 100-2.
    ref, test = after(0, 100, 200, 300), after(0, 102, 150, 200, 298)
    found = compare(ref, "NNNN", test, "NNNNN", FS)
    assert pairs(found) == "Nn Nn On Nn Nn"
    # bxb: pair 2: 100-102; the extra beat: 100 (to reference 200) - 48; pair 3: 100-50; pair 4: 100-98.
    assert found.n_rr == 4
    assert found.rr_ms == pytest.approx(math.sqrt((4 + 52**2 + 50**2 + 4) / 4) * 10)
    assert found.n_rr_matched == 2
    assert found.rr_matched_ms == pytest.approx(20.0)


def test_of_two_reference_beats_at_one_sample_the_later_one_is_matched() -> None:
    # As bxb has it: at equal times the reference is taken to be the earlier, and the next one is no further away.
    assert pairs(compare(after(100, 100, 500), "VNN", after(100, 500), "NN", FS)) == "Vo Nn Nn"


def test_an_unended_second_shutdown_of_the_test_annotator_counts_as_bxb_counts_it() -> None:
    # bxb leaves it the end of the first one, so that what is missed in it is missed and not shut down.
    ref = beats(after(100, 200, 300, 500))
    test = beats(after(100, 150, 250, 300, 400), "N~~N~", {1: -1, 4: -1})
    found = compare_marks(ref, test, FS, end=START + 600)
    assert pairs(found) == "Nn Nx Nn No"
    assert found.shutdown_s == 3.0


def test_no_interval_spans_vf_or_shutdown() -> None:
    ref = beats(after(0, 100, 120, 180, 200, 300), "NN[]NN")
    found = compare_marks(ref, beats(after(0, 100, 200, 300)), FS)
    assert found.n_rr == 2  # 0..100 and 200..300
    at_a_beat = beats(after(0, 100, 100, 180, 200, 300), "NN[]NN")
    assert compare_marks(at_a_beat, beats(after(0, 100, 200, 300)), FS).n_rr == 2


def test_marks_need_not_be_in_order_and_must_be_of_one_length() -> None:
    found = marks([5, 2, 5], ["N", "V", "+"], aux=["", "", "(AFIB\x00"])
    assert found.sample.tolist() == [2, 5, 5]
    assert found.symbol == ("V", "N", "+")
    assert found.aux == ("", "", "(AFIB")
    with pytest.raises(ValueError, match="2 samples, 1 symbols"):
        marks([1, 2], ["N"])


def test_unknown_maps_and_rates_are_refused_with_the_mend() -> None:
    with pytest.raises(ValueError, match="take one of bxb, literature"):
        compare([1], "N", [1], "N", FS, label_map="aami")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fs: 0"):
        compare([1], "N", [1], "N", 0)


def test_marks_survive_a_file_and_a_file_of_none_is_none(tmp_path: Path) -> None:
    given = marks([10, 20, 20, 4000], ["N", "~", "+", "V"], [0, -1, 0, 0], ["", "", "(AFIB", ""])
    write_marks(f"{tmp_path}/a", "moe", given, 250.0)
    found = read_marks(f"{tmp_path}/a", "moe")
    assert found.sample.tolist() == given.sample.tolist()
    assert (found.symbol, found.aux, found.subtype.tolist()) == (given.symbol, given.aux, [0, -1, 0, 0])
    write_marks(f"{tmp_path}/b", "moe", marks([], []), 250.0)
    assert len(read_marks(f"{tmp_path}/b", "moe")) == 0
    with pytest.raises(FileNotFoundError, match=r"none\.moe"):
        read_marks(f"{tmp_path}/none", "moe")
