"""A bed of a shard: which signals it has, where its epoch is, and what turns its packets into mV."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from stream import wire
from stream.alarms.bed import BedAlarms
from stream.analysis import TICKS_PER_S
from stream.transport.sequence import Chunk

Floats = npt.NDArray[np.float32]


KEPT = (
    "name",
    "epoch",
    "fs",
    "live",
    "ended",
    "closed",
    "n_samples",
    "n_unjudged",
    "n_dropped",
    "n_beats",
    "n_windows",
)
"""What a checkpoint keeps of a bed beside its signals and alarms."""


@dataclass(slots=True)
class Bed:
    """One bed. `leads`: which signals are analysed; `live`: at the speed of life, not a faster replay; `ended`: the
    epoch is over; `closed`: and so are its alarms."""

    row: int
    name: str
    alarms: BedAlarms
    epoch: str = ""
    fs: float = float(TICKS_PER_S)
    live: bool = True
    signals: tuple[wire.Signal, ...] = ()
    leads: tuple[int, ...] = ()
    gain: Floats = field(default_factory=lambda: np.ones((0, 1), np.float32))
    baseline: Floats = field(default_factory=lambda: np.zeros((0, 1), np.float32))
    stamps: wire.Stamps = field(default_factory=wire.Stamps)
    ended: bool = False
    closed: bool = False
    technical: set[str] = field(default_factory=set)
    ended_ns: int = 0
    n_samples: int = 0
    n_unjudged: int = 0
    n_dropped: int = 0
    n_beats: int = 0
    n_windows: int = 0

    def signals_are(self, signals: tuple[wire.Signal, ...], n_leads: int) -> None:
        """Take the first `n_leads` ECG signals as the leads to analyse."""
        self.signals = signals
        self.leads = tuple(i for i, signal in enumerate(signals) if signal.kind == "ecg")[:n_leads]
        self.gain = np.array([signals[i].gain for i in self.leads], np.float32)[:, None]
        self.baseline = np.array([signals[i].baseline for i in self.leads], np.float32)[:, None]

    def convert(self, chunks: Iterable[Chunk], x: Floats) -> None:
        """Write the leads of chunks that follow one another to x (n_leads, n) in mV; NaN where missing or off."""
        at = 0
        for chunk in chunks:
            digital = chunk.samples[list(self.leads)]
            part = x[: len(self.leads), at : at + digital.shape[1]]
            np.subtract(digital, self.baseline, out=part)
            part /= self.gain
            part[digital == wire.MISSING] = np.nan
            if chunk.off:
                part[[bool(chunk.off >> signal & 1) for signal in self.leads]] = np.nan
            at += digital.shape[1]

    def moment(self, tick: int) -> wire.Moment:
        """A tick in the source's own samples."""
        return wire.Moment(round(tick * self.fs / TICKS_PER_S), self.fs)
