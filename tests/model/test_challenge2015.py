"""The Challenge 2015 score."""

import pytest

from model.challenge2015 import Outcome, confirmed, score


@pytest.mark.parametrize(
    ("code", "decided", "end", "expected"),
    [
        ("ASYSTOLE", 295.0, None, True),
        ("ASYSTOLE", 300.0, None, True),
        ("ASYSTOLE", 300.004, None, False),  # decided after the alarm
        ("ASYSTOLE", 200.0, 290.0, True),
        ("ASYSTOLE", 200.0, 289.9, False),  # over before the last 10 s
        ("ASYSTOLE", 10.0, None, True),
        ("VFIB", 295.0, None, False),  # of another kind
    ],
)
def test_an_alarm_is_confirmed_by_an_alert_of_its_kind_within_its_last_10_s(
    code: str, decided: float, end: float | None, expected: bool
) -> None:
    assert confirmed("Asystole", [(code, decided, end)]) is expected


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("Asystole", "ASYSTOLE"),
        ("Bradycardia", "X_BRADY"),
        ("Tachycardia", "X_TACHY"),
        ("Ventricular_Tachycardia", "VTACH"),
        ("Ventricular_Flutter_Fib", "VFIB"),
    ],
)
def test_each_of_the_five_alarms_has_its_code(kind: str, code: str) -> None:
    assert confirmed(kind, [(code, 295.0, None)])


def test_an_alarm_of_no_kind_of_the_challenge_is_refused() -> None:
    with pytest.raises(ValueError, match="'Pause' is no alarm of Challenge 2015"):
        confirmed("Pause", [])


def test_a_true_alarm_suppressed_counts_five_times() -> None:
    outcomes = [
        *(Outcome(f"a{i}", "Asystole", True, True) for i in range(3)),
        Outcome("b", "Asystole", True, False),
        *(Outcome(f"c{i}", "Tachycardia", False, True) for i in range(2)),
        *(Outcome(f"d{i}", "Tachycardia", False, False) for i in range(4)),
    ]
    found = score(outcomes)
    assert list(found) == ["all", "Asystole", "Tachycardia"]
    whole = found["all"]
    assert (whole.tp, whole.fn, whole.fp, whole.tn) == (3, 1, 2, 4)
    assert whole.score == pytest.approx(100 * 7 / (7 + 2 + 5))
    assert found["Asystole"].score == pytest.approx(100 * 3 / 8)
    assert (whole.tpr.numerator, whole.tpr.denominator, whole.tnr.value) == (3, 4, pytest.approx(4 / 6))


def test_no_alarms_have_no_score() -> None:
    assert score([])["all"].score is None
