"""What each phase of the training learns from: batches, augmentation, pretext tasks and losses."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from model.ecg_moe import AGE_MEAN, AGE_SD, RR_SCALE, EcgMoe, HopEncoder, PatchView
from model.examples import PACED, UNKNOWN
from model.labels import ARRHYTHMIAS, BEATS, RHYTHMS
from model.pool import Pool
from model.segments import FEATURES, HOP_SAMPLES, Int
from model.tokens import Tokens, wave_and_mask

Chance = npt.NDArray[np.float64]

_SECOND_LEAD = FEATURES.index("second_lead")
_SECOND = [i for i, name in enumerate(FEATURES) if name.startswith("second")]


class Pretext(nn.Module):
    """The label-free tasks of the four views; each view learns from its own only.

    trend and season: fill in a hidden half second of the signal at 12.5 Hz, linearly. period: the mean cycle and its
    spread. patch: fill in hidden patches, and the spectrum from the pooled code. conv: tell the neighbouring hop of
    the same recording from other patients' (InfoNCE), and the spectrum.
    """

    def __init__(self, encoder: HopEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        view = encoder.conv.out.out_features
        self.slow, self.cycle = nn.Linear(view, 2 * 50), nn.Linear(view, 80)
        self.patch, self.spectrum1, self.spectrum2 = (
            nn.Linear(PatchView.WIDTH, 2 * PatchView.PATCH),
            nn.Linear(view, 32),
            nn.Linear(view, 32),
        )

    def forward(self, wave: Tensor, mask: Tensor, before: Tensor, mask_before: Tensor) -> Tensor:
        """The summed loss of a batch of hops and the hops before them."""
        e = self.encoder
        x, _, power = e.prepare(wave, mask)
        y, _, _ = e.prepare(before, mask_before)
        hidden = x.clone()
        start = int(torch.randint(0, HOP_SAMPLES - 62, ()).item())
        hidden[:, :, start : start + 62] = 0
        slow = fn.avg_pool1d(x, 10)
        loss = fn.smooth_l1_loss(self.slow(e.trend_season(hidden)), slow.flatten(1))
        folded = e.period.fold(x, power)
        cycle = torch.cat([folded.mean(2), folded.std(2)], 1).flatten(1)
        loss = loss + fn.smooth_l1_loss(self.cycle(e.period(x, power)), cycle)
        patches = e.patch.patches(x)
        gone = torch.rand(patches.shape[:2], device=x.device) < 0.4
        seen = torch.where(gone[..., None], e.patch.hidden, patches)
        loss = loss + fn.smooth_l1_loss(self.patch(e.patch.encode(seen))[gone], patches[gone])
        spectrum = torch.log(power[:, :128].reshape(-1, 32, 4).mean(2) + 1e-2) * 0.3
        loss = loss + fn.smooth_l1_loss(self.spectrum1(e.patch(x)), spectrum)
        one, two = e.conv(x + 0.1 * torch.randn_like(x)), e.conv(y + 0.1 * torch.randn_like(y))
        loss = loss + fn.smooth_l1_loss(self.spectrum2(one), spectrum)
        likeness = fn.normalize(one) @ fn.normalize(two).T / 0.2
        return loss + 0.2 * fn.cross_entropy(likeness, torch.arange(len(likeness), device=x.device))


def settle_views(encoder: HopEncoder, pool: Pool, hops: Int, device: str) -> None:
    """Fix the scale of the views' codes over all hops, then freeze the views."""
    norm = encoder.view_norm
    norm.reset_running_stats()
    norm.momentum = None
    encoder.eval()
    norm.train()
    with torch.no_grad():
        for part in np.array_split(hops, max(hops.size // 512, 1)):
            x, _, power = encoder.prepare(*wave_and_mask(pool, part, device))
            encoder.views(x, power)
    norm.eval()
    for view in (encoder.trend_season, encoder.period, encoder.patch, encoder.conv):
        view.requires_grad_(False)


class BandTask(nn.Module):
    """Rhythm, shockable, quality and the Challenge's classes from one hop token: teaches the band stem."""

    def __init__(self, encoder: HopEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        n = 4 * encoder.conv.out.out_features + encoder.band.out.out_features
        self.heads = nn.ModuleDict(
            {"rhythm": nn.Linear(n, len(RHYTHMS)), "arrhythmia": nn.Linear(n, len(ARRHYTHMIAS)), "yes": nn.Linear(n, 2)}
        )

    def forward(self, pool: Pool, index: Int, wave: Tensor, mask: Tensor) -> Tensor:
        """The loss of a batch: hops `index` of the pool, augmented."""
        x, level, power = self.encoder.prepare(wave, mask)
        with torch.no_grad():
            views = self.encoder.views(x, power)
        token = torch.cat([views, self.encoder.band(x, level, mask, power)], 1)
        yes = self.heads["yes"](token)
        return (
            _cross_entropy(self.heads["rhythm"](token), pool.rhythm[index])
            + 0.5 * _cross_entropy(self.heads["arrhythmia"](token), pool.arrhythmia[index])
            + _binary(yes[:, 0], pool.shockable[index])
            + 0.5 * _binary(yes[:, 1], pool.quality[index])
        )


def hop_chance(pool: Pool, hops: Int) -> Chance:
    """Chance of each hop to be drawn: by source and label, one over the root of how many there are."""
    key = pool.rhythm[hops].astype(np.int64) * 100 + pool.arrhythmia[hops] * 10 + pool.shockable[hops]
    potassium = pool.potassium[pool.of_hop[hops]]
    key += 10_000 * np.nan_to_num(potassium + 1).astype(np.int64)
    source = np.unique(pool.source, return_inverse=True)[1][pool.of_hop[hops]]
    _, group, n = np.unique(key + 100_000 * source, return_inverse=True, return_counts=True)
    known = (pool.rhythm[hops] >= 0) | (pool.arrhythmia[hops] >= 0) | (pool.shockable[hops] >= 0)
    known |= np.isfinite(potassium)
    chance = np.where(known, 1.0, 0.02) * n[group] ** -0.5
    total: Chance = np.cumsum(chance / chance.sum())
    return total


def draw(rng: np.random.Generator, hops: Int, n: int, chance: Chance | None) -> Int:
    """n of `hops`, evenly or by their summed-up chance."""
    place = rng.integers(0, hops.size, n) if chance is None else np.searchsorted(chance, rng.random(n) * chance[-1])
    out: Int = hops[place.clip(0, hops.size - 1)]
    return out


def hop_batch(pool: Pool, index: Int, rng: np.random.Generator, device: str) -> tuple[Tensor, Tensor]:
    """Augmented samples and mask of hops `index`."""
    return _augmented(*wave_and_mask(pool, index, device), rng)


def hop_pairs(pool: Pool, index: Int, rng: np.random.Generator, device: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Augmented samples and mask of hops `index`, and of the hops before them in the same recording."""
    before = np.where((index > 0) & (pool.of_hop[index - 1] == pool.of_hop[index]), index - 1, index)
    return *hop_batch(pool, index, rng, device), *hop_batch(pool, before, rng, device)


def _augmented(wave: Tensor, mask: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Gain x0.5 to x2, polarity of each lead, leads swapped, the second one missing."""
    n, device = wave.shape[0], wave.device
    sign = rng.choice([-1.0, 1.0], (n, 2), p=[0.25, 0.75])
    wave = wave * _tensor(np.exp(rng.uniform(-0.69, 0.69, (n, 1))) * sign, device)[..., None]
    swap = _tensor(rng.random(n) < 0.25, device) & (mask[:, 1] > 0.5)
    wave = torch.where(swap[:, None, None], wave.flip(1), wave)
    mask = torch.where(swap[:, None], mask.flip(1), mask)
    keep = torch.ones_like(mask)
    keep[:, 1] = _tensor(rng.random(n) > 0.3, device).float()
    return wave * keep[..., None], mask * keep


def beat_loss(model: EcgMoe, pool: Pool, index: Int, rng: np.random.Generator, device: str) -> Tensor:
    """The loss of one batch. Augmented: gain, polarity, place of the peak, leads swapped, the second missing, noise."""
    n = index.size
    wave = _tensor(pool.beat_wave[index].astype(np.float32), device)
    features = _tensor(pool.beat_features[index].copy(), device)
    sign = rng.choice([-1.0, 1.0], (n, 2), p=[0.2, 0.8]).repeat(2, axis=1)
    wave = wave * _tensor(sign, device)[..., None] * _tensor(np.exp(rng.normal(0, 0.15, (n, 1, 1))), device)
    wave = torch.roll(wave, int(rng.integers(-2, 3)), 2)
    alone = _tensor(rng.random(n) < 0.3, device)
    wave[:, 2:] = wave[:, 2:] * ~alone[:, None, None]
    features[:, _SECOND] = features[:, _SECOND] * ~alone[:, None]
    swap = _tensor(rng.random(n) < 0.15, device) & (features[:, _SECOND_LEAD] > 0.5)
    wave = torch.where(swap[:, None, None], wave[:, [2, 3, 0, 1]], wave)
    noise = _tensor(0.05 * rng.random((n, 1, 1)), device)
    wave = wave + noise * torch.randn_like(wave) * (wave.abs().amax(2, keepdim=True) > 0)
    features = features + 0.02 * torch.randn_like(features)
    logits, _, gate = model.morphology(wave, features)
    use = gate.mean(0)
    target = _tensor(pool.beat[index].astype(np.int64), device)
    loss: Tensor = fn.cross_entropy(logits, target, label_smoothing=0.02) + 0.02 * use.numel() * use.square().sum()
    return loss


def beat_chance(pool: Pool, beats: Int) -> Chance:
    """Chance of each beat to be drawn, summed up: one over the root of the size of its class; a twentieth of it for
    the paced records, which else fill class Q with three patients."""
    label = pool.beat[beats]
    chance = np.bincount(label, minlength=len(BEATS)).clip(1)[label] ** -0.5
    chance[np.isin(pool.name, PACED)[pool.of_beat[beats]]] *= 0.05
    total: Chance = np.cumsum(chance / chance.sum())
    return total


def settle_beats(model: EcgMoe, pool: Pool, beats: Int) -> None:
    """Take off S what `beat_chance` gave it: the log of how much oftener than in patients it was drawn, next to N.

    Of S alone. V and Q are told from N by shape, so more of them in the batches did not mean more false ones.
    """
    n = np.bincount(pool.beat[beats], minlength=len(BEATS)).clip(1)
    with torch.no_grad():
        model.morphology.head.bias[BEATS.index("S")] -= max(0.5 * float(np.log(n[0] / n[BEATS.index("S")])), 0.0)


class WindowTask:
    """Losses of the window tasks on cached tokens, each where its label is known."""

    def __init__(self, model: EcgMoe, pool: Pool, tokens: Tokens, hops: Int, device: str) -> None:
        self.model, self.pool, self.tokens, self.hops, self.device = model, pool, tokens, hops, device
        self.chance = hop_chance(pool, hops)
        self.age, self.male = pool.age[pool.of_hop], pool.male[pool.of_hop]
        self.potassium = np.nan_to_num(pool.potassium[pool.of_hop], nan=UNKNOWN).astype(np.int8)

    def loss(self, n: int, rng: np.random.Generator) -> Tensor:
        """The loss of one batch."""
        pool, index = self.pool, draw(rng, self.hops, n, self.chance)
        hop_tokens, hop_mask, beat_tokens, features, beat_mask = self.tokens.windows(pool, index)
        # A short history, the newest beats not there yet, one path missing, tokens a little off.
        hop_mask = hop_mask & self._kept(rng, n, 15, 14) & _tensor(rng.random((n, 1)) > 0.05, self.device)
        newest = _tensor((rng.random((n, 1)) < 0.3) * rng.integers(1, 3, (n, 1)), self.device)
        beat_mask = beat_mask & self._kept(rng, n, 48, 42) & (torch.arange(48, device=self.device) < 48 - newest)
        beat_tokens = (beat_tokens + 0.1 * torch.randn_like(beat_tokens)) * beat_mask[..., None]
        hop_tokens = (hop_tokens + 0.1 * torch.randn_like(hop_tokens)) * hop_mask[..., None]
        out = self.model.fusion(hop_tokens, hop_mask, beat_tokens, features * beat_mask[..., None], beat_mask)
        rr = _tensor(pool.rr_ms[index], self.device)
        rr_target = torch.where(out["rr_s"] > 0, (rr - 1000 * out["rr_s"]) / RR_SCALE, torch.nan)
        age = _tensor((self.age[index] - AGE_MEAN) / AGE_SD, self.device)
        male = np.nan_to_num(self.male[index], nan=UNKNOWN).astype(np.int8)
        use, path = out["gates"][:, :3].mean(0), out["gates"][:, 3:].mean(0)
        loss: Tensor = (
            _cross_entropy(out["rhythm"], pool.rhythm[index])
            + _cross_entropy(out["arrhythmia"], pool.arrhythmia[index])
            + _binary(out["shockable"][:, 0], pool.shockable[index])
            + 0.5 * _binary(out["quality"][:, 0], pool.quality[index])
            + 0.3 * _huber(out["rr_ms"][:, 0], rr_target, 0.02)
            + 0.1 * _huber(out["age"][:, 0], age, 0.3)
            + 0.1 * _binary(out["male"][:, 0], male)
            + 0.2 * _binary(out["potassium"][:, 0], self.potassium[index])
            + 0.02 * (3 * use.square().sum() + 2 * path.square().sum())
        )
        return loss

    def _kept(self, rng: np.random.Generator, n: int, slots: int, most: int) -> Tensor:
        """Of four in ten windows a history that begins late: (n, slots) False for what is left out."""
        first = (rng.random((n, 1)) < 0.4) * rng.integers(0, most, (n, 1))
        return _tensor(np.arange(slots) >= first, self.device)


def _tensor(array: npt.NDArray[Any], device: str | torch.device) -> Tensor:
    """A tensor of an array; float64 becomes float32."""
    return torch.from_numpy(array.astype(np.float32) if array.dtype == np.float64 else array).to(device)


def _cross_entropy(logits: Tensor, labels: npt.NDArray[np.int8]) -> Tensor:
    """Mean over the examples with a label."""
    target = torch.from_numpy(labels.astype(np.int64)).to(logits.device)
    total = fn.cross_entropy(logits, target, ignore_index=UNKNOWN, reduction="sum", label_smoothing=0.02)
    return total / (target != UNKNOWN).sum().clamp(min=1)


def _binary(logit: Tensor, labels: npt.NDArray[np.int8]) -> Tensor:
    """Mean over the examples with a label, which is 0 or 1."""
    target = torch.from_numpy(labels.astype(np.float32)).to(logit.device)
    known = target >= 0
    loss = fn.binary_cross_entropy_with_logits(logit, target.clamp(min=0), reduction="none")
    return (loss * known).sum() / known.sum().clamp(min=1)


def _huber(value: Tensor, target: Tensor, beta: float) -> Tensor:
    """Mean over the examples whose target is finite."""
    known = torch.isfinite(target)
    loss = fn.smooth_l1_loss(value, target.nan_to_num(), reduction="none", beta=beta)
    return (loss * known).sum() / known.sum().clamp(min=1)
