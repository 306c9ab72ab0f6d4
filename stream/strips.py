"""Strips: the signal around the decision of each red and yellow alert, as it came, with the judged beats.

The newest samples of every bed are kept as they came, all signals, in rings of digital int16 (pulse signals too,
not only the leads that are analysed). A strip is cut when its last sample is there, and goes out when the beats
in it are judged: both on the sample clock, so a strip is the same at any speed and after a restart.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from numba import njit, types

from model.detection import DELAY
from model.kernels import LOOK_AHEAD
from stream.analysis import TICKS_PER_S
from stream.wire import MISSING, AlertEvent, BeatLabel, Signal, Strip, encode

Ints = npt.NDArray[np.int64]
Samples = npt.NDArray[np.int16]

BEFORE_S, AFTER_S = 10.0, 5.0
KEPT_S = 44.0  # a strip's 10 s, 20 s that the model may be behind and a push of 8 s
JUDGED_TICKS = LOOK_AHEAD + DELAY  # by then every beat has been handed to the model
BEATS_KEPT = 320  # KEPT_S at over 400 bpm: beats are told that far ahead of the windows that alarms wait for


class RawRings:
    """The newest `KEPT_S` of samples of each row, as they came. `head` (n_rows,): sample after the newest.

    Rows have as many signals, and as many samples, as their beds send: their rings, (signals, length) each, lie in one
    array, so one call takes the samples of all."""

    def __init__(self, n_rows: int) -> None:
        self.head = np.zeros(n_rows, np.int64)
        self._x = np.zeros(0, np.int16)
        self._used = 0
        self._free: dict[int, list[int]] = {}  # places that beds have left, by their size
        self._at = np.zeros(n_rows, np.int64)
        self._n_signals = np.zeros(n_rows, np.int64)
        self._length = np.ones(n_rows, np.int64)

    def start(self, row: int, n_signals: int, fs: float) -> None:
        """The row begins anew at sample 0."""
        length = int(KEPT_S * fs)
        size, before = n_signals * length, int(self._n_signals[row] * self._length[row])
        if size != before:
            self._free.setdefault(before, []).append(int(self._at[row]))
            self._at[row] = self._place(size)
        self._n_signals[row], self._length[row] = n_signals, length
        self._ring(row)[:] = MISSING
        self.head[row] = 0

    def push(self, rows: Ints, first: Ints, samples: Samples) -> None:
        """Samples (k, signals, n) of `rows` (k,) from `first` (k,) on; what a row lacks between its newest sample and
        `first` is missing."""
        _push(self._x, self._at, self._n_signals, self._length, self.head, rows, first, samples)

    def skip_to(self, row: int, sample: int) -> None:
        """Nothing came up to `sample`: a gap."""
        if sample > self.head[row]:
            nothing = np.zeros((1, int(self._n_signals[row]), 0), np.int16)
            self.push(np.array([row]), np.array([sample]), nothing)

    def cut(self, row: int, first: int, n: int) -> Samples:
        """Samples `first` to `first` + n of a row, (n_signals, n); MISSING where they are not held."""
        ring = self._ring(row)
        length, head = ring.shape[1], int(self.head[row])
        a, b = max(first, head - length, 0), min(first + n, head)
        cut = np.empty((ring.shape[0], n), np.int16)
        b = max(a, b)
        cut[:, : a - first] = cut[:, b - first :] = MISSING
        until_end = min(b - a, length - a % length)
        cut[:, a - first : a - first + until_end] = ring[:, a % length : a % length + until_end]
        cut[:, a - first + until_end : b - first] = ring[:, : b - a - until_end]
        return cut

    def _ring(self, row: int) -> Samples:
        at, n_signals, length = int(self._at[row]), int(self._n_signals[row]), int(self._length[row])
        return self._x[at : at + n_signals * length].reshape(n_signals, length)

    def _place(self, size: int) -> int:
        if self._free.get(size):
            return self._free[size].pop()
        at, self._used = self._used, self._used + size
        if self._used > self._x.size:
            self._x = np.concatenate([self._x, np.zeros(max(size, self._x.size // 4), np.int16)])
        return at


_FORM = types.void(
    types.int16[::1], types.int64[::1], types.int64[::1], types.int64[::1], types.int64[::1],
    types.Array(types.int64, 1, "A", readonly=True), types.Array(types.int64, 1, "A", readonly=True),
    types.Array(types.int16, 3, "A", readonly=True),
)  # fmt: skip


@njit(_FORM, cache=True)
def _push(x, at, n_signals, length, head, rows, first, samples):  # type: ignore[no-untyped-def]
    for k in range(rows.shape[0]):
        row, n = rows[k], samples.shape[2]
        size = length[row]
        for s in range(n_signals[row]):
            ring = x[at[row] + s * size : at[row] + (s + 1) * size]
            for i in range(max(head[row], first[k] - size), first[k]):
                ring[i % size] = MISSING
            for i in range(max(0, n - size), n):
                ring[(first[k] + i) % size] = samples[k, s, i]
        head[row] = first[k] + n


@dataclass(slots=True)
class _Wanted:
    """A strip that waits: `strip` without samples and beats; `until`: the tick that the model's clock must pass."""

    strip: Strip
    until: int
    samples: Samples | None = None


class Strips:
    """The strips of a shard's beds, by row."""

    def __init__(self, n_rows: int) -> None:
        self.raw = RawRings(n_rows)
        self._signals: list[tuple[Signal, ...]] = [()] * n_rows
        self._rate = np.ones(n_rows)
        self._beats: list[deque[tuple[int, BeatLabel]]] = [deque(maxlen=BEATS_KEPT) for _ in range(n_rows)]
        self._wanted: dict[int, list[_Wanted]] = {}  # by row, of the rows that want any

    def start(self, row: int, signals: Sequence[Signal], fs: float) -> None:
        """A bed's new epoch, in `row`. The strips of the one before must have been taken (`rest`)."""
        self.raw.start(row, len(signals), fs)
        self._signals[row], self._rate[row] = tuple(signals), fs
        self._beats[row].clear()

    def beat(self, row: int, sample: int, label: BeatLabel) -> None:
        """A beat was judged, in order."""
        self._beats[row].append((sample, label))

    def want(self, row: int, event: AlertEvent) -> None:
        """An alert began that names a strip."""
        assert event.strip is not None
        fs = float(self._rate[row])
        first = max(0, event.stream_time.sample - round(BEFORE_S * fs))
        last = event.stream_time.sample + round(AFTER_S * fs)
        strip = Strip(
            id=event.strip, bed=event.bed, epoch=event.epoch, code=event.code, text=event.text,
            priority=event.priority, onset=event.onset, decided=event.stream_time, rate=fs, first=first,
            n=last - first, signals=self._signals[row], data=memoryview(b""), simulated=event.simulated,
        )  # fmt: skip
        until = round(last * TICKS_PER_S / fs) + JUDGED_TICKS
        self._wanted.setdefault(row, []).append(_Wanted(strip, until))

    def waiting(self, row: int) -> bool:
        """Whether a strip of the row is not complete yet."""
        return bool(self._wanted.get(row))

    def ready(self, row: int, judged: int) -> Iterator[Strip]:
        """The strips of a row that are complete, where the model has come to tick `judged`."""
        waiting = self._wanted.get(row, [])
        head = self.raw.head[row]
        for wanted in waiting:
            if wanted.samples is None and wanted.strip.first + wanted.strip.n <= head:
                wanted.samples = self.raw.cut(row, wanted.strip.first, wanted.strip.n)
        left = [wanted for wanted in waiting if wanted.samples is None or judged < wanted.until]
        if len(left) < len(waiting):
            yield from (self._strip(row, w) for w in waiting if w.samples is not None and judged >= w.until)
            self._wanted[row] = left

    def forget(self, row: int) -> None:
        """Nobody waits for the strips of a row any more."""
        self._wanted.pop(row, None)

    def rest(self, row: int) -> Iterator[Strip]:
        """The strips of a row whose epoch is over, as far as they go."""
        for wanted in self._wanted.pop(row, []):
            if wanted.samples is None:
                wanted.samples = self.raw.cut(row, wanted.strip.first, wanted.strip.n)
            yield self._strip(row, wanted)

    def _strip(self, row: int, wanted: _Wanted) -> Strip:
        strip, samples = wanted.strip, wanted.samples
        assert samples is not None
        beats = [beat for beat in self._beats[row] if strip.first <= beat[0] < strip.first + strip.n]
        return msgspec.structs.replace(
            strip,
            data=np.ascontiguousarray(samples, "<i2").data.cast("B"),
            beats=tuple(sample for sample, _ in beats),
            labels=tuple(label for _, label in beats),
        )

    def state(self, row: int, judged: int) -> dict[str, Any]:
        """What a checkpoint keeps of a row: what may still be cut where the model has come to tick `judged`."""
        rate, head = float(self._rate[row]), int(self.raw.head[row])
        waiting = self._wanted.get(row, [])
        firsts = [wanted.strip.first for wanted in waiting if wanted.samples is None]
        first = max(0, min([head, int(judged * rate / TICKS_PER_S), *firsts]) - round(BEFORE_S * rate))
        first = max(first, head - int(KEPT_S * rate))
        return {
            "head": head,
            "raw": self.raw.cut(row, first, head - first),
            "beats": list(self._beats[row]),
            "wanted": [[encode(w.strip), w.until, w.samples] for w in waiting],
        }

    def restore(self, row: int, signals: Sequence[Signal], fs: float, state: dict[str, Any]) -> None:
        """Go on from a `state`."""
        self.start(row, signals, fs)
        self.raw.push(np.array([row]), np.array([state["head"] - state["raw"].shape[1]]), state["raw"][None])
        self._beats[row].extend((sample, label) for sample, label in state["beats"])
        for frame, until, samples in state["wanted"]:
            strip = msgspec.msgpack.decode(frame, type=Strip)  # not `wire.decode`: it has no samples yet
            self._wanted.setdefault(row, []).append(_Wanted(strip, until, samples))
