"""The life of an alert: from the decisions of the criteria to the events that go out.

States: inactive, active, latched. Kept apart from them, as clinical.md 1.6 has it: whether the
condition is there (the books), whether it is announced (chains, time-outs: `suppressed_by`), and what
an operator did (`inactivation`: acknowledged, audio paused, alarms paused, alarms off).

Suppression, acknowledgement and pauses only mark. An event that tells of a mark alone repeats the
`stream_time` of the decision it marks, so the set of (code, onset, stream_time) tells of the patient
only and is the same whatever an operator did and whichever clock ran ahead.
"""

import hashlib
from typing import Any, Literal

from stream.book import NEVER, Decision
from stream.conditions import CONDITIONS, TICK_HZ, Profile, ProfileError
from stream.wire import Action, AlertEvent, Moment, Phase, Priority

MARKS = {"high": "***", "medium": "**", "low": "*"}
TECHNICAL_MARKS = {"high": "!!!", "medium": "!!", "low": ""}
_CHAIN_ORDER = {"R1": 1, "R2": 2, "R3": 3}
Side = Literal["detector", "model", "wall", "operator"]


class Alert:
    """One episode of one condition, while it is active or latched."""

    __slots__ = ("ack", "alert_id", "announced", "code", "evidence", "latched", "limits", "muted_by", "muted_until", "number", "onset",
                 "priority", "reason", "seq", "side", "stream", "supersedes", "suppressed_by", "told", "value")  # fmt: skip

    def __init__(self, alert_id: str, code: str, side: Side, decision: Decision, number: int, priority: Priority) -> None:
        self.alert_id, self.code, self.side = alert_id, code, side
        self.onset, self.stream = decision.onset, decision.at
        self.value, self.reason, self.evidence = decision.value, decision.reason, decision.evidence
        self.number, self.priority = number, priority
        self.limits: tuple[float | None, float | None] = (None, None)
        self.seq = 0
        self.latched = False
        self.announced = False
        self.ack: dict[str, Any] | None = None
        self.supersedes: str | None = None
        self.suppressed_by: str | None = None
        self.muted_by: str | None = None
        self.muted_until = 0
        self.told: tuple[str, ...] = ()  # inactivation as last told

    def order(self) -> tuple[int, int, int]:
        row = CONDITIONS[self.code]
        return _CHAIN_ORDER.get(row.chain, 4), row.rank, self.number


class LifeCycle:
    """All alerts of a bed. `apply` and `act` return the events they caused, in order."""

    __slots__ = ("alarm_until", "alerts", "audio_until", "bed", "clock", "due", "epoch", "fs", "number", "off_until", "refractory", "timeouts")

    def __init__(self, bed: str, epoch: str, fs: float, first_tick: int = 0) -> None:
        self.bed, self.epoch, self.fs = bed, epoch, fs
        self.alerts: dict[str, Alert] = {}  # "side code": its alert, active or latched
        self.timeouts: dict[str, list[Any]] = {}  # chain: [until, rank, alert_id]
        self.refractory: dict[str, list[Any]] = {}  # code: [until, alert_id]
        self.audio_until = self.alarm_until = self.off_until = 0
        self.number = 0
        self.clock = first_tick
        self.due = NEVER

    def apply(self, side: Side, decision: Decision, profile: Profile) -> list[AlertEvent]:
        """What the criteria decided becomes events: first those of the alert itself, then the marks
        that others get from it."""
        events: list[AlertEvent] = []
        self.run(decision.at, profile, events)
        key = f"{side} {decision.code}"
        if decision.verb == "start":
            self._start(key, side, decision, profile, events)
        elif (alert := self.alerts.get(key)) is not None:
            if decision.verb == "end":
                self._end(key, alert, decision, events)
            else:
                self._go_on(alert, decision, events)
        self._mark(decision.at, profile, events)
        return events

    def run(self, before: int, profile: Profile, events: list[AlertEvent]) -> None:
        """Let pauses and time-outs end that are due before tick `before`, each at its own tick."""
        while self.due < before:
            tick = self.due
            self.clock = max(self.clock, tick)
            for alert in self.alerts.values():
                if alert.muted_by and alert.muted_until <= tick:
                    alert.muted_by = None
            if 0 < self.audio_until <= tick:
                self.audio_until = 0
            if 0 < self.alarm_until <= tick:
                self.alarm_until = 0
            if 0 < self.off_until <= tick:
                self.off_until = 0
            self._alarms_off(tick, profile, events)
            self._mark(tick, profile, events)
        self.clock = max(self.clock, before)

    def act(self, action: Action, tick: int, profile: Profile) -> list[AlertEvent]:
        """An operator's acknowledgement or pause, at `tick`. An alert that is over already is no error.
        Raises ProfileError for a pause of a length that is not allowed."""
        events: list[AlertEvent] = []
        self.run(tick, profile, events)
        if action.kind == "acknowledge":
            self._acknowledge(action, tick, events)
        elif action.kind == "audio_pause":
            self.audio_until = tick + _pause_ticks(action, "audio_s", profile)
        elif action.kind == "alarm_pause":
            self.alarm_until = tick + _pause_ticks(action, "alarm_s", profile)
        elif action.kind == "alarms_off":
            self.off_until = tick + _pause_ticks(action, "off_s", profile)
        elif action.kind == "alarms_on":
            self.audio_until = self.alarm_until = self.off_until = 0
        self._alarms_off(tick, profile, events)
        self._mark(tick, profile, events)
        return events

    def standing(self, tick: int) -> list[AlertEvent]:
        """All alerts that are active or latched, as `continue`, with the marks they have: after a restart."""
        return [self._event(alert, "continue", "latched" if alert.latched else "active") for alert in self.alerts.values()]

    def is_active(self, code: str) -> bool:
        return any(alert.code == code and not alert.latched for alert in self.alerts.values())

    # What follows is inside.

    def _start(self, key: str, side: Side, decision: Decision, profile: Profile, events: list[AlertEvent]) -> None:
        code = decision.code
        alert = Alert(self._id(code, side, decision.onset), code, side, decision, self.number, profile.priority(code))
        alert.limits = _limits(code, profile)
        self.number += 1
        replaced = self.alerts.pop(key, None)
        others = [self.alerts[k] for other in decision.supersedes if (k := f"{side} {other}") in self.alerts]
        if code == "VFIB":  # a VF that is seen late tells what the asystole was
            others += [other for k, other in self.alerts.items() if other.code == "ASYSTOLE" and other not in others]
        first = replaced or (others[0] if others else None)
        alert.supersedes = first.alert_id if first else None
        alert.suppressed_by = self._suppressor(alert, decision.at, profile)
        self.alerts[key] = alert
        alert.told = self._inactivation(alert)
        self._announce(alert, decision.at, profile)
        events.append(self._event(alert, "start", "active"))
        for old in [replaced, *(other for other in others if other.latched)]:
            if old is not None:
                self.alerts.pop(f"{old.side} {old.code}", None) if old is not replaced else None
                old.reason = f"superseded by {code}" if old.code != code else "new episode"
                events.append(self._event(old, "reset", "inactive"))

    def _go_on(self, alert: Alert, decision: Decision, events: list[AlertEvent]) -> None:
        alert.stream, alert.value, alert.reason = decision.at, decision.value, decision.reason
        if decision.verb == "update":
            alert.ack = None  # triggered again: an acknowledgement covers what was there when it was given
            alert.evidence = decision.evidence or alert.evidence
        alert.told = self._inactivation(alert)
        events.append(self._event(alert, decision.verb, "active"))

    def _end(self, key: str, alert: Alert, decision: Decision, events: list[AlertEvent]) -> None:
        alert.stream, alert.reason = decision.at, decision.reason
        alert.value = decision.value if decision.value is not None else alert.value
        superseded = decision.reason.startswith("superseded")
        if CONDITIONS[alert.code].latching and alert.ack is None and alert.announced and not superseded:
            alert.latched = True
            alert.suppressed_by = alert.muted_by = None
            alert.told = self._inactivation(alert)
            events.append(self._event(alert, "update", "latched"))
            return
        del self.alerts[key]
        events.append(self._event(alert, "end", "inactive"))

    def _acknowledge(self, action: Action, tick: int, events: list[AlertEvent]) -> None:
        for key, alert in list(self.alerts.items()):
            if action.alert_id is not None and alert.alert_id != action.alert_id:
                continue
            if action.alert_id is None and alert.suppressed_by:
                continue  # nobody has seen it announced
            if alert.ack is not None:
                continue
            alert.ack = {"by": action.who, "at_ns": action.at_ns, "sample": self._sample(tick), "action": action.id}
            alert.reason = f"acknowledged by {action.who}"
            alert.told = self._inactivation(alert)
            if alert.latched:
                del self.alerts[key]
                events.append(self._event(alert, "reset", "inactive"))
            else:
                events.append(self._event(alert, "update", "active"))

    def _alarms_off(self, tick: int, profile: Profile, events: list[AlertEvent]) -> None:
        """While alarms are paused or off a technical alert says so."""
        key = "operator ALARMS_OFF"
        why = "alarms off" if self.off_until else "alarms paused" if self.alarm_until else ""
        standing = self.alerts.get(key)
        if standing is not None and why != standing.reason:
            del self.alerts[key]
            standing.stream, standing.reason = tick, why or "alarms on"
            events.append(self._event(standing, "end", "inactive"))
            standing = None
        if why and standing is None:
            decision = Decision("start", "ALARMS_OFF", tick, tick, None, why)
            self._start(key, "operator", decision, profile, events)

    def _mark(self, tick: int, profile: Profile, events: list[AlertEvent]) -> None:
        """Bring marks up to date, and tell of those that changed."""
        due = min((until for until in (self.audio_until, self.alarm_until, self.off_until) if until), default=NEVER)
        for alert in self.alerts.values():
            by = None if alert.latched else self._suppressor(alert, tick, profile)
            told = self._inactivation(alert)
            if by != alert.suppressed_by or told != alert.told:
                if by != alert.suppressed_by:
                    alert.reason = f"suppressed by {self._code_of(by)}" if by else "announced"
                else:
                    alert.reason = ", ".join(told) or "enabled"
                alert.suppressed_by, alert.told = by, told
                self._announce(alert, tick, profile)
                events.append(self._event(alert, "update", "latched" if alert.latched else "active"))
            if alert.muted_by:
                due = min(due, alert.muted_until)
        self.due = due

    def _suppressor(self, alert: Alert, tick: int, profile: Profile) -> str | None:
        """The alert that keeps this one from being announced: a higher red, a higher one of its chain,
        or the one whose time-out it falls into."""
        row = CONDITIONS[alert.code]
        if row.kind == "technical":
            return None
        mine, red = alert.order(), alert.priority == "high"
        best: Alert | None = None
        for other in self.alerts.values():
            if other is alert or other.latched or CONDITIONS[other.code].kind == "technical":
                continue
            over = other.priority == "high" and (not red or other.order() < mine)
            over = over or (CONDITIONS[other.code].chain == row.chain and not red and other.order() < mine)
            if over and (best is None or (other.priority != "high", other.order()) < (best.priority != "high", best.order())):
                best = other
        if best is not None:
            return best.alert_id
        if red or alert.announced:
            return None
        if alert.muted_by is None and alert.muted_until == 0:
            self._mute(alert, tick)
        return alert.muted_by if alert.muted_until > tick else None

    def _mute(self, alert: Alert, tick: int) -> None:
        """Once, when it would first be announced: is the chain in its time-out, or the code refractory?"""
        row = CONDITIONS[alert.code]
        until, rank, by = self.timeouts.get(row.chain, (0, 0, ""))
        if until > tick and row.rank >= rank:
            alert.muted_by, alert.muted_until = by, until
        until, by = self.refractory.get(alert.code, (0, ""))
        if until > max(tick, alert.muted_until):
            alert.muted_by, alert.muted_until = by, until

    def _announce(self, alert: Alert, tick: int, profile: Profile) -> None:
        """The first time that nothing keeps it back: its time-outs begin."""
        if alert.suppressed_by or alert.announced:
            return
        alert.announced = True
        row = CONDITIONS[alert.code]
        if row.level and alert.priority != "high":
            until = tick + round(profile.limit("TIMEOUTS", f"level_{row.level}_s") * TICK_HZ)
            self.timeouts[row.chain] = [until, row.rank, alert.alert_id]
        if row.refractory:
            self.refractory[alert.code] = [tick + round(profile.limit("TIMEOUTS", "refractory_s") * TICK_HZ), alert.alert_id]

    def _inactivation(self, alert: Alert) -> tuple[str, ...]:
        told = []
        if CONDITIONS[alert.code].kind != "technical":
            if self.off_until:
                told.append("alarm-off")
            elif self.alarm_until:
                told.append("alarm-paused")
        if self.audio_until:
            told.append("audio-paused")
        if alert.ack is not None:
            told.append("alert-acknowledged")
        return tuple(told)

    def _code_of(self, alert_id: str) -> str:
        return next((alert.code for alert in self.alerts.values() if alert.alert_id == alert_id), f"time-out of {alert_id}")

    def _sample(self, tick: int) -> int:
        return round(tick * self.fs / TICK_HZ)

    def _id(self, code: str, side: Side, onset: int) -> str:
        path = "VFIB by model" if code == "VFIB" and side == "model" else code  # its two paths may share an onset
        path = f"{code} by watchdog" if side == "wall" else path
        return hashlib.blake2b(repr((self.bed, self.epoch, path, self._sample(onset))).encode(), digest_size=8).hexdigest()

    def _event(self, alert: Alert, phase: Phase, state: Literal["inactive", "active", "latched"]) -> AlertEvent:
        row = CONDITIONS[alert.code]
        seq = alert.seq
        alert.seq += 1
        return AlertEvent(
            alert_id=alert.alert_id,
            event_id=f"{alert.alert_id}-{seq}",
            seq=seq,
            bed=self.bed,
            epoch=self.epoch,
            code=alert.code,
            mdc=row.mdc,
            text=_text(alert),
            phase=phase,
            state=state,
            inactivation=alert.told,
            priority=alert.priority,
            kind=row.kind,
            latching=row.latching,
            onset=Moment(self._sample(alert.onset), self.fs),
            stream_time=Moment(self._sample(alert.stream), self.fs),
            emit_time="",
            value=None if alert.value is None else round(alert.value, 3),
            unit=row.unit,
            limits=alert.limits,
            evidence=alert.evidence,
            reason=alert.reason,
            chain=row.chain,
            suppressed_by=alert.suppressed_by,
            supersedes=alert.supersedes,
            ack=alert.ack,
        )

    def state(self) -> dict[str, Any]:
        kept = {name: getattr(self, name) for name in ("audio_until", "alarm_until", "off_until", "number", "clock", "due")}
        alerts = {key: {name: getattr(alert, name) for name in Alert.__slots__} for key, alert in self.alerts.items()}
        timeouts = {chain: list(entry) for chain, entry in self.timeouts.items()}
        return {**kept, "alerts": alerts, "timeouts": timeouts, "refractory": {code: list(e) for code, e in self.refractory.items()}}

    def restore(self, state: dict[str, Any]) -> None:
        for name in ("audio_until", "alarm_until", "off_until", "number", "clock", "due"):
            setattr(self, name, state[name])
        self.timeouts = {chain: list(entry) for chain, entry in state["timeouts"].items()}
        self.refractory = {code: list(entry) for code, entry in state["refractory"].items()}
        self.alerts = {}
        for key, fields in state["alerts"].items():
            alert = Alert.__new__(Alert)
            for name, value in fields.items():
                setattr(alert, name, tuple(value) if name in ("limits", "told") else value)
            self.alerts[key] = alert


def _pause_ticks(action: Action, name: str, profile: Profile) -> int:
    seconds = action.until_s
    if seconds is None:
        seconds = profile.limit("PAUSES", name)
    elif seconds <= 0:
        raise ProfileError(f"until_s: {seconds!r} is refused; say for how many seconds, above 0")
    elif seconds > (most := _LONGEST[name]):
        raise ProfileError(f"until_s: {seconds:g} is refused; {action.kind} lasts at most {most} s and ends by itself")
    return max(1, round(seconds * TICK_HZ))


_LONGEST = {"audio_s": 600, "alarm_s": 1800, "off_s": 86400}

_LIMIT_OF = {
    "ASYSTOLE": "time_s", "VTACH": "rate", "PAUSE": "time_s", "PVC_RATE": "limit", "SVT": "rate", "PAIR_PVC": "coupling_ms",
}  # fmt: skip
_BEYOND = ("VTACH", "X_TACHY", "X_BRADY", "HR_HIGH", "HR_LOW", "SVT", "PVC_RATE")


def _limits(code: str, profile: Profile) -> tuple[float | None, float | None]:
    if code in ("HR_HIGH", "HR_LOW"):
        return profile.limit("HR_LOW", "limit"), profile.limit("HR_HIGH", "limit")
    if code in ("X_TACHY", "X_BRADY"):
        return profile.extreme_low, profile.extreme_high
    if code in ("NSVT", "RUN_PVC", "VENT_RHYTHM"):
        return None, profile.limit("VTACH", "rate")
    name = _LIMIT_OF.get(code)
    return (None, profile.limit(code, name)) if name else (None, None)


def _text(alert: Alert) -> str:
    """As a monitor words it: `***VTACH 162>100`, `**HR 45<50`, `**PAIR PVCs`, `NOISY ECG`."""
    row = CONDITIONS[alert.code]
    marks = TECHNICAL_MARKS if row.kind == "technical" else MARKS
    mark = "" if row.kind == "advisory" else marks[alert.priority]
    words = f"{mark} {row.words}" if row.kind == "technical" and mark else mark + row.words
    if alert.code == "LEAD_OFF" and "leads" in alert.evidence:
        words += f" {alert.evidence['leads']}"
    if alert.value is None:
        return words
    low = alert.code in ("X_BRADY", "HR_LOW")
    limit = alert.limits[0] if low else alert.limits[1]
    if alert.code in _BEYOND and limit is not None:
        shown = round(alert.value)
        sign = "<" if low else ">"
        return f"{words} {shown}{sign if shown != round(limit) else sign + '='}{limit:g}"
    if alert.code in ("NSVT", "RUN_PVC", "VENT_RHYTHM", "VENT_BRADY"):
        return f"{words} {alert.value:.0f}"
    if alert.code in ("PAUSE", "MISSED_BEAT"):
        return f"{words} {alert.value:.1f} s"
    return words
