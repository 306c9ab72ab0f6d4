"""Says once a second how far each lead can be trusted, and why not.

Signal-quality rules in the manner of Clifford et al. (Physiol Meas 2012;33:1419): missing, constant, railed, and the
noise
between the beats against the size of the signal. Deviation: no beat detector is asked, so that the two do not lean on
each other.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from model.rows import Rows

REASONS = ("ok", "off", "flat", "saturated", "noisy")
PERIOD = 250  # ticks between reports

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_N_BINS = 10  # tenths of a second, to find the quiet ones
_BIN = PERIOD // _N_BINS
_FLAT_MV = 0.03
_QRS_MV = 0.9  # noise is held against a signal of this size at least: asystole is small, not noisy
_NOISE_SHARE = 0.04  # of the size, in mean second difference: where the quality is down to 0
_FLAT_SECONDS = 2
# columns of the per-lead state
_SEEN, _LAST, _BEFORE, _LOW, _HIGH, _RUN_LOW, _RUN_HIGH, _EQUAL, _RANGE1, _RANGE2, _BASE, _N_FLAT, _N_COLUMNS = range(
    13
)


class QualityReport(NamedTuple):
    """One entry per row and second, sorted by (row, at); the second is [at - 250, at) in ticks."""

    row: Ints
    at: Ints
    quality: Floats  # (k, C) 0..1
    reason: npt.NDArray[np.uint8]  # (k, C) index into REASONS


class Quality(Rows):
    """Quality of each lead of each bed on the absolute one-second grid of ticks."""

    STATE = ("_tick", "_lead", "_bins")

    def __init__(self, n_rows: int, n_leads: int) -> None:
        self.n_rows, self.n_leads = n_rows, n_leads
        self._tick = np.zeros(n_rows, np.int64)
        self._lead = np.zeros((n_rows, n_leads, _N_COLUMNS))
        self._bins = np.zeros((n_rows, n_leads, _N_BINS))
        self.reset(np.arange(n_rows), np.zeros(n_rows, np.int64))

    def reset(self, rows: Ints, first_tick: Ints) -> None:
        """Forgets all about `rows` (k,); their next tick is `first_tick` (k,)."""
        rows = np.asarray(rows, np.int64)
        self._tick[rows] = np.asarray(first_tick, np.int64)
        self._lead[rows] = 0
        self._lead[rows, :, _LAST] = np.nan
        self._lead[rows, :, _BEFORE] = np.nan
        self._lead[rows, :, _LOW] = np.inf
        self._lead[rows, :, _HIGH] = -np.inf
        self._bins[rows] = 0

    def push(self, rows: Ints, y: Floats, m: Ints) -> QualityReport:
        """Takes the next m (k,) ticks of `rows` (k,); y (k, C, m_max) float32 mV at 250 Hz, NaN missing."""
        rows = np.asarray(rows, np.int64)
        m = np.asarray(m, np.int64)
        capacity = int((m // PERIOD + 1).sum())
        row = np.zeros(capacity, np.int64)
        at = np.zeros(capacity, np.int64)
        quality = np.zeros((capacity, self.n_leads), np.float32)
        reason = np.zeros((capacity, self.n_leads), np.uint8)
        n = _assess(
            rows, np.ascontiguousarray(y, np.float32), m, self._tick, self._lead, self._bins, row, at, quality, reason
        )
        order = np.lexsort((at[:n], row[:n]))
        return QualityReport(row[:n][order], at[:n][order], quality[:n][order], reason[:n][order])


@njit(cache=True)
def _assess(rows, y, m, tick, lead, bins, row_out, at_out, quality, reason):  # type: ignore[no-untyped-def]
    n_out = 0
    for k in range(rows.shape[0]):
        row = rows[k]
        first = tick[row]
        for i in range(m[k]):
            t = first + i
            phase = t % PERIOD
            for c in range(y.shape[1]):
                _observe(lead[row, c], bins[row, c], y[k, c, i], phase)
            if phase == PERIOD - 1:
                row_out[n_out] = row
                at_out[n_out] = t + 1
                for c in range(y.shape[1]):
                    quality[n_out, c], reason[n_out, c] = _judge(lead[row, c], bins[row, c])
                n_out += 1
        tick[row] = first + m[k]
    return n_out


@njit(cache=True)
def _observe(state, bins, value, phase):  # type: ignore[no-untyped-def]
    if np.isnan(value):
        state[_LAST] = np.nan
        state[_BEFORE] = np.nan
        return
    state[_SEEN] += 1
    if value == state[_LAST]:
        state[_EQUAL] += 1
    if not np.isnan(state[_BEFORE]):
        bins[phase // _BIN] += abs(value - 2.0 * state[_LAST] + state[_BEFORE])
    # How many samples stand on the rail, if the extreme is one.
    if value < state[_LOW] - 1e-4:
        state[_LOW] = value
        state[_RUN_LOW] = 0
    if value > state[_HIGH] + 1e-4:
        state[_HIGH] = value
        state[_RUN_HIGH] = 0
    if value <= state[_LOW] + 1e-4:
        state[_RUN_LOW] += 1
    if value >= state[_HIGH] - 1e-4:
        state[_RUN_HIGH] += 1
    state[_BEFORE] = state[_LAST]
    state[_LAST] = value


@njit(cache=True)
def _judge(state, bins):  # type: ignore[no-untyped-def]
    """Ends the second: quality and reason of a lead, and its accumulators emptied."""
    seen = state[_SEEN]
    extent = state[_HIGH] - state[_LOW] if seen > 0 else 0.0
    size = max(extent, state[_RANGE1], state[_RANGE2], _QRS_MV)
    state[_N_FLAT] = state[_N_FLAT] + 1 if extent < _FLAT_MV or state[_EQUAL] > 0.9 * seen else 0
    # The fourth quietest tenth of a second: a QRS fills one to three of them.
    noise = np.sort(bins)[3] / _BIN
    railed = max(state[_RUN_LOW], state[_RUN_HIGH])
    value = 1.0 - noise / (_NOISE_SHARE * size)
    value = max(value, 0.0)
    if seen < 0.5 * PERIOD:
        answer = (np.float32(0.0), np.uint8(1))
    elif state[_N_FLAT] >= _FLAT_SECONDS or state[_EQUAL] > 0.9 * seen:
        answer = (np.float32(0.0), np.uint8(2))
    elif railed > 0.12 * seen and extent > 1.0:
        answer = (np.float32(0.1), np.uint8(3))
    elif value < 0.3:
        answer = (np.float32(value), np.uint8(4))
    else:
        answer = (np.float32(value * seen / PERIOD), np.uint8(0))
    state[_RANGE2] = state[_RANGE1]
    state[_RANGE1] = extent
    state[_SEEN] = 0.0
    state[_EQUAL] = 0.0
    state[_LOW] = np.inf
    state[_HIGH] = -np.inf
    state[_RUN_LOW] = 0.0
    state[_RUN_HIGH] = 0.0
    bins[:] = 0.0
    return answer
