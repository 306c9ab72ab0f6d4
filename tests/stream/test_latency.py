"""Latencies by stage: right within a bin, of the last seconds only, in bounded memory."""

import pytest

from stream.latency import HALF_NS, Latency

MS = 1_000_000


def test_quantiles_are_right_within_a_bin() -> None:
    latency = Latency()
    for i in range(1, 1001):
        latency.add("stage", 10**9, 10**9 + i * MS)
    p50, p99 = latency.figures(0)["stage"]
    assert 500 <= p50 <= 500 * 1.1
    assert 990 <= p99 <= 990 * 1.1


def test_a_passage_without_both_stamps_is_not_counted() -> None:
    latency = Latency()
    latency.add("stage", 0, 5 * MS)
    latency.add("stage", 5 * MS, 0)
    assert latency.figures(0) == {}


@pytest.mark.parametrize(("begun_ns", "done_ns"), [(10**9, 10**9), (10**9, 10**9 - MS), (10**9, 10**9 + 10)])
def test_no_time_or_a_clock_that_went_back_counts_as_the_shortest(begun_ns: int, done_ns: int) -> None:
    latency = Latency()
    latency.add("stage", begun_ns, done_ns)
    assert latency.figures(0)["stage"] == (0.001, 0.001)


def test_what_is_older_than_two_halves_is_forgotten() -> None:
    latency = Latency()
    latency.add("old", 10**9, 10**9 + MS)
    assert set(latency.figures(HALF_NS)) == {"old"}
    latency.add("new", 10**9, 10**9 + MS)
    assert set(latency.figures(HALF_NS + 1)) == {"old", "new"}
    assert set(latency.figures(2 * HALF_NS)) == {"new"}
    assert latency.figures(5 * HALF_NS) == {}


def test_memory_does_not_grow_with_what_is_counted() -> None:
    latency = Latency()
    for i in range(20_000):
        latency.add("stage", 1, 1 + (i * 7919) % 10**11)
    assert len(latency._now["stage"]) < 300
