"""The short form of `tests/benchmarks/bridges.py`: nothing is lost, and a bus that falls behind says so and drains."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stream.bridges import courier
from tests.benchmarks.bridges import measure
from tests.stream.bridges.buses import Amqp, Bus, Hl7, Mqtt, Nats, need_brokers

pytestmark = pytest.mark.brokers


@pytest.mark.parametrize("kind", [Mqtt, Nats, Amqp], ids=lambda kind: kind.kind)
def test_under_load_all_arrives_in_order(kind: type[Bus], tmp_path: Path, free_port: Callable[[], int]) -> None:
    need_brokers()
    bus = kind(tmp_path, free_port)
    bus.survives = False
    told: dict[str, Any] = asyncio.run(measure(bus, 300, 2, 60))
    print(told)
    assert (told["missing"], told["wrong_order"], told["duplicates"]) == (0, 0, 0)
    assert told["committed"] > 500
    assert "committed>bus" in told["told_by_the_bridge_ms"]
    assert told["memory_mb"][1] - told["memory_mb"][0] < 100


def test_a_receiver_that_is_slow_falls_behind_is_told_by_an_alarm_and_drains(
    tmp_path: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "LATE_NS", 500_000_000)
    monkeypatch.setattr(courier, "CAUGHT_UP_NS", 200_000_000)
    need_brokers()
    bus = Hl7(tmp_path, free_port)
    bus.proxy.slow_s = 0.005
    told: dict[str, Any] = asyncio.run(measure(bus, 150, 1.5, 60))
    print(told)
    assert (told["missing"], told["wrong_order"]) == (0, 0)
    assert told["alarms"] == ["BUS_BEHIND"]
    assert told["alarms_after"] == []
    assert told["oldest_undelivered_s"] > 0.5
