"""The life of alerts: chains, time-outs, latching, operators, and what must hold whatever comes."""

import random
from collections.abc import Callable, Mapping
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from stream import wire
from stream.alarms.bed import BedAlarms
from stream.alarms.conditions import CONDITIONS, Profile
from stream.alarms.criteria import WATERMARK
from stream.wire import AlertEvent
from tests.stream.playing import Player, decided, ticks

N = 0.8


def newest(player: Player, code: str) -> AlertEvent:
    return player.of(code)[-1]


# Chains and time-outs -------------------------------------------------------------------------------------------------


def test_a_lower_one_of_a_chain_is_told_and_marked() -> None:
    player = Player()
    player.beats("VVV", 0.5)
    player.beats("N", N)
    player.beats("VNVNV", {"V": 0.6, "N": 0.9})
    nsvt, bigeminy = player.of("NSVT", "start")[0], player.of("BIGEMINY", "start")[0]
    assert nsvt.suppressed_by is None
    assert bigeminy.suppressed_by == nsvt.alert_id


def test_a_higher_one_of_a_chain_takes_over_and_gives_back() -> None:
    player = Player()
    player.beats("VNVNVN", 0.7)
    player.beats("VVN", 0.5)
    bigeminy, pair = player.of("BIGEMINY")[0], player.of("PAIR_PVC", "start")[0]
    assert bigeminy.suppressed_by is None and pair.suppressed_by is None
    assert newest(player, "BIGEMINY").suppressed_by == pair.alert_id
    player.beats("VNVNVNVNVNVN", 0.7)
    assert newest(player, "BIGEMINY").suppressed_by is None  # announced before, so no time-out holds it


def test_a_red_keeps_back_every_yellow_and_gives_them_back() -> None:
    player = Player()
    player.rhythm("AF", 70)
    player.beats("V" * 6, 0.4)
    vtach = player.of("VTACH", "start")[0]
    assert newest(player, "AFIB").suppressed_by == vtach.alert_id
    player.rhythm("AF", 10)
    assert newest(player, "AFIB").suppressed_by is None
    assert newest(player, "AFIB").stream_time == player.of("AFIB", "start")[0].stream_time  # a mark is no new decision


def test_reds_keep_back_reds_of_lower_chains_only() -> None:
    player = Player()
    player.beats("N" * 15, 0.4)
    x_tachy = player.of("X_TACHY", "start")[0]
    player.beats("V" * 6, 0.4)
    vtach = player.of("VTACH", "start")[0]
    assert x_tachy.suppressed_by is None and vtach.suppressed_by is None
    assert newest(player, "X_TACHY").suppressed_by == vtach.alert_id
    player.take(player.alarms.vf(True, player.now, player.now + 1000))
    player.to(player.now + 1001)
    assert newest(player, "VTACH").suppressed_by == player.of("VFIB", "start")[0].alert_id


def test_a_red_that_was_never_announced_does_not_latch() -> None:
    player = Player()
    onset = player.now
    player.take(player.alarms.vf(True, onset, onset + ticks(4)))
    player.to(onset + ticks(4.1))
    player.last = player.now
    player.beats("V" * 6, 0.4)
    assert player.of("VTACH", "start")[0].suppressed_by == player.of("VFIB", "start")[0].alert_id
    player.wait(6)
    assert newest(player, "VTACH").phase == "end" and newest(player, "VTACH").state == "inactive"


@pytest.mark.parametrize(
    ("level", "raising", "code", "seconds"), [(1, "VVN", "PAIR_PVC", 180), (2, "VNVNVN", "BIGEMINY", 600)]
)
def test_after_a_yellow_the_same_is_kept_back_for_its_time_out(
    level: int, raising: str, code: str, seconds: int
) -> None:
    player = Player()
    player.beats(raising, 0.55)
    first = player.of(code, "start")[0]
    assert CONDITIONS[code].level == level
    while player.now < first.stream_time.sample + ticks(seconds - 20):
        player.beats("N" * 10, N)
    player.beats(raising, 0.55)
    assert player.of(code, "start")[-1].suppressed_by == first.alert_id
    player.beats("N" * 40, N)
    player.beats(raising, 0.55)
    assert player.of(code, "start")[-1].suppressed_by is None
    assert len(player.of(code, "start")) == 3


def test_a_higher_one_breaks_through_a_time_out_and_starts_its_own() -> None:
    player = Player()
    player.beats("VNVNVN", 0.7)
    player.beats("N" * 30, N)
    player.beats("VVN", 0.5)
    pair = player.of("PAIR_PVC", "start")[0]
    assert pair.suppressed_by is None
    player.beats("N" * 10, N)
    player.beats("VVVN", 0.5)
    assert player.of("NSVT", "start")[0].suppressed_by is None
    player.beats("N" * 10, N)
    player.beats("VVN", 0.5)
    assert player.of("PAIR_PVC", "start")[-1].suppressed_by == player.of("NSVT", "start")[0].alert_id


def test_what_lasts_longer_than_its_time_out_is_announced_then() -> None:
    player = Player({"TIMEOUTS": {"level_2_s": 60}})
    player.beats("VNVNVN", 0.7)
    player.beats("N" * 20, N)
    while not player.of("BIGEMINY", "start")[1:] or newest(player, "BIGEMINY").suppressed_by:
        player.beats("VN", 0.7)
        assert player.now < ticks(120)
    event = newest(player, "BIGEMINY")
    assert (event.phase, event.reason) == ("update", "announced")


def test_the_refractory_time_holds_where_time_outs_are_off() -> None:
    player = Player({"TIMEOUTS": {"level_1_s": 0, "level_2_s": 0}})
    player.beats("VVN" + "N" * 15 + "VVN", 0.55)
    pairs = player.of("PAIR_PVC", "start")
    assert [pair.suppressed_by for pair in pairs] == [None, pairs[0].alert_id]
    player.beats("N" * 60 + "VVN", 0.55)
    assert player.of("PAIR_PVC", "start")[-1].suppressed_by is None


def test_rate_limits_have_no_time_out() -> None:
    player = Player()
    for _ in range(2):
        player.beats("N" * 20, 60 / 130)
        player.beats("N" * 30, N)
    assert [event.suppressed_by for event in player.of("HR_HIGH", "start")] == [None, None]


def test_reds_and_time_outs_never_keep_back_technical_alarms() -> None:
    player = Player()
    player.wait(6)
    player.take(player.alarms.technical("MODEL_STALLED", True, "", player.now))
    assert newest(player, "MODEL_STALLED").suppressed_by is None


# Latching and operators -----------------------------------------------------------------------------------------------


def test_a_red_latches_until_it_is_acknowledged() -> None:
    player = Player()
    player.beats("V" * 6 + "N" * 60, 0.5)
    assert newest(player, "VTACH").state == "latched"
    (reset,) = [event for event in player.act("acknowledge") if event.code == "VTACH"]
    assert (reset.phase, reset.state, reset.inactivation) == ("reset", "inactive", ("alert-acknowledged",))
    assert reset.ack == {"by": "nurse", "at_ns": 1, "sample": player.now, "action": "a1"}
    assert not player.act("acknowledge")


def test_a_red_acknowledged_while_active_does_not_latch() -> None:
    player = Player()
    player.beats("V" * 6, 0.5)
    (event,) = player.act("acknowledge", alert_id=newest(player, "VTACH").alert_id)
    assert (event.phase, event.state, event.inactivation) == ("update", "active", ("alert-acknowledged",))
    player.beats("N" * 20, N)
    assert (newest(player, "VTACH").phase, newest(player, "VTACH").state) == ("end", "inactive")


def test_yellows_do_not_latch() -> None:
    player = Player()
    player.beats("VVN" + "N" * 20, 0.5)
    assert (newest(player, "PAIR_PVC").phase, newest(player, "PAIR_PVC").state) == ("end", "inactive")


def test_a_new_episode_is_not_covered_by_an_old_acknowledgement() -> None:
    player = Player()
    player.beats("V" * 6, 0.5)
    player.act("acknowledge")
    player.beats("N" * 20, N)
    player.beats("V" * 6, 0.5)
    first, second = player.of("VTACH", "start")
    assert second.alert_id != first.alert_id and second.ack is None and second.inactivation == ()


def test_a_new_episode_takes_the_place_of_a_latched_one() -> None:
    player = Player()
    for _ in range(2):
        player.beats("V" * 6, 0.5)
        player.beats("N" * 20, N)
    first, second = player.of("VTACH", "start")
    assert second.supersedes == first.alert_id
    reset = next(event for event in player.of("VTACH", "reset"))
    assert reset.alert_id == first.alert_id and reset.reason == "new episode"
    assert newest(player, "VTACH").state == "latched" and newest(player, "VTACH").alert_id == second.alert_id


def test_a_trigger_again_clears_the_acknowledgement() -> None:
    player = Player()
    player.beats("VVN", 0.5)
    player.act("acknowledge")
    assert newest(player, "PAIR_PVC").ack is not None
    player.beats("NVVN", 0.5)
    again = newest(player, "PAIR_PVC")
    assert (again.phase, again.reason, again.ack, again.inactivation) == ("update", "again", None, ())
    assert len(player.of("PAIR_PVC", "start")) == 1


def test_acknowledging_all_leaves_out_what_is_not_announced() -> None:
    player = Player()
    player.rhythm("AF", 70)
    player.beats("V" * 6, 0.4)
    player.act("acknowledge")
    assert newest(player, "VTACH").ack is not None and newest(player, "AFIB").ack is None
    player.rhythm("AF", 10)
    assert newest(player, "AFIB").suppressed_by is None and newest(player, "AFIB").inactivation == ()


def test_acknowledging_what_is_over_does_nothing() -> None:
    assert Player().act("acknowledge", alert_id="0123456789abcdef") == []


@pytest.mark.parametrize(
    ("kind", "mark", "seconds"),
    [("audio_pause", "audio-paused", 120), ("alarm_pause", "alarm-paused", 180), ("alarms_off", "alarm-off", 3600)],
)
def test_pauses_mark_what_stands_and_comes_and_end_by_themselves(kind: str, mark: str, seconds: int) -> None:
    player = Player()
    player.wait(6)
    at = player.now
    (event,) = [event for event in player.act(kind) if event.code == "ASYSTOLE"]
    assert (event.phase, event.inactivation) == ("update", (mark,))
    player.beats("NN" + "N" * 10 + "V" * 6, 0.5)
    assert player.of("VTACH", "start")[0].inactivation == (mark,)
    player.to(at + ticks(seconds))
    assert newest(player, "VTACH").inactivation == (mark,)
    player.to(at + ticks(seconds) + 1)
    assert newest(player, "VTACH").inactivation == () and newest(player, "VTACH").state == "latched"


def test_alarms_on_ends_every_pause() -> None:
    player = Player()
    player.wait(6)
    for kind in ("audio_pause", "alarm_pause", "alarms_off"):
        player.act(kind)
    assert newest(player, "ASYSTOLE").inactivation == ("alarm-off", "audio-paused")
    player.act("alarms_on")
    assert newest(player, "ASYSTOLE").inactivation == ()
    assert newest(player, "ALARMS_OFF").phase == "end"


@pytest.mark.parametrize(("kind", "until_s", "says"), [
    ("audio_pause", 601, "audio_pause may last up to 600 s"), ("alarm_pause", -1, "up to 1800 s"),
    ("alarms_off", 1e9, "up to 86400 s"), ("alarms_off", float("nan"), "up to 86400 s"),
])  # fmt: skip
def test_a_pause_without_end_is_refused(kind: str, until_s: float, says: str) -> None:
    player = Player()
    with pytest.raises(ValueError, match=says):
        player.act(kind, until_s=until_s)
    assert player.alarms.state()["life"]["until"] == {}


def test_limits_change_while_running_on_both_clocks() -> None:
    player = Player()
    player.act("limits", limits={"HR_HIGH": {"limit": 90}, "VTACH": {"run": 8}})
    player.beats("N" * 15, 0.6)
    assert player.of("HR_HIGH", "start")[0].text == "**HR 92>90"
    player.beats("V" * 7, 0.5)
    assert not player.started("VTACH")
    player.beats("V", 0.5)
    assert player.started("VTACH")


def test_a_refused_limit_changes_nothing() -> None:
    player = Player()
    with pytest.raises(ValueError, match=r"HR_HIGH.limit: 20 is refused; it may be 60 to 300 bpm"):
        player.act("limits", limits={"VTACH": {"run": 8}, "HR_HIGH": {"limit": 20}})
    assert player.alarms.profile.changes == {}


def restarted(before: BedAlarms, changes: Mapping[str, Mapping[str, Any]]) -> BedAlarms:
    """The same bed from its checkpoint, set up with these changes of the defaults."""
    after = BedAlarms(before.bed, before.epoch, before.fs, Profile(changes))
    after.restore(msgpack.unpackb(msgpack.packb(before.state()), strict_map_key=False))
    return after


def test_after_a_restart_the_limits_are_those_set_up_now_with_the_operators_on_top() -> None:
    player = Player({"HR_HIGH": {"limit": 140}, "HR_LOW": {"limit": 45}})
    player.act("limits", limits={"VTACH": {"run": 8}, "HR_LOW": {"limit": 40}})
    player.alarms = restarted(player.alarms, {"HR_HIGH": {"limit": 90}, "HR_LOW": {"limit": 55}})
    limit = player.alarms.profile.limit
    assert (limit("HR_HIGH", "limit"), limit("HR_LOW", "limit"), limit("VTACH", "run")) == (90, 40, 8)
    player.beats("N" * 15, 0.6)
    assert player.of("HR_HIGH", "start")[0].text == "**HR 92>90"
    player.beats("V" * 7, 0.5)
    assert not player.started("VTACH")
    player.beats("V", 0.5)
    assert player.started("VTACH")
    again = restarted(player.alarms, {"HR_HIGH": {"limit": 150}})
    assert (again.profile.limit("HR_HIGH", "limit"), again.profile.limit("VTACH", "run")) == (150, 8)


def test_an_operators_limits_that_the_model_has_not_come_to_yet_outlast_a_restart() -> None:
    player = Player()
    at = player.now
    player.alarms.advance(at + ticks(2))
    player.alarms.action(
        wire.Action(id="x", bed="b", kind="limits", who="n", at_ns=1, limits={"VTACH": {"run": 8}}), at
    )
    player.alarms = restarted(player.alarms, {"VTACH": {"rate": 110}})
    player.wait(3)
    player.beats("V" * 7, 0.5)
    assert not player.started("VTACH")
    player.beats("V", 0.5)
    assert player.of("VTACH", "start")[0].limits == (None, 110)


def test_what_is_switched_off_in_the_set_up_ends_at_a_restart_and_is_named() -> None:
    player = Player()
    player.rhythm("AF", 70)
    assert player.standing("AFIB") == "active"
    player.alarms = restarted(player.alarms, {"AFIB": {"enabled": False}})
    assert player.alarms.next_due <= player.now + 1
    player.to(player.now + 1)
    assert newest(player, "AFIB").state == "inactive"
    assert newest(player, "SOME_ALARMS_OFF").evidence == {"codes": "AFIB"}


def test_an_operators_limit_that_no_longer_fits_is_left_out_and_said() -> None:
    player = Player()
    player.act("limits", limits={"HR_LOW": {"limit": 100}, "VTACH": {"run": 8}})
    after = restarted(player.alarms, {"HR_HIGH": {"limit": 90}})
    assert (after.profile.limit("HR_LOW", "limit"), after.profile.limit("VTACH", "run")) == (50, 8)
    (refused,) = after.take_refused()
    assert refused.startswith("HR_LOW.limit: 100 is not below HR_HIGH.limit 90")
    assert after.take_refused() == []


def test_switching_an_alarm_off_ends_it() -> None:
    player = Player()
    player.rhythm("AF", 70)
    player.beats("N" * 20, 60 / 130)
    player.act("limits", limits={"AFIB": {"enabled": False}, "HR_HIGH": {"enabled": False}})
    player.beats("N" * 20, 60 / 130)
    assert (newest(player, "AFIB").state, newest(player, "HR_HIGH").state) == ("inactive", "inactive")
    player.act("limits", limits={"HR_HIGH": {"enabled": True}})
    player.beats("N" * 2, 60 / 130)
    assert newest(player, "HR_HIGH").phase == "start"


def test_an_action_given_back_is_done_at_its_sample_and_once() -> None:
    player = Player()
    action = wire.Action(id="x", bed="bed-1", kind="audio_pause", who="nurse", at_ns=1)
    at = player.now + ticks(10)
    assert player.alarms.action(action, at) == []
    player.wait(6)
    assert newest(player, "ASYSTOLE").inactivation == ()
    player.to(at + 1)
    assert newest(player, "ASYSTOLE").inactivation == ("audio-paused",)
    player.act("alarms_on")
    assert player.alarms.action(action, player.now) == []
    assert newest(player, "ASYSTOLE").inactivation == ()


def test_what_lasts_is_told_again_every_minute() -> None:
    player = Player()
    player.wait(200)
    start = player.of("ASYSTOLE", "start")[0].stream_time.sample
    again = [event.stream_time.sample - start for event in player.of("ASYSTOLE", "continue")]
    assert again == [ticks(60), ticks(120), ticks(180)]


def test_the_end_of_an_epoch_ends_conditions_and_hands_on_what_is_latched() -> None:
    player = Player()
    player.beats("V" * 6 + "N" * 20, 0.5)
    player.rhythm("AF", 80)
    player.take(player.alarms.technical("STREAM_LATE", True, "", player.now))
    player.act("audio_pause")
    player.take(player.alarms.close(player.now))
    assert {e.code for e in last_of_each(player.events).values() if e.state == "active"} == set()
    after = BedAlarms("bed-1", "epoch-2", 360.0)
    after.inherit(player.alarms)
    assert [alert["code"] for alert in after.state()["life"]["alerts"].values()] == ["VTACH"]
    events = after.action(wire.Action(id="y", bed="bed-1", kind="acknowledge", who="nurse", at_ns=1), 0)
    reset = next(event for event in events if event.code == "VTACH")
    assert (reset.phase, reset.epoch, reset.onset.fs) == ("reset", "epoch-1", 250.0)
    told = last_of_each([*events, *after.advance(ticks(119))])
    assert all("audio-paused" in event.inactivation for event in told.values() if event.state == "active")
    told = last_of_each([*told.values(), *after.advance(ticks(121))])
    assert {event.inactivation for event in told.values() if event.state != "inactive"} == {()}


def test_a_new_epoch_takes_over_what_operators_have_set_and_is_not_told_twice() -> None:
    player = Player({"HR_LOW": {"limit": 45}})
    player.act("limits", limits={"HR_HIGH": {"limit": 90}, "VTACH": {"run": 8}, "AFIB": {"enabled": False}})
    later = wire.Action(id="z", bed="bed-1", kind="limits", who="n", at_ns=1, limits={"VTACH": {"run": 9}})
    player.take(player.alarms.action(later, player.now + ticks(1000)))  # given back, and not due before the epoch's end
    player.take(player.alarms.close(player.now))
    after = BedAlarms("bed-1", "epoch-2", 250.0, Profile({"HR_LOW": {"limit": 40}}))
    after.inherit(player.alarms)
    limit = after.profile.limit
    assert (limit("HR_HIGH", "limit"), limit("VTACH", "run"), limit("HR_LOW", "limit")) == (90, 9, 40)
    assert after.action(later, 0) == [], "what the gateway gives back has been done"
    player.alarms, player.now, player.last, seen = after, 0, 0, len(player.events)
    player.beats("N" * 20, 0.6)
    player.beats("V" * 8 + "N", 0.5)
    told = {event.code: event for event in player.events[seen:]}
    assert told["SOME_ALARMS_OFF"].evidence == {"codes": "AFIB"}
    assert told["HR_HIGH"].onset.sample < ticks(12)
    assert "VTACH" not in told


def test_two_changes_of_limits_at_one_sample_are_told_under_two_ids() -> None:
    player = Player()
    for off in ({"AFIB": {"enabled": False}}, {"AFIB": {"enabled": True}}, {"PAUSE": {"enabled": False}}):
        player.act("limits", limits=off)
    told = player.of("SOME_ALARMS_OFF")
    assert [event.phase for event in told] == ["start", "end", "start"]
    assert len({event.event_id for event in told}) == 3


def test_alarms_that_are_paused_are_said_to_be_in_a_new_epoch_too() -> None:
    player = Player()
    player.act("alarm_pause")
    player.take(player.alarms.close(player.now))
    after = BedAlarms("bed-1", "epoch-2", 250.0)
    after.inherit(player.alarms)
    told = [(e.epoch, e.phase) for e in [*player.events, *after.advance(10)] if e.code == "ALARMS_OFF"]
    assert told == [("epoch-1", "start"), ("epoch-1", "end"), ("epoch-2", "start")]


# Identity and events --------------------------------------------------------------------------------------------------


def test_events_carry_all_that_the_ward_needs_and_fit_the_wire() -> None:
    player = Player()
    player.beats("V" * 6, 60 / 162)
    event = player.of("VTACH", "start")[0]
    assert event.text == "***VTACH 161>100"
    assert (event.priority, event.kind, event.latching, event.unit, event.chain) == (
        "high",
        "physiological",
        True,
        "bpm",
        "R2",
    )
    assert event.mdc == "199832^MDC_EVT_ECG_V_TACHY^MDC"
    assert event.evidence == {"path": "beats", "confidence": 0.9, "run": 5}
    assert (event.emit_time, event.stamps, event.simulated) == ("", wire.Stamps(), True)
    for sent in player.events:
        assert wire.decode(wire.encode(sent)) == sent


def test_ids_are_those_of_bed_epoch_code_and_onset() -> None:
    first, second = Player(), Player()
    for player in (first, second):
        player.beats("V" * 6, 0.4)
        player.wait(10)
    assert [event.event_id for event in first.events] == [event.event_id for event in second.events]
    assert len({event.event_id for event in first.events}) == len(first.events)
    assert {event.alert_id for event in first.of("VTACH")}.isdisjoint(event.alert_id for event in first.of("ASYSTOLE"))
    for event in first.events:
        assert event.event_id.startswith(f"{event.alert_id}-{event.seq}")


@pytest.mark.parametrize("found_late", [False, True])
@pytest.mark.parametrize("pieces", [1, 7])
def test_a_gap_of_days_costs_no_more_than_a_short_one(found_late: bool, pieces: int) -> None:
    player = Player({"AFIB": {"enabled": False}})
    player.quality([0, 1], 2)
    player.act("alarms_off", until_s=86400)
    player.alarms.take_numerics()
    first, n = player.now, 10**8
    end = first + n
    seen = len(player.events)
    for i in range(pieces):
        part, rest = first + n * i // pieces, first + n * (i + 1) // pieces
        player.take(player.alarms.gap(part, rest - part, rest if found_late else part))
    player.to(end)
    assert len(player.events) - seen < 8 * pieces and player.patient_codes() == []
    assert player.alarms.take_numerics() == []
    assert [event for event in player.events[seen:] if event.phase == "continue"] == []
    player.to(end + ticks(70))
    assert [n.at.sample for n in player.alarms.take_numerics()] == [-(-end // 250) * 250 + 250 * i for i in range(70)]
    for code in ("LEAD_OFF", "SOME_ALARMS_OFF"):
        (told,) = [event for event in player.of(code, "continue") if event.stream_time.sample >= end]
        since = told.stream_time.sample - player.of(code, "start")[0].stream_time.sample
        assert since % ticks(60) == 0


# Determinism ----------------------------------------------------------------------------------------------------------

Call = tuple[int, str, tuple[Any, ...]]  # the tick at which a clock has it, method, arguments
PIECES = (
    "sinus",
    "fast",
    "slow",
    "vt",
    "nsvt",
    "pvcs",
    "bigeminy",
    "af",
    "vtwin",
    "pause",
    "asystole",
    "vf",
    "vfwin",
    "off",
    "noise",
    "gap",
    "short",
    "svt",
)


def story(pieces: list[str], seed: int) -> tuple[list[Call], list[Call], int]:
    """What detectors and model would tell of a patient with these episodes: both clocks' calls, and the end."""
    rng = random.Random(seed)
    detector: list[Call] = []
    model: list[Call] = []
    now = last = 0
    reasons: list[tuple[int, int, list[int]]] = []  # from, to, reason
    silent: list[tuple[int, int]] = []  # gaps
    windows: list[tuple[int, int, str]] = []

    def beats(labels: str, rr: Callable[[], float]) -> None:
        nonlocal now, last
        for label in labels:
            last = max(last + 1, now + ticks(rr()))
            now = last
            told = now + rng.randint(20, WATERMARK)
            detector.append((told, "beat", (now, told)))
            ready = now + rng.randint(70, 300)
            model.append((ready, "judged_beat", (now, ready, label, 0.9, 0.0, rng.randint(0, 2))))

    beats("N" * 9, lambda: 0.8)
    for piece in pieces:
        start = now
        if piece == "sinus":
            beats("N" * rng.randint(3, 40), lambda: rng.uniform(0.7, 0.9))
        elif piece == "fast":
            beats("N" * rng.randint(5, 40), lambda: rng.uniform(0.3, 0.5))
        elif piece == "slow":
            beats("N" * rng.randint(3, 15), lambda: rng.uniform(1.2, 1.9))
        elif piece in ("vt", "nsvt"):
            beats("V" * rng.randint(*((5, 25) if piece == "vt" else (3, 4))) + "N", lambda: rng.uniform(0.3, 0.7))
        elif piece == "pvcs":
            beats(
                "".join(rng.choice(("N", "N", "V", "VV", "S", "F", "Q", "?")) for _ in range(20)),
                lambda: rng.uniform(0.25, 1.1),
            )
        elif piece == "bigeminy":
            beats("VN" * rng.randint(3, 10), lambda: rng.uniform(0.6, 0.9))
        elif piece == "svt":
            beats("S" * rng.randint(4, 20), lambda: 0.3)
        elif piece == "af":
            beats("N" * 90, lambda: rng.uniform(0.45, 1.2))
            windows.append((start, now, "AF"))
        elif piece in ("vtwin", "vfwin"):
            beats("Q" * 12, lambda: 0.4)
            windows.append((start, now + 500, piece[:2].upper()))
        elif piece == "pause":
            now += ticks(rng.uniform(1.5, 3.9))
        elif piece == "asystole":
            now += ticks(rng.uniform(4, 12))
        elif piece == "vf":
            end = now + ticks(rng.uniform(2, 12))
            detector.append((now + ticks(1.7), "vf", (True, now, now + ticks(1.7))))
            detector.append((end + ticks(1), "vf", (False, end, end + ticks(1))))
            beats("Q" * 6, lambda: 0.4)
            now = max(now, end + ticks(1))
        elif piece in ("off", "noise"):
            now += ticks(rng.uniform(1, 14))
            reasons.append((start, now, [1, 1] if piece == "off" else [4, 1]))
        else:
            n = ticks(rng.uniform(1, 10) if piece == "gap" else rng.uniform(0.02, 0.9))
            now += WATERMARK  # what was told of the beats before it has come by then
            silent.append((now, now + n))
            detector.append((now + n, "gap", (now, n, now + n)))
            now = now + n
    beats("N" * 12, lambda: 0.8)
    end = now + ticks(8)
    for at in range(250, end, 250):
        if not any(first < at <= to + 250 for first, to in silent):
            reason = next((why for first, to, why in reasons if first <= at - 125 < to), [0, 0])
            detector.append((at, "quality", (at, [0.8, 0.7], reason)))
    for at in range(2500, end, 500):
        rhythm = next((name for first, to, name in windows if first < at - 250 <= to), "N")
        ready = at + rng.randint(0, 40)
        model.append((ready, "judged_window", (at, ready, rhythm, {rhythm: rng.uniform(0.6, 1)}, 0.1, 0.9)))
    detector = [call for call in detector if not any(a < call[0] < b for a, b in silent) or call[1] == "gap"]
    return sorted(detector, key=lambda call: call[0]), sorted(model, key=lambda call: call[0]), end


def run(
    detector: list[Call],
    model: list[Call],
    end: int,
    rng: random.Random | None,
    act: bool = False,
    numerics: list[wire.Numeric] | None = None,
    away: bool = False,
) -> list[AlertEvent]:
    """Both clocks, the model's as near behind as can be, or, with `rng`, at random distances and in random chunks.

    `numerics`: where to put them. `away`: a watchdog finds the model away now and then."""
    alarms = BedAlarms("bed-1", "epoch-1", 250.0)
    events: list[AlertEvent] = []
    d = m = head = 0
    gaps = [(call[2][0], call[0]) for call in detector if call[1] == "gap"]
    while head <= end:
        before, head = head, min(end + 1, head + (rng.choice((5, 25, 250, 2500)) if rng else 50))
        for first, to in gaps:  # in a gap no clock goes on: up to it, and then after it
            if first < head and before <= to:
                head = first if before < first else to + 1
                break
        while d < len(detector) and detector[d][0] < head:
            _, name, arguments = detector[d]
            events += getattr(alarms, name)(*arguments)
            d += 1
        if rng is None or head > alarms.next_due:
            events += alarms.advance(head - 1)
        if act and rng and rng.random() < 0.1:
            kind = rng.choice(("acknowledge", "audio_pause", "alarm_pause", "alarms_on"))
            events += alarms.action(wire.Action(id=f"a{head}", bed="bed-1", kind=kind, who="nurse", at_ns=1), head - 1)
        if away and rng and rng.random() < 0.2:
            alarms.model_away(rng.random() < 0.5)
        if numerics is not None and (rng is None or rng.random() < 0.7):
            numerics += alarms.take_numerics()
        behind = 0 if rng is None else rng.choice((0, 100, 5000, 50_000))
        batch = []
        while m < len(model) and model[m][0] < head - behind:
            batch.append(model[m])
            m += 1
        if rng:
            rng.shuffle(batch)
        for _, name, arguments in batch:
            events += getattr(alarms, name)(*arguments)
        events += alarms.advance_model(min(head, model[m][0] if m < len(model) else head) - 1)
    for _, name, arguments in model[m:]:
        events += getattr(alarms, name)(*arguments)
    events += alarms.advance(head + 1)
    events += alarms.advance_model(head)
    if numerics is not None:
        numerics += alarms.take_numerics()
    return events


stories = st.lists(st.sampled_from(PIECES), min_size=1, max_size=12)
slow = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])


@given(stories, st.integers(0, 10**6))
@slow
def test_the_distance_of_the_clocks_and_the_chunks_change_no_decision(pieces: list[str], seed: int) -> None:
    detector, model, end = story(pieces, seed)
    near = run(detector, model, end, None)
    far = run(detector, model, end, random.Random(seed + 1))
    assert decided(far) == decided(near)
    ids = [{event.event_id for event in events if event.seq % 1000 == 0} for events in (near, far)]
    assert ids[0] == ids[1]


@given(stories, st.integers(0, 10**6))
@slow
def test_the_distance_of_the_clocks_and_the_chunks_change_no_numeric(pieces: list[str], seed: int) -> None:
    detector, model, end = story(pieces, seed)
    near: list[wire.Numeric] = []
    far: list[wire.Numeric] = []
    run(detector, model, end, None, numerics=near)
    run(detector, model, end, random.Random(seed + 1), numerics=far)
    assert far == near and near


@given(stories, st.integers(0, 10**6))
@slow
def test_a_model_that_comes_and_goes_leaves_out_no_numeric_and_tells_none_twice(pieces: list[str], seed: int) -> None:
    detector, model, end = story(pieces, seed)
    steady: list[wire.Numeric] = []
    broken: list[wire.Numeric] = []
    run(detector, model, end, None, numerics=steady)
    run(detector, model, end, random.Random(seed + 1), numerics=broken, away=True)
    assert [n.at for n in broken] == [n.at for n in steady]
    for with_model, told in zip(steady, broken, strict=True):
        if told != with_model:
            assert (told.pvc_per_min, told.quality) == (None, with_model.quality)
            assert told.rhythm in ("", "VFIB", "ASYSTOLE")


@pytest.mark.parametrize("late", [False, True])
def test_of_one_tick_the_detector_comes_first_whenever_it_is_told(late: bool) -> None:
    player = Player()
    player.beats("VVVV", 0.4)
    tick = (player.now // 250 + 2) * 250
    player.quality([1, 1], 1)
    player.take(player.alarms.judged_beat(player.last + 100, tick, "V"))
    if late:
        player.take(player.alarms.advance(tick))
        player.take(player.alarms.advance_model(tick))
    player.take(player.alarms.quality(tick, [0.1, 0.1], [1, 1]))
    player.to(tick + 10)
    assert player.standing("LEADS_OFF") == "active" and not player.started("VTACH")


@given(stories, st.integers(0, 10**6))
@slow
def test_an_operator_changes_no_decision_about_the_patient(pieces: list[str], seed: int) -> None:
    detector, model, end = story(pieces, seed)
    alone = decided(run(detector, model, end, None))
    handled = run(detector, model, end, random.Random(seed + 1), act=True)
    assert decided(event for event in handled if event.code != "ALARMS_OFF") == alone


@given(stories, st.integers(0, 10**6), st.floats(0, 1))
@slow
def test_restored_at_any_point_it_goes_on_as_if_nothing_had_been(pieces: list[str], seed: int, part: float) -> None:
    detector, model, end = story(pieces, seed)
    calls = [*detector, *model]
    calls += [(tick, "advance", (tick,)) for tick in range(0, end, 130)]
    calls += [(tick, "advance_model", (tick - 40,)) for tick in range(90, end, 170)]
    calls += [(tick, "model_away", (tick % 2 == 0,)) for tick in range(ticks(7), end, 3171)]
    for tick in range(ticks(5), end, ticks(17)):
        action = wire.Action(
            id=f"a{tick}", bed="b", kind=("audio_pause", "acknowledge", "alarm_pause")[tick % 3], who="n", at_ns=1
        )
        calls.append((tick, "action", (action, tick + (300 if tick % 2 else 0))))
    calls.sort(key=lambda call: call[0])
    first = BedAlarms("bed-1", "epoch-1", 360.0, Profile({"AFIB": {"time_s": 20}}))
    cut = round(part * len(calls))
    for _, name, arguments in calls[:cut]:
        getattr(first, name)(*arguments)
    second = restarted(first, {"AFIB": {"time_s": 20}})
    assert second.next_due == first.next_due
    for _, name, arguments in calls[cut:]:
        assert getattr(second, name)(*arguments) == getattr(first, name)(*arguments)
    assert second.take_numerics() == first.take_numerics()
    assert msgpack.packb(second.state()) == msgpack.packb(first.state())


# Whatever comes -------------------------------------------------------------------------------------------------------


def last_of_each(events: list[AlertEvent]) -> dict[str, AlertEvent]:
    return {event.alert_id: event for event in events}


class Ward(RuleBasedStateMachine):
    """A nurse and a patient do as they please; a watcher knows nothing but the events."""

    def __init__(self) -> None:
        super().__init__()
        self.player = Player({"TIMEOUTS": {"level_1_s": 20, "level_2_s": 40}})
        self.seen = 0
        self.alerts: dict[str, AlertEvent] = {}  # newest event of each alert
        self.announced: set[str] = set()
        self.acked: set[str] = set()
        self.superseded: set[str] = set()
        self.paused_until = 0

    @rule(
        labels=st.text("NNNNVSFQ?", min_size=1, max_size=25), rr=st.sampled_from([0.3, 0.45, 0.6, 0.8, 1.1, 1.7, 2.5])
    )
    def beats(self, labels: str, rr: float) -> None:
        self.player.beats(labels, rr)

    @rule(n=st.integers(3, 20))
    def run_of_vt(self, n: int) -> None:
        self.player.beats("V" * n, 0.4)

    @rule(seconds=st.floats(0.5, 30))
    def nothing(self, seconds: float) -> None:
        self.player.wait(seconds)

    @rule(rhythm=st.sampled_from(["N", "AF", "VT", "VF"]), n=st.integers(1, 40))
    def windows(self, rhythm: str, n: int) -> None:
        self.player.windows(rhythm, n)
        self.player.last = self.player.now

    @rule(on=st.booleans())
    def vf(self, on: bool) -> None:
        self.player.take(self.player.alarms.vf(on, self.player.now, self.player.now + 100))
        self.player.wait(0.5)

    @rule(reason=st.sampled_from([[0, 0], [1, 1], [4, 4], [0, 1]]), n=st.integers(1, 12))
    def quality(self, reason: list[int], n: int) -> None:
        self.player.quality(reason, n)
        self.player.last = self.player.now

    @rule(seconds=st.floats(0.02, 5))
    def gap(self, seconds: float) -> None:
        n, now = ticks(seconds), self.player.now
        self.player.take(self.player.alarms.gap(now, n, now + n))
        self.player.now = self.player.last = now + n

    @rule()
    def acknowledge_all(self) -> None:
        self.acked |= {event.alert_id for event in self.player.act("acknowledge") if event.ack}

    @precondition(lambda self: any(event.state != "inactive" for event in self.alerts.values()))
    @rule(data=st.data())
    def acknowledge_one(self, data: st.DataObject) -> None:
        standing = sorted(alert for alert, event in self.alerts.items() if event.state != "inactive")
        alert_id = data.draw(st.sampled_from(standing))
        self.player.act("acknowledge", alert_id=alert_id)
        assert (
            self.player.events[-1].alert_id == alert_id
            or self.alerts[alert_id].ack
            or len(self.player.events) > self.seen
        )
        self.acked.add(alert_id)

    @rule(kind=st.sampled_from(["audio_pause", "alarm_pause", "alarms_off"]), seconds=st.floats(1, 60))
    def pause(self, kind: str, seconds: float) -> None:
        self.player.act(kind, until_s=seconds)
        self.paused_until = max(self.paused_until, self.player.now + ticks(seconds) + 1)

    @rule()
    def alarms_on(self) -> None:
        self.player.act("alarms_on")
        self.paused_until = 0

    @rule(limit=st.sampled_from([90, 120, 150]))
    def limits(self, limit: float) -> None:
        self.player.act("limits", limits={"HR_HIGH": {"limit": limit}})

    @invariant()
    def all_holds(self) -> None:
        self.the_watcher_sees_the_truth()
        self.no_red_falls_silent_by_itself()
        self.somebody_announces_for_what_is_kept_back()
        self.an_acknowledgement_stands_until_it_is_cleared()

    def the_watcher_sees_the_truth(self) -> None:
        for event in self.player.events[self.seen :]:
            before = self.alerts.get(event.alert_id)
            assert (before is None) == (event.phase == "start"), "an alert begins once, with a start"
            assert before is None or (before.state != "inactive" and event.seq > before.seq), "what is over stays over"
            assert (event.state == "inactive") == (event.phase in ("end", "reset"))
            assert event.state != "latched" or event.latching
            assert event.phase != "start" or event.ack is None, "a new episode is never acknowledged"
            assert event.reason != "again" or event.ack is None, "nor is one that is triggered again"
            if event.reason == "again" or event.phase == "start":
                self.acked.discard(event.alert_id)
            self.announced |= {event.alert_id} - {event.alert_id if event.suppressed_by else ""}
            if event.supersedes:
                self.superseded.add(event.supersedes)
            self.superseded |= (
                {event.alert_id} if event.reason == "new episode" or "superseded" in event.reason else set()
            )
            self.alerts[event.alert_id] = event
        self.seen = len(self.player.events)
        state = self.player.alarms.state()
        true = sorted(
            [
                *state["book"]["active"],
                *state["judgements"]["book"]["active"],
                *(c[9:] for c in state["life"]["alerts"] if c.startswith("operator ")),
            ]
        )
        assert sorted(event.code for event in self.alerts.values() if event.state == "active") == true

    def no_red_falls_silent_by_itself(self) -> None:
        for alert_id, event in self.alerts.items():
            if event.priority != "high" or alert_id in self.acked:
                continue
            if alert_id in self.announced and alert_id not in self.superseded:
                assert event.state != "inactive", "a red that was announced ended without anybody's doing"
            if event.state == "latched":
                assert event.suppressed_by is None and event.ack is None
            if event.state != "inactive" and self.player.now >= self.paused_until:
                assert event.inactivation == ()

    def somebody_announces_for_what_is_kept_back(self) -> None:
        active = {alert_id: event for alert_id, event in self.alerts.items() if event.state == "active"}
        patient = [event for event in active.values() if event.kind != "technical"]
        reds = [event for event in patient if event.priority == "high"]
        assert not reds or any(event.suppressed_by is None for event in reds)
        for event in patient:
            by = event.suppressed_by
            assert by is None or by in active or event.priority != "high", "a red is kept back by a red that stands"

    def an_acknowledgement_stands_until_it_is_cleared(self) -> None:
        for alert_id, event in self.alerts.items():
            assert event.ack is None or alert_id in self.acked


TestWard = Ward.TestCase
TestWard.settings = settings(
    deadline=None, max_examples=30, stateful_step_count=20, suppress_health_check=[HealthCheck.too_slow]
)
