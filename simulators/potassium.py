"""Simulated patients whose serum potassium is known, written as WFDB records: no public recording says it.

    python -m simulators.potassium --out out/simulated          # folders potassium/ and potassium-unseen/

Everything here is **simulated**: what a model learns from it is how well it reads this text-book, not a patient.

Beats are sums of Gaussian waves in leads II and V4 (as in McSharry et al. 2003, in time instead of phase); the waves
follow the potassium level by published relations:

- T wave: from normal to raised potassium in the same patients, 2.7 to 4.0 mm high in II and 3.7 to 5.0 mm in V4, half
  as wide, and PR 167 to 188 ms (32 dialysis patients, 5.5 mmol/L and above against their own normal state; abstract
  "Best electrocardiographic criteria for hyperkalemia in chronic hemodialysis patients"). We spread that over 4.5 to
  6.3 mmol/L. Steeper and narrower T waves are also what Corsi et al. 2017 (doi 10.1038/srep42492) quantify it by.
- P wave: smaller from 6.5, gone at 8 mmol/L; QRS wider from 7, one wave with T (a sine) at 8 to 10 (the usual table of
  text-books).
- Low potassium: T flatter below 3.5, flat or turned at 2.5; a U wave that grows to take its place, ST pressed down.

Ours: each relation is exponential or linear between these points, and each patient has an own strength of all of them
(half to one and a half times), own normal waves, rate, noise and wander, so that no single measure gives the level
away: across patients the height of T says little of it (r about 0.2 in 89 dialysis patients, Pappal et al., "Peaked
T-waves and potassium"). The patients of `potassium-unseen` have waves, strengths, rates and noise from ranges that
those of `potassium` never have.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from model.datasets import POTASSIUM_LEVELS, POTASSIUM_NORMAL

LEADS = ("II", "V4")
FS, GAIN = 250.0, 200.0  # Hz, adu per mV
_NORMAL = 4.5  # mmol/L, where a patient's waves are as drawn

Float = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Population:
    """Ranges (low, high) that patients are drawn from, evenly. t_mv: height of T in II; strength: of every effect of
    potassium, 1 as published; rr_s: s; pr_s: s from P to R; noise_mv, wander_mv: rms."""

    t_mv: tuple[float, float]
    strength: tuple[float, float]
    rr_s: tuple[float, float]
    pr_s: tuple[float, float]
    qrs_s: tuple[float, float]
    noise_mv: tuple[float, float]
    wander_mv: tuple[float, float]


POPULATIONS = {
    "potassium": Population(
        (0.15, 0.38), (0.7, 1.5), (0.62, 1.05), (0.135, 0.185), (0.011, 0.015), (0.005, 0.03), (0.02, 0.1)
    ),
    "potassium-unseen": Population(
        (0.38, 0.5), (0.5, 0.7), (0.5, 0.62), (0.185, 0.21), (0.015, 0.018), (0.03, 0.045), (0.1, 0.15)
    ),
}


@dataclass(frozen=True, slots=True)
class Wave:
    """A Gaussian: `at` and `width` (standard deviation) in s from the R peak, `mv` by lead."""

    at: float
    width: float
    mv: tuple[float, float]


def waves(level: float, own: dict[str, float]) -> list[Wave]:
    """The waves of a beat at a potassium level in mmol/L, for a patient's own parameters (see `Population`)."""
    high, strength = max(level - _NORMAL, 0.0), own["strength"]
    t_height = np.exp(strength * high * np.array([0.22, 0.17]))  # x1.48 and x1.35 over 1.8 mmol/L
    t_width = 0.055 * np.exp(-0.25 * strength * min(high, 2.2))
    p_height = float(np.clip((8.0 - level) / 1.5, 0, 1))
    wide = 1 + 0.35 * strength * max(level - 7.0, 0.0)
    pr_s = own["pr_s"] + 0.012 * strength * high
    t_at = 0.27 * np.sqrt(own["rr_s"] / 0.85)
    low = max(3.5 - level, 0.0) * strength
    t_height = t_height - 0.95 * low  # flat near 2.5, then turned
    u_mv, st_mv = 0.11 * low, -0.06 * low
    if level > 8:  # QRS and T melt into one wave
        t_width, t_at = t_width * (1 + 0.5 * (level - 8)), t_at - 0.02 * (level - 8)
    width, t_mv = own["qrs_s"] * wide, own["t_mv"]
    return [
        Wave(-pr_s, 0.022, (0.13 * p_height, 0.07 * p_height)),
        Wave(-2.2 * width, 0.7 * width, (-0.10, -0.08)),
        Wave(0.0, width, (1.1 * own["r"], 1.3 * own["r"])),
        Wave(2.3 * width, 0.9 * width, (-0.22, -0.55)),
        Wave(t_at - 0.14, 0.045, (st_mv, 1.3 * st_mv)),
        Wave(t_at, t_width, (t_mv * t_height[0], 1.37 * t_mv * t_height[1])),
        Wave(t_at + 0.17, 0.035, (u_mv, 1.2 * u_mv)),
    ]


def render(
    level: float, population: Population, n: int, rng: np.random.Generator
) -> tuple[Float, npt.NDArray[np.int64]]:
    """A patient's signal (2, n) in mV at `FS` and the samples of the R peaks."""
    own = {name: rng.uniform(*getattr(population, name)) for name in population.__slots__} | {
        "r": rng.uniform(0.6, 1.4)
    }
    rr: Float = own["rr_s"] * np.ones(int(n / FS / own["rr_s"]) + 2)
    breath, phase = rng.uniform(0.2, 0.33), rng.uniform(0, 2 * np.pi)
    rr *= 1 + 0.03 * np.sin(2 * np.pi * breath * np.cumsum(rr) + phase) + rng.normal(0, 0.012, rr.size)
    peaks = np.cumsum(rr) - rng.uniform(0, own["rr_s"])
    time = np.arange(n) / FS
    signal = np.zeros((len(LEADS), n))
    shape, beat_size = waves(level, own), 1 + 0.05 * np.sin(2 * np.pi * breath * peaks + phase)
    for peak, size in zip(peaks, beat_size, strict=True):
        first, last = np.searchsorted(time, [peak - 0.45, peak + 0.75])
        near = time[first:last] - peak
        for wave in shape:
            bump = size * np.exp(-0.5 * ((near - wave.at) / wave.width) ** 2)
            signal[:, first:last] += bump * np.array(wave.mv)[:, None]
    drift = np.cumsum(rng.normal(0, 1, signal.shape), axis=1)
    drift -= np.array([np.convolve(d, np.ones(500) / 500, "same") for d in drift])  # what is slower than 2 s is gone
    signal += own["wander_mv"] * drift / drift.std() + rng.normal(0, own["noise_mv"], signal.shape)
    at = np.rint(peaks * FS).astype(np.int64)
    return signal, at[(at >= 0) & (at < n)]


def level_of(rng: np.random.Generator) -> float:
    """A potassium level, mmol/L: half normal, a fifth low (2.3 up), three tenths high (to 8.8)."""
    low, high = POTASSIUM_NORMAL
    kind = rng.random()
    if kind < 0.5:
        return float(rng.uniform(low, high))
    return float(rng.uniform(2.3, low) if kind < 0.7 else rng.uniform(high, 8.8))


def write(folder: Path, n_patients: int, duration_s: float, seed: int) -> None:
    """Write both populations, three patients of `potassium` for one of `potassium-unseen`, each with `potassium.csv`.

    Raises ValueError for fewer than 4 patients or less than 20 s."""
    if n_patients < 4:
        raise ValueError(f"patients: {n_patients} are too few to split; give 4 or more")
    if not 20 <= duration_s <= 3600:
        raise ValueError(f"duration: {duration_s} s; give 20 to 3600")
    for number, (name, population) in enumerate(POPULATIONS.items()):
        n = n_patients // 4 if number else n_patients - n_patients // 4
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        rows = []
        for i in tqdm(range(n), desc=f"simulate {name}", unit="patient"):
            rng = np.random.default_rng([seed, number, i])
            level, record = level_of(rng), f"k{number}{i:04d}"
            signal, peaks = render(level, population, round(duration_s * FS), rng)
            _write_record(place, record, signal, peaks, level)
            rows.append((record, f"{level:.2f}"))
        with (place / POTASSIUM_LEVELS).open("w", newline="") as file:
            csv.writer(file).writerows([("record", "potassium_mmol_l"), *rows])


def _write_record(folder: Path, name: str, signal: Float, peaks: npt.NDArray[np.int64], level: float) -> None:
    import wfdb

    wfdb.wrsamp(
        name,
        fs=FS,
        units=["mV"] * len(LEADS),
        sig_name=list(LEADS),
        d_signal=np.rint(np.clip(signal * GAIN, -2047, 2047)).astype(np.int64).T,
        fmt=["16"] * len(LEADS),
        adc_gain=[GAIN] * len(LEADS),
        baseline=[0] * len(LEADS),
        comments=[f"simulated patient, serum potassium {level:.2f} mmol/L"],
        write_dir=str(folder),
    )
    wfdb.wrann(name, "atr", sample=peaks, symbol=["N"] * peaks.size, write_dir=str(folder))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m simulators.potassium",
        description="Writes WFDB records of simulated patients with known serum potassium.",
        epilog="Example: python -m simulators.potassium --out out/simulated --patients 400 --seed 0",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for potassium/ and potassium-unseen/")
    parser.add_argument("--patients", type=int, default=400)
    parser.add_argument("--duration", type=float, default=60.0, help="seconds of each record")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    try:
        write(given.out, given.patients, given.duration, given.seed)
    except ValueError as error:
        print(f"simulators.potassium: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
