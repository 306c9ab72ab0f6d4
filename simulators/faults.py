"""Faults on demand: what is laid over a bed's signal, and a source's clock that steps and drifts."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.datasets import Annotations
from simulators.feed import Feed
from simulators.patients import GAIN, RAIL, Patient
from stream.wire import Signal


@dataclass(frozen=True, slots=True)
class _Laid:
    """Samples start <= s < end: a `patient` in place of the own one, or None: ECG rows that are flat or, where `off`,
    off the patient."""

    start: int
    end: int
    rows: tuple[int, ...]
    off: bool
    patient: Patient | None


class FaultyFeed:
    """A feed (see `simulators.feed.Feed`) over which faults are laid while it plays."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self.fs, self.n_samples = feed.fs, feed.n_samples
        self.signals: tuple[Signal, ...] = feed.signals
        self._ecg = tuple(i for i, signal in enumerate(feed.signals) if signal.kind == "ecg")
        self._laid: list[_Laid] = []

    def lay(self, kind: str, first: int, for_s: float, *, lead: int = -1, rhythm: str = "", seed: int = 0) -> int:
        """From sample `first` on, for `for_s`: `flat` (a constant) or `lead_off` (the bit, and the rail) on ECG signal
        `lead` (-1: all), or `rhythm`, any of `simulators.rhythms.RHYTHMS`. Returns the sample after its last one.
        Raises ValueError for what cannot be laid."""
        if kind not in {"flat", "lead_off", "rhythm"}:
            raise ValueError(f"kind: {kind!r} is no fault of a bed; choose among flat, lead_off, rhythm")
        if not 0 < for_s <= 86_400:
            raise ValueError(f"for_s: {for_s}; give over 0 to 86400 s")
        if not -1 <= lead < len(self._ecg):
            raise ValueError(f"lead: {lead}; this bed has {len(self._ecg)} ECG signals, from 0; -1 for all")
        rows = self._ecg if lead < 0 else (self._ecg[lead],)
        patient = None
        if kind == "rhythm":
            patient = Patient("fault", [(rhythm, max(2.0, for_s))], seed=seed, fs=self.fs)
        end = first + round(for_s * self.fs)
        self._laid.append(_Laid(first, end, rows, kind == "lead_off", patient))
        return end

    def at_hand(self, first: int) -> int:
        """See `Feed`."""
        return self._feed.at_hand(first)

    def read(self, first: int, n: int) -> npt.NDArray[np.int16]:
        """See `Feed`."""
        samples = self._feed.read(first, n)
        laid = self._within(first, n)
        if laid:
            samples = samples.copy()
        for one in laid:
            low, high = max(first, one.start), min(first + n, one.end)
            drawn = None if one.patient is None else one.patient.render(low - one.start, high - low)
            for at, row in enumerate(one.rows):
                signal, part = self.signals[row], samples[row, low - first : high - first]
                if drawn is not None:
                    part[:] = np.clip(np.rint(drawn[at % 2] / GAIN * signal.gain) + signal.baseline, -32767, 32767)
                else:
                    part[:] = RAIL if one.off else signal.baseline
        return samples

    def off_spans(self, first: int, n: int) -> list[tuple[int, int, int]]:
        """See `Feed`."""
        spans = self._feed.off_spans(first, n)
        for one in self._within(first, n):
            if one.off:
                bits = sum(1 << row for row in one.rows)
                spans = [*spans, (max(first, one.start), min(first + n, one.end), bits)]
        return sorted(spans)

    def truth(self, first: int, n: int) -> Annotations | None:
        """See `Feed`; what a fault hides or replaces is not told."""
        notes = self._feed.truth(first, n)
        laid = [one for one in self._within(first, n) if one.patient is not None or len(one.rows) == len(self._ecg)]
        if notes is None or not laid:
            return notes
        keep = np.ones(len(notes.sample), bool)
        for one in laid:
            keep &= (notes.sample < one.start) | (notes.sample >= one.end)
        rows = np.flatnonzero(keep)
        return Annotations(
            notes.sample[rows],
            [notes.symbols[i] for i in rows],
            [notes.aux[i] for i in rows],
            notes.subtype[rows],
            notes.num[rows],
            notes.chan[rows],
        )

    def _within(self, first: int, n: int) -> list[_Laid]:
        """What is laid over first <= s < first + n; what is over before is forgotten, as a feed is read onwards."""
        if self._laid:
            self._laid = [one for one in self._laid if one.end > first]
        return [one for one in self._laid if one.start < first + n]


class UnsteadyClock:
    """A source's UTC clock, ns: the machine's, but for the steps and the drift that it is given."""

    def __init__(
        self, utc_ns: Callable[[], int] = time.time_ns, mono_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._utc_ns, self._mono_ns = utc_ns, mono_ns
        self._step_ns = 0
        self._drifts: list[tuple[int, int, float]] = []  # from, until (monotonic), ppm

    def __call__(self) -> int:
        return self._utc_ns() + self.offset_ns if self._step_ns or self._drifts else self._utc_ns()

    @property
    def offset_ns(self) -> int:
        """How far it is off now."""
        now_ns = self._mono_ns()
        drifted = sum((min(now_ns, until) - since) * ppm / 1e6 for since, until, ppm in self._drifts)
        return self._step_ns + round(drifted)

    def step(self, ms: float) -> None:
        """Step by so much at once."""
        self._step_ns += round(ms * 1e6)

    def drift(self, ppm: float, for_s: float) -> None:
        """Run too fast (or slow, below 0) for so long; what it has drifted by then stays."""
        now_ns = self._mono_ns()
        self._drifts.append((now_ns, now_ns + round(for_s * 1e9), ppm))
