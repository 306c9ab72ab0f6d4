"""Confidence intervals for rates: Wilson's for counts, the bootstrap over patients for what pools them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt

Z_95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate with what it is made of; `value`, `low` and `high` are None where nothing was counted."""

    numerator: float
    denominator: float
    value: float | None
    low: float | None
    high: float | None
    method: str = "wilson"


def rate(numerator: int, denominator: int) -> Rate:
    """A rate of counts with its Wilson interval of 95 %."""
    if denominator <= 0:
        return Rate(numerator, denominator, None, None, None)
    low, high = wilson(numerator, denominator)
    return Rate(numerator, denominator, numerator / denominator, low, high)


def wilson(numerator: int, denominator: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval (E. B. Wilson, JASA 22, 1927). Raises ValueError where it is not 0 <= k <= n, n > 0."""
    if not 0 <= numerator <= denominator or denominator == 0:
        raise ValueError(
            f"wilson: {numerator} of {denominator} is no share; give 0 <= numerator <= denominator, not of 0"
        )
    p, n = numerator / denominator, denominator
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap(
    parts: Sequence[tuple[float, float]], patients: Sequence[str], seed: int = 0, n_draws: int = 2000
) -> Rate:
    """A pooled ratio sum(numerators) / sum(denominators) with a percentile interval of 95 % over patients.

    `parts`: numerator and denominator per record; records of one patient are drawn together, as beats of one patient
    are alike and Wilson's interval over all beats is too narrow. Draws that hold nothing to count are left out.
    """
    if len(parts) != len(patients):
        raise ValueError(f"bootstrap: {len(parts)} parts and {len(patients)} patients; give one patient per part")
    groups = group(parts, patients)
    top, bottom = float(groups[:, 0].sum()), float(groups[:, 1].sum())
    if (groups[:, 1] > 0).sum() < 2:
        value = top / bottom if bottom > 0 else None
        return Rate(top, bottom, value, None, None, "bootstrap over patients")
    drawn = np.random.default_rng(seed).integers(0, len(groups), (n_draws, len(groups)))
    sums = groups[drawn].sum(axis=1)
    sums = sums[sums[:, 1] > 0]
    low, high = np.quantile(sums[:, 0] / sums[:, 1], [0.025, 0.975])
    return Rate(top, bottom, top / bottom, float(low), float(high), "bootstrap over patients")


def group(parts: Sequence[tuple[float, float]], patients: Sequence[str]) -> npt.NDArray[np.float64]:
    """Sums of the parts per patient, float64 (patients, 2), in order of first appearance."""
    order: Mapping[str, int] = {name: i for i, name in enumerate(dict.fromkeys(patients))}
    sums = np.zeros((len(order), 2))
    for part, patient in zip(parts, patients, strict=True):
        sums[order[patient]] += part
    return sums
