"""The producer: plays recordings and simulated patients, any number of beds in one process, to their shards.

    serve([Bed("bed1", "sim:vf", "tcp://127.0.0.1:5601")], speed=4)

It simulates the monitors of a hospital: each packet goes out when its last sample would have been taken, by an absolute
schedule; packets that are due at the same time go out together. A replay faster than life waits for its shard's credit.
"""

import heapq
import secrets
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import ceil
from types import FrameType
from typing import Any

import structlog
import zmq

from model.datasets import DatasetError, find
from simulators.pacing import Pacer, speed_of
from simulators.replay import BedReplay, Feed, PatientFeed, RecordFeed
from simulators.source import Source, dealer
from simulators.ward import patient_of
from stream.wire import End, Truth, Waveform

SECOND = 1_000_000_000
_TOGETHER_S = 1e-6  # what is due within this goes out together
_LEAD_IN_S = 0.2  # before the first packet, for sockets to connect
_MAX_WAIT_S = 0.25  # in one poll: how soon a signal is seen
_CONFIRM_S = 20.0  # at the end: how long the shards may take to have all on disk
_STOPPED_CONFIRM_S = 0.3

OpenFeed = Callable[[], Feed]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Bed:
    """A bed to play. source: a SOURCE (record, folder, `mitdb/208`) or `sim:...`, see `patient_of`; the records of a
    folder are played one after another. connect: endpoint of its shard. leads: signals to send, None for all."""

    name: str
    source: str
    connect: str
    leads: tuple[str, ...] | None = None


def serve(
    beds: Sequence[Bed],
    *,
    name: str = "producer",
    speed: str | float = 1.0,
    loop: bool = False,
    start_s: float = 0.0,
    stop_s: float | None = None,
    packet_ms: float = 100.0,
    epoch: str | None = None,
    ready: Callable[[], None] | None = None,
    asked: Callable[[], bool] | None = None,
) -> int:
    """Play all beds to their end, or until SIGINT, SIGTERM or `asked`.

    speed: 0.25 to 100, or `max`. loop: start a recording again at its end, as a fresh epoch (simulated patients have no
    end). start_s: where in each recording to begin. stop_s: seconds of stream after which each epoch ends. epoch: what
    epoch ids begin with, fresh by default. ready: called once before the first packet. asked: whether to stop; without
    it, signals are handled here. Returns 0, or 1 where a recording could not be read to its end or its samples were
    not confirmed. Raises ValueError (DatasetError among them) for a bed, source or setting that cannot be used.
    """
    stop = _Signals() if asked is None else nullcontext(asked)
    producer = Producer(
        beds, name=name, speed=speed, loop=loop, start_s=start_s, stop_s=stop_s, packet_ms=packet_ms, epoch=epoch
    )
    with stop as stopping:
        return producer.run(stopping, ready)


class Producer:
    """What `serve` runs. mono_ns, clock_ns: the clocks, passed in for tests."""

    def __init__(
        self,
        beds: Sequence[Bed],
        *,
        name: str = "producer",
        speed: str | float = 1.0,
        loop: bool = False,
        start_s: float = 0.0,
        stop_s: float | None = None,
        packet_ms: float = 100.0,
        epoch: str | None = None,
        mono_ns: Callable[[], int] = time.monotonic_ns,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        _check(beds, start_s, stop_s)
        self.speed = speed_of(speed)
        self._mono_ns, self._clock_ns = mono_ns, clock_ns
        epoch = epoch or f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"
        self._plays = [
            _Play(
                bed,
                _feeds(bed, index),
                epoch,
                loop,
                {"packet_ms": packet_ms, "start_s": start_s, "stop_s": stop_s},
            )
            for index, bed in enumerate(beds)
        ]
        session = secrets.token_hex(8)
        # A shard knows speed 1 as live; a slower replay is live too, in that nothing waits for credit.
        told = 1.0 if 0 < self.speed < 1 else self.speed
        self._lanes: list[_Lane] = []
        for connect in dict.fromkeys(bed.connect for bed in beds):
            socket = dealer(f"{name}:{session}")
            source = Source(name, connect, speed=told, session=session, socket=socket)
            self._lanes.append(_Lane(source, socket, connect, [p for p in self._plays if p.bed.connect == connect]))
        self._poller = zmq.Poller()
        for lane in self._lanes:
            self._poller.register(lane.socket, zmq.POLLIN)

    def run(self, asked: Callable[[], bool], ready: Callable[[], None] | None = None) -> int:
        """See `serve`."""
        pacer = Pacer(self.speed, self._mono_ns() + round(_LEAD_IN_S * SECOND))
        log.info("producer_started", beds=len(self._plays), speed=self.speed or "max", simulated=True)
        if ready is not None:
            ready()
        while not asked() and any(lane.busy for lane in self._lanes):
            for lane in self._lanes:
                lane.turn(pacer, self._mono_ns, self._clock_ns)
            self._wait(pacer)
        stopped = asked()
        if stopped:
            for lane in self._lanes:
                lane.source.send([End(bed=p.bed.name, epoch=p.epoch, n_samples=p.sent) for p in lane.open()], 0.0)
        unconfirmed = self._confirm(_STOPPED_CONFIRM_S if stopped else _CONFIRM_S, asked if not stopped else None)
        self._summary(pacer, unconfirmed)
        for lane in self._lanes:
            lane.source.close()
        return 1 if any(play.failed for play in self._plays) or (unconfirmed and not stopped) else 0

    @property
    def samples(self) -> dict[str, int]:
        """Samples sent so far per bed, all epochs together."""
        return {play.bed.name: play.n_samples for play in self._plays}

    def _wait(self, pacer: Pacer) -> None:
        """Wait until something is due or comes in."""
        now = self._mono_ns()
        due = [pacer.wait_s(lane.due_s, now) if lane.clear else _MAX_WAIT_S for lane in self._lanes if lane.busy]
        wait_s = min([_MAX_WAIT_S, *due])
        self._poller.poll(ceil(wait_s * 1000))
        for lane in self._lanes:
            lane.source.poll(0.0)

    def _confirm(self, within_s: float, asked: Callable[[], bool] | None) -> int:
        """Wait until the shards have all on disk; returns packets of which that is not known."""
        deadline = self._mono_ns() + round(within_s * SECOND)
        while self._mono_ns() < deadline and not (asked is not None and asked()):
            if not any(lane.source.pending() for lane in self._lanes):
                return 0
            self._poller.poll(20)
            for lane in self._lanes:
                lane.source.poll(0.0)
        return sum(lane.source.pending() for lane in self._lanes)

    def _summary(self, pacer: Pacer, unconfirmed: int) -> None:
        late = pacer.lateness()
        counts = [count for lane in self._lanes for count in lane.source.counts().values()]
        refused = {cause: n for lane in self._lanes for cause, (n, _) in lane.source.refused.items()}
        log.info(
            "producer_summary",
            beds=len(self._plays),
            epochs=sum(play.n_epochs for play in self._plays),
            packets=sum(play.n_packets for play in self._plays),
            samples=sum(play.n_samples for play in self._plays),
            annotations=sum(play.n_notes for play in self._plays),
            resent_packets=sum(count["resent"] for count in counts),
            lost_samples=sum(count["lost"] for count in counts),
            unconfirmed_packets=unconfirmed,
            refused=refused,
            late_p99_ms=round(late.p99_s * 1000, 3),
            late_max_ms=round(late.max_s * 1000, 3),
            samples_by_bed=self.samples,
            simulated=True,
        )


class _Play:
    """A bed's feeds, one after another, each an epoch. A feed that cannot be read is left out from then on."""

    def __init__(self, bed: Bed, feeds: list[OpenFeed], epoch: str, loop: bool, cut: dict[str, Any]) -> None:
        self.bed, self.failed = bed, False
        self._epoch, self._loop, self._cut = epoch, loop, cut
        self.n_epochs = self.n_packets = self.n_samples = self.n_notes = 0
        self._offset_s = 0.0
        self._to_come = list(feeds)
        self._replay = self._opened()

    @property
    def epoch(self) -> str:
        """The epoch that it is in."""
        return self._replay.epoch

    @property
    def sent(self) -> int:
        """Samples of this epoch that have been sent."""
        return self._replay.sent

    @property
    def due_s(self) -> float:
        """When its next packet is due, in seconds of stream since the producer's start."""
        return self._offset_s + self._replay.due_s

    def next(self, device_ns: int, sent_ns: int) -> list[Waveform | Truth | End]:
        """Its next packets, and the end of the epoch with the last of them."""
        packets: list[Waveform | Truth | End] = []
        try:
            packets += self._replay.packets(device_ns, sent_ns)
        except DatasetError as error:
            self._unreadable(error)
            self._replay.n_samples = self.sent
            if self._loop:
                self._to_come.pop()
        for packet in packets:
            if isinstance(packet, Waveform):
                self.n_packets += 1
                self.n_samples += packet.n
            elif isinstance(packet, Truth):
                self.n_notes += len(packet.samples)
        if self._replay.over:
            packets.append(End(bed=self.bed.name, epoch=self.epoch, n_samples=self.sent))
        return packets

    def goes_on(self) -> bool:
        """Whether there is more to send; at the end of an epoch, the next is begun where there is one."""
        if not self._replay.over:
            return True
        ended_s = self.due_s
        while self._to_come:
            try:
                self._replay = self._opened()
            except ValueError as error:
                self._unreadable(error)
                continue
            self._offset_s = ended_s
            return True
        return False

    def _opened(self) -> BedReplay:
        """The next feed, at its start. With `loop`, it is put at the end of those to come."""
        feed = self._to_come.pop(0)
        replay = BedReplay(self.bed.name, feed(), **self._cut)
        replay.begin(f"{self._epoch}.{self.n_epochs}")
        self.n_epochs += 1
        if self._loop:
            self._to_come.append(feed)
        return replay

    def _unreadable(self, error: ValueError) -> None:
        log.error("recording_unreadable", bed=self.bed.name, source=self.bed.source, error=str(error))
        self.failed = True


class _Lane:
    """The beds of one shard, in the order in which they are due."""

    def __init__(self, source: Source, socket: "zmq.Socket[bytes]", connect: str, plays: list[_Play]) -> None:
        self.source, self.socket, self.clear = source, socket, True
        self._connect = connect
        self._heap = [(play.due_s, order, play) for order, play in enumerate(plays)]
        heapq.heapify(self._heap)
        self._blocked_ns: int | None = None

    @property
    def busy(self) -> bool:
        """Whether it has more to send."""
        return bool(self._heap) or not self.clear

    @property
    def due_s(self) -> float:
        """When its next packets are due; 0 where there are none to come."""
        return self._heap[0][0] if self._heap else 0.0

    def open(self) -> list[_Play]:
        """The beds that have not come to their end."""
        return [play for _, _, play in self._heap]

    def turn(self, pacer: Pacer, mono_ns: Callable[[], int], clock_ns: Callable[[], int]) -> None:
        """Send what is due at the next due time, if that has come and the last is out."""
        now = mono_ns()
        if not self.clear:
            self.clear = self.source.send((), 0.0)
            self._warn(now)
        if not self.clear or not self._heap or pacer.due_ns(self._heap[0][0]) > now:
            return
        due_s = self._heap[0][0]
        utc_ns = clock_ns()
        late_ns = now - pacer.due_ns(due_s) if pacer.speed else 0
        packets: list[Waveform | Truth | End] = []
        while self._heap and self._heap[0][0] <= due_s + _TOGETHER_S:
            _, order, play = self._heap[0]
            packets += play.next(utc_ns - late_ns, utc_ns)
            if play.goes_on():
                heapq.heapreplace(self._heap, (play.due_s, order, play))
            else:
                heapq.heappop(self._heap)
        self.clear = self.source.send(packets, 0.0)
        said = pacer.sent(due_s, mono_ns())
        if said is not None:
            level = log.warning if said == "behind" else log.info
            level(f"producer_{said}", late_ms=round(pacer.lateness().last_s * 1000, 1), simulated=True)

    def _warn(self, now_ns: int) -> None:
        """Every 5 s in which nothing could go out, say what is waited for."""
        if self.clear:
            self._blocked_ns = None
        elif self._blocked_ns is None:
            self._blocked_ns = now_ns
        elif now_ns - self._blocked_ns > 5 * SECOND:
            self._blocked_ns = now_ns
            log.warning("producer_waits", connect=self._connect, reason="the shard gives no credit, or is not there")


class _Signals(AbstractContextManager[Callable[[], bool]]):
    """While entered, SIGINT and SIGTERM ask to stop."""

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Callable[[], bool]:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._ask)
        return lambda: self._asked

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True


def _check(beds: Sequence[Bed], start_s: float, stop_s: float | None) -> None:
    if not beds:
        raise ValueError("beds: there are none; give one at least, such as --source sim:default")
    names = [bed.name for bed in beds]
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise ValueError(f"beds: {twice!r} is there twice; give each bed a name of its own")
    if start_s < 0:
        raise ValueError(f"start: {start_s:g} s; give 0 or more")
    if stop_s is not None and stop_s <= 0:
        raise ValueError(f"stop_s: {stop_s:g} s; give more than 0")


def _feeds(bed: Bed, index: int) -> list[OpenFeed]:
    """What a bed plays, opened once here so that what cannot be read is found before anything is sent."""
    if bed.source.startswith("sim:"):
        patient = patient_of(bed.source, bed.name, index)
        return [lambda: PatientFeed(patient, index)]
    paths = find(bed.source)
    RecordFeed(paths[0], bed.leads)
    return [lambda path=path: RecordFeed(path, bed.leads) for path in paths]  # type: ignore[misc]
