"""Forms of beats: each row's beats put in groups by the shape of their QRS, as they come.

A beat says little alone. That its like come often, on time and narrow makes it a usual one; that they come seldom,
early and wide, with a pause behind them, an ectopic one. The groups are kept as running templates over the two leads in
use, as in the clustering of Lagerholm et al. (IEEE Trans. Biomed. Eng. 47, 2000), but leader-follower and causal:
a beat joins the form that it is most like, or begins a new one in the place of the one least worth keeping.
"""

import numpy as np
from numba import njit

from model.kernels import BEAT_BEFORE

N_FORMS = 8
FORM_FEATURES = (
    "form_share", "form_recent", "form_likeness", "form_margin", "form_usual", "usual_likeness", "form_early",
    "form_next", "form_width", "form_amplitude", "n_forms", "form_count", "form_since", "form_run", "usual_share",
    "usual_early", "early_in_form", "form_atrial", "usual_width", "form_z", "next_in_form", "form_rarity", "form_new",
    "previous_likeness",
)  # fmt: skip
"""Of the beat's form, before the beat has entered it; `usual`: of the row's usual form.

form_share, form_recent: log of its share of the last 200 and of the last 16 beats. form_likeness: correlation with its
template, form_margin: less that with the next best. form_usual: 1 where it is the usual form. form_early, form_next,
form_z, form_atrial: running means of `rr_upper`, `next_median`, `rr_z` and, less the usual form's,
`atrial_correlation`. form_width, form_amplitude: log by the usual form's. n_forms: forms in use. form_count: log of its
beats. form_since: log of the beats since its last one. form_run: log of how many came in a row. early_in_form,
next_in_form: the beat's own less the form's mean. form_rarity: log of its share by the usual form's. form_new: 1 where
it begins with this beat. previous_likeness: correlation with the beat before.
"""
N_FORM_FEATURES = len(FORM_FEATURES)

_FIRST, _END, _PAD = BEAT_BEFORE - 12, BEAT_BEFORE + 20, 3  # -96 to +160 ms around R, at shifts up to 24 ms
FORM_SAMPLES = _END - _FIRST
_ALIKE = 0.9  # correlation from which a beat is of a form
_SETTLED = 3.0  # beats from which a form is told by its number
_LEAST_MV = 0.03  # leads with less are not compared

# What is kept of a form, and of a row.
_COUNT, _SHARE, _RECENT, _EARLY, _NEXT, _WIDTH, _AMPLITUDE, _ATRIAL, _LAST, _Z, _NUMBER = range(11)
N_FORM_SCALE = 11
_BEATS, _CURRENT, _RUN, _NUMBERS = range(4)
N_FORM_ROW = 4


@njit(cache=True, fastmath=True)
def _dot(x, c, start, templates, r, u, q):  # type: ignore[no-untyped-def]
    total = np.float32(0.0)
    for j in range(FORM_SAMPLES):
        total += x[c, start + j] * templates[r, u, q, j]
    return total


@njit(cache=True, fastmath=True)
def _norms(x, out):  # type: ignore[no-untyped-def]
    """One over the spread of the window at each shift."""
    total, squares = np.float32(0.0), np.float32(0.0)
    for j in range(FORM_SAMPLES):
        total += x[j]
        squares += x[j] * x[j]
    for shift in range(2 * _PAD + 1):
        out[shift] = 1.0 / np.sqrt(max(squares - total * total / FORM_SAMPLES, np.float32(1e-9)))
        if shift < 2 * _PAD:
            gone, come = x[shift], x[shift + FORM_SAMPLES]
            total += come - gone
            squares += come * come - gone * gone


@njit(cache=True)
def assign_forms(raw, row, lead, templates, scale, of_row, previous, features, first, form):  # type: ignore[no-untyped-def]
    """Beats in order: `features[:, first:]` and `form` (number of a settled form, else 0) are written.

    raw (k, 2, BEAT_SAMPLES) mV. templates (rows, leads, N_FORMS, FORM_SAMPLES): mean zero, length one, or all zero.
    """
    x = np.zeros((2, FORM_SAMPLES + 2 * _PAD), np.float32)
    norm = np.zeros((2, 2 * _PAD + 1), np.float32)
    amplitude, usable = np.zeros(2), np.zeros(2, np.bool_)
    likeness, shift_of = np.zeros(N_FORMS), np.zeros(N_FORMS, np.int64)
    for i in range(row.size):
        r = row[i]
        own, f = features[i], features[i, first:]
        s, about = scale[r], of_row[r]
        form[i] = 0
        for c in range(2):
            usable[c] = False
            if lead[i, c] < 0:
                continue
            n, low, high, mean = 0, np.inf, -np.inf, 0.0
            for j in range(x.shape[1]):
                v = raw[i, c, _FIRST - _PAD + j]
                if np.isfinite(v):
                    n += 1
                    mean += v
                    low, high = min(low, v), max(high, v)
            if n < FORM_SAMPLES or high - low < _LEAST_MV:
                continue
            mean /= n
            for j in range(x.shape[1]):
                v = raw[i, c, _FIRST - _PAD + j]
                x[c, j] = v - mean if np.isfinite(v) else 0.0
            amplitude[c], usable[c] = high - low, True
            _norms(x[c], norm[c])
        if not (usable[0] or usable[1]):
            continue
        size = amplitude[0] if usable[0] else amplitude[1]
        # The form that the beat is most like, and the usual one: frequent, narrow and not early.
        best, best_value, second, usual, usual_value = -1, -2.0, -2.0, -1, -np.inf
        for q in range(N_FORMS):
            likeness[q], shift_of[q] = -2.0, _PAD
            if s[q, _COUNT] == 0:
                continue
            middle = _PAD
            for tried in range(5):  # every other shift, then the neighbours of the best where that is promising
                if tried == 3:
                    middle = shift_of[q]
                    if likeness[q] < 0.6:
                        break
                shift = 1 + 2 * tried if tried < 3 else middle + 2 * tried - 7
                total, weight = 0.0, 0.0
                for c in range(2):
                    if usable[c] and templates[r, lead[i, c], q, 0] != 0.0:
                        w = 1.0 if c == 0 else 0.7
                        total += w * _dot(x, c, shift, templates, r, lead[i, c], q) * norm[c, shift]
                        weight += w
                if weight > 0 and total / weight - 0.003 * abs(shift - _PAD) > likeness[q]:
                    likeness[q] = total / weight - 0.003 * abs(shift - _PAD)
                    shift_of[q] = shift
            value = likeness[q]
            if abs(np.log(size / s[q, _AMPLITUDE])) > 0.7:
                value -= 0.3
            if value > best_value:
                second, best_value, best = best_value, value, q
            elif value > second:
                second = value
            if s[q, _COUNT] >= 2 or about[_BEATS] < 5:
                value = np.log(s[q, _SHARE] + 0.01) - 2.0 * np.log(s[q, _WIDTH]) + 2.0 * s[q, _EARLY]
                if value > usual_value:
                    usual_value, usual = value, q
        about[_BEATS] += 1
        width, early, following = max(own[18], 0.08), min(max(own[1], -1.0), 1.0), min(max(own[2], -1.0), 1.0)
        new = best_value < _ALIKE
        if new:
            best, least = -1, np.inf
            for q in range(N_FORMS):
                worth = s[q, _SHARE] + 0.3 * s[q, _RECENT] if s[q, _COUNT] > 0 else 0.0
                if q != usual and worth < least:
                    least, best = worth, q
            templates[r, :, best] = 0.0
            s[best] = 0.0
            about[_NUMBERS] += 1
            s[best, _NUMBER] = about[_NUMBERS]
            s[best, _WIDTH], s[best, _AMPLITUDE], s[best, _LAST] = width, size, about[_BEATS]
        if usual < 0:
            usual = best
        about[_RUN] = about[_RUN] + 1 if about[_CURRENT] == best and about[_BEATS] > 1 else 1
        about[_CURRENT] = best
        b, u = s[best], s[usual]
        f[0], f[1] = np.log(b[_SHARE] + 0.003), np.log(b[_RECENT] + 0.02)
        f[2] = 1.0 if new else best_value
        f[3] = best_value - second if second > -2 and not new else 0.0
        f[4] = 1.0 if best == usual else 0.0
        f[5] = likeness[usual] if likeness[usual] > -2 else 1.0
        f[6], f[7] = b[_EARLY], b[_NEXT]
        f[8], f[9] = np.log(b[_WIDTH] / u[_WIDTH]), np.log(b[_AMPLITUDE] / u[_AMPLITUDE])
        in_use = 0
        for q in range(N_FORMS):
            if s[q, _COUNT] >= _SETTLED and s[q, _SHARE] > 0.01:
                in_use += 1
        f[10], f[11] = in_use, np.log(1.0 + b[_COUNT])
        f[12], f[13] = np.log(1.0 + about[_BEATS] - b[_LAST]), np.log(1.0 + about[_RUN])
        f[14], f[15] = u[_SHARE], u[_EARLY]
        if b[_COUNT] > 0:
            f[16], f[17], f[20] = early - b[_EARLY], b[_ATRIAL] - u[_ATRIAL], following - b[_NEXT]
        f[18], f[19] = np.log(u[_WIDTH]), b[_Z]
        f[21] = np.log(u[_SHARE] + 0.01) - np.log(b[_SHARE] + 0.01)
        f[22] = 1.0 if new else 0.0
        c = 0 if usable[0] else 1
        u_c = lead[i, c]
        if previous[r, u_c, 0, 0] != 0.0:
            nearest = -2.0
            for shift in range(2 * _PAD + 1):
                nearest = max(nearest, _dot(x, c, shift, previous, r, u_c, 0) * norm[c, shift])
            f[23] = nearest
        # The beat enters its form.
        b[_COUNT] += 1
        rate = max(1.0 / b[_COUNT], 1.0 / 24.0)
        for c in range(2):
            if not usable[c]:
                continue
            _remember(x[c], _PAD, norm[c], 1.0, previous[r, lead[i, c], 0])
            template = templates[r, lead[i, c], best]
            _remember(x[c], shift_of[best] if not new else _PAD, norm[c], rate if template[0] != 0.0 else 1.0, template)
        b[_EARLY] += rate * (early - b[_EARLY])
        b[_NEXT] += rate * (following - b[_NEXT])
        b[_WIDTH] += rate * (width - b[_WIDTH])
        b[_AMPLITUDE] += rate * (size - b[_AMPLITUDE])
        b[_ATRIAL] += rate * (own[22] - b[_ATRIAL])
        b[_Z] += rate * (own[10] - b[_Z])
        b[_LAST] = about[_BEATS]
        slow, fast = max(1.0 / about[_BEATS], 1.0 / 200.0), max(1.0 / about[_BEATS], 1.0 / 16.0)
        for q in range(N_FORMS):
            is_it = 1.0 if q == best else 0.0
            s[q, _SHARE] += slow * (is_it - s[q, _SHARE])
            s[q, _RECENT] += fast * (is_it - s[q, _RECENT])
        if b[_COUNT] >= _SETTLED:
            form[i] = int(b[_NUMBER])


@njit(cache=True, fastmath=True)
def _remember(x, shift, norm, rate, template):  # type: ignore[no-untyped-def]
    """Move the template towards the beat, and bring it back to mean zero and length one."""
    mean, squares = np.float32(0.0), np.float32(0.0)
    for j in range(FORM_SAMPLES):
        template[j] += np.float32(rate) * (x[shift + j] * norm[shift] - template[j])
        mean += template[j]
    mean /= FORM_SAMPLES
    for j in range(FORM_SAMPLES):
        template[j] -= mean
        squares += template[j] * template[j]
    unit = 1.0 / np.sqrt(max(squares, np.float32(1e-12)))
    for j in range(FORM_SAMPLES):
        template[j] *= unit
    if template[0] == 0.0:
        template[0] = 1e-9  # all zero would say that there is none
