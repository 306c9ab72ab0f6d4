"""Calibration: temperatures that are found again, errors that are what they are by construction."""

import numpy as np
import pytest

from model.calibration import by_recording, cooled, ece, fitted_line, temperature


def _drawn(n: int, sharpness: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from probabilities, and those probabilities told with too much or too little confidence."""
    rng = np.random.default_rng(0)
    true = rng.dirichlet((1.0, 1.0, 1.0), n)
    label = (true.cumsum(1) < rng.random((n, 1))).sum(1)
    return cooled(true, 1 / sharpness), label


@pytest.mark.parametrize("sharpness", [0.6, 1.0, 2.5])
def test_the_temperature_of_answers_that_are_too_sure_is_found_again(sharpness: float) -> None:
    told, label = _drawn(20_000, sharpness)
    weight = by_recording(np.arange(label.size))
    found = temperature(told, label, weight)
    assert found == pytest.approx(sharpness, rel=0.08)
    assert ece(cooled(told, found), label, weight) < 0.015


def test_answers_that_are_too_sure_have_a_calibration_error_and_the_same_answers_after_cooling() -> None:
    told, label = _drawn(20_000, 2.5)
    assert ece(told, label, by_recording(np.arange(label.size))) > 0.1
    assert (cooled(told, 2.5).argmax(1) == told.argmax(1)).all()


def test_a_long_recording_weighs_as_much_as_a_short_one() -> None:
    of = np.array([7] * 90 + [9] * 10)
    told = np.array([[1.0, 0.0]] * 100)
    label = np.array([0] * 90 + [1] * 10)  # the long one right, the short one wrong
    weight = by_recording(of)
    assert weight.sum() == pytest.approx(1.0)
    assert ece(told, label, weight) == pytest.approx(0.5)


@pytest.mark.parametrize(("knows", "slope"), [(1.0, 0.5), (0.0, 0.0), (-1.0, 0.0)])
def test_an_age_keeps_of_an_answer_what_it_knows_and_is_else_the_mean(knows: float, slope: float) -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(60, 10, 20_000)
    said = 40 + knows * (true - 60) + rng.normal(0, 10, true.size)  # twice the spread of what it knows
    found = fitted_line(said, true, np.ones(true.size))
    assert found.slope == pytest.approx(slope, abs=0.03)
    assert found(said).mean() == pytest.approx(60, abs=0.3)


@pytest.mark.parametrize(("sharpness", "slope"), [(1.0, 1.0), (4.0, 0.25), (-1.0, 0.0), (0.5, 1.0)])
def test_odds_that_are_too_sure_are_brought_down_and_never_turned_or_made_surer(sharpness: float, slope: float) -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(0.4, 1.5, 20_000)
    male = rng.random(true.size) < 1 / (1 + np.exp(-true))
    found = fitted_line(sharpness * true, male.astype(float), np.ones(true.size), odds=True)
    assert found.slope == pytest.approx(slope, abs=0.05)
    told = 1 / (1 + np.exp(-found(sharpness * true)))
    assert told.mean() == pytest.approx(male.mean(), abs=0.01)


def test_the_log_odds_of_nothing_are_those_of_the_majority() -> None:
    male = np.array([1.0, 1.0, 1.0, 0.0])
    found = fitted_line(np.zeros(4), male, np.ones(4), odds=True)
    assert found(np.zeros(4))[0] == pytest.approx(np.log(3), abs=1e-4)
