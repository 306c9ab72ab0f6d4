"""The whole pipeline in one thread on a virtual clock, its processor time by part.

Simulated monitors send packets of 100 ms with spread phases; the shard's rounds and the worker's batches get longer
under load by the rules of their processes. That load is not quite theirs: the worker's counts what the shard does with
answers, the shard's the gateway; at 100 to 500 beds it decides how full batches are. The gateway has its journal and
its sockets (in the process). Not in it: ZeroMQ's own threads, TCP, checkpoints, waiting; the judgements of a round come
back in it.
"""

import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import zmq

import stream.analysis
import stream.shard
from model.judge import Judge
from simulators.pacing import Pacer
from simulators.plays import Bed, Play
from simulators.producer import _Lane, _phase_s
from simulators.source import Source
from stream import wire
from stream.alarms.bed import BedAlarms
from stream.alarms.conditions import Profile
from stream.batcher import Batch, Batcher
from stream.config import build
from stream.gateway.journal import Journal
from stream.roles.gateway import Gateway
from stream.roles.shard import FRAMES_AT_ONCE, MAX_ROUND_MS, ROUND_MS
from stream.roles.worker import EASY, LOAD_OVER_S
from stream.shard import Shard
from stream.transport.ingest import Ingest
from tests.benchmarks.meter import Meter

SECOND = 1_000_000_000
EPOCH_NS = 1_700_000_000 * SECOND
PRODUCER = "monitors (simulated; no part of the pipeline)"
MODEL = ("model: beats", "model: hops", "model: windows")
ALARMS = (
    "beat", "vf", "quality", "pulse", "gap", "advance", "advance_model", "judged_beat", "judged_window",
    "take_numerics",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Parts:
    """us per bed-second by part, without the producer's; `per_s`: judgements by kind per bed-second; `batch`: items in
    a call of the model, by kind."""

    n_beds: int
    seconds: float
    us: dict[str, float]
    producer_us: float
    per_s: dict[str, float]
    batch: dict[str, float]

    @property
    def total_us(self) -> float:
        """All parts."""
        return sum(self.us.values())

    @property
    def model_us(self) -> float:
        """The calls of the model."""
        return sum(self.us.get(part, 0.0) for part in MODEL)


class _Loop:
    """Stands for the socket of the source: frames go straight to the shard, replies straight back."""

    def __init__(self) -> None:
        self.up: list[list[bytes]] = []
        self.down: list[bytes] = []
        self.counts: dict[str, int] = {}

    def connect(self, endpoint: str) -> None:
        pass

    def poll(self, timeout: int = 0) -> int:
        return len(self.down)

    def send_multipart(self, frames: list[bytes], flags: int = 0) -> None:
        self.up.append(list(frames))

    def recv_multipart(self, flags: int = 0) -> list[bytes]:
        if not self.down:
            raise zmq.Again
        frames, self.down = self.down, []
        return frames


def run(
    judge: Judge, n_beds: int, *, warm_s: float = 12.0, seconds: float = 8.0, max_batch: int = 256, n_leads: int = 2
) -> Parts:
    """Warm for `warm_s` of stream (detectors learn), then measure `seconds` of it."""
    meter = Meter()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "journal.sqlite") as journal:
        ward = _Ward(judge, n_beds, journal, meter, max_batch, n_leads)
        try:
            ward.play(warm_s)
            meter.on = True
            ward.play(warm_s + seconds)
        finally:
            meter.close()
            ward.close()
    us = {part: ns / 1e3 / n_beds / seconds for part, ns in meter.spent_ns.items() if part != PRODUCER}
    per_s = {kind: n / n_beds / seconds for kind, n in ward.judged.items()}
    batch = {kind: ward.judged[kind] / max(1, ward.calls[kind]) for kind in ward.judged}
    producer_us = meter.spent_ns[PRODUCER] / 1e3 / n_beds / seconds
    return Parts(n_beds, seconds, dict(sorted(us.items(), key=lambda part: -part[1])), producer_us, per_s, batch)


class _Ward:
    """The loop of `run`."""

    def __init__(self, judge: Judge, n_beds: int, journal: Journal, meter: Meter, max_batch: int, n_leads: int) -> None:
        self.now_ns = 0
        self.judged: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self._judge, self._meter = judge, meter
        cut = {"packet_ms": 100.0, "start_s": 0.0, "stop_s": None}
        plays = [
            Play(Bed(f"bed{i}", "sim:default", ""), i, "e", False, cut, phase_s=_phase_s(i)) for i in range(n_beds)
        ]
        for play in plays:
            play.warm()
        self._loop = _Loop()
        socket: Any = self._loop
        self._source = Source("bench", "", socket=socket, clock_ns=self._utc, mono_ns=self._mono)
        self._lane = _Lane(self._source, socket, "", plays)
        self._pacer = Pacer(1.0, 0)
        self._ingest = Ingest(capacity=n_beds)
        self._shard = Shard("a", n_beds, n_leads, lambda _: Profile(), self._utc, "s")
        self._batcher = Batcher(max_batch, build({}).worker.max_wait_ms / 1e3 if max_batch > 1 else 0.0)
        self._load = 0.0  # share of the last seconds in which the worker worked
        self._busy_s = 0.0  # that a round of the shard takes, lately
        context: zmq.Context[Any] = zmq.Context.instance()
        self._sockets = [context.socket(kind) for kind in (zmq.ROUTER, zmq.XPUB, zmq.ROUTER)]
        for i, one in enumerate(self._sockets):
            one.bind(f"inproc://bench-{id(self)}-{i}")
        self._dealer = context.socket(zmq.DEALER)
        self._dealer.setsockopt(zmq.ROUTING_ID, b"shard:a")
        self._dealer.setsockopt(zmq.SNDHWM, 0)
        self._dealer.connect(f"inproc://bench-{id(self)}-0")
        shards, publish, control = self._sockets
        self._gateway = Gateway(build({}), journal, shards, publish, control, self._utc, self._mono)
        self._status_due = SECOND
        self._wrap(meter)

    def play(self, until_s: float) -> None:
        """Round after round, to this second of the stream."""
        while self.now_ns < until_s * SECOND:
            round_s = min(max(ROUND_MS / 1e3, 3 * self._busy_s), MAX_ROUND_MS / 1e3)  # as the shard's process does
            self._send(self.now_ns + round(round_s * SECOND))
            began = time.thread_time()
            judged_s = self._round(round_s)
            self._busy_s += (time.thread_time() - began - judged_s - self._busy_s) / 8

    def close(self) -> None:
        """Let go of the sockets."""
        for one in (*self._sockets, self._dealer):
            one.close(0)

    def _utc(self) -> int:
        return EPOCH_NS + self.now_ns

    def _mono(self) -> int:
        return self.now_ns

    def _send(self, until_ns: int) -> None:
        while self.now_ns < until_ns:
            self.now_ns += 5_000_000
            self._source.poll(0.0)
            for _ in range(4):
                self._lane.turn(self._pacer, self._mono, self._utc, None)

    def _round(self, round_s: float) -> float:
        """One round of the shard, the worker and the gateway; the seconds that the worker took."""
        messages, self._loop.up = self._loop.up, []
        for frames in messages:
            self._ingest.receive(b"bench", frames, self._utc(), self._mono())
        self._shard.feed(self._ingest.take(self._shard.not_now(False)))
        began = time.thread_time()
        work = self._shard.work()
        while work:
            for block in work:
                self._batcher.add(b"a", block, self.now_ns)
            while (batch := self._batcher.next(self.now_ns, self._load < EASY)) is not None:
                self._answer(batch)
            work = self._shard.work()
        judged_s = time.thread_time() - began
        self._load += (min(judged_s / round_s, 1.0) - self._load) * round_s / LOAD_OVER_S
        self._publish([*self._shard.outbox.unsent(), *self._taken()])
        self._loop.down += [wire.encode(reply) for _, reply in self._ingest.replies(self._utc(), self._mono())]
        if self.now_ns >= self._status_due:
            self._status_due += SECOND
            self._publish(list(self._status()))
        return judged_s

    def _status(self) -> Any:
        accounts = [self._ingest.account(bed, self._utc(), self._mono()) for bed in self._ingest.beds()]
        return self._shard.status(accounts, {})

    def _taken(self) -> list[wire.AnyMessage]:
        messages, self._shard.messages = self._shard.messages, []
        return messages

    def _answer(self, batch: Batch) -> None:
        answers = getattr(self._judge, f"{batch.kind}s")(**batch.arrays)
        if self._meter.on:
            self.judged[batch.kind] += batch.n
            self.calls[batch.kind] += 1
        for part in batch.slices:
            rows = slice(part.first_row, part.first_row + part.n)
            reply = wire.Judged(
                kind=batch.kind,
                ids=wire.Tensor.of(np.arange(part.first_id, part.first_id + part.n)),
                arrays={name: wire.Tensor.of(array[rows]) for name, array in answers.items()},
                batched_ns=self._utc(),
                judged_ns=self._utc(),
            )
            decoded: Any = wire.decode(wire.encode(reply))
            self._shard.answer(decoded)

    def _publish(self, messages: list[wire.AnyMessage]) -> None:
        for at in range(0, len(messages), FRAMES_AT_ONCE):
            self._dealer.send_multipart([wire.encode(message) for message in messages[at : at + FRAMES_AT_ONCE]])
        for _ in range(1 + len(messages) // FRAMES_AT_ONCE):
            self._gateway.step(0)
        while self._dealer.poll(0):
            for frame in self._dealer.recv_multipart():
                message = wire.decode(frame)
                if isinstance(message, wire.Committed):
                    self._shard.outbox.committed(message)

    def _wrap(self, meter: Meter) -> None:
        shard, analysis = self._shard, self._shard._analysis
        for owner, name, part in (
            (self, "_send", PRODUCER),
            (self._ingest, "receive", "decode and order"),
            (self._ingest, "take", "decode and order"),
            (self._ingest, "replies", "decode and order"),
            (shard._leads, "convert", "to mV"),
            (analysis, "resampler", ""),
            (analysis._detector, "push", "periods"),
            (analysis._quality, "push", "quality"),
            (analysis._vf, "push", "VF index"),
            (analysis._model_rate, "push", "resampling"),
            (analysis.resampler, "push", "resampling"),
            (analysis._ring, "push", "rings"),
            (shard._strips.raw, "push", "rings"),
            (analysis._cutter, "push", "segments"),
            (analysis._templates, "cut", "segments"),
            (analysis._hops, "push", "segments"),
            (stream.analysis, "cut_hops", "segments"),
            (shard.judging, "add", "queue for the model"),
            (shard.judging, "accept", "queue for the model"),
            (shard.judging, "work", "queue for the model"),
            (self._batcher, "add", "batcher"),
            (self._batcher, "next", "batcher"),
            (self._judge, "beats", MODEL[0]),
            (self._judge, "hops", MODEL[1]),
            (self._judge, "windows", MODEL[2]),
            *((BedAlarms, name, "alarms") for name in ALARMS),
            (stream.shard, "beat_message", "messages"),
            (stream.shard, "window_message", "messages"),
            (self, "_answer", "worker, the rest"),
            (shard, "answer", "shard, the rest"),
            (shard, "feed", "shard, the rest"),
            (shard, "not_now", "shard, the rest"),
            (self, "_status", "accounts, once a second"),
            (self, "_publish", "encode for the gateway"),
            (self._gateway, "step", "gateway"),
            (self, "_round", "shard, the rest"),
        ):
            if part:
                meter.wrap(owner, name, part)
