"""Rates, heart-rate errors, intervals and summaries."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.ec57.beats import LABELS
from model.ec57.intervals import bootstrap, rate, wilson
from model.ec57.marks import marks
from model.ec57.rates import heart_rate, measurement_error
from model.ec57.summary import beat_rates, shutdown_rates, summarise


def confusion(**cells: int) -> "np.ndarray[tuple[int, int], np.dtype[np.int64]]":
    counts = np.zeros((7, 7), np.int64)
    for name, n in cells.items():
        counts[LABELS.index(name[0]), LABELS.index(name[1].upper())] = n
    return counts


def test_each_rate_takes_the_cells_that_bxb_gives_it() -> None:
    # A distinct power of two in each cell tells which cells were summed.
    names = [r + t.lower() for r in LABELS for t in LABELS if not (r in "OX" and t in "OX")]
    power = {name: 1 << i for i, name in enumerate(names)}
    found = beat_rates(confusion(**power))

    def total(*of: str) -> int:
        return sum(power[name] for name in of)

    matched = total(*(r + t for r in "NSVFQ" for t in "nsvfq"))
    missed = total(*(r + t for r in "NSVFQ" for t in "ox"))
    extra = total(*(r + t for r in "OX" for t in "nsvfq"))
    assert found["QRS Se"] == (matched, matched + missed)
    assert found["QRS +P"] == (matched, matched + extra)
    assert found["VEB Se"] == (power["Vv"], total("Vv", "Vn", "Vs", "Vf", "Vq", "Vo", "Vx"))
    assert found["VEB +P"] == (power["Vv"], total("Vv", "Nv", "Sv", "Ov", "Xv"))
    false = total("Nv", "Sv", "Ov", "Xv")
    assert found["VEB FPR"] == (false, false + total(*(r + t for r in "NSFQOX" for t in "nsfq")))
    assert found["SVEB Se"] == (power["Ss"], total("Ss", "Sn", "Sv", "Sf", "Sq", "So", "Sx"))
    assert found["SVEB +P"] == (power["Ss"], total("Ss", "Ns", "Vs", "Fs", "Os", "Xs"))
    assert found["VEB F1"][1] - found["VEB F1"][0] == total("Vn", "Vs", "Vf", "Vq", "Vo", "Vx") + false
    shut = shutdown_rates(confusion(**power))
    assert shut["beats in shutdown"][0] == total("Nx", "Sx", "Vx", "Fx", "Qx")
    assert shut["V in shutdown"] == (power["Vx"], found["VEB Se"][1])


def test_fusion_and_unknown_beats_called_v_are_no_false_veb() -> None:
    assert beat_rates(confusion(Vv=8, Fv=5, Qv=3, Nv=2))["VEB +P"] == (8, 10)
    assert beat_rates(confusion(Ss=8, Qs=3, Fs=2))["SVEB +P"] == (8, 10)


def test_gross_pools_and_average_takes_the_mean_over_records_that_define_the_rate() -> None:
    records = [{"VEB Se": (9, 10)}, {"VEB Se": (0, 0)}, {"VEB Se": (10, 90)}]
    found = summarise(records, ["a", "b", "c"])["VEB Se"]
    assert (found.gross.numerator, found.gross.denominator, found.gross.value) == (19, 100, 0.19)
    assert found.average == pytest.approx((0.9 + 1 / 9) / 2)
    assert found.n_records == 2
    nothing = summarise([{"VEB Se": (0, 0)}], ["a"])["VEB Se"]
    assert nothing.average is None and nothing.gross.value is None and nothing.by_patient.low is None


def test_figures_that_are_no_shares_of_trials_carry_no_interval_of_wilson() -> None:
    found = summarise([{"VEB F1": (3, 4), "AF duration Se": (5, 9)}], ["a"])
    assert found["VEB F1"].gross.low is None
    assert found["AF duration Se"].gross.low is None
    assert found["VEB F1"].by_patient.value == 0.75


def test_a_record_each_needs_a_patient() -> None:
    with pytest.raises(ValueError, match="1 records and 2 patients"):
        summarise([{}], ["a", "b"])


def test_wilson_gives_the_published_intervals() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I: method 3 for 81/263, 15/148, 0/20 and 1/29.
    for k, n, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        assert wilson(k, n) == pytest.approx((low, high), abs=5e-5)
    assert rate(0, 0).value is None
    with pytest.raises(ValueError, match="5 of 4"):
        wilson(5, 4)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_of_wilson_holds_the_rate_and_stays_within_0_and_1(of: tuple[int, int]) -> None:
    low, high = wilson(*of)
    assert 0 <= low <= of[0] / of[1] <= high <= 1 or math.isclose(low, of[0] / of[1], abs_tol=1e-12) or of[0] == of[1]
    assert high - low > 0


def test_the_bootstrap_draws_patients_and_not_records() -> None:
    parts = [(90, 100), (90, 100), (10, 100)]
    apart = bootstrap(parts, ["a", "b", "c"], seed=1)
    together = bootstrap(parts, ["a", "a", "c"], seed=1)
    assert apart.value == together.value == pytest.approx(190 / 300)
    assert together.low == pytest.approx(0.1) and together.high == pytest.approx(0.9)
    alone = bootstrap(parts, ["a", "a", "a"])
    assert alone.low is None and alone.high is None and alone.value == apart.value
    assert bootstrap(parts, ["a", "b", "c"], seed=1) == apart


def test_a_steady_rhythm_has_its_rate_from_the_second_beat_on() -> None:
    of = marks(np.arange(100, 6000, 80), ["N"] * 74)
    at, bpm = heart_rate(of, 100.0, 6000)
    assert at[0] == 200
    assert at[-1] == 6000
    np.testing.assert_allclose(bpm, 75.0)


def test_the_rate_is_the_mean_of_twelve_intervals_and_of_four_when_slow() -> None:
    quick = [100 * i for i in range(1, 14)]  # 12 intervals of 1 s
    steps = [*quick, 1350, 1400]  # then two of 0.5 s
    at, bpm = heart_rate(marks(steps, ["N"] * 15), 100.0, 1400)
    assert bpm[at == 1400] == pytest.approx(60 / ((10 * 1.0 + 2 * 0.5) / 12))
    slow = [*quick, 1450, 1600, 1750]  # three of 1.5 s: now the latest four
    at, bpm = heart_rate(marks(slow, ["N"] * 16), 100.0, 1800)
    assert bpm[at == 1800] == pytest.approx(60 / ((1.0 + 3 * 1.5) / 4))
    assert bpm[at == 1700] == pytest.approx(60 / ((10 * 1.0 + 2 * 1.5) / 12))


def test_the_rate_is_unknown_across_vf_noise_and_long_silence() -> None:
    of = marks([100, 200, 250, 350, 400, 500, 600], list("NN[]NNN"))
    at, bpm = heart_rate(of, 100.0, 1200)
    assert at.tolist() == [200, 300, *range(500, 1001, 100)]
    np.testing.assert_allclose(bpm, 60.0)
    broken = marks([100, 200, 250, 400, 500], list("NN~NN"), [0, 0, -1, 0, 0])
    assert heart_rate(broken, 100.0, 500)[0].tolist() == [200, 300, 500]
    np.testing.assert_allclose(heart_rate(broken, 100.0, 500)[1][-1], 60.0)
    assert heart_rate(marks([100], ["N"]), 100.0, 500)[0].size == 0


def test_measurements_pair_with_the_nearest_reference_and_with_the_later_one_at_a_tie() -> None:
    ref_at, ref = np.array([0, 100, 200]), np.array([60.0, 80.0, 100.0])
    test_at, test = np.array([40, 50, 160, 300]), np.array([66.0, 80.0, 90.0, 103.0])
    found = measurement_error(ref_at, ref, test_at, test, 100.0, start_s=0)
    # 40 -> 60, 50 (a tie) -> 80, 160 -> 100, 300 -> 100: errors 6, 0, -10, 3.
    assert found.n == 4
    assert found.bpm == pytest.approx(math.sqrt((36 + 0 + 100 + 9) / 4))
    assert found.mean_reference == 85.0
    assert found.percent == pytest.approx(100 * found.bpm / 85.0)
    assert found.within_5 == 4  # 6 of 60 and 10 of 100 are just within 10 %


def test_values_of_the_learning_period_are_left_out_of_the_error_and_of_its_number() -> None:
    ref_at, ref = np.array([0, 1000]), np.array([50.0, 100.0])
    test_at, test = np.array([0, 1000]), np.array([90.0, 90.0])
    found = measurement_error(ref_at, ref, test_at, test, 100.0, start_s=5)
    assert (found.n, found.bpm, found.percent) == (1, 10.0, 10.0)
    # mxm divides by both values read.
    assert found.percent_mxm == pytest.approx(10 * math.sqrt(2))
    assert measurement_error(ref_at, ref, test_at[:0], test[:0], 100.0).n == 0
