"""Finds the R peaks of all beds online: causal, several leads, an R peak out at most 250 ms after its sample.

The chain per lead is that of Pan and Tompkins (IEEE Trans Biomed Eng 1985;32:230): a band-pass that is also a derivative,
squared, averaged over a QRS width. Deviations: the filter is a derivative of a Gaussian (linear phase, short); leads are
fused as ratios to their own running QRS level, weighted by their contrast, so that a lead may fall off or return; the
search-back, which a bounded delay forbids, is replaced by a threshold that falls as the time since the last beat grows.

All per-tick work is one compiled call for all rows. Each decision is made at a fixed tick from state at that tick, so
the result is bit for bit the same however the signal is cut into chunks and whichever rows share a call.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

DELAY = 62  # ticks: an R peak at tick t is out when tick t + DELAY has been pushed

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_HISTORY = 256  # ticks kept per lead
_N_LEVELS = 8  # beats in a running level
_SLOPE_HALF = 10  # half length of the derivative filter
_WINDOW_HALF = 8  # half length of the energy window
_AHEAD = 28  # a candidate is the largest within so many ticks after it
_BACK = 30
_REACH = 15  # an R peak lies within so many ticks of its energy peak
_LAG = _SLOPE_HALF + _WINDOW_HALF + _AHEAD

# columns of the per-row state
_LAST, _PREVIOUS, _N_BEATS, _NOISE, _NEXT_RR, _EMITTED, _N_COLUMNS = 0, 1, 2, 3, 4, 5, 6
# columns of the per-lead state
_LEVEL, _MEAN, _BAD, _N_SEEN, _HELD, _PEAK, _N_LEAD_COLUMNS = 0, 1, 2, 3, 4, 5, 6


class Beats(NamedTuple):
    """R peaks, sorted by (row, at)."""

    row: Ints
    at: Ints  # tick of the R peak
    decided: Ints  # last tick that the decision needed; decided - at <= DELAY
    amplitude: Floats  # mV, peak to peak of the QRS on `lead`
    lead: Ints  # the lead that the peak was placed on


class PeriodDetector:
    """Online R-peak detector over rows of beds; see the module's text for the method."""

    def __init__(self, n_rows: int, n_leads: int) -> None:
        self.n_rows, self.n_leads = n_rows, n_leads
        self._tick = np.zeros(n_rows, np.int64)
        self._signal = np.zeros((n_rows, n_leads, _HISTORY), np.float32)
        self._slope = np.zeros((n_rows, n_leads, _HISTORY), np.float32)
        self._energy = np.zeros((n_rows, n_leads, _HISTORY), np.float32)
        self._fused = np.zeros((n_rows, _HISTORY), np.float32)
        self._lead = np.zeros((n_rows, n_leads, _N_LEAD_COLUMNS))
        self._levels = np.zeros((n_rows, n_leads, _N_LEVELS))
        self._row = np.zeros((n_rows, _N_COLUMNS))
        self._rr = np.zeros((n_rows, _N_LEVELS))
        self._taps = _slope_taps()
        self.reset(np.arange(n_rows), np.zeros(n_rows, np.int64))

    def reset(self, rows: Ints, first_tick: Ints) -> None:
        """Forgets all about `rows` (k,); their next tick is `first_tick` (k,)."""
        rows = np.asarray(rows, np.int64)
        first = np.asarray(first_tick, np.int64)
        self._tick[rows] = first
        for array in (self._signal, self._slope, self._energy, self._fused, self._lead, self._levels, self._row):
            array[rows] = 0
        self._lead[rows, :, _BAD] = first[:, None] - 1
        self._lead[rows, :, _HELD] = np.nan
        self._row[rows, _LAST] = first - 1000
        self._row[rows, _EMITTED] = first - 1000
        self._rr[rows] = 200

    def push(self, rows: Ints, y: Floats, m: Ints) -> Beats:
        """Takes the next m (k,) ticks of `rows` (k,); y (k, C, m_max) float32 mV at 250 Hz, NaN missing.

        Returns the beats that these ticks decided.
        """
        rows = np.asarray(rows, np.int64)
        m = np.asarray(m, np.int64)
        capacity = int((m // _BACK + 2).sum())
        found = np.zeros((capacity, 5))
        n = _detect(
            rows, np.ascontiguousarray(y, np.float32), m, self._taps, self._tick, self._signal, self._slope, self._energy,
            self._fused, self._lead, self._levels, self._row, self._rr, found,
        )  # fmt: skip
        found = found[:n]
        beats = Beats(
            found[:, 0].astype(np.int64),
            found[:, 1].astype(np.int64),
            found[:, 2].astype(np.int64),
            found[:, 3].astype(np.float32),
            found[:, 4].astype(np.int64),
        )
        order = np.lexsort((beats.at, beats.row))
        return Beats(*(column[order] for column in beats))

    def flush(self, rows: Ints) -> Beats:
        """Decides what is pending at the end of `rows`, as if the signal were missing from here on. A reset must follow."""
        rows = np.asarray(rows, np.int64)
        end = self._tick[rows].copy()
        beats = self.push(rows, np.full((len(rows), self.n_leads, DELAY), np.nan, np.float32), np.full(len(rows), DELAY))
        last = np.zeros(self.n_rows, np.int64)
        last[rows] = end
        inside = beats.at < last[beats.row]
        return Beats(*(column[inside] for column in beats))

    def watermark(self, rows: Ints) -> Ints:
        """Tick (k,) before which every R peak of `rows` is out."""
        return self._tick[np.asarray(rows, np.int64)] - DELAY

    def state_dict(self) -> dict[str, npt.NDArray[Any]]:
        """The whole state, rows first."""
        return {name: getattr(self, "_" + name).copy() for name in _STATE}

    def load_state_dict(self, state: dict[str, npt.NDArray[Any]]) -> None:
        """Takes back what `state_dict` gave."""
        for name in _STATE:
            getattr(self, "_" + name)[:] = state[name]


_STATE = ("tick", "signal", "slope", "energy", "fused", "lead", "levels", "row", "rr")


def _slope_taps() -> Floats:
    at = np.arange(-_SLOPE_HALF, _SLOPE_HALF + 1)
    sigma = 3.0  # ticks: the response peaks at 250 / (2 pi sigma) = 13 Hz
    taps = at * np.exp(-0.5 * (at / sigma) ** 2)
    # scaled so that a 13 Hz sine of 1 mV gives 1
    gain = abs(np.sum(taps * np.exp(-1j * at / sigma)))
    return (taps / gain).astype(np.float32)


@njit(cache=True)
def _median(values):  # type: ignore[no-untyped-def]
    ordered = values.copy()
    for i in range(1, ordered.shape[0]):
        value = ordered[i]
        j = i - 1
        while j >= 0 and ordered[j] > value:
            ordered[j + 1] = ordered[j]
            j -= 1
        ordered[j + 1] = value
    n = ordered.shape[0]
    return 0.5 * (ordered[(n - 1) // 2] + ordered[n // 2])


@njit(cache=True)
def _detect(rows, y, m, taps, tick, signal, slope, energy, fused, lead, levels, row_state, rr, found):  # type: ignore[no-untyped-def]
    n_leads = y.shape[1]
    longest = _HISTORY + y.shape[2]
    x = np.zeros((n_leads, longest), np.float32)
    d = np.zeros((n_leads, longest), np.float32)
    f = np.zeros((n_leads, longest), np.float32)
    s = np.zeros(longest, np.float32)
    bad = np.zeros((n_leads, longest), np.bool_)
    weight = np.zeros(n_leads)
    n_found = 0
    for k in range(rows.shape[0]):
        row = rows[k]
        n = m[k]
        end = _HISTORY + n
        base = tick[row] - _HISTORY  # tick of index 0 of the lines
        for c in range(n_leads):
            x[c, :_HISTORY] = signal[row, c]
            d[c, :_HISTORY] = slope[row, c]
            f[c, :_HISTORY] = energy[row, c]
            held = lead[row, c, _HELD]
            for i in range(n):
                value = y[k, c, i]
                bad[c, _HISTORY + i] = np.isnan(value)
                if np.isnan(value):
                    value = np.float32(0.0) if np.isnan(held) else np.float32(held)
                else:
                    if np.isnan(held):
                        x[c, :_HISTORY + i] = value
                    held = value
                x[c, _HISTORY + i] = value
            lead[row, c, _HELD] = held
            _filter(x[c], d[c], f[c], taps, _HISTORY, end)
        s[:_HISTORY] = fused[row]
        state = row_state[row]
        for i in range(_HISTORY, end):
            j = i - _SLOPE_HALF - _WINDOW_HALF
            total = 0.0
            value = 0.0
            for c in range(n_leads):
                if bad[c, i]:
                    lead[row, c, _BAD] = base + i
                energy_now = f[c, j]
                weight[c] = 0.0
                if base + j - lead[row, c, _BAD] <= _SLOPE_HALF + _WINDOW_HALF:
                    continue
                lead[row, c, _N_SEEN] += 1
                rate = max(0.0008, 1.0 / lead[row, c, _N_SEEN])
                lead[row, c, _MEAN] += rate * (energy_now - lead[row, c, _MEAN])
                lead[row, c, _PEAK] = max(energy_now, lead[row, c, _PEAK] * 0.9985)
                level = lead[row, c, _LEVEL]
                if state[_N_BEATS] < 4 or level <= 0.0:
                    level = max(level, lead[row, c, _PEAK])
                elif base + j - state[_LAST] > 500:
                    level = min(level, lead[row, c, _PEAK])
                level = max(level, 0.01)
                contrast = level / (lead[row, c, _MEAN] + 1e-6) - 1.5
                if contrast < 0.1:
                    contrast = 0.1
                if contrast > 6.0:
                    contrast = 6.0
                weight[c] = contrast * contrast
                total += weight[c]
                value += weight[c] * energy_now / level
            s[j] = value / total if total > 0.0 else 0.0
            p = j - _AHEAD
            v = s[p]
            if not (v > 0.08 and v > s[p - 1] and v >= s[p + 1]):
                continue
            largest = True
            for o in range(1, _AHEAD + 1):
                if s[p + o] > v or s[p - o] > v:
                    largest = False
                    break
            if not largest:
                continue
            best = -1
            swing = 0.0
            for c in range(n_leads):
                if weight[c] > 0.0:
                    low = x[c, p]
                    high = low
                    for o in range(-12, 13):
                        low = min(low, x[c, p + o])
                        high = max(high, x[c, p + o])
                    swing = max(swing, np.float64(high - low))
                    if best < 0 or weight[c] > weight[best]:
                        best = c
            if best < 0:
                continue
            since = base + p - state[_LAST]
            interval = min(max(_median(rr[row]), 75.0), 400.0)
            threshold = 0.36
            if since > interval:
                threshold = max(0.14, 0.36 - 0.20 * (since - interval) / interval)
            threshold = max(threshold, min(0.6, 1.5 * state[_NOISE]))
            if since < 95:
                threshold = max(threshold, 0.5 * min(state[_PREVIOUS], 2.0))
            if state[_N_BEATS] < 4:
                threshold = max(threshold, 0.5)
            accepted = since >= 50 and v > threshold and swing >= 0.15
            if not accepted:
                if since >= 50:
                    state[_NOISE] += 0.06 * (min(np.float64(v), 0.6) - state[_NOISE])
                continue
            at = _place(x[best], p)
            at = max(at, i - 62)
            if base + at <= state[_EMITTED] + 20:
                continue
            if since < 500:
                rr[row, int(state[_NEXT_RR])] = since
                state[_NEXT_RR] = (state[_NEXT_RR] + 1) % 8
            state[_LAST] = base + p
            state[_PREVIOUS] = v
            state[_EMITTED] = base + at
            for c in range(n_leads):
                if weight[c] > 0.0:
                    if state[_N_BEATS] < 4 or lead[row, c, _LEVEL] <= 0.0:
                        levels[row, c, :] = f[c, p]
                    else:
                        levels[row, c, int(state[_N_BEATS]) % 8] = f[c, p]
                    lead[row, c, _LEVEL] = _median(levels[row, c])
            state[_N_BEATS] += 1
            found[n_found, 0] = row
            found[n_found, 1] = base + at
            found[n_found, 2] = base + i
            found[n_found, 3] = swing
            found[n_found, 4] = best
            n_found += 1
        for c in range(n_leads):
            signal[row, c] = x[c, n:end]
            slope[row, c] = d[c, n:end]
            energy[row, c] = f[c, n:end]
        fused[row] = s[n:end]
        tick[row] += n
    return n_found


@njit(cache=True)
def _filter(x, d, f, taps, start, end):  # type: ignore[no-untyped-def]
    # Loops run over time inside, so they vectorise and each output still adds its terms in one fixed order.
    first = start - _SLOPE_HALF
    last = end - _SLOPE_HALF
    for i in range(first, last):
        d[i] = 0.0
    for o in range(-_SLOPE_HALF, _SLOPE_HALF + 1):
        tap = taps[o + _SLOPE_HALF]
        for i in range(first, last):
            d[i] += tap * x[i + o]
    first -= _WINDOW_HALF
    last -= _WINDOW_HALF
    for i in range(first, last):
        f[i] = 0.0
    for o in range(-_WINDOW_HALF, _WINDOW_HALF + 1):
        for i in range(first, last):
            f[i] += d[i + o] * d[i + o]
    for i in range(first, last):
        f[i] = np.sqrt(f[i] / np.float32(2 * _WINDOW_HALF + 1))


@njit(cache=True)
def _place(x, p):  # type: ignore[no-untyped-def]
    # The dominant peak: farthest from the level around the QRS, sharp rather than broad.
    best = p
    most = -1.0
    for i in range(p - _REACH, p + _REACH + 1):
        height = abs(np.float64(x[i]) - 0.5 * (np.float64(x[i - 9]) + np.float64(x[i + 9])))
        if height > most:
            most = height
            best = i
    return best
