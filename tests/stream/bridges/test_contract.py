"""What every bridge promises, tried on a real broker or receiver of each kind."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.stream.bridges.buses import KILLED_BUSES, Amqp, Bus, Mqtt, Nats, need_brokers
from tests.stream.bridges.ward import Writer, life, verdict
from tests.stream.events import alert

pytestmark = pytest.mark.brokers


@pytest.fixture(params=KILLED_BUSES, ids=lambda bus: bus.__name__.lower())
def bus(request: pytest.FixtureRequest, tmp_path: Path, free_port: Callable[[], int]) -> Bus:
    need_brokers()
    made: Bus = request.param(tmp_path, free_port)
    return made


def played(bus: Bus, scene: Callable[[Writer], Awaitable[None]], **changes: Any) -> Writer:
    """Run a scene with a consumer on the bus and a ward that writes to it."""

    async def play() -> Writer:
        await bus.start()
        writer = Writer(bus.folder, bus=bus.settings(**changes))
        try:
            await scene(writer)
        finally:
            await asyncio.to_thread(writer.close)
            await bus.stop()
        return writer

    return asyncio.run(play())


async def until(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    end = time.monotonic() + within_s
    while not condition() and time.monotonic() < end:
        await asyncio.sleep(0.02)


def all_of(writer: Writer, bus: Bus) -> Callable[[], bool]:
    return lambda: {e.event_id for e in writer.sent} <= {one.event_id for one in bus.got}


def test_alerts_arrive_in_order_and_what_stands_is_told_to_who_comes_late_and_after_a_reconnect(bus: Bus) -> None:
    async def scene(writer: Writer) -> None:
        for step in zip(*(life(f"bed-{i}", 1) for i in range(4)), strict=True):
            writer.write(*step)
        writer.write(alert("stands", bed="bed-1"), alert("ends", bed="bed-2"), alert("latched", bed="bed-3"))
        writer.write(alert("latched", 1, "latched", bed="bed-3"))
        await until(all_of(writer, bus))
        assert all_of(writer, bus)()
        assert verdict(writer.sent, bus.got)[:2] == (0, 0)
        assert await bus.standing() == {"stands", "ends", "latched"}

        await bus.kill()  # the consumer is told of an end that it could not hear
        await asyncio.sleep(0.1)
        n_before = len(bus.got)
        writer.write(alert("ends", 1, "inactive", bed="bed-2"), alert("new", bed="bed-2"))
        await asyncio.sleep(0.3)
        await bus.restart()
        await until(lambda: {"stands", "latched"} <= {one.alert_id for one in bus.got[n_before:] if one.told_again})
        await until(all_of(writer, bus))
        since = bus.got[n_before:]
        assert {one.alert_id for one in since if one.told_again} - {"new"} == {"stands", "latched"}
        assert all(one.phase == "continue" for one in since if one.told_again)
        assert verdict(writer.sent, bus.got).missing == 0
        assert verdict(writer.sent, bus.got).ghosts == 0
        assert await bus.standing() == {"stands", "latched", "new"}

    played(bus, scene)


@pytest.mark.parametrize("kind", [Mqtt, Nats, Amqp], ids=lambda kind: kind.kind)
def test_a_consumer_that_was_away_sees_the_end(kind: type[Bus], tmp_path: Path, free_port: Callable[[], int]) -> None:
    need_brokers()
    bus = kind(tmp_path, free_port)

    async def scene(writer: Writer) -> None:
        writer.write(alert("a"), alert("b", bed="bed-2"))
        await until(all_of(writer, bus))
        consumer = bus.tasks.pop()
        consumer.cancel()
        await asyncio.gather(consumer, return_exceptions=True)
        writer.write(alert("a", 1, "inactive"), alert("c", bed="bed-2"))
        await until(lambda: writer.runner.accounts()["bus"].counts.get("delivered") == 4)
        assert not all_of(writer, bus)()
        await bus.begin_to_consume()
        await until(all_of(writer, bus))
        assert verdict(writer.sent, bus.got)[:2] == (0, 0)

    played(bus, scene)


def test_kills_cuts_and_a_slow_path_lose_nothing_and_change_no_order(bus: Bus) -> None:
    chance = random.Random(7)
    n_kills = n_felt = 0

    async def scene(writer: Writer) -> None:
        nonlocal n_kills, n_felt
        lives = {f"bed-{i}": [e for n in range(8) for e in life(f"bed-{i}", n)] for i in range(10)}
        share = sum(map(len, lives.values())) / (bus.n_kills + 1)  # written around each kill, and after the last

        async def write() -> None:
            while any(lives.values()):
                if len(writer.sent) < share * (n_kills + 1):
                    bed = chance.choice([bed for bed, rest in lives.items() if rest])
                    writer.write(*[lives[bed].pop(0) for _ in range(min(chance.randint(1, 3), len(lives[bed])))])
                await asyncio.sleep(0.012)

        def n_connects() -> int:
            return bus.n_connects(writer.runner.accounts()["bus"].counts)

        writing = asyncio.create_task(write())
        n_before = 0
        for turn in range(bus.n_kills):
            await until(lambda before=n_before: n_connects() > before and bus.n_links > 0)  # type: ignore[misc]
            n_before, n_kills = n_connects(), turn
            await asyncio.sleep(chance.uniform(0.05, 0.3))
            await until(lambda: bus.n_links > 0)  # HTTP opens another where the server ended one
            n_links = bus.n_links
            if turn % 3 == 2:
                bus.proxy.cut()
            if turn % 3 == 1:
                bus.proxy.slow_s = 0.05
            await bus.kill()
            await until(lambda: bus.n_links == 0)
            n_felt += n_links > bus.n_links == 0  # the bridge was connected, and no longer is
            await asyncio.sleep(chance.uniform(0.0, 0.1))
            bus.proxy.slow_s = 0.0
            await bus.restart()
        n_kills = bus.n_kills
        await writing
        await until(all_of(writer, bus), 60)
        await asyncio.sleep(0.3)

    writer = played(bus, scene)
    result = verdict(writer.sent, bus.got)
    n_connects = bus.n_connects(writer.runner.accounts()["bus"].counts)
    print(f"{type(bus).__name__}: {len(writer.sent)} sent, {n_felt} kills felt, {n_connects} connects, {result}")
    assert result[:2] == (0, 0)
    assert result.ghosts == 0
    assert n_felt == bus.n_kills
    assert n_connects > bus.n_kills
