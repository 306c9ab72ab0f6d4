"""Brings every lead to the two rates of the monitor: 250 Hz for the detector (`Resampler`), 125 Hz for the model
(`ModelRate`).

Both are linear in the signal, keep absolute time (output tick t is the value at t/250 s after the epoch's sample 0)
and give
bit for bit the same output however the input is cut into chunks and whichever rows share a call.
"""

import math

import numpy as np
import numpy.typing as npt
from numba import njit

from model.rows import ALL, Rows, State

TICK_RATE = 250.0
MODEL_RATE = 125.0
MIN_RATE, MAX_RATE = 50.0, 2000.0

# Kaiser-windowed sinc: 4.5 zero crossings a side and beta 5.65 give about -60 dB outside a transition band of
# +-0.2 of the lower of the two rates (200 Hz wide at 250 Hz and above: flat to 75 Hz, gone at 175 Hz).
_HALF_CROSSINGS = 4.5
_BETA = 5.65
_PHASES = 1000  # every integer rate, and every multiple of 0.25 Hz, falls exactly on a phase
_MAX_HALF = 40

_LOWPASS_HALF = 12
_LOWPASS_HZ = 45.0

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


class Resampler(Rows):
    """Polyphase FIR from any rate in 50..2000 Hz to 250 Hz, all beds as rows.

    Method: Kaiser-windowed sinc evaluated at 1000 phases (Crochiere and Rabiner, Multirate Digital Signal Processing,
    1983).
    Deviation: where samples are missing (NaN) or not there yet the taps that are left are scaled back to unit gain,
    and the output is NaN only when one of the two samples around it is missing, so that a gap is neither smeared nor
    bridged.
    At 250 Hz the signal passes through unchanged and with no delay.
    """

    STATE = ("_rate", "_next_sample", "_next_tick", "_history")

    def __init__(self, n_rows: int, n_leads: int) -> None:
        self.n_rows, self.n_leads = n_rows, n_leads
        self._rate = np.full(n_rows, TICK_RATE)
        self._half = np.zeros(n_rows, np.int64)
        self._table_at = np.zeros(n_rows, np.int64)
        self._next_sample = np.zeros(n_rows, np.int64)
        self._next_tick = np.zeros(n_rows, np.int64)
        self._history = np.full((n_rows, n_leads, 2 * _MAX_HALF + 2), np.nan, np.float32)
        self._tables: dict[float, int] = {}
        self._taps = np.zeros(1, np.float32)

    def configure(self, row: int, fs: float) -> None:
        """Sets the rate of a row, in Hz, and starts it afresh at sample 0.

        Raises ValueError for a rate outside 50..2000 Hz.
        """
        if not MIN_RATE <= fs <= MAX_RATE:
            raise ValueError(
                f"fs={fs} of row {row} is outside {MIN_RATE:g}..{MAX_RATE:g} Hz; resample the source before sending it"
            )
        self._use_rate(row, float(fs))
        self.reset(np.array([row]), np.array([0]))

    def _use_rate(self, row: int, fs: float) -> None:
        self._rate[row] = fs
        if fs == TICK_RATE:
            self._half[row] = 0
            return
        self._half[row] = half = _half_width(fs)
        if fs not in self._tables:
            self._tables[fs] = len(self._taps)
            self._taps = np.concatenate([self._taps, polyphase_taps(fs, half).ravel()])
        self._table_at[row] = self._tables[fs]

    def delay(self, row: int) -> float:
        """Look-ahead of a row in ticks: tick t comes out with the sample at t + delay (0 at 250 Hz, 4.5 above it)."""
        return 0.0 if self._half[row] == 0 else _HALF_CROSSINGS * TICK_RATE / min(float(self._rate[row]), TICK_RATE)

    def reset(self, rows: Ints, first_sample: Ints) -> None:
        """Forgets the past of `rows`; their next input sample is `first_sample` (k,) and nothing is known before it."""
        first = np.asarray(first_sample, np.int64)
        self._next_sample[rows] = first
        self._next_tick[rows] = np.ceil(first * (TICK_RATE / self._rate[rows]) - 1e-9).astype(np.int64)
        self._history[rows] = np.nan

    def next_tick(self, rows: Ints) -> Ints:
        """Tick (k,) that comes out next of each of `rows` (k,)."""
        return self._next_tick[np.asarray(rows, np.int64)].copy()

    def push(self, rows: Ints, x: Floats, n: Ints) -> tuple[Floats, Ints, Ints]:
        """Takes the next samples of `rows` (k,).

        x: (k, C, n_max) float32 in mV at each row's own rate, NaN missing; n: (k,) how many of them are valid.
        Returns y (k, C, m_max) float32 at 250 Hz, m (k,) valid counts, first_tick (k,).
        """
        rows = np.asarray(rows, np.int64)
        n = np.asarray(n, np.int64)
        x = np.ascontiguousarray(x, np.float32)
        return self._run(rows, x, n, self._next_sample[rows] + n)

    def flush(self, rows: Ints) -> tuple[Floats, Ints, Ints]:
        """Gives the ticks up to the last sample of `rows`, as if nothing came after it; the form of `push`. A reset
        must follow.
        """
        rows = np.asarray(rows, np.int64)
        none = np.zeros(len(rows), np.int64)
        x = np.full((len(rows), self.n_leads, _MAX_HALF + 1), np.nan, np.float32)
        return self._run(rows, x, none + self._half[rows], self._next_sample[rows])

    def _run(self, rows: Ints, x: Floats, n: Ints, known: Ints) -> tuple[Floats, Ints, Ints]:
        first = self._next_tick[rows]
        end = self._next_sample[rows] + n
        # Tick t sits at sample t*rate/250 and needs `half` samples past the one below it.
        last = np.floor((end - self._half[rows]) * (TICK_RATE / self._rate[rows])).astype(np.int64) + 2
        m = np.zeros(len(rows), np.int64)
        y = np.full((len(rows), self.n_leads, max(0, int((last - first).max(initial=0)))), np.nan, np.float32)
        _resample(
            rows,
            x,
            n,
            known,
            self._rate,
            self._half,
            self._table_at,
            self._taps,
            self._next_sample,
            self._next_tick,
            self._history,
            y,
            m,
        )
        return y[:, :, : int(m.max(initial=0))], m, first

    def load_state_dict(self, state: State, rows: slice = ALL) -> None:
        """Takes back what `state_dict` gave."""
        super().load_state_dict(state, rows)
        for row, fs in zip(range(self.n_rows)[rows], state["_rate"].tolist(), strict=True):
            self._use_rate(row, fs)


class ModelRate(Rows):
    """250 Hz to the model's 125 Hz, conditioned: baseline removed (two one-pole high-passes, -3 dB at 0.54 Hz), low-
    pass 45 Hz.

    Model sample j is centred on tick 2j. The high-pass is causal and has no delay; the low-pass is a symmetric FIR that
    looks `DELAY` ticks ahead. A missing tick gives a missing model sample only where the centre itself is missing; the
    baseline starts again from the first sample after a gap.
    """

    DELAY = _LOWPASS_HALF

    STATE = ("_next_tick", "_next_out", "_baseline", "_history")

    def __init__(self, n_rows: int, n_leads: int) -> None:
        self.n_rows, self.n_leads = n_rows, n_leads
        self._next_tick = np.zeros(n_rows, np.int64)
        self._next_out = np.zeros(n_rows, np.int64)
        self._baseline = np.full((n_rows, n_leads, 2), np.nan)
        self._history = np.full((n_rows, n_leads, 2 * _LOWPASS_HALF + 2), np.nan, np.float32)
        self._taps = _lowpass_taps()

    def reset(self, rows: Ints, first_tick: Ints) -> None:
        """Forgets the past of `rows`; their next input tick is `first_tick` (k,)."""
        first = np.asarray(first_tick, np.int64)
        self._next_tick[rows] = first
        self._next_out[rows] = (first + 1) // 2
        self._baseline[rows] = np.nan
        self._history[rows] = np.nan

    def push(self, rows: Ints, y: Floats, m: Ints) -> tuple[Floats, Ints, Ints]:
        """y (k, C, m_max) float32 mV at 250 Hz, m (k,) valid counts.

        Returns z (k, C, j_max) float32 mV at 125 Hz, j (k,) valid counts, first model sample (k,).
        """
        rows = np.asarray(rows, np.int64)
        m = np.asarray(m, np.int64)
        return self._run(rows, np.ascontiguousarray(y, np.float32), m)

    def flush(self, rows: Ints) -> tuple[Floats, Ints, Ints]:
        """Gives the model samples up to the last tick of `rows`; the form of `push`. A reset must follow."""
        rows = np.asarray(rows, np.int64)
        y = np.full((len(rows), self.n_leads, _LOWPASS_HALF), np.nan, np.float32)
        return self._run(rows, y, np.full(len(rows), _LOWPASS_HALF, np.int64))

    def _run(self, rows: Ints, y: Floats, m: Ints) -> tuple[Floats, Ints, Ints]:
        first = self._next_out[rows]
        z = np.full((len(rows), self.n_leads, y.shape[2] // 2 + 2), np.nan, np.float32)
        n_out = np.zeros(len(rows), np.int64)
        _condition(rows, y, m, self._taps, self._next_tick, self._next_out, self._baseline, self._history, z, n_out)
        return z[:, :, : int(n_out.max(initial=0))], n_out, first


def polyphase_taps(fs: float, half: int) -> Floats:
    """Taps (1001, 2*half) float32: row p weighs samples floor(u)-half+1 .. floor(u)+half for a position u = floor(u)
    + p/1000.
    """
    low = min(fs, TICK_RATE)
    span = _HALF_CROSSINGS * fs / low
    offset = np.arange(-half + 1, half + 1)[None, :] - np.arange(_PHASES + 1)[:, None] / _PHASES
    window = np.i0(_BETA * np.sqrt(np.clip(1 - (offset / span) ** 2, 0, None))) * (np.abs(offset) <= span)
    taps = np.sinc(offset * low / fs) * window
    scaled: Floats = (taps / taps.sum(1, keepdims=True)).astype(np.float32)
    return scaled


def _half_width(fs: float) -> int:
    return math.ceil(_HALF_CROSSINGS * fs / min(fs, TICK_RATE))


def _lowpass_taps() -> Floats:
    at = np.arange(-_LOWPASS_HALF, _LOWPASS_HALF + 1)
    taps = np.sinc(2 * _LOWPASS_HZ / TICK_RATE * at) * np.hamming(len(at))
    scaled: Floats = (taps / taps.sum()).astype(np.float32)
    return scaled


@njit(cache=True)
def _resample(rows, x, n, known, rate, half, table_at, taps, next_sample, next_tick, history, y, m):  # type: ignore[no-untyped-def]
    n_leads = x.shape[1]
    size = history.shape[2]
    line = np.empty(size + x.shape[2], np.float32)
    for k in range(rows.shape[0]):
        row = rows[k]
        if n[k] == 0:
            continue
        start = next_sample[row]
        end = start + n[k]
        h = half[row]
        step = rate[row] / 250.0
        count = 0
        for c in range(n_leads):
            for i in range(size):
                line[i] = history[row, c, i]
            for i in range(n[k]):
                line[size + i] = x[k, c, i]
            tick = next_tick[row]
            count = 0
            while True:
                u = tick * step
                whole = np.int64(np.floor(u + 1e-7))
                phase = np.int64(np.rint((u - whole) * 1000.0))
                phase = max(phase, np.int64(0))
                if whole + h >= end or whole + (phase > 0) >= known[k]:
                    break
                centre = whole - start + size
                if h == 0:
                    y[k, c, count] = line[centre]
                elif not (np.isnan(line[centre]) or (phase > 0 and np.isnan(line[centre + 1]))):
                    at = table_at[row] + phase * 2 * h
                    even = np.float32(0.0)
                    odd = np.float32(0.0)
                    begin = centre - h + 1
                    for i in range(h):
                        even += taps[at + 2 * i] * line[begin + 2 * i]
                        odd += taps[at + 2 * i + 1] * line[begin + 2 * i + 1]
                    total = even + odd
                    if np.isnan(total):
                        total = np.float32(0.0)
                        weight = np.float32(0.0)
                        for i in range(2 * h):
                            value = line[begin + i]
                            if not np.isnan(value):
                                total += taps[at + i] * value
                                weight += taps[at + i]
                        total /= weight
                    y[k, c, count] = total
                count += 1
                tick += 1
            for i in range(size):
                history[row, c, i] = line[n[k] + i]
        m[k] = count
        next_tick[row] += count
        next_sample[row] = end


@njit(cache=True)
def _condition(rows, y, m, taps, next_tick, next_out, baseline, history, z, n_out):  # type: ignore[no-untyped-def]
    size = history.shape[2]
    half = taps.shape[0] // 2
    pole = np.exp(-2.0 * np.pi * 0.35 / 250.0)
    line = np.empty(size + y.shape[2], np.float32)
    for k in range(rows.shape[0]):
        row = rows[k]
        start = next_tick[row]
        end = start + m[k]
        count = 0
        for c in range(y.shape[1]):
            slow = baseline[row, c, 0]
            slower = baseline[row, c, 1]
            line[:size] = history[row, c]
            for i in range(m[k]):
                value = y[k, c, i]
                if np.isnan(value):
                    slow = np.nan
                    line[size + i] = np.nan
                    continue
                if np.isnan(slow):
                    slow = np.float64(value)
                    slower = 0.0
                slow = pole * slow + (1.0 - pole) * value
                flat = value - slow
                slower = pole * slower + (1.0 - pole) * flat
                line[size + i] = flat - slower
            baseline[row, c, 0] = slow
            baseline[row, c, 1] = slower
            count = 0
            j = next_out[row]
            while 2 * j + half < end:
                centre = 2 * j - start + size
                if not np.isnan(line[centre]):
                    total = np.float32(0.0)
                    weight = np.float32(0.0)
                    for i in range(2 * half + 1):
                        value = line[centre - half + i]
                        if not np.isnan(value):
                            total += taps[i] * value
                            weight += taps[i]
                    z[k, c, count] = total / weight
                count += 1
                j += 1
            history[row, c] = line[m[k] : m[k] + size]
        n_out[k] = count
        next_out[row] += count
        next_tick[row] = end
