"""The producer: plays recordings and simulated patients, any number of beds in one process, to their shards.

    serve([Bed("bed1", "sim:vf", "tcp://127.0.0.1:5601")], speed=4)

It simulates the monitors of a hospital: each packet goes out when its last sample would have been taken, by an absolute
schedule; packets that are due at the same time go out together. A replay faster than life waits for its shard's credit.
"""

import heapq
import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path

import structlog
import zmq

from simulators.choir import FEWEST, Choir, Key, key_of
from simulators.control import OF_BEDS, OF_LINKS, Control, Fault, Finish, Question, Told
from simulators.faults import UnsteadyClock
from simulators.ledger import Ledger
from simulators.link import Link
from simulators.pacing import Pacer, speed_of
from simulators.plays import Bed, Play
from simulators.source import Source, dealer
from stream.log import mark_ready
from stream.process import Stop, settle_memory
from stream.wire import End, Truth, Waveform

SECOND = 1_000_000_000
_TOGETHER_S = 1e-6  # what is due within this goes out together
_FIRST_S = 1e-7  # a choir goes before the plays that are due with it, so that they can join it
_LEAD_IN_S = 0.2  # before the first packet, for sockets to connect
_MAX_WAIT_S = 0.25  # in one poll: how soon a signal is seen
_SLOT_S = 0.02  # of spread phases: beds of one slot send at the same time
_SPREAD_S = 10.0  # and their streams begin within so long, so that their windows do not end together either
_GOLDEN = 0.6180339887498949
_CONFIRM_S = 20.0  # at the end: how long the shards may take to have all on disk
_STOPPED_CONFIRM_S = 0.3

log = structlog.get_logger()


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
) -> int:
    """Play all beds to their end, or until SIGINT or SIGTERM.

    speed: 0.25 to 100, or `max`. loop: start a recording again at its end, as a fresh epoch (simulated patients have no
    end). start_s: where in each recording to begin. stop_s: seconds of stream after which each epoch ends. epoch: what
    epoch ids begin with, fresh by default. Returns 0, or 1 where a recording could not be read to its end or its
    samples were not confirmed. Raises ValueError (DatasetError among them) for a bed, source or setting that cannot be
    used.
    """
    producer = Producer(
        beds, name=name, speed=speed, loop=loop, start_s=start_s, stop_s=stop_s, packet_ms=packet_ms, epoch=epoch
    )
    with Stop() as stop:
        return producer.run(lambda: stop.asked)


class Producer:
    """What `serve` runs.

    spread: beds begin at different times, as monitors that know nothing of each other do, so that neither their packets
    nor their windows come together; else all at once. control: address of the control socket (`simulators.control`).
    ledger: where to keep what has been sent. mono_ns, clock_ns: the clocks, passed in for tests."""

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
        spread: bool = False,
        control: str | None = None,
        ledger: Path | None = None,
        mono_ns: Callable[[], int] = time.monotonic_ns,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        _check(beds, start_s, stop_s)
        self.speed = speed_of(speed)
        self._mono_ns, self._clock_ns = mono_ns, UnsteadyClock(clock_ns, mono_ns)
        self._finishing = False
        epoch = epoch or f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"
        cut = {"packet_ms": packet_ms, "start_s": start_s, "stop_s": stop_s}
        self._plays = [
            Play(bed, index, epoch, loop, cut, phase_s=_phase_s(index) if spread else 0.0)
            for index, bed in enumerate(beds)
        ]
        self._ledger = None if ledger is None else Ledger(ledger, [bed.name for bed in beds], epoch)
        session = secrets.token_hex(8)
        # A shard knows speed 1 as live; a slower replay is live too, in that nothing waits for credit.
        told = 1.0 if 0 < self.speed < 1 else self.speed
        self._lanes: list[_Lane] = []
        for number, connect in enumerate(dict.fromkeys(bed.connect for bed in beds)):
            link = Link(dealer(f"{name}:{session}"), 2 * number, mono_ns)
            source = Source(name, connect, speed=told, session=session, socket=link, clock_ns=self._clock_ns)  # type: ignore[arg-type]
            self._lanes.append(_Lane(source, link, connect, [p for p in self._plays if p.bed.connect == connect]))
        self._control = None if control is None else Control(control)
        self._poller = zmq.Poller()
        for lane in self._lanes:
            self._poller.register(lane.link.socket, zmq.POLLIN)
        if self._control is not None:
            self._poller.register(self._control.socket, zmq.POLLIN)

    def run(self, asked: Callable[[], bool]) -> int:
        """See `serve`; `asked` says whether to stop."""
        for play in self._plays:
            play.warm()  # the first look at a feed costs seconds, which must not make its first packets late
        settle_memory()
        mark_ready("producer", beds=len(self._plays), speed=self.speed or "max", simulated=True)
        pacer = self._pacer = Pacer(self.speed, self._mono_ns() + round(_LEAD_IN_S * SECOND))
        if self._ledger is not None:
            begins_ns = self._clock_ns() + pacer.start_ns - self._mono_ns()
            self._ledger.begin(begins_ns, [play.begun_s for play in self._plays])
        while not (asked() or self._finishing) and any(lane.busy for lane in self._lanes):
            for lane in self._lanes:
                lane.turn(pacer, self._mono_ns, self._clock_ns, self._ledger)
            self._wait(pacer)
        stopped = asked()
        if stopped or self._finishing:
            for lane in self._lanes:
                lane.source.send([End(bed=p.bed.name, epoch=p.epoch, n_samples=p.sent) for p in lane.open()], 0.0)
        unconfirmed = self._confirm(_STOPPED_CONFIRM_S if stopped else _CONFIRM_S, asked if not stopped else None)
        self._summary(pacer, unconfirmed)
        for lane in self._lanes:
            lane.source.close()
        for part in (self._control, self._ledger):
            if part is not None:
                part.close()
        return 1 if any(play.failed for play in self._plays) or (unconfirmed and not stopped) else 0

    @property
    def samples(self) -> dict[str, int]:
        """Samples sent so far per bed, all epochs together."""
        self._settle()
        return {play.bed.name: play.n_samples for play in self._plays}

    @property
    def _resent(self) -> int:
        return sum(lane.source.resent for lane in self._lanes)

    def _settle(self) -> None:
        for lane in self._lanes:
            lane.settle()

    def _wait(self, pacer: Pacer) -> None:
        """Wait until something is due or comes in."""
        now = self._mono_ns()
        due = [pacer.wait_s(lane.due_s, now) if lane.clear else _MAX_WAIT_S for lane in self._lanes if lane.busy]
        wait_s = min([_MAX_WAIT_S, *due])
        self._poll(ceil(wait_s * 1000))
        for lane in self._lanes:
            lane.tell_refused(now)

    def _poll(self, timeout_ms: int) -> None:
        """Wait for what comes in, and hear it."""
        self._poller.poll(timeout_ms)
        for lane in self._lanes:
            lane.source.poll(0.0)
        if self._control is not None:
            self._control.poll(self._do)

    def _do(self, question: Question) -> Told:
        """What the control socket asks. Raises ValueError for a fault that cannot be."""
        where: tuple[tuple[str, str, int, int], ...] = ()
        if isinstance(question, Fault):
            if question.kind in OF_BEDS:
                play = next((play for play in self._plays if play.bed.name == question.bed), None)
                if play is None:
                    raise ValueError(f"bed: {question.bed!r} is not one of this producer's {len(self._plays)}")
                for lane in self._lanes:
                    lane.alone(play)
                where = (play.lay(question),)
            elif question.kind in OF_LINKS:
                given = {question.kind: question.share, "jitter": question.ms / 1000}
                for lane in self._lanes:
                    lane.link.spoil(
                        question.for_s,
                        loss=given.get("loss", 0.0),
                        double=given.get("duplicate", 0.0),
                        reorder=given.get("reorder", 0.0),
                        jitter_s=given["jitter"],
                    )
            elif question.kind == "clock_step":
                self._clock_ns.step(question.ms)
            else:
                self._clock_ns.drift(question.ppm, question.for_s)
            log.warning("fault", **{name: getattr(question, name) for name in ("kind", "bed", "for_s")}, simulated=True)
        elif isinstance(question, Finish):
            self._finishing = True
        late, link = self._pacer.lateness(), Counter[str]()
        for lane in self._lanes:
            link.update(lane.link.counts)
        return Told(
            id=question.id,
            ok=True,
            where=where,
            sent=sum(play.n_samples for play in self._plays) + sum(lane.underway for lane in self._lanes),
            late_ms=(late.mean_s * 1000, late.p99_s * 1000, late.max_s * 1000),
            n_late=late.n,
            link=dict(link),
            resent=self._resent,
            clock_ms=self._clock_ns.offset_ns / 1e6,
        )

    def _confirm(self, within_s: float, asked: Callable[[], bool] | None) -> int:
        """Wait until the shards have all on disk; returns packets of which that is not known."""
        deadline = self._mono_ns() + round(within_s * SECOND)
        while self._mono_ns() < deadline and not (asked is not None and asked()):
            if not any(lane.source.pending() for lane in self._lanes):
                return 0
            self._poll(20)
        return sum(lane.source.pending() for lane in self._lanes)

    def _summary(self, pacer: Pacer, unconfirmed: int) -> None:
        self._settle()
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
            resent_packets=self._resent,
            lost_samples=sum(count["lost"] for count in counts),
            unconfirmed_packets=unconfirmed,
            refused=refused,
            late_p99_ms=round(late.p99_s * 1000, 3),
            late_max_ms=round(late.max_s * 1000, 3),
            samples_by_bed=self.samples,
            simulated=True,
        )


class _Lane:
    """The beds of one shard, in the order in which they are due."""

    def __init__(self, source: Source, link: Link, connect: str, plays: list[Play]) -> None:
        self.source, self.link, self.clear = source, link, True
        self._connect = connect
        self._heap: list[tuple[float, int, Play | Choir]] = [(p.due_s, order, p) for order, p in enumerate(plays)]
        heapq.heapify(self._heap)
        self._order = {play: order for _, order, play in self._heap}
        self._choirs: dict[Key, Choir] = {}
        self._together = source.speed == 1 and len(plays) >= FEWEST
        self._blocked_ns: int | None = None
        self._refused, self._told_ns = 0, -(1 << 62)

    @property
    def busy(self) -> bool:
        """Whether it has more to send."""
        return bool(self._heap) or not self.clear

    @property
    def due_s(self) -> float:
        """When its next packets are due; 0 where there are none to come."""
        return self._heap[0][0] if self._heap else 0.0

    @property
    def underway(self) -> int:
        """Samples that went and are not in the accounts of their plays yet."""
        return sum(choir.underway for choir in self._choirs.values())

    def open(self) -> list[Play]:
        """The beds that have not come to their end, each by itself from here on."""
        for choir in self._choirs.values():
            plays, truths = choir.disband()
            self._keep(truths)
            self._heap += [(play.due_s, self._order[play], play) for play in plays]
        self._choirs.clear()
        self._heap = [entry for entry in self._heap if isinstance(entry[2], Play)]
        heapq.heapify(self._heap)
        return [play for _, _, play in self._heap if isinstance(play, Play)]

    def alone(self, play: Play) -> None:
        """A play sends its next packets by itself."""
        for choir in self._choirs.values():
            if play in choir.plays:
                self._keep(choir.leave(play))
                heapq.heappush(self._heap, (play.due_s, self._order[play], play))

    def settle(self) -> None:
        """Bring the accounts of plays up to date."""
        for choir in self._choirs.values():
            self._keep(choir.settle())

    def _keep(self, truths: list[Truth]) -> None:
        if truths:
            self.clear &= self.source.send(truths, 0.0)

    def turn(
        self, pacer: Pacer, mono_ns: Callable[[], int], clock_ns: Callable[[], int], ledger: Ledger | None
    ) -> None:
        """Send what is due at the next due time, if that has come and the last is out; the ledger knows it first."""
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
        sung: list[Choir] = []
        while self._heap and self._heap[0][0] <= due_s + _TOGETHER_S:
            _, order, item = self._heap[0]
            if isinstance(item, Choir):
                if self._sing(item, order, utc_ns - late_ns, utc_ns, ledger):
                    sung.append(item)
                continue
            packets += item.next(utc_ns - late_ns, utc_ns)
            if ledger is not None:
                ledger.write(item.index, item.n_epochs, item.sent, item.n_samples)
            if not item.goes_on() or (self._together and self._joined(item)):
                heapq.heappop(self._heap)
            else:
                heapq.heapreplace(self._heap, (item.due_s, order, item))
        self.clear = self.source.send(packets, 0.0)
        said = pacer.sent(due_s, mono_ns())
        if said is not None:
            level = log.warning if said == "behind" else log.info
            level(f"producer_{said}", late_ms=round(pacer.lateness().last_s * 1000, 1), simulated=True)
        for choir in sung:  # all is out: time for what comes next
            gone, truths = choir.turn()
            self._keep(truths)
            for play in gone:
                heapq.heappush(self._heap, (play.due_s, self._order[play], play))

    def _sing(self, choir: Choir, order: int, device_ns: int, sent_ns: int, ledger: Ledger | None) -> bool:
        """Send a packet of each of a choir's plays; False where there are none, and it is over."""
        if not choir.plays:
            heapq.heappop(self._heap)
            del self._choirs[choir.key]
            return False
        tick = choir.tick(ledger)
        self.source.send_together(tick.handles, tick.seq, tick.first, tick.data, device_ns, sent_ns)
        heapq.heapreplace(self._heap, (choir.due_s - _FIRST_S, order, choir))
        return True

    def _joined(self, play: Play) -> bool:
        """Whether a play sings with others from its next packet on."""
        handle, key = self.source.handle(play.bed.name, play.epoch), key_of(play)
        if not handle or key is None:
            return False
        choir = self._choirs.get(key)
        if choir is None or not choir.plays:
            choir = choir or Choir(key, play.due_s)
            choir.due_s = play.due_s
        if abs(choir.due_s - play.due_s) > _TOGETHER_S or not choir.join(play, handle):
            return False
        if key not in self._choirs:
            self._choirs[key] = choir
            heapq.heappush(self._heap, (choir.due_s - _FIRST_S, -1 - len(self._choirs), choir))
        return True

    def tell_refused(self, now_ns: int) -> None:
        """Log what the shard refused, once in 5 s."""
        refused = sum(n for n, _ in self.source.refused.values())
        if refused > self._refused and now_ns - self._told_ns > 5 * SECOND:
            self._refused, self._told_ns = refused, now_ns
            for cause, (n, text) in self.source.refused.items():
                log.warning("producer_refused", connect=self._connect, cause=cause, n=n, text=text)

    def _warn(self, now_ns: int) -> None:
        """Every 5 s in which nothing could go out, say what is waited for."""
        if self.clear:
            self._blocked_ns = None
        elif self._blocked_ns is None:
            self._blocked_ns = now_ns
        elif now_ns - self._blocked_ns > 5 * SECOND:
            self._blocked_ns = now_ns
            log.warning("producer_waits", connect=self._connect, reason="the shard gives no credit, or is not there")


def _phase_s(index: int) -> float:
    """When a bed begins, evenly spread however many there are."""
    return round(index * _GOLDEN % 1.0 * _SPREAD_S / _SLOT_S) * _SLOT_S


def _check(beds: Sequence[Bed], start_s: float, stop_s: float | None) -> None:
    if not beds:
        raise ValueError("beds: there are none; give one at least, such as --source sim:default")
    names = [bed.name for bed in beds]
    bad = next((name for name in names if not (0 < len(name) <= 64 and name.isprintable())), None)
    if bad is not None:
        raise ValueError(f"beds: the name {bad!r}; give 1 to 64 printable characters")
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise ValueError(f"beds: {twice!r} is there twice; give each bed a name of its own")
    if start_s < 0:
        raise ValueError(f"start: {start_s:g} s; give 0 or more")
    if stop_s is not None and stop_s <= 0:
        raise ValueError(f"stop_s: {stop_s:g} s; give more than 0")
