"""Beds whose packets come one after another, as nearly all do nearly always, as columns of arrays.

A `Sequence` sorts the packets of one bed whatever happens to them. Where nothing happens, a bed has an open lane here:
its position is a number in an array, and a frame with packets of a thousand beds is checked and counted in a few array
calls. Anything else than the next packet of an open lane closes it, and goes to the `Sequence`, which is told first
(`settle`) what went by; once that has nothing left to sort, the lane is open again.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from stream.transport.arrivals import Stream
from stream.transport.peers import Peer
from stream.transport.sequence import Sequence

Ints = npt.NDArray[np.int64]


class Lanes:
    """The lanes of up to `capacity` beds; `Sequence.lane` is the row of a bed in the arrays.

    `names`, `streams`: of each row. `open`: whether packets may pass. `next`, `seq`, `device_ns`, `heard_ns`: as the
    attributes of a `Sequence`, true where the lane is open."""

    def __init__(self, capacity: int) -> None:
        self.names = [""] * capacity
        self.streams = [Stream("", (), 0.0)] * capacity
        self.open = np.zeros(capacity, np.bool_)
        self.next, self.seq, self.device_ns, self.heard_ns = np.zeros((4, capacity), np.int64)
        self._n_passed, self._n_taken = np.zeros((2, capacity), np.int64)  # packets, samples; since they were told
        self._peer = np.full(capacity, -1)
        self._handle, self._n_signals = np.zeros((2, capacity), np.int64)
        self._free = list(range(capacity - 1, -1, -1))

    def enter(self, bed: Sequence) -> None:
        """Give a new bed a row. There is one: beds are counted before."""
        bed.lane = self._free.pop()
        self.names[bed.lane] = bed.bed

    def leave(self, bed: Sequence) -> None:
        """A bed is forgotten."""
        self.open[bed.lane] = False
        self._n_passed[bed.lane] = self._n_taken[bed.lane] = 0
        self._peer[bed.lane] = -1
        self._free.append(bed.lane)
        bed.lane = -1

    def declare(self, bed: Sequence, source: Peer, handle: int, stream: Stream) -> None:
        """From here on `handle` of this source means this stream of the bed."""
        row = bed.lane
        if self._peer[row] == source.number and self._handle[row] == handle and self.streams[row] == stream:
            return
        if self._peer[row] == source.number:
            source.lane_of(int(self._handle[row]), -1)
        self.close(bed)
        self.streams[row], self._peer[row], self._handle[row] = stream, source.number, handle
        self._n_signals[row] = len(stream.signals)
        source.lane_of(handle, row)

    def passing(self, source: Peer, handles: Ints, first: Ints, n_signals: int) -> tuple[Ints, npt.NDArray[np.bool_]]:
        """Row of each handle (k,), -1 where it is not known, and which packets may pass: the next of an open lane."""
        rows = source.lanes[np.minimum(handles, len(source.lanes) - 1)]
        rows = np.where((self._peer[rows] == source.number) & (self._handle[rows] == handles), rows, -1)
        fits = (rows >= 0) & self.open[rows] & (self._n_signals[rows] == n_signals)
        return rows, fits & (self.next[rows] == first)

    def passed(self, rows: Ints, n: int, seq: Ints, device_ns: Ints, mono_ns: int) -> None:
        """The next packet of each of these rows, of `n` samples, went by."""
        self.next[rows] += n
        self.seq[rows] = seq + 1
        self.device_ns[rows] = device_ns
        self.heard_ns[rows] = mono_ns
        self._n_passed[rows] += 1

    def steady(self, sources: Iterable[Peer], now_ns: int, mono_ns: int, silent_ns: int, old_ns: int) -> list[str]:
        """The beds whose lanes are open, that were heard within `silent_ns`, and whose newest sample is younger than
        `old_ns` by the clocks of these sources."""
        offsets = {source.number: source.clock.offset_ns(mono_ns) for source in sources}
        numbers = np.array(sorted(offsets), np.int64)
        rows = np.flatnonzero(self.open & (mono_ns - self.heard_ns < silent_ns) & np.isin(self._peer, numbers))
        offset = np.array([offsets[number] for number in numbers.tolist()], np.int64)
        age = now_ns - (self.device_ns[rows] - offset[np.searchsorted(numbers, self._peer[rows])])
        young = rows[(age < old_ns) | (self.device_ns[rows] == 0)]
        return [self.names[row] for row in young.tolist()]

    def taken(self, rows: Ints, n: int) -> None:
        """The shard was given `n` samples of each of these rows."""
        self._n_taken[rows] += n

    def settle(self, bed: Sequence) -> None:
        """Bring the sequence of a bed up to date."""
        row = bed.lane
        if self.open[row]:
            bed.next, bed.seq, bed.device_ns = int(self.next[row]), int(self.seq[row]), int(self.device_ns[row])
            bed.heard_mono_ns = int(self.heard_ns[row])
        if self._n_passed[row] or self._n_taken[row]:
            bed.pass_by(int(self._n_passed[row]), int(self._n_taken[row]))
            self._n_passed[row] = self._n_taken[row] = 0

    def close(self, bed: Sequence) -> None:
        """Packets of the bed go to its sequence from here on."""
        self.settle(bed)
        self.open[bed.lane] = False

    def reopen(self, bed: Sequence) -> None:
        """Let packets pass again where the sequence has nothing left to sort, and the stream is the one declared."""
        row = bed.lane
        if self.open[row] or self._peer[row] < 0 or not bed.calm or bed.epoch != self.streams[row].epoch:
            return
        assert bed.seq is not None
        self.open[row] = True
        self.next[row], self.seq[row] = bed.next, bed.seq
        self.device_ns[row], self.heard_ns[row] = bed.device_ns, bed.heard_mono_ns
