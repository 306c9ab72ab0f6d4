"""What the gateway knows of its ward now: beds and their shards, alerts that stand, numerics.

No sockets, files or clocks. The journal is the truth of alerts, and this its newest page in memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from stream.alarms.lifecycle import LONGEST_S
from stream.gateway.journal import utc
from stream.wire import Action, AlertEvent, Greeting, Numeric, Snapshot, Stamps

MAX_BEDS = 4096
LEFT_BEHIND_NS = 10_000_000_000
EARLY_NS = 5_000_000_000
FORGET_NS = 600_000_000_000
_SNAPSHOT_PART = 500  # alerts, and numerics, in one frame: far below the wire's limit of size


class ActionError(ValueError):
    """An operator's action that is refused; the text names the field, the value and the mend."""


@dataclass(slots=True)
class Bed:
    """Where a bed is: the shard that spoke of it last, and when (monotonic ns)."""

    identity: bytes
    epoch: str
    heard_ns: int


class Register:
    """See the module. `alerts`: what the journal holds as active or latched at the start."""

    def __init__(self, alerts: list[AlertEvent]) -> None:
        self.beds: dict[str, Bed] = {}
        self.active = {event.alert_id: event for event in alerts}
        self.numerics: dict[str, Numeric] = {}
        self._left_behind_ns: dict[str, int] = {}

    def heard(self, name: str, epoch: str, identity: bytes, now_ns: int) -> bool:
        """Note that a shard spoke of a bed. False where there are more beds than any ward has."""
        bed = self.beds.get(name)
        if bed is None:
            if len(self.beds) >= MAX_BEDS:
                return False
            self.beds[name] = Bed(identity, epoch, now_ns)
        else:
            bed.identity, bed.epoch, bed.heard_ns = identity, epoch, now_ns
        return True

    def settle(self, event: AlertEvent) -> None:
        """An event was published: an alert that stands is kept, one that is over goes."""
        known = self.active.get(event.alert_id)
        if known is not None and known.seq > event.seq:
            return
        if event.state == "inactive":
            self.active.pop(event.alert_id, None)
        else:
            self.active[event.alert_id] = event

    def snapshot(self, published: int) -> list[Snapshot]:
        """All that stands, as frames to be sent together; each has the same publish number."""
        alerts, numerics = list(self.active.values()), list(self.numerics.values())
        starts = range(0, max(len(alerts), len(numerics), 1), _SNAPSHOT_PART)
        return [
            Snapshot(
                alerts=tuple(alerts[i : i + _SNAPSHOT_PART]),
                numerics=tuple(numerics[i : i + _SNAPSHOT_PART]),
                published=published,
            )
            for i in starts
        ]

    def check(self, action: Action, now_ns: int) -> Action:
        """The action as it is journalled and goes to the shard: with our time (`now_ns`, UTC) and the
        bed's epoch. Raises ActionError."""
        bed = self.beds.get(action.bed)
        if bed is None and not (action.kind == "acknowledge" and self.released(action, now_ns)):
            raise ActionError(
                f"bed: {action.bed!r} is not monitored now; known: {', '.join(sorted(self.beds)[:20]) or 'none'}"
            )
        if action.alert_id is not None:
            alert = self.active.get(action.alert_id)
            if action.kind != "acknowledge":
                raise ActionError(f"alert_id: goes with acknowledge, not with {action.kind}; leave it out")
            if alert is None or alert.bed != action.bed:
                raise ActionError(
                    f"alert_id: {action.alert_id!r} does not stand at bed {action.bed!r}; ask for a snapshot"
                )
        pause = action.kind in {"audio_pause", "alarm_pause"}
        if pause and action.until_s is None:
            raise ActionError(f"until_s: {action.kind} needs the seconds it lasts; give 120, say")
        longest = LONGEST_S.get(action.kind)
        if action.until_s is not None and longest is None:
            raise ActionError(f"until_s: goes with {', '.join(LONGEST_S)}, not with {action.kind}; leave it out")
        if action.until_s is not None and longest is not None and not 0 < action.until_s <= longest:
            raise ActionError(f"until_s: {action.until_s} is outside 0 to {longest} s, the longest {action.kind}")
        if (action.kind == "limits") != bool(action.limits):
            raise ActionError("limits: goes with the action limits, and only there; give them by code of the alarm")
        return replace(action, at_ns=now_ns, epoch=bed.epoch if bed else "", sample=None)

    def released(self, action: Action, now_ns: int) -> list[AlertEvent]:
        """The resets of alerts that were acknowledged and that no shard holds any more: of an epoch that
        is over, or of a bed that is gone. The gateway is all they have left. A shard that did take over
        a latched alert of an epoch before resets it itself, so ask once it has had the time."""
        bed = self.beds.get(action.bed)
        return [
            _next(
                event,
                now_ns,
                phase="reset",
                state="inactive",
                reason="acknowledged",
                ack={"by": action.who, "at": utc(now_ns)},
            )
            for event in self.active.values()
            if event.bed == action.bed
            and action.alert_id in {None, event.alert_id}
            and (bed is None or (event.epoch != bed.epoch and event.state == "latched"))
        ]

    def left_behind(self, greeting: Greeting, now_ns: int, monotonic_ns: int) -> list[AlertEvent]:
        """The ends of alerts whose epoch their shard no longer has, and has not had for 10 s.

        A source that starts again begins another epoch. Where the shard could not end the alerts of
        the old one (both were killed, say) they would stand for ever; so they end here, said with a
        reason, and a latched one stays until it is acknowledged."""
        live = {(bed, epoch) for bed, epoch, _ in greeting.beds}
        beds = {bed for bed, _ in live}
        ends = []
        for event in self.active.values():
            if event.state != "active" or event.bed not in beds:
                continue
            if (event.bed, event.epoch) in live:
                self._left_behind_ns.pop(event.alert_id, None)
            elif monotonic_ns - self._left_behind_ns.setdefault(event.alert_id, monotonic_ns) >= LEFT_BEHIND_NS:
                state = "latched" if event.latching and event.ack is None else "inactive"
                ends.append(_next(event, now_ns, phase="end", state=state, reason="the source started again"))
        return ends

    def forget(self, monotonic_ns: int) -> None:
        """Drop beds that no shard has spoken of for ten minutes; alerts of theirs stand on."""
        for name in [name for name, bed in self.beds.items() if monotonic_ns - bed.heard_ns > FORGET_NS]:
            del self.beds[name]
            self.numerics.pop(name, None)
        self._left_behind_ns = {i: since for i, since in self._left_behind_ns.items() if i in self.active}


class Sessions:
    """How far the numbered alert events of each shard's session are on disk."""

    def __init__(self, until: dict[str, int]) -> None:
        self._until = until
        self._early: dict[str, tuple[int, int]] = {}  # session: lowest number that came early, since when

    def until(self, session: str) -> int:
        """The number of the first event of the session that is not on disk."""
        return self._until.get(session, 0)

    def committed(self, until: Mapping[str, int]) -> None:
        """The events before these numbers are on disk now."""
        self._until.update(until)
        for session in until:
            self._early.pop(session, None)

    def believe(self, session: str, first: int, monotonic_ns: int) -> bool:
        """Whether to take events from number `first` on though those before it are missing.

        Where the journal was exchanged, it lacks events that the shard no longer has. So after 5 s of
        sending again, the lowest number that the shard sends is the oldest that it has."""
        lowest, since_ns = self._early.get(session, (first, monotonic_ns))
        self._early[session] = min(lowest, first), since_ns
        return first <= lowest and monotonic_ns - since_ns >= EARLY_NS


def _next(event: AlertEvent, now_ns: int, **changes: Any) -> AlertEvent:
    """The event that follows `event` in the life of its alert; its id is never one of the shard's."""
    seq = event.seq + 1
    event_id = f"{event.alert_id}-{seq}.gateway"
    return replace(event, seq=seq, event_id=event_id, stamps=Stamps(decided=now_ns), **changes)
