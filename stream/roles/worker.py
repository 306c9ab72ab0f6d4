"""The worker: owns the model on one device, keeps no state of any bed, judges what shards send.

One thread: it drains its socket into the batcher, runs one batch, answers, and drains again, so a
batch forms while the one before it runs. It says `Ready` to every shard once a second, and only
after every batch size has been warmed.
"""

import time
from collections import Counter

import numpy as np
import structlog
import torch
import zmq

from model.judge import Judge
from stream import wire
from stream.batcher import Batch, Batcher, Slice
from stream.config import Settings, WorkerSettings
from stream.log import mark_ready
from stream.metrics import Metrics, Snapshot, endpoint
from stream.process import Stop, bind, fresh_id, settle_memory, stand_by

log = structlog.get_logger()

READY_EVERY_NS = 1_000_000_000
SHARD_GONE_NS = 30_000_000_000
EASY, LOAD_OVER_S = 0.1, 2.0


def serve(settings: Settings) -> int:
    """Run the worker role until SIGINT or SIGTERM. Returns the exit code."""
    torch.set_num_threads(settings.worker.threads)
    judge = Judge.load(settings.worker.weights, settings.worker.device)
    sizes = batch_sizes(settings.worker.max_batch)
    judge.warm(sizes)
    stand_by()
    with Stop() as stop, bind(zmq.ROUTER, "worker.bind", settings.worker.bind) as socket:
        worker = Worker(settings.worker, judge, socket)
        worker.metrics = endpoint(settings, "worker")
        log.info("worker_ready", device=str(judge.device), model=judge.version, batch_sizes=sizes)
        settle_memory()
        mark_ready("worker")
        while not stop.asked:
            worker.step()
    return 0


def batch_sizes(max_batch: int) -> list[int]:
    """1 .. 8, 10, 12, 14, 16, 20 .. max_batch, four to a doubling: the sizes to warm, and what batches are padded to.
    The libraries under torch keep a program, and memory, for each size that they have met."""
    steps = (2**i * k // 4 for i in range(max_batch.bit_length()) for k in range(4, 8))
    return sorted({size for size in steps if size < max_batch} | {max_batch})


class Worker:
    """The loop's body; socket and model are passed in."""

    def __init__(self, settings: WorkerSettings, judge: Judge, socket: zmq.Socket[bytes]) -> None:
        self._judge = judge
        self._socket = socket
        self._batcher = Batcher(settings.max_batch, settings.max_wait_ms / 1e3)
        self._pad_to = batch_sizes(settings.max_batch)
        self._session = fresh_id()
        self._shards: dict[bytes, tuple[str, int]] = {}
        self._ready_due_ns = 0
        self.refused = self.n_shed = self._n_told = 0
        self.metrics: Metrics | None = None
        self._batches: Counter[tuple[str, int]] = Counter()
        self._busy_ns = 0
        self._load = 0.0  # share of the last seconds in which it worked

    def step(self, timeout_ms: int = 100) -> None:
        """Take in what has come, judge at most one batch, answer it.

        While there is little to do a batch goes at once; under load it waits for others, as `max_wait_ms` allows, for
        the larger a batch the less an item costs."""
        began_ns = time.monotonic_ns()
        easy = self._load < EASY
        if len(self._batcher):
            timeout_ms = 0 if easy else round(1000 * self._batcher.wait_s(began_ns))
        came = self._socket.poll(timeout_ms)
        woke_ns = time.monotonic_ns()
        if came:
            self._drain()
        batch = self._batcher.next(time.monotonic_ns(), idle=easy and not self._socket.poll(0))
        if batch is not None:
            self._judge_batch(batch)
        self._say_ready()
        done_ns = time.monotonic_ns()
        took_s = (done_ns - began_ns) / 1e9
        share = (done_ns - woke_ns) / max(1, done_ns - began_ns)
        self._load += (share - self._load) * min(1.0, took_s / LOAD_OVER_S)

    def _drain(self, most: int = 256) -> None:
        for _ in range(most):
            try:
                identity, *frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            for frame in frames:
                try:
                    self._take(identity, wire.decode(frame))
                except wire.WireError as error:
                    self.refused += 1
                    log.warning("frame_refused", cause=error.cause, text=str(error), count=self.refused)

    def _take(self, identity: bytes, message: wire.AnyMessage) -> None:
        now_ns = time.monotonic_ns()
        if isinstance(message, wire.Work):
            for shard, first_id, n in self._batcher.add(identity, message, now_ns):
                self.n_shed += n
                self._socket.send_multipart([shard, wire.encode(wire.Shed(first_id=first_id, n=n))])
        elif isinstance(message, wire.Greeting):
            session, _ = self._shards.get(identity, ("", 0))
            if session and session != message.session:
                dropped = self._batcher.forget(identity)
                log.info("shard_restarted", shard=message.shard, items_dropped=dropped)
            self._shards[identity] = (message.session, now_ns)
            if session != message.session:
                self._ready_due_ns = 0
        else:
            raise wire.WireError("field", f"t: {type(message).__name__} is not for a worker; send Work or Greeting")

    def _judge_batch(self, batch: Batch) -> None:
        batched_ns = time.time_ns()
        try:
            answers = self._call(batch)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            # What one shard sent (of another version, say) may spoil the batch: each part for itself, then.
            if len(batch.slices) > 1:
                for part in batch.slices:
                    self._judge_batch(_only(batch, part))
                return
            self.refused += batch.n
            cause = str(error).strip().splitlines()[-1]  # a traced call of the model names it last
            log.error("batch_refused", kind=batch.kind, n=batch.n, error=cause)
            return
        judged_ns = time.time_ns()
        self._batches[batch.kind, batch.n] += 1
        self._busy_ns += judged_ns - batched_ns
        for part in batch.slices:
            rows = slice(part.first_row, part.first_row + part.n)
            reply = wire.Judged(
                kind=batch.kind,
                ids=wire.Tensor.of(np.arange(part.first_id, part.first_id + part.n)),
                arrays={name: wire.Tensor.of(array[rows]) for name, array in answers.items()},
                batched_ns=batched_ns,
                judged_ns=judged_ns,
            )
            self._socket.send_multipart([part.shard, wire.encode(reply)])

    def _call(self, batch: Batch) -> dict[str, np.ndarray]:
        arrays = batch.arrays
        padded = next((size for size in self._pad_to if size >= batch.n), batch.n)
        if padded > batch.n:
            arrays = {name: np.concatenate([a, np.repeat(a[-1:], padded - batch.n, 0)]) for name, a in arrays.items()}
        answers: dict[str, np.ndarray] = getattr(self._judge, f"{batch.kind}s")(**arrays)
        return answers

    def _say_ready(self) -> None:
        now_ns = time.monotonic_ns()
        if now_ns < self._ready_due_ns:
            return
        self._ready_due_ns = now_ns + READY_EVERY_NS
        if self.n_shed > self._n_told:
            log.warning("items_shed", n=self.n_shed - self._n_told, count=self.n_shed, queued=len(self._batcher))
            self._n_told = self.n_shed
        message = wire.Ready(
            worker="worker",
            session=self._session,
            device=str(self._judge.device),
            model_version=self._judge.version,
            queued=len(self._batcher),
        )
        if self.metrics is not None:
            gauges = {"queued": float(len(self._batcher)), "shards": float(len(self._shards))}
            counts = {"refused": self.refused}
            self.metrics.put(
                Snapshot(counts=counts, gauges=gauges, batches=self._batches.copy(), busy_s=self._busy_ns / 1e9)
            )
        frame = wire.encode(message)
        for identity, (_, seen_ns) in list(self._shards.items()):
            if now_ns - seen_ns > SHARD_GONE_NS:
                del self._shards[identity]
            else:
                self._socket.send_multipart([identity, frame])


def _only(batch: Batch, part: Slice) -> Batch:
    """The part of a batch that one block brought."""
    rows = slice(part.first_row, part.first_row + part.n)
    arrays = {name: array[rows] for name, array in batch.arrays.items()}
    return Batch(batch.kind, part.n, arrays, (Slice(part.shard, part.first_id, 0, part.n),), batch.waited_ns)
