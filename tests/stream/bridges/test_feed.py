"""What may be lost: the newest of each bed goes out, and what waits too long falls out and is counted."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stream import wire
from stream.bridges.feed import MOST_WAITING, Feed
from stream.wire import BeatJudgement, BedStatus, Moment, Numeric, Signal, Stamps, Waves
from tests.stream.bridges.buses import UNIT, Mqtt, need_brokers
from tests.stream.bridges.ward import Writer
from tests.stream.test_gateway import Bench, greeting

AT = Moment(250, 250.0)


def numeric(bed: str, hr: float | None) -> Numeric:
    return Numeric(
        bed=bed, epoch="e", at=AT, hr=hr, pvc_per_min=0.0, rhythm="N", confidence=1.0, quality=(1.0,),
        stamps=Stamps(published=1),
    )  # fmt: skip


def beat(bed: str = "b1") -> BeatJudgement:
    return BeatJudgement(bed=bed, epoch="e", at=AT, label="N", confidence=1.0, rr_ms=800.0)


def waves(bed: str = "b1") -> Waves:
    signals = (Signal("II", "ecg", "mV", 200.0), Signal("V1", "ecg", "mV", 100.0, 5))
    samples = np.array([[1, 2, 3], [-4, -5, -6]], "<i2")
    return Waves(bed=bed, epoch="e", first=7, rate=250.0, n=3, signals=signals, data=memoryview(samples.tobytes()))


def test_a_feed_keeps_the_newest_of_a_bed_and_forgets_beds_that_are_gone() -> None:
    now = [0]
    feed = Feed(lambda: now[0])
    for hr in (60.0, 61.0):
        feed.take(numeric("b1", hr))
    status = BedStatus(
        shard="a", bed="b1", epoch="e", at=AT, counts={}, age_ms=0.0, clock_offset_ms=0.0, clock_drift_ppm=0.0
    )
    feed.take(status)
    assert feed.numerics["b1"].hr == 61.0
    assert feed.beds() == ["b1"]
    now[0] = 61 * 10**9
    assert feed.beds() == []
    assert not feed.numerics


def test_what_waits_too_long_falls_out_and_is_counted() -> None:
    feed = Feed()
    waiting = feed.want_beats("bus")
    for _ in range(MOST_WAITING + 3):
        feed.take(beat())
        feed.take(waves())  # nobody wants these
    assert len(waiting) == MOST_WAITING
    assert feed.n_dropped["bus"] == 3


def test_a_bridge_that_wants_waves_makes_the_gateway_ask_for_those_of_every_bed(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    bench = Bench(tmp_path, free_port)
    taken: list[Any] = []
    bench.gateway._bridges = SimpleNamespace(  # type: ignore[assignment]
        accounts=dict, take=taken.append, wake=lambda: None, wants_waves=True
    )
    bench.send(greeting())
    bench.later_ns += 2 * 10**9
    assert bench.answer() == wire.Watch(beds=("bed-1",))
    bench.send(waves("bed-1"))
    bench.settle()
    assert [type(message) for message in taken if message.bed == "bed-1"] == [Waves]
    bench.close()


@pytest.mark.brokers
def test_all_classes_go_to_their_topics(tmp_path: Path, free_port: Callable[[], int]) -> None:
    need_brokers()
    bus = Mqtt(tmp_path, free_port)
    topics: dict[str, Any] = {}

    async def play() -> None:
        await bus.proxy.start()
        await bus.restart()
        classes = ("alerts", "numerics", "beats", "profile", "waves")
        writer = Writer(tmp_path, bus=bus.settings(classes=classes, numerics_s=0.2))
        assert writer.runner.wants_waves
        async with bus.client("listener", True) as client:
            await client.subscribe("ecg/#")

            async def listen() -> None:
                async for message in client.messages:
                    topics[str(message.topic).removeprefix(f"ecg/{UNIT}/")] = message

            listening = asyncio.create_task(listen())
            for message in (numeric("b1", 61.0), numeric("b2", None), beat(), waves()):
                writer.runner.take(message)
            end = time.monotonic() + 10
            while len(topics) < 8 and time.monotonic() < end:
                await asyncio.sleep(0.05)
            listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listening
        await asyncio.to_thread(writer.close)
        await bus.proxy.stop()
        await bus.kill()

    asyncio.run(play())
    assert b'"value":61.0' in topics["b1/numeric/hr"].payload
    assert b'"value":null' in topics["b2/numeric/hr"].payload
    assert b'"label":"N"' in topics["b1/beat"].payload
    assert np.frombuffer(topics["b1/wave/V1"].payload, "<i2").tolist() == [-4, -5, -6]
    told = dict(topics["b1/wave/V1"].properties.UserProperty)
    assert (told["first"], told["gain"], told["baseline"], told["simulated"]) == ("7", "100.0", "5", "true")
