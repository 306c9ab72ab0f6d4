"""The shard in one process: the same from any packets, whole after a restart, and nothing made of a gap."""

import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.patients import Patient
from stream import checkpoint, wire
from stream.alarms.conditions import Profile
from stream.annotate import Annotated, VirtualClock, answers_to, collect, judge_all
from stream.relief import TOLD, Relief
from stream.shard import Shard, ShardFull
from stream.transport.ingest import BedAccount
from stream.transport.sequence import Chunk, Ended, Event, Gap, NewEpoch
from tests.stream.wards import RuleJudge, events_of, found, new_shard, play, told

SCRIPT = [("sinus", 15), ("vt", 8), ("sinus", 12), ("vf", 10), ("sinus", 15), ("asystole", 8), ("sinus", 12)]
SECONDS = 80


@pytest.fixture(scope="module")
def patient() -> Patient:
    return Patient("bed1", SCRIPT, seed=3, fs=360.0)


@pytest.fixture(scope="module")
def whole(patient: Patient) -> Annotated:
    return found([patient], SECONDS, [int(4 * patient.fs)])["bed1"]


def test_a_scripted_patient_raises_the_alarms_of_the_script(whole: Annotated) -> None:
    codes = {event.code for event in whole.alerts if event.phase == "start"}
    assert {"VFIB", "ASYSTOLE"} <= codes


@settings(max_examples=6, deadline=None)
@given(st.lists(st.integers(1, 2000), min_size=1, max_size=200))
def test_packets_of_any_size_give_the_same_judgements_and_alerts(sizes: list[int]) -> None:
    patient = Patient("bed1", SCRIPT, seed=3, fs=360.0)
    reference = found([patient], SECONDS, [int(4 * patient.fs)])["bed1"]
    other = found([patient], SECONDS, [*sizes, 36])["bed1"]
    assert told(other) == told(reference)
    assert [(b.at, b.label) for b in other.beats] == [(b.at, b.label) for b in reference.beats]
    assert _windows(other) == _windows(reference)


def test_beds_that_share_a_shard_do_not_change_each_other(patient: Patient, whole: Annotated) -> None:
    others = [Patient(f"bed{i}", [("af", 30), ("brady", 30)], seed=i, fs=fs) for i, fs in ((2, 250.0), (3, 125.0))]
    together = found([others[0], patient, others[1]], SECONDS, [90])["bed1"]
    assert told(together) == told(whole)
    assert [b.at for b in together.beats] == [b.at for b in whole.beats]


def test_a_beat_is_judged_once_and_in_order(whole: Annotated) -> None:
    at = [beat.at.sample for beat in whole.beats]
    assert at == sorted(set(at))
    assert len(at) > SECONDS / 2


@pytest.mark.parametrize("kill_s", [7.3, 20.0, 41.9, 63.0], ids=lambda s: f"killed-after-{s}-s")
def test_a_shard_that_is_killed_goes_on_from_its_checkpoint_as_if_nothing_had_been(
    patient: Patient, whole: Annotated, kill_s: float, tmp_path
) -> None:
    path = tmp_path / "checkpoint.msgpack"
    result = Annotated("bed1", patient.fs, 0)
    shard, clock = new_shard()
    judge = RuleJudge()
    saved_at = 0
    for event in events_of(patient, SECONDS, [36]):
        shard.feed([event])
        if isinstance(event, Chunk) and event.first >= kill_s * patient.fs:
            if not saved_at:
                # Items are on their way, unanswered, when the checkpoint is made.
                parts = checkpoint.take(shard.state_dict())
                saved_at = event.first + event.samples.shape[1]
                collect(shard, {"bed1": result})
            elif event.first > saved_at + 5 * patient.fs:
                break
        judge_all(shard, judge, clock)
        if not saved_at:
            collect(shard, {"bed1": result})

    checkpoint.write(path, parts)  # while the shard went on
    again, clock = new_shard()
    state = checkpoint.load(path)
    assert state is not None
    again.load_state_dict(state)
    rest = (
        event for event in events_of(patient, SECONDS, [36]) if not isinstance(event, Chunk) or event.first >= saved_at
    )
    next(rest)  # the epoch goes on
    play(again, clock, [rest], {"bed1": result})
    assert told(result) == told(whole)
    assert [b.at for b in result.beats] == [b.at for b in whole.beats]
    assert _windows(result) == _windows(whole)
    # What the gateway had not committed is told again, under the same id, and it is the same.
    events = {event.event_id: (event.code, event.phase, event.stream_time) for event in result.alerts}
    assert {(e.event_id, e.code, e.phase, e.stream_time) for e in result.alerts} == {
        (event_id, *what) for event_id, what in events.items()
    }
    # An event that only marks (`alert-n.mark`: announced again, say) may come elsewhere in the sequence.
    assert _transitions(result) == _transitions(whole)


@pytest.mark.parametrize("kill_s", [12, 30, 55])
def test_a_shard_goes_on_from_parts_that_were_saved_at_different_times(kill_s: int, tmp_path) -> None:
    """Two parts: beds 0 and 2 as of `kill_s`, bed 1 as of 3 s later; then it is killed, and each bed goes on from its
    own position, with what it had in flight."""
    patients = [Patient(f"bed{i}", SCRIPT[i:] + SCRIPT[:i], seed=10 + i) for i in range(3)]
    whole = found(patients, 70, [250])
    result = {p.name: Annotated(p.name, p.fs, 0) for p in patients}
    shard, clock = new_shard()
    positions: dict[str, int] = {}
    for second, events in enumerate(zip(*(events_of(p, 70, [250]) for p in patients), strict=True)):
        shard.feed(events)
        for part, saved_s in enumerate((kill_s, kill_s + 3)):
            if second == saved_s:  # items of all beds are with the worker, unanswered
                names = shard.beds_of(part, 2)
                checkpoint.save(tmp_path / str(part), shard.state_dict(part, 2))
                positions |= {event.bed: event.first + 250 for event in events if event.bed in names}
        judge_all(shard, RuleJudge(), clock)
        collect(shard, result)
        if second == kill_s + 7:
            break
    assert sorted(positions) == ["bed0", "bed1", "bed2"]

    again, clock = new_shard()
    for part in range(2):
        state = checkpoint.load(tmp_path / str(part))
        assert state is not None
        again.load_state_dict(state)
    assert len(again.judging) > 0
    play(again, clock, [_rest(p, positions[p.name]) for p in patients], result)
    for name, one in result.items():
        assert told(one) == told(whole[name])
        assert {(beat.at, beat.label) for beat in one.beats} == {(beat.at, beat.label) for beat in whole[name].beats}
        assert _transitions(one) == _transitions(whole[name])


def _rest(patient: Patient, first: int) -> Iterator[Event]:
    for event in islice(events_of(patient, 70, [250]), 1, None):  # the epoch goes on
        if not isinstance(event, Chunk) or event.first >= first:
            yield event


def test_a_row_that_no_part_knows_is_free_and_a_bed_that_moved_is_where_it_was_last() -> None:
    shard, _ = new_shard()
    patients = [Patient(f"bed{i}", [("sinus", 60)], seed=i) for i in range(3)]
    for patient in patients:
        shard.feed(list(events_of(patient, 2, [250]))[:-1])
    old = [checkpoint.take(shard.state_dict(part, 2)) for part in range(2)]
    del shard.beds["bed2"], shard._rows[2]  # as if bed 2 had come to the row of bed 1, after that had been released
    shard._rows[1].closed = True
    assert shard.release("bed1")
    shard.feed(list(events_of(patients[2], 2, [250]))[:-1])
    assert shard.beds["bed2"].row == 1
    states = [old[0], checkpoint.take(shard.state_dict(1, 2))]

    again, _ = new_shard()
    for state in states:
        again.load_state_dict(_written(state))
    assert {name: bed.row for name, bed in again.beds.items()} == {"bed0": 0, "bed2": 1}
    assert again._free == [2]
    alone, _ = new_shard()
    alone.load_state_dict(_written(old[1]))
    assert {name: bed.row for name, bed in alone.beds.items()} == {"bed1": 1}
    alone.feed(list(events_of(patients[0], 30, [250])))
    judge_all(alone, RuleJudge(), VirtualClock())
    assert sorted(bed.row for bed in alone.beds.values()) == [1, 2]


def _written(parts: checkpoint.Parts) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.write(Path(folder) / "c", parts)
        state = checkpoint.load(Path(folder) / "c")
    assert state is not None
    return state


def test_a_gap_is_never_asystole_and_beats_go_on_after_it() -> None:
    patient = Patient("bed1", [("sinus", 60)], seed=5)
    shard, clock = new_shard()
    result = {"bed1": Annotated("bed1", patient.fs, 0)}
    gap = (20 * 250, 12 * 250)
    play(shard, clock, [events_of(patient, 60, [25], gap)], result)
    codes = {event.code for event in result["bed1"].alerts}
    assert "ASYSTOLE" not in codes
    assert "VFIB" not in codes
    at = np.array([beat.at.sample for beat in result["bed1"].beats])
    assert not ((at >= gap[0]) & (at < sum(gap))).any()
    assert (at > sum(gap)).sum() > 20


def test_work_that_a_dead_worker_took_is_sent_again_and_judged_once(patient: Patient, whole: Annotated) -> None:
    shard, clock = new_shard()
    result = Annotated("bed1", patient.fs, 0)
    for i, event in enumerate(events_of(patient, SECONDS, [180])):
        shard.feed([event])
        if i % 40 < 20:
            shard.work()  # taken by a worker that dies
            continue
        judge_again(shard, clock)
        collect(shard, {"bed1": result})
    judge_again(shard, clock)
    collect(shard, {"bed1": result})
    assert [b.at for b in result.beats] == [b.at for b in whole.beats]
    assert told(result) == told(whole)


def test_a_beat_is_told_though_a_hop_before_it_waits_and_the_alarms_hear_all_in_order(
    patient: Patient, whole: Annotated
) -> None:
    shard, clock = new_shard()
    result = Annotated("bed1", patient.fs, 0)
    judge = RuleJudge()
    later: list[wire.Work] = []
    n_ahead = 0
    for event in events_of(patient, SECONDS, [180]):
        shard.feed([event])
        for work in shard.work():
            if work.kind == "beat":
                shard.answer(answers_to(work, judge, clock()))
            else:
                later.append(work)
        n_ahead += sum(isinstance(message, wire.BeatJudgement) for message in shard.messages) if later else 0
        if len(later) > 3:
            held, later = later, []
            saved = shard.state_dict()  # what was told is not told again by one that goes on from here
            again, _ = new_shard()
            collect(shard, {"bed1": result})
            again.load_state_dict(saved)
            shard = again
            for work in held:
                shard.answer(answers_to(work, judge, clock()))
        collect(shard, {"bed1": result})
    for work in later:
        shard.answer(answers_to(work, judge, clock()))
    judge_all(shard, judge, clock)
    collect(shard, {"bed1": result})
    assert n_ahead > 20
    assert [(b.at, b.label) for b in result.beats] == [(b.at, b.label) for b in whole.beats]
    assert told(result) == told(whole)


def test_a_live_bed_waits_no_longer_than_30_s_for_the_model_and_counts_what_it_forwent() -> None:
    patient = Patient("bed1", [("sinus", 90)], seed=1)
    shard, _ = new_shard()
    for event in events_of(patient, 90, [250], speed=1.0):
        shard.feed([event])
    assert len(shard.judging)
    bed = shard.beds["bed1"]
    bed.ended = False
    shard.forgo()
    assert bed.n_unjudged > 50
    labels = [m.label for m in shard.messages if isinstance(m, wire.BeatJudgement)]
    assert labels
    assert set(labels) == {"?"}


def test_asystole_and_rate_alarms_go_on_without_a_model() -> None:
    patient = Patient("bed1", [("sinus", 20), ("asystole", 10), ("sinus", 20)], seed=1)
    shard, _ = new_shard()
    for event in events_of(patient, 50, [25]):
        shard.feed([event])
    codes = {event.code for alerts in shard.outbox.unsent() for event in alerts.events}
    assert "ASYSTOLE" in codes


def test_a_new_epoch_is_taken_when_the_old_one_is_judged_and_nothing_is_lost() -> None:
    patient = Patient("bed1", [("sinus", 30)], seed=1)
    shard, clock = new_shard()
    result = {"bed1": Annotated("bed1", patient.fs, 0)}
    first = list(events_of(patient, 30, [250]))
    shard.feed(first)
    assert shard.not_now(crowded=False) == {"bed1"}
    judge_all(shard, RuleJudge(), clock)
    assert not shard.not_now(crowded=False)
    play(shard, clock, [iter([event._replace(epoch="epoch-2") for event in first])], result)
    beats = {epoch: [b.at.sample for b in result["bed1"].beats if b.epoch == epoch] for epoch in ("epoch-1", "epoch-2")}
    assert beats["epoch-1"] == beats["epoch-2"]
    assert len(beats["epoch-1"]) > 25


def test_the_next_epoch_of_a_bed_is_judged_as_if_it_were_its_first() -> None:
    patient = Patient("bed1", [("sinus", 12), ("couplets", 12), ("vt", 8)], seed=4)
    shard, clock = new_shard()
    first = list(events_of(patient, 32, [250], speed=1.0))
    epochs = []
    for number, events in enumerate((first[:-4], first)):  # of the first there is no end: its source was killed
        result = {"bed1": Annotated("bed1", patient.fs, 0)}
        play(shard, clock, [iter([event._replace(epoch=f"epoch-{number}") for event in events])], result)
        epochs.append(result["bed1"])
    until = 24 * patient.fs
    for seen in (
        lambda epoch: [(b.at.sample, b.label) for b in epoch.beats if b.at.sample < until],
        lambda epoch: [w.at.sample for w in epoch.windows if w.at.sample < until],
        lambda epoch: {(a.code, a.onset.sample) for a in epoch.alerts if a.stream_time.sample < until},
    ):
        assert seen(epochs[0]) == seen(epochs[1])
    assert len(epochs[0].beats) > 20


def test_a_live_beds_new_epoch_does_not_wait_for_a_model_that_is_away() -> None:
    patient = Patient("bed1", [("sinus", 20), ("asystole", 20)], seed=1)
    shard, clock = new_shard()
    first = list(events_of(patient, 40, [250], speed=1.0))
    shard.feed(first)
    assert shard.not_now(crowded=False) == {"bed1"}
    clock.ns += 1_100_000_000
    shard.forgo()
    assert not shard.not_now(crowded=False)
    shard.feed(event._replace(epoch="epoch-2") for event in first)
    told = [event for alerts in shard.outbox.unsent() for event in alerts.events]
    assert {event.epoch for event in told if event.code == "ASYSTOLE"} == {"epoch-1", "epoch-2"}


def test_a_crowded_worker_holds_back_replays_and_no_live_bed() -> None:
    shard, _ = new_shard()
    for name, speed in (("replay", 0.0), ("live", 1.0)):
        feed = events_of(Patient(name, [("sinus", 30)], seed=1), 30, [250], speed=speed)
        shard.feed([next(feed) for _ in range(20)])
    assert shard.not_now(crowded=True) == {"replay"}
    assert not shard.not_now(crowded=False)


def test_a_block_never_grows_over_the_wires_limit() -> None:
    """Windows of 400 beds that are due together are megabytes: they go in several blocks."""
    shard, clock = new_shard(capacity=400)
    patient = Patient("bed", [("sinus", 12)], seed=1)
    events = list(events_of(patient, 12, [1000]))
    for event in events[:-1]:
        shard.feed(event._replace(bed=f"bed{i}") for i in range(400))
    sizes = []
    while works := shard.work():
        sizes += [len(wire.encode(work)) for work in works]
        for work in works:
            shard.answer(answers_to(work, RuleJudge(token=64), clock()))  # tokens as wide as the trained model's
    assert max(sizes) < wire.MAX_FRAME_BYTES
    assert sum(isinstance(m, wire.WindowJudgement) for m in shard.messages) == 400 * 5


def test_what_was_judged_is_counted_where_it_went_through() -> None:
    patient = Patient("bed1", [("sinus", 30)], seed=1)
    shard, clock = new_shard()
    shard.feed(list(events_of(patient, 30, [250])))
    (status,) = shard.status([account()], {})
    assert 0 <= status.counts["analysed"] < 3 * 250, "nothing was judged yet"
    judge_all(shard, RuleJudge(), clock)
    (status,) = shard.status([account()], {})
    assert status.counts["analysed"] == 30 * 250


def test_what_the_gateway_does_not_take_is_counted_by_bed() -> None:
    shard, clock = new_shard()
    shard.feed(list(events_of(Patient("bed1", [("sinus", 20)], seed=1), 20, [250])))
    judge_all(shard, RuleJudge(), clock)
    told = [m for m in shard.messages if isinstance(m, wire.BeatJudgement)]
    shard.dropped([*told, wire.Greeting(shard="a", session="s")])
    (status,) = shard.status([account()], {})
    assert status.counts["dropped_messages"] == len(told) > 10


def test_answers_that_lack_an_array_or_a_row_are_refused_and_asked_for_again() -> None:
    shard, _ = new_shard()
    shard.feed(list(events_of(Patient("bed1", [("sinus", 20)], seed=1), 20, [250])))
    work = shard.work()[0]
    ids = wire.Tensor.of(np.arange(work.first_id, work.first_id + work.n))
    short = wire.Tensor.of(np.zeros((work.n - 1, 8), np.float32))
    full = {name: wire.Tensor.of(np.zeros((work.n, 8), np.float32)) for name in ("token", "gates")}
    narrow = wire.Tensor.of(np.zeros((work.n, 4), np.float32))
    double = wire.Tensor.of(np.zeros((work.n, 5)))
    assert work.kind == "beat"
    for arrays in (
        {},
        {"token": short, "probs": short, "gates": short},
        {**full, "probs": narrow},
        {**full, "probs": double},
    ):
        with pytest.raises(wire.WireError, match="arrays"):
            shard.answer(wire.Judged(kind=work.kind, ids=ids, arrays=arrays, batched_ns=1, judged_ns=1))
    assert work in shard.judging.send_again()


def test_a_checkpoint_of_a_shard_of_another_size_is_refused() -> None:
    shard, _ = new_shard(capacity=1)
    with pytest.raises(ValueError, match="capacity"):
        new_shard(capacity=4)[0].load_state_dict(shard.state_dict())


def account(**told: Any) -> BedAccount:
    usual = BedAccount("bed1", "epoch-1", "test", 0, 250.0, False, {}, 20.0, 0.1, 0.0, 0.1, 0.0, False, False)
    return usual._replace(**told)


@pytest.mark.parametrize(
    ("code", "stalled", "told"),
    [
        ("SIGNAL_LOST", False, {"silent_s": 2.5}),
        ("STREAM_LATE", False, {"age_ms": 2500.0}),
        ("CLOCK_UNSYNC", False, {"clock_stepped": True}),
        ("MODEL_STALLED", True, {}),
    ],
)
def test_a_watchdog_raises_its_technical_alarm_once_and_ends_it(code: str, stalled: bool, told: dict[str, Any]) -> None:
    shard, _ = new_shard()
    feed = events_of(Patient("bed1", [("sinus", 30)], seed=1), 30, [250], speed=1.0)
    for _ in range(5):
        shard.feed([next(feed)])
    shard.outbox.unsent()
    for _ in range(3):
        shard.watch(stalled, [account(**told)])
    shard.watch(False, [account()])
    events = [event for alerts in shard.outbox.unsent() for event in alerts.events]
    assert [(e.code, e.phase, e.kind) for e in events] == [(code, "start", "technical"), (code, "end", "technical")]


def test_overload_thins_calm_beds_counts_it_says_so_and_leaves_vf_alone() -> None:
    patients = {
        "calm": Patient("calm", [("sinus", 80)], seed=1),
        "vf": Patient("vf", [("sinus", 20), ("vf", 60)], seed=2),
    }
    found = {}
    for level in (0, 3):
        shard, clock = new_shard()
        feeds = [events_of(patient, 60, [250], speed=1.0) for patient in patients.values()]
        result = {name: Annotated(name, 250.0, 0) for name in patients}
        play(shard, clock, [islice(feed, 5) for feed in feeds], result)
        for i in range(level):
            shard.relief.look(5.0, (i + 1) * 1_000_000_000)
        shard.watch(False, [account(bed=name) for name in patients])
        play(shard, clock, [islice(feed, 55) for feed in feeds], result)
        shard.relief = Relief()
        shard.watch(False, [account(bed=name) for name in patients])
        collect(shard, result)
        counts = {s.bed: s.counts for s in shard.status([account(bed=name) for name in patients], {})}
        found[level] = result, counts
    (all_of, _), (some_of, counts) = found[0], found[3]
    assert {beat.label for beat in some_of["calm"].beats[20:]} == {"?"}
    assert [beat.at for beat in some_of["calm"].beats] == [beat.at for beat in all_of["calm"].beats]
    assert len(some_of["calm"].windows) < 0.4 * len(all_of["calm"].windows)
    assert counts["calm"]["thinned"] == len(all_of["calm"].windows) - len(some_of["calm"].windows)
    late = [w.at.sample for w in all_of["vf"].windows if w.at.sample > 30 * 250]
    assert [w.at.sample for w in some_of["vf"].windows if w.at.sample > 30 * 250] == late  # of VF all are judged
    onsets = [{(e.code, e.onset, e.stream_time) for e in r["vf"].alerts if e.code == "VFIB"} for r in (all_of, some_of)]
    assert onsets[0] == onsets[1] != set()
    told = [(e.phase, e.reason) for e in some_of["calm"].alerts if e.code == "MODEL_OVERLOADED"]
    assert told == [("start", TOLD[3]), ("end", "over")]


def test_an_epoch_whose_last_beats_are_not_judged_for_want_of_time_is_closed_all_the_same() -> None:
    shard, clock = new_shard()
    result = {"bed1": Annotated("bed1", 250.0, 0)}
    *events, end = events_of(Patient("bed1", [("sinus", 30)], seed=1), 30.2, [250], speed=1.0)
    play(shard, clock, [iter(events)], result)
    for i in range(3):
        shard.relief.look(5.0, (i + 1) * 1_000_000_000)
    shard.feed([end])
    shard.forgo()  # in the same round
    judge_all(shard, RuleJudge(), clock)
    shard.forgo()
    assert shard.beds["bed1"].closed


def test_a_bed_without_ecg_and_one_of_nothing_but_gaps_hurt_nobody() -> None:
    shard, clock = new_shard()
    result = {name: Annotated(name, 250.0, 0) for name in ("bed1", "bed2", "bed3")}
    pleth = (wire.Signal("Pleth", "pleth", "NU", 100.0),)
    ones = np.ones((1, 500), np.int16)
    none = [
        NewEpoch("bed2", "e", pleth, 250.0, "test", 0.0),
        *(Chunk("bed2", "e", pleth, 250.0, at, ones, 0, 0, 0, 0) for at in range(0, 5000, 500)),
        Ended("bed2", "e", 5000),
    ]
    ecg = (wire.Signal("II", "ecg", "mV", 200.0),)
    missing = np.full((1, 5000), wire.MISSING, np.int16)
    gone = [
        NewEpoch("bed3", "e", ecg, 2000.0, "test", 0.0),
        Gap("bed3", "e", 0, 70_000, "test"),
        Chunk("bed3", "e", ecg, 2000.0, 70_000, missing, 0, 0, 0, 0),
        Gap("bed3", "e", 75_000, 1, "test"),
        Ended("bed3", "e", 75_001),
    ]
    play(shard, clock, [events_of(Patient("bed1", [("sinus", 20)], seed=1), 20, [250]), iter(none), iter(gone)], result)
    assert len(result["bed1"].beats) > 12
    assert not result["bed2"].beats
    assert {event.code for event in result["bed2"].alerts} <= {"LEADS_OFF", "LEARNING"}
    assert not result["bed3"].beats


def test_a_late_answer_to_the_session_before_is_not_taken_for_a_new_item() -> None:
    shard, clock = new_shard()
    feed = list(events_of(Patient("bed1", [("sinus", 40)], seed=1), 40, [2500]))
    shard.feed(feed[:2])
    state = shard.state_dict()
    shard.work()
    shard.feed(feed[2:3])
    late = [answers_to(work, RuleJudge(), clock()) for work in shard.work()]  # the shard dies before they come
    assert late
    clock.ns += 1_000_000_000
    again = Shard("test", 4, 2, lambda bed: Profile(), clock, "session-2")
    again.load_state_dict(state)
    again.feed(feed[2:3])
    waiting = len(again.judging)
    for judged in late:
        again.answer(judged)
    assert len(again.judging) == waiting


def test_the_place_of_a_bed_that_is_over_goes_to_another_and_a_checkpoint_knows() -> None:
    shard, clock = new_shard(capacity=1)
    result = {f"bed{i}": Annotated(f"bed{i}", 250.0, 0) for i in (1, 2)}
    play(shard, clock, [events_of(Patient("bed1", [("sinus", 10)], seed=1), 10, [250])], result)
    assert shard.release("bed1")
    again, clock = new_shard(capacity=1)
    again.load_state_dict(shard.state_dict())
    assert not again.beds
    play(again, clock, [events_of(Patient("bed2", [("sinus", 10)], seed=1), 10, [250])], result)
    assert [b.at for b in result["bed2"].beats] == [b.at for b in result["bed1"].beats]


def test_a_bed_that_goes_on_keeps_its_place() -> None:
    shard, _ = new_shard()
    feed = events_of(Patient("bed1", [("sinus", 10)], seed=1), 10, [250])
    shard.feed([next(feed), next(feed)])
    assert not shard.release("bed1")


def test_one_bed_too_many_is_refused_by_name() -> None:
    shard, _ = new_shard(capacity=1)
    shard.feed(list(events_of(Patient("bed1", [("sinus", 5)]), 5, [250])))
    with pytest.raises(ShardFull, match=r"bed2.*capacity"):
        shard.feed(list(events_of(Patient("bed2", [("sinus", 5)]), 5, [250])))


def test_an_action_is_applied_where_the_bed_is_and_echoed_with_its_sample() -> None:
    shard, _ = new_shard()
    patient = Patient("bed1", [("sinus", 30)], seed=1)
    feed = events_of(patient, 30, [250])
    for _ in range(12):
        shard.feed([next(feed)])
    action = wire.Action(id="a1", bed="bed1", kind="audio_pause", who="nurse", at_ns=1, until_s=60.0)
    echo = shard.act(action)
    assert echo is not None
    assert (echo.epoch, echo.sample) == ("epoch-1", 11 * 250)
    assert shard.act(wire.Action(id="a2", bed="bed9", kind="acknowledge", who="nurse", at_ns=1)) is None


def test_a_shard_without_beds_has_a_checkpoint_too(tmp_path) -> None:
    shard, _ = new_shard()
    checkpoint.save(tmp_path / "c.msgpack", shard.state_dict())
    again, _ = new_shard()
    state = checkpoint.load(tmp_path / "c.msgpack")
    assert state is not None
    again.load_state_dict(state)
    assert isinstance(again, Shard)
    assert not again.beds


def _windows(result: Annotated) -> list[tuple[wire.Moment, float, float | None, float]]:
    return [(w.at, w.shockable, w.rr_ms, w.quality) for w in result.windows]


def _transitions(result: Annotated) -> set[str]:
    return {event.event_id for event in result.alerts if "." not in event.event_id}


def judge_again(shard: Shard, clock: VirtualClock) -> None:
    """A worker that is new gets all that is not answered, as from `ShardRole`."""
    for work in shard.judging.send_again():
        shard.answer(answers_to(work, RuleJudge(), clock()))
    judge_all(shard, RuleJudge(), clock)
