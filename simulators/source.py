"""The sending end of the wire: a source that keeps what its shard has not made safe yet.

    source = Source("ward-3", "tcp://127.0.0.1:5601")
    source.send(packets)      # as they fall due
    source.poll(0.01)         # in between: credit, resends, probes, hellos
    source.close(linger_s=2)

All packets of a bed stand in one list, oldest first, and go out through one cursor, so they leave in
order. Asked to resend, or told that the shard has restarted, a source moves the cursor back; what
the shard has on disk, and is more than `retain_s` old, leaves the list at its front. docs/wire.md
tells the protocol; not for use from several threads.
"""

import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import zmq

from simulators.frames import Frames, Ints
from simulators.retention import OVERHEAD_BYTES, Entry, Retention
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
    encode,
)

SECOND = 1_000_000_000
HELLO_EVERY_NS = SECOND
MAX_TAIL_NS = 30 * SECOND
MAX_FRAMES = 256  # in one ZeroMQ message
MAX_TURN = 16  # packets of one bed before the next bed has its turn


class Source:
    """A source of any number of beds, connected to one shard.

    `connect`: the shard's endpoint. `speed`: 1 for live, else a replay (`Hello`). `retain_s`: signal of
    each bed that is kept even when it is durable. `retain_bytes`: memory for all that is kept; a
    replay waits when it is full, a live source gives up its oldest. `live_age_s`: what a live source
    could not send for this long it gives up, and says so to the shard (`Lost`).
    """

    def __init__(
        self,
        name: str,
        connect: str,
        *,
        speed: float = 1.0,
        session: str | None = None,
        socket: "zmq.Socket[bytes] | None" = None,
        clock_ns: Callable[[], int] = time.time_ns,
        mono_ns: Callable[[], int] = time.monotonic_ns,
        retain_s: float = 60.0,
        retain_bytes: int = 512 << 20,
        live_age_s: float = 60.0,
    ) -> None:
        self.name = name
        self.session = session or uuid.uuid4().hex
        self.speed = speed
        self.refused: dict[str, tuple[int, str]] = {}
        self._clock_ns, self._mono_ns = clock_ns, mono_ns
        self._retain_s, self._retain_bytes = retain_s, retain_bytes
        self._live_age_ns = round(live_age_s * SECOND)
        self._beds: dict[str, Retention] = {}
        self._behind: dict[str, Retention] = {}
        self._epochs: dict[str, tuple[str, int]] = {}  # of each bed the newest epoch, and its number
        self._frames = Frames(retain_s, retain_bytes)
        self._control: list[bytes] = []
        self._sent = 0
        self._credit = 0
        self._shard = ""
        self._away = True
        self._hello_ns = -HELLO_EVERY_NS
        self._kept_ns = mono_ns()
        self._socket = socket if socket is not None else dealer(f"{name}:{self.session}")
        self._socket.connect(connect)
        self._pump()

    def send(self, packets: Iterable[Waveform | Truth | End], timeout_s: float | None = None) -> bool:
        """Take packets over, in order per bed, and send what may be sent.

        A live source returns at once: what cannot go out now goes later, by `poll` or `send`. A replay
        waits until all is out and there is room to keep more, for `timeout_s` at most (None: for
        ever). Returns whether all is out; where not, it is kept all the same: wait on with `send(())`.
        Raises WireError for a packet over the limits of the wire, before any is taken over.
        """
        now, mono = self._clock_ns(), self._mono_ns()
        taken = [(packet, encode(self._stamped(packet, now))) for packet in packets]
        for packet, frame in taken:
            self._put(packet, frame, mono)
        self._pump()
        if self.speed == 1:
            return not self._behind
        deadline = None if timeout_s is None else mono + round(timeout_s * SECOND)
        while self._behind or self._full():
            left = SECOND if deadline is None else deadline - self._mono_ns()
            if left <= 0:
                return False
            self.poll(min(0.02, left / SECOND))
        return True

    def handle(self, bed: str, epoch: str) -> int:
        """The number under which `send_together` knows the epoch of a bed; 0 before its first packet was sent."""
        return self._frames.handle(bed, epoch)

    def send_together(
        self, handles: Ints, seq: Ints, first: Ints, data: npt.NDArray[np.int16], device_ns: int, sent_ns: int
    ) -> None:
        """Send the next packet of many beds of a live source, of one length: `handles` (k,) rising, `seq` and `first`
        (k,), data (k, signals, n). It is as if each were sent by `send`, at less cost."""
        mono = self._mono_ns()
        ready = self._frames.told(handles) if self._may_send(len(handles)) else np.zeros(len(handles), np.bool_)
        for name in self._behind:
            ready &= ~np.isin(handles, self._frames.handles_of(name))
        packets = Packets(
            n=data.shape[2],
            n_signals=data.shape[1],
            handles=_column(handles[ready], "<i4"),
            seq=_column(seq[ready], "<i8"),
            first=_column(first[ready], "<i8"),
            device_ns=_column(np.full(int(ready.sum()), device_ns), "<i8"),
            data=_column(data[ready], "<i2"),
            sent_ns=sent_ns,
        )
        if ready.any() and self._out([encode(packets)]):
            self._sent += int(ready.sum())
            self._frames.keep(packets, mono)
        else:
            ready[:] = False
        for i in np.flatnonzero(~ready).tolist():
            whole = self._frames.packet(int(handles[i]), int(seq[i]), int(first[i]), data[i], device_ns, sent_ns)
            self._put(whole, encode(whole), mono)
        if not ready.all():
            self._pump()

    def poll(self, timeout_s: float = 0.0) -> None:
        """Hear what the shard says, waiting up to `timeout_s` for it, and do it."""
        if self._socket.poll(round(timeout_s * 1000)):
            while True:
                try:
                    frames = self._socket.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    break
                for frame in frames:
                    self._hear(frame)
        self._keep()
        self._pump()

    def pending(self) -> int:
        """Packets that are not out, or not known to be on the shard's disk."""
        alone = sum(len(bed.entries) - min(bed.durable, bed.cursor) for bed in self._beds.values())
        return alone + self._frames.pending()

    @property
    def resent(self) -> int:
        """Packets that were sent more than once."""
        return sum(bed.n_resent for bed in self._beds.values())

    def counts(self) -> dict[str, dict[str, int]]:
        """Per bed: `packets` and `samples` taken over, packets `sent` and `resent`, samples `lost` (given
        up and told), packets `retained`."""
        for bed in self._beds.values():
            self._frames.account(bed)
        return {
            bed.name: {
                "packets": bed.n_packets, "samples": bed.n_samples, "sent": bed.n_sent, "resent": bed.n_resent,
                "lost": bed.n_lost, "retained": len(bed.entries),
            }
            for bed in self._beds.values()
        }  # fmt: skip

    def close(self, linger_s: float = 0.0) -> None:
        """Close the socket, after waiting up to `linger_s` until all is durable."""
        deadline = self._mono_ns() + round(linger_s * SECOND)
        while self.pending() and self._mono_ns() < deadline:
            self.poll(0.02)
        self._socket.close(0 if linger_s == 0 else 200)

    def _put(self, packet: Waveform | Truth | End, frame: bytes, mono_ns: int) -> None:
        bed = self._beds.get(packet.bed)
        if bed is None:
            bed = self._beds[packet.bed] = Retention(packet.bed)
        self._frames.account(bed)
        if isinstance(packet, Waveform):
            first, end = packet.first, packet.first + packet.n
            bed.end = end
            bed.signal_s += packet.n / packet.rate
            bed.n_packets += 1
            bed.n_samples += packet.n
        else:
            first = end = packet.n_samples if isinstance(packet, End) else bed.end
        bed.put(Entry(type(packet), packet.epoch, first, end, frame, mono_ns, bed.signal_s))
        self._behind[bed.name] = bed

    def _stamped(self, packet: Waveform | Truth | End, now_ns: int) -> Waveform | Truth | End:
        """The packet with what the source adds to it: the time, and the number of its epoch."""
        if not isinstance(packet, Waveform):
            return packet
        epoch, number = self._epochs.get(packet.bed, ("", 0))
        if packet.epoch != epoch:
            number += 1
            self._epochs[packet.bed] = (packet.epoch, number)
        stamped = msgspec.structs.replace(packet, sent_ns=packet.sent_ns or now_ns, epoch_n=number)
        return self._frames.declared(stamped) if self.speed == 1 else stamped

    def _pump(self) -> None:
        """Send what is to be sent for as long as there is credit and the socket takes it."""
        mono = self._mono_ns()
        if self._away or mono - self._hello_ns >= HELLO_EVERY_NS:
            hello = Hello(source=self.name, session=self.session, speed=self.speed, sent=self._sent)
            if not self._out([encode(hello)]):
                return
            self._hello_ns = mono
        if self._control:
            if not self._out(self._control):
                return
            self._control = []
        while self._behind:
            frames: list[bytes] = []
            turns: list[tuple[Retention, list[Entry]]] = []
            credit = self._credit - self._sent
            for bed in self._behind.values():
                turn: list[Entry] = []
                for entry in bed.entries[bed.cursor : bed.cursor + MAX_TURN]:
                    if entry.kind is Waveform:
                        if credit <= 0:
                            break
                        credit -= 1
                    turn.append(entry)
                if turn:
                    turns.append((bed, turn))
                    frames += [entry.frame for entry in turn]
                    if len(frames) >= MAX_FRAMES:
                        break
                elif credit <= 0:
                    break
            if not frames or not self._out(frames):
                return
            for bed, turn in turns:
                self._went(bed, turn, mono)

    def _went(self, bed: Retention, turn: list[Entry], mono_ns: int) -> None:
        bed.cursor += len(turn)
        bed.sent_ns = mono_ns
        del self._behind[bed.name]
        if bed.cursor < len(bed.entries):
            self._behind[bed.name] = bed  # at the end of the queue
        for entry in turn:
            if entry.kind is Waveform:
                self._sent += 1
                bed.n_sent += not entry.sent
                bed.n_resent += entry.sent
            entry.sent = True

    def _may_send(self, n: int) -> bool:
        """Whether so many packets may go out now, by credit and after all that waits."""
        return self.speed == 1 and not self._away and not self._control and self._credit - self._sent >= n

    def _out(self, frames: list[bytes]) -> bool:
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            self._away = True
            return False
        self._away = False
        return True

    def _hear(self, frame: bytes) -> None:
        try:
            message: AnyMessage = decode(frame)
        except WireError as error:
            self._count(error.cause, str(error))
            return
        if isinstance(message, Ack):
            self._ack(message)
        elif isinstance(message, Resend):
            self._resend(message)
        elif isinstance(message, Probe):
            received = self._clock_ns()
            self._control.append(encode(ProbeReply(id=message.id, received_ns=received, sent_ns=self._clock_ns())))
        elif isinstance(message, Refused):
            self._count(message.cause, message.text)
            if message.cause == "handle":
                self._frames.untold()
            if message.cause == "hello":
                self._hello_ns = self._mono_ns() - HELLO_EVERY_NS

    def _count(self, cause: str, text: str) -> None:
        self.refused[cause] = (self.refused.get(cause, (0, ""))[0] + 1, text)

    def _ack(self, ack: Ack) -> None:
        if ack.session != self.session:
            return
        self._credit = ack.credit
        share = self._share()
        for name, epoch, sample in ack.durable:
            bed = self._beds.get(name)
            if bed is not None:
                self._frames.safe(name, epoch, sample)
                bed.safe(epoch, sample)
                bed.trim(self._retain_s, share)
        if ack.shard != self._shard:
            if self._shard:  # it has restarted: what was not durable may be lost
                self._frames.untold()
                for bed in self._beds.values():
                    self._frames.give_back(bed)
                    self._go_back(bed, bed.durable)
            self._shard = ack.shard

    def _resend(self, wanted: Resend) -> None:
        bed = self._beds.get(wanted.bed)
        if bed is not None:
            self._frames.give_back(bed, wanted.epoch, wanted.first)
        at = bed.find(wanted.epoch, wanted.first) if bed is not None else None
        if bed is None or at is None:
            self._tell_lost(wanted, 0, "unknown")
            if bed is not None:  # a shard that knows nothing of the bed, or only what was forgotten here
                self._go_back(bed, bed.durable)
            return
        if at < len(bed.entries):
            entry = bed.entries[at]
            if entry.epoch != wanted.epoch:  # the epoch has no more, and no end: a loop that was cut short
                self._tell_lost(wanted, 0, "unknown")
            elif entry.first > wanted.first:
                self._tell_lost(wanted, entry.first - wanted.first, "forgotten")
            self._go_back(bed, at)

    def _tell_lost(self, wanted: Resend, n: int, cause: str) -> None:
        self._control.append(encode(Lost(bed=wanted.bed, epoch=wanted.epoch, first=wanted.first, n=n, cause=cause)))

    def _go_back(self, bed: Retention, at: int) -> None:
        bed.cursor = min(bed.cursor, at)
        if bed.cursor < len(bed.entries):
            self._behind[bed.name] = bed

    def _share(self) -> int:
        return self._retain_bytes // max(1, len(self._beds))

    def _full(self) -> bool:
        """Whether a replay has to wait until more is durable."""
        share = self._share()
        return any(
            bed.n_bytes > share and bed.signal_s - bed.entries[bed.durable].age_s > self._retain_s
            for bed in self._beds.values()
            if bed.durable < len(bed.entries)
        )

    def _keep(self) -> None:
        """Twice a second: give up what is too old or too much, and offer again what is unconfirmed."""
        mono = self._mono_ns()
        if mono - self._kept_ns < SECOND // 2:
            return
        self._kept_ns = mono
        self._frames.trim(mono)
        share = self._share()
        for bed in self._beds.values():
            if self.speed == 1:
                self._give_up(bed, mono, share)
            self._frames.account(bed)
            if bed.cursor == len(bed.entries) and bed.durable < bed.cursor and mono - bed.sent_ns >= bed.tail_ns:
                bed.tail_ns = min(2 * bed.tail_ns, MAX_TAIL_NS)
                last = next((i for i in range(bed.cursor - 1, -1, -1) if bed.entries[i].kind is Waveform), 0)
                self._go_back(bed, last)

    def _give_up(self, bed: Retention, mono_ns: int, share: int) -> None:
        n = 0
        for entry in bed.entries[bed.cursor :]:
            if mono_ns - entry.put_ns < self._live_age_ns or entry.kind is End:
                break
            n += 1
        if n:
            bed.give_up(n, mono_ns, "too old")
        if bed.n_bytes > share and bed.squeeze(share):
            excess = bed.n_bytes - share * 9 // 10  # a tenth of room, so that it is not due at every packet
            n = 0
            for entry in bed.entries[bed.cursor :]:
                if excess <= 0:
                    break
                excess -= len(entry.frame) + OVERHEAD_BYTES
                n += 1
            bed.give_up(n, mono_ns, "no room")


def _column(values: npt.NDArray[Any], dtype: str) -> memoryview:
    return memoryview(values.astype(dtype).tobytes())


def dealer(identity: str, context: "zmq.Context[Any] | None" = None) -> "zmq.Socket[bytes]":
    """A DEALER as a source needs it: nothing waits in it for a peer that is not there, and a peer that
    has gone without a word is noticed within 3 s."""
    socket: zmq.Socket[bytes] = (context or zmq.Context.instance()).socket(zmq.DEALER)
    socket.setsockopt(zmq.ROUTING_ID, identity.encode()[:255])
    for option, value in (
        (zmq.IMMEDIATE, 1),
        (zmq.LINGER, 0),
        (zmq.HEARTBEAT_IVL, 1000),
        (zmq.HEARTBEAT_TIMEOUT, 3000),
        (zmq.RECONNECT_IVL, 50),
        (zmq.RECONNECT_IVL_MAX, 500),
    ):
        socket.setsockopt(option, value)
    return socket
