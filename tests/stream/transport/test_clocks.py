import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.transport.clocks import Exchange, SourceClock, age_ns, exchange, theil_sen

SECOND = 1_000_000_000
MS = 1_000_000
UTC = 1_700_000_000 * SECOND


class Pair:
    """A shard and a source with a network between them whose delays are made up."""

    def __init__(self, offset_ns: int = 0, drift_ppm: float = 0.0, seed: int = 1) -> None:
        self.offset_ns, self.drift_ppm = offset_ns, drift_ppm
        self.ns = 10 * SECOND
        self.clock = SourceClock()
        self.random = random.Random(seed)

    def source_ns(self) -> int:
        return UTC + self.ns + self.offset_ns + round(self.ns * self.drift_ppm * 1e-6)

    def probe(self, there_ns: int, back_ns: int, every_ns: int = SECOND // 4) -> bool:
        sent_ns, sent_mono = UTC + self.ns, self.ns
        self.ns += there_ns
        received = self.source_ns()
        self.ns += 20_000
        answered = self.source_ns()
        self.ns += back_ns
        stepped = self.clock.observe(exchange(sent_ns, sent_mono, received, answered, self.ns))
        self.ns += every_ns
        return stepped

    def run(self, seconds: float, delay_ns: int = MS // 5, jitter_ns: int = MS) -> int:
        """Probes for a while; how many steps were told."""
        until = self.ns + round(seconds * SECOND)
        steps = 0
        while self.ns < until:
            there, back = (delay_ns + round(self.random.expovariate(1 / jitter_ns)) for _ in range(2))
            steps += self.probe(there, back)
        return steps

    def error_ns(self) -> int:
        return self.clock.offset_ns(self.ns) - (self.source_ns() - UTC - self.ns)


def test_the_offset_of_a_symmetric_exchange_is_exact() -> None:
    made = exchange(UTC, 5 * SECOND, UTC + 3 * SECOND + 7 * MS, UTC + 3 * SECOND + 8 * MS, 5 * SECOND + 15 * MS)
    assert made == Exchange(offset_ns=3 * SECOND, round_trip_ns=14 * MS, mono_ns=5 * SECOND + 15 * MS)


@given(st.integers(-(10**12), 10**12), st.integers(0, 10**8), st.integers(0, 10**8))
def test_an_exchange_is_wrong_by_half_its_round_trip_at_most(offset: int, there: int, back: int) -> None:
    sent = UTC
    received = sent + there + offset
    made = exchange(sent, 0, received, received + 5, there + 5 + back)
    assert made.round_trip_ns == there + back
    assert abs(made.offset_ns - offset) <= made.round_trip_ns / 2 + 1


def test_the_probe_with_the_shortest_round_trip_is_believed() -> None:
    pair = Pair(offset_ns=-2 * SECOND)
    for there, back in ((40, 1), (1, 30), (2, 2), (90, 3), (5, 60)):
        pair.probe(there * MS, back * MS)
    assert pair.clock.offset_ns(pair.ns) == -2 * SECOND
    assert pair.clock.uncertainty_ns == 4 * MS


def test_before_any_answer_the_clocks_are_taken_for_equal() -> None:
    clock = SourceClock()
    assert not clock.known and (clock.offset_ns(123), clock.uncertainty_ns) == (0, 0)


@pytest.mark.parametrize("drift_ppm", [-80.0, 0.0, 35.0])
def test_drift_is_found_within_minutes_under_jitter(drift_ppm: float) -> None:
    pair = Pair(offset_ns=7 * SECOND, drift_ppm=drift_ppm)
    assert pair.run(240) == 0
    assert pair.clock.drift_ppm == pytest.approx(drift_ppm, abs=2)
    assert abs(pair.error_ns()) < MS


def test_a_burst_of_delays_moves_neither_offset_nor_drift() -> None:
    pair = Pair(offset_ns=SECOND, drift_ppm=20.0)
    pair.run(120)
    assert pair.run(20, delay_ns=300 * MS, jitter_ns=200 * MS) == 0
    pair.run(60)
    assert pair.clock.drift_ppm == pytest.approx(20, abs=3)
    assert abs(pair.error_ns()) < MS


@pytest.mark.parametrize("step_ns", [60 * MS, -60 * MS, 3600 * SECOND, -2 * SECOND])
def test_a_step_of_the_clock_is_told_once_with_its_size(step_ns: int) -> None:
    pair = Pair(drift_ppm=10.0)
    assert pair.run(60) == 0
    pair.offset_ns += step_ns
    assert pair.run(60) == 1
    assert pair.clock.n_steps == 1
    assert pair.clock.step_ns == pytest.approx(step_ns, abs=2 * MS)
    assert abs(pair.error_ns()) < 2 * MS


@given(st.integers(0, 2**32), st.floats(0, 0.2))
@settings(max_examples=20, deadline=None)
def test_delays_of_any_size_and_asymmetry_are_no_step(seed: int, share: float) -> None:
    pair = Pair(offset_ns=5 * SECOND, drift_ppm=50.0, seed=seed)
    for _ in range(400):
        slow = pair.random.random() < share
        there, back = pair.random.randrange(MS), pair.random.randrange(MS)
        there += pair.random.randrange(4 * SECOND) if slow else 0
        assert not pair.probe(there, back)
    assert abs(pair.error_ns()) <= pair.clock.uncertainty_ns / 2 + MS


def test_one_odd_answer_is_no_step() -> None:
    pair = Pair()
    pair.run(10)
    pair.offset_ns = 5 * SECOND
    assert not pair.probe(MS, MS)
    pair.offset_ns = 0
    assert pair.run(10) == 0
    assert abs(pair.error_ns()) < 2 * MS


@pytest.mark.parametrize("round_trip", [-1, 6 * SECOND])
def test_an_impossible_answer_is_left_out(round_trip: int) -> None:
    clock = SourceClock()
    assert not clock.observe(Exchange(5, round_trip, 100))
    assert not clock.known


def test_age_is_counted_on_the_corrected_clock_of_the_source() -> None:
    assert age_ns(UTC, UTC + 3 * SECOND - 40 * MS, 3 * SECOND) == 40 * MS


def test_the_slope_is_that_of_most_points() -> None:
    x = np.arange(20.0)
    y = 2 * x + 5
    y[[3, 9, 14]] = 1000
    assert theil_sen(x, y) == 2
