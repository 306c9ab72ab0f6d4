"""What tells beats from the waves of VF in four seconds of one lead, for `model.vf_features`.

How slope and bend are gathered in a few places and whether those come in time: bends show the QRS of a broad beat
whose T wave is as steep. Half waves and turns; places visited in phase space (Amann et al., IEEE TBME 2007); sample
entropy (Richman and Moorman, Am J Physiol 2000). Where we deviate: the grid of phase space is 20 by 20 over the
window's range, the delays 0.5 and 0.1 s; entropy is of samples of 32 ms, its tolerance 0.2 of the standard deviation.
"""

import numpy as np
from numba import njit

_BEND = 5  # samples: over 80 ms
_GRID = 20  # of phase space, each way
_DELAYS = (63, 12)  # samples


@njit(cache=True)
def thin(x, slow, slope):  # type: ignore[no-untyped-def]
    """Signal and size of its slope (over 96 ms) at 31.25 Hz."""
    k = slow.shape[0]
    steps = np.zeros(k + 2)
    for i in range(k):
        for j in range(4 * i, 4 * i + 4):
            slow[i] += 0.25 * np.float64(x[j])
            if j > 0:
                steps[i + 1] += abs(np.float64(x[j]) - np.float64(x[j - 1]))
    for i in range(k):
        slope[i] = steps[i] + steps[i + 1] + steps[i + 2]


@njit(cache=True)
def measure_bends(x, bends, out):  # type: ignore[no-untyped-def]
    """Size of the second difference over 80 ms, at 31.25 Hz as `thin` has the slope; how even and how large it is."""
    k = bends.shape[0]
    steps = np.zeros(k + 2)
    power = 0.0
    whole = 1e-9
    first = (2 * _BEND + 3) // 4
    for i in range(first, k):
        for j in range(4 * i, 4 * i + 4):
            v = np.float64(x[j])
            c = v - 2.0 * np.float64(x[j - _BEND]) + np.float64(x[j - 2 * _BEND])
            steps[i + 1] += abs(c)
            power += c * c
            whole += v * v
    top = 1e-9
    mean = 0.0
    for i in range(k):
        j = max(i, first + 1)
        bends[i] = steps[j] + steps[j + 1] + steps[j + 2]
        top = max(top, bends[i])
        mean += bends[i] / k
    out[63] = np.log(mean / top + 1e-9)
    out[64] = 0.5 * np.log(power / whole + 1e-9)


@njit(cache=True)
def gathering(slope, out):  # type: ignore[no-untyped-def]
    """How much of the time `slope` is far under its peaks, how many peaks there are, and how alike and in time."""
    k = slope.shape[0]
    level = 1e-9
    for part in range(4):
        top = 0.0
        for i in range(part * k // 4, (part + 1) * k // 4):
            top = max(top, slope[i])
        level += top / 4.0
    under10 = under20 = under35 = under50 = 0
    count = 0
    before = -1
    waits = wait1 = wait2 = size1 = size2 = 0.0
    for i in range(k):
        share = slope[i] / level
        under10 += share < 0.1
        under20 += share < 0.2
        under35 += share < 0.35
        under50 += share < 0.5
        if share < 0.45 or i == 0 or i == k - 1:
            continue
        highest = True
        for j in range(max(0, i - 5), min(k, i + 6)):
            if slope[j] > slope[i] or (slope[j] == slope[i] and j < i):
                highest = False
                break
        if highest:
            count += 1
            size1 += slope[i]
            size2 += slope[i] * slope[i]
            if before >= 0:
                waits += 1.0
                wait1 += i - before
                wait2 += (i - before) ** 2
            before = i
    out[0] = under10 / k
    out[1] = under20 / k
    out[2] = under35 / k
    out[3] = under50 / k
    out[4] = count
    out[5] = spread(wait1, wait2, waits) if waits > 0 else 1.0
    out[6] = spread(size1, size2, float(count)) if count > 0 else 1.0


@njit(cache=True)
def half_waves(slow, out):  # type: ignore[no-untyped-def]
    """Number of crossings of the mean, and how unlike the half waves between them are in length and size; number of
    turns, how unlike the swings between them are, and their mean by the largest.
    """
    crossings = 0
    before = 0
    top = 0.0
    length1 = length2 = size1 = size2 = 0.0
    turns = 0.0
    turned = slow[0]
    widest = 1e-9
    swing1 = swing2 = 0.0
    for i in range(1, slow.shape[0]):
        if (slow[i] >= 0.0) != (slow[i - 1] >= 0.0):
            if crossings > 0:
                length1 += i - before
                length2 += (i - before) ** 2
                size1 += top
                size2 += top * top
            crossings += 1
            before = i
            top = 0.0
        top = max(top, abs(slow[i]))
        if i < slow.shape[0] - 1 and (slow[i] - slow[i - 1]) * (slow[i + 1] - slow[i]) < 0.0:
            swing = abs(slow[i] - turned)
            turned = slow[i]
            turns += 1.0
            swing1 += swing
            swing2 += swing * swing
            widest = max(widest, swing)
    out[50] = np.log(crossings + 1.0)
    out[51] = spread(length1, length2, crossings - 1.0) if crossings > 2 else 1.0
    out[52] = spread(size1, size2, crossings - 1.0) if crossings > 2 else 1.0
    out[70] = turns
    out[71] = spread(swing1, swing2, turns) if turns > 1 else 1.0
    out[72] = swing1 / max(turns, 1.0) / widest


@njit(cache=True)
def visits(x, low, high, out):  # type: ignore[no-untyped-def]
    """Share of the places of phase space (signal against itself a while ago) where the signal comes."""
    n = x.shape[0]
    scale = (_GRID - 0.001) / (high - low)
    place = np.zeros(n, np.int64)
    for i in range(n):
        place[i] = int((np.float64(x[i]) - low) * scale)
    for j in range(2):
        seen = np.zeros(_GRID * _GRID, np.uint8)
        for i in range(_DELAYS[0], n):
            seen[place[i] * _GRID + place[i - _DELAYS[j]]] = 1
        total = 0
        for i in range(_GRID * _GRID):
            total += seen[i]
        out[65 + j] = total / (_GRID * _GRID)


@njit(cache=True)
def entropy(slow, out):  # type: ignore[no-untyped-def]
    """Sample entropy (m = 2), and how often two samples in a row come again."""
    k = slow.shape[0]
    square = 0.0
    for i in range(k):
        square += slow[i] * slow[i] / k
    reach = np.float32(0.2 * np.sqrt(square))
    now = slow.astype(np.float32)
    near = np.zeros(k, np.uint8)
    two = np.zeros(k, np.uint8)
    three = np.zeros(k, np.uint8)
    for lag in range(1, k - 2):
        later = now[lag:]
        for i in range(later.shape[0]):
            near[i] = abs(now[i] - later[i]) < reach
        second = near[1:]
        third = near[2:]
        for i in range(later.shape[0] - 2):
            both = near[i] & second[i]
            two[i] += both
            three[i] += both & third[i]
    n_two = 1
    n_three = 1
    for i in range(k):
        n_two += two[i]
        n_three += three[i]
    out[68] = np.log(n_two / n_three)
    out[69] = np.log(n_two / (k * k))


@njit(cache=True)
def spread(total, squares, count):  # type: ignore[no-untyped-def]
    """Standard deviation over mean."""
    mean = total / count
    return np.sqrt(max(squares / count - mean * mean, 0.0)) / mean
