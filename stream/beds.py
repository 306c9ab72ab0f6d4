"""A bed of a shard: which signals it has, and where its epoch is."""

from dataclasses import dataclass, field
from typing import Any

import msgspec

from model.pulse import SIGNALS
from stream import wire
from stream.alarms.bed import BedAlarms
from stream.alarms.conditions import Profile
from stream.analysis import TICKS_PER_S

KEPT = (
    "name",
    "epoch",
    "fs",
    "live",
    "ended",
    "closed",
    "n_unjudged",
    "n_dropped",
    "n_thinned",
    "n_beats",
    "n_windows",
)
"""What a checkpoint keeps of a bed beside its signals and alarms."""


@dataclass(slots=True, eq=False)
class Bed:
    """One bed. `leads`: which signals are analysed; `pulses`: those of model.pulse.SIGNALS, -1 where it has none, and
    `pulsing`: whether it has one; `live`: at the speed of life, not a faster replay; `ended`: the epoch is over;
    `closed`: and so are its alarms."""

    row: int
    name: str
    alarms: BedAlarms
    epoch: str = ""
    fs: float = float(TICKS_PER_S)
    live: bool = True
    signals: tuple[wire.Signal, ...] = ()
    leads: tuple[int, ...] = ()
    pulses: tuple[int, ...] = (-1,) * len(SIGNALS)
    ended: bool = False
    closed: bool = False
    pulsing: bool = False
    technical: set[str] = field(default_factory=set)
    ended_ns: int = 0
    n_unjudged: int = 0
    n_dropped: int = 0
    n_thinned: int = 0
    n_beats: int = 0
    n_windows: int = 0

    def signals_are(self, signals: tuple[wire.Signal, ...], n_leads: int) -> None:
        """Take the first `n_leads` ECG signals as the leads to analyse, and the first signal of each kind of pulse."""
        self.signals = signals
        self.leads = tuple(i for i, signal in enumerate(signals) if signal.kind == "ecg")[:n_leads]
        kinds = [signal.kind for signal in signals]
        self.pulses = tuple(kinds.index(kind) if kind in kinds else -1 for kind in SIGNALS)
        self.pulsing = max(self.pulses) >= 0

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {
            **{name: getattr(self, name) for name in KEPT},
            "signals": msgspec.to_builtins(self.signals),
            "alarms": self.alarms.state(),
            "technical": sorted(self.technical),
        }

    @classmethod
    def restored(cls, row: int, state: dict[str, Any], profile: Profile, n_leads: int, now_ns: int) -> "Bed":
        """The bed that a `state` is of, in `row`."""
        alarms = BedAlarms(state["name"], state["epoch"], state["fs"], profile)
        alarms.restore(state["alarms"])
        bed = cls(row, state["name"], alarms, ended_ns=now_ns, technical=set(state["technical"]))
        for name in KEPT:
            setattr(bed, name, state[name])
        bed.signals_are(msgspec.convert(state["signals"], tuple[wire.Signal, ...]), n_leads)
        return bed

    def moment(self, tick: int) -> wire.Moment:
        """A tick in the source's own samples."""
        return wire.Moment(round(tick * self.fs / TICKS_PER_S), self.fs)
