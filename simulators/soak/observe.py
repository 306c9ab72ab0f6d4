"""What a soak sees from outside: everything that is published, and what the processes take of the machine.

Nothing is kept per message but alerts: stamps are gathered for the length of a slot, and turned into percentiles and
histograms at its end, so a soak of days takes no more memory than one of an hour.
"""

import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import psutil
import zmq
from msgspec import Struct

from stream.wire import AlertEvent, Waves, decode

COUNTER_MODULO = 1 << 15
# Stages of a judgement, each from one stamp to another, and the two that limits speak of.
STAGES = {
    "sent to received": ("sent", "received"),
    "received to detected": ("received", "detected"),
    "queued to batched": ("queued", "batched"),
    "batched to judged": ("batched", "judged"),
    "judged to decided": ("judged", "decided"),
    "decided to published": ("decided", "published"),
}
TOTAL = ("sent", "published")
_STAMPS = ("device", "sent", "received", "detected", "queued", "batched", "judged", "decided", "committed", "published")
_AT = {name: i for i, name in enumerate(_STAMPS)}
PER_OCTAVE, FLOOR_MS = 64, 0.01
N_BINS = 27 * PER_OCTAVE

Figures = dict[str, tuple[int, float, float, float, float]]  # n, p50, p99, max, mean in ms


class _Stamps(Struct, frozen=True):
    device: int = 0
    sent: int = 0
    received: int = 0
    detected: int = 0
    queued: int = 0
    batched: int = 0
    judged: int = 0
    decided: int = 0
    committed: int = 0
    published: int = 0


class _Moment(Struct, frozen=True):
    sample: int
    fs: float


class _Judgement(Struct, frozen=True):
    """Of a beat or window, only what is looked at: the decoder passes over the rest."""

    bed: str
    epoch: str
    at: _Moment
    stamps: _Stamps


class _Account(Struct, frozen=True):
    shard: str
    bed: str
    epoch: str
    at: _Moment
    counts: dict[str, int]
    age_ms: float


_judgement = msgspec.msgpack.Decoder(_Judgement)
_account = msgspec.msgpack.Decoder(_Account)


class Histogram:
    """Durations in ms: counts in bins a 64th of an octave wide (1.1 %) from 10 us on, with mean and greatest exact."""

    def __init__(self) -> None:
        self.bins = np.zeros(N_BINS, np.int64)
        self.total_ms = self.max_ms = 0.0

    def add(self, ms: npt.NDArray[np.float64]) -> None:
        """Count them."""
        if ms.size:
            index = np.ceil(PER_OCTAVE * np.log2(np.maximum(ms, FLOOR_MS) / FLOOR_MS)).astype(np.int64)
            self.bins += np.bincount(np.minimum(index, N_BINS - 1), minlength=N_BINS)
            self.total_ms += float(ms.sum())
            self.max_ms = max(self.max_ms, float(ms.max()))

    def quantile(self, share: float) -> float:
        """In ms; 0 where nothing was counted."""
        n = int(self.bins.sum())
        if n == 0:
            return 0.0
        index = int(np.searchsorted(np.cumsum(self.bins), share * n))
        return min(self.max_ms, FLOOR_MS * 2 ** (index / PER_OCTAVE))

    def figures(self) -> dict[str, float]:
        """n, mean, p50, p95, p99, p99.9 and max, and what a published streaming system is compared by."""
        n = int(self.bins.sum())
        mean = self.total_ms / n if n else 0.0
        told = {"n": float(n), "mean": mean, "max": self.max_ms}
        told |= {name: self.quantile(q) for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("p99.9", 0.999))}
        return told | {"p99.9/mean": told["p99.9"] / mean if n else 0.0, "max/mean": self.max_ms / mean if n else 0.0}

    def curve(self) -> list[tuple[float, float]]:
        """(ms, share that took no longer), one point per bin that holds any."""
        n, passed = int(self.bins.sum()), np.cumsum(self.bins)
        return [(FLOOR_MS * 2 ** (i / PER_OCTAVE), float(passed[i] / n)) for i in np.flatnonzero(self.bins)]


@dataclass(slots=True)
class Slot:
    """A stretch of the run, `at_s` from the start of the measurement (below 0: warming). Latencies in ms."""

    at_s: float
    length_s: float
    disturbed: bool
    figures: Figures = field(default_factory=dict)
    batch: tuple[float, int] = (0.0, 0)
    n_messages: int = 0
    age_ms: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    rss_mb: dict[str, float] = field(default_factory=dict)
    pacing_ms: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(slots=True)
class _Order:
    """The windows and beats of a bed, as they came: doubled ones and those that went back."""

    epoch: str = ""
    newest: dict[str, int] = field(default_factory=dict)
    recent: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))


class Observer:
    """A subscriber of the whole ward.

    `accounts`: the newest of each bed. `closed`: (bed, epoch) to the length of all epochs of the bed before that one.
    `alerts`: every alert event. `order`: judgements by what was odd about them. `waves`: what the counters in the
    watched waves said. `holes`: publications that never came. `events`: for recovery, see `run`."""

    def __init__(self, publish: str, watched: list[str]) -> None:
        self.accounts: dict[str, _Account] = {}
        self.closed: dict[tuple[str, str], int] = {}
        self.alerts: list[AlertEvent] = []
        self.gateway: dict[str, int] = {}
        self.order: Counter[str] = Counter()
        self.waves: Counter[str] = Counter()
        self.holes = self.n_messages = 0
        self.all = {kind: Histogram() for kind in ("beats", "windows", "alerts")}
        self.calm = {kind: Histogram() for kind in ("beats", "windows", "alerts")}
        self.stages = {stage: Histogram() for stage in STAGES}
        self.clock_ns = 0
        self._number = 0
        self._beats: list[_Stamps] = []
        self._windows: list[_Stamps] = []
        self._alerted: list[Any] = []
        self._orders: dict[str, _Order] = defaultdict(_Order)
        self._wave_next: dict[str, tuple[str, int]] = {}
        self._slot_messages = 0
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVHWM, 1_000_000)
        for topic in ("beat.", "window.", "numeric.", "status.", "alert.", "action.", "truth.", "gateway"):
            self._socket.subscribe(topic.encode())
        for bed in watched:
            self._socket.subscribe(f"wave.{bed}".encode())
        self._socket.connect(publish)

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close(0)

    def poll(self, timeout_s: float) -> None:
        """Take in what has come, waiting up to `timeout_s` for it."""
        if not self._socket.poll(round(timeout_s * 1000)):
            return
        receive = self._socket.recv_multipart
        for _ in range(20_000):
            try:
                topic, number, frame = receive(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._take(topic, int.from_bytes(number, "big"), frame)

    def slot(self, at_s: float, length_s: float, disturbed: bool) -> tuple[Slot, npt.NDArray[np.int64]]:
        """Close a slot: its figures, and the stamps (n, 10) of its judgements, for whoever looks at recoveries."""
        slot = Slot(at_s, length_s, disturbed)
        kinds = {"beats": self._beats, "windows": self._windows, "alerts": self._alerted}
        self._beats, self._windows, self._alerted = [], [], []
        rows = {
            kind: np.array([[getattr(s, name) for name in _STAMPS] for s in stamps], np.int64).reshape(-1, len(_STAMPS))
            for kind, stamps in kinds.items()
        }
        for kind, stamps in rows.items():
            ms = self._between(stamps, *TOTAL)
            slot.figures[kind] = _figures(ms)
            if at_s >= 0:
                self.all[kind].add(ms)
                if not disturbed:
                    self.calm[kind].add(ms)
        judged = np.concatenate([rows["beats"], rows["windows"]])
        for stage, (begun, done) in STAGES.items():
            ms = self._between(judged, begun, done)
            slot.figures[stage] = _figures(ms)
            if at_s >= 0:
                self.stages[stage].add(ms)
        batches = judged[judged[:, _AT["batched"]] > 0, _AT["batched"]]
        if batches.size:
            sizes = np.unique(batches, return_counts=True)[1]
            slot.batch = float(sizes.mean()), int(sizes.max())
        slot.n_messages, self._slot_messages = self._slot_messages, 0
        slot.age_ms = max((account.age_ms for account in self.accounts.values()), default=0.0)
        totals: Counter[str] = Counter()
        for account in self.accounts.values():
            totals.update(account.counts)
        slot.counts = dict(totals)
        return slot, judged

    def _between(self, rows: npt.NDArray[np.int64], begun: str, done: str) -> npt.NDArray[np.float64]:
        a, b = rows[:, _AT[begun]], rows[:, _AT[done]]
        known = (a > 0) & (b > 0)
        ns = b[known] - a[known]
        if begun == "sent":  # by the source's clock, which the soak knows to be off by so much
            ns = ns + self.clock_ns
        ms: npt.NDArray[np.float64] = np.maximum(ns, 0) / 1e6
        return ms

    def _take(self, topic: bytes, number: int, frame: bytes) -> None:
        self.n_messages += 1
        self._slot_messages += 1
        if self._number and number > self._number + 1 and number - self._number < 500_000:
            self.holes += number - self._number - 1
        self._number = number
        kind = topic[:5]
        if kind == b"beat.":
            beat = _judgement.decode(frame)
            self._beats.append(beat.stamps)
            self._in_order("beats", beat)
        elif kind == b"windo":
            window = _judgement.decode(frame)
            self._windows.append(window.stamps)
            self._in_order("windows", window)
        elif kind == b"statu":
            account = _account.decode(frame)
            before = self.accounts.get(account.bed)
            if before is None or before.epoch != account.epoch:
                self.closed[account.bed, account.epoch] = account.counts.get("closed", 0)
            self.accounts[account.bed] = account
        elif kind == b"alert":
            alert: Any = decode(frame)
            self.alerts.append(alert)
            if alert.phase == "start" and alert.kind == "physiological":
                self._alerted.append(alert.stamps)
        elif kind == b"wave.":
            waves: Any = decode(frame)
            self._waves(waves)
        elif kind == b"gatew":
            self.gateway = _account.decode(frame).counts

    def _in_order(self, kind: str, judgement: _Judgement) -> None:
        """Each bed's judgements come once, and in order; a shard that was killed tells again what it told since its
        last checkpoint, so what comes twice is counted and not held against it."""
        order, at = self._orders[judgement.bed], judgement.at.sample
        if order.epoch != judgement.epoch:
            order.epoch = judgement.epoch
            order.newest.clear()
            order.recent.clear()
        recent = order.recent[kind]
        if at in recent:
            self.order[f"{kind} told again"] += 1
            return
        if at < order.newest.get(kind, -1):
            self.order[f"{kind} out of order"] += 1
        order.newest[kind] = max(at, order.newest.get(kind, -1))
        recent.append(at)
        del recent[:-64]
        self.order[kind] += 1

    def _waves(self, waves: Waves) -> None:
        """Count what the counter of a watched bed says: each sample once, and the one that it is sent as."""
        row = next((i for i, signal in enumerate(waves.signals) if signal.kind == "counter"), None)
        if row is None:
            return
        told = waves.samples()[row]
        expected = np.arange(waves.first, waves.first + waves.n) % COUNTER_MODULO
        self.waves["samples"] += waves.n
        self.waves["misplaced"] += int(np.count_nonzero(told != expected))
        epoch, due = self._wave_next.get(waves.bed, (waves.epoch, waves.first))
        if epoch == waves.epoch:
            self.waves["told again"] += max(0, min(due, waves.first + waves.n) - waves.first)
            self.waves["not shown"] += max(0, waves.first - due)
        self._wave_next[waves.bed] = waves.epoch, max(due if epoch == waves.epoch else 0, waves.first + waves.n)


class Processes:
    """CPU (cores) and memory (MB) of processes since they were last asked of."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[psutil.Process, float]] = {}
        self._asked = time.monotonic()

    def sample(self, pids: dict[str, int]) -> tuple[dict[str, float], dict[str, float]]:
        """Name to cores used since the last call, and name to resident MB."""
        now = time.monotonic()
        length_s, self._asked = max(now - self._asked, 1e-3), now
        cores: dict[str, float] = {}
        rss: dict[str, float] = {}
        for name, pid in pids.items():
            try:
                process, before = self._known.get(pid) or (psutil.Process(pid), 0.0)
                times = process.cpu_times()
                spent = times.user + times.system
                rss[name] = process.memory_info().rss / 2**20
            except psutil.Error:
                continue
            cores[name] = (spent - before) / length_s if pid in self._known else 0.0
            self._known[pid] = process, spent
        return cores, rss


def _figures(ms: npt.NDArray[np.float64]) -> tuple[int, float, float, float, float]:
    if ms.size == 0:
        return 0, 0.0, 0.0, 0.0, 0.0
    p50, p99 = np.percentile(ms, [50, 99])
    return ms.size, float(p50), float(p99), float(ms.max()), float(ms.mean())
