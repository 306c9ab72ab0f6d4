"""The VF index: a number for "this looks like ventricular fibrillation or flutter", from the signal alone, every half
second.

Features of the last four seconds of each lead (`model.vf_features`); a network with one hidden layer and boosted trees
(Friedman, Annals of Statistics 2001) each turn them into the log-odds of VF against all else, organised ventricular
tachycardia included; the mean of both is averaged over leads and over the last three reports. A lead that is missing,
or small over the window or in any second of it (asystole), has no say. Where no lead has, the index is 0 at once; where
that is because none has been there for the four seconds, it is NaN, and VF that stands ends as for 0.
No heart goes 2.5 mV from tick to tick (4 ms; the resampler spreads what other rates than 250 Hz bring): a lead that
did in its window (a loose electrode, an amplifier off its rail) is not heard where another is; where all did, the index
stays what it was before. After six seconds of it, or where nothing stood before, all are heard.
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit
from safetensors.numpy import load_file

from model.rows import Rows
from model.vf_features import N_FEATURES, N_SAMPLES, describe, spectral_waves

PERIOD = 125  # ticks between reports
WINDOW = 1000  # ticks a report looks back

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_N = N_SAMPLES
_N_RECENT = 2  # reports before the present one that it is averaged with
_LEAP_MV = 2.5  # from tick to tick
_MAX_HELD = 12  # reports that a lead may leap before it is heard all the same
_N_BLOCKS = WINDOW // PERIOD
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
    index: Floats  # type: ignore[assignment]  # 0..1, NaN where no lead has a whole window; hides tuple.index
    changes: list[VfChange]


class VfIndex(Rows):
    """VF index of each bed on the absolute half-second grid of ticks, with hysteresis."""

    STATE = ("_tick", "_line", "_filter", "_leapt", "_hold", "_recent", "_held")

    def __init__(self, n_rows: int, n_leads: int) -> None:
        self.n_rows, self.n_leads = n_rows, n_leads
        self._tick = np.zeros(n_rows, np.int64)
        self._line = np.full((n_rows, n_leads, _N), np.nan, np.float32)
        self._filter = np.zeros((n_rows, n_leads, 5))
        self._leapt = np.zeros((n_rows, n_leads, _N_BLOCKS + 1), np.bool_)  # per half second, newest last
        self._hold = np.zeros((n_rows, 3), np.int64)
        self._recent = np.full((n_rows, _N_RECENT), np.nan)
        self._held = np.tile([np.nan, 0.0], (n_rows, 1))  # log-odds before a lead leapt, reports since then
        self._waves = spectral_waves()
        net = load_file(WEIGHTS)
        self._net = tuple(net[name] for name in ("mean", "scale", "w1", "b1", "w2", "b2"))
        self._trees = tuple(net[name] for name in ("roots", "feature", "bound", "left", "right", "value"))
        self.reset(np.arange(n_rows), np.zeros(n_rows, np.int64))

    def reset(self, rows: Ints, first_tick: Ints) -> None:
        """Forgets all about `rows` (k,), a standing VF too; their next tick is `first_tick` (k,)."""
        rows = np.asarray(rows, np.int64)
        self._tick[rows] = np.asarray(first_tick, np.int64)
        self._line[rows] = np.nan
        self._filter[rows] = np.nan
        self._leapt[rows] = False
        self._hold[rows] = 0
        self._recent[rows] = np.nan
        self._held[rows] = np.nan, 0

    def push(self, rows: Ints, y: Floats, m: Ints) -> VfReport:
        """Takes the next m (k,) ticks of `rows` (k,); y (k, C, m_max) float32 mV at 250 Hz, NaN missing."""
        report, changes, _, _ = self._run(rows, y, m)
        order = np.lexsort((report[:, 1], report[:, 0]))
        report = report[order]
        turned = changes[np.lexsort((changes[:, 2], changes[:, 0]))]
        return VfReport(
            report[:, 0].astype(np.int64),
            report[:, 1].astype(np.int64),
            report[:, 2].astype(np.float32),
            [VfChange(int(r), int(onset), int(decided), bool(on)) for r, onset, decided, on in turned],
        )

    def features(self, rows: Ints, y: Floats, m: Ints) -> tuple[Ints, Ints, Doubles, Bools]:
        """As `push`, but gives row, at, the features (k, C, F) that the index is made of (NaN where a lead has none)
        and whether the lead leapt (k, C); for fitting.
        """
        report, _, features, leapt = self._run(rows, y, m)
        return report[:, 0].astype(np.int64), report[:, 1].astype(np.int64), features, leapt

    def _run(self, rows: Ints, y: Floats, m: Ints) -> tuple[Doubles, Ints, Doubles, Bools]:
        rows = np.asarray(rows, np.int64)
        m = np.asarray(m, np.int64)
        capacity = int((m // PERIOD + 1).sum())
        report = np.zeros((capacity, 3))
        changes = np.zeros((capacity, 4), np.int64)
        features = np.full((capacity, self.n_leads, N_FEATURES), np.nan)
        leapt = np.zeros((capacity, self.n_leads), np.bool_)
        n, n_changes = _index(
            rows,
            np.ascontiguousarray(y, np.float32),
            m,
            self._tick,
            self._line,
            self._filter,
            self._leapt,
            self._hold,
            self._recent,
            self._held,
            self._waves,
            self._net,
            self._trees,
            report,
            changes,
            features,
            leapt,
        )
        return report[:n], changes[:n_changes], features[:n], leapt[:n]


def shockable(by_model: float, vt: float, index: float) -> float:
    """Probability that the end of a window is shockable, from the model's, from its probability of VT, and from the VF
    index there: VT, of which the index knows nothing, or else the mean of the log-odds, each 7 at most, of model and
    index. The model's alone where the index is NaN."""
    if math.isnan(index):
        return by_model
    least = math.exp(-7.0)
    one, other = (min(max(p, least), 1.0 - least) for p in (by_model, index))
    odds = math.sqrt(one / (1.0 - one) * other / (1.0 - other))
    return vt + (1.0 - vt) * odds / (1.0 + odds)


@njit(cache=True)
def _index(  # type: ignore[no-untyped-def]
    rows, y, m, tick, lines, filters, leaps, hold, recent, held, waves, net, trees, report, changes, features, leapt
):
    n_out = 0
    n_changes = 0
    n_leads = y.shape[1]
    slow_pole = np.exp(-2.0 * np.pi * 0.8 / 250.0)
    fast_pole = np.exp(-2.0 * np.pi * 35.0 / 250.0)
    line = np.zeros((n_leads, _N + y.shape[2] // 2 + 1), np.float32)
    blocks = np.zeros((n_leads, _N_BLOCKS + y.shape[2] // PERIOD + 2), np.bool_)
    for k in range(rows.shape[0]):
        row = rows[k]
        first = tick[row]
        n = m[k]
        filled = _N
        oldest = first // PERIOD - _N_BLOCKS  # block, half a second, that `blocks` begin with
        blocks[:] = False
        for c in range(n_leads):
            state = filters[row, c]
            blocks[c, : _N_BLOCKS + 1] = leaps[row, c]
            line[c, :_N] = lines[row, c]
            filled = _N
            for i in range(n):
                value = np.float64(y[k, c, i])
                if np.isnan(value):
                    state[:] = np.nan
                else:
                    if np.isnan(state[0]):
                        state[0] = value
                        state[1:4] = 0.0
                        state[4] = value
                    if abs(value - state[4]) > _LEAP_MV:
                        blocks[c, (first + i) // PERIOD - oldest] = True
                    state[4] = value
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
        for at in range((first // PERIOD + 1) * PERIOD, first + n + 1, PERIOD):
            end = filled - ((first + n) // 2 - at // 2)
            newest = at // PERIOD - 1 - oldest
            calm = leaping = 0.0
            n_calm = n_leaping = 0
            for c in range(n_leads):
                for j in range(newest - _N_BLOCKS + 1, newest + 1):
                    leapt[n_out, c] |= blocks[c, j]
                if describe(line[c, end - _N : end], waves, features[n_out, c]):
                    z = 0.5 * (_log_odds(features[n_out, c], *net) + _tree_log_odds(features[n_out, c], *trees))
                    if leapt[n_out, c]:
                        leaping += z
                        n_leaping += 1
                    else:
                        calm += z
                        n_calm += 1
            z, still = over_reports(calm, n_calm, leaping, n_leaping, recent[row], held[row])
            index = 0.0 if np.isnan(z) else 1.0 / (1.0 + np.exp(-z))
            report[n_out, 0] = row
            report[n_out, 1] = at
            # A lead that had a say is whole: only where none had is it looked for.
            report[n_out, 2] = np.nan if np.isnan(z) and not _any_whole(line, end) else index
            n_out += 1
            if still:  # no news: it neither turns the state nor breaks what was about to
                continue
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
        for c in range(n_leads):
            lines[row, c] = line[c, filled - _N : filled]
            newest = (first + n) // PERIOD - oldest
            leaps[row, c] = blocks[c, newest - _N_BLOCKS : newest + 1]
        tick[row] = first + n
    return n_out, n_changes


@njit(cache=True)
def _any_whole(line, end):  # type: ignore[no-untyped-def]
    """Whether a lead has all samples of the window that ends there."""
    for c in range(line.shape[0]):
        whole = True
        for i in range(end - _N, end):
            whole &= not np.isnan(line[c, i])
        if whole:
            return True
    return False


@njit(cache=True)
def _log_odds(features, mean, scale, w1, b1, w2, b2):  # type: ignore[no-untyped-def]
    """Of VF against the two others: w1 (F, H), w2 (H, 3) to the classes other, VF, organised VT."""
    n_hidden = w1.shape[1]
    hidden = np.zeros(n_hidden)
    for h in range(n_hidden):
        hidden[h] = b1[h]
    for f in range(features.shape[0]):
        value = min(max((features[f] - mean[f]) * scale[f], -5.0), 5.0)
        for h in range(n_hidden):
            hidden[h] += w1[f, h] * value
    out = np.zeros(3)
    for k in range(3):
        out[k] = b2[k]
    for h in range(n_hidden):
        unit = np.tanh(hidden[h])
        for k in range(3):
            out[k] += w2[h, k] * unit
    most = max(out[0], out[2])
    return out[1] - most - np.log(np.exp(out[0] - most) + np.exp(out[2] - most))


@njit(cache=True)
def _tree_log_odds(features, roots, feature, bound, left, right, value):  # type: ignore[no-untyped-def]
    """Of VF against all else: sum over trees; all their nodes in one row, `feature` -1 at a leaf."""
    total = 0.0
    for root in roots:
        node = root
        while feature[node] >= 0:
            node = left[node] if features[feature[node]] <= bound[node] else right[node]
        total += value[node]
    return total


@njit(cache=True)
def over_reports(calm, n_calm, leaping, n_leaping, recent, held):  # type: ignore[no-untyped-def]
    """Log-odds of the index, NaN for none, from the sums over the leads that did not leap and over those that did; and
    whether it stands still because all leapt.

    `recent` (2,): log-odds of the reports before, `held` (2,): what stood before a lead leapt, reports since then.
    """
    if n_calm + n_leaping == 0:
        held[0] = _smoothed(np.nan, recent)
        return held[0], False
    held[1] = held[1] + 1.0 if n_leaping > 0 else 0.0
    if held[1] > _MAX_HELD or (n_calm == 0 and np.isnan(held[0])):
        return _smoothed((calm + leaping) / (n_calm + n_leaping), recent), False
    if n_calm == 0:
        _smoothed(np.nan, recent)
        return held[0], True
    held[0] = _smoothed(calm / n_calm, recent)
    return held[0], False


@njit(cache=True)
def _smoothed(z, recent):  # type: ignore[no-untyped-def]
    """Mean of the log-odds of this report (NaN: none) and of the few before it, which it joins."""
    total = z
    count = 1.0
    for j in range(recent.shape[0]):
        if not np.isnan(recent[j]):
            total += recent[j]
            count += 1.0
    for j in range(recent.shape[0] - 1):
        recent[j] = recent[j + 1]
    recent[recent.shape[0] - 1] = z
    return total / count
