"""Cuts what the model sees: beats with their RR context, and hops of two seconds.

The shard and the training run this same code, so the model meets in service what it met in training.
All beds are rows of the same arrays and every result is decided at an exact tick (250 Hz), so neither
the size of the chunks nor the beds that share a call change it.

    beats = PeriodDetector.push(...)                 R peaks, ticks
    whole = BeatCutter.push(rows, watermark, beats)  beats whose look-ahead is known, RR features
    wave, features = Templates.cut(...)              samples, template difference, shape features
    hops = HopCutter.push(rows, available)           hops due on the absolute 2 s grid
    wave, mask = cut_hops(...)

Signals are float32, mV, at 125 Hz, NaN where missing, shape (rows, leads, capacity). Positions along the last
axis are the caller's to compute (`beat_start`, `hop_start` give sample numbers): subtract the number of the first
sample of a whole record, or take the remainder by the capacity of a mirrored ring of twice that length.
Positions beyond the array read as missing.
"""

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from model.forms import FORM_FEATURES, FORM_SAMPLES, N_FORM_ROW, N_FORM_SCALE, N_FORMS, assign_forms
from model.kernels import (
    BEAT_BEFORE,
    BEAT_SAMPLES,
    FIRST_CONTEXT,
    HISTORY,
    MAX_PENDING,
    MAX_RR,
    N_CONTEXT,
    N_SCALE,
    compare,
    complete_beats,
    take_samples,
)
from model.resample import ModelRate
from model.rows import Rows

Int = npt.NDArray[np.int64]
Float = npt.NDArray[np.float32]

TICK_HZ, MODEL_HZ = 250, 125
BEAT_CHANNELS = 4  # best lead, its difference from the running template, second lead, its difference
HOP_S, TOKEN_HOPS, TOKEN_BEATS = 2, 15, 48
HOP_TICKS, HOP_SAMPLES = HOP_S * TICK_HZ, 2 * HOP_S * MODEL_HZ
N_CHANNELS = 2

WINDOW_FEATURES = (
    "rr_median", "rr_upper", "next_median", "next_unknown", "next_rr", "drr", "rr_s", "previous_median", "irregular",
    "rr_unknown", "rr_z", "next_z", "spread", "pair", "previous_z", "history", "correlation", "difference", "width",
    "width_change", "amplitude_change", "other_correlation", "atrial_correlation", "second_lead",
    "second_correlation", "quality", "steepness", "steepness_change", "polarity", "polarity_change", "area_change",
    "t_correlation", "unlike_share", "previous_correlation", "second_difference", "second_width_change",
    "second_amplitude_change", "second_steepness_change", "second_polarity_change", "strangeness",
    "atrial_strangeness", "second_strangeness",
)  # fmt: skip
"""Names of the first of the beat features, in order: those that a window sees of its beats, too.

rr_median, rr_upper: log of RR by the median of the last 15 and by the mean of the longer half of the last 60 RRs.
next_median, next_rr: log of the next RR by that median and by RR; 0 where `next_unknown` is 1.
drr: (RR - previous RR) / median. rr_s: log of RR in s; 0 where `rr_unknown` is 1. irregular: mean |dRR| / median of 8.
rr_z, next_z, previous_z: RR, next and previous RR less the median of the last 60, in units of their spread (1.5 median
absolute deviations and 3 % of the median). spread: log of that deviation by the median. pair: log of RR + next RR by
two medians (0: a full pause follows). history: share of 20 RRs that are known.
correlation, difference: with the running template (best lead) over the QRS, at the best of 9 shifts up to 32 ms, and
the size of the difference there. strangeness: log of the distance (1 - correlation) by that of the row's usual beats;
atrial_strangeness: the same of the P wave's place, `atrial_correlation`. t_correlation: with the template's T wave.
width: of the QRS in units of 0.1 s. steepness: log of the steepest slope by the amplitude. polarity: -1 down to 1 up.
width_change, amplitude_change, area_change: log ratio to the running usual beat; steepness_change, polarity_change:
difference from it. other_correlation: with the running template of the most frequent beats unlike the usual.
unlike_share: of the last beats. previous_correlation: `correlation` of the beat before.
second_lead: 1 where there is one; second_...: of that lead. quality: 0..1 as given times the share of samples there.
"""
CONTEXT_FEATURES = (
    *(f"rr_{k}_ago" for k in range(HISTORY)), "rr_following", "no_following", "rr_slow", "median_slow", "upper_median",
    "rr_tenth", "rr_ninetieth", "steps_over_8", "steps_over_20", "step_median", "rr_off", "rr_known", "median_s",
    "no_rr",
)  # fmt: skip
"""What the RR expert sees, all of it known without samples; logs of ratios.

rr_0_ago .. rr_11_ago, rr_following: the beat's own RR, those before it and the next by the median of the last 60, 0
where unknown (the next: 0.4, and no_following is 1). rr_slow, median_slow: RR and that median by a mean over 300 beats.
upper_median, rr_tenth, rr_ninetieth: mean of the longer half, 10th and 90th percentile of the 60 by their median.
steps_over_8, steps_over_20: share of steps from RR to RR over 8 and 20 % of the median; step_median: median step by it.
rr_off: share of RRs more than 10 % off the median. rr_known: share of the 60 that are known. median_s: log of s.
no_rr: 1 where the beat's own RR is unknown.
"""
FEATURES = (*WINDOW_FEATURES, *CONTEXT_FEATURES, *FORM_FEATURES)
"""All beat features, in order."""
N_FEATURES, N_WINDOW_FEATURES = len(FEATURES), len(WINDOW_FEATURES)
FIRST_FORM = FIRST_CONTEXT + N_CONTEXT
CONTEXT = slice(FIRST_CONTEXT, FIRST_FORM)
SHAPE = FEATURES.index("correlation")  # from here on, up to CONTEXT, and from FIRST_FORM on, features need the samples


class BeatsLike(Protocol):
    """What is used of `model.periods.Beats`: sorted by (row, at)."""

    @property
    def row(self) -> Int: ...
    @property
    def at(self) -> Int: ...
    @property
    def decided(self) -> Int: ...


class CompleteBeats(NamedTuple):
    """Beats whose look-ahead is known, sorted by (row, at). `ready`: the last tick that the beat needed."""

    row: Int
    at: Int
    ready: Int
    features: Float  # (k, N_FEATURES); the shape features are 0 until `Templates.cut`


class CutBeats(NamedTuple):
    """What the model sees of beats, and `form` (k,): number of its form in the row, from 1; 0: seen too seldom."""

    wave: Float  # (k, BEAT_CHANNELS, BEAT_SAMPLES), in units of the row's usual QRS amplitude
    features: Float  # (k, N_FEATURES)
    form: Int


class Hops(NamedTuple):
    """Hops that are due: the hop ends before tick `end` (a multiple of HOP_TICKS)."""

    row: Int
    end: Int


def beat_start(at: Int) -> Int:
    """Model sample at which the cut of a beat with its R peak at tick `at` begins."""
    return (at >> 1) - BEAT_BEFORE


def hop_start(end: Int) -> Int:
    """Model sample at which the samples (4 s) of the hop that ends before tick `end` begin."""
    return (end >> 1) - HOP_SAMPLES


def choose_leads(quality: Float) -> Int:
    """Best and second lead (k, 2) by the quality (k, C) of each, -1 where there is none.

    In steps of a quarter and by the order of the leads within a step, so that the choice seldom changes; a lead with
    quality 0 is taken for the best only where all are 0, never for the second. NaN: no such lead. For a beat use
    the last report at or before its R peak, for a hop the last at or before its end.
    """
    step = np.where(np.isfinite(quality), np.ceil(np.nan_to_num(quality) * 4), -1)
    order = np.argsort(-step, axis=1, kind="stable")[:, :N_CHANNELS]
    chosen = np.full((quality.shape[0], N_CHANNELS), -1, np.int64)
    chosen[:, : order.shape[1]] = order
    best = np.take_along_axis(step, order, axis=1)
    chosen[:, : order.shape[1]][best < np.array([0, 1])[: order.shape[1]]] = -1
    return chosen


def take(signal: Float, rows: Int, lead: Int, start: Int, length: int) -> Float:
    """Samples (k, 2, length) of two leads each, `lead` (k, 2) with -1 for none; NaN where there is nothing."""
    out = np.empty((rows.size, N_CHANNELS, length), np.float32)
    take_samples(signal, rows, lead, start, out)
    return out


def cut_hops(signal: Float, rows: Int, lead: Int, start: Int) -> tuple[Float, Float]:
    """Samples (k, 2, HOP_SAMPLES) in mV, missing ones 0, and the share (k, 2) of samples that were there."""
    wave = take(signal, rows, lead, start, HOP_SAMPLES)
    there = np.isfinite(wave)
    mask = there.mean(axis=2, dtype=np.float32)
    wave[~there] = 0.0
    np.clip(wave, -10.0, 10.0, out=wave)
    return wave, mask


class BeatCutter(Rows):
    """Keeps the RR context of every row and says which beats are complete.

    A beat is complete when the next R peak is known, or none has come within LOOK_AHEAD, and its samples are there.
    `ready` is the later of the last tick for the look-ahead and for the samples (`signal_delay`: ticks that the
    125 Hz signal lags), whatever the chunks.
    """

    STATE = ("_pending", "_n_pending", "_rr", "_n_rr", "_last", "_slow")

    def __init__(self, n_rows: int, signal_delay: int = ModelRate.DELAY) -> None:
        self.signal_delay = signal_delay
        self._pending = np.zeros((n_rows, MAX_PENDING, 2), np.int64)  # at, decided
        self._n_pending = np.zeros(n_rows, np.int64)
        self._rr = np.zeros((n_rows, MAX_RR), np.int64)  # newest last
        self._n_rr = np.zeros(n_rows, np.int64)
        self._last = np.full(n_rows, -1, np.int64)  # R peak before the first pending one
        self._slow = np.zeros((n_rows, 2))  # mean of log RR, beats in it

    def reset(self, rows: Int) -> None:
        """Forget the context: after a gap or at a new epoch. Call `flush` first to have the beats that wait."""
        self._n_pending[rows] = 0
        self._n_rr[rows] = 0
        self._last[rows] = -1
        self._slow[rows] = 0

    def push(self, rows: Int, watermark: Int, beats: BeatsLike, available: Int | None = None) -> CompleteBeats:
        """Take new R peaks (of any rows) and give the beats of `rows` that are complete.

        `watermark` (k,): tick up to which all R peaks of the row are known. `available` (k,): tick before which the
        125 Hz samples are there; the watermark where not given.
        """
        available = watermark if available is None else available
        return self._complete(rows, watermark, available, beats.row, beats.at, beats.decided)

    def flush(self, rows: Int, end: Int) -> CompleteBeats:
        """Complete all beats that wait: the signal of the row ends before tick `end` (k,)."""
        none = np.zeros(0, np.int64)
        far = np.full(rows.size, np.iinfo(np.int64).max // 2)
        done = self._complete(rows, far, far, none, none, none)
        ends = np.full(self._last.size, np.iinfo(np.int64).max // 2)
        ends[rows] = end
        return done._replace(ready=np.minimum(done.ready, np.maximum(ends[done.row], done.at)))

    def _complete(self, rows: Int, watermark: Int, available: Int, row: Int, at: Int, decided: Int) -> CompleteBeats:
        most = at.size + int(self._n_pending[rows].sum()) + int(self._n_pending[row].sum())
        out_row, out_at, out_ready = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
        features = np.zeros((most, N_FEATURES), np.float32)
        n = complete_beats(
            row, at, decided, rows, watermark, available, self.signal_delay,
            self._pending, self._n_pending, self._rr, self._n_rr, self._last, self._slow,
            out_row, out_at, out_ready, features,
        )  # fmt: skip
        order = np.lexsort((out_at[:n], out_row[:n]))
        return CompleteBeats(out_row[order], out_at[order], out_ready[order], features[order])


class Templates(Rows):
    """The running template of the usual beat, per row and lead, with which each beat is compared.

    Causal: a beat is compared with what came before it, then enters the template if it is like it. Beside it the most
    frequent other beat is kept. The two change places where that one is the more frequent by far, or nearly as frequent
    and clearly narrower or less early: ventricular beats that come first, or often, do not stay the template.
    """

    STATE = ("_usual", "_other", "_scale", "_forms", "_form_scale", "_form_row", "_previous")

    def __init__(self, n_rows: int, n_leads: int) -> None:
        self._usual = np.zeros((n_rows, n_leads, BEAT_SAMPLES), np.float32)
        self._other = np.zeros((n_rows, n_leads, BEAT_SAMPLES), np.float32)
        self._scale = np.zeros((n_rows, n_leads, N_SCALE), np.float32)  # named in model.kernels
        self._forms = np.zeros((n_rows, n_leads, N_FORMS, FORM_SAMPLES), np.float32)
        self._form_scale = np.zeros((n_rows, N_FORMS, N_FORM_SCALE))  # named in model.forms, as is the next
        self._form_row = np.zeros((n_rows, N_FORM_ROW))
        self._previous = np.zeros((n_rows, n_leads, 1, FORM_SAMPLES), np.float32)

    def reset(self, rows: Int) -> None:
        """Forget the templates of these rows."""
        for name in self.STATE:
            getattr(self, name)[rows] = 0

    def cut(self, signal: Float, beats: CompleteBeats, lead: Int, start: Int, quality: Float | None = None) -> CutBeats:
        """Samples, all features and forms of beats, which must come in order of time in each row, each once.

        `lead` (k, 2): best and second lead, -1 for none. `start` (k,): positions of `beat_start(at)` in `signal`.
        `quality` (k,) 0..1 of the best lead.
        """
        k = beats.row.size
        raw = take(signal, beats.row, lead, start, BEAT_SAMPLES)
        wave = np.zeros((k, BEAT_CHANNELS, BEAT_SAMPLES), np.float32)
        features = beats.features.copy()
        good = np.ones(k, np.float32) if quality is None else quality.astype(np.float32)
        compare(raw, beats.row, lead, good, self._usual, self._other, self._scale, wave, features)
        form = np.zeros(k, np.int64)
        assign_forms(
            raw, beats.row, lead, self._forms, self._form_scale, self._form_row, self._previous, features, FIRST_FORM,
            form,
        )  # fmt: skip
        return CutBeats(wave, features, form)


class HopCutter(Rows):
    """Says which hops are due: every HOP_S on the absolute grid, from the first with two seconds of signal."""

    STATE = ("_next",)

    def __init__(self, n_rows: int) -> None:
        self._next = np.full(n_rows, HOP_TICKS, np.int64)

    def reset(self, rows: Int, first_tick: Int) -> None:
        """The signal of these rows begins (again) at `first_tick` (k,)."""
        self._next[rows] = -(-(first_tick + HOP_TICKS) // HOP_TICKS) * HOP_TICKS

    def push(self, rows: Int, available: Int) -> Hops:
        """Hops of `rows` that end at or before tick `available` (k,), before which the 125 Hz samples are there."""
        n = np.maximum((available - self._next[rows]) // HOP_TICKS + 1, 0)
        row = np.repeat(rows, n)
        first = np.repeat(self._next[rows], n)
        step = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
        self._next[rows] += n * HOP_TICKS
        return Hops(row, first + step * HOP_TICKS)
