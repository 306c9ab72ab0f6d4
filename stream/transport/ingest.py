"""The door of a shard: what sources send becomes ordered events per bed, with an account of all of it.

An `Ingest` has no socket and reads no clock. The shard's loop hands it what its ROUTER received
(`receive`), sends what it wants sent (`replies`), and takes what is in order (`take`):

    ingest = Ingest(capacity=64)
    ingest.receive(identity, frames, now_ns, mono_ns)
    for event in ingest.take(): ...
    for identity, message in ingest.replies(now_ns, mono_ns): ...

`stream/transport/sequence.py` keeps the order of each bed; here are the sources: who they are, how much they
may send, what they may forget, what their clocks say. docs/wire.md tells it from the source's side.
"""

import uuid
from collections.abc import Callable, Container, Iterable
from typing import Any

import numpy as np

from stream.transport.arrivals import Block, Stream
from stream.transport.clocks import SourceClock, age_ns, exchange
from stream.transport.lanes import Lanes
from stream.transport.peers import ACK_EVERY_NS, GONE_NS, PROBE_EVERY_NS, SECOND, BedAccount, Peer
from stream.transport.sequence import Chunk, Ended, Event, Gap, NewEpoch, Sequence, TruthSeen
from stream.wire import (
    Ack,
    AnyMessage,
    End,
    Hello,
    Lost,
    Packets,
    Probe,
    ProbeReply,
    Refused,
    Resend,
    Truth,
    Waveform,
    WireError,
    decode,
)

__all__ = ["BedAccount", "Block", "Chunk", "Ended", "Event", "Gap", "Ingest", "NewEpoch", "TruthSeen"]

REORDER_NS = SECOND // 20  # a packet may be overtaken for this long before it is asked for
SILENT_NS = 5 * SECOND  # a source that says no Hello for this long loses its claim on its beds
STEP_SHOWN_NS = 10 * SECOND
PATIENCE = 15  # times the gap timeout: how long a hole may wait while its source answers for other beds
PACKETS_PER_BED = 64
ANY_EPOCH = "?"  # asks for a bed of which nothing is known: no epoch is called so, and all that is not durable comes
VACANT_NS = 600 * SECOND  # a bed that is over may give up its place so long after it was last heard
MAX_SOURCES = 1024
MAX_PROBES = 16
TRUTH_BYTES = 256  # about what an annotation takes in memory


class Ingest:
    """All sources and beds of one shard.

    `capacity`: beds at most. `gap_timeout_s`: wall time after which a hole that nobody fills is
    declared a gap. `queue_packets`: packets that may wait to be taken, all sources together, and
    `queue_bytes` of samples; credit is given so that there are no more, and what comes all the same is
    dropped at twice as many and asked for again.
    """

    def __init__(
        self,
        *,
        capacity: int = 64,
        gap_timeout_s: float = 2.0,
        queue_packets: int = 8192,
        queue_bytes: int = 128 << 20,
        session: str | None = None,
    ) -> None:
        if capacity < 1 or queue_packets < PACKETS_PER_BED:
            raise ValueError(f"capacity {capacity}, queue_packets {queue_packets}: at least 1 and {PACKETS_PER_BED}")
        self.session = session or uuid.uuid4().hex
        self.refused: dict[str, int] = {}
        self._capacity = capacity
        self._gap_timeout_ns = round(gap_timeout_s * SECOND)
        self._queue_packets, self._queue_bytes = queue_packets, queue_bytes
        self._sources: dict[bytes, Peer] = {}
        self._n_sessions = 0
        self._beds: dict[str, Sequence] = {}
        self._owner: dict[str, Peer] = {}
        self._durable: dict[str, tuple[str, int]] = {}
        self._lanes = Lanes(capacity)
        self._blocks: list[tuple[Block, np.typing.NDArray[np.int64]]] = []  # with the rows of their beds
        self._ready: dict[str, Sequence] = {}
        self._waiting: dict[str, Sequence] = {}
        self._n_queued = self._n_bytes = 0
        self._outbox: list[tuple[bytes, AnyMessage]] = []
        self._told: dict[tuple[bytes, str], int] = {}
        self._next_probe = 0
        self._handlers: dict[type, Callable[[Peer, Any, int, int], str | None]] = {
            Waveform: self._wave,
            Packets: self._packets,
            Truth: self._truth,
            Lost: self._lost,
            End: self._end,
            ProbeReply: self._probe_reply,
        }

    def receive(self, identity: bytes, frames: Iterable[bytes | memoryview], now_ns: int, mono_ns: int) -> None:
        """Take in one message of the ROUTER: its frames without the identity. `now_ns`: UTC.
        Never raises for what a source sent: a bad frame is counted, answered and left."""
        source = self._sources.get(identity)
        for frame in frames:
            try:
                message = decode(frame)
            except WireError as error:
                self._refuse(identity, error.cause, str(error), mono_ns)
                continue
            kind = type(message)
            if kind is Hello:
                source = self._hello(identity, message, mono_ns)  # type: ignore[arg-type]
            elif (handler := self._handlers.get(kind)) is None:
                self._refuse(identity, "unexpected", f"t: a source does not send {kind.__name__}", mono_ns)
            elif source is None:
                self._refuse(identity, "hello", "no hello of this source yet; send one, then the rest again", mono_ns)
            elif (text := handler(source, message, now_ns, mono_ns)) is not None:
                cause, _, text = text.partition("|")
                self._refuse(identity, cause, text, mono_ns)

    def take(self, hold: Container[str] = ()) -> list[Event]:
        """Everything that is in order and was not taken yet; the events of a bed are in sequence. Beds in `hold` are
        left for later, and so is what follows the end of an epoch: their sources have the less credit."""
        events: list[Event] = [block for block in self._let_pass(hold) if block.beds]
        left: dict[str, Sequence] = {}
        for name, bed in self._ready.items():
            self._lanes.settle(bed)
            if name not in hold:
                bed.take(events)
            if bed.pending:
                left[name] = bed
            else:
                self._lanes.reopen(bed)
        self._ready = left
        self._n_queued = self._n_bytes = 0
        for source in self._sources.values():
            source.queued = 0
        for name, bed in left.items():
            self._n_queued += bed.pending
            self._n_bytes += bed.pending_bytes
            if name in self._owner:
                self._owner[name].queued += bed.pending
        return events

    def _let_pass(self, hold: Container[str]) -> list[Block]:
        """The blocks that came, without the beds in `hold`: theirs goes to their sequences, to wait there."""
        taken: list[Block] = []
        for block, rows in self._blocks:
            kept = np.array([name not in hold for name in block.beds]) if hold else np.ones(len(rows), np.bool_)
            for i in np.flatnonzero(~kept).tolist():
                bed = self._beds[block.beds[i]]
                self._lanes.close(bed)
                bed.put_back(block.packet(i), block.received_ns)
                self._look_at(bed)
            self._lanes.taken(rows[kept], block.samples.shape[2])
            taken.append(block.part(kept))
        self._blocks = []
        return taken

    def replies(self, now_ns: int, mono_ns: int) -> list[tuple[bytes, AnyMessage]]:
        """What is to be sent now, and to whom. Call it at least every 50 ms: it also keeps the timers."""
        for source in tuple(self._sources.values()):
            if mono_ns - source.heard > GONE_NS:
                self._forget_source(source)
                continue
            if mono_ns - source.probed >= PROBE_EVERY_NS and mono_ns - source.heard < SILENT_NS:
                self._probe(source, now_ns, mono_ns)
            self._ack(source, mono_ns)
        for bed in tuple(self._waiting.values()):
            self._chase(bed, mono_ns)
        out, self._outbox = self._outbox, []
        return out

    def durable(self, bed: str, epoch: str, sample: int) -> None:
        """The shard's checkpoint on disk holds `bed` up to `sample`: its source may forget what is
        before. The last sample is kept until the epoch has ended, so that a source whose last packets or
        end are lost goes on offering them."""
        sequence, source = self._bed(bed), self._owner.get(bed)
        if sequence is None:
            return
        taken = sequence.taken
        if not (taken.ended and taken.epoch == epoch and sample >= taken.position):
            sample = max(0, sample - 1)
        self._durable[bed] = (epoch, sample)
        if source is not None:
            source.durable[bed] = (epoch, sample)
            source.ack_wanted = True

    def positions(self, beds: Iterable[str] | None = None) -> list[tuple[str, str, int]]:
        """(bed, epoch, sample) up to which events were taken: what `state` holds, to be told `durable` then."""
        return [(bed.bed, bed.taken.epoch, bed.taken.position) for bed in self._settled(beds)]

    def state(self, beds: Iterable[str] | None = None) -> dict[str, Any]:
        """What a checkpoint needs: per bed, of these or of all, the sample up to which events were taken, and the
        account. Of builtin types; take it when all that was taken is worked in."""
        return {"beds": [bed.state() for bed in self._settled(beds)]}

    def _settled(self, beds: Iterable[str] | None) -> list[Sequence]:
        chosen = self._beds.values() if beds is None else [self._beds[bed] for bed in beds if bed in self._beds]
        for bed in chosen:
            self._lanes.settle(bed)
        return [bed for bed in chosen if bed.taken.epoch]

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state()` of a shard before: each bed at its position. No `NewEpoch` comes for an epoch that
        goes on."""
        for entry in state["beds"]:
            self.forget(entry["bed"])
            bed = self._beds[entry["bed"]] = Sequence.restored(entry)
            self._lanes.enter(bed)
            self.durable(entry["bed"], entry["epoch"], entry["next"])

    def forget(self, bed: str) -> None:
        """Free the place of a bed, for another. It may come back later, as if new."""
        sequence = self._beds.get(bed)
        if sequence is not None:
            self._lanes.leave(sequence)
        for table in (self._beds, self._ready, self._waiting, self._durable):
            table.pop(bed, None)
        owner = self._owner.pop(bed, None)
        if owner is not None:
            owner.n_beds -= 1
            owner.durable.pop(bed, None)

    def vacant(self, mono_ns: int) -> list[str]:
        """Beds that may give up their place, to be `forget`ed once the shard has freed its own: all of
        them is taken, their source is gone, and nothing was heard of them for 10 minutes."""
        return [
            name
            for name, bed in self._beds.items()
            if ((bed.ended and bed.taken.ended) or not bed.epoch)
            and name not in self._owner
            and bed.silence(mono_ns) > VACANT_NS
        ]

    def beds(self) -> list[str]:
        """The beds that are known."""
        return list(self._beds)

    def steady(self, now_ns: int, mono_ns: int, silent_s: float, age_ms: float) -> list[str]:
        """Beds of which nothing can be said but that their packets come in time, of a source whose clock is steady."""
        steady = [source for source in self._sources.values() if not _stepped(source.clock, mono_ns)]
        return self._lanes.steady(steady, now_ns, mono_ns, round(silent_s * SECOND), round(age_ms * 1e6))

    def account(self, bed: str, now_ns: int, mono_ns: int) -> BedAccount:
        """Where a bed stands. Raises KeyError for a bed that is not known."""
        sequence = self._beds[bed]
        self._lanes.settle(sequence)
        taken = sequence.taken
        owner = self._owner.get(bed)
        clock = owner.clock if owner is not None else SourceClock()
        offset = clock.offset_ns(mono_ns)
        return BedAccount(
            bed=bed,
            epoch=taken.epoch or sequence.epoch,
            source=sequence.source,
            position=taken.position,
            rate=sequence.rate,
            ended=taken.ended,
            counts=sequence.counts(),
            age_ms=age_ns(now_ns, sequence.device_ns, offset) / 1e6 if sequence.device_ns else 0.0,
            silent_s=sequence.silence(mono_ns) / SECOND,
            clock_offset_ms=offset / 1e6,
            clock_uncertainty_ms=clock.uncertainty_ns / 1e6,
            clock_drift_ppm=clock.drift_ppm,
            clock_stepped=_stepped(clock, mono_ns),
            waiting=sequence.since is not None,
        )

    def _wave(self, source: Peer, packet: Waveform, now_ns: int, mono_ns: int) -> str | None:
        source.received += 1
        source.seen += 1
        name = packet.bed
        bed = self._beds.get(name)
        if bed is None:
            if len(self._beds) >= self._capacity:
                return f"capacity|bed: {name} is one more than the {self._capacity} of this shard; send it to another"
            bed = self._beds[name] = Sequence(name)
            self._lanes.enter(bed)
        self._lanes.close(bed)
        if self._owner.get(name) is not source:
            if not self._claim(bed, source, mono_ns):
                bed.n_received += 1
                bed.n_refused += 1
                return f"claimed|bed: {name} is sent by source {bed.source} already; give each bed one source"
            if packet.epoch == bed.epoch:
                bed.adopt(source.name, source.session, source.speed)
        if self._overrun():  # more than credit allows, as after a restart: it is asked for again when there is room
            bed.n_received += 1
            bed.n_dropped += 1
            return None
        if packet.epoch != bed.epoch:
            if bed.session not in ("", source.session) and not bed.ended:
                bed.close("source restarted", mono_ns)
            bed.adopt(source.name, source.session, source.speed)
        position, asked, pending = bed.next, bed.n_asked, bed.pending
        text = bed.wave(packet, now_ns, mono_ns)
        self._look_at(bed)
        queued = bed.pending - pending  # what is held waits for its source and not for the shard
        if queued:
            source.queued += queued
            self._n_queued += queued
            self._n_bytes += packet.data.nbytes
        if asked and bed.next > position:
            source.caught_up = mono_ns
        if text is None and packet.handle:
            self._lanes.declare(bed, source, packet.handle, Stream(packet.epoch, packet.signals, packet.rate))
        return None if text is None else "changed|" + text

    def _packets(self, source: Peer, packets: Packets, now_ns: int, mono_ns: int) -> str | None:
        """Packets of many beds: what is the next of its bed passes at once, the others one by one."""
        handles, first, samples = packets.column("handles"), packets.column("first"), packets.samples()
        rows, passing = self._lanes.passing(source, handles, first, packets.n_signals)
        if self._overrun():
            passing[:] = False
        seq, off, device_ns = packets.column("seq"), packets.column("off"), packets.column("device_ns")
        streams, names = self._lanes.streams, self._lanes.names
        at = rows.tolist()
        whole = Block(
            [names[row] for row in at], first, samples, off, device_ns, now_ns, packets.sent_ns,
            [streams[row] for row in at],
        )  # fmt: skip
        if passing.any():
            block = whole.part(passing)
            n = len(block.beds)
            self._lanes.passed(rows[passing], packets.n, seq[passing], block.device_ns, mono_ns)
            self._blocks.append((block, rows[passing]))
            source.received += n
            source.seen += n
            source.queued += n
            self._n_queued += n
            self._n_bytes += block.samples.nbytes
        text, unknown = None, 0
        for i in np.flatnonzero(~passing).tolist():
            if at[i] < 0:
                unknown += 1
                continue
            if len(streams[at[i]].signals) != packets.n_signals:
                bed = self._beds[names[at[i]]]
                bed.n_received += 1
                bed.n_refused += 1
                source.received += 1
                source.seen += 1
                text = f"changed|n_signals: {packets.n_signals}, but {bed.bed} has {len(streams[at[i]].signals)}"
                continue
            text = self._wave(source, whole.packet(i, int(seq[i])), now_ns, mono_ns) or text
        if unknown:
            source.received += unknown
            source.seen += unknown
            return f"handle|handles: {unknown} of {len(at)} not known here; send those beds' next packets as `wave`"
        return text

    def _truth(self, source: Peer, message: Truth, now_ns: int, mono_ns: int) -> str | None:
        bed = self._own(source, message.bed, close=False)  # it stands beside the samples, and holds none of them up
        if bed is None:
            return None
        if self._overrun():
            bed.n_truth_dropped += len(message.samples)
            return None
        text = bed.truth(message)
        self._look_at(bed)
        self._n_queued += 1
        self._n_bytes += TRUTH_BYTES * len(message.samples)
        return None if text is None else "field|" + text

    def _lost(self, source: Peer, message: Lost, now_ns: int, mono_ns: int) -> str | None:
        bed = self._own(source, message.bed)
        if bed is None:
            return None
        position, asked = bed.next, bed.n_asked
        text = bed.lost(message, mono_ns)
        self._look_at(bed)
        if asked and bed.next > position:
            source.caught_up = mono_ns
        return None if text is None else "field|" + text

    def _end(self, source: Peer, message: End, now_ns: int, mono_ns: int) -> str | None:
        bed = self._own(source, message.bed)
        if bed is None:
            return None
        if bed.ended and bed.bed in self._durable:  # it asks because it has not heard that it may forget
            source.durable[bed.bed] = self._durable[bed.bed]
            source.ack_wanted = True
        text = bed.end(message, mono_ns)
        self._look_at(bed)
        return None if text is None else "field|" + text

    def _probe_reply(self, source: Peer, message: ProbeReply, now_ns: int, mono_ns: int) -> str | None:
        probe = source.probes.pop(message.id, None)
        if probe is not None:
            source.clock.observe(exchange(*probe, message.received_ns, message.sent_ns, mono_ns))
        return None

    def _hello(self, identity: bytes, hello: Hello, mono_ns: int) -> Peer | None:
        source = self._sources.get(identity)
        if source is None or source.session != hello.session:
            who = (hello.source, hello.session)
            known = next((s for s in self._sources.values() if (s.name, s.session) == who), None)
            if known is not None:  # it has reconnected under another identity
                del self._sources[known.identity]
                source = known
                source.identity = identity
            elif len(self._sources) >= MAX_SOURCES:
                self._refuse(identity, "capacity", f"source: {hello.source} is one more than {MAX_SOURCES}", mono_ns)
                return None
            else:
                if source is not None:
                    self._forget_source(source)
                self._n_sessions += 1
                source = Peer(identity, hello, self._n_sessions)
            self._sources[identity] = source
            self._ask_again(source, mono_ns)
        source.heard = mono_ns
        source.speed = hello.speed
        # Hello travels in line with the packets: those that it counts came, or never will.
        source.seen = hello.sent
        source.ack_wanted = True
        return source

    def _ask_again(self, source: Peer, mono_ns: int) -> None:
        """A source is here, again: tell it what is durable, and ask for the rest of its beds."""
        for bed in self._beds.values():
            if (bed.source, bed.session) != (source.name, source.session):
                continue
            self._lanes.close(bed)
            if bed.bed in self._durable:
                source.durable[bed.bed] = self._durable[bed.bed]
            if not bed.ended and bed.bed not in self._owner and self._claim(bed, source, mono_ns):
                bed.expect(mono_ns)
                self._waiting[bed.bed] = bed

    def _overrun(self) -> bool:
        return self._n_queued >= 2 * self._queue_packets or self._n_bytes >= 2 * self._queue_bytes

    def _bed(self, name: str) -> Sequence | None:
        """The sequence of a bed, up to date."""
        bed = self._beds.get(name)
        if bed is not None:
            self._lanes.settle(bed)
        return bed

    def _own(self, source: Peer, name: str, close: bool = True) -> Sequence | None:
        """The sequence of a bed of this source, for something else than its next packet."""
        bed = self._beds.get(name) if self._owner.get(name) is source else None
        if bed is not None:
            (self._lanes.close if close else self._lanes.settle)(bed)
        return bed

    def _claim(self, bed: Sequence, source: Peer, mono_ns: int) -> bool:
        owner = self._owner.get(bed.bed)
        if owner is not None:
            restarted = owner.name == source.name and owner.number < source.number
            if not restarted and mono_ns - owner.heard < SILENT_NS:
                return False
            owner.n_beds -= 1
            owner.durable.pop(bed.bed, None)
        self._owner[bed.bed] = source
        source.n_beds += 1
        return True

    def _look_at(self, bed: Sequence) -> None:
        if bed.pending:
            self._ready[bed.bed] = bed
        else:
            self._lanes.reopen(bed)
        if bed.since is not None:
            self._waiting[bed.bed] = bed

    def _chase(self, bed: Sequence, mono_ns: int) -> None:
        """A hole: ask for it, wait, and in the end declare it."""
        owner = self._owner.get(bed.bed)
        if bed.since is None or owner is None:
            del self._waiting[bed.bed]
            return
        since = bed.since
        if owner.throttled:
            bed.since = bed.opened = since = mono_ns  # it may not send, so it is not late
        if mono_ns - bed.opened < PATIENCE * self._gap_timeout_ns:
            since = max(since, owner.caught_up)
        if mono_ns - since >= self._gap_timeout_ns:
            bed.expire(mono_ns)
            self._look_at(bed)
        elif bed.ask_due(mono_ns, REORDER_NS):
            resend = Resend(bed=bed.bed, epoch=bed.epoch or ANY_EPOCH, first=bed.next)
            self._outbox.append((owner.identity, resend))

    def _ack(self, source: Peer, mono_ns: int) -> None:
        share = max(PACKETS_PER_BED, self._queue_packets // len(self._sources))
        window = min(PACKETS_PER_BED * max(1, source.n_beds), share)
        room = window - source.queued if self._n_bytes < self._queue_bytes else 0
        credit = source.seen + max(0, room)
        gained = abs(credit - source.credit)
        if not (source.ack_wanted or gained * 4 >= window or (gained and mono_ns - source.acked >= ACK_EVERY_NS)):
            return
        durable = tuple((bed, epoch, sample) for bed, (epoch, sample) in source.durable.items())
        source.durable.clear()
        source.ack_wanted = False
        source.credit, source.acked = credit, mono_ns
        ack = Ack(session=source.session, shard=self.session, credit=credit, received=source.received, durable=durable)
        self._outbox.append((source.identity, ack))

    def _probe(self, source: Peer, now_ns: int, mono_ns: int) -> None:
        source.probed = mono_ns
        self._next_probe += 1
        if len(source.probes) >= MAX_PROBES:
            del source.probes[min(source.probes)]
        source.probes[self._next_probe] = (now_ns, mono_ns)
        self._outbox.append((source.identity, Probe(id=self._next_probe, sent_ns=now_ns)))

    def _refuse(self, identity: bytes, cause: str, text: str, mono_ns: int) -> None:
        self.refused[cause] = self.refused.get(cause, 0) + 1
        key = (identity, cause)
        if mono_ns - self._told.get(key, -SECOND) >= SECOND:
            if len(self._told) >= MAX_SOURCES:
                self._told.clear()
            self._told[key] = mono_ns
            self._outbox.append((identity, Refused(cause=cause, text=text[:1000])))

    def _forget_source(self, source: Peer) -> None:
        del self._sources[source.identity]
        for name in [name for name, owner in self._owner.items() if owner is source]:
            del self._owner[name]


def _stepped(clock: SourceClock, mono_ns: int) -> bool:
    return clock.n_steps > 0 and mono_ns - clock.stepped_mono_ns < STEP_SHOWN_NS
