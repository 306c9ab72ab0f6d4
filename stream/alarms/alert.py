"""One alert: an episode of one condition, how it is worded, and the events it sends.

Events of decisions are numbered 0, 1000, 2000 ..., marks (suppression, acknowledgement, pauses) from
there on. So the number of a decision does not hang on the marks before it, and after a restart the
same decision has the same `event_id`. The `event_id` of a mark tells its content too, as after a
restart marks may come in another order.
"""

import hashlib
from typing import Any, Literal

from stream.alarms.book import Decision
from stream.alarms.conditions import CONDITIONS, TICK_HZ, Profile
from stream.wire import AlertEvent, Moment, Phase

SEQ_STEP = 1000
Side = Literal["detector", "model", "wall", "operator"]
State = Literal["inactive", "active", "latched"]

MARKS = {"high": "***", "medium": "**", "low": "*"}
TECHNICAL_MARKS = {"high": "!!! ", "medium": "!! ", "low": ""}
STRIPPED = ("high", "medium")  # of an alert of these the signal is kept: reds and yellows
RED_ORDER = {"R1": 1, "R2": 2, "R3": 3}
_LIMIT_OF = {"ASYSTOLE": "time_s", "VTACH": "rate", "PAUSE": "time_s", "PVC_RATE": "limit", "SVT": "rate"}
_LOW = ("X_BRADY", "HR_LOW")
_BEYOND = ("VTACH", "X_TACHY", "HR_HIGH", "SVT", "PVC_RATE", *_LOW)


class Alert:
    """An episode while it is active or latched. Times are ticks; `fs` and `epoch` are those it began in."""

    # fmt: off
    __slots__ = (
        "ack", "alert_id", "announced", "bed", "code", "epoch", "evidence", "fs", "latched", "limits", "muted_by",
        "muted_until", "number", "onset", "priority", "reason", "seq", "stream", "superseded", "supersedes",
        "suppressed_by", "told", "value",
    )
    # fmt: on

    def __init__(
        self, bed: str, epoch: str, fs: float, side: Side, decision: Decision, number: int, profile: Profile
    ) -> None:
        code = decision.code
        self.bed, self.epoch, self.fs, self.code, self.number = bed, epoch, fs, code, number
        self.onset, self.stream = decision.onset, decision.at
        self.value, self.reason, self.evidence = decision.value, decision.reason, decision.evidence or {}
        self.priority = profile.priority(code)
        self.limits = limits_of(code, profile)
        # An index and a model may tell of one VF, a watchdog and a gap of one loss, from one sample on.
        path = f"{code} {side}" if side == "wall" or (code == "VFIB" and side == "model") else code
        key = repr((bed, epoch, path, sample_at(self.onset, fs)))
        self.alert_id = hashlib.blake2b(key.encode(), digest_size=8).hexdigest()
        self.seq = -1
        self.latched = self.announced = False
        self.superseded = ""  # code of the alert that stands for this one now
        self.ack: dict[str, Any] | None = None
        self.supersedes: str | None = None
        self.suppressed_by: str | None = None
        self.muted_by: str | None = None
        self.muted_until = 0
        self.told: tuple[str, ...] = ()  # its inactivation, as last told

    @property
    def technical(self) -> bool:
        return CONDITIONS[self.code].kind == "technical"

    @property
    def red(self) -> bool:
        return self.priority == "high" and not self.technical

    def order(self) -> tuple[int, int, int]:
        """The lower, the higher it stands: among reds, and among those of one chain."""
        row = CONDITIONS[self.code]
        return RED_ORDER.get(row.chain, 4), row.rank, self.number

    def decided(self, phase: Phase, state: State) -> AlertEvent:
        """The event of a decision about the patient or the signal."""
        self.seq = (self.seq // SEQ_STEP + 1) * SEQ_STEP
        return self._event(phase, state, f"{self.alert_id}-{self.seq}")

    def marked(self, phase: Phase, state: State) -> AlertEvent:
        """The event of a mark: nothing but how the alert is shown has changed."""
        self.seq += 1
        content = repr((phase, state, self.told, self.suppressed_by, self.ack and self.ack["action"], self.reason))
        digest = hashlib.blake2b(content.encode(), digest_size=3).hexdigest()
        return self._event(phase, state, f"{self.alert_id}-{self.seq}.{digest}")

    def _event(self, phase: Phase, state: State, event_id: str) -> AlertEvent:
        row = CONDITIONS[self.code]
        return AlertEvent(
            alert_id=self.alert_id,
            event_id=event_id,
            seq=self.seq,
            bed=self.bed,
            epoch=self.epoch,
            code=self.code,
            mdc=row.mdc,
            text=words_of(self),
            phase=phase,
            state=state,
            inactivation=self.told,
            priority=self.priority,
            kind=row.kind,
            latching=row.latching,
            onset=Moment(sample_at(self.onset, self.fs), self.fs),
            stream_time=Moment(sample_at(self.stream, self.fs), self.fs),
            emit_time="",
            value=None if self.value is None else round(self.value, 3),
            unit=row.unit,
            limits=self.limits,
            evidence=self.evidence,
            reason=self.reason,
            chain=row.chain,
            suppressed_by=self.suppressed_by,
            supersedes=self.supersedes,
            strip=self.alert_id if row.kind == "physiological" and self.priority in STRIPPED else None,
            ack=self.ack,
        )

    def state(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def restored(cls, state: dict[str, Any]) -> "Alert":
        alert = cls.__new__(cls)
        for name, value in state.items():
            setattr(alert, name, tuple(value) if name in ("limits", "told") else value)
        return alert


def sample_at(tick: int, fs: float) -> int:
    """The source's own sample at a tick of 4 ms."""
    return round(tick * fs / TICK_HZ)


def limits_of(code: str, profile: Profile) -> tuple[float | None, float | None]:
    """Lower and upper limit that an alert shows; None where there is none."""
    if code in ("HR_HIGH", "HR_LOW"):
        return profile.limit("HR_LOW", "limit"), profile.limit("HR_HIGH", "limit")
    if code in ("X_TACHY", "X_BRADY"):
        return profile.extreme_low, profile.extreme_high
    if code in ("NSVT", "RUN_PVC", "VENT_RHYTHM"):
        return None, profile.limit("VTACH", "rate")
    name = _LIMIT_OF.get(code)
    return (None, profile.limit(code, name)) if name else (None, None)


def words_of(alert: Alert) -> str:
    """As a monitor words it: `***VTACH 162>100`, `**HR 45<50`, `**PAIR PVCs`, `NOISY ECG`."""
    row, code = CONDITIONS[alert.code], alert.code
    marks = {} if row.kind == "advisory" else TECHNICAL_MARKS if row.kind == "technical" else MARKS
    words = marks.get(alert.priority, "") + row.words
    if code == "LEAD_OFF":
        words += f" {alert.evidence['leads']}"
    if alert.value is None:
        return words
    limit = alert.limits[0] if code in _LOW else alert.limits[1]
    beyond = limit is not None and (alert.value <= limit if code in _LOW else alert.value >= limit)
    if code in _BEYOND and limit is not None and beyond:
        shown = f"{alert.value:.0f}"
        if shown == f"{limit:.0f}":
            shown = f"{alert.value:.1f}".removesuffix(".0")
        sign = "<" if code in _LOW else ">"
        return f"{words} {shown}{sign}{'=' if shown == f'{limit:g}' else ''}{limit:g}"
    if row.unit == "bpm":
        return f"{words} {alert.value:.0f}"
    if code in ("PAUSE", "MISSED_BEAT"):
        return f"{words} {alert.value:.1f} s"
    return words
