"""What each part of ECG-MoE earns: the model with that part switched off, trained anew, beside a plain net.

    RECORDINGS=... python -m tests.benchmarks.ablation --work runs/ablation --json ablation.json --plot docs/ablation.png
    RECORDINGS=... python -m tests.benchmarks.ablation --variant no-lora --seed 0     # one row, one seed

One reduced budget for all rows (`BUDGET`: steps of 256 items), one patient-wise split: fold 0 of 3 is left out of every
phase, the pre-training too. Beats are those of our own online detector, scored on DS1's records of that fold. The
encoders (views and band stem) are trained once per seed, frozen and shared; so is the whole model's morphology path where
a row changes none of it. What is done is kept in the JSON and not done again.
"""

import json
import pickle
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import matplotlib as mpl
import numpy as np
import torch
from torch.nn import functional as fn
from tqdm import tqdm

from model import train as trainer
from model.beat_phase import beat_batch
from model.card import table
from model.course import Course, Extra, Settings, fit
from model.ecg_moe import EcgMoe
from model.examples import PACED
from model.figures import FoldResult, beat_figures, challenge_figures, rhythm_figures, segment_figures
from model.form_votes import voted
from model.labels import BEATS
from model.phases import balanced, draw
from model.pool import Pool
from model.segments import Int
from model.sequences import Sequences
from model.tokens import wave_and_features
from tests.benchmarks.variants import VARIANTS, PlainNet, Variant

BUDGET = replace(
    Settings(), folds=3, flat=60, views=100, band=200, rr=800, beats=250, windows=300,
    sources=(("mitdb", None), ("vfdb", None), ("cudb", None), ("cinc2017", 900)),
)  # fmt: skip
PLAIN = {  # steps in units of the budget's, and whether it is helped
    "plain": ("plain net, 14k parameters", 1, False),
    "plain-long": ("plain net, four times the steps", 4, False),
    "plain-helped": ("plain net, our RR expert and votes", 1, True),
}
ROWS = {name: v.told for name, v in VARIANTS.items()} | {name: told for name, (told, _, _) in PLAIN.items()}
FIGURES = ("VEB F1", "SVEB F1", "AF mitdb", "AF sequences", "shockable", "Challenge F1")
Scores = dict[str, float | None]


class Lab:
    """What all rows share: examples, split, encoders and the whole model's morphology path of a seed."""

    def __init__(self, work: Path) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self.work, self.pool = work, trainer._pool(BUDGET, work)
        fold = self.pool.folds(BUDGET.folds, BUDGET.seed)
        self.taught, self.left = np.flatnonzero(fold != 0), np.flatnonzero(fold == 0)
        told = self._kept("extra.pkl", lambda: pickle.dumps(Extra.load(BUDGET)), bytes)
        everything: Extra = pickle.loads(told)
        self.extra = everything.without(0, BUDGET)
        self.told: tuple[Sequences | None, Int | None] = everything.scored(0, BUDGET)

    def course(self, variant: Variant, seed: int, model: EcgMoe, pool: Pool) -> Course:
        """How a variant learns; nothing of the left-out fold is in it."""
        extra = variant.extra(self.extra, pool, self.taught)
        return Course(model, pool, self.taught, replace(BUDGET, seed=seed), self.work, f"run-{seed}", extra)

    def encoder(self, seed: int) -> dict[str, Any]:
        """Weights of the hop encoder, and the seconds it took."""

        def make() -> dict[str, Any]:
            model = _new(VARIANTS["full"], seed)
            seconds = self._timed(self.course(VARIANTS["full"], seed, model, self.pool), "views", "band")
            return {"weights": model.encoder.state_dict(), "seconds": seconds}

        return self._saved(f"encoder-{seed}.pt", make)

    def beats(self, seed: int) -> dict[str, Any]:
        """Weights of the whole model's morphology path, and the seconds it took."""

        def make() -> dict[str, Any]:
            model = _new(VARIANTS["full"], seed)
            seconds = self._timed(self.course(VARIANTS["full"], seed, model, self.pool), "rr", "beats")
            return {"weights": model.morphology.state_dict(), "seconds": seconds}

        return self._saved(f"beats-{seed}.pt", make)

    def model(self, name: str, seed: int) -> tuple[EcgMoe, Pool, float]:
        """A trained variant, the pool as it sees it, and the seconds that all its phases took."""
        variant, shared = VARIANTS[name], self.encoder(seed)
        model, pool = _new(variant, seed), variant.pool(self.pool)
        model.encoder.load_state_dict(shared["weights"])
        model.encoder.eval().requires_grad_(False)
        seconds = shared["seconds"]
        if not variant.own_beats:
            path = self.beats(seed)
            model.morphology.load_state_dict(path["weights"])
            seconds += path["seconds"]
        variant.change(model)
        torch.manual_seed(seed)
        course = self.course(variant, seed, model, pool)
        own = ("rr", "beats") if isinstance(getattr(model.morphology, "form", None), torch.nn.Module) else ("rr",)
        seconds += self._timed(course, *(own if variant.own_beats else ()), "windows")
        return model.eval(), pool, seconds

    def plain(self, seed: int, steps: int) -> tuple[PlainNet, float]:
        """The plain net on the same beats, each class drawn by one over the root of its size, paced ones seldom."""
        torch.manual_seed(seed)
        net, pool, start = PlainNet(), self.pool, time.process_time()
        beats = np.flatnonzero(np.isin(pool.of_beat, self.taught) & (pool.beat >= 0))
        paced = np.isin(pool.name, PACED)[pool.of_beat[beats]]
        size = np.bincount(pool.beat[beats], minlength=len(BEATS)).clip(1)
        chance = np.cumsum(size[pool.beat[beats]] ** -0.5 * np.where(paced, 0.05, 1.0))

        def step(rng: np.random.Generator) -> torch.Tensor:
            index = draw(rng, beats, BUDGET.batch, chance)
            logits = net(*beat_batch(pool, index, rng, "cpu"))
            return fn.cross_entropy(logits, torch.from_numpy(pool.beat[index].astype(np.int64)), label_smoothing=0.02)

        self._fresh(f"plain-{seed}")
        path = self.work / f"plain-{seed}-beats.pt"
        fit(net, [net], step, steps, 3e-3, 0.01, path, (seed, steps), "plain net")
        return net.eval(), time.process_time() - start

    def _timed(self, course: Course, *phases: str) -> float:
        """Processor seconds of phases, done from their start."""
        self._fresh(course.name)
        start = time.process_time()
        for phase in phases:
            getattr(course, phase)()
        return time.process_time() - start

    def _fresh(self, name: str) -> None:
        for old in self.work.glob(f"{name}-*.pt"):
            old.unlink()

    def _saved(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        path = self.work / name
        if not path.is_file():
            torch.save(make(), path.with_suffix(".part"))
            path.with_suffix(".part").rename(path)
        kept: dict[str, Any] = torch.load(path, weights_only=True)
        return kept
