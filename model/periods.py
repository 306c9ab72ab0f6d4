"""Finds the R peaks of all beds online: causal, several leads, an R peak out at most 250 ms after its sample.

The chain per lead is that of Pan and Tompkins (IEEE Trans Biomed Eng 1985;32:230): a band-pass that is also a
derivative, squared, averaged over a QRS width. Deviations: pulses of a pacemaker are taken out first; the filter is the
derivative of a Gaussian (linear phase, short); leads are fused as ratios to their own running QRS level, weighted by
their contrast, so that a lead may fall off or return; and where Pan and Tompkins compare a peak with thresholds, a
small network (37 ratios, one hidden layer, monotone in those whose sense is known: more energy, more likeness to the
last beats, a longer wait never make a beat less likely) judges it. Search-back, which a bounded delay forbids, is what
the wait since the last beat does in that judgement.

All per-tick work is one compiled call for all rows (model/detection.py). Each decision is made at a fixed tick from
state at that tick, so the result is bit for bit the same however the signal is cut into chunks and whichever rows share
a call.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from model.detection import (
    AHEAD,
    BAD,
    CANDIDATE,
    DELAY,
    EMITTED,
    HELD,
    HISTORY,
    LAST,
    N_COLUMNS,
    N_FEATURES,
    N_LEAD_COLUMNS,
    N_LEVELS,
    NOISE,
    NONE,
    REJECTED,
    REJECTED_AT,
    SHAPE_HALF,
    SLOPE_HALF,
    TAIL_LEVEL,
    detect,
)
from model.rows import Rows

__all__ = ["DELAY", "N_FEATURES", "WEIGHTS", "Beats", "Net", "PeriodDetector", "load_net"]

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Net = tuple[Floats, Floats, Floats, Floats]

WEIGHTS = Path(__file__).parent / "weights" / "periods.safetensors"


class Beats(NamedTuple):
    """R peaks, sorted by (row, at)."""

    row: Ints
    at: Ints  # tick of the R peak
    decided: Ints  # last tick that the decision needed; decided - at <= DELAY
    amplitude: Floats  # mV, peak to peak of the QRS on `lead`
    lead: Ints  # the lead that the peak was placed on


class PeriodDetector(Rows):
    """Online R-peak detector over rows of beds; see the module's text for the method."""

    STATE = ("_tick", "_signal", "_slope", "_energy", "_fused", "_lead", "_levels", "_row", "_rr", "_shape")

    def __init__(self, n_rows: int, n_leads: int, net: Net | None = None) -> None:
        self.n_rows, self.n_leads = n_rows, n_leads
        self._tick = np.zeros(n_rows, np.int64)
        self._signal = np.zeros((n_rows, n_leads, HISTORY), np.float32)
        self._slope = np.zeros((n_rows, n_leads, HISTORY), np.float32)
        self._energy = np.zeros((n_rows, n_leads, HISTORY), np.float32)
        self._fused = np.zeros((n_rows, HISTORY), np.float32)
        self._lead = np.zeros((n_rows, n_leads, N_LEAD_COLUMNS))
        self._levels = np.zeros((n_rows, n_leads, N_LEVELS))
        self._row = np.zeros((n_rows, N_COLUMNS))
        self._rr = np.zeros((n_rows, N_LEVELS))
        self._shape = np.zeros((n_rows, n_leads, 2 * SHAPE_HALF + 1), np.float32)
        self._taps = _slope_taps()
        w1, b1, w2, b2 = load_net() if net is None else net
        self._net = np.ascontiguousarray(w1.T), b1, w2, b2
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
        self._lead[rows, :, BAD] = first[:, None] - 1
        self._lead[rows, :, HELD] = np.nan
        self._row[rows, LAST] = first - 1000
        self._row[rows, EMITTED] = first - 1000
        self._row[rows, REJECTED] = 0.02
        self._row[rows, REJECTED_AT] = first
        self._row[rows, NOISE] = 0.1
        self._row[rows, CANDIDATE] = NONE
        self._row[rows, TAIL_LEVEL] = 0.2
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
        rate = int(np.asarray(m).sum()) // AHEAD + 2 * len(rows)
        return self._run(rows, y, m, np.zeros((rate, 3 + N_FEATURES), np.float32))[1]

    def _run(self, rows: Ints, y: Floats, m: Ints, trace: Floats) -> tuple[npt.NDArray[np.float64], Floats]:
        rows = np.asarray(rows, np.int64)
        m = np.asarray(m, np.int64)
        found = np.zeros((int((m // AHEAD + 2).sum()), 5))
        n, n_traced = detect(
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


def _slope_taps() -> Floats:
    at = np.arange(-SLOPE_HALF, SLOPE_HALF + 1)
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
