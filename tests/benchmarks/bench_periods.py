"""Speed of the shard's signal stages.

    python -m tests.benchmarks.bench_periods --beds 1000

How many beats are found, and by whom: tests/benchmarks/compare_detectors.py.
"""

import os
import time
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from model.periods import PeriodDetector
from model.quality import Quality
from model.resample import ModelRate, Resampler
from model.vf import VfIndex

DS1 = (101, 106, 108, 109, 112, 114, 115, 116, 118, 119, 122, 124, 201, 203, 205, 207, 208, 209, 215, 220, 223, 230)
Floats = npt.NDArray[np.float32]


@click.command(help=__doc__)
@click.option("--beds", default=1000)
@click.option("--seconds", default=10)
def main(beds: int, seconds: int) -> None:
    """Each stage in pushes of 100 ms, two leads, as a share of one core in real time."""
    rng = np.random.default_rng(0)
    n = 250 * seconds
    beat = (np.arange(n)[None, :] + rng.integers(0, 200, beds)[:, None]) % 200 - 100
    one = np.exp(-0.5 * (beat / 4) ** 2) + 0.2 * np.exp(-0.5 * ((beat - 60) / 15) ** 2)
    x = (np.stack([one, 0.7 * one], 1) + rng.normal(scale=0.02, size=(beds, 2, n))).astype(np.float32)
    resampler = Resampler(beds, 2)
    for row in range(beds):
        resampler.configure(row, 360.0)
    detector, quality, vf, model = PeriodDetector(beds, 2), Quality(beds, 2), VfIndex(beds, 2), ModelRate(beds, 2)
    rows, m, m360 = np.arange(beds), np.full(beds, 25), np.full(beds, 36)
    stages = {
        "periods": lambda y: detector.push(rows, y, m),
        "quality": lambda y: quality.push(rows, y, m),
        "vf": lambda y: vf.push(rows, y, m),
        "to 125 Hz": lambda y: model.push(rows, y, m),
        "from 360 Hz": lambda y: resampler.push(rows, np.concatenate([y, y[:, :, :11]], 2), m360),
    }
    compiled = time.perf_counter()
    for call in stages.values():
        call(x[:, :, :25])
    click.echo(f"first call of all stages (compiling where no cache is): {time.perf_counter() - compiled:.1f} s")
    for name, call in stages.items():
        spent = 0.0
        for start in range(0, n - 24, 25):
            y = np.ascontiguousarray(x[:, :, start : start + 25])
            began = time.process_time()
            call(y)
            spent += time.process_time() - began
        share = spent / seconds
        click.echo(f"{name:12s} {1e6 * share / beds:7.1f} us per bed-second {100 * share:6.1f} % of a core")


def _folder() -> Path:
    return Path(os.environ["RECORDINGS"])


def _at_250(path: Path) -> Floats:
    import wfdb

    record = wfdb.rdrecord(str(path))
    stage = Resampler(1, record.n_sig)
    stage.configure(0, float(record.fs))
    x = record.p_signal.T.astype(np.float32)[None]
    y, m, _ = stage.push(np.array([0]), x, np.array([x.shape[2]]))
    return np.ascontiguousarray(y[0, :, : m[0]])


if __name__ == "__main__":
    main()
