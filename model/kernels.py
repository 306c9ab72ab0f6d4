"""The compiled parts of `model.segments`: one call serves all rows, and each result is decided beat by beat."""

import numpy as np
from numba import njit

BEAT_BEFORE, BEAT_AFTER = 48, 80
BEAT_SAMPLES = BEAT_BEFORE + BEAT_AFTER
LOOK_AHEAD = 375  # ticks that a beat waits for the next one: 1.5 s
DETECTOR_DELAY = 62  # ticks, the bound of model.periods
MAX_PENDING, MAX_RR = 16, 60

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
    row, at, decided, rows, watermark, available, signal_delay, pending, n_pending, rr, n_rr, last,
    out_row, out_at, out_ready, features,
):  # fmt: skip
    n = 0
    # An R peak that has a later one behind it needs no watermark, but it needs its samples; a full queue gives way.
    for i in range(row.size):
        r = row[i]
        if n_pending[r] == pending.shape[1]:
            n = _pop(r, signal_delay, pending, n_pending, rr, n_rr, last, out_row, out_at, out_ready, features, n)
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
            n = _pop(r, signal_delay, pending, n_pending, rr, n_rr, last, out_row, out_at, out_ready, features, n)
    return n


@njit(cache=True)
def _pop(r, signal_delay, pending, n_pending, rr, n_rr, last, out_row, out_at, out_ready, features, n):  # type: ignore[no-untyped-def]
    at = pending[r, 0, 0]
    following = -1
    ready = at + LOOK_AHEAD + DETECTOR_DELAY
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
def compare(raw, row, lead, quality, usual, other, scale, wave, features):  # type: ignore[no-untyped-def]
    qrs, qrs_end = BEAT_BEFORE - 10, BEAT_BEFORE + 14  # -80 to +112 ms
    x = np.zeros(BEAT_SAMPLES, np.float32)
    for i in range(row.size):
        r = row[i]
        f = features[i]
        f[17] = 1.0 if lead[i, 1] >= 0 else 0.0
        f[19] = 0.0
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
                f[19] = quality[i] * n / BEAT_SAMPLES
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
            s = scale[r, u]
            if s[2] == 0:
                for j in range(BEAT_SAMPLES):
                    usual[r, u, j] = x[j]
                    other[r, u, j] = 0.0
                s[0], s[1], s[2], s[3] = amplitude, width, 1.0, 0.0
            same = _correlation(x, usual[r, u], qrs, qrs_end)
            difference = 0.0
            for j in range(BEAT_SAMPLES):
                wave[i, 2 * c, j] = min(max(x[j] / s[0], -6.0), 6.0)
                wave[i, 2 * c + 1, j] = min(max((x[j] - usual[r, u, j]) / s[0], -6.0), 6.0)
                if qrs <= j < qrs_end:
                    difference += abs(wave[i, 2 * c + 1, j])
            if c == 0:
                f[10] = same
                f[11] = min(difference / (qrs_end - qrs), 3.0)
                f[12] = width
                f[13] = np.log(width / s[1])
                f[14] = np.log(amplitude / s[0])
                f[15] = _correlation(x, other[r, u], qrs, qrs_end)
                f[16] = _correlation(x, usual[r, u], BEAT_BEFORE - 34, BEAT_BEFORE - 8)
            else:
                f[18] = same
            if same > 0.85 and abs(np.log(amplitude / s[0])) < 0.7:
                s[2] = min(s[2] + 1.0, 16.0)
                rate = 1.0 / s[2]
                for j in range(BEAT_SAMPLES):
                    usual[r, u, j] += rate * (x[j] - usual[r, u, j])
                s[0] += rate * (amplitude - s[0])
                s[1] += rate * (width - s[1])
                s[3] = 0.0
            else:
                like = _correlation(x, other[r, u], qrs, qrs_end)
                s[3] = s[3] + 1.0 if like > 0.85 else 1.0
                rate = 1.0 / min(s[3], 8.0)
                for j in range(BEAT_SAMPLES):
                    other[r, u, j] += rate * (x[j] - other[r, u, j])
                if s[3] >= 16.0:
                    for j in range(BEAT_SAMPLES):
                        usual[r, u, j] = other[r, u, j]
                    s[0], s[1], s[2], s[3] = amplitude, width, 8.0, 0.0
