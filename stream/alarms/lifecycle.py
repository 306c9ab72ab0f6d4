"""The life of a bed's alerts: from the decisions of the criteria to the events that go out.

States: inactive, active, latched. Kept apart from them, as clinical.md 1.6 has it: whether the
condition is there (the books), whether it is announced (`chains`), and what an operator did
(`inactivation`: alert-acknowledged, audio-paused, alarm-paused, alarm-off; empty is enabled).

Suppression, acknowledgement and pauses only mark. An event that tells of a mark alone repeats the
`stream_time` of the decision it marks, so the set of (code, onset, stream_time) tells of the patient
only and is the same whatever an operator did and whichever clock ran ahead.
"""

import math
from collections.abc import Sequence
from typing import Any

from stream.alarms.alert import Alert, Side, sample_at
from stream.alarms.book import NEVER, Decision
from stream.alarms.chains import Chains
from stream.alarms.conditions import CONDITIONS, TICK_HZ, Profile, ProfileError
from stream.wire import Action, AlertEvent

LONGEST_S = {"audio_pause": 600, "alarm_pause": 1800, "alarms_off": 86400}
_PAUSES = {"audio_pause": "audio_s", "alarm_pause": "alarm_s", "alarms_off": "off_s"}
_ALARMS_OFF = "operator ALARMS_OFF"


class LifeCycle:
    """All alerts of a bed. `apply` and `act` return the events they caused, in order."""

    __slots__ = ("alerts", "bed", "chains", "clock", "due", "epoch", "fs", "number", "onsets", "until")

    def __init__(self, bed: str, epoch: str, fs: float) -> None:
        self.bed, self.epoch, self.fs = bed, epoch, fs
        self.alerts: dict[str, Alert] = {}  # "side code": its alert, active or latched
        self.chains = Chains()
        self.until: dict[str, int] = {}  # the pauses that are on, and the tick at which each ends by itself
        self.number = 0
        self.onsets: dict[str, int] = {}  # newest onset of each alert that no book keeps
        self.clock = 0
        self.due = NEVER

    def apply(self, side: Side, decisions: Sequence[Decision], profile: Profile) -> list[AlertEvent]:
        """Decisions, in order of ticks, become events: first those of the alerts themselves, then the
        marks that others get from them."""
        events: list[AlertEvent] = []
        for i, decision in enumerate(decisions):
            self.run(decision.at, profile, events)
            key = f"{side} {decision.code}"
            if decision.verb == "start":
                self._start(key, side, decision, profile, events)
            elif (alert := self.alerts.get(key)) is not None:
                if decision.verb == "end":
                    self._end(key, alert, decision, events)
                else:
                    self._go_on(alert, decision, events)
            if i + 1 == len(decisions) or decisions[i + 1].at != decision.at:
                self._mark(decision.at, profile, events)
        return events

    def run(self, before: int, profile: Profile, events: list[AlertEvent]) -> None:
        """Let pauses and time-outs end that are due before tick `before`, each at its own tick."""
        while self.due < before:
            tick = self.due
            self.until = {pause: until for pause, until in self.until.items() if until > tick}
            self._mark(tick, profile, events)
        self.clock = max(self.clock, before)

    def check(self, action: Action, profile: Profile) -> None:
        """Raises ProfileError where an action cannot be taken, with what can."""
        if action.kind == "limits":
            profile.with_changes(action.limits)
        elif action.kind in _PAUSES and action.until_s is not None and not 0 < action.until_s <= LONGEST_S[action.kind]:
            raise ProfileError(
                f"until_s: {action.until_s!r} is refused; {action.kind} may last up to {LONGEST_S[action.kind]} s"
            )

    def act(self, action: Action, tick: int, profile: Profile) -> list[AlertEvent]:
        """An operator's acknowledgement or pause, at `tick`. An alert that is over already is no error."""
        events: list[AlertEvent] = []
        self.run(tick, profile, events)
        if action.kind == "acknowledge":
            self._acknowledge(action, tick, events)
        elif action.kind == "alarms_on":
            self.until = {}
        else:
            seconds = profile.limit("PAUSES", _PAUSES[action.kind]) if action.until_s is None else action.until_s
            self.until[action.kind] = tick + max(1, round(seconds * TICK_HZ))
        self._mark(tick, profile, events)
        return events

    def fresh_onset(self, key: str, tick: int) -> int:
        """`tick`, or, where an episode of the same has begun at it, the next sample: alert ids differ so."""
        earliest = self.onsets.get(key, -TICK_HZ) + math.ceil(TICK_HZ / self.fs)
        self.onsets[key] = max(tick, earliest)
        return self.onsets[key]

    def close(self, tick: int, reason: str) -> list[AlertEvent]:
        """The epoch is over: ALARMS_OFF ends with it. What is left of the pauses is for the next one to tell of."""
        standing = self.alerts.pop(_ALARMS_OFF, None)
        if standing is None:
            return []
        standing.stream, standing.reason = max(tick, standing.onset), reason
        return [standing.decided("end", "inactive")]

    def inherit(self, before: "LifeCycle") -> None:
        """Take over what an earlier epoch of the bed left latched, which only an operator resets, and
        what is left of its pauses."""
        for alert in before.alerts.values():
            if alert.latched:
                alert.number = self.number
                self.number += 1
                self.alerts[f"epoch {alert.alert_id}"] = alert
        for pause, until in before.until.items():
            self.until[pause] = self.clock + max(1, until - before.clock)
        self.due = min(self.clock, self.due)  # marks and ALARMS_OFF are told at the first call

    # What follows is inside.

    def _start(self, key: str, side: Side, decision: Decision, profile: Profile, events: list[AlertEvent]) -> None:
        alert = Alert(self.bed, self.epoch, self.fs, side, decision, self.number, profile)
        self.number += 1
        replaced = [
            self.alerts[k] for k in (key, *(f"{side} {code}" for code in decision.supersedes)) if k in self.alerts
        ]
        if alert.code == "VFIB":  # a VF that is seen late tells what the asystole was
            replaced += [other for other in self.alerts.values() if other.code == "ASYSTOLE" and other not in replaced]
        for old in replaced:
            old.superseded = alert.code
        alert.supersedes = min(replaced, key=Alert.order).alert_id if replaced else None
        self.alerts.pop(key, None)
        self.alerts[key] = alert
        alert.told = self._inactivation(alert)
        alert.suppressed_by = self.chains.suppressor(alert, self.alerts.values(), decision.at)
        if alert.suppressed_by is None:
            self.chains.announced(alert, decision.at, profile)
        events.append(alert.decided("start", "active"))
        for old in replaced:
            if old.latched:
                self.alerts = {k: other for k, other in self.alerts.items() if other is not old}
                old.reason = "new episode" if old.code == alert.code else f"superseded by {alert.code}"
                events.append(old.marked("reset", "inactive"))

    def _go_on(self, alert: Alert, decision: Decision, events: list[AlertEvent]) -> None:
        alert.stream, alert.value, alert.reason = decision.at, decision.value, decision.reason
        if decision.verb == "update":  # triggered again: an acknowledgement covers what was there when it was given
            alert.ack = None
            alert.evidence = decision.evidence or alert.evidence
            alert.told = self._inactivation(alert)
        events.append(alert.decided("update" if decision.verb == "update" else "continue", "active"))

    def _end(self, key: str, alert: Alert, decision: Decision, events: list[AlertEvent]) -> None:
        alert.stream, alert.reason, alert.value = decision.at, decision.reason, decision.value
        if decision.over is not None:
            over = {"sample": sample_at(decision.over, alert.fs), "fs": alert.fs}
            alert.evidence = {**alert.evidence, "over": over}
        if alert.superseded:
            alert.reason = f"superseded by {alert.superseded}"
        if CONDITIONS[alert.code].latching and alert.announced and alert.ack is None and not alert.superseded:
            alert.latched = True
            alert.suppressed_by = None
            events.append(alert.decided("update", "latched"))
        else:
            del self.alerts[key]
            events.append(alert.decided("end", "inactive"))

    def _acknowledge(self, action: Action, tick: int, events: list[AlertEvent]) -> None:
        for key, alert in list(self.alerts.items()):
            if action.alert_id is None and alert.suppressed_by:
                continue  # it was not announced, so nobody has seen it
            if action.alert_id not in (None, alert.alert_id) or alert.ack is not None:
                continue
            at = sample_at(tick, self.fs)
            alert.ack = {"by": action.who, "at_ns": action.at_ns, "sample": at, "action": action.id}
            alert.reason = f"acknowledged by {action.who}"
            alert.told = self._inactivation(alert)
            if alert.latched:
                del self.alerts[key]
                events.append(alert.marked("reset", "inactive"))
            else:
                events.append(alert.marked("update", "active"))

    def _tell_off(self, tick: int, profile: Profile, events: list[AlertEvent]) -> None:
        """While alarms are paused or off a technical alert says so."""
        why = "alarms off" if "alarms_off" in self.until else "alarms paused" if "alarm_pause" in self.until else ""
        standing = self.alerts.get(_ALARMS_OFF)
        if standing is None:
            if why:
                onset = self.fresh_onset(_ALARMS_OFF, tick)
                decision = Decision("start", "ALARMS_OFF", onset, max(tick, onset), None, why, {"why": why})
                self._start(_ALARMS_OFF, "operator", decision, profile, events)
        elif why != standing.evidence["why"]:
            standing.stream, standing.reason, standing.evidence = tick, why or "alarms on", {"why": why}
            if not why:
                del self.alerts[_ALARMS_OFF]
            events.append(standing.decided("update" if why else "end", "active" if why else "inactive"))

    def _mark(self, tick: int, profile: Profile, events: list[AlertEvent]) -> None:
        """Bring marks up to date, and tell of those that changed."""
        self._tell_off(tick, profile, events)
        due = min(self.until.values(), default=NEVER)
        for alert in self.alerts.values():
            by = None if alert.latched else self.chains.suppressor(alert, self.alerts.values(), tick)
            told = self._inactivation(alert)
            if by is None and not alert.latched:
                self.chains.announced(alert, tick, profile)
                alert.superseded = ""  # it outlasted what stood for it
            if by != alert.suppressed_by:
                alert.reason = f"suppressed by {self._name(by)}" if by else "announced"
            elif told != alert.told:
                alert.reason = ", ".join(told) or "enabled"
            if by != alert.suppressed_by or told != alert.told:
                alert.suppressed_by, alert.told = by, told
                events.append(alert.marked("update", "latched" if alert.latched else "active"))
            if alert.muted_until > tick:
                due = min(due, alert.muted_until)
        self.due = due

    def _inactivation(self, alert: Alert) -> tuple[str, ...]:
        told = []
        if not alert.technical:
            told += (
                ["alarm-off"] if "alarms_off" in self.until else ["alarm-paused"] if "alarm_pause" in self.until else []
            )
        told += ["audio-paused"] if "audio_pause" in self.until else []
        told += ["alert-acknowledged"] if alert.ack is not None else []
        return tuple(told)

    def _name(self, alert_id: str) -> str:
        names = (alert.code for alert in self.alerts.values() if alert.alert_id == alert_id)
        return next(names, f"the time-out of {alert_id}")

    def state(self) -> dict[str, Any]:
        return {
            "alerts": {key: alert.state() for key, alert in self.alerts.items()},
            "chains": self.chains.state(),
            "until": dict(self.until),
            "onsets": dict(self.onsets),
            "number": self.number,
            "clock": self.clock,
            "due": self.due,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.alerts = {key: Alert.restored(kept) for key, kept in state["alerts"].items()}
        self.chains.restore(state["chains"])
        self.until = dict(state["until"])
        self.onsets = dict(state["onsets"])
        self.number, self.clock, self.due = state["number"], state["clock"], state["due"]
