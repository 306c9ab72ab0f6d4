"""Finds the R peaks of all beds online: causal, several leads, an R peak out at most 250 ms after its sample.

The chain per lead is that of Pan and Tompkins (IEEE Trans Biomed Eng 1985;32:230): a band-pass that is also a
derivative,
squared, averaged over a QRS width. Deviations: the filter is the derivative of a Gaussian (linear phase, short);
leads are
fused as ratios to their own running QRS level, weighted by their contrast, so that a lead may fall off or return; and
where Pan and Tompkins compare a peak with thresholds, a small network (27 ratios, one hidden layer, monotone in those
whose sense is known: more energy, more likeness to the last beats, a longer wait never make a beat less likely) judges
it. Search-back, which a bounded delay forbids, is what the wait since the last beat does in that judgement.

All per-tick work is one compiled call for all rows. Each decision is made at a fixed tick from state at that tick, so
the result is bit for bit the same however the signal is cut into chunks and whichever rows share a call.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit
from safetensors.numpy import load_file

DELAY = 62  # ticks: an R peak at tick t is out when tick t + DELAY has been pushed

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Net = tuple[Floats, Floats, Floats, Floats]

WEIGHTS = Path(__file__).parent / "weights" / "periods.safetensors"

N_FEATURES = 27
_HISTORY = 256  # ticks kept per lead
_N_LEVELS = 8  # beats in a running level
_SLOPE_HALF = 10  # half length of the derivative filter
_WINDOW_HALF = 10  # half length of the energy window
_AHEAD = 26  # a candidate is the largest within so many ticks after it
_REACH = 15  # an R peak lies within so many ticks of its energy peak
_LATEST = _AHEAD + 24  # and is judged at the latest with so many ticks of energy after it
_NEAREST = 45  # ticks between two beats at least
_FLOOR_MV = 0.15

# columns of the per-row state
(
    _LAST,
    _PREVIOUS,
    _N_BEATS,
    _NOISE,
    _LAST_RR,
    _EMITTED,
    _REJECTED,
    _REJECTED_AT,
    _TAIL,
    _TAIL_LEVEL,
    _CANDIDATE,
    _PLACE,
    _PLACED_ON,
    _N_COLUMNS,
) = range(14)
# columns of the per-lead state
_LEVEL, _MEAN, _BAD, _N_SEEN, _HELD, _PEAK, _BROAD, _ROUGH, _N_LEAD_COLUMNS = range(9)
_NONE = -1e12  # no candidate is waiting
_SHAPE_HALF = 20  # half length of the QRS template


class Beats(NamedTuple):
    """R peaks, sorted by (row, at)."""

    row: Ints
    at: Ints  # tick of the R peak
    decided: Ints  # last tick that the decision needed; decided - at <= DELAY
    amplitude: Floats  # mV, peak to peak of the QRS on `lead`
    lead: Ints  # the lead that the peak was placed on


class PeriodDetector:
    """Online R-peak detector over rows of beds; see the module's text for the method."""

    def __init__(self, n_rows: int, n_leads: int, net: Net | None = None) -> None:
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
        self._shape = np.zeros((n_rows, n_leads, 2 * _SHAPE_HALF + 1), np.float32)
        self._taps = _slope_taps()
        self._net = load_net() if net is None else net
        self.reset(np.arange(n_rows), np.zeros(n_rows, np.int64))

    def reset(self, rows: Ints, first_tick: Ints) -> None:
        """Forgets all about `rows` (k,); their next tick is `first_tick` (k,)."""
        rows = np.asarray(rows, np.int64)
        first = np.asarray(first_tick, np.int64)
        self._tick[rows] = first
        for array in (
            self._signal,
            self._slope,
            self._energy,
            self._fused,
            self._lead,
            self._levels,
            self._row,
            self._shape,
        ):
            array[rows] = 0
        self._lead[rows, :, _BAD] = first[:, None] - 1
        self._lead[rows, :, _HELD] = np.nan
        self._row[rows, _LAST] = first - 1000
        self._row[rows, _EMITTED] = first - 1000
        self._row[rows, _REJECTED] = 0.02
        self._row[rows, _REJECTED_AT] = first
        self._row[rows, _NOISE] = 0.1
        self._row[rows, _CANDIDATE] = _NONE
        self._row[rows, _TAIL_LEVEL] = 0.2
        self._rr[rows] = 200

    def push(self, rows: Ints, y: Floats, m: Ints) -> Beats:
        """Takes the next m (k,) ticks of `rows` (k,); y (k, C, m_max) float32 mV at 250 Hz, NaN missing.

        Returns the beats that these ticks decided.
        """
        found, _ = self._run(rows, y, m, np.zeros((0, 3 + N_FEATURES), np.float32))
        return _beats(found[np.lexsort((found[:, 1], found[:, 0]))])

    def candidates(self, rows: Ints, y: Floats, m: Ints) -> Floats:
        """As `push`, but gives every candidate judged, (k, 3 + F): row, tick, score (a beat above 0), features; for
        fitting.
        """
        rate = int(np.asarray(m).sum()) // _AHEAD + 2 * len(rows)
        return self._run(rows, y, m, np.zeros((rate, 3 + N_FEATURES), np.float32))[1]

    def _run(self, rows: Ints, y: Floats, m: Ints, trace: Floats) -> tuple[npt.NDArray[np.float64], Floats]:
        rows = np.asarray(rows, np.int64)
        m = np.asarray(m, np.int64)
        found = np.zeros((int((m // _AHEAD + 2).sum()), 5))
        n, n_traced = _detect(
            rows, np.ascontiguousarray(y, np.float32), m, self._taps, self._tick, self._signal, self._slope,
            self._energy, self._fused, self._lead, self._levels, self._row, self._rr,
            self._shape, *self._net, found, trace,
        )  # fmt: skip
        return found[:n], trace[:n_traced]

    def flush(self, rows: Ints) -> Beats:
        """Decides what is pending at the end of `rows`, as if the signal were missing from here on. A reset must
        follow.
        """
        rows = np.asarray(rows, np.int64)
        end = self._tick[rows].copy()
        beats = self.push(
            rows, np.full((len(rows), self.n_leads, DELAY), np.nan, np.float32), np.full(len(rows), DELAY)
        )
        last = np.zeros(self.n_rows, np.int64)
        last[rows] = end
        inside = beats.at < last[beats.row]
        return Beats(
            beats.row[inside], beats.at[inside], beats.decided[inside], beats.amplitude[inside], beats.lead[inside]
        )

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


_STATE = ("tick", "signal", "slope", "energy", "fused", "lead", "levels", "row", "rr", "shape")


def _slope_taps() -> Floats:
    at = np.arange(-_SLOPE_HALF, _SLOPE_HALF + 1)
    sigma = 3.0  # ticks: the response peaks at 250 / (2 pi sigma) = 13 Hz
    taps = at * np.exp(-0.5 * (at / sigma) ** 2)
    # scaled so that a 13 Hz sine of 1 mV gives 1
    gain = abs(np.sum(taps * np.exp(-1j * at / sigma)))
    scaled: Floats = (taps / gain).astype(np.float32)
    return scaled


def load_net(path: Path = WEIGHTS) -> Net:
    """The judge of candidates: w1 (H, F), b1 (H,), w2 (H,), b2 (1,) float32."""
    tensors = load_file(path)
    return tensors["w1"], tensors["b1"], tensors["w2"], tensors["b2"]


def _beats(found: npt.NDArray[np.float64]) -> Beats:
    return Beats(
        found[:, 0].astype(np.int64),
        found[:, 1].astype(np.int64),
        found[:, 2].astype(np.int64),
        found[:, 3].astype(np.float32),
        found[:, 4].astype(np.int64),
    )


@njit(cache=True)
def _is_peak(s, p):  # type: ignore[no-untyped-def]
    # While the level is still being learnt the fused energy stands at 1 on a rise, so of equals the last one counts.
    v = s[p]
    if v <= 0.08 or v < s[p - 1]:
        return False
    for o in range(1, _AHEAD + 1):  # noqa: SIM110 (compiled)
        if s[p + o] >= v or s[p - o] > v:
            return False
    return True


@njit(cache=True)
def _two_best(weight):  # type: ignore[no-untyped-def]
    best = -1
    second = -1
    for c in range(weight.shape[0]):
        if weight[c] <= 0.0:
            continue
        if best < 0 or weight[c] > weight[best]:
            second = best
            best = c
        elif second < 0 or weight[c] > weight[second]:
            second = c
    return best, second


@njit(cache=True)
def _swing(x, p):  # type: ignore[no-untyped-def]
    low = x[p]
    high = low
    for o in range(-12, 13):
        low = min(low, x[p + o])
        high = max(high, x[p + o])
    return np.float64(high - low)


@njit(cache=True)
def _texture(x, f, p):  # type: ignore[no-untyped-def]
    """How broad (swing for its slope) and how rough (second differences for its slope) the wave at p is, in
    logarithms.
    """
    rough = 0.0
    for o in range(-10, 11):
        rough += abs(np.float64(x[p + o + 1]) - 2.0 * np.float64(x[p + o]) + np.float64(x[p + o - 1]))
    size = np.float64(f[p]) + 1e-4
    return np.log((_swing(x, p) + 1e-4) / size), np.log((rough / 21.0 + 1e-4) / size)


@njit(cache=True)
def _likeness(d, shape, p):  # type: ignore[no-untyped-def]
    """Largest correlation of the slope at p with the running QRS, over lags of +-4 ticks."""
    top = -1.0
    own = 1e-9
    for o in range(41):
        own += np.float64(shape[o]) * shape[o]
    for lag in range(-4, 5):
        norm = 1e-9
        dot = 0.0
        for o in range(41):
            value = np.float64(d[p + lag + o - 20])
            norm += value * value
            dot += value * shape[o]
        top = max(top, dot / np.sqrt(norm * own))
    return top


@njit(cache=True)
def _describe(x, d, f, s, p, newest, best, second, weight, lead, shape, state, rr, base, z):  # type: ignore[no-untyped-def]
    """Fills the features of the candidate at p; all but z[3] are ratios."""
    v = np.float64(s[p]) + 1e-6
    since = min(max(base + p - state[_LAST], 1.0), 1000.0)
    interval = min(max(_median(rr), 60.0), 500.0)
    z[0] = np.log(v)
    z[1] = np.log(state[_PREVIOUS] + 0.05)
    z[2] = min(max(np.log(since / interval), -2.0), 2.0)
    z[3] = np.log(since / 250.0)
    z[4] = np.log(state[_NOISE] + 0.02)
    z[5] = max(np.log(f[best, p] / max(lead[best, _LEVEL], 0.01) + 1e-4), -5.0)
    z[6] = z[5]
    z[7] = 0.0
    z[8] = np.log((lead[best, _MEAN] + 1e-4) / max(lead[best, _LEVEL], 0.01))
    z[9] = _likeness(d[best], shape[best], p)
    z[10] = z[9]
    z[11] = s[p - 10] / v
    z[12] = s[p + 10] / v
    z[13] = s[p - 18] / v
    z[14] = s[p + 18] / v
    most = 0.0
    mean = 0.0
    for o in range(22, 81):
        most = max(most, np.float64(s[p - o]))
        if o <= 60:
            mean += s[p - o]
    z[15] = np.log(most / v + 0.02)
    most = 0.0
    for o in range(20, min(newest - p, 46) + 1):
        most = max(most, np.float64(s[p + o]))
    z[16] = np.log(most / v + 0.02)
    z[17] = np.log(mean / 39.0 / v + 0.02)
    z[18] = np.log(v / (state[_TAIL_LEVEL] + 0.02))
    broad, rough = _texture(x[best], f[best], p)
    z[19] = broad - lead[best, _BROAD]
    z[20] = rough - lead[best, _ROUGH]
    z[21] = z[19]
    z[22] = z[20]
    if second >= 0:
        z[6] = max(np.log(f[second, p] / max(lead[second, _LEVEL], 0.01) + 1e-4), -5.0)
        z[7] = weight[second] / weight[best]
        z[10] = _likeness(d[second], shape[second], p)
        broad, rough = _texture(x[second], f[second], p)
        z[21] = broad - lead[second, _BROAD]
        z[22] = rough - lead[second, _ROUGH]
    hiss = 0.0
    for o in range(20, 61):
        hiss += abs(np.float64(x[best, p - o + 1]) - 2.0 * np.float64(x[best, p - o]) + np.float64(x[best, p - o - 1]))
    z[23] = np.log((hiss / 41.0 + 1e-4) / (f[best, p] + 1e-4))
    z[24] = min(state[_N_BEATS], 8.0) / 8.0
    z[25] = np.log(state[_REJECTED] / v)
    z[26] = min((base + p - state[_REJECTED_AT]) / interval, 2.0)


@njit(cache=True)
def _judge(z, w1, b1, w2, b2):  # type: ignore[no-untyped-def]
    """Score of a candidate, above 0 for a QRS: one hidden layer."""
    score = np.float64(b2[0])
    for h in range(w1.shape[0]):
        unit = np.float64(b1[h])
        for i in range(w1.shape[1]):
            unit += np.float64(w1[h, i]) * z[i]
        score += w2[h] * np.tanh(unit)
    return score


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
def _detect(  # type: ignore[no-untyped-def]
    rows, y, m, taps, tick, signal, slope, energy, fused, lead, levels, row_state, rr, shape,
    w1, b1, w2, b2, found, trace,
):  # fmt: skip
    n_leads = y.shape[1]
    longest = _HISTORY + y.shape[2]
    x = np.zeros((n_leads, longest), np.float32)
    d = np.zeros((n_leads, longest), np.float32)
    f = np.zeros((n_leads, longest), np.float32)
    s = np.zeros(longest, np.float32)
    bad = np.zeros((n_leads, longest), np.bool_)
    weight = np.zeros(n_leads)
    n_found = 0
    n_traced = 0
    z = np.zeros(N_FEATURES, np.float32)
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
                        x[c, : _HISTORY + i] = value
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
                    level = max(min(level, lead[row, c, _PEAK]), 0.2 * level)
                level = max(level, 0.01)
                contrast = level / (lead[row, c, _MEAN] + 1e-6) - 1.5
                contrast = max(contrast, 0.1)
                contrast = min(contrast, 6.0)
                weight[c] = contrast * contrast
                total += weight[c]
                value += weight[c] * energy_now / level
            s[j] = value / total if total > 0.0 else 0.0
            after = base + j - state[_LAST]
            if 45 <= after <= 125:
                state[_TAIL] = max(state[_TAIL], s[j])
            elif after == 165:
                state[_TAIL_LEVEL] += 0.15 * (state[_TAIL] - state[_TAIL_LEVEL])
            if after == 2500:
                state[_N_BEATS] = 0
            p = j - _AHEAD
            if state[_CANDIDATE] == _NONE and _is_peak(s, p):
                best, second = _two_best(weight)
                if best >= 0:
                    if weight[0] > 0.1 * weight[best]:
                        best = 0
                    state[_CANDIDATE] = base + p
                    state[_PLACE] = base + max(_place(x[best], p), j + _SLOPE_HALF + _WINDOW_HALF - DELAY)
                    state[_PLACED_ON] = best
            if state[_CANDIDATE] == _NONE:
                continue
            # All the delay there is goes into looking at what comes after: a P wave gives itself away by its QRS.
            if base + i < min(state[_PLACE] + DELAY, state[_CANDIDATE] + _LATEST + _SLOPE_HALF + _WINDOW_HALF):
                continue
            p = int(state[_CANDIDATE]) - base
            at = int(state[_PLACE]) - base
            v = s[p]
            state[_CANDIDATE] = _NONE
            best, second = _two_best(weight)
            since = base + p - state[_LAST]
            if best < 0 or since < _NEAREST:
                continue
            _describe(x, d, f, s, p, j, best, second, weight, lead[row], shape[row], state, rr[row], base, z)
            swing = _swing(x[best], p)
            if second >= 0:
                swing = max(swing, _swing(x[second], p))
            score = _judge(z, w1, b1, w2, b2)
            if trace.shape[0] > n_traced:
                trace[n_traced, 0] = row
                trace[n_traced, 1] = base + p
                trace[n_traced, 2] = score
                trace[n_traced, 3:] = z
                n_traced += 1
            # While learning, and after a long wait, what stands out is taken, so that the network cannot lock itself
            # out.
            stands_out = f[best, p] > 2.2 * lead[row, best, _MEAN]
            if state[_N_BEATS] < 4:
                score = np.float64(v) - 0.5 if stands_out else -1.0
            elif since > 500 and stands_out:
                score = max(score, v - 0.5)
            if not (score > 0.0 and swing >= _FLOOR_MV):
                state[_NOISE] += 0.06 * (min(np.float64(v), 0.6) - state[_NOISE])
                if v > state[_REJECTED]:
                    state[_REJECTED] = v
                    state[_REJECTED_AT] = base + p
                continue
            if base + at <= state[_EMITTED] + 20:
                continue
            if since < 500:
                rr[row, :-1] = rr[row, 1:]
                rr[row, -1] = since
            state[_LAST] = base + p
            state[_PREVIOUS] = v
            state[_EMITTED] = base + at
            state[_REJECTED] = 0.02
            state[_TAIL] = 0.0
            state[_REJECTED_AT] = base + p
            for c in range(n_leads):
                if weight[c] > 0.0:
                    rate = 0.1 if state[_N_BEATS] >= 4 else 0.5
                    broad, rough = _texture(x[c], f[c], p)
                    lead[row, c, _BROAD] += rate * (broad - lead[row, c, _BROAD])
                    lead[row, c, _ROUGH] += rate * (rough - lead[row, c, _ROUGH])
                    norm = 1e-9
                    for o in range(-20, 21):
                        norm += np.float64(d[c, p + o]) * d[c, p + o]
                    norm = np.sqrt(norm)
                    for o in range(-20, 21):
                        shape[row, c, o + 20] += rate * (d[c, p + o] / norm - shape[row, c, o + 20])
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
            found[n_found, 4] = state[_PLACED_ON]
            n_found += 1
        for c in range(n_leads):
            signal[row, c] = x[c, n:end]
            slope[row, c] = d[c, n:end]
            energy[row, c] = f[c, n:end]
        fused[row] = s[n:end]
        tick[row] += n
    return n_found, n_traced


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
    # The dominant peak: farthest from the level on both sides of it, upward ones a little preferred, near rather than
    # far.
    best = p
    most = -1.0
    for i in range(p - _REACH, p + _REACH + 1):
        height = np.float64(x[i]) - 0.5 * (np.float64(x[i - 24]) + np.float64(x[i + 24]))
        if height < 0.0:
            height *= -0.7
        if height > most:
            most = height
            best = i
    return best
