"""Prometheus metrics of a role, where ward.toml gives it a port: histograms by stage, age of data by bed, counts by
cause, batch sizes, the share of time that the device is busy.

    metrics = endpoint(settings, "worker")      None where the role has no port
    metrics.put(Snapshot(counts={"refused": 3}))      once a second

A role only hands over what it has counted anyway, and all that Prometheus wants is made of it when somebody asks, in
the endpoint's own thread; so a metric costs nothing per message.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stream.latency import PER_OCTAVE
from stream.wire import BedStatus

if TYPE_CHECKING:
    from stream.config import Settings

PREFIX = "wardbeat"
OCTAVES = 27  # of microseconds: up to 134 s


class MetricsError(ValueError):
    """An endpoint that cannot be opened: the setting, the value and the mend."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a role has counted by now; nothing in it is changed any more.

    `counts`: since its start, by what. `gauges`: as they are. `stages`: `Latency.totals`. `batches`: (kind, items) to
    how many such batches. `busy_s`: spent in calls of the model, in all. `beds`: the newest account of each."""

    counts: Mapping[str, int] = field(default_factory=dict)
    gauges: Mapping[str, float] = field(default_factory=dict)
    stages: Mapping[str, Counter[int]] = field(default_factory=dict)
    batches: Mapping[tuple[str, int], int] = field(default_factory=dict)
    busy_s: float | None = None
    beds: Sequence[BedStatus] = ()


class Metrics:
    """An endpoint at `http://HOST:PORT/metrics`. Raises MetricsError where it cannot be opened, or prometheus-client
    is not installed."""

    def __init__(self, role: str, host: str, port: int) -> None:
        try:
            from prometheus_client import CollectorRegistry, start_http_server
        except ImportError:
            raise MetricsError(
                "metrics: prometheus-client is not installed; pip install -c constraints.txt -e '.[metrics]'"
            ) from None
        self.role = role
        self._snapshot = Snapshot()
        registry = CollectorRegistry()
        registry.register(self)
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            raise MetricsError(
                f"metrics.ports.{role}: {port} cannot be bound ({error.strerror}); set another"
            ) from None

    def put(self, snapshot: Snapshot) -> None:
        """What is told from here on."""
        self._snapshot = snapshot

    def close(self) -> None:
        """Let go of the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(1.0)

    def collect(self) -> Iterator[Any]:
        """What prometheus-client calls when somebody asks."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        now, role = self._snapshot, self.role
        events = CounterMetricFamily(f"{PREFIX}_events", "What was counted since the start", labels=["role", "what"])
        for what, n in now.counts.items():
            events.add_metric([role, what], n)
        yield events
        gauges = GaugeMetricFamily(f"{PREFIX}_now", "How much there is now", labels=["role", "what"])
        for what, value in now.gauges.items():
            gauges.add_metric([role, what], value)
        yield gauges
        stages = HistogramMetricFamily(f"{PREFIX}_stage_seconds", "How long stages took", labels=["role", "stage"])
        for stage, bins in now.stages.items():
            buckets, total_s = _buckets(bins)
            stages.add_metric([role, stage], buckets, total_s)
        yield stages
        if now.busy_s is not None:
            yield CounterMetricFamily(f"{PREFIX}_device_busy_seconds", "Time in calls of the model", value=now.busy_s)
        sizes = HistogramMetricFamily(f"{PREFIX}_batch_items", "Items judged at once", labels=["kind"])
        for kind in sorted({kind for kind, _ in now.batches}):
            sizes.add_metric([kind], *_sizes({n: c for (k, n), c in now.batches.items() if k == kind}))
        yield sizes
        yield from _of_beds(now.beds, CounterMetricFamily, GaugeMetricFamily)


def endpoint(settings: "Settings", role: str) -> Metrics | None:
    """The endpoint of a role; None where the settings give it no port. Raises MetricsError."""
    port = settings.metrics.ports.get(role)
    return None if port is None else Metrics(role, settings.metrics.host, port)


def _of_beds(beds: Sequence[BedStatus], counter: Any, gauge: Any) -> Iterable[Any]:
    """Age and missing samples of each bed; all else of all beds together, by cause."""
    age = gauge(f"{PREFIX}_bed_age_seconds", "Age of the newest sample in order", labels=["shard", "bed"])
    missing = counter(f"{PREFIX}_bed_missing_samples", "Samples that did not come", labels=["shard", "bed"])
    fates = counter(f"{PREFIX}_fates", "Samples and packets of all beds by fate", labels=["shard", "fate"])
    totals: Counter[tuple[str, str]] = Counter()
    for bed in beds:
        age.add_metric([bed.shard, bed.bed], bed.age_ms / 1e3)
        missing.add_metric([bed.shard, bed.bed], bed.counts.get("gap", 0))
        for fate, n in bed.counts.items():
            totals[bed.shard, fate] += n
    for (shard, fate), n in totals.items():
        fates.add_metric([shard, fate], n)
    return age, missing, fates


def _buckets(bins: Counter[int]) -> tuple[list[tuple[str, float]], float]:
    """Cumulative buckets by octave, and the sum in s (of the upper ends of bins, so up to 9 % too high)."""
    by_octave: Counter[int] = Counter()
    total_us = 0.0
    for index, n in bins.items():
        by_octave[min(OCTAVES, -(-index // PER_OCTAVE))] += n
        total_us += n * 2 ** (index / PER_OCTAVE)
    buckets, passed = [], 0
    for octave in range(OCTAVES):
        passed += by_octave[octave]
        buckets.append((str(2**octave / 1e6), float(passed)))
    return [*buckets, ("+Inf", float(bins.total()))], total_us / 1e6


def _sizes(batches: Mapping[int, int]) -> tuple[list[tuple[str, float]], float]:
    n = sum(batches.values())
    edges = [2**i for i in range(13)]
    buckets = [(str(edge), float(sum(c for size, c in batches.items() if size <= edge))) for edge in edges]
    return [*buckets, ("+Inf", float(n))], float(sum(size * c for size, c in batches.items()))
