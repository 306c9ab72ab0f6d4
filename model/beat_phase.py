"""How the morphology path learns: the RR expert from beats known by their time, the rest from beats with samples."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as fn

from model.ecg_moe import EcgMoe, FeatureExpert
from model.examples import PACED
from model.labels import BEATS
from model.phases import Chance, draw, tensor
from model.pool import Pool
from model.rr_beats import CLASSES, RrBeats
from model.segments import FEATURES, Float, Int
from model.tokens import wave_and_features

_TARGET = np.array([0, 0, 1, 2, 3])  # class of BEATS to output of the path: N or S, V, F, Q
_SECOND_LEAD = FEATURES.index("second_lead")
_SECOND = [i for i, name in enumerate(FEATURES) if name.startswith("second")]


class RrTask:
    """Teaches the RR expert N S V. Beats are drawn by one over the root of the size of their class, times the size of
    their class in their patient to the power of -0.4."""

    def __init__(self, expert: FeatureExpert, beats: RrBeats, device: str) -> None:
        self.expert, self.beats, self.device = expert, beats, device
        self.index = np.arange(beats.label.size)
        label = beats.label.astype(np.int64)
        here = beats.of_beat * len(CLASSES) + label
        chance = np.bincount(label, minlength=3).clip(1)[label] ** -0.5 * np.bincount(here)[here] ** -0.4
        settle(expert, beats.context)
        self.chance: Chance = np.cumsum(chance / chance.sum())
        drawn, there = np.bincount(label, chance, 3), np.bincount(label, minlength=3)
        self.surplus = float(np.log(max(drawn[1] / drawn[0] * there[0] / max(there[1], 1), 1.0)))

    def loss(self, n: int, rng: np.random.Generator) -> Tensor:
        """The loss of one batch, each member on all of it."""
        index = draw(rng, self.index, n, self.chance)
        features = tensor(self.beats.features(index), self.device)
        return _of_members(self.expert, features, tensor(self.beats.label[index].astype(np.int64), self.device), 0.02)

    def settle(self) -> None:
        """Freeze the expert, and take off S half of the log of how much oftener than in patients it was drawn.

        All of it makes probabilities right; half of it finds as many S as it calls falsely (docs/model.md).
        """
        with torch.no_grad():
            self.expert.bias3[..., CLASSES.index("S")] -= 0.5 * self.surplus
        self.expert.requires_grad_(False)


def settle(expert: FeatureExpert, x: Float) -> None:
    """Take the scale of the expert's columns from all examples (n, columns)."""
    expert.mean[:] = tensor(x.mean(0), expert.mean.device)
    expert.spread[:] = tensor(x.std(0) + 1e-3, expert.mean.device)


def _of_members(expert: FeatureExpert, features: Tensor, target: Tensor, noise: float) -> Tensor:
    """Loss of all members, each on all examples, with noise in units of the spread."""
    x = expert.scaled(features)
    logits = expert.members(x + noise * torch.randn_like(x))
    every = target.expand(logits.shape[0], -1).flatten()
    return fn.cross_entropy(logits.flatten(0, 1), every, label_smoothing=0.02) * logits.shape[0]


def beat_batch(pool: Pool, index: Int, rng: np.random.Generator, device: str) -> tuple[Tensor, Tensor]:
    """Samples (k, 4, 128) and features (k, F) of beats `index` of the pool, augmented: gain, polarity, place of the
    peak, leads swapped, the second missing, noise on the samples."""
    n = index.size
    wave, features = wave_and_features(pool, index, device)
    sign = rng.choice([-1.0, 1.0], (n, 2), p=[0.2, 0.8]).repeat(2, axis=1)
    wave = wave * tensor(sign, device)[..., None] * tensor(np.exp(rng.normal(0, 0.15, (n, 1, 1))), device)
    wave = torch.roll(wave, int(rng.integers(-2, 3)), 2)
    alone = tensor(rng.random(n) < 0.3, device)
    wave[:, 2:] = wave[:, 2:] * ~alone[:, None, None]
    features[:, _SECOND] = features[:, _SECOND] * ~alone[:, None]
    swap = tensor(rng.random(n) < 0.15, device) & (features[:, _SECOND_LEAD] > 0.5)
    wave = torch.where(swap[:, None, None], wave[:, [2, 3, 0, 1]], wave)
    noise = tensor(0.05 * rng.random((n, 1, 1)), device)
    return wave + noise * torch.randn_like(wave) * (wave.abs().amax(2, keepdim=True) > 0), features


def beat_loss(model: EcgMoe, pool: Pool, index: Int, rng: np.random.Generator, device: str) -> Tensor:
    """The loss of one batch, on augmented beats."""
    wave, features = beat_batch(pool, index, rng, device)
    logits, _, gate = model.morphology(wave, features + 0.02 * torch.randn_like(features))
    use = gate.mean(0)
    target = tensor(_TARGET[pool.beat[index]], device)
    loss: Tensor = fn.cross_entropy(logits, target, label_smoothing=0.02) + 0.02 * use.numel() * use.square().sum()
    return loss + _of_members(model.morphology.form, features, target, 0.05)


def beat_chance(pool: Pool, beats: Int) -> Chance:
    """Chance of each beat to be drawn, summed up: one over the root of the size of its class, N and S
    being one; a twentieth of it for the paced records, which else fill class Q with three patients."""
    label = _TARGET[pool.beat[beats]]
    chance: Chance = np.bincount(label, minlength=len(BEATS) - 1).clip(1)[label] ** -0.5
    chance[np.isin(pool.name, PACED)[pool.of_beat[beats]]] *= 0.05
    total: Chance = np.cumsum(chance / chance.sum())
    return total
