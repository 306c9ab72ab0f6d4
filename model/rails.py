"""Takes out a lead that jumps from rail to rail, where another lead goes on.

A loose electrode drives the amplifier from one limit of its range to another: stretches of constant voltage at levels
far apart, with steps between them that are larger than any QRS and hide the beats that other leads show. Our own rule:
a lead that stood still for 0.2 s at two levels 0.5 mV or more apart within 10 s is not there for the next 10 s. A lead
that returns to one level, as between beats without noise, is none of it; nor is one taken out while no other is left.
"""

import numpy as np
import numpy.typing as npt
from numba import njit

from model.rows import Rows

STILL = 50  # ticks of 4 ms without change that make a level
APART_MV = 0.5
HOLD = 2500  # ticks within which two levels are of one trouble, and for which it is expected to go on

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_SAME_MV = 0.004
_MOVES = 500  # ticks within which a lead that is one moves
_NEVER = -(2.0**62)
# columns of the state of a lead
_VALUE, _RUN, _LEVEL, _LEVEL_AT, _BAD_AT, _SEEN_AT, _N_COLUMNS = range(7)


class Rails(Rows):
    """The state of all leads of rows of beds."""

    STATE = ("_tick", "_lead")

    def __init__(self, n_rows: int, n_leads: int) -> None:
        self._tick = np.zeros(n_rows, np.int64)
        self._lead = np.zeros((n_rows, n_leads, _N_COLUMNS))
        self.reset(np.arange(n_rows), np.zeros(n_rows, np.int64))

    def reset(self, rows: Ints, first_tick: Ints) -> None:
        """Forgets all about `rows` (k,); their next tick is `first_tick` (k,)."""
        self._tick[rows] = first_tick
        self._lead[rows] = np.nan
        self._lead[rows, :, _LEVEL_AT:] = _NEVER

    def push(self, rows: Ints, y: Floats, m: Ints) -> None:
        """Takes the next m (k,) ticks of `rows` (k,) and sets what is to be taken out of y (k, C, m_max) float32 mV at
        250 Hz, NaN missing, to NaN."""
        _take_out(rows, y, m, self._tick, self._lead)


@njit(cache=True)
def _take_out(rows, y, m, tick, leads):  # type: ignore[no-untyped-def]
    n_leads = y.shape[1]
    for k in range(rows.shape[0]):
        row = rows[k]
        for i in range(m[k]):
            t = tick[row] + i
            left = 0
            for c in range(n_leads):
                _look(leads[row, c], y[k, c, i], t)
                lead = leads[row, c]
                left += t - lead[_SEEN_AT] < _MOVES and t - lead[_BAD_AT] >= HOLD
            if left > 0:
                for c in range(n_leads):
                    if t - leads[row, c, _BAD_AT] < HOLD:
                        y[k, c, i] = np.nan
        tick[row] += m[k]


@njit(cache=True)
def _look(state, value, t):  # type: ignore[no-untyped-def]
    """The next value of a lead. `_SEEN_AT`: when it last was there and moved."""
    if np.isnan(value):
        state[_VALUE] = np.nan
        return
    if abs(value - state[_VALUE]) <= _SAME_MV:
        state[_RUN] += 1.0
    else:
        state[_VALUE] = value
        state[_RUN] = 0.0
        state[_SEEN_AT] = t
    if state[_RUN] == STILL:
        if abs(value - state[_LEVEL]) > APART_MV and t - state[_LEVEL_AT] < HOLD:
            state[_BAD_AT] = t
        state[_LEVEL] = value
    if state[_RUN] >= STILL:
        state[_LEVEL_AT] = t
