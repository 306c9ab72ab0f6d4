"""What a bed plays: the records of its source one after another, or a simulated patient."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from model.datasets import DatasetError, find
from simulators.control import Fault
from simulators.feed import Feed
from simulators.replay import BedReplay, PatientFeed, RecordFeed
from simulators.ward import patient_of
from stream.wire import End, Truth, Waveform

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


class Play:
    """A bed's feeds, one after another, each an epoch. A feed that cannot be read is left out from then on.

    index: of the bed in its producer. epoch: what epoch ids begin with. cut: the options of `BedReplay`. phase_s: at
    which second of the stream it begins. Raises ValueError (DatasetError among them) for a source that cannot be used.
    """

    def __init__(self, bed: Bed, index: int, epoch: str, loop: bool, cut: dict[str, Any], phase_s: float = 0.0) -> None:
        self.bed, self.index, self.begun_s, self.failed = bed, index, phase_s, False
        self._epoch, self._loop, self._cut = epoch, loop, cut
        self.n_epochs = self.n_packets = self.n_samples = self.n_notes = 0
        self._offset_s = phase_s
        self._to_come = _feeds(bed, index)
        self.replay = self._opened()

    @property
    def epoch(self) -> str:
        """The epoch that it is in."""
        return self.replay.epoch

    @property
    def sent(self) -> int:
        """Samples of this epoch that have been sent."""
        return self.replay.sent

    @property
    def due_s(self) -> float:
        """When its next packet is due, in seconds of stream since the producer's start."""
        return self._offset_s + self.replay.due_s

    def warm(self) -> None:
        """Have the first samples at hand."""
        try:
            self.replay.peek()
        except DatasetError:
            return  # it is told when they are to be sent

    def lay(self, fault: Fault) -> tuple[str, str, int, int]:
        """Lay a fault over the signal from the next packet on; returns bed, epoch, first sample and the one after the
        last. Raises ValueError for what cannot be laid."""
        first, end = self.replay.lay(fault)
        return self.bed.name, self.epoch, first, end

    def next(self, device_ns: int, sent_ns: int) -> list[Waveform | Truth | End]:
        """Its next packets, and the end of the epoch with the last of them."""
        packets: list[Waveform | Truth | End] = []
        try:
            packets += self.replay.packets(device_ns, sent_ns)
        except DatasetError as error:
            self._unreadable(error)
            self.replay.n_samples = self.sent
            if self._loop:
                self._to_come.pop()
        for packet in packets:
            if isinstance(packet, Waveform):
                self.n_packets += 1
                self.n_samples += packet.n
            elif isinstance(packet, Truth):
                self.n_notes += len(packet.samples)
        if self.replay.over:
            packets.append(End(bed=self.bed.name, epoch=self.epoch, n_samples=self.sent))
        return packets

    def went(self, n_packets: int) -> list[Truth]:
        """So many packets of the replay's stretch were sent: what annotations there were."""
        before = self.replay.sent
        truth = self.replay.went(n_packets)
        self.n_packets += n_packets
        self.n_samples += self.replay.sent - before
        if truth is None:
            return []
        self.n_notes += len(truth.samples)
        return [truth]

    def goes_on(self) -> bool:
        """Whether there is more to send; at the end of an epoch, the next is begun where there is one."""
        if not self.replay.over:
            return True
        ended_s = self.due_s
        while self._to_come:
            try:
                self.replay = self._opened()
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


def _feeds(bed: Bed, index: int) -> list[OpenFeed]:
    """What a bed plays, opened once here so that what cannot be read is found before anything is sent."""
    if bed.source.startswith("sim:"):
        if bed.leads is not None:
            raise ValueError(f"leads: {', '.join(bed.leads)} of {bed.source!r}; choose leads of recordings only")
        patient = patient_of(bed.source, bed.name, index)
        return [lambda: PatientFeed(patient, index)]
    paths = find(bed.source)
    RecordFeed(paths[0], bed.leads)
    return [lambda path=path: RecordFeed(path, bed.leads) for path in paths]  # type: ignore[misc]
