"""What a source keeps of the frames that held packets of many beds.

The frames stand in one list, oldest first, until all in them is durable and more than `retain_s` old. Where a bed is
asked for again, its packets are taken out of the frames and put among those that it sent by itself (`Retention`).
"""

from bisect import bisect_left
from collections import deque
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from simulators.retention import Entry, Retention
from stream.wire import MAX_HANDLE, Packets, Waveform, encode

Ints = npt.NDArray[np.int64]

SECOND = 1_000_000_000


class _Kept(NamedTuple):
    """A frame that was sent at `put_ns` (monotonic)."""

    packets: Packets
    handles: Ints
    end: Ints
    put_ns: int


class Frames:
    """Frames, and the epochs that they speak of by handles. `retain_s`, `retain_bytes`: as of `Source`."""

    def __init__(self, retain_s: float, retain_bytes: int) -> None:
        self._retain_ns, self._retain_bytes = round(retain_s * SECOND), retain_bytes
        self._of: list[Waveform | None] = [None]  # of each handle the first packet, for what is the same in all
        self._handles: dict[tuple[str, str], int] = {}
        self._by_bed: dict[str, list[int]] = {}
        self._kept: deque[_Kept] = deque()
        self._n_bytes = 0
        # Of each handle: whether the shard was told it; the sample up to which it is durable, was given back, was sent;
        # when it was sent last; packets and samples in frames that are not in the account of their bed yet.
        self._told = np.zeros(1, np.bool_)
        self._durable, self._given, self._end, self._put_ns = np.zeros((4, 1), np.int64)
        self._n_packets, self._n_samples = np.zeros((2, 1), np.int64)

    def declared(self, packet: Waveform) -> Waveform:
        """The packet with the handle of its epoch, which is told with it."""
        key = packet.bed, packet.epoch
        handle = self._handles.get(key, 0)
        if not handle:
            handle = len(self._of)
            if handle > MAX_HANDLE:
                return packet
            self._handles[key] = handle
            self._by_bed.setdefault(packet.bed, []).append(handle)
            self._of.append(msgspec.structs.replace(packet, data=memoryview(b"")))
            if handle >= len(self._told):
                self._grow()
        self._told[handle] = True
        return msgspec.structs.replace(packet, handle=handle)

    def handle(self, bed: str, epoch: str) -> int:
        """The handle of an epoch, 0 where it has none."""
        return self._handles.get((bed, epoch), 0)

    def handles_of(self, bed: str) -> list[int]:
        """All handles of a bed, in the order of its epochs."""
        return self._by_bed.get(bed, [])

    def told(self, handles: Ints) -> npt.NDArray[np.bool_]:
        """Of which of them the shard knows what they mean."""
        return self._told[handles]

    def untold(self) -> None:
        """The shard knows no handle any more."""
        self._told[:] = False

    def packet(
        self, handle: int, seq: int, first: int, data: npt.NDArray[np.int16], device_ns: int, sent_ns: int
    ) -> Waveform:
        """A packet of a frame by itself."""
        like = self._of[handle]
        assert like is not None
        self._told[handle] = True
        return msgspec.structs.replace(
            like, seq=seq, first=first, n=data.shape[1], data=memoryview(data.astype("<i2").tobytes()), off=0,
            device_ns=device_ns, sent_ns=sent_ns, handle=handle,
        )  # fmt: skip

    def keep(self, packets: Packets, put_ns: int) -> None:
        """A frame was sent."""
        handles = packets.column("handles").astype(np.int64)
        self._kept.append(_Kept(packets, handles, packets.column("first") + packets.n, put_ns))
        self._n_bytes += packets.data.nbytes
        self._n_packets[handles] += 1
        self._n_samples[handles] += packets.n
        self._end[handles] = self._kept[-1].end
        self._put_ns[handles] = put_ns

    def safe(self, bed: str, epoch: str, sample: int) -> None:
        """All of earlier epochs of a bed, and this one up to `sample`, is durable."""
        handle = self._handles.get((bed, epoch), 0)
        if handle:
            self._durable[handle] = max(sample, int(self._durable[handle]))
            for other in self._by_bed[bed]:
                if other < handle:
                    self._durable[other] = 1 << 62

    def pending(self) -> int:
        """Packets that are not known to be durable."""
        return sum(int(self._open(kept).sum()) for kept in self._kept)

    def trim(self, mono_ns: int) -> None:
        """Forget the oldest frames: what is durable and old, and what is over the room there is."""
        while self._kept:
            oldest = self._kept[0]
            old = mono_ns - oldest.put_ns > self._retain_ns and not self._open(oldest).any()
            if not old and self._n_bytes <= self._retain_bytes:
                return
            self._n_bytes -= oldest.packets.data.nbytes
            self._kept.popleft()

    def account(self, bed: Retention) -> None:
        """Enter in the account of a bed what went in frames."""
        for handle in self.handles_of(bed.name):
            n, samples = int(self._n_packets[handle]), int(self._n_samples[handle])
            if not n:
                continue
            like = self._of[handle]
            assert like is not None
            bed.end, bed.signal_s = int(self._end[handle]), bed.signal_s + samples / like.rate
            bed.sent_ns = max(bed.sent_ns, int(self._put_ns[handle]))
            bed.n_packets += n
            bed.n_sent += n
            bed.n_samples += samples
            self._n_packets[handle] = self._n_samples[handle] = 0

    def give_back(self, bed: Retention, epoch: str = "", first: int = 0) -> None:
        """Put the packets of a bed among those that it sent by itself, in their place, as sent: what is not durable,
        and of `epoch` what has samples from `first` on, however durable. To do so with all that is kept would take so
        long for many beds that nothing else went out."""
        self.account(bed)
        found: list[Entry] = []
        for handle in self.handles_of(bed.name):
            like = self._of[handle]
            assert like is not None
            least = int(self._durable[handle])
            if like.epoch == epoch:
                least = min(first, least)
            there = bed.spans(like.epoch)
            rows: list[tuple[_Kept, int]] = []
            for kept in reversed(self._kept):
                row = int(kept.handles.searchsorted(handle))
                if row < len(kept.handles) and kept.handles[row] == handle:
                    if kept.end[row] <= least:
                        break
                    at = bisect_left(there, (int(kept.end[row]),))
                    if at == len(there) or there[at][1] >= kept.end[row]:  # not given back before
                        rows.append((kept, row))
            for kept, row in reversed(rows):
                p = kept.packets
                whole = self.packet(
                    handle, int(p.column("seq")[row]), int(p.column("first")[row]), p.samples()[row],
                    int(p.column("device_ns")[row]), p.sent_ns,
                )  # fmt: skip
                end = int(kept.end[row])
                age_s = bed.signal_s - (int(self._end[handle]) - end) / like.rate
                entry = Entry(Waveform, whole.epoch, whole.first, end, encode(whole), kept.put_ns, age_s)
                entry.sent = True
                found.append(entry)
                self._given[handle] = max(end, int(self._given[handle]))
        if found:
            order = {self._epoch(handle): handle for handle in self.handles_of(bed.name)}
            bed.merge(found, order, {epoch: int(self._durable[handle]) for epoch, handle in order.items()})

    def _open(self, kept: _Kept) -> npt.NDArray[np.bool_]:
        """Which packets of a frame are neither durable nor given back."""
        open_: npt.NDArray[np.bool_] = kept.end > np.maximum(self._durable, self._given)[kept.handles]
        return open_

    def _epoch(self, handle: int) -> str:
        like = self._of[handle]
        assert like is not None
        return like.epoch

    def _grow(self) -> None:
        for name in ("told", "durable", "given", "end", "put_ns", "n_packets", "n_samples"):
            array = getattr(self, f"_{name}")
            setattr(self, f"_{name}", np.concatenate([array, np.zeros_like(array)]))
