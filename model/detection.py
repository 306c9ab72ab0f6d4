"""The compiled per-tick work of the period detector: fusing the leads, finding candidates, describing and judging them.

One call of `detect` serves all rows. It is all in one module, for a compiled function that is kept on disk does not
learn of changes in another module's. What it does and why: model/periods.py.
"""

import numpy as np
from numba import njit

# Ticks: an R peak at tick t is out when tick t + DELAY has been pushed. With the 4.5 ticks that the resampler looks
# ahead above 250 Hz it is out within 250 ms of the source's own signal.
DELAY = 57
N_FEATURES = 37
HISTORY = 256  # ticks kept per lead
N_LEVELS = 8  # beats in a running level
SLOPE_HALF = 10  # half length of the derivative filter
_WINDOW_HALF = 10  # half length of the energy window
AHEAD = 26  # a candidate is the largest within so many ticks after it
_REACH = 15  # an R peak lies within so many ticks of its energy peak
_SPIKE = 4  # a pacing spike is seen, and taken out, with so many ticks after it
_BEHIND = SLOPE_HALF + _WINDOW_HALF + _SPIKE  # the energy is behind the signal by so many ticks
_LATEST = AHEAD + 24  # and is judged at the latest with so many ticks of energy after it
_NEAREST = 45  # ticks between two beats at least
_FLOOR_MV = 0.15
_SMALL, _STEEPER = -0.5, 0.7  # of the energy and of the slope, as logarithms
_WORSE = 0.5  # R peaks are placed on the first lead unless its level stands out so much less than the best one's
_TALLEST = 1.5  # of usual beats: a step of the electrode counts for no more in what is remembered

# columns of the per-row state
(
    LAST,
    _PREVIOUS,
    _N_BEATS,
    NOISE,
    _LAST_RR,
    EMITTED,
    REJECTED,
    REJECTED_AT,
    _TAIL,
    TAIL_LEVEL,
    CANDIDATE,
    _PLACE,
    _PLACED_ON,
    N_COLUMNS,
) = range(14)
# columns of the per-lead state
_LEVEL, _MEAN, BAD, _N_SEEN, HELD, _PEAK, _BROAD, _ROUGH, N_LEAD_COLUMNS = range(9)
NONE = -1e12  # no candidate is waiting
SHAPE_HALF = 20  # half length of the QRS template


@njit(cache=True)
def _is_peak(s, p):  # type: ignore[no-untyped-def]
    # While the level is still being learnt the fused energy stands at 1 on a rise, so of equals the last one counts.
    v = s[p]
    if v <= 0.08 or v < s[p - 1]:
        return False
    for o in range(1, AHEAD + 1):  # noqa: SIM110 (compiled)
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
def _describe(x, d, f, s, p, newest, now, best, second, weight, lead, levels, shape, state, rr, base, z):  # type: ignore[no-untyped-def]
    """Fills the features of the candidate at p; all but z[3] are ratios."""
    v = np.float64(s[p]) + 1e-6
    since = min(max(base + p - state[LAST], 1.0), 1000.0)
    interval = min(max(_median(rr), 60.0), 500.0)
    z[0] = np.log(v)
    z[1] = np.log(state[_PREVIOUS] + 0.05)
    z[2] = min(max(np.log(since / interval), -2.0), 2.0)
    z[3] = np.log(since / 250.0)
    z[4] = np.log(state[NOISE] + 0.02)
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
    z[18] = np.log(v / (state[TAIL_LEVEL] + 0.02))
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
    z[25] = np.log(state[REJECTED] / v)
    z[26] = min((base + p - state[REJECTED_AT]) / interval, 2.0)
    # What a QRS is in anybody, so that P waves taken for beats at the start cannot pass for the usual beat for good.
    z[27] = lead[best, _BROAD] + z[19]
    z[28] = lead[best, _ROUGH] + z[20]
    z[29] = _gathered(d[best], p)
    z[30] = max(np.log(f[best, p] / (_largest(levels[best]) + 1e-3) + 1e-4), -5.0)
    z[35] = _steeper_after(x[best], p, now)
    z[36] = z[35]
    z[31] = z[27]
    z[32] = z[28]
    z[33] = z[29]
    if second >= 0:
        z[31] = lead[second, _BROAD] + z[21]
        z[32] = lead[second, _ROUGH] + z[22]
        z[33] = _gathered(d[second], p)
        z[36] = _steeper_after(x[second], p, now)
    z[34] = np.log(min(max(state[_LAST_RR], 30.0), 1000.0) / interval)


@njit(cache=True)
def _gathered(d, p):  # type: ignore[no-untyped-def]
    """Share of the slope's energy of 34 ticks to both sides that lies within 10."""
    near = 1e-9
    far = 1e-9
    for o in range(-34, 35):
        value = np.float64(d[p + o])
        far += value * value
        if -10 <= o <= 10:
            near += value * value
    return near / far


@njit(cache=True)
def _steeper_after(x, p, now):  # type: ignore[no-untyped-def]
    """Steepest 16 ms of what follows, up to the newest tick, over those of the wave at p, as a logarithm: no filter
    stands between this and the signal, so it sees a QRS that the energy does not show yet.
    """
    here = 1e-3
    for k in range(p - 12, p + 13):
        here = max(here, abs(np.float64(x[k + 2]) - x[k - 2]))
    after = 1e-3
    for k in range(p + 18, now - 1):
        after = max(after, abs(np.float64(x[k + 2]) - x[k - 2]))
    return np.log(after / here)


@njit(cache=True)
def _largest(values):  # type: ignore[no-untyped-def]
    most = values[0]
    for value in values:
        most = max(most, value)
    return most


@njit(cache=True)
def _judge(z, w1, b1, w2, b2):  # type: ignore[no-untyped-def]
    """Score of a candidate, above 0 for a QRS: one hidden layer, w1 (F, H)."""
    # The loop over units is inside, so that it vectorises and each unit still adds its terms in one order.
    units = np.zeros(w1.shape[1])
    for h in range(w1.shape[1]):
        units[h] = b1[h]
    for i in range(w1.shape[0]):
        for h in range(w1.shape[1]):
            units[h] += np.float64(w1[i, h]) * z[i]
    score = np.float64(b2[0])
    for h in range(w1.shape[1]):
        score += w2[h] * np.tanh(units[h])
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
def detect(  # type: ignore[no-untyped-def]
    rows, y, m, taps, tick, signal, slope, energy, fused, lead, levels, row_state, rr, shape,
    w1, b1, w2, b2, found, trace,
):  # fmt: skip
    n_leads = y.shape[1]
    longest = HISTORY + y.shape[2]
    x = np.zeros((n_leads, longest), np.float32)
    d = np.zeros((n_leads, longest), np.float32)
    f = np.zeros((n_leads, longest), np.float32)
    s = np.zeros(longest, np.float32)
    bad = np.zeros((n_leads, longest), np.bool_)
    weight = np.zeros(n_leads)
    ratio = np.zeros(n_leads)
    n_found = 0
    n_traced = 0
    z = np.zeros(N_FEATURES, np.float32)
    for k in range(rows.shape[0]):
        row = rows[k]
        n = m[k]
        end = HISTORY + n
        base = tick[row] - HISTORY  # tick of index 0 of the lines
        for c in range(n_leads):
            x[c, :HISTORY] = signal[row, c]
            d[c, :HISTORY] = slope[row, c]
            f[c, :HISTORY] = energy[row, c]
            held = lead[row, c, HELD]
            for i in range(n):
                value = y[k, c, i]
                bad[c, HISTORY + i] = np.isnan(value)
                if np.isnan(value):
                    value = np.float32(0.0) if np.isnan(held) else np.float32(held)
                else:
                    if np.isnan(held):
                        x[c, : HISTORY + i] = value
                    held = value
                x[c, HISTORY + i] = value
            lead[row, c, HELD] = held
            _filter(x[c], d[c], f[c], taps, HISTORY - SLOPE_HALF, end - SLOPE_HALF, end)
        s[:HISTORY] = fused[row]
        state = row_state[row]
        for i in range(HISTORY, end):
            for c in range(n_leads):
                usual = lead[row, c, _LEVEL] if lead[row, c, _LEVEL] > 0.0 else 4.0 * lead[row, c, _MEAN]
                if _is_spike(x[c], i - _SPIKE, usual):
                    _take_out(x[c], i - _SPIKE)
                    _filter(x[c], d[c], f[c], taps, i - 2 * _SPIKE - SLOPE_HALF, i + SLOPE_HALF + 1, end)
            j = i - _BEHIND
            total = 0.0
            value = 0.0
            for c in range(n_leads):
                if bad[c, i]:
                    lead[row, c, BAD] = base + i
                energy_now = f[c, j]
                weight[c] = 0.0
                if base + j - lead[row, c, BAD] <= _BEHIND:
                    continue
                lead[row, c, _N_SEEN] += 1
                rate = max(0.0008, 1.0 / lead[row, c, _N_SEEN])
                lead[row, c, _MEAN] += rate * (energy_now - lead[row, c, _MEAN])
                lead[row, c, _PEAK] = max(energy_now, lead[row, c, _PEAK] * 0.9985)
                level = lead[row, c, _LEVEL]
                if state[_N_BEATS] < 4 or level <= 0.0:
                    # A step (an electrode that returns) may have been the first: after a wait it no longer counts.
                    held = level if base + j - state[LAST] < 375 else 0.0
                    level = max(held, lead[row, c, _PEAK])
                elif base + j - state[LAST] > 500:
                    level = max(min(level, lead[row, c, _PEAK]), 0.2 * level)
                level = max(level, 0.01)
                ratio[c] = level / (lead[row, c, _MEAN] + 1e-6)
                contrast = max(ratio[c] - 1.5, 0.1)
                contrast = min(contrast, 6.0)
                weight[c] = contrast * contrast
                total += weight[c]
                value += weight[c] * energy_now / level
            s[j] = value / total if total > 0.0 else 0.0
            after = base + j - state[LAST]
            if 45 <= after <= 125:
                state[_TAIL] = max(state[_TAIL], s[j])
            elif after == 165:
                state[TAIL_LEVEL] += 0.15 * (state[_TAIL] - state[TAIL_LEVEL])
            if after == 2500:
                state[_N_BEATS] = 0
            p = j - AHEAD
            if state[CANDIDATE] == NONE and _is_peak(s, p):
                best, second = _two_best(weight)
                if best >= 0:
                    # A fast rhythm alone, which leaves the energy no time to fall, is no reason to change the lead.
                    if weight[0] > 0.0 and ratio[0] > _WORSE * ratio[best]:
                        best = 0
                    state[CANDIDATE] = base + p
                    state[_PLACE] = base + max(_place(x[best], p), j + _BEHIND - DELAY)
                    state[_PLACED_ON] = best
            if state[CANDIDATE] == NONE:
                continue
            # All the delay there is goes into looking at what comes after: a P wave gives itself away by its QRS.
            if base + i < min(state[_PLACE] + DELAY, state[CANDIDATE] + _LATEST + _BEHIND):
                continue
            p = int(state[CANDIDATE]) - base
            at = int(state[_PLACE]) - base
            v = s[p]
            state[CANDIDATE] = NONE
            best, second = _two_best(weight)
            since = base + p - state[LAST]
            if best < 0 or since < _NEAREST:
                continue
            _describe(
                x, d, f, s, p, j, i, best, second, weight, lead[row], levels[row], shape[row], state, rr[row], base, z
            )
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
            # Two QRS do not stand so near: of a small wave and a much steeper one after it, the first is a P wave.
            if min(z[35], z[36]) > _STEEPER and (z[30] < _SMALL or state[_N_BEATS] < 4):
                score = -1.0
            if not (score > 0.0 and swing >= _FLOOR_MV):
                state[NOISE] += 0.06 * (min(np.float64(v), 0.6) - state[NOISE])
                if v > state[REJECTED]:
                    state[REJECTED] = min(v, _TALLEST)
                    state[REJECTED_AT] = base + p
                continue
            if base + at <= state[EMITTED] + 20:
                continue
            state[_LAST_RR] = since
            if since < 500:
                rr[row, :-1] = rr[row, 1:]
                rr[row, -1] = since
            state[LAST] = base + p
            state[_PREVIOUS] = min(v, _TALLEST)
            state[EMITTED] = base + at
            state[REJECTED] = 0.02
            state[_TAIL] = 0.0
            state[REJECTED_AT] = base + p
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
def _is_spike(x, q, level):  # type: ignore[no-untyped-def]
    """Whether a pulse of a pacemaker, some 2 ms long and spread by the resampler to 10 or so, stands at q."""
    middle = 0.5 * (np.float64(x[q - _SPIKE]) + np.float64(x[q + _SPIKE]))
    height = abs(x[q] - middle)
    if height < 0.02 or height < 0.5 * level:
        return False
    return abs(x[q - 2] - middle) < 0.3 * height and abs(x[q + 2] - middle) < 0.3 * height


@njit(cache=True)
def _take_out(x, q):  # type: ignore[no-untyped-def]
    before = x[q - _SPIKE]
    rise = (x[q + _SPIKE] - before) / np.float32(2 * _SPIKE)
    for o in range(1, 2 * _SPIKE):
        x[q - _SPIKE + o] = before + rise * np.float32(o)


@njit(cache=True)
def _filter(x, d, f, taps, first, last, end):  # type: ignore[no-untyped-def]
    """Slope d[first:last] and the energy f that follows from it, as far as there is signal before `end`."""
    # Loops run over time inside, so they vectorise and each output still adds its terms in one fixed order.
    last = min(last, end - SLOPE_HALF)
    for i in range(first, last):
        d[i] = 0.0
    for o in range(-SLOPE_HALF, SLOPE_HALF + 1):
        tap = taps[o + SLOPE_HALF]
        for i in range(first, last):
            d[i] += tap * x[i + o]
    first -= _WINDOW_HALF
    last = min(last + _WINDOW_HALF, end - SLOPE_HALF - _WINDOW_HALF)
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
