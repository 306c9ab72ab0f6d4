"""Speed and hits of the shard's signal stages.

    python -m tests.benchmarks.bench_periods speed --beds 1000
    RECORDINGS=... python -m tests.benchmarks.bench_periods score [--lead 0]
    RECORDINGS=... python -m tests.benchmarks.bench_periods noise

`score` is a quick look (150 ms, from minute 5, VF of record 207 out, nearest match); the figures that count come from
`run_pipeline.py evaluate`. `noise` adds the first half of nstdb `bw` and `ma` from minute 5, two minutes in four.
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
BEATS = list("NLRBAaJSVrFejnE/fQ?")
START = 75000  # ticks: five minutes
WINDOW = 37  # ticks: 150 ms
Floats = npt.NDArray[np.float32]


@click.group(help=__doc__)
def main() -> None:
    pass


@main.command()
@click.option("--beds", default=1000)
@click.option("--seconds", default=10)
def speed(beds: int, seconds: int) -> None:
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


@main.command()
@click.option("--lead", type=int, default=None, help="Only this lead; default both.")
def score(lead: int | None) -> None:
    """Hits and misses on the 22 DS1 records."""
    total = np.zeros(3, int)
    for name in DS1:
        x, at, episodes = _read(name)
        x = x if lead is None else x[lead : lead + 1]
        total += _report(str(name), x, at, episodes)
    _summary("gross", total)


@main.command()
def noise() -> None:
    """Hits and misses with noise added at 12, 6 and 0 dB."""
    for kind in ("bw", "ma"):
        wander = _at_250(_folder() / "nstdb" / kind)[:, :225000]
        wander = wander - wander.mean(1, keepdims=True)
        for snr in (12, 6, 0):
            total = np.zeros(3, int)
            for name in DS1:
                x, at, episodes = _read(name)
                inner = at[(at > 20) & (at < x.shape[1] - 20)].astype(int)
                swing = np.ptp(x[:, inner[:, None] + np.arange(-12, 13)], axis=2).mean(1)
                gain = np.sqrt(swing**2 / 8 / wander.var(1) / 10 ** (snr / 10))
                added = np.tile(wander, (1, x.shape[1] // wander.shape[1] + 1))[:, : x.shape[1]] * gain[:, None]
                tick = np.arange(x.shape[1])
                added[:, (tick < START) | ((tick - START) % 60000 >= 30000)] = 0
                total += _report("", x + added.astype(np.float32), at, episodes)
            _summary(f"{kind} {snr} dB", total)


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


def _read(name: int) -> tuple[Floats, npt.NDArray[np.float64], list[tuple[float, float]]]:
    import wfdb

    path = _folder() / "mitdb" / str(name)
    marks = wfdb.rdann(str(path), "atr")
    symbol, tick = np.array(marks.symbol), np.array(marks.sample) / 360 * 250
    episodes = list(zip(tick[symbol == "["] - WINDOW, tick[symbol == "]"] + WINDOW, strict=True))
    return _at_250(path), tick[np.isin(symbol, BEATS)], episodes


def _report(
    name: str, x: Floats, at: npt.NDArray[np.float64], episodes: list[tuple[float, float]]
) -> npt.NDArray[np.int64]:
    detector, rows = PeriodDetector(1, len(x)), np.array([0])
    parts = [detector.push(rows, x[None], np.array([x.shape[1]])), detector.flush(rows)]
    found = np.concatenate([p.at for p in parts]).astype(float)
    waited = np.concatenate([p.decided - p.at for p in parts])
    for begin, end in episodes:
        at, found = at[(at < begin) | (at > end)], found[(found < begin) | (found > end)]
    pairs = _pairs(at, found)
    hit = pairs[at[pairs[:, 0]] >= START]
    late, seen = int((at >= START).sum()), int((found >= START).sum())
    if name:
        offset = 4 * (found[hit[:, 1]] - at[hit[:, 0]])
        click.echo(
            f"{name} hit {len(hit)} missed {late - len(hit)} extra {max(0, seen - len(hit))} "
            f"offset {offset.mean():+.1f}+-{offset.std():.1f} ms, out after {4 * waited.max()} ms at most"
        )
    return np.array([len(hit), late - len(hit), max(0, seen - len(hit))])


def _pairs(at: npt.NDArray[np.float64], found: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Mutual nearest neighbours within the window, (k, 2) indices."""

    def nearest(of: npt.NDArray[np.float64], among: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        right = np.clip(np.searchsorted(among, of), 1, len(among) - 1)
        return right - (of - among[right - 1] <= among[right] - of)

    if len(found) < 2:
        return np.zeros((0, 2), np.int64)
    mine = nearest(at, found)
    mutual = nearest(found, at)[mine] == np.arange(len(at))
    near = np.abs(found[mine] - at) <= WINDOW
    index = np.flatnonzero(mutual & near)
    return np.stack([index, mine[index]], 1)


def _summary(name: str, total: npt.NDArray[np.int64]) -> None:
    hit, missed, extra = (int(v) for v in total)
    click.echo(
        f"{name}: Se {100 * hit / (hit + missed):.3f} % ({hit}/{hit + missed}) "
        f"+P {100 * hit / (hit + extra):.3f} % ({hit}/{hit + extra})"
    )


if __name__ == "__main__":
    main()
