"""Fits the judge of the period detector (model/weights/periods.safetensors) and says how it does on unseen patients.

    RECORDINGS=... python -m tests.benchmarks.fit_periods --out periods.safetensors --folds periods_folds.safetensors

Data: mitdb (22 DS1 and 4 paced records), ludb (two leads by chance of each record, its ten seconds joined end to end at
the same phase of the beat), noise of nstdb. Of the noise only what `nst` never adds is taken: the first five minutes
and the other two of each four. The detector runs over each case, as it is and disturbed; its candidates, labelled by
the reference beats, join the pool, a new judge is fitted, and that one runs next (Ross et al., DAgger, AISTATS 2011).
The first judge is a plain threshold, so nothing is known before.

Six folds by patient: the judge of a fold is fitted without the candidates of its records, and theirs are gathered by
it. (Candidates of other records may have been gathered by judges that saw this fold; that touches the detector's state,
never a label.) A judge is the mean of several networks fitted from different beginnings, which is itself a network of
the same form. Monotone: see model/periods.py.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import save_file

from model.datasets import annotations, find, physical, read
from model.periods import N_FEATURES, Net, PeriodDetector
from model.resample import Resampler
from tests.benchmarks.compare_detectors import DS1, FOLDS, PACED, recording
from tests.benchmarks.nst import PERIOD_S, START_S, noise_of

UP = (0, 2, 3, 5, 6, 9, 10, 18)  # energy, wait and likeness
DOWN = (4, 15, 25, 35, 36)  # noise, what was larger before
HIDDEN, MEMBERS, JITTER, EASY = 24, 3, 0.3, 0.1
EPOCHS, BIAS = 6, 0.5
WEIGHTS = {"clean": 1.0, "one lead": 0.7, "noise": 0.4, "jumps": 0.4, "drop-out": 0.4}
LUDB_WEIGHT, LUDB_TIMES = 0.5, 4
EVERYWHERE = -1  # the fold of what is no record of mitdb
SNR_DB = (24, 18, 12, 9, 6, 3, 0, -3)
Floats = npt.NDArray[np.float32]
Ticks = npt.NDArray[np.float64]


class Case(NamedTuple):
    """x (2, n) mV at 250 Hz; the ticks of its beats; its VF from and to; which fold leaves it out."""

    x: Floats
    at: Ticks
    episodes: list[tuple[float, float]]
    fold: int


class Share(NamedTuple):
    """What one run over one case adds to the pool."""

    z: Floats
    beat: Floats
    weight: Floats
    fold: int


@click.command(help=__doc__)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The judge fitted on all.")
@click.option("--folds", type=click.Path(path_type=Path), required=True, help="The judges of the folds.")
@click.option("--rounds", default=3)
@click.option("--seed", default=0)
def main(out: Path, folds: Path, rounds: int, seed: int) -> None:
    cases = [*mitdb_cases(), *ludb_cases(seed)]
    fold_nets, net = fit_all(cases, rounds, seed)
    names = ("w1", "b1", "w2", "b2")
    save_file({f"{k}.{n}": a for k, each in enumerate(fold_nets) for n, a in zip(names, each, strict=True)}, folds)
    save_file(dict(zip(names, net, strict=True)), out)


def fit_all(cases: list[Case], rounds: int, seed: int) -> tuple[list[Net], Net]:
    """The judges of the folds, and that of all cases."""
    noises = [unused(at_250(noise_of(kind), 360.0)) for kind in ("bw", "ma")]
    nets = [threshold()] * (FOLDS + 1)
    pool: list[Share] = []
    for turn in range(rounds):
        for kind, weight in WEIGHTS.items():
            for k, case in enumerate(cases):
                rng = np.random.default_rng([seed, turn, k, list(WEIGHTS).index(kind)])
                net = nets[case.fold] if case.fold != EVERYWHERE else nets[k % FOLDS]
                pool.append(gather(case, kind, weight, net, noises, rng))
        last = turn == rounds - 1
        epochs, members = (EPOCHS, MEMBERS) if last else (3, 1)
        nets = [fit([s for s in pool if s.fold != fold], epochs, members, seed + 100 * turn) for fold in range(FOLDS)]
        click.echo(f"round {turn + 1} of {rounds}: {sum(len(s.beat) for s in pool)} candidates")
    return [biased(net) for net in nets], biased(fit(pool, EPOCHS, MEMBERS, seed + 1000))


def biased(net: Net) -> Net:
    """At the point of work, where about as many beats are missed as invented."""
    return (*net[:3], net[3] + np.float32(BIAS))


def mitdb_cases() -> list[Case]:
    cases = []
    for k, name in enumerate((*DS1, *PACED)):
        one = recording(name)
        ticks = one.at / one.fs * 250
        symbol = np.array(one.symbols)
        episodes = list(zip(ticks[symbol == "["] - 37, ticks[symbol == "]"] + 37, strict=True))
        cases.append(Case(at_250(one.x, one.fs), one.beats() / one.fs * 250, episodes, k % FOLDS))
    return cases


def ludb_cases(seed: int) -> Iterator[Case]:
    """Two leads by chance of each record of ludb, from its first R peak to its last, over and over."""
    rng = np.random.default_rng([seed, 141])
    for path in find("ludb"):
        record = read(path, annotator=None)
        two = rng.permutation(len(record.signals))[:2]
        name = record.signals[two[0]].name.lower()
        marks = annotations(path, name)
        if marks is None:
            continue
        at = marks.sample[np.array(marks.symbols) == "N"] / record.fs * 250
        if len(at) < 4:
            continue
        y = at_250(physical(record)[two], record.fs)
        before = 0.4 * (at[1] - at[0])  # between the T wave of one beat and the P wave of the next
        first, last = int(at[0] - before), int(at[-1] - before)
        if first < 0:
            at = at[1:]
            first = int(at[0] - before)
        part = y[:, first:last]
        # ends meet
        ramp = np.linspace(0, 1, part.shape[1])[None, :] * (part[:, -1:] - part[:, :1])
        whole = np.tile(part - ramp.astype(np.float32), LUDB_TIMES)
        inside = at[:-1] - first
        beats = np.concatenate([inside + k * part.shape[1] for k in range(LUDB_TIMES)])
        yield Case(np.ascontiguousarray(whole), beats, [], EVERYWHERE)


def at_250(x: Floats, fs: float) -> Floats:
    stage = Resampler(1, len(x))
    stage.configure(0, fs)
    y, m, _ = stage.push(np.array([0]), x[None], np.array([x.shape[1]]))
    return np.ascontiguousarray(y[0, :, : m[0]])


def unused(noise: Floats) -> Floats:
    """The parts of a noise record, at 250 Hz, that nst never adds."""
    tick = np.arange(noise.shape[1]) - START_S * 250
    return np.ascontiguousarray(noise[:, (tick < 0) | (tick // (PERIOD_S * 250) % 2 == 1)])


def gather(case: Case, kind: str, weight: float, net: Net, noises: list[Floats], rng: np.random.Generator) -> Share:
    """Runs the detector over a case; of the easy candidates a tenth is kept, and counts ten times."""
    if case.fold == EVERYWHERE:
        weight *= LUDB_WEIGHT
    y = disturbed(case.x, case.at, kind, noises, rng)
    detector = PeriodDetector(1, 2, net)
    seen = detector.candidates(np.array([0]), y[None], np.array([y.shape[1]]))
    beat = labels(seen[:, 1], case.at, case.episodes)
    hard = np.abs(seen[:, 2]) < 4
    keep = hard | (rng.random(len(seen)) < EASY)
    share = np.where(hard, 1.0, 1 / EASY).astype(np.float32) * np.float32(weight)
    return Share(seen[keep, 3:].copy(), beat[keep], share[keep], case.fold)


def labels(tick: Floats, at: Ticks, episodes: list[tuple[float, float]]) -> Floats:
    """1 for the candidate nearest to a reference beat, within 160 ms and outside VF."""

    def nearest(of: Ticks, among: Ticks) -> npt.NDArray[np.int64]:
        right = np.clip(np.searchsorted(among, of), 1, len(among) - 1)
        return right - (of - among[right - 1] <= among[right] - of)

    t = tick.astype(float)
    if len(t) < 2:
        return np.zeros(len(t), np.float32)
    mine = nearest(t, at)
    beat = (nearest(at, t)[mine] == np.arange(len(t))) & (np.abs(at[mine] - t) <= 40)
    for begin, end in episodes:
        beat &= (t < begin) | (t > end)
    return beat.astype(np.float32)


def disturbed(x: Floats, at: Ticks, kind: str, noises: list[Floats], rng: np.random.Generator) -> Floats:
    y, n = x.copy(), x.shape[1]
    if kind == "one lead":
        y[1] = np.nan
    start = 0
    while kind not in {"clean", "one lead"} and start < n:
        stop = start + int(rng.integers(2500, 20000))
        stop = n if stop > n - 250 else stop
        if kind in {"noise", "drop-out"} and rng.random() < 0.6:
            inner = at[(at > 20) & (at < n - 20)].astype(int)
            swing = np.ptp(x[:, inner[:, None] + np.arange(-12, 13)], axis=2).mean(1)
            noise = np.roll(noises[rng.integers(2)], -int(rng.integers(200000)), 1)[:, : stop - start]
            power = noise[:, : len(noise[0]) // 125 * 125].reshape(2, -1, 125).var(2).mean(1)
            gain = np.sqrt(swing**2 / 8 / (power + 1e-9) / 10 ** (rng.choice(SNR_DB) / 10))
            y[:, start:stop] += (noise - noise.mean(1, keepdims=True)) * gain[:, None].astype(np.float32)
        if kind == "drop-out" and rng.random() < 0.6:
            lead = slice(2) if rng.random() < 0.2 else int(rng.integers(2))
            y[lead, start:stop] = rng.choice([np.nan, np.nan, 0, 5, -5])
        if kind == "jumps":
            y[:, start:stop] *= np.exp(rng.uniform(np.log(0.2), np.log(5)))
            y[rng.integers(2), start:stop] *= rng.choice([-1, 1])
        start = stop
    return y


def threshold() -> Net:
    """The judge to begin with: a beat is what has half the energy of a usual one, less after a wait."""
    w1 = np.zeros((1, N_FEATURES), np.float32)
    w1[0, 0], w1[0, 2] = 0.01, 0.005
    return w1, np.array([0.007], np.float32), np.array([1000], np.float32), np.zeros(1, np.float32)


def fit(pool: list[Share], epochs: int, members: int, seed: int) -> Net:
    """The mean of several networks, as one."""
    nets = [fit_one(pool, epochs, seed + 7 * k) for k in range(members)]
    w1, b1, w2 = (np.concatenate([net[i] for net in nets]) for i in range(3))
    return w1, b1, w2 / np.float32(members), np.mean([net[3] for net in nets], axis=0)


def fit_one(pool: list[Share], epochs: int, seed: int) -> Net:
    """Logistic loss, jitter on the inputs; the second layer is positive, and so (or its opposite) is the weight of a
    monotone input.
    """
    torch.manual_seed(seed)
    z, beat, share = (np.concatenate([s[i] for s in pool]) for i in range(3))  # type: ignore[misc]
    mean, deviation = z.mean(0), z.std(0) + 1e-3
    x, target, weight = (torch.from_numpy(a.astype(np.float32)) for a in ((z - mean) / deviation, beat, share))
    sign = torch.zeros(N_FEATURES)
    sign[list(UP)], sign[list(DOWN)] = 1, -1
    raw = [torch.randn(HIDDEN, N_FEATURES) * 0.3, torch.zeros(HIDDEN), torch.randn(HIDDEN) * 0.3 - 1, torch.zeros(1)]
    raw = [p.requires_grad_() for p in raw]
    positive = torch.nn.functional.softplus

    def first() -> torch.Tensor:
        return torch.where(sign == 0, raw[0], sign * positive(3 * raw[0] - 1) / 3)

    size, n = 4096, len(x)
    steps = epochs * (n // size + 1)
    optimiser = torch.optim.AdamW(raw, lr=4e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1.2e-2, total_steps=steps + 1)
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
