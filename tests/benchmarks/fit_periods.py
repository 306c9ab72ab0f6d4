"""Fits the judge of the period detector (model/weights/periods.safetensors) on mitdb with noise of nstdb.

    RECORDINGS=... python -m tests.benchmarks.fit_periods --out periods.safetensors

The detector runs with its present judge over each record, as it is and disturbed; its candidates, labelled by the
reference beats, are added to the pool and a new judge is fitted, twice (Ross et al., DAgger, AISTATS 2011). There are
six folds by patient: after the first round, which runs with the judge as it stands, a record's candidates come from a
judge that has not seen it. Monotone: see model/periods.py.
"""

from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import save_file

from model.periods import N_FEATURES, Net, PeriodDetector, load_net
from tests.benchmarks.bench_periods import DS1, _at_250, _folder, _read

PACED = (102, 104, 107, 217)
UP = (0, 2, 3, 5, 6, 9, 10, 18)  # energy, wait and likeness
DOWN = (4, 15, 25)  # noise, what was larger before
HIDDEN, JITTER, FOLDS, BIAS = 24, 0.3, 6, 0.7
WEIGHTS = {"clean": 1.0, "one lead": 0.7, "noise": 0.4, "jumps": 0.4, "drop-out": 0.4}
Floats = npt.NDArray[np.float32]


@click.command(help=__doc__)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--rounds", default=2)
@click.option("--seed", default=0)
def main(out: Path, rounds: int, seed: int) -> None:
    torch.manual_seed(seed)
    records = {name: _read(name) for name in (*DS1, *PACED)}
    noises = [x[:, x.shape[1] // 2 :] for x in (_at_250(_folder() / "nstdb" / kind) for kind in ("bw", "ma"))]
    nets = [load_net()] * FOLDS
    pool: list[tuple[Floats, Floats, Floats, int]] = []
    for turn in range(rounds):
        for kind, weight in WEIGHTS.items():
            for k, (x, at, episodes) in enumerate(records.values()):
                rng = np.random.default_rng([seed, turn, k])
                detector = PeriodDetector(1, 2, nets[k % FOLDS])
                y = disturbed(x, at, kind, noises, rng)
                seen = detector.candidates(np.array([0]), y[None], np.array([y.shape[1]]))
                beat = labels(seen[:, 1], at, episodes)
                hard = np.abs(seen[:, 2]) < 4
                keep = hard | (rng.random(len(seen)) < 0.25)
                share = np.where(hard, 1.0, 4.0).astype(np.float32) * np.float32(weight)
                pool.append((seen[keep, 3:], beat[keep], share[keep], k % FOLDS))
        nets = [fit([p for p in pool if p[3] != fold], 4 + 2 * turn) for fold in range(FOLDS)]
        click.echo(f"round {turn + 1} of {rounds}: {sum(len(p[1]) for p in pool)} candidates")
    w1, b1, w2, b2 = fit(pool, 8)
    save_file({"w1": w1, "b1": b1, "w2": w2, "b2": b2 + np.float32(BIAS)}, out)


def labels(tick: Floats, at: npt.NDArray[np.float64], episodes: list[tuple[float, float]]) -> npt.NDArray[np.float32]:
    """1 for the candidate nearest to a reference beat, within 160 ms and outside VF."""

    def nearest(of: npt.NDArray[np.float64], among: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        right = np.clip(np.searchsorted(among, of), 1, len(among) - 1)
        return right - (of - among[right - 1] <= among[right] - of)

    t = tick.astype(float)
    mine = nearest(t, at)
    beat = (nearest(at, t)[mine] == np.arange(len(t))) & (np.abs(at[mine] - t) <= 40)
    for begin, end in episodes:
        beat &= (t < begin) | (t > end)
    return beat.astype(np.float32)


def disturbed(
    x: Floats, at: npt.NDArray[np.float64], kind: str, noises: list[Floats], rng: np.random.Generator
) -> Floats:
    y, n = x.copy(), x.shape[1]
    if kind == "one lead":
        y[1] = np.nan
    start = 0
    while kind not in {"clean", "one lead"} and start < n:
        stop = min(n, start + int(rng.integers(2500, 20000)))
        if kind in {"noise", "drop-out"} and rng.random() < 0.6:
            inner = at[(at > 20) & (at < n - 20)].astype(int)
            swing = np.ptp(x[:, inner[:, None] + np.arange(-12, 13)], axis=2).mean(1)
            noise = np.roll(noises[rng.integers(2)], -int(rng.integers(100000)), 1)[:, : stop - start]
            gain = np.sqrt(swing**2 / 8 / (noise.var(1) + 1e-9) / 10 ** (rng.choice([24, 18, 12, 9, 6, 3, 0]) / 10))
            y[:, start:stop] += (noise - noise.mean(1, keepdims=True)) * gain[:, None].astype(np.float32)
        if kind == "drop-out" and rng.random() < 0.6:
            y[rng.integers(2), start:stop] = np.nan if rng.random() < 0.5 else 0
        if kind == "jumps":
            y[:, start:stop] *= np.exp(rng.uniform(np.log(0.2), np.log(5)))
            y[rng.integers(2), start:stop] *= rng.choice([-1, 1])
        start = stop
    return y


def fit(pool: list[tuple[Floats, Floats, Floats, int]], epochs: int) -> Net:
    """Logistic loss, jitter on the inputs; the second layer is positive, and so (or its opposite) is the weight of a
    monotone input.
    """
    z, beat, share = (np.concatenate([p[i] for p in pool]) for i in range(3))  # type: ignore[misc]
    mean, deviation = z.mean(0), z.std(0) + 1e-3
    x, target, weight = (torch.from_numpy(a.astype(np.float32)) for a in ((z - mean) / deviation, beat, share))
    sign = torch.zeros(N_FEATURES)
    sign[list(UP)], sign[list(DOWN)] = 1, -1
    raw = [torch.randn(HIDDEN, N_FEATURES) * 0.3, torch.zeros(HIDDEN), torch.randn(HIDDEN) * 0.3 - 1, torch.zeros(1)]
    raw = [p.requires_grad_() for p in raw]
    positive = torch.nn.functional.softplus

    def first() -> torch.Tensor:
        return torch.where(sign == 0, raw[0], sign * positive(3 * raw[0] - 1) / 3)

    size, n = 2048, len(x)
    steps = epochs * (n // size + 1)
    optimiser = torch.optim.AdamW(raw, lr=4e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 8e-3, total_steps=steps + 1)
    for _ in range(epochs):
        order = torch.randperm(n)
        for batch in order.split(size):
            noisy = x[batch] + JITTER * torch.randn_like(x[batch])
            score = torch.tanh(noisy @ first().T + raw[1]) @ positive(raw[2]) + raw[3]
            losses = torch.nn.functional.binary_cross_entropy_with_logits(score, target[batch], reduction="none")
            optimiser.zero_grad()
            (losses * weight[batch]).mean().backward()
            optimiser.step()
            schedule.step()
    with torch.no_grad():
        w1 = first().numpy() / deviation
        b1 = raw[1].numpy() - w1 @ mean
        return w1.astype(np.float32), b1.astype(np.float32), positive(raw[2]).numpy().copy(), raw[3].numpy().copy()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
