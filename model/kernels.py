"""The compiled parts of `model.segments`: one call serves all rows, and each result is decided beat by beat."""

import numpy as np
from numba import njit

from model.detection import DELAY

BEAT_BEFORE, BEAT_AFTER = 48, 80
BEAT_SAMPLES = BEAT_BEFORE + BEAT_AFTER
LOOK_AHEAD = 375  # ticks that a beat waits for the next one: 1.5 s
MAX_PENDING, MAX_RR = 16, 60
FIRST_SHAPE, FIRST_CONTEXT = 16, 42  # the features before the one, and from the other on, need no samples
HISTORY = 12  # RRs that a beat remembers one by one
N_CONTEXT = HISTORY + 14

# What is kept of the usual beat of a lead, then the same of the most frequent other one, then of both.
AMPLITUDE, WIDTH, STEEPNESS, POLARITY, EARLY, BEATS, SHARE = 0, 1, 2, 3, 4, 5, 6
SWAPPED = 7
OTHER_AMPLITUDE, OTHER_WIDTH, OTHER_STEEPNESS, OTHER_POLARITY, OTHER_EARLY, OTHER_BEATS, OTHER_SHARE = range(7, 14)
SEEN, SAME_BEFORE, DISTANCE, ATRIAL_DISTANCE = 14, 15, 16, 17
N_SCALE = 18

_MEDIAN_OF = 15
_LONGEST_RR = 750  # ticks: a longer one is a pause or a gap and enters no average


@njit(cache=True)
def take_samples(signal, rows, lead, start, out):  # type: ignore[no-untyped-def]
    length = out.shape[2]
    end = signal.shape[2]
    for i in range(rows.size):
        for c in range(out.shape[1]):
            for j in range(length):
                p = start[i] + j
                if lead[i, c] < 0 or p < 0 or p >= end:
                    out[i, c, j] = np.nan
                else:
                    out[i, c, j] = signal[rows[i], lead[i, c], p]


@njit(cache=True)
def complete_beats(  # type: ignore[no-untyped-def]
    row, at, decided, rows, watermark, available, signal_delay, pending, n_pending, rr, n_rr, last, slow,
    out_row, out_at, out_ready, features,
):  # fmt: skip
    n = 0
    # An R peak that has a later one behind it needs no watermark, but it needs its samples; a full queue gives way.
    for i in range(row.size):
        r = row[i]
        if n_pending[r] == pending.shape[1]:
            n = _pop(r, signal_delay, pending, n_pending, rr, n_rr, last, slow, out_row, out_at, out_ready, features, n)
        pending[r, n_pending[r], 0] = at[i]
        pending[r, n_pending[r], 1] = decided[i]
        n_pending[r] += 1
    for i in range(rows.size):
        r = rows[i]
        while n_pending[r] > 0:
            first = pending[r, 0, 0]
            if n_pending[r] == 1 and watermark[i] < first + LOOK_AHEAD:
                break
            if available[i] < first + 2 * BEAT_AFTER:
                break
            n = _pop(r, signal_delay, pending, n_pending, rr, n_rr, last, slow, out_row, out_at, out_ready, features, n)
    return n


@njit(cache=True)
def _pop(r, signal_delay, pending, n_pending, rr, n_rr, last, slow, out_row, out_at, out_ready, features, n):  # type: ignore[no-untyped-def]
    at = pending[r, 0, 0]
    following = -1
    ready = at + LOOK_AHEAD + DELAY
    if n_pending[r] > 1 and pending[r, 1, 0] <= at + LOOK_AHEAD:
        following = pending[r, 1, 0] - at
        ready = pending[r, 1, 1]
    out_row[n] = r
    out_at[n] = at
    out_ready[n] = max(ready, at + 2 * BEAT_AFTER + signal_delay)
    f = features[n]
    current = at - last[r] if last[r] >= 0 else -1
    known = 0 < current <= _LONGEST_RR
    if known:
        if n_rr[r] == rr.shape[1]:
            for j in range(1, rr.shape[1]):
                rr[r, j - 1] = rr[r, j]
            n_rr[r] -= 1
        rr[r, n_rr[r]] = current
        n_rr[r] += 1
    m = n_rr[r]
    median = 0.0
    if m > 0:
        recent = np.sort(rr[r, max(m - _MEDIAN_OF, 0) : m])
        half = recent.size // 2
        median = float(recent[half]) if recent.size % 2 else 0.5 * (recent[half - 1] + recent[half])
        longest = np.sort(rr[r, :m])
        upper = 0.0
        for j in range(m // 2, m):
            upper += longest[j]
        upper /= m - m // 2
        if known:
            f[0] = np.log(current / median)
            f[1] = np.log(current / upper)
            f[6] = np.log(current / 250.0)
        if following > 0:
            f[2] = np.log(following / median)
        if known and m > 1:
            f[5] = (current - rr[r, m - 2]) / median
            f[7] = np.log(rr[r, m - 2] / median)
        k = min(m - 1, 8)
        total = 0.0
        for j in range(m - k, m):
            total += abs(rr[r, j] - rr[r, j - 1])
        f[8] = total / (k * median) if k > 0 else 0.0
        # Against the row's own spread: in an irregular rhythm a short interval says little.
        middle = longest[m // 2]
        spread = np.sort(np.abs(longest - middle))[m // 2]
        unit = 1.5 * spread + 0.03 * middle
        if known:
            f[10] = min(max((current - middle) / unit, -8.0), 8.0)
        if following > 0:
            f[11] = min(max((following - middle) / unit, -8.0), 8.0)
        f[12] = np.log(spread / middle + 0.01)
        if following > 0 and known:
            f[13] = np.log((current + following) / (2.0 * middle))
        if known and m > 1:
            f[14] = min(max((rr[r, m - 2] - middle) / unit, -8.0), 8.0)
        f[15] = min(m, 20) / 20.0
        if known:  # a slow mean, in which a run of seconds hardly counts
            slow[r, 1] = min(slow[r, 1] + 1.0, 300.0)
            step = f[6] - slow[r, 0]
            slow[r, 0] += (step if slow[r, 1] == 1 else min(max(step, -0.3), 0.3)) / slow[r, 1]
        _context(rr[r, :m], longest, upper, current if known else -1, following, slow[r, 0], f[FIRST_CONTEXT:])
    if following > 0 and known:
        f[4] = np.log(following / current)
    f[3] = 0.0 if following > 0 else 1.0
    f[9] = 0.0 if known else 1.0
    last[r] = at
    n_pending[r] -= 1
    for j in range(n_pending[r]):
        pending[r, j, 0] = pending[r, j + 1, 0]
        pending[r, j, 1] = pending[r, j + 1, 1]
    return n + 1


@njit(cache=True)
def _context(rr, ordered, upper, current, following, slow, f):  # type: ignore[no-untyped-def]
    """The last RRs one by one and how the row's RRs are spread: what tells an early beat in any rhythm."""
    m, unit = rr.size, float(ordered[rr.size // 2])
    for k in range(min(HISTORY, m)):
        f[k] = min(max(np.log(rr[m - 1 - k] / unit), -1.0), 1.0)
    f = f[HISTORY:]
    f[0] = np.log(following / unit) if following > 0 else 0.4
    f[1] = 1.0 if following < 0 else 0.0
    f[2] = np.log(current / 250.0) - slow if current > 0 else 0.0
    f[3] = np.log(unit / 250.0) - slow
    f[4] = np.log(upper / unit)
    f[5] = np.log(ordered[m // 10] / unit)
    f[6] = np.log(ordered[min(m * 9 // 10, m - 1)] / unit)
    steps = np.zeros(max(m - 1, 1))
    some, large, off = 0, 0, 0
    for j in range(m):
        if j > 0:
            steps[j - 1] = abs(rr[j] - rr[j - 1]) / unit
            some += steps[j - 1] > 0.08
            large += steps[j - 1] > 0.2
        off += abs(rr[j] - unit) > 0.1 * unit
    f[7], f[8] = some / steps.size, large / steps.size
    f[9] = np.sort(steps)[steps.size // 2]
    f[10] = off / m
    f[11] = min(m, 60) / 60.0
    f[12] = np.log(unit / 250.0)
    f[13] = 0.0 if current > 0 else 1.0


@njit(cache=True)
def _correlation(a, b, first, end):  # type: ignore[no-untyped-def]
    n = end - first
    mean_a, mean_b = 0.0, 0.0
    for j in range(first, end):
        mean_a += a[j]
        mean_b += b[j]
    mean_a /= n
    mean_b /= n
    aa, bb, ab = 1e-9, 1e-9, 0.0
    for j in range(first, end):
        x = a[j] - mean_a
        y = b[j] - mean_b
        aa += x * x
        bb += y * y
        ab += x * y
    return ab / np.sqrt(aa * bb)


@njit(cache=True)
def _best_lag(x, usual, first, end):  # type: ignore[no-untyped-def]
    """The shift of x, up to 4 samples either way, at which it is most like the template, and the correlation there."""
    best, lag = -2.0, 0
    for shift in range(-4, 5):
        c = _correlation(x[shift + 4 : shift + 4 + BEAT_SAMPLES - 8], usual[4 : BEAT_SAMPLES - 4], first - 4, end - 4)
        c -= 0.002 * abs(shift)
        if c > best:
            best, lag = c, shift
    return lag, best + 0.002 * abs(lag)


@njit(cache=True)
def compare(raw, row, lead, quality, usual, other, scale, wave, features):  # type: ignore[no-untyped-def]
    qrs, qrs_end = BEAT_BEFORE - 10, BEAT_BEFORE + 14  # -80 to +112 ms
    x = np.zeros(BEAT_SAMPLES, np.float32)
    for i in range(row.size):
        r = row[i]
        f = features[i, FIRST_SHAPE:]
        f[7] = 1.0 if lead[i, 1] >= 0 else 0.0
        f[9] = 0.0
        for c in range(2):
            u = lead[i, c]
            if u < 0:
                continue
            n, mean = 0, 0.0
            for j in range(BEAT_SAMPLES):
                if np.isfinite(raw[i, c, j]):
                    mean += raw[i, c, j]
                    n += 1
            if c == 0:
                f[9] = quality[i] * n / BEAT_SAMPLES
            if n < BEAT_SAMPLES // 2:
                continue
            mean /= n
            for j in range(BEAT_SAMPLES):
                x[j] = raw[i, c, j] - mean if np.isfinite(raw[i, c, j]) else 0.0
            low, high, steepest = x[qrs], x[qrs], 1e-6
            for j in range(qrs, qrs_end):
                low = min(low, x[j])
                high = max(high, x[j])
                steepest = max(steepest, abs(x[j + 1] - x[j - 1]))
            amplitude = max(high - low, 0.02)
            # Width: first to last sample around R whose slope is over a quarter of the steepest.
            first, final = qrs_end, qrs
            for j in range(BEAT_BEFORE - 16, BEAT_BEFORE + 22):
                if abs(x[j + 1] - x[j - 1]) > 0.25 * steepest:
                    first = min(first, j)
                    final = max(final, j)
            width = max(final - first + 1, 1) / 12.5
            base = 0.0
            for j in range(qrs - 4, qrs):
                base += x[j] / 4.0
            polarity = (high + low - 2.0 * base) / (amplitude + abs(high + low - 2.0 * base))
            steepness = np.log(steepest / amplitude)
            s = scale[r, u]
            if s[BEATS] == 0:
                for j in range(BEAT_SAMPLES):
                    usual[r, u, j] = x[j]
                    other[r, u, j] = 0.0
                s[:] = 0.0
                s[AMPLITUDE], s[WIDTH], s[STEEPNESS], s[POLARITY] = amplitude, width, steepness, polarity
                s[BEATS], s[SAME_BEFORE] = 1.0, 1.0
                s[DISTANCE], s[ATRIAL_DISTANCE] = 0.03, 0.3
            lag, same = _best_lag(x, usual[r, u], qrs, qrs_end)
            difference, area, usual_area = 0.0, 1e-3, 1e-3
            for j in range(BEAT_SAMPLES):
                wave[i, 2 * c, j] = min(max(x[j] / s[AMPLITUDE], -6.0), 6.0)
                k = min(max(j + lag, 0), BEAT_SAMPLES - 1)
                wave[i, 2 * c + 1, j] = min(max((x[k] - usual[r, u, j]) / s[AMPLITUDE], -6.0), 6.0)
                if qrs <= j < qrs_end:
                    difference += abs(wave[i, 2 * c + 1, j])
                    area += abs(x[k] - base)
                    usual_area += abs(usual[r, u, j])
            difference = min(difference / (qrs_end - qrs), 3.0)
            _, like = _best_lag(x, other[r, u], qrs, qrs_end)
            atrial = _correlation(x, usual[r, u], BEAT_BEFORE - 34, BEAT_BEFORE - 8)
            # How far from the template, in units of how far the row's usual beats are.
            strange = np.log((1.0 - same + 0.01) / (s[DISTANCE] + 0.01))
            if c == 0:
                f[0] = same
                f[23] = strange
                f[24] = np.log((1.0 - atrial + 0.05) / (s[ATRIAL_DISTANCE] + 0.05))
                f[1] = difference
                f[2] = width
                f[3] = np.log(width / s[WIDTH])
                f[4] = np.log(amplitude / s[AMPLITUDE])
                f[5] = like
                f[6] = atrial
                f[10] = steepness
                f[11] = steepness - s[STEEPNESS]
                f[12] = polarity
                f[13] = polarity - s[POLARITY]
                f[14] = np.log(area / usual_area)
                f[15] = _correlation(x, usual[r, u], BEAT_BEFORE + 16, BEAT_BEFORE + 50)
                f[16] = 1.0 - s[SHARE] if s[SEEN] > 0.0 else 0.0
                f[17] = s[SAME_BEFORE]
            else:
                f[8] = same
                f[18] = difference
                f[19] = np.log(width / s[WIDTH])
                f[20] = np.log(amplitude / s[AMPLITUDE])
                f[21] = steepness - s[STEEPNESS]
                f[22] = polarity - s[POLARITY]
                f[25] = strange
            s[SAME_BEFORE] = same
            early = -features[i, 0]
            usually = same > 0.85 and abs(np.log(amplitude / s[AMPLITUDE])) < 0.7
            otherwise = not usually and like > 0.85
            s[SEEN] = min(s[SEEN] + 1.0, 25.0)
            s[SHARE] += ((1.0 if usually else 0.0) - s[SHARE]) / s[SEEN]
            s[OTHER_SHARE] += ((1.0 if otherwise else 0.0) - s[OTHER_SHARE]) / s[SEEN]
            if usually:
                s[BEATS] = min(s[BEATS] + 1.0, 16.0)
                rate = 1.0 / s[BEATS]
                for j in range(BEAT_SAMPLES):
                    k = min(max(j + lag, 0), BEAT_SAMPLES - 1)
                    usual[r, u, j] += rate * (x[k] - usual[r, u, j])
                s[AMPLITUDE] += rate * (amplitude - s[AMPLITUDE])
                s[WIDTH] += rate * (width - s[WIDTH])
                s[STEEPNESS] += rate * (steepness - s[STEEPNESS])
                s[POLARITY] += rate * (polarity - s[POLARITY])
                s[EARLY] += rate * (early - s[EARLY])
                s[DISTANCE] += rate * (1.0 - same - s[DISTANCE])
                s[ATRIAL_DISTANCE] += rate * (1.0 - atrial - s[ATRIAL_DISTANCE])
                continue
            if not otherwise:
                s[OTHER_BEATS] -= 1.0
                if s[OTHER_BEATS] > 0.0:
                    continue
                s[OTHER_BEATS] = 0.0
                s[OTHER_SHARE] = 0.0
            s[OTHER_BEATS] = min(s[OTHER_BEATS] + 1.0, 8.0)
            rate = 1.0 / s[OTHER_BEATS]
            for j in range(BEAT_SAMPLES):
                other[r, u, j] += rate * (x[j] - other[r, u, j])
            s[OTHER_AMPLITUDE] += rate * (amplitude - s[OTHER_AMPLITUDE])
            s[OTHER_WIDTH] += rate * (width - s[OTHER_WIDTH])
            s[OTHER_STEEPNESS] += rate * (steepness - s[OTHER_STEEPNESS])
            s[OTHER_POLARITY] += rate * (polarity - s[OTHER_POLARITY])
            s[OTHER_EARLY] += rate * (early - s[OTHER_EARLY])
            # The usual beat is the frequent one, and of two frequent ones the narrower and the less early.
            for_other = np.log((s[OTHER_SHARE] + 0.01) / (s[SHARE] + 0.01))
            for_other += 2.0 * np.log(s[WIDTH] / s[OTHER_WIDTH]) + 2.0 * (s[EARLY] - s[OTHER_EARLY])
            if s[OTHER_BEATS] >= 5.0 and for_other > 0.7:
                for j in range(BEAT_SAMPLES):
                    usual[r, u, j], other[r, u, j] = other[r, u, j], usual[r, u, j]
                for j in range(SWAPPED):
                    s[j], s[SWAPPED + j] = s[SWAPPED + j], s[j]
                s[OTHER_BEATS] = min(s[OTHER_BEATS], 8.0)
