"""The life cycle on any path: hypothesis plays a patient, an operator and a crash in any order, and looks at the events
that go out against what the books hold to be true."""

import msgpack
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stream.alarms.bed import BedAlarms
from stream.alarms.conditions import CONDITIONS, Profile
from stream.wire import AlertEvent
from tests.stream.playing import Player, ticks

RATES = st.sampled_from([0.3, 0.45, 0.8, 1.6])
PATTERNS = st.sampled_from(["N", "NNNV", "NVNVNV", "NVVN", "VVVN", "S", "N?", "NFQ"])


class Ward(RuleBasedStateMachine):
    """`newest`: the last event of each alert, which is all that a subscriber knows of it."""

    @initialize()
    def begin(self) -> None:
        self.player = Player()
        self.newest: dict[str, AlertEvent] = {}
        self.announced: set[str] = set()
        self.ids: set[str] = set()
        self.n_read = 0
        self.vf = False
        self.epoch = 1

    # What happens to a patient.

    @rule(pattern=PATTERNS, rr_s=RATES, n=st.integers(1, 4))
    def beats(self, pattern: str, rr_s: float, n: int) -> None:
        self.player.beats(pattern * n, rr_s)

    @rule(n=st.integers(3, 9), rr_s=st.sampled_from([0.35, 0.5, 0.9]), after=st.sampled_from(["", "NNN"]))
    def run_of_ventricular_beats(self, n: int, rr_s: float, after: str) -> None:
        self.player.beats("V" * n + after, rr_s)

    @rule(seconds=st.sampled_from([1.0, 2.5, 5.0, 12.0]))
    def silence(self, seconds: float) -> None:
        self.player.wait(seconds)

    @rule(seconds=st.sampled_from([40, 190, 700]))
    def calm(self, seconds: int) -> None:
        self.player.beats("N" * int(seconds / 0.8), 0.8)

    @rule(rhythm=st.sampled_from(["VT", "VF", "AF", "N"]), n=st.integers(1, 5))
    def windows(self, rhythm: str, n: int) -> None:
        self.player.windows(rhythm, n)
        self.player.last = self.player.now

    @rule(seconds=st.sampled_from([3, 6]))
    def vf_index(self, seconds: int) -> None:
        """On, or off, and then for some seconds so."""
        self.vf = not self.vf
        now = self.player.now
        self.player.take(self.player.alarms.vf(self.vf, now, now))
        self.player.wait(seconds)

    @rule(reason=st.sampled_from([[1, 1], [4, 4], [0, 1], [0, 0]]), n=st.integers(1, 4))
    def quality(self, reason: list[int], n: int) -> None:
        self.player.quality(reason, n)
        self.player.last = max(self.player.last, self.player.now)

    @rule(seconds=st.sampled_from([0.3, 2.0]))
    def gap(self, seconds: float) -> None:
        player, n = self.player, ticks(seconds)
        player.take(player.alarms.gap(player.now, n, player.now))
        player.to(player.now + n)
        player.last, self.vf = player.now, self.vf and seconds < 1

    # What people do.

    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        standing = sorted(event.alert_id for event in self.newest.values() if event.state != "inactive")
        self.player.act("acknowledge", alert_id=data.draw(st.sampled_from([None, *standing])))

    @rule(kind=st.sampled_from(["audio_pause", "alarm_pause", "alarms_off", "alarms_on"]))
    def pause(self, kind: str) -> None:
        self.player.act(kind)

    @rule(code=st.sampled_from(["PAIR_PVC", "PAUSE", "HR_HIGH", "NSVT"]), on=st.booleans())
    def switch(self, code: str, on: bool) -> None:
        self.player.act("limits", limits={code: {"enabled": on}})

    # What happens to machines.

    @rule()
    def crash(self) -> None:
        before = self.player.alarms
        self.player.alarms = BedAlarms(before.bed, before.epoch, before.fs, Profile())
        self.player.alarms.restore(msgpack.unpackb(msgpack.packb(before.state()), strict_map_key=False))

    @precondition(lambda self: self.epoch < 4)
    @rule()
    def source_starts_again(self) -> None:
        before, player = self.player.alarms, self.player
        player.take(before.close(player.now))
        self.epoch += 1
        player.alarms = BedAlarms("bed-1", f"epoch-{self.epoch}", 250.0, Profile())
        player.alarms.inherit(before)
        player.now = player.last = player.window_at = 0
        self.vf = False
        player.beats("N" * 3, 0.8)

    # What must hold, whatever came.

    @invariant()
    def look(self) -> None:
        if not hasattr(self, "player"):
            return
        for event in self.player.events[self.n_read :]:
            self._one(event)
        self.n_read = len(self.player.events)
        self._standing()

    def _one(self, event: AlertEvent) -> None:
        before = self.newest.get(event.alert_id)
        assert event.event_id not in self.ids, "told twice"
        self.ids.add(event.event_id)
        assert (event.phase == "start") == (before is None), "an alert begins once, with its start"
        if before is None:
            assert event.ack is None and "alert-acknowledged" not in event.inactivation, "deaf from its start"
        else:
            assert event.seq > before.seq
            assert before.state != "inactive", "it was over"
            if before.state == "active" and event.state == "inactive" and event.latching:
                # A red that was announced goes silent only where somebody knew, or another stands for it.
                known = before.ack is not None or event.ack is not None
                assert known or event.alert_id not in self.announced or "superseded" in event.reason, event
            if before.state == "latched" and event.state == "inactive":
                assert event.ack is not None or "new episode" in event.reason or "superseded" in event.reason
        if event.reason == "again":
            assert event.ack is None and "alert-acknowledged" not in event.inactivation, "deaf to a new episode"
        if event.state == "latched":
            assert event.latching and event.suppressed_by is None and event.ack is None, "a latched red is silent"
        if event.suppressed_by is None and event.state == "active":
            self.announced.add(event.alert_id)
        self.newest[event.alert_id] = event

    def _standing(self) -> None:
        alarms = self.player.alarms
        standing = [event for event in self.newest.values() if event.state == "active"]
        true = {"detector": set(alarms._book.active), "model": set(alarms._judgements.book.active)}
        told = {side: {key.split()[1] for key, alert in alarms._life.alerts.items()
                       if key.startswith(side) and not alert.latched} for side in true}  # fmt: skip
        assert told == true, "what stands is what is true, on each clock"
        own = {alert.alert_id for alert in alarms._life.alerts.values()}
        assert {event.alert_id for event in self.newest.values() if event.state != "inactive"} == own
        reds = [event for event in standing if event.priority == "high" and event.kind == "physiological"]
        assert not reds or any(event.suppressed_by is None for event in reds), "reds stand and none is announced"
        for event in standing:
            if event.suppressed_by is None:
                continue
            by = self.newest[event.suppressed_by]
            assert event.kind != "technical"
            if event.priority == "high":
                assert by.priority == "high" and by.state == "active" and by.suppressed_by is None
        paused = bool(alarms._life.until)
        marks = {mark for event in self.newest.values() if event.state != "inactive" for mark in event.inactivation}
        assert paused or marks <= {"alert-acknowledged"}, "a pause is over and an alert still says so"
        off = any(event.code == "ALARMS_OFF" for event in standing)
        assert off == bool({"alarm_pause", "alarms_off"} & set(alarms._life.until)), "alarms are off and nobody is told"

    def teardown(self) -> None:
        """At the end nothing but reds that nobody knows of is left, and each of them can be reset."""
        if not hasattr(self, "player"):
            return
        self.player.take(self.player.alarms.close(self.player.now))
        left = {key: alert for key, alert in self.player.alarms._life.alerts.items() if key != "operator ALARMS_OFF"}
        assert all(alert.latched and CONDITIONS[alert.code].latching for alert in left.values())
        for alert in list(left.values()):
            self.player.act("acknowledge", alert_id=alert.alert_id)
        for event in self.player.events[self.n_read :]:
            self._one(event)
        assert {event.code for event in self.newest.values() if event.state != "inactive"} <= {"ALARMS_OFF"}


TestLifeCycle = Ward.TestCase
TestLifeCycle.settings = settings(
    max_examples=30, stateful_step_count=30, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)  # fmt: skip
