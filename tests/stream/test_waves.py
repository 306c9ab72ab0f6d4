"""Waves go out for those who watch, sample for sample, and for nobody else."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq

from stream import wire
from stream.gateway.subscriber import Publication, Subscriber
from stream.transport.sequence import Chunk, Event, Gap
from stream.waves import BLOCK_NS, MOST_S, WATCH_NS, Watched
from stream.wire import MISSING, Signal, Watch, Waves
from tests.stream.test_gateway import Bench, greeting

SIGNALS = (Signal("II", "ecg", "mV", 200.0), Signal("V1", "ecg", "mV", 100.0, 5))
RATE = 250.0
LATER = 2 * BLOCK_NS


def chunk(first: int, n: int, bed: str = "bed-1", off: int = 0, epoch: str = "e") -> Chunk:
    samples = np.stack([np.arange(first, first + n), -np.arange(first, first + n)]).astype("<i2")
    return Chunk(bed, epoch, SIGNALS, RATE, first, samples, off, 1, 2, 3)


def told(waves: Watched, events: list[Event], now_ns: int = LATER) -> list[Waves]:
    waves.take(events)
    return list(waves.blocks(now_ns))


@pytest.fixture
def watched() -> Watched:
    waves = Watched()
    waves.watch(["bed-1"], 0)
    return waves


def test_packets_that_follow_one_another_are_one_block_with_the_samples_as_they_came(watched: Watched) -> None:
    (block,) = told(watched, [chunk(100, 25), chunk(0, 25, "bed-2"), chunk(125, 10)])
    assert (block.bed, block.first, block.n, block.rate, block.signals) == ("bed-1", 100, 35, RATE, SIGNALS)
    assert np.array_equal(block.samples(), [np.arange(100, 135), -np.arange(100, 135)])
    assert told(watched, [chunk(135, 25)], LATER + BLOCK_NS // 2) == []  # blocks are 40 ms at least
    assert next(watched.blocks(LATER + BLOCK_NS)).first == 135


def test_a_gap_and_a_new_epoch_begin_a_block_of_their_own(watched: Watched) -> None:
    gap = Gap("bed-1", "e", 25, 25, "lost")
    blocks = told(watched, [chunk(0, 25), gap, chunk(50, 25), chunk(75, 5), chunk(80, 5, epoch="f")])
    assert [(block.epoch, block.first, block.n) for block in blocks] == [("e", 0, 25), ("e", 50, 30), ("f", 80, 5)]


def test_a_lead_that_is_off_has_no_samples_while_it_is(watched: Watched) -> None:
    (block,) = told(watched, [chunk(0, 5), chunk(5, 5, off=0b10), chunk(10, 5)])
    assert block.off == 0b10
    assert np.array_equal(block.samples()[0], np.arange(15))
    assert np.array_equal(block.samples()[1] == MISSING, [*[False] * 5, *[True] * 5, *[False] * 5])


def test_only_the_newest_two_seconds_of_what_has_piled_up_are_told(watched: Watched) -> None:
    (block,) = told(watched, [chunk(first, 100) for first in range(0, 3000, 100)])
    n = round(MOST_S * RATE)
    assert (block.first, block.n, watched.counts["dropped"]) == (3000 - n, n, 3000 - n)


def test_who_is_not_watched_any_more_is_told_nothing_of(watched: Watched) -> None:
    assert told(watched, [chunk(0, 25)], WATCH_NS + 1) == []
    watched.watch([], 0)
    assert told(watched, [chunk(25, 25)]) == []


@pytest.fixture
def bench(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Bench]:
    bench = Bench(tmp_path, free_port)
    yield bench
    bench.close()


def block(bed: str = "bed-1", first: int = 0) -> Waves:
    data = np.zeros((2, 25), "<i2").data.cast("B")
    return Waves(bed=bed, epoch="e", first=first, rate=RATE, n=25, signals=SIGNALS, data=data)


def wanted(bench: Bench, within_s: float = 5.0) -> tuple[str, ...] | None:
    """What the gateway tells the shard that it wants waves of next; None where it says nothing."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        bench.gateway.step(5)
        while bench.shard.poll(0):
            for frame in bench.shard.recv_multipart():
                message = wire.decode(frame)
                if isinstance(message, Watch):
                    return message.beds
    return None


def test_a_subscription_is_what_asks_a_shard_for_waves_and_its_end_ends_it(bench: Bench) -> None:
    bench.send(greeting(), greeting(bed="bed-2"))
    bench.settle()
    assert wanted(bench, 0.2) is None  # one who subscribes to all and everything has not asked
    watcher = bench.connect(zmq.SUB, bench.settings.gateway.publish)
    watcher.subscribe(b"wave.bed-1")
    assert wanted(bench) == ("bed-1",)
    bench.later_ns += 1_000_000_001
    assert wanted(bench) == ("bed-1",)  # each second again
    watcher.close(0)
    bench.settle()
    bench.later_ns += 1_000_000_001
    wanted(bench, 0.1)
    bench.later_ns += 1_000_000_001
    assert wanted(bench, 0.2) is None


def test_waves_are_published_without_a_number_of_their_own(bench: Bench) -> None:
    own = bench.settings.gateway
    with Subscriber(own.publish, own.control) as subscriber:
        subscriber.watch({"bed-1"})
        items: list[object] = []
        for _ in range(100):
            bench.gateway.step(2)
            items += subscriber.poll(0.01)
        bench.send(block(), block("bed-10"), block(first=25))
        for _ in range(100):
            bench.gateway.step(2)
            items += subscriber.poll(0.01)
        waves = [item.message for item in items if isinstance(item, Publication) and item.topic == "wave"]
        assert [(message.bed, message.first) for message in waves if isinstance(message, Waves)] == [
            ("bed-1", 0),
            ("bed-1", 25),
        ]
        assert subscriber.counts["holes"] == 0
