"""Technical alarms of the ward itself: a bus is away, behind, or refuses what it is sent.

They belong to a bed that is called like the ward, on a clock of milliseconds since 1970 UTC. They begin
when a courier says so, end when it no longer does, and are journalled and published as any other.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec.structs import replace

from stream.alarms.alert import SEQ_STEP, TECHNICAL_MARKS
from stream.alarms.conditions import CONDITIONS, Profile
from stream.wire import AlertEvent, Moment, Stamps

CODES = ("BUS_DOWN", "BUS_BEHIND", "BUS_REJECTED")
CLOCK_HZ = 1000.0


class BusAlarms:
    """`bed`: the ward's name. `epoch`: the gateway's session. `profile`: the ward's, for priorities."""

    def __init__(self, bed: str, epoch: str, profile: Profile) -> None:
        self._bed, self._epoch, self._profile = bed, epoch, profile
        self._seen: set[tuple[str, str]] = set()  # (bridge, code) that stood at some time since it became true

    def step(
        self, now: Mapping[str, Mapping[str, str]], standing: Iterable[AlertEvent], now_ns: int
    ) -> list[AlertEvent]:
        """Events for what changed. `now`: by bridge, the codes that are true and why. `standing`: all alerts
        that stand; those of a gateway before this one go on or end. One that an operator acknowledged was
        reset, and is not told again before it was over."""
        true = {(bridge, code): why for bridge, alarms in now.items() for code, why in alarms.items()}
        mine = {
            (str(event.evidence.get("bridge")), event.code): event
            for event in standing
            if event.bed == self._bed and event.code in CODES
        }
        events = [self._start(*key, why, now_ns) for key, why in true.items() if key not in self._seen | mine.keys()]
        events += [_ended(event, now_ns) for key, event in mine.items() if key not in true]
        self._seen = {key for key in true if key in mine or key in self._seen}
        return events

    def _start(self, bridge: str, code: str, why: str, now_ns: int) -> AlertEvent:
        row, priority = CONDITIONS[code], self._profile.priority(code)
        at = Moment(now_ns // 1_000_000, CLOCK_HZ)
        key = repr((self._bed, code, bridge, at.sample))
        alert_id = hashlib.blake2b(key.encode(), digest_size=8).hexdigest()
        return AlertEvent(
            alert_id=alert_id,
            event_id=f"{alert_id}-0",
            seq=0,
            bed=self._bed,
            epoch=self._epoch,
            code=code,
            mdc=row.mdc,
            text=f"{TECHNICAL_MARKS[priority]}{row.words} {bridge}",
            phase="start",
            state="active",
            inactivation=(),
            priority=priority,
            kind=row.kind,
            latching=row.latching,
            onset=at,
            stream_time=at,
            emit_time="",
            evidence={"bridge": bridge},
            reason=why[:1000],
            chain=row.chain,
            stamps=Stamps(decided=now_ns),
        )


def _ended(event: AlertEvent, now_ns: int) -> AlertEvent:
    changes: dict[str, Any] = {"phase": "end", "state": "inactive", "reason": "over"}
    seq = (event.seq // SEQ_STEP + 1) * SEQ_STEP
    at = Moment(now_ns // 1_000_000, CLOCK_HZ)
    stamps = Stamps(decided=now_ns)
    return replace(event, seq=seq, event_id=f"{event.alert_id}-{seq}.gateway", stream_time=at, stamps=stamps, **changes)
