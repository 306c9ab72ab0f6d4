"""The worker: batches of what shards send, answered in order, and nothing that a shard sends ends it."""

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
import zmq

from stream import process, wire
from stream.config import WorkerSettings
from stream.roles.worker import Worker, batch_sizes


class Doubler:
    """A model that doubles: what comes back must belong to what was sent."""

    version, device = "doubler", torch.device("cpu")

    def __init__(self) -> None:
        self.batches: list[int] = []

    def beats(self, wave: np.ndarray) -> dict[str, np.ndarray]:
        self.batches.append(len(wave))
        if np.isnan(wave).any():
            raise ValueError("not a number")
        return {"token": 2 * wave}


class Bench:
    def __init__(self, free_port: Callable[[], int]) -> None:
        address = f"tcp://127.0.0.1:{free_port()}"
        self.judge = Doubler()
        self.bound = process.bind(zmq.ROUTER, "worker.bind", address)
        self.worker = Worker(WorkerSettings(max_batch=8), self.judge, self.bound)  # type: ignore[arg-type]
        self.shards = [process.connect(address, f"shard:{name}") for name in "ab"]

    def send(self, shard: int, *messages: wire.AnyMessage | bytes) -> None:
        frames = [message if isinstance(message, bytes) else wire.encode(message) for message in messages]
        self.shards[shard].send_multipart(frames)

    def got(self, shard: int, kind: type, n: int = 1, within_s: float = 10.0) -> list[wire.AnyMessage]:
        found: list[wire.AnyMessage] = []
        deadline = time.monotonic() + within_s
        while len(found) < n and time.monotonic() < deadline:
            self.worker.step(timeout_ms=10)
            while self.shards[shard].poll(0):
                found += [m for f in self.shards[shard].recv_multipart() if isinstance(m := wire.decode(f), kind)]
        return found

    def close(self) -> None:
        for socket in (self.bound, *self.shards):
            socket.close(0)


@pytest.fixture
def bench(free_port: Callable[[], int]) -> Iterator[Bench]:
    bench = Bench(free_port)
    yield bench
    bench.close()


def greeting(session: str = "1") -> wire.Greeting:
    return wire.Greeting(shard="a", session=session)


def work(first_id: int, n: int, width: int = 3, value: float | None = None) -> wire.Work:
    rows = np.arange(first_id, first_id + n, dtype=np.float32)[:, None].repeat(width, 1)
    array = rows if value is None else np.full_like(rows, value)
    return wire.Work(kind="beat", urgency=wire.BEAT, first_id=first_id, n=n, arrays={"wave": wire.Tensor.of(array)})


def answered(messages: list[wire.AnyMessage]) -> dict[int, float]:
    pairs: dict[int, float] = {}
    for message in messages:
        assert isinstance(message, wire.Judged)
        tokens = message.arrays["token"].array()[:, 0].tolist()
        pairs |= dict(zip(message.ids.array().tolist(), tokens, strict=True))
    return pairs


def test_each_item_gets_its_own_answer_and_shards_share_batches(bench: Bench) -> None:
    bench.send(0, greeting(), work(0, 3))
    bench.send(1, greeting(), work(100, 4))
    time.sleep(0.1)
    assert answered(bench.got(0, wire.Judged)) == {i: 2.0 * i for i in range(3)}
    assert answered(bench.got(1, wire.Judged)) == {i: 2.0 * i for i in range(100, 104)}
    assert bench.judge.batches == [7]


def test_a_block_larger_than_a_batch_is_judged_in_parts(bench: Bench) -> None:
    bench.send(0, greeting(), work(0, 20))
    assert answered(bench.got(0, wire.Judged, 3)) == {i: 2.0 * i for i in range(20)}
    assert bench.judge.batches == [8, 8, 4]


def test_shards_of_two_versions_do_not_end_up_in_one_batch(bench: Bench) -> None:
    bench.send(0, greeting(), work(0, 2, width=3))
    bench.send(1, greeting(), work(50, 2, width=5))
    assert len(answered(bench.got(0, wire.Judged))) == 2
    assert len(answered(bench.got(1, wire.Judged))) == 2


def test_what_the_model_refuses_and_garbage_are_counted_and_the_worker_lives_on(bench: Bench) -> None:
    bench.send(0, greeting(), b"\xc1", wire.Probe(id=1, sent_ns=1), work(0, 2, value=float("nan")))
    bench.send(0, work(10, 2))
    assert answered(bench.got(0, wire.Judged)) == {10: 20.0, 11: 22.0}
    assert bench.worker.refused == 4  # two frames, two items


def test_a_shard_that_restarted_is_told_ready_at_once_and_its_old_items_are_dropped(bench: Bench) -> None:
    bench.send(0, greeting("1"))
    assert len(bench.got(0, wire.Ready)) == 1
    bench.send(0, work(0, 5), greeting("2"))
    assert len(bench.got(0, wire.Ready)) == 1
    assert bench.got(0, wire.Judged, within_s=0.3) == []


def test_batch_sizes_are_four_to_each_doubling_up_to_the_largest() -> None:
    assert batch_sizes(32) == [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32]
    assert batch_sizes(9) == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert batch_sizes(1) == [1]


def test_a_batch_is_padded_to_a_size_that_was_warmed_and_only_what_was_asked_for_is_answered(bench: Bench) -> None:
    bench.worker._pad_to = [4, 8]
    bench.send(0, greeting(), work(0, 5))
    assert answered(bench.got(0, wire.Judged)) == {i: 2.0 * i for i in range(5)}
    assert bench.judge.batches == [8]


def test_a_shard_is_told_what_the_worker_had_no_room_for(bench: Bench) -> None:
    bench.worker._batcher.max_queued = 6
    bench.send(0, greeting(), work(0, 4), work(10, 4))
    (shed,) = bench.got(0, wire.Shed)
    assert isinstance(shed, wire.Shed)
    assert (shed.first_id, shed.n) == (10, 4)
    assert bench.worker.n_shed == 4
