"""Calibration: the temperature that makes a confidence mean what it says (Guo et al., ICML 2017), and its error; the
line that takes back of an answer what it does not know (Platt 1999, for a number as for odds).

Each recording weighs the same, however long it is. Probabilities (n, c) float, labels (n,) int, weights (n,).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit, logit

from model.segments import Int

Probs = npt.NDArray[np.floating]
Numbers = npt.NDArray[np.floating]
Weights = npt.NDArray[np.float64]

_GRID = np.exp(np.linspace(np.log(0.4), np.log(4.0), 70))
N_BINS = 15
ABSTAIN = 0.4
"""A rhythm whose calibrated confidence is lower is not told: `?`."""


def by_recording(of: Int) -> Weights:
    """Weight of each item so that every recording (`of`, (n,)) weighs the same; they sum to 1."""
    _, member, n = np.unique(of, return_inverse=True, return_counts=True)
    weight: Weights = 1.0 / n[member] / n.size
    return weight


def cooled(probs: Probs, temperature: float) -> Probs:
    """The same answers at another temperature; above 1 less sure."""
    power = np.log(np.maximum(probs, 1e-12)) / temperature
    power = np.exp(power - power.max(1, keepdims=True))
    out: Probs = power / power.sum(1, keepdims=True)
    return out


def temperature(probs: Probs, label: Int, weight: Weights) -> float:
    """That of the least weighted negative log-likelihood, from a grid of 0.4 to 4."""
    row = np.arange(label.size)
    loss = [-(weight * np.log(np.maximum(cooled(probs, t)[row, label], 1e-12))).sum() for t in _GRID]
    return float(_GRID[int(np.argmin(loss))])


def ece(probs: Probs, label: Int, weight: Weights) -> float:
    """Expected calibration error: mean distance of confidence and accuracy over 15 bins of confidence, 0 to 1."""
    confidence, right = probs.max(1), probs.argmax(1) == label
    bin_ = np.minimum((confidence * N_BINS).astype(int), N_BINS - 1)
    gap = np.bincount(bin_, weight * (confidence - right), N_BINS)
    return float(np.abs(gap).sum() / weight.sum())


@dataclass(frozen=True, slots=True)
class Line:
    """What to tell for an answer: offset + slope * answer. With a slope of 0 a constant."""

    offset: float = 0.0
    slope: float = 1.0

    def __call__(self, answer: Numbers) -> Numbers:
        return self.offset + self.slope * answer


def fitted_line(answer: Numbers, true: Numbers, weight: Weights, odds: bool = False) -> Line:
    """That of the least weighted absolute error (of 41 slopes); with `odds`, where the answer is log-odds and `true` 0
    or 1, of the greatest weighted likelihood. The slope is held within 0 and 1, so that it makes no answer surer nor
    turns it round; the mean answer is held within 5 and 95 %, as few patients may be of one sex."""
    share = weight / weight.sum()
    if not odds:
        lines = [Line(_median(true - slope * answer, share), float(slope)) for slope in np.linspace(0.0, 1.0, 41)]
        return min(lines, key=lambda line: float(share @ np.abs(true - line(answer))))
    mean, unit = float(share @ answer), max(float((share @ (answer - share @ answer) ** 2) ** 0.5), 1e-6)
    scaled = (answer - mean) / unit
    start = float(share @ true)

    def loss(at: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        z = at[0] + at[1] * scaled
        wrong = share * (expit(z) - true)
        return float(share @ (np.logaddexp(0, z) - true * z)), np.array([wrong.sum(), wrong @ scaled])

    first = logit(np.clip(start, 1e-3, 1 - 1e-3))
    found = minimize(loss, [first, 0.0], jac=True, method="L-BFGS-B", bounds=[(-3.0, 3.0), (0.0, unit)]).x
    slope = float(found[1]) / unit
    return Line(float(found[0]) - slope * mean, slope)


def _median(values: Numbers, share: Weights) -> float:
    order = np.argsort(values)
    return float(values[order][np.searchsorted(share[order].cumsum(), 0.5)])
