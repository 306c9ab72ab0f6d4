"""The way of the data in figures: rates, batches, ages and delays by stage, from what is published.

Every message carries its stamps, so nothing has to be asked: a batch is what was batched at the same nanosecond, and
the device is busy from `batched` to `judged`.
"""

from collections import Counter, deque
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from stream.wire import AlertEvent, BeatJudgement, BedStatus, Stamps, WindowJudgement

STAGES = ("received", "detected", "queued", "batched", "judged", "decided", "committed", "published")
PER_S = ("received", "delivered", "beats", "windows", "alerts")
KEPT = 2000  # durations of a stage
MOST_PER_S = 200  # about so many judgements a second have their durations kept: each k-th, of a large ward
SPAN_S = 5.0
QUANTILES = (0, 1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9, 100)


class Flow:
    """See the module. `clock`: monotonic, in s. `figures` once a second."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._counts: Counter[str] = Counter()
        self._marks: deque[tuple[float, Counter[str]]] = deque()
        self._by_bed: dict[str, dict[str, int]] = {}
        self._durations: dict[str, deque[float]] = {}
        self._batches: dict[int, tuple[int, int]] = {}  # batched: (items, judged)
        self._sizes: deque[int] = deque(maxlen=500)
        self._busy_ns: deque[tuple[float, int]] = deque(maxlen=500)
        self._n_taken = 0  # judgements since the last figures
        self._each = 1  # k

    def take(self, message: BeatJudgement | WindowJudgement | AlertEvent | BedStatus) -> None:
        """Count a message."""
        if isinstance(message, BedStatus):
            self._by_bed[message.bed] = message.counts
            return
        kind = {BeatJudgement: "beats", WindowJudgement: "windows", AlertEvent: "alerts"}[type(message)]
        self._counts[kind] += 1
        stamps = message.stamps
        if isinstance(message, AlertEvent):
            if message.phase == "start" and message.kind == "physiological":
                self._delay("decided>committed", stamps.decided, stamps.committed)
                self._delay("alert decided>published", stamps.decided, stamps.published)
            return
        if stamps.batched and stamps.judged:
            n, _ = self._batches.get(stamps.batched, (0, 0))
            self._batches[stamps.batched] = n + 1, stamps.judged
        if self._n_taken % self._each == 0:
            self._stages(stamps)
        self._n_taken += 1

    def figures(self, gateway: BedStatus | None) -> dict[str, Any]:
        """What the engineering page shows."""
        now = self._clock()
        self._each, self._n_taken = max(1, self._n_taken // MOST_PER_S), 0
        totals = self._totals()
        self._marks.append((now, self._counts + totals))
        while len(self._marks) > 2 and self._marks[1][0] <= now - SPAN_S:
            self._marks.popleft()
        then, before = self._marks[0]
        per_s = {what: (n - before[what]) / (now - then) if now > then else 0.0
                 for what, n in (self._counts + totals).items()}  # fmt: skip
        self._close_batches(now)
        loss = {what: n for what, n in totals.items() if _is_loss(what) and n}
        return {
            "per_s": {what: round(per_s.get(what, 0.0), 1) for what in PER_S},
            "batch": {"mean": round(float(np.mean(self._sizes)), 1) if self._sizes else 0.0,
                      "max": max(self._sizes, default=0)},
            "device_busy": round(self._busy(now), 3),
            "stages": {stage: np.percentile(list(ms), QUANTILES).round(2).tolist()
                       for stage, ms in self._durations.items()},
            "quantiles": QUANTILES,
            "loss": loss,
            "gateway": {} if gateway is None else gateway.counts,
            "latency_ms": {} if gateway is None else gateway.latency_ms,
        }  # fmt: skip

    def _stages(self, stamps: Stamps) -> None:
        times = [(stage, getattr(stamps, stage)) for stage in STAGES if getattr(stamps, stage)]
        for (one, begun), (other, done) in pairwise(times):
            self._delay(f"{one}>{other}", begun, done)
        self._delay("received>published", stamps.received, stamps.published)

    def _delay(self, stage: str, begun_ns: int, done_ns: int) -> None:
        if begun_ns and done_ns:
            self._durations.setdefault(stage, deque(maxlen=KEPT)).append((done_ns - begun_ns) / 1e6)

    def _totals(self) -> Counter[str]:
        totals: Counter[str] = Counter()
        for counts in self._by_bed.values():
            totals.update({what: n for what, n in counts.items() if what not in {"beats", "windows"}})
        return totals

    def _close_batches(self, now: float) -> None:
        """Batches all of whose items are in: those that are not the newest."""
        for batched in sorted(self._batches)[:-1]:
            n, judged = self._batches.pop(batched)
            self._sizes.append(n)
            self._busy_ns.append((now, judged - batched))

    def _busy(self, now: float) -> float:
        recent = [ns for at, ns in self._busy_ns if at > now - SPAN_S]
        return sum(recent) / 1e9 / SPAN_S


def _is_loss(what: str) -> bool:
    return what.startswith("gap") or what in _LOSSES


_LOSSES = frozenset(
    {"late", "duplicate", "dropped", "refused", "epochs_missed", "truth_dropped", "unjudged", "dropped_messages"}
)
