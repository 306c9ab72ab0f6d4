"""The VF index: a number for "this looks like ventricular fibrillation or flutter", from the signal alone, every half
second.

Features of the last four seconds of each lead: leakage of the narrow-band filter (Kuo and Dillman, Computers in
Cardiology
1978), time above threshold (after Arafat et al., Signal Image Video Process 2011), how peaked amplitude and slope
are, where the
spectrum peaks and how sharply, and the period at which the signal is like itself (16 in all); a network with one hidden
layer turns them into the log-odds of VF, averaged over leads. A lead that is missing, or smaller than 0.2 mV
(asystole), has no say.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit
from safetensors.numpy import load_file

PERIOD = 125  # ticks between reports
WINDOW = 1000  # ticks a report looks back

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_N = WINDOW // 2
_N_FEATURES = 16
_FLOOR_MV = 0.2
_ON, _OFF = 0.6, 0.4
_ON_HOLD, _OFF_HOLD = 2, 6  # reports in a row that turn the state
WEIGHTS = Path(__file__).parent / "weights" / "vf.safetensors"


class VfChange(NamedTuple):
    """VF begins or ends in `row`."""

    row: int
    onset: int  # tick where the rhythm is thought to have changed
    decided: int  # tick of the report that decided it
    on: bool


class VfReport(NamedTuple):
    """One entry per row and half second, sorted by (row, at); `changes` sorted likewise."""

    row: Ints
    at: Ints  # end (exclusive) of the window, a multiple of 125 ticks
    index: Floats  # type: ignore[assignment]  # 0..1; hides tuple.index
    changes: list[VfChange]


class VfIndex:
    """VF index of each bed on the absolute half-second grid of ticks, with hysteresis."""

    def __init__(self, n_rows: int, n_leads: int) -> None:
        self.n_rows, self.n_leads = n_rows, n_leads
        self._tick = np.zeros(n_rows, np.int64)
        self._line = np.full((n_rows, n_leads, _N), np.nan, np.float32)
        self._filter = np.zeros((n_rows, n_leads, 5))
        self._hold = np.zeros((n_rows, 3), np.int64)
        self._waves = _waves()
        tensors = load_file(WEIGHTS)
        self._net = (tensors["w1"], tensors["b1"], tensors["w2"], tensors["b2"])
        self.reset(np.arange(n_rows), np.zeros(n_rows, np.int64))

    def reset(self, rows: Ints, first_tick: Ints) -> None:
        """Forgets all about `rows` (k,), a standing VF too; their next tick is `first_tick` (k,)."""
        rows = np.asarray(rows, np.int64)
        self._tick[rows] = np.asarray(first_tick, np.int64)
        self._line[rows] = np.nan
        self._filter[rows] = np.nan
        self._hold[rows] = 0

    def push(self, rows: Ints, y: Floats, m: Ints) -> VfReport:
        """Takes the next m (k,) ticks of `rows` (k,); y (k, C, m_max) float32 mV at 250 Hz, NaN missing."""
        report, changes, _ = self._run(rows, y, m)
        order = np.lexsort((report[:, 1], report[:, 0]))
        report = report[order]
        turned = changes[np.lexsort((changes[:, 2], changes[:, 0]))]
        return VfReport(
            report[:, 0].astype(np.int64),
            report[:, 1].astype(np.int64),
            report[:, 2].astype(np.float32),
            [VfChange(int(r), int(onset), int(decided), bool(on)) for r, onset, decided, on in turned],
        )

    def features(self, rows: Ints, y: Floats, m: Ints) -> tuple[Ints, Ints, npt.NDArray[np.float64]]:
        """As `push`, but gives row, at and the features (k, C, F) that the index is made of (NaN where a lead has
        none); for fitting.
        """
        report, _, features = self._run(rows, y, m)
        return report[:, 0].astype(np.int64), report[:, 1].astype(np.int64), features

    def _run(self, rows: Ints, y: Floats, m: Ints) -> tuple[npt.NDArray[np.float64], Ints, npt.NDArray[np.float64]]:
        rows = np.asarray(rows, np.int64)
        m = np.asarray(m, np.int64)
        capacity = int((m // PERIOD + 1).sum())
        report = np.zeros((capacity, 3))
        changes = np.zeros((capacity, 4), np.int64)
        features = np.full((capacity, self.n_leads, _N_FEATURES), np.nan)
        n, n_changes = _index(
            rows,
            np.ascontiguousarray(y, np.float32),
            m,
            self._tick,
            self._line,
            self._filter,
            self._hold,
            self._waves,
            *self._net,
            report,
            changes,
            features,
        )
        return report[:n], changes[:n_changes], features[:n]

    def state_dict(self) -> dict[str, npt.NDArray[Any]]:
        """The whole state, rows first."""
        return {
            "tick": self._tick.copy(),
            "line": self._line.copy(),
            "filter": self._filter.copy(),
            "hold": self._hold.copy(),
        }

    def load_state_dict(self, state: dict[str, npt.NDArray[Any]]) -> None:
        """Takes back what `state_dict` gave."""
        self._tick[:] = state["tick"]
        self._line[:] = state["line"]
        self._filter[:] = state["filter"]
        self._hold[:] = state["hold"]


def _waves() -> npt.NDArray[np.float64]:
    """Hann-windowed cosines and sines (49, 2, 125) at 0.5 to 12.5 Hz in steps of 0.25 Hz, for 31.25 Hz."""
    n = _N // 4
    frequency = 0.5 + 0.25 * np.arange(49)
    phase = 2 * np.pi * frequency[:, None] * np.arange(n) / 31.25
    return np.stack([np.cos(phase), np.sin(phase)], 1) * np.hanning(n)


@njit(cache=True)
def _index(rows, y, m, tick, lines, filters, hold, waves, w1, b1, w2, b2, report, changes, features):  # type: ignore[no-untyped-def]
    n_out = 0
    n_changes = 0
    n_leads = y.shape[1]
    slow_pole = np.exp(-2.0 * np.pi * 0.8 / 250.0)
    fast_pole = np.exp(-2.0 * np.pi * 35.0 / 250.0)
    line = np.zeros((n_leads, _N + y.shape[2] // 2 + 1), np.float32)
    for k in range(rows.shape[0]):
        row = rows[k]
        first = tick[row]
        n = m[k]
        filled = _N
        for c in range(n_leads):
            state = filters[row, c]
            line[c, :_N] = lines[row, c]
            filled = _N
            for i in range(n):
                value = np.float64(y[k, c, i])
                if np.isnan(value):
                    state[:] = np.nan
                else:
                    if np.isnan(state[0]):
                        state[0] = value
                        state[1:] = 0.0
                    state[0] = slow_pole * state[0] + (1.0 - slow_pole) * value
                    value -= state[0]
                    state[1] = slow_pole * state[1] + (1.0 - slow_pole) * value
                    value -= state[1]
                    state[2] = fast_pole * state[2] + (1.0 - fast_pole) * value
                    state[3] = fast_pole * state[3] + (1.0 - fast_pole) * state[2]
                if (first + i) % 2 == 1:
                    line[c, filled] = state[3]
                    filled += 1
        # The newest entry of the lines is the odd tick at or before first + n - 1.
        at = (first // PERIOD + 1) * PERIOD
        while at <= first + n:
            end = filled - ((first + n) // 2 - at // 2)
            index = 0.0
            total = 0.0
            for c in range(n_leads):
                if _describe(line[c, end - _N : end], waves, features[n_out, c]):
                    z = np.float64(b2[0])
                    for h in range(w1.shape[0]):
                        unit = np.float64(b1[h])
                        for f in range(_N_FEATURES):
                            unit += w1[h, f] * features[n_out, c, f]
                        z += w2[h] * np.tanh(unit)
                    index += z
                    total += 1.0
            if total > 0.0:
                index = 1.0 / (1.0 + np.exp(-index / total))
            report[n_out, 0] = row
            report[n_out, 1] = at
            report[n_out, 2] = index
            n_out += 1
            on = hold[row, 0]
            if (index >= _ON) if on == 0 else (index < _OFF):
                if hold[row, 1] == 0:
                    hold[row, 2] = at
                hold[row, 1] += 1
            else:
                hold[row, 1] = 0
            if hold[row, 1] >= (_ON_HOLD if on == 0 else _OFF_HOLD):
                changes[n_changes, 0] = row
                changes[n_changes, 1] = max(hold[row, 2] - WINDOW // 2, 0)
                changes[n_changes, 2] = at
                changes[n_changes, 3] = 1 - on
                n_changes += 1
                hold[row, 0] = 1 - on
                hold[row, 1] = 0
            at += PERIOD
        for c in range(n_leads):
            lines[row, c] = line[c, filled - _N : filled]
        tick[row] = first + n
    return n_out, n_changes


@njit(cache=True)
def _describe(x, waves, out):  # type: ignore[no-untyped-def]
    """Fills the features of one lead's window (125 Hz); False where the lead is missing or too small to say."""
    n = x.shape[0]
    size = 0.0
    square = 0.0
    travel = 0.0
    slope_square = 0.0
    steepest = 0.0
    for i in range(1, n):
        if np.isnan(x[i]) or np.isnan(x[i - 1]):
            return False
        step = np.float64(x[i]) - np.float64(x[i - 1])
        size += abs(x[i])
        square += np.float64(x[i]) * x[i]
        travel += abs(step)
        slope_square += step * step
        steepest = max(steepest, abs(step))
    rms = np.sqrt(square / n)
    largest = 0.0
    above = 0.0
    peaks = 0.0
    for part in range(4):
        begin = part * n // 4
        end = (part + 1) * n // 4
        low = x[begin]
        high = low
        for i in range(begin, end):
            low = min(low, x[i])
            high = max(high, x[i])
        top = max(abs(low), abs(high))
        largest = max(largest, high - low)
        peaks += top / 4.0
        for i in range(begin, end):
            if abs(x[i]) > 0.2 * top:
                above += 1.0
    if largest < _FLOOR_MV or travel <= 0.0:
        return False
    half = min(int(np.pi * size / travel + 0.5), n // 2)
    left = 0.0
    both = 1e-9
    for i in range(half, n):
        left += abs(x[i] + x[i - half])
        both += abs(x[i]) + abs(x[i - half])
    out[0] = left / both
    out[1] = np.log(125.0 * travel / (2.0 * np.pi * size))
    out[2] = above / n
    out[3] = size / n / rms
    out[4] = np.log(rms / peaks)
    out[5] = np.log(rms)
    out[6] = np.log(np.sqrt(slope_square / n) / steepest)
    out[7] = np.log(travel / n / np.sqrt(slope_square / n))
    still = 0.0
    for i in range(1, n):
        if abs(np.float64(x[i]) - np.float64(x[i - 1])) < 0.1 * steepest:
            still += 1.0
    out[15] = still / n
    out[8:15] = _periodicity(x, waves)
    return True


@njit(cache=True)
def _periodicity(x, waves):  # type: ignore[no-untyped-def]
    """Of a window at 125 Hz, seen at 31.25 Hz: where its spectrum peaks and how sharply, and how alike it is to
    itself a while ago.
    """
    n = x.shape[0] // 4
    slow = np.zeros(n)
    mean = 0.0
    for i in range(n):
        slow[i] = 0.25 * (np.float64(x[4 * i]) + x[4 * i + 1] + x[4 * i + 2] + x[4 * i + 3])
        mean += slow[i] / n
    square = 1e-9
    for i in range(n):
        slow[i] -= mean
        square += slow[i] * slow[i]
    n_bins = waves.shape[0]
    power = np.zeros(n_bins)
    total = 1e-9
    top = 0
    for b in range(n_bins):
        re = 0.0
        im = 0.0
        for i in range(n):
            re += waves[b, 0, i] * slow[i]
            im += waves[b, 1, i] * slow[i]
        power[b] = re * re + im * im
        total += power[b]
        if power[b] > power[top]:
            top = b
    near = 0.0
    upper = 0.0
    entropy = 0.0
    middle = 0.0
    for b in range(n_bins):
        share = power[b] / total
        if abs(b - top) <= 3:
            near += share
        if b > 1.6 * top + 2:
            upper += share
        if 8 <= b <= 30:
            middle += share
        entropy -= share * np.log(share + 1e-12)
    alike = np.zeros(48)
    for lag in range(3, 48):
        total = 0.0
        for i in range(lag, n):
            total += slow[i] * slow[i - lag]
        alike[lag] = total * n / square / (n - lag)
    most = 0.0
    for lag in range(4, 47):
        if alike[lag] >= alike[lag - 1] and alike[lag] >= alike[lag + 1]:
            most = max(most, alike[lag])
    period = 47
    for lag in range(46, 3, -1):
        if alike[lag] >= alike[lag - 1] and alike[lag] >= alike[lag + 1] and alike[lag] >= 0.85 * most:
            period = lag
    return np.array([np.log(top + 2.0), near, upper, entropy, np.log(period / 31.25), most, middle])
