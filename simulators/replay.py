"""Recordings and simulated patients as streams of packets.

A feed gives samples by index; a `BedReplay` cuts a feed into wire packets on an absolute grid. Feeds read blocks and
share them, so a thousand beds that play 26 records hold the blocks of 26.
"""

from bisect import bisect_left
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model.datasets import Annotations, DatasetError, SignalInfo, annotations, info, read
from simulators.control import Fault
from simulators.faults import FaultyFeed
from simulators.feed import Feed
from simulators.patients import Patient
from stream.wire import MAX_RATE_HZ, MAX_SAMPLES, MAX_SIGNALS, MIN_RATE_HZ, Signal, Truth, Waveform

MIN_PACKET_MS, MAX_PACKET_MS = 4.0, 10_000.0
_BLOCK_S = 30.0
_CACHED_BLOCKS = 512
_MAX_NOTE = 64


class RecordFeed:
    """A recording as a feed. leads: names of the signals to send, None for all (ECG first where there are more than a
    packet takes). Raises DatasetError for what cannot be read or sent."""

    def __init__(self, path: Path, leads: tuple[str, ...] | None = None) -> None:
        about = info(path)
        if not MIN_RATE_HZ <= about.fs <= MAX_RATE_HZ:
            raise DatasetError(
                f"{about.name}: the rate is {about.fs:g} Hz, and {MIN_RATE_HZ:g} to {MAX_RATE_HZ:g} Hz can be sent; "
                "resample the record"
            )
        if leads is None:
            order = sorted(range(len(about.signals)), key=lambda i: about.signals[i].kind != "ecg")[:MAX_SIGNALS]
            leads = tuple(about.signals[i].name for i in sorted(order))
        first = read(path, 0, 2 / about.fs, leads=leads, annotator=None)
        self.path, self.fs, self.n_samples, self._leads = path, about.fs, about.n, leads
        self.signals = tuple(_wire_signal(signal) for signal in first.signals)

    def read(self, first: int, n: int) -> npt.NDArray[np.int16]:
        """See `Feed`."""
        size = round(_BLOCK_S * self.fs)
        low, high = first // size, (first + n - 1) // size
        blocks = [_block(self.path, self._leads, index * size, size, self.fs) for index in range(low, high + 1)]
        whole = blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1)
        return whole[:, first - low * size : first - low * size + n]

    def at_hand(self, first: int) -> int:
        """See `Feed`."""
        return round(_BLOCK_S * self.fs) - first % round(_BLOCK_S * self.fs)

    def off_spans(self, first: int, n: int) -> list[tuple[int, int, int]]:
        """None: a file does not say when a lead was off."""
        return []

    def truth(self, first: int, n: int) -> Annotations | None:
        """See `Feed`."""
        notes, samples = _notes(self.path)
        if notes is None:
            return None
        rows = slice(bisect_left(samples, first), bisect_left(samples, first + n))
        if rows.start == rows.stop:
            return None
        return Annotations(
            notes.sample[rows],
            notes.symbols[rows],
            notes.aux[rows],
            notes.subtype[rows],
            notes.num[rows],
            notes.chan[rows],
        )


class PatientFeed:
    """A simulated patient as a feed without end. `index` keeps the beds of a producer from drawing all at once."""

    def __init__(self, patient: Patient, index: int = 0) -> None:
        self.patient, self.fs, self.n_samples = patient, patient.fs, None
        self.signals = tuple(_wire_signal(signal) for signal in patient.signals)
        self._size = round((5 + index % 16 / 4) * patient.fs)
        self._first, self._end = 0, 0
        self._block = np.empty((len(self.signals), 0), np.int16)
        self._off: list[tuple[int, int, int]] = []
        self._noted: list[int] = []

    def read(self, first: int, n: int) -> npt.NDArray[np.int16]:
        """See `Feed`."""
        self._draw(first, n)
        return self._block[:, first - self._first : first - self._first + n]

    def at_hand(self, first: int) -> int:
        """See `Feed`."""
        return self._end - first if self._first <= first < self._end else self._size

    def off_spans(self, first: int, n: int) -> list[tuple[int, int, int]]:
        """See `Feed`."""
        self._draw(first, n)
        return self.patient.off_spans(first, n) if self._off else []

    def truth(self, first: int, n: int) -> Annotations | None:
        """See `Feed`."""
        self._draw(first, n)
        next_one = bisect_left(self._noted, first)
        if next_one == len(self._noted) or self._noted[next_one] >= first + n:
            return None
        return self.patient.truth(first, n)

    def _draw(self, first: int, n: int) -> None:
        """Have first <= s < first + n drawn: a few seconds at once, as a call costs more than its samples."""
        if first < self._first or first + n > self._end:
            size = max(n, self._size)
            self._first, self._end = first, first + size
            self._block = self.patient.render(first, size)
            self._off = self.patient.off_spans(first, size)
            self._noted = self.patient.truth(first, size).sample.tolist()


class BedReplay:
    """One bed's stream: an epoch of a feed, from sample `start` of the feed to its end or `stop_s` of stream.

    packet_ms: length of a packet; packet k holds the samples from round(k * packet_ms) to round((k + 1) * packet_ms)
    of the stream, so lengths differ by a sample where they must and never drift. Raises ValueError for a packet length
    that the wire does not take, and for a start behind the end.
    """

    def __init__(
        self, bed: str, feed: Feed, *, packet_ms: float = 100.0, start_s: float = 0.0, stop_s: float | None = None
    ) -> None:
        if not MIN_PACKET_MS <= packet_ms <= MAX_PACKET_MS or packet_ms / 1000 * feed.fs > MAX_SAMPLES:
            raise ValueError(f"packet_ms: {packet_ms:g}; give {MIN_PACKET_MS:g} to {MAX_PACKET_MS:g}")
        if start_s < 0:
            raise ValueError(f"start: {start_s:g} s; give 0 or more")
        self.bed, self.feed, self.packet_s = bed, feed, packet_ms / 1000
        self._start = round(start_s * feed.fs)
        n = None if feed.n_samples is None else feed.n_samples - self._start
        if n is not None and n <= 0:
            raise ValueError(f"start: {start_s:g} s is behind the end of {bed}; start before it")
        if stop_s is not None:
            n = round(stop_s * feed.fs) if n is None else min(n, round(stop_s * feed.fs))
        self.n_samples = n
        self.epoch, self.seq, self.sent, self._k = "", 0, 0, 0

    def begin(self, epoch: str) -> None:
        """Start a fresh epoch at sample 0."""
        self.epoch, self.seq, self.sent, self._k = epoch, 0, 0, 0

    @property
    def due_s(self) -> float:
        """When the next packet is due, in seconds of stream: when its last sample has been taken."""
        edge = (self._k + 1) * self.packet_s
        return edge if self.n_samples is None else min(edge, self.n_samples / self.feed.fs)

    @property
    def over(self) -> bool:
        """Whether the epoch has been sent to its end."""
        return self.n_samples is not None and self.sent >= self.n_samples

    def lay(self, fault: Fault) -> tuple[int, int]:
        """Lay a fault over the feed from the next packet on; returns its first sample and the one after its last.
        Raises ValueError for what cannot be laid."""
        if not isinstance(self.feed, FaultyFeed):
            self.feed = FaultyFeed(self.feed)
        first = self._start + self.sent
        end = self.feed.lay(fault.kind, first, fault.for_s, lead=fault.lead, rhythm=fault.rhythm, seed=self.seq)
        return self.sent, end - self._start

    def peek(self) -> None:
        """Have the feed prepare the first samples. Raises DatasetError where it cannot."""
        self.feed.read(self._start, 1)

    @property
    def even(self) -> bool:
        """Whether packets are all of one length, and the next begins where one should."""
        n = self.packet_s * self.feed.fs
        return self.sent > 0 and abs(n - round(n)) < 1e-6 and self.sent == self._k * round(n)

    def stretch(self) -> npt.NDArray[np.int16] | None:
        """Samples of the next packets (signals, a multiple of a packet), a few seconds of them, up to where a lead is
        off or to the end. None where that is not one packet, or it cannot be read."""
        n = round(self.packet_s * self.feed.fs)
        first = self._start + self.sent
        length = max(n, self.feed.at_hand(first))
        if self.n_samples is not None:
            length = min(length, self.n_samples - self.sent - 1)
        if length < n:
            return None
        try:
            samples = self.feed.read(first, length)
        except DatasetError:
            return None
        off = self.feed.off_spans(first, length)
        length = (off[0][0] - first if off else length) // n * n
        return samples[:, :length] if length > 0 else None

    def went(self, n_packets: int) -> Truth | None:
        """So many packets of the stretch were sent; the reference annotations of their samples."""
        n = n_packets * round(self.packet_s * self.feed.fs)
        truth = self._truth(self.sent, self.sent + n) if n else None
        self._k += n_packets
        self.seq += n_packets
        self.sent += n
        return truth

    def packets(self, device_ns: int, sent_ns: int) -> Iterator[Waveform | Truth]:
        """The next packet, with the reference annotations of its samples; several packets where a lead comes off or on
        within it, so that the lead-off bits hold for every sample of theirs. device_ns: the source's clock, UTC, at the
        last sample. Raises DatasetError where the feed cannot be read."""
        fs = self.feed.fs
        first, last = self.sent, round((self._k + 1) * self.packet_s * fs)
        last = last if self.n_samples is None else min(last, self.n_samples)
        self._k += 1
        if last <= first:
            return
        samples = self.feed.read(self._start + first, last - first)
        for low, high, bits in _cut_by_off(
            self.feed.off_spans(self._start + first, last - first), self._start, first, last
        ):
            yield Waveform(
                bed=self.bed,
                epoch=self.epoch,
                seq=self.seq,
                first=low,
                rate=fs,
                n=high - low,
                signals=self.feed.signals,
                data=np.ascontiguousarray(samples[:, low - first : high - first], "<i2").data.cast("B"),
                off=bits,
                device_ns=max(0, device_ns - round((last - high) / fs * 1e9)),
                sent_ns=sent_ns,
            )
            self.seq += 1
            self.sent = high
        truth = self._truth(first, last)
        if truth is not None:
            yield truth

    def _truth(self, first: int, last: int) -> Truth | None:
        notes = self.feed.truth(self._start + first, last - first)
        if notes is None or not notes.symbols:
            return None
        texts = [
            aux[:_MAX_NOTE] or (f"subtype {subtype}" if symbol == "~" else "")
            for symbol, aux, subtype in zip(notes.symbols, notes.aux, notes.subtype, strict=True)
        ]
        samples = (notes.sample - self._start).tolist()
        return Truth(
            bed=self.bed, epoch=self.epoch, samples=tuple(samples), symbols=tuple(notes.symbols), notes=tuple(texts)
        )


def _cut_by_off(spans: list[tuple[int, int, int]], start: int, first: int, last: int) -> list[tuple[int, int, int]]:
    """(low, high, off bits) that cover first..last of the stream; spans are at samples of the feed."""
    edges = sorted({first, last, *(edge - start for span in spans for edge in span[:2])})
    edges = [edge for edge in edges if first <= edge <= last]
    cuts = []
    for low, high in pairwise(edges):
        bits = 0
        for begin, end, mask in spans:
            if begin - start <= low < end - start:
                bits |= mask
        cuts.append((low, high, bits))
    return cuts


def _wire_signal(signal: SignalInfo) -> Signal:
    return Signal(name=signal.name, kind=signal.kind, unit=signal.unit[:16], gain=signal.gain, baseline=signal.baseline)


@lru_cache(maxsize=_CACHED_BLOCKS)
def _block(path: Path, leads: tuple[str, ...], first: int, n: int, fs: float) -> npt.NDArray[np.int16]:
    digital = read(path, first / fs, n / fs, leads=leads, annotator=None).digital
    digital.setflags(write=False)
    return digital


@lru_cache(maxsize=1024)
def _notes(path: Path) -> tuple[Annotations | None, list[int]]:
    notes = annotations(path)
    return notes, [] if notes is None else notes.sample.tolist()
