"""What a shard is given of a bed, in order: the start of an epoch, runs of samples, gaps, its end."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stream.wire import Signal, Waveform

Ints = npt.NDArray[np.int64]


class Stream(NamedTuple):
    """What a bed sends in an epoch."""

    epoch: str
    signals: tuple[Signal, ...]
    rate: float


class NewEpoch(NamedTuple):
    """A bed begins a new epoch at sample 0. `speed` as in `Hello`, `number` as `epoch_n` of a packet."""

    bed: str
    epoch: str
    signals: tuple[Signal, ...]
    rate: float
    source: str
    speed: float
    number: int = 0


class Chunk(NamedTuple):
    """A run of samples of one bed, starting at sample `first`; `samples`: (signals, n) int16, digital
    units, read-only. One packet, or several that follow one another; the stamps are the last one's."""

    bed: str
    epoch: str
    signals: tuple[Signal, ...]
    rate: float
    first: int
    samples: npt.NDArray[np.int16]
    off: int
    device_ns: int
    received_ns: int
    sent_ns: int


class Gap(NamedTuple):
    """Samples `first` to `first` + `n` of a bed will not come."""

    bed: str
    epoch: str
    first: int
    n: int
    cause: str


class TruthSeen(NamedTuple):
    """Reference annotations that came alongside."""

    bed: str
    epoch: str
    samples: tuple[int, ...]
    symbols: tuple[str, ...]
    notes: tuple[str, ...]


class Ended(NamedTuple):
    """An epoch is over after `n_samples`."""

    bed: str
    epoch: str
    n_samples: int


class Block(NamedTuple):
    """A run of samples each of many beds, which begin at their `first` (k,); `samples`: (k, signals, n) int16, digital
    units, read-only. One packet each; `device_ns` (k,) is of each, the other stamps are of all."""

    beds: list[str]
    first: Ints
    samples: npt.NDArray[np.int16]
    off: npt.NDArray[np.int32]
    device_ns: Ints
    received_ns: int
    sent_ns: int
    of: list[Stream]

    def chunk(self, i: int) -> Chunk:
        """The run of one of them."""
        epoch, signals, rate = self.of[i]
        return Chunk(
            self.beds[i], epoch, signals, rate, int(self.first[i]), self.samples[i], int(self.off[i]),
            int(self.device_ns[i]), self.received_ns, self.sent_ns,
        )  # fmt: skip

    def chunks(self) -> Iterator[Chunk]:
        """The runs of all of them, one by one."""
        return map(self.chunk, range(len(self.beds)))

    def packet(self, i: int, seq: int = 0) -> Waveform:
        """The packet of one of them."""
        epoch, signals, rate = self.of[i]
        samples = self.samples[i]
        return Waveform(
            bed=self.beds[i], epoch=epoch, seq=seq, first=int(self.first[i]), rate=rate, n=samples.shape[1],
            signals=signals, data=samples.data.cast("B"), off=int(self.off[i]), device_ns=int(self.device_ns[i]),
            sent_ns=self.sent_ns,
        )  # fmt: skip

    def part(self, chosen: npt.NDArray[np.bool_]) -> "Block":
        """Those that are chosen (k,)."""
        if chosen.all():
            return self
        at = np.flatnonzero(chosen).tolist()
        return self._replace(
            beds=[self.beds[i] for i in at], of=[self.of[i] for i in at], first=self.first[at],
            samples=self.samples[at], off=self.off[at], device_ns=self.device_ns[at],
        )  # fmt: skip


BedEvent = NewEpoch | Chunk | Gap | TruthSeen | Ended
Event = BedEvent | Block


class Piece(NamedTuple):
    """Part [a, b) of a packet, in order and not yet taken."""

    packet: Waveform
    a: int
    b: int
    received_ns: int


def follows(piece: Piece, other: object) -> bool:
    """Whether what follows `piece` in its bed may be of one chunk with it."""
    return type(other) is Piece and other.packet.off == piece.packet.off


def join(pieces: list[Piece]) -> Chunk:
    """The chunk of pieces that follow one another; of a single one it shares the packet's memory."""
    head, last = pieces[0], pieces[-1].packet
    packet = head.packet
    if len(pieces) == 1:
        samples = packet.samples()
        if head.b - head.a != packet.n:
            samples = samples[:, head.a : head.b]
    else:
        samples = np.concatenate([piece.packet.samples()[:, piece.a : piece.b] for piece in pieces], axis=1)
        samples.flags.writeable = False
    return Chunk(
        packet.bed, packet.epoch, packet.signals, packet.rate, packet.first + head.a, samples, packet.off,
        last.device_ns, pieces[-1].received_ns, last.sent_ns,
    )  # fmt: skip


def joined(blocks: list[Block]) -> list[Block]:
    """As few blocks as may be, with those of one length that have no bed in common as one. The stamps of such a one
    that are of all are the oldest."""
    sets: list[tuple[set[str], list[Block]]] = []
    for block in blocks:
        beds = set(block.beds)
        seen, parts = sets[-1] if sets else (beds, [])
        if parts and parts[0].samples.shape[1:] == block.samples.shape[1:] and not seen & beds:
            seen |= beds
            parts.append(block)
        else:
            sets.append((beds, [block]))
    return [_as_one(parts) for _, parts in sets]


def _as_one(parts: list[Block]) -> Block:
    if len(parts) == 1:
        return parts[0]
    return Block(
        [bed for part in parts for bed in part.beds],
        np.concatenate([part.first for part in parts]),
        np.concatenate([part.samples for part in parts]),
        np.concatenate([part.off for part in parts]),
        np.concatenate([part.device_ns for part in parts]),
        min(part.received_ns for part in parts),
        min(part.sent_ns for part in parts),
        [of for part in parts for of in part.of],
    )
