"""Finds the pulse beats of plethysmogram and arterial pressure online: what says that the heart pumps whatever the ECG
shows.

The slope sum function of Zong et al. (Computers in Cardiology 2003;30:259): the rises of the smoothed signal added up
over 128 ms. Its peaks over an adaptive threshold are beats. Deviations: a fixed decision delay in place of a search for
the onset, so that the result does not depend on chunking; and each beat is told with what says whether it can be
believed, as it is evidence against an alarm: its height against the usual one, and its wave's likeness to the usual.

All signals of all beds are served by one compiled call. A missing sample starts a signal afresh.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from model.rows import Rows

SIGNALS = ("pleth", "abp")  # the kinds of signals looked at, in this order
DELAY = 50  # ticks of 4 ms after which a beat is decided

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_RISE = 32  # ticks over which rises are added up
_HISTORY = 128
_REFRACTORY = 60
_SHAPE = 24  # points of the wave kept, 4 ticks apart: 48 before to 44 after the steepest rise has ended
_SHAPE_FROM = 48
_LOWPASS_HZ = 12.0
_ROUGH_TICKS = 250.0  # over which the steps of the raw signal are averaged
_TOO_ROUGH = 0.08  # of the height, in mean step: no wave but noise that was smoothed (a pulse of 200/min has 0.03)
_LEVEL_SHARE, _USUAL_SHARE, _SHAPE_SHARE = 1 / 6, 1 / 24, 1 / 12  # how fast what is usual follows a beat
_LEARNT = 6  # beats from which on there is a usual one
_STILL, _LOST = 500, 1250  # ticks without a beat: look at half the height; learn anew
# columns of a signal's state
(_SMOOTH1, _SMOOTH2, _RAW, _ROUGH, _LEVEL, _USUAL, _TOP, _TOP_AT, _LAST, _N_BEATS, _N_COLUMNS) = range(11)


class Pulses(NamedTuple):
    """Pulse beats, sorted by (row, decided)."""

    row: Ints
    signal: Ints  # index into SIGNALS
    at: Ints  # tick at which the rise ends
    decided: Ints  # last tick that the decision needed: at + DELAY
    ratio: Floats  # height of the rise against the usual one; 0 while nothing is usual yet
    likeness: Floats  # correlation of the wave with the usual one, -1..1; 0 while nothing is usual, and in noise


_NONE = np.zeros(0, np.int64)
NO_PULSES = Pulses(_NONE, _NONE, _NONE, _NONE, np.zeros(0, np.float32), np.zeros(0, np.float32))


class PulseDetector(Rows):
    """Pulse beats of rows of beds, at 250 Hz, in any unit."""

    STATE = ("_tick", "_signal", "_wave", "_rise", "_shape")

    def __init__(self, n_rows: int) -> None:
        self.n_rows, n = n_rows, len(SIGNALS)
        self._tick = np.zeros(n_rows, np.int64)
        self._signal = np.zeros((n_rows, n, _N_COLUMNS))
        self._wave = np.zeros((n_rows, n, _HISTORY))
        self._rise = np.zeros((n_rows, n, _RISE))
        self._shape = np.zeros((n_rows, n, _SHAPE))
        self.reset(np.arange(n_rows), np.zeros(n_rows, np.int64))

    def reset(self, rows: Ints, first_tick: Ints) -> None:
        """Forgets all about `rows` (k,); their next tick is `first_tick` (k,)."""
        rows = np.asarray(rows, np.int64)
        self._tick[rows] = np.asarray(first_tick, np.int64)
        self._signal[rows] = 0.0
        self._signal[rows, :, _SMOOTH1] = np.nan
        for array in (self._wave, self._rise, self._shape):
            array[rows] = 0.0

    def push(self, rows: Ints, y: Floats, m: Ints) -> Pulses:
        """Takes the next m (k,) ticks of `rows` (k,); y (k, len(SIGNALS), m_max) float32 at 250 Hz, NaN missing."""
        rows = np.asarray(rows, np.int64)
        m = np.asarray(m, np.int64)
        found = np.zeros((int((m // _REFRACTORY + 2).sum()) * len(SIGNALS), 6))
        n = _detect(
            rows, np.ascontiguousarray(y, np.float32), m, self._tick, self._signal, self._wave, self._rise,
            self._shape, found,
        )  # fmt: skip
        found = found[:n][np.lexsort((found[:n, 1], found[:n, 3], found[:n, 0]))]
        whole = found[:, :4].astype(np.int64)
        return Pulses(*whole.T, *found[:, 4:].astype(np.float32).T)


@njit(cache=True)
def _detect(rows, y, m, tick, signals, waves, rises, shapes, found):  # type: ignore[no-untyped-def]
    n_found = 0
    pole = np.exp(-2.0 * np.pi * _LOWPASS_HZ / 250.0)
    for k in range(rows.shape[0]):
        row = rows[k]
        first = tick[row]
        for c in range(y.shape[1]):
            state = signals[row, c]
            wave = waves[row, c]
            rise = rises[row, c]
            for i in range(m[k]):
                t = first + i
                value = np.float64(y[k, c, i])
                if np.isnan(value):
                    state[_SMOOTH1] = np.nan
                    continue
                if np.isnan(state[_SMOOTH1]):
                    _begin(state, wave, rise, shapes[row, c], value, t)
                state[_ROUGH] += (abs(value - state[_RAW]) - state[_ROUGH]) / _ROUGH_TICKS
                state[_RAW] = value
                state[_SMOOTH1] = pole * state[_SMOOTH1] + (1.0 - pole) * value
                before = state[_SMOOTH2]
                state[_SMOOTH2] = pole * before + (1.0 - pole) * state[_SMOOTH1]
                wave[t % _HISTORY] = state[_SMOOTH2]
                rise[t % _RISE] = max(state[_SMOOTH2] - before, 0.0)
                total = 0.0
                for j in range(_RISE):
                    total += rise[j]
                if total > state[_TOP]:
                    state[_TOP] = total
                    state[_TOP_AT] = t
                elif t - state[_TOP_AT] >= DELAY:
                    at = np.int64(state[_TOP_AT])
                    height = state[_TOP]
                    state[_TOP] = total
                    state[_TOP_AT] = t
                    if at - state[_LAST] >= _REFRACTORY and _is_beat(state, height, at):
                        ratio, likeness = _learn(state, shapes[row, c], wave, height, at)
                        found[n_found, 0] = row
                        found[n_found, 1] = c
                        found[n_found, 2] = at
                        found[n_found, 3] = t
                        found[n_found, 4] = ratio
                        found[n_found, 5] = likeness
                        n_found += 1
        tick[row] = first + m[k]
    return n_found


@njit(cache=True)
def _begin(state, wave, rise, shape, value, t):  # type: ignore[no-untyped-def]
    """The signal is there (again): nothing is known of it."""
    state[:] = 0.0
    state[_SMOOTH1] = value
    state[_SMOOTH2] = value
    state[_RAW] = value
    state[_TOP_AT] = t
    state[_LAST] = t - _REFRACTORY
    wave[:] = value
    rise[:] = 0.0
    shape[:] = 0.0


@njit(cache=True)
def _is_beat(state, height, at):  # type: ignore[no-untyped-def]
    if height <= 0.0:
        return False
    if state[_N_BEATS] < _LEARNT or at - state[_LAST] > _LOST:  # learn: the largest of late
        state[_LEVEL] = max(height, 0.9 * state[_LEVEL])
    least = 0.25 if at - state[_LAST] > _STILL else 0.5
    return height >= least * state[_LEVEL]


@njit(cache=True)
def _learn(state, shape, wave, height, at):  # type: ignore[no-untyped-def]
    """Takes a beat into what is usual; its height and wave against what was usual before it."""
    new = np.zeros(_SHAPE)
    mean = 0.0
    for j in range(_SHAPE):
        new[j] = wave[(at - _SHAPE_FROM + 4 * j) % _HISTORY]
        mean += new[j] / _SHAPE
    square = 1e-12
    for j in range(_SHAPE):
        new[j] -= mean
        square += new[j] * new[j]
    both = 0.0
    usual = 1e-12
    for j in range(_SHAPE):
        new[j] /= np.sqrt(square)
        both += new[j] * shape[j]
        usual += shape[j] * shape[j]
    known = state[_N_BEATS] >= _LEARNT
    if not known and height > 1.4 * state[_USUAL]:  # what was there before it were no beats
        state[_N_BEATS] = 0.0
    ratio = height / state[_USUAL] if known else 0.0
    likeness = both / np.sqrt(usual) if known and state[_ROUGH] < _TOO_ROUGH * height else 0.0
    state[_N_BEATS] += 1.0
    share = max(_SHAPE_SHARE, 1.0 / state[_N_BEATS])
    for j in range(_SHAPE):
        shape[j] += share * (new[j] - shape[j])
    if known:
        state[_LEVEL] += _LEVEL_SHARE * (min(height, 2.0 * state[_LEVEL]) - state[_LEVEL])
        share = max(_USUAL_SHARE, 1.0 / state[_N_BEATS])
        state[_USUAL] += share * (min(max(height, 0.5 * state[_USUAL]), 2.0 * state[_USUAL]) - state[_USUAL])
    else:
        state[_LEVEL] += (height - state[_LEVEL]) / state[_N_BEATS]
        state[_USUAL] += (height - state[_USUAL]) / state[_N_BEATS]
    state[_LAST] = at
    return ratio, likeness
