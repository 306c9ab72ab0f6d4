import itertools

import msgpack
import pytest

from stream.alarms.bed import BedAlarms
from stream.alarms.numerics import HeartRate
from tests.stream.playing import DECIDED, READY, Player, ticks


def rate_of(rrs_s: list[float], in_run: bool = False) -> float | None:
    heart = HeartRate()
    for rr in rrs_s:
        heart.add(ticks(rr))
    return heart.bpm(in_run)


@pytest.mark.parametrize(
    ("name", "cycle_s", "bpm"),
    [
        ("3a ventricular bigeminy", [0.55, 0.95], 80),
        ("3b slow alternating bigeminy", [0.7, 0.7, 1.3, 1.3], 60),
        ("3c rapid alternating bigeminy", [0.4, 0.4, 0.6, 0.6], 120),
        ("3d bidirectional systoles", [0.6, 0.732], 90),
    ],
)
def test_irregular_rhythms_show_their_mean_rate_after_twenty_seconds(
    name: str, cycle_s: list[float], bpm: float
) -> None:
    cycle = itertools.cycle(cycle_s)
    rrs: list[float] = []
    while sum(rrs) < 20:
        rrs.append(next(cycle))
    for rr in itertools.islice(cycle, 12):  # and from beat to beat it stays there
        assert rate_of(rrs) == pytest.approx(bpm, abs=0.5), name
        rrs.append(rr)


def test_three_intervals_over_1200_ms_take_the_mean_of_four() -> None:
    assert rate_of([0.75] * 12 + [1.5] * 2) == pytest.approx(60 * 12 / (10 * 0.75 + 2 * 1.5), rel=3e-3)
    assert rate_of([0.75] * 12 + [1.5] * 3) == pytest.approx(60 * 4 / (0.75 + 3 * 1.5), rel=1e-3)
    assert rate_of([0.75] * 12 + [1.2] * 4) == pytest.approx(60 * 12 / (8 * 0.75 + 4 * 1.2), rel=3e-3)


def test_a_run_of_pvcs_takes_the_mean_of_eight() -> None:
    rrs = [0.8] * 12 + [0.4] * 8
    assert rate_of(rrs, in_run=True) == pytest.approx(150)
    assert rate_of(rrs) == pytest.approx(60 * 12 / (4 * 0.8 + 8 * 0.4))


def test_too_few_intervals_give_no_rate() -> None:
    assert rate_of([0.8] * 5) is None
    assert rate_of([1.5] * 4) == pytest.approx(40)
    assert rate_of([]) is None


@pytest.mark.parametrize(("bpm", "code"), [(120, None), (40, "X_BRADY")])
def test_the_rate_follows_a_step_from_80_within_ten_seconds(bpm: float, code: str | None) -> None:
    player = Player()
    player.beats("N" * 20, 0.75)
    step = player.last
    player.alarms.take_numerics()
    player.beats("N" * 12, 60 / bpm)
    shown = [(n.at.sample - step, n.hr) for n in player.alarms.take_numerics() if n.hr is not None]
    reached = next(tick for tick, hr in shown if abs(hr - bpm) <= max(5, 0.1 * bpm))
    assert reached <= ticks(10)
    assert code is None or player.of(code, "start")[0].stream_time.sample - step <= ticks(10)


@pytest.mark.parametrize("bpm", [206, 195])
def test_a_tachycardia_alarms_within_ten_seconds(bpm: float) -> None:
    player = Player()
    player.beats("N" * 20, 0.75)
    step = player.last
    player.beats("V" * 30, 60 / bpm)
    for code in ("VTACH", "X_TACHY"):
        assert player.of(code, "start")[0].stream_time.sample - step <= ticks(10)


def test_there_is_one_numeric_for_each_second_however_time_comes() -> None:
    player = Player(learnt=False)
    player.to(ticks(3))
    player.to(ticks(3) + 1)
    player.to(ticks(3.5))
    player.to(ticks(60))
    assert [n.at.sample for n in player.alarms.take_numerics()] == [250 * i for i in range(1, 60)]
    assert player.alarms.take_numerics() == []


def test_a_numeric_waits_for_the_model_and_shows_what_it_knew_at_that_second() -> None:
    """Nine beats at 150, a run of PVCs, are judged long after the detector has gone on to another rate."""
    player = Player()
    player.beats("N" * 12, 0.8)
    begin = player.last
    player.alarms.take_numerics()
    run = [begin + ticks(0.4) * i for i in range(1, 10)]
    after = [run[-1] + ticks(0.8) * i for i in range(1, 10)]
    for at in run + after:
        player.alarms.beat(at, at + DECIDED)
    player.alarms.advance(after[-1] + ticks(1))
    assert player.alarms.take_numerics() == []
    for at in run + after:
        player.alarms.judged_beat(at, at + READY, "V" if at in run else "N")
    player.alarms.advance_model(after[-1] + ticks(1))
    told = player.alarms.take_numerics()
    in_run = next(n for n in told if run[-1] + READY < n.at.sample <= after[0])
    assert (in_run.hr, in_run.pvc_per_min) == (150, 9)
    assert told[-1].hr == pytest.approx(60 * 12 / (3 * 0.4 + 9 * 0.8), abs=0.1)


def test_while_the_model_is_away_numerics_come_at_once_and_none_comes_twice() -> None:
    player = Player()
    player.beats("NNV", 0.8)
    model_at = player.now
    player.alarms.take_numerics()
    begin = (model_at // 250 + 1) * 250
    player.alarms.advance(begin + 1)
    player.alarms.model_away(True)
    player.alarms.model_away(True)
    player.alarms.advance(begin + 251)
    alone = player.alarms.take_numerics()
    assert [n.at.sample for n in alone] == [begin, begin + 250]
    assert {(n.pvc_per_min, n.rhythm, n.confidence) for n in alone} == {(None, "", 0.0)}
    assert all(n.hr == pytest.approx(75) for n in alone)
    player.alarms.advance(begin + ticks(6))
    assert player.alarms.take_numerics()[-1].rhythm == "ASYSTOLE"
    player.alarms.model_away(False)
    player.alarms.advance(begin + ticks(8) + 1)
    assert player.alarms.take_numerics() == []
    player.alarms.advance_model(begin + ticks(8))
    told = player.alarms.take_numerics()
    assert [n.at.sample for n in told] == [begin + ticks(s) for s in (6, 7, 8)]
    assert {n.pvc_per_min for n in told} == {1}


def test_numerics_that_wait_and_those_that_nobody_took_are_in_the_checkpoint() -> None:
    player = Player()
    player.alarms.advance(player.now + ticks(3))
    after = BedAlarms("bed-1", "epoch-1", 250.0)
    after.restore(msgpack.unpackb(msgpack.packb(player.alarms.state()), strict_map_key=False))
    for alarms in (player.alarms, after):
        alarms.advance_model(player.now + ticks(3))
    told = after.take_numerics()
    assert told == player.alarms.take_numerics()
    assert [n.at.sample for n in told] == [250 * i for i in range(1, len(told) + 1)] and len(told) > 10


def test_asystole_shows_zero_and_an_unreadable_signal_shows_nothing() -> None:
    player = Player()
    player.wait(6)
    assert player.alarms.take_numerics()[-1].hr == 0.0
    player.quality([1, 1], 3)
    newest = player.alarms.take_numerics()[-1]
    assert newest.hr is None and newest.quality == (0.1, 0.1)


def test_pvcs_per_minute_are_those_of_the_last_sixty_seconds() -> None:
    player = Player()
    for _ in range(5):
        player.beats("NNNNNNNV", 0.75)
    player.to(player.last + ticks(1))
    assert player.alarms.take_numerics()[-1].pvc_per_min == 5
    player.beats("N" * 60, 0.75)
    assert player.alarms.take_numerics()[-1].pvc_per_min == 3  # those 0, 6 and 12 s before the last
    player.beats("N" * 60, 0.75)
    assert player.alarms.take_numerics()[-1].pvc_per_min == 0


def test_event_times_are_in_the_samples_of_the_source() -> None:
    player = Player(fs=360.0)
    player.wait(5)
    event = player.of("ASYSTOLE", "start")[0]
    assert event.onset.fs == 360.0
    assert event.onset.sample == round(ticks(8) * 360 / 250)
    assert player.alarms.take_numerics()[-1].at.fs == 360.0
