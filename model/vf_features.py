"""What the VF index looks at: numbers that describe four seconds of one lead.

Leakage of the narrow-band filter (Kuo and Dillman, Computers in Cardiology 1978), time above threshold (after Arafat et
al., Signal Image Video Process 2011), moments, spectrum, likeness to itself a while ago (autocorrelation, after Chen
et al., IEEE TBME 1987), and what tells beats from waves (`model.vf_shapes`). Sums run in a fixed order, so that equal
windows give equal bits.
"""

import numpy as np
import numpy.typing as npt
from numba import njit

from model.vf_shapes import entropy, gathering, half_waves, measure_bends, thin, visits

N_SAMPLES = 500  # four seconds at 125 Hz
N_FEATURES = 73
FLOOR_MV = 0.2  # a lead that is smaller over the window has no say ...
SECOND_FLOOR_MV = 0.1  # ... nor one that is smaller in any second of it

_N_SLOW = N_SAMPLES // 4  # seen at 31.25 Hz
_N_LAGS = 48


def spectral_waves() -> npt.NDArray[np.float32]:
    """Hann-windowed cosines and sines (2, 125, 49) at 0.5 to 12.5 Hz in steps of 0.25 Hz, for 31.25 Hz."""
    phase = 2 * np.pi * (0.5 + 0.25 * np.arange(49)) * np.arange(_N_SLOW)[:, None] / 31.25
    return (np.stack([np.cos(phase), np.sin(phase)]) * np.hanning(_N_SLOW)[:, None]).astype(np.float32)


@njit(cache=True)
def describe(x, waves, out):  # type: ignore[no-untyped-def]
    """Fills the features of one lead's window (500 samples at 125 Hz); False where the lead is missing or too small."""
    n = x.shape[0]
    largest = 0.0
    smallest = 1e9
    lowest = highest = np.float64(x[0])
    last = 0.0
    mean = 0.0
    peaks = 0.0
    below5 = below10 = below20 = below35 = below50 = 0
    bend = 0.0
    for part in range(4):
        begin = part * n // 4
        end = (part + 1) * n // 4
        low = np.float64(x[begin])
        high = low
        sharpest = 0.0
        for i in range(begin, end):
            if np.isnan(x[i]):
                return False
            low = min(low, np.float64(x[i]))
            high = max(high, np.float64(x[i]))
            if i > 1:
                sharpest = max(sharpest, abs(np.float64(x[i]) - 2.0 * np.float64(x[i - 1]) + np.float64(x[i - 2])))
        lowest = min(lowest, low)
        highest = max(highest, high)
        last = high - low
        largest = max(largest, last)
        smallest = min(smallest, last)
        mean += last / 4.0
        bend += sharpest / 4.0
        top = max(abs(low), abs(high))
        peaks += top / 4.0
        for i in range(begin, end):
            share = abs(np.float64(x[i]))
            below5 += int(share < 0.05 * top)
            below10 += int(share < 0.1 * top)
            below20 += int(share <= 0.2 * top)
            below35 += int(share < 0.35 * top)
            below50 += int(share < 0.5 * top)
    if largest < FLOOR_MV or smallest < SECOND_FLOOR_MV:
        return False
    _moments(x, peaks, bend, out)
    out[2] = 1.0 - below20 / n
    out[16] = np.log(smallest)
    out[17] = np.log(largest)
    out[18] = np.log(smallest / largest)
    out[19] = np.log(last / largest)
    out[20] = np.log(mean / largest)
    out[32] = below10 / n
    out[33] = below5 / n
    out[34] = below35 / n
    out[35] = below50 / n
    slow = np.zeros(_N_SLOW)
    slope = np.zeros(_N_SLOW)
    thin(x, slow, slope)
    gathering(slope, out[25:32])
    bends = np.zeros(_N_SLOW)
    measure_bends(x, bends, out)
    gathering(bends, out[56:63])
    _centre(slow)
    _centre(bends)
    _spectrum(slow, waves, out)
    _likeness(slow, bends, out)
    half_waves(slow, out)
    visits(x, lowest, highest, out)
    entropy(slow, out)
    return True


@njit(cache=True)
def _moments(x, peaks, bend, out):  # type: ignore[no-untyped-def]
    """Leakage, mean frequency, skewness and peakedness of the signal and of its slope."""
    n = x.shape[0]
    v1 = v2 = v3 = v4 = 0.0
    s1 = s2 = s3 = s4 = 0.0
    rise = 0.0
    fall = 0.0
    curve = 0.0
    for i in range(1, n):
        v = np.float64(x[i])
        s = v - np.float64(x[i - 1])
        v1 += abs(v)
        v2 += v * v
        v3 += v * v * v
        v4 += v * v * v * v
        s1 += abs(s)
        s2 += s * s
        s3 += s * s * s
        s4 += s * s * s * s
        rise = max(rise, s)
        fall = max(fall, -s)
        if i > 1:
            c = s - np.float64(x[i - 1]) + np.float64(x[i - 2])
            curve += c * c
    steepest = max(rise, fall)
    rms = np.sqrt(v2 / n)
    slope_rms = np.sqrt(s2 / n)
    half = min(int(np.pi * v1 / s1 + 0.5), n // 2)
    left = 0.0
    both = 1e-9
    for i in range(half, n):
        left += abs(np.float64(x[i]) + np.float64(x[i - half]))
        both += abs(np.float64(x[i])) + abs(np.float64(x[i - half]))
    still = 0
    for i in range(1, n):
        still += int(abs(np.float64(x[i]) - np.float64(x[i - 1])) < 0.1 * steepest)
    out[0] = left / both
    out[1] = np.log(125.0 * s1 / (2.0 * np.pi * v1))
    out[3] = v1 / n / rms
    out[4] = np.log(rms / peaks)
    out[5] = np.log(rms)
    out[6] = np.log(slope_rms / steepest)
    out[7] = np.log(s1 / n / slope_rms)
    out[15] = still / n
    out[21] = abs(v3 / n / rms**3)
    out[22] = np.log(v4 / n / rms**4)
    out[23] = abs(s3 / n / slope_rms**3)
    out[24] = np.log(s4 / n / slope_rms**4)
    out[53] = np.log(bend / np.sqrt(curve / n + 1e-12))
    out[55] = np.log(curve / s2 + 1e-9)
    out[67] = abs(np.log((rise + 1e-9) / (fall + 1e-9)))


@njit(cache=True)
def _centre(x):  # type: ignore[no-untyped-def]
    mean = 0.0
    for i in range(x.shape[0]):
        mean += x[i] / x.shape[0]
    for i in range(x.shape[0]):
        x[i] -= mean


@njit(cache=True)
def _spectrum(slow, waves, out):  # type: ignore[no-untyped-def]
    """Where the spectrum peaks and how sharply, its bands and the harmonics of the peak."""
    n_bins = waves.shape[2]
    re = np.zeros(n_bins, np.float32)
    im = np.zeros(n_bins, np.float32)
    for i in range(slow.shape[0]):
        value = np.float32(slow[i])
        for b in range(n_bins):
            re[b] += waves[0, i, b] * value
            im[b] += waves[1, i, b] * value
    total = 1e-9
    top = 0
    for b in range(n_bins):
        re[b] = re[b] * re[b] + im[b] * im[b]
        total += re[b]
        if re[b] > re[top]:
            top = b
    peak = 0.5 + 0.25 * top
    for j in range(36, 45):
        out[j] = 0.0
    near = 0.0
    upper = 0.0
    entropy = 0.0
    middle = 0.0
    centre = 0.0
    for b in range(n_bins):
        share = re[b] / total
        f = 0.5 + 0.25 * b
        centre += share * f
        entropy -= share * np.log(share + 1e-12)
        near += share * (abs(b - top) <= 3)
        upper += share * (b > 1.6 * top + 2)
        middle += share * (8 <= b <= 30)
        band = 36 if f < 1.5 else 37 if f < 2.6 else 38 if f < 4.0 else 39 if f < 7.0 else 40
        out[band] += share
        out[42] += share * (abs(f - 2.0 * peak) <= 0.5)
        out[43] += share * (abs(f - 3.0 * peak) <= 0.5)
        out[44] += share * (peak > 1.5 and abs(f - 0.5 * peak) <= 0.3)
    out[8] = np.log(top + 2.0)
    out[9] = near
    out[10] = upper
    out[11] = entropy
    out[14] = middle
    out[41] = np.log(centre + 0.1)


@njit(cache=True)
def _alike(x):  # type: ignore[no-untyped-def]
    """Autocorrelation at lags 0 to 47, as if each had as many products."""
    k = x.shape[0]
    padded = np.zeros(k + _N_LAGS, np.float32)
    for i in range(k):
        padded[i] = x[i]
    found = np.zeros(_N_LAGS, np.float32)
    for i in range(k):
        for lag in range(_N_LAGS):
            found[lag] += padded[i] * padded[i + lag]
    square = found[0] + 1e-9
    for lag in range(_N_LAGS):
        found[lag] *= k / square / (k - lag)
    return found


@njit(cache=True)
def _best_lag(alike):  # type: ignore[no-untyped-def]
    """Largest peak, the first lag that comes near it, and how many peaks there are."""
    most = 0.0
    count = 0.0
    for lag in range(4, _N_LAGS - 1):
        if alike[lag] >= alike[lag - 1] and alike[lag] >= alike[lag + 1]:
            most = max(most, alike[lag])
            count += 1.0
    for lag in range(4, _N_LAGS - 1):
        if alike[lag] >= alike[lag - 1] and alike[lag] >= alike[lag + 1] and alike[lag] >= 0.85 * most:
            return most, lag, count
    return most, _N_LAGS - 1, count


@njit(cache=True)
def _likeness(slow, bends, out):  # type: ignore[no-untyped-def]
    """Period and strength of repetition, of the signal and of its bends."""
    alike = _alike(slow)
    most, period, count = _best_lag(alike)
    least = 3
    for lag in range(4, _N_LAGS):
        if alike[lag] < alike[least]:
            least = lag
    out[12] = np.log(period / 31.25)
    out[13] = most
    out[45] = alike[least]
    out[46] = np.log(least / 31.25)
    out[47] = alike[max(3, period // 2)]
    out[54] = count
    most, period, _ = _best_lag(_alike(bends))
    out[48] = most
    out[49] = np.log(period / 31.25)
