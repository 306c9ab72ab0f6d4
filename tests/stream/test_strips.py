"""Strips: the samples of the source around each decision, the same at any speed, after a restart and over gaps."""

from collections import deque
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.patients import Patient
from stream import checkpoint
from stream.annotate import Annotated, answers_to, collect, judge_all
from stream.shard import AHEAD_TICKS
from stream.strips import AFTER_S, BEFORE_S, KEPT_S, RawRings
from stream.transport.sequence import Chunk
from stream.wire import MISSING, AlertEvent, Strip, Work
from tests.stream.wards import RuleJudge, events_of, found, new_shard, play

SCRIPT = [("sinus", 15), ("vt", 8), ("sinus", 12), ("vf", 10), ("sinus", 15), ("asystole", 8), ("sinus", 12)]
SECONDS = 80


@pytest.fixture(scope="module")
def patient() -> Patient:
    return Patient("bed1", SCRIPT, seed=3, fs=360.0)


@pytest.fixture(scope="module")
def whole(patient: Patient) -> Annotated:
    return found([patient], SECONDS, [1440])["bed1"]


def parts(strips: Iterable[Strip]) -> dict[str, tuple[object, ...]]:
    """All that a strip tells, by its id."""
    return {s.id: (s.code, s.first, s.onset, s.decided, s.samples().tobytes(), s.beats, s.labels) for s in strips}


def wanted(events: Iterable[AlertEvent]) -> set[str]:
    return {e.alert_id for e in events if e.kind == "physiological" and e.priority in ("high", "medium")}


def test_each_red_and_yellow_has_one_strip_and_its_events_name_it(whole: Annotated) -> None:
    assert {"VFIB", "ASYSTOLE"} <= {strip.code for strip in whole.strips}
    assert sorted(strip.id for strip in whole.strips) == sorted(wanted(whole.alerts))
    assert all(event.strip == (event.alert_id if event.alert_id in wanted(whole.alerts) else None)
               for event in whole.alerts)  # fmt: skip


def test_a_strip_is_what_the_source_sent_from_10_s_before_to_5_s_after_the_decision(
    patient: Patient, whole: Annotated
) -> None:
    starts = {event.alert_id: event for event in whole.alerts if event.phase == "start"}
    n_samples = int(SECONDS * patient.fs)
    for strip in whole.strips:
        decided = starts[strip.id].stream_time.sample
        assert strip.decided.sample == decided
        assert strip.first == max(0, decided - round(BEFORE_S * patient.fs))
        assert strip.first + strip.n == decided + round(AFTER_S * patient.fs)
        assert [signal.name for signal in strip.signals] == [signal.name for signal in patient.signals]
        there = min(strip.n, n_samples - strip.first)
        np.testing.assert_array_equal(strip.samples()[:, :there], patient.render(strip.first, there))
        assert (strip.samples()[:, there:] == MISSING).all()


def test_a_strip_has_the_judged_beats_that_lie_in_it(whole: Annotated) -> None:
    for strip in whole.strips:
        beats = [(b.at.sample, b.label) for b in whole.beats if strip.first <= b.at.sample < strip.first + strip.n]
        assert list(zip(strip.beats, strip.labels, strict=True)) == beats


def test_a_strip_has_its_beats_though_they_are_told_long_before_their_windows() -> None:
    patient = Patient("bed1", [("sinus", 15), ("vt", 45, {"rate": 220})], seed=3)
    shard, clock = new_shard()
    result, judge = Annotated("bed1", patient.fs, 0), RuleJudge()
    later: deque[tuple[int, Work]] = deque()
    for at_s, event in enumerate(events_of(patient, 60, [round(patient.fs)])):
        shard.feed([event])
        while later and at_s - later[0][0] >= 27:
            shard.answer(answers_to(later.popleft()[1], judge, clock()))
        for work in shard.work():
            if work.kind == "hop":
                later.append((at_s, work))
            else:
                shard.answer(answers_to(work, judge, clock()))
        collect(shard, {"bed1": result})
    for _, work in later:
        shard.answer(answers_to(work, judge, clock()))
    judge_all(shard, judge, clock)
    collect(shard, {"bed1": result})
    assert result.strips
    test_a_strip_has_the_judged_beats_that_lie_in_it(result)


@settings(max_examples=2, deadline=None)
@given(st.lists(st.integers(1, 2500), min_size=1, max_size=100))
def test_packets_of_any_size_give_the_same_strips(sizes: list[int]) -> None:
    patient = Patient("bed1", SCRIPT, seed=3, fs=360.0)
    reference = found([patient], SECONDS, [1440])["bed1"]
    assert parts(found([patient], SECONDS, [*sizes, 36])["bed1"].strips) == parts(reference.strips)


@pytest.mark.parametrize("kill_s", [20.3, 39.0, 67.9], ids=lambda s: f"killed-after-{s}-s")
def test_a_shard_killed_in_the_middle_of_an_episode_gives_the_same_strips(
    patient: Patient, whole: Annotated, kill_s: float, tmp_path
) -> None:
    """Killed some seconds after its checkpoint, as shards are; what it had told since is told again."""
    path = tmp_path / "checkpoint.msgpack"
    result = {"bed1": Annotated("bed1", patient.fs, 0)}
    shard, clock = new_shard()
    saved_at = 0
    for event in events_of(patient, SECONDS, [36]):
        shard.feed([event])
        judge_all(shard, RuleJudge(), clock)
        if isinstance(event, Chunk) and event.first >= kill_s * patient.fs:
            if not saved_at:
                checkpoint.save(path, shard.state_dict())
                saved_at = event.first + event.samples.shape[1]
            elif event.first > saved_at + 4 * patient.fs:
                break
        collect(shard, result)
    again, clock = new_shard()
    again.load_state_dict(checkpoint.load(path) or {})
    rest = (e for e in events_of(patient, SECONDS, [36]) if not isinstance(e, Chunk) or e.first >= saved_at)
    next(rest)  # the epoch goes on
    play(again, clock, [rest], result)
    assert parts(result["bed1"].strips) == parts(whole.strips)
    assert {event.event_id for event in result["bed1"].alerts} >= {e.event_id for e in whole.alerts if e.seq == 0}


def test_a_gap_in_a_strip_is_missing_samples() -> None:
    patient = Patient("bed1", [("sinus", 20), ("tachy", 60, {"hr": 150})], seed=5)
    gap = (int(26 * patient.fs), int(0.8 * patient.fs))
    shard, clock = new_shard()
    result = {"bed1": Annotated("bed1", patient.fs, 0)}
    play(shard, clock, [events_of(patient, 60, [100], gap)], result)
    hit = [s for s in result["bed1"].strips if s.first < gap[0] and s.first + s.n > sum(gap)]
    assert hit, [strip.code for strip in result["bed1"].strips]
    for strip in hit:
        at = gap[0] - strip.first
        assert (strip.samples()[:, at : at + gap[1]] == MISSING).all()
        assert (strip.samples()[:, at - 1] != MISSING).all()
        assert (strip.samples()[:, at + gap[1]] != MISSING).all()


def test_a_bed_waits_where_its_model_is_so_far_behind_that_samples_of_strips_would_go() -> None:
    patient = Patient("bed1", [("sinus", 80)], seed=5)
    shard, _ = new_shard()
    ahead_s = AHEAD_TICKS / 250
    for event in events_of(patient, 60, [250], speed=20.0):
        shard.feed([event])
        if shard.not_now(crowded=False):
            assert isinstance(event, Chunk)
            assert ahead_s < event.first / patient.fs < ahead_s + 8
            break
    else:
        pytest.fail("it never waited")
    assert BEFORE_S + ahead_s + 8 < KEPT_S


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 900)), min_size=1, max_size=20), st.integers(0, 2000))
def test_rings_hold_the_newest_samples_and_say_what_is_missing(runs: list[tuple[int, int]], back: int) -> None:
    """`runs`: how many samples are missing, and how many follow."""
    fs, rings = 10.0, RawRings(2)
    rings.start(0, 1, 2 * fs)
    rings.start(1, 1, fs)
    rings.start(1, 2, fs)
    whole = np.zeros((2, 0), np.int16)
    for n_missing, n in runs:
        samples = np.arange(whole.shape[1], whole.shape[1] + n, dtype=np.int16)[None] + np.array([[0], [7]], np.int16)
        rings.push(np.array([1]), np.array([whole.shape[1] + n_missing]), samples[None])
        whole = np.concatenate([whole, np.full((2, n_missing), MISSING, np.int16), samples], axis=1)
    n = whole.shape[1]
    first = max(0, n - back)
    kept = whole.copy()
    kept[:, : max(0, n - int(KEPT_S * fs))] = MISSING
    np.testing.assert_array_equal(rings.cut(1, first, n - first + 3)[:, :-3], kept[:, first:])
    assert (rings.cut(1, n, 3) == MISSING).all()
