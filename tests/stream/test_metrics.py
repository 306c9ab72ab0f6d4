"""The Prometheus endpoints: what a role counted is what is told, in the form that Prometheus reads."""

import urllib.request
from collections import Counter
from collections.abc import Callable

import pytest

from stream.config import SettingsError, build
from stream.latency import HALF_NS, Latency
from stream.metrics import Metrics, MetricsError, Snapshot, endpoint
from stream.wire import BedStatus, Moment

parser = pytest.importorskip("prometheus_client.parser", reason="the extra `metrics` is wanted")


def read(port: int) -> dict[tuple[str, ...], float]:
    """(name, label values ... in order) to value of all that an endpoint tells."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    samples = [sample for family in parser.text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, *sorted(sample.labels.values())): sample.value for sample in samples}


def status(bed: str, age_ms: float, gap: int) -> BedStatus:
    return BedStatus(
        shard="a", bed=bed, epoch="e", at=Moment(0, 250.0), counts={"gap": gap, "late": 1}, age_ms=age_ms,
        clock_offset_ms=0.0, clock_drift_ppm=0.0,
    )  # fmt: skip


def test_an_endpoint_tells_the_newest_snapshot(free_port: Callable[[], int]) -> None:
    port = free_port()
    latency = Latency()
    for us in (90, 900, 900, 9000):
        latency.add("judge", 1, 1 + us * 1000)
    metrics = Metrics("worker", "127.0.0.1", port)
    try:
        assert ("wardbeat_events_total", "refused", "worker") not in read(port)
        metrics.put(
            Snapshot(
                counts={"refused": 3},
                gauges={"queued": 7},
                stages=latency.totals(),
                batches=Counter({("beat", 3): 2, ("beat", 64): 1}),
                busy_s=1.5,
                beds=[status("bed1", 40.0, 0), status("bed2", 2500.0, 25)],
            )
        )
        told = read(port)
    finally:
        metrics.close()
    assert told["wardbeat_events_total", "refused", "worker"] == 3
    assert told["wardbeat_now", "queued", "worker"] == 7
    assert told["wardbeat_stage_seconds_count", "judge", "worker"] == 4
    assert told["wardbeat_stage_seconds_bucket", "0.001024", "judge", "worker"] == 3
    assert told["wardbeat_stage_seconds_sum", "judge", "worker"] == pytest.approx(10.89e-3, rel=0.1)
    assert told["wardbeat_batch_items_bucket", "4", "beat"] == 2
    assert told["wardbeat_batch_items_sum", "beat"] == 70
    assert told[("wardbeat_device_busy_seconds_total",)] == 1.5
    assert told["wardbeat_bed_age_seconds", "a", "bed2"] == 2.5
    assert told["wardbeat_bed_missing_samples_total", "a", "bed2"] == 25
    assert told["wardbeat_fates_total", "a", "late"] == 2


def test_totals_hold_every_passage_however_long_ago() -> None:
    latency = Latency()
    for turn in range(7):
        latency.add("a", 1, 1_000_001)
        latency.figures(turn * HALF_NS + (10 * HALF_NS if turn > 4 else 0))
    assert latency.totals()["a"].total() == 7


def test_a_role_without_a_port_has_no_endpoint() -> None:
    assert endpoint(build({}), "worker") is None


def test_a_port_that_is_taken_is_told_by_its_setting(free_port: Callable[[], int]) -> None:
    port = free_port()
    settings = build({"metrics": {"ports": {"worker": port}}})
    first = endpoint(settings, "worker")
    assert first is not None
    try:
        with pytest.raises(MetricsError, match=rf"metrics\.ports\.worker: {port} cannot be bound"):
            endpoint(settings, "worker")
    finally:
        first.close()


def test_a_port_for_a_role_that_is_not_there_is_refused() -> None:
    with pytest.raises(SettingsError, match=r'metrics\.ports\."shard\.b": no such role; did you mean shard\.a'):
        build({"metrics": {"ports": {"shard.b": 9103}}})
    with pytest.raises(SettingsError, match="has this port too"):
        build({"metrics": {"ports": {"worker": 9103, "gateway": 9103}}})
