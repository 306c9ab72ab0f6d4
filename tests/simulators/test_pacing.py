import time

import numpy as np
import pytest

from simulators.pacing import Pacer, speed_of

SECOND = 1_000_000_000


class Clock:
    """A monotonic clock that sleeps as badly as it is told to."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.now, self._rng = 5 * SECOND, rng

    def sleep(self, wait_s: float) -> None:
        oversleep_s = self._rng.exponential(0.004)
        self.now += round((wait_s + oversleep_s) * 1e9)

    def work(self) -> None:
        self.now += int(self._rng.integers(50_000, 3_000_000))


@pytest.mark.parametrize(("speed", "packet_s"), [(1.0, 0.1), (0.25, 0.1), (20.0, 0.1), (100.0, 1.0), (1.0, 0.02)])
def test_half_an_hour_ends_within_50_ms_of_its_time_however_badly_it_slept(speed: float, packet_s: float) -> None:
    clock = Clock(np.random.default_rng(1))
    pacer = Pacer(speed, clock.now)
    started = clock.now
    n_waits = 0
    for k in range(1, round(1800 / packet_s) + 1):
        while wait_s := pacer.wait_s(k * packet_s, clock.now):
            clock.sleep(wait_s)
            n_waits += 1
        assert clock.now >= pacer.due_ns(k * packet_s)
        pacer.sent(k * packet_s, clock.now)
        clock.work()
    assert abs((clock.now - started) / 1e9 - 1800 / speed) < 0.050
    assert n_waits <= round(1800 / packet_s)  # it waits once for each packet, and never spins
    assert pacer.lateness().mean_s < 0.02


def test_what_is_due_does_not_depend_on_what_was_late() -> None:
    pacer = Pacer(2.0, 7)
    due = [pacer.due_ns(s) for s in (0.5, 1800.0)]
    pacer.sent(0.5, 90 * SECOND)
    assert [pacer.due_ns(s) for s in (0.5, 1800.0)] == due == [7 + SECOND // 4, 7 + 900 * SECOND]


def test_at_max_everything_is_due_and_nothing_late() -> None:
    pacer = Pacer(0.0, 100)
    assert pacer.wait_s(1800.0, 100) == 0.0
    assert pacer.sent(1.0, 50 * SECOND) is None
    assert pacer.lateness().n == 0


def test_lateness_is_told_with_its_tail() -> None:
    pacer = Pacer(1.0, 0)
    for k in range(1000):
        pacer.sent(k, k * SECOND + (90_000_000 if k % 50 == 0 else 1_000_000))
    late = pacer.lateness()
    assert late.n == 1000
    assert late.max_s == pytest.approx(0.09)
    assert late.mean_s == pytest.approx(0.00278)
    assert 0.075 < late.p99_s <= 0.09
    assert Pacer(1.0, 0).lateness().p99_s == 0.0


def test_being_behind_is_said_once_in_5_s_and_its_end_once() -> None:
    pacer = Pacer(1.0, 0)
    said = [pacer.sent(k / 10, k * SECOND // 10 + 300_000_000) for k in range(101)]
    assert [k for k, word in enumerate(said) if word] == [0, 51]
    assert set(filter(None, said)) == {"behind"}
    assert [pacer.sent(11.0, 11 * SECOND), pacer.sent(11.1, 11_100_000_000)] == ["recovered", None]


@pytest.mark.parametrize(("text", "speed"), [("max", 0.0), ("1", 1.0), ("0.25", 0.25), ("100", 100.0), (20, 20.0)])
def test_speeds_of_the_command_line(text: str | float, speed: float) -> None:
    assert speed_of(text) == speed


@pytest.mark.parametrize("text", ["fast", "-1", "0.1", "101", "nan", "inf"])
def test_a_speed_out_of_range_is_refused_by_value(text: str) -> None:
    with pytest.raises(ValueError, match=rf"speed: '{text}'; give 0\.25 to 100, or max"):
        speed_of(text)


def test_on_the_real_clock_nothing_goes_out_before_its_time() -> None:
    pacer = Pacer(4.0, time.monotonic_ns())
    for k in range(1, 21):
        while wait_s := pacer.wait_s(k * 0.1, time.monotonic_ns()):
            time.sleep(wait_s)
        pacer.sent(k * 0.1, time.monotonic_ns())
    assert time.monotonic_ns() >= pacer.due_ns(2.0) == pacer.start_ns + SECOND // 2
    assert pacer.lateness().n == 20
