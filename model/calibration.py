"""Calibration: the temperature that makes a confidence mean what it says (Guo et al., ICML 2017), and its error.

Each recording weighs the same, however long it is. Probabilities (n, c) float, labels (n,) int, weights (n,).
"""

import numpy as np
import numpy.typing as npt

from model.segments import Int

Probs = npt.NDArray[np.floating]
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
