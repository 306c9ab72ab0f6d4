"""What a run has done so far, counted from what the gateway publishes, and told as its summary."""

from collections import Counter
from dataclasses import dataclass, field

from rich.table import Table

from stream.wire import AlertEvent, AnyMessage, BeatJudgement, BedStatus, WindowJudgement

_STAGES = 6  # latencies told, the slowest


@dataclass(slots=True)
class BedTally:
    """One bed: judged beats by label, judged windows, started alerts by code, and the shard's latest account."""

    beats: Counter[str] = field(default_factory=Counter)
    n_windows: int = 0
    alerts: Counter[str] = field(default_factory=Counter)
    status: BedStatus | None = None


class Tally:
    """All beds of a ward. `progress` grows with all that samples cause: it stands still once all is judged."""

    def __init__(self) -> None:
        self.beds: dict[str, BedTally] = {}
        self.priorities: Counter[str] = Counter()
        self.first_alert_s: float | None = None
        self.progress = 0

    def take(self, message: AnyMessage, elapsed_s: float) -> None:
        """Count a published message; `elapsed_s`: since the run began."""
        if isinstance(message, BeatJudgement):
            self._bed(message.bed).beats[message.label] += 1
            self.progress += 1
        elif isinstance(message, WindowJudgement):
            self._bed(message.bed).n_windows += 1
            self.progress += 1
        elif isinstance(message, AlertEvent):
            self.progress += 1
            if message.phase == "start":
                self._started(message, elapsed_s)
        elif isinstance(message, BedStatus) and message.bed != message.shard:  # not the gateway's own
            bed = self._bed(message.bed)
            if bed.status is None or bed.status.counts.get("delivered") != message.counts.get("delivered"):
                self.progress += 1
            bed.status = message

    def summary(self) -> Table:
        """One row per bed, in the order of their names; the last row is all of them."""
        table = Table(title="simulated or replayed patients: research software, not a medical device")
        for heading in ("bed", "signal", "missing", "beats", "N", "S", "V", "other", "windows", "alerts"):
            table.add_column(heading, justify="left" if heading in {"bed", "alerts"} else "right")
        for name in sorted(self.beds, key=_natural):
            table.add_row(name, *_cells(self.beds[name]))
        return table

    def samples(self) -> dict[str, tuple[int, int]]:
        """Bed to its samples, judged and missing, all epochs together."""
        counts = {name: bed.status.counts if bed.status else {} for name, bed in self.beds.items()}
        return {name: (count.get("delivered", 0), count.get("gap", 0)) for name, count in counts.items()}

    def latencies(self) -> dict[str, tuple[float, float]]:
        """Stage to its p50 and p99 in ms over the last seconds: of all beds the worst."""
        worst: dict[str, tuple[float, float]] = {}
        for bed in self.beds.values():
            for stage, (p50, p99) in (bed.status.latency_ms if bed.status else {}).items():
                before = worst.get(stage, (0.0, 0.0))
                worst[stage] = max(p50, before[0]), max(p99, before[1])
        return dict(sorted(worst.items(), key=lambda item: -item[1][1])[:_STAGES])

    def _started(self, event: AlertEvent, elapsed_s: float) -> None:
        self._bed(event.bed).alerts[event.code] += 1
        self.priorities[event.priority] += 1
        if self.first_alert_s is None and event.kind == "physiological":
            self.first_alert_s = elapsed_s

    def _bed(self, name: str) -> BedTally:
        return self.beds.setdefault(name, BedTally())


def _cells(bed: BedTally) -> list[str]:
    counts = bed.status.counts if bed.status else {}
    gap = counts.get("gap", 0)
    seconds = counts.get("delivered", 0) / (bed.status.at.fs if bed.status else 1.0)
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
