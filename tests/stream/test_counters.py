"""Counters of samples: what is where it is taken to be is proved, what is not is seen."""

import numpy as np

from stream.counters import MODULO, Counters
from stream.wire import Signal

ECG, COUNTER = Signal("II", "ecg", "mV", 200.0, 0), Signal("N", "counter", "", 1.0, 0)


def packets(first: list[int], n: int = 25) -> np.ndarray:
    """(k, 2, n) int16: an ECG and a counter of each row."""
    at = (np.array(first)[:, None] + np.arange(n)) % MODULO
    return np.stack([np.zeros_like(at), at], 1).astype(np.int16)


def test_samples_that_are_what_they_are_taken_for_are_proved_over_the_turn_of_the_counter_too() -> None:
    counters = Counters(3)
    counters.are(0, (ECG, COUNTER))
    counters.are(2, (ECG, COUNTER))
    rows, first = np.array([2, 0]), [MODULO - 10, 5 * MODULO + 100]
    counters.check(rows, np.array(first), packets(first))
    assert counters.counts(0) == counters.counts(2) == {"proved": 25, "misplaced": 0}
    assert counters.counts(1) == {}


def test_samples_that_are_doubled_or_put_elsewhere_are_seen() -> None:
    counters = Counters(1)
    counters.are(0, (ECG, COUNTER))
    counters.check(np.array([0]), np.array([25]), packets([0]))  # an older packet taken for the next one
    assert counters.counts(0) == {"proved": 0, "misplaced": 25}


def test_beds_without_a_counter_are_not_looked_at() -> None:
    counters = Counters(1)
    counters.are(0, (ECG,))
    counters.check(np.array([0]), np.array([0]), np.zeros((1, 1, 25), np.int16))
    assert counters.counts(0) == {}


def test_what_was_proved_outlives_a_restart() -> None:
    counters, fresh = Counters(1), Counters(1)
    for each in (counters, fresh):
        each.are(0, (ECG, COUNTER))
    counters.check(np.array([0]), np.array([0]), packets([0]))
    fresh.load_state_dict(counters.state_dict())
    assert fresh.counts(0) == {"proved": 25, "misplaced": 0}
