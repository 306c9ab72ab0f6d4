"""What a run has done so far, counted from what the gateway publishes, and told as its summary."""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from rich.table import Table

from stream.wire import AlertEvent, AnyMessage, BeatJudgement, BedStatus, Stamps, WindowJudgement

_KEPT = 20_000  # latencies of each kind of message, the newest
_MOVING = ("delivered", "analysed", "gap", "unjudged")  # counts of a bed whose samples are not all judged yet
_GIVEN_UP = ("unjudged", "dropped_messages")


@dataclass(slots=True)
class BedTally:
    """One bed: judged beats by label, judged windows, started alerts by code, and the shard's latest account."""

    beats: Counter[str] = field(default_factory=Counter)
    n_windows: int = 0
    alerts: Counter[str] = field(default_factory=Counter)
    status: BedStatus | None = None
    before: Mapping[str, int] = field(default_factory=dict)

    def count(self, name: str) -> int:
        """Of the shard's latest account, less what it was `before` this run."""
        return self.status.counts.get(name, 0) - self.before.get(name, 0) if self.status else 0


class Tally:
    """All beds of a ward. `progress` grows with all that samples cause: it stands still once all is judged. `before`:
    accounts of beds that shards have kept from an earlier run, and go on counting from."""

    def __init__(self, before: Mapping[str, Mapping[str, int]] | None = None) -> None:
        self.beds: dict[str, BedTally] = {}
        self._before = before or {}
        self.priorities: Counter[str] = Counter()
        self.first_alert_s: float | None = None
        self.progress = 0
        self.unrecorded = 0  # alert events that the gateway published without having them on disk, by its last account
        self._latency_ms: dict[str, deque[float]] = {
            kind: deque(maxlen=_KEPT) for kind in ("beats", "windows", "alerts")
        }

    def take(self, message: AnyMessage, elapsed_s: float) -> None:
        """Count a published message; `elapsed_s`: since the run began."""
        if isinstance(message, BeatJudgement):
            self._bed(message.bed).beats[message.label] += 1
            self._time("beats", message.stamps)
            self.progress += 1
        elif isinstance(message, WindowJudgement):
            self._bed(message.bed).n_windows += 1
            self._time("windows", message.stamps)
            self.progress += 1
        elif isinstance(message, AlertEvent):
            self.progress += 1
            if message.phase == "start":
                self._started(message, elapsed_s)
        elif isinstance(message, BedStatus) and message.bed == message.shard:  # the gateway's own
            self.unrecorded = message.counts.get("events_unrecorded", 0)
        elif isinstance(message, BedStatus):
            if message.bed not in self.beds and not _moved(self._before.get(message.bed), message.counts):
                return  # a bed of an earlier run, of which the shard keeps the account
            bed = self._bed(message.bed)
            if _moved(bed.status.counts if bed.status else None, message.counts):
                self.progress += 1
            bed.status = message

    def accounts(self) -> dict[str, Mapping[str, int]]:
        """Bed to the shard's latest account of it."""
        return {name: bed.status.counts for name, bed in self.beds.items() if bed.status is not None}

    def summary(self) -> Table:
        """One row per bed, in the order of their names; the last row is all of them."""
        table = Table(title="simulated or replayed patients: research software, not a medical device")
        for heading in ("bed", "signal", "missing", "beats", "N", "S", "V", "other", "windows", "alerts"):
            table.add_column(heading, justify="left" if heading in {"bed", "alerts"} else "right")
        for name in sorted(self.beds, key=_natural):
            table.add_row(name, *_cells(self.beds[name]))
        return table

    def samples(self) -> dict[str, tuple[int, int]]:
        """Bed to its samples, judged (detectors and model have passed them) and missing, all epochs together."""
        return {name: (bed.count("analysed"), bed.count("gap")) for name, bed in self.beds.items()}

    def lost(self) -> dict[str, dict[str, int]]:
        """What was given up of each bed, where anything was: items for the model, messages."""
        counts = {name: {kind: bed.count(kind) for kind in _GIVEN_UP} for name, bed in self.beds.items()}
        return {name: {kind: n for kind, n in of.items() if n} for name, of in counts.items() if any(of.values())}

    def latencies(self) -> dict[str, tuple[float, float]]:
        """p50 and p99 in ms from the receipt of a message's newest sample to its publication, by kind of message."""
        return {
            kind: (float(np.percentile(values, 50)), float(np.percentile(values, 99)))
            for kind, values in self._latency_ms.items()
            if values
        }

    def _time(self, kind: str, stamps: Stamps) -> None:
        if stamps.received and stamps.published:
            self._latency_ms[kind].append((stamps.published - stamps.received) / 1e6)

    def _started(self, event: AlertEvent, elapsed_s: float) -> None:
        self._bed(event.bed).alerts[event.code] += 1
        if event.kind == "physiological":
            self._time("alerts", event.stamps)
        self.priorities[event.priority] += 1
        if self.first_alert_s is None and event.kind == "physiological":
            self.first_alert_s = elapsed_s

    def _bed(self, name: str) -> BedTally:
        if name not in self.beds:
            self.beds[name] = BedTally(before=self._before.get(name, {}))
        return self.beds[name]


def _moved(before: Mapping[str, int] | None, counts: Mapping[str, int]) -> bool:
    return before is None or any(before.get(name) != counts.get(name) for name in _MOVING)


def _cells(bed: BedTally) -> list[str]:
    gap = bed.count("gap")
    seconds = bed.count("analysed") / (bed.status.at.fs if bed.status else 1.0)
    other = bed.beats.total() - sum(bed.beats[label] for label in "NSV")
    alerts = ", ".join(f"{code} {n}" if n > 1 else code for code, n in bed.alerts.most_common())
    return [
        f"{int(seconds) // 60}:{seconds % 60:04.1f}",
        f"{gap} samples" if gap else "none",
        str(bed.beats.total()),
        *(str(bed.beats[label]) for label in "NSV"),
        str(other),
        str(bed.n_windows),
        alerts or "none",
    ]


def _natural(name: str) -> tuple[str, int]:
    head = name.rstrip("0123456789")
    return head, int(name[len(head) :] or 0)
