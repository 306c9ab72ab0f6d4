"""What each phase of the training learns from: batches, augmentation, pretext tasks and losses."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from model.ecg_moe import AGE_MEAN, AGE_SD, RR_SCALE, WINDOW_TASKS, EcgMoe
from model.examples import UNKNOWN
from model.hop_encoder import HopEncoder, PatchView
from model.labels import ARRHYTHMIAS, RHYTHMS
from model.pool import Pool
from model.segments import HOP_SAMPLES, SHAPE, Float, Int
from model.sequences import Sequences
from model.tokens import Tokens, wave_and_mask, without_waveforms

Chance = npt.NDArray[np.float64]
PLAIN = [RHYTHMS.index(name) for name in ("N", "AF", "AFL", "SVT", "OTHER")]  # told rather by RR intervals and beats


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
    """Rhythm, shockable and quality of each hop; rhythm, the Challenge's class and potassium of the window: teaches the
    band stem.

    A window is every other of its last seven hops, so that no sample is seen twice: with half a minute and half as many
    windows in a batch the stem learns less (docs/model.md). The views have no part in it: what the stem says has to do
    without them.
    """

    HOPS = 4  # 16 s

    def __init__(self, encoder: HopEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        n = encoder.band.out.out_features
        self.heads = nn.ModuleDict({
            "hop": nn.Linear(n, len(RHYTHMS) + 2), "score": nn.Linear(n, 1),
            "pool": nn.Sequential(nn.Linear(4 * n, 48), nn.ReLU(), nn.Dropout(0.2)),
            "window": nn.Linear(48, len(RHYTHMS) + len(ARRHYTHMIAS) + 1),
        })  # fmt: skip

    def forward(self, pool: Pool, index: Int, rng: np.random.Generator, noise: Float | None, device: str) -> Tensor:
        """The loss of a batch: windows that end with hops `index` of the pool, augmented; `noise` as `hop_batch`."""
        hops = pool.window_hops[index, 1 - 2 * self.HOPS :: 2].astype(np.int64)  # (k, HOPS)
        row, place = np.nonzero(hops >= 0)
        mine = hops[row, place]
        wave, mask = hop_batch(pool, mine, rng, device, row, noise)
        x, level, power = self.encoder.prepare(wave, mask)
        code = self.encoder.band(x, level, mask, power)
        n = len(RHYTHMS)
        hop = self.heads["hop"](code)
        loss = (
            _cross_entropy(hop[:, :n], pool.rhythm[mine])
            + _binary(hop[:, n], pool.shockable[mine])
            + 0.5 * _binary(hop[:, n + 1], pool.quality[mine])
        )
        codes = code.new_zeros(*hops.shape, code.shape[1])
        codes[torch.from_numpy(row), torch.from_numpy(place)] = code
        there = tensor(hops >= 0, device)[..., None]
        weight = torch.softmax(self.heads["score"](codes).masked_fill(~there, -30.0), 1) * there
        mean = codes.sum(1) / there.sum(1).clamp(min=1)
        top = codes.masked_fill(~there, -1.0).amax(1)
        window = self.heads["window"](
            self.heads["pool"](torch.cat([codes[:, -1], (weight * codes).sum(1), mean, top], 1))
        )
        return (
            loss
            + _cross_entropy(window[:, :n], pool.rhythm[index])
            + 1.5 * _cross_entropy(window[:, n:-1], pool.arrhythmia[index])
            + _binary(window[:, -1], np.nan_to_num(pool.potassium[pool.of_hop[index]], nan=UNKNOWN))
        )


def hop_chance(pool: Pool, hops: Int) -> Chance:
    """Chance of each hop to be drawn, by source, label and recording.

    A label of the Challenge is drawn as often as the root of how many hops have it. In the other sources the labels are
    nearer to one another (power 0.3): there a rhythm is one of few patients, and where a source has almost no AF, the
    model learns from the look of the source that there is none.
    """
    key = pool.rhythm[hops].astype(np.int64) * 100 + pool.arrhythmia[hops] * 10 + pool.shockable[hops]
    potassium = pool.potassium[pool.of_hop[hops]]
    key += 10_000 * np.nan_to_num(potassium + 1).astype(np.int64)
    source = np.unique(pool.source, return_inverse=True)[1][pool.of_hop[hops]]
    known = (pool.rhythm[hops] >= 0) | (pool.arrhythmia[hops] >= 0) | (pool.shockable[hops] >= 0)
    known |= np.isfinite(potassium)
    many = pool.arrhythmia[hops] >= 0
    weight = np.where(many, 3.0, 4.0) * np.where(known, 1.0, 0.02)
    return balanced(key + 100_000 * source, pool.of_hop[hops], weight, np.where(many, 0.5, 0.3))


def balanced(key: Int, patient: Int, weight: Chance, power: Chance | float = 0.5) -> Chance:
    """Summed-up chance of each item: of each key how many it has to `power`, in it of each patient the root."""
    _, group, n = np.unique(key, return_inverse=True, return_counts=True)
    _, member, m = np.unique(group * (int(patient.max()) + 1) + patient, return_inverse=True, return_counts=True)
    share = m[member] ** -0.5
    chance = weight * share * n[group] ** power / np.bincount(group, share)[group]
    total: Chance = np.cumsum(chance / chance.sum())
    return total


def draw(rng: np.random.Generator, hops: Int, n: int, chance: Chance | None) -> Int:
    """n of `hops`, evenly or by their summed-up chance."""
    place = rng.integers(0, hops.size, n) if chance is None else np.searchsorted(chance, rng.random(n) * chance[-1])
    out: Int = hops[place.clip(0, hops.size - 1)]
    return out


def hop_batch(
    pool: Pool, index: Int, rng: np.random.Generator, device: str, group: Int | None = None, noise: Float | None = None
) -> tuple[Tensor, Tensor]:
    """Augmented samples and mask of hops `index`; those of a `group` (k,) alike in gain, polarity and leads.

    `noise` (m, n): recorded noise of unit spread at 125 Hz, to be added.
    """
    return _augmented(
        *wave_and_mask(pool, index, device), rng, np.arange(index.size) if group is None else group, noise
    )


def hop_pairs(pool: Pool, index: Int, rng: np.random.Generator, device: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Augmented samples and mask of hops `index`, and of the hops before them in the same recording."""
    before = np.where((index > 0) & (pool.of_hop[index - 1] == pool.of_hop[index]), index - 1, index)
    return *hop_batch(pool, index, rng, device), *hop_batch(pool, before, rng, device)


def _augmented(
    wave: Tensor, mask: Tensor, rng: np.random.Generator, group: Int, noise: Float | None
) -> tuple[Tensor, Tensor]:
    """Gain x0.5 to x2, polarity of each lead, leads swapped, the second one missing, faster or slower; noise."""
    n, device = int(group.max()) + 1, wave.device
    sign = rng.choice([-1.0, 1.0], (n, 2), p=[0.25, 0.75])
    wave = wave * tensor((np.exp(rng.uniform(-0.69, 0.69, (n, 1))) * sign)[group], device)[..., None]
    swap = tensor((rng.random(n) < 0.25)[group], device) & (mask[:, 1] > 0.5)
    wave = torch.where(swap[:, None, None], wave.flip(1), wave)
    mask = torch.where(swap[:, None], mask.flip(1), mask)
    keep = torch.ones_like(mask)
    keep[:, 1] = tensor((rng.random(n) > 0.3)[group], device).float()
    if noise is not None:
        wave = _noisy(_warped(wave, rng, group), rng, group, noise)
    return wave * (mask * keep > 0)[..., None], mask * keep


def _warped(wave: Tensor, rng: np.random.Generator, group: Int) -> Tensor:
    """Of half of the groups up to 10 % faster or slower; what a faster one lacks is its mirror image."""
    n = int(group.max()) + 1
    speed = np.exp(rng.uniform(-0.1, 0.1, n) * (rng.random(n) < 0.5))[group]
    at = (HOP_SAMPLES - 1 - np.arange(HOP_SAMPLES)[None] * speed[:, None])[:, ::-1]
    at = np.abs(at).clip(0, HOP_SAMPLES - 1.001)
    index = torch.from_numpy(at.astype(np.int64))[:, None].expand(-1, 2, -1).to(wave.device)
    part = tensor((at % 1)[:, None], wave.device)
    return wave.gather(2, index) * (1 - part) + wave.gather(2, index + 1) * part


def _noisy(wave: Tensor, rng: np.random.Generator, group: Int, noise: Float) -> Tensor:
    """Recorded noise and steps of the electrode (simulated) on a third of the groups, 0 to 18 dB under the signal."""
    n, k = int(group.max()) + 1, group.size
    size = (rng.random(n) < 0.33) * 10 ** rng.uniform(-0.9, 0, n)
    kind, start = rng.integers(0, len(noise), (k, 2)), rng.integers(0, noise.shape[1] - HOP_SAMPLES, (k, 2))
    added = noise[kind[..., None], start[..., None] + np.arange(HOP_SAMPLES)]
    step = rng.integers(0, HOP_SAMPLES, (k, 2, 1))
    after = np.arange(HOP_SAMPLES) - step
    motion = (
        np.where(after >= 0, np.exp(-after / 60.0), 0) * (rng.random((k, 2, 1)) < 0.2) * rng.normal(0, 4, (k, 2, 1))
    )
    spread = wave.std(2, keepdim=True)
    return wave + spread * tensor(((added + motion) * size[group][:, None, None]).astype(np.float32), wave.device)


class WindowTask:
    """Losses of the window tasks on cached tokens, each where its label is known; RR sequences without waveforms go
    along as windows whose hops and shapes are missing."""

    def __init__(
        self,
        model: EcgMoe,
        pool: Pool,
        tokens: Tokens,
        hops: Int,
        sequences: Iterable[tuple[Sequences, Int]],
        device: str,
    ) -> None:
        self.model, self.pool, self.tokens, self.hops, self.device = model, pool, tokens, hops, device
        self.chance = hop_chance(pool, hops)
        self.lendable = (pool.source != "ludb")[pool.of_hop]
        self.age, self.male = pool.age[pool.of_hop], pool.male[pool.of_hop]
        self.potassium = np.nan_to_num(pool.potassium[pool.of_hop], nan=UNKNOWN).astype(np.int8)
        self.sequences = [
            (s, index, balanced(s.rhythm[index].astype(np.int64), s.of_window[index], np.ones(index.size)))
            for s, index in sequences
        ]

    def loss(self, n: int, rng: np.random.Generator) -> Tensor:
        """The loss of one batch."""
        pool, index = self.pool, draw(rng, self.hops, n, self.chance)
        hop_tokens, hop_mask, beat_tokens, features, age, beat_mask = self.tokens.windows(pool, index)
        # One path missing, so that the other learns to do without: oftener in the sources of few patients, where the
        # look of a hop or a beat tells the patient and with it the label. Tokens a little off.
        few = pool.arrhythmia[index] < 0
        hop_mask = hop_mask & tensor(rng.random(n) > np.where(few, 0.5, 0.08), self.device)[:, None]
        mute = tensor(rng.random(n) < np.where(few, 0.7, 0.1), self.device)[:, None, None]
        beat_tokens = (beat_tokens + 0.1 * torch.randn_like(beat_tokens)) * ~mute
        hop_tokens = hop_tokens + 0.25 * torch.randn_like(hop_tokens)  # the stem is too sure of whom it learnt from
        features = torch.cat([features[..., :SHAPE], features[..., SHAPE:] * ~mute], 2)
        rhythm = pool.rhythm[index]
        # So few patients must not teach by the look of their hops what RR intervals tell of a rhythm. Those of ludb,
        # ten seconds each, are there for age and sex, which are in the look.
        lent = few & self.lendable[index] & np.isin(rhythm, PLAIN) & (rng.random(n) < 0.5)
        lend(hop_tokens, hop_mask, np.flatnonzero(lent), rng)
        if self.sequences:
            sequences, windows, chance = self.sequences[int(rng.integers(len(self.sequences)))]
            extra = draw(rng, windows, n // 3, chance)
            rhythm = np.concatenate([rhythm, sequences.rhythm[extra]])
            more = without_waveforms(sequences, extra, self.model.sizes, self.device)
            mine = (hop_tokens, hop_mask, beat_tokens, features, age, beat_mask)
            hop_tokens, hop_mask, beat_tokens, features, age, beat_mask = map(torch.cat, zip(mine, more, strict=True))
        # A short history, the newest beats not there yet.
        k = len(hop_mask)
        hop_mask = hop_mask & self._kept(rng, k, 15, 14)
        newest = tensor((rng.random((k, 1)) < 0.2) * rng.integers(1, 3, (k, 1)), self.device)
        beat_mask = beat_mask & self._kept(rng, k, 48, 42) & (torch.arange(48, device=self.device) < 48 - newest)
        out = self.model.fusion(
            hop_tokens * hop_mask[..., None], hop_mask, beat_tokens * beat_mask[..., None],
            features * beat_mask[..., None], age * beat_mask, beat_mask,
        )  # fmt: skip
        rr = tensor(pool.rr_ms[index], self.device)
        rr_s = out["rr_s"][:n]
        rr_target = torch.where(rr_s > 0, (rr - 1000 * rr_s) / RR_SCALE, torch.nan)
        years = tensor((self.age[index] - AGE_MEAN) / AGE_SD, self.device)
        male = np.nan_to_num(self.male[index], nan=UNKNOWN).astype(np.int8)
        use, path = out["gates"][:, :3].mean(0), out["gates"][:, 3:].mean(0)
        answer = {task: out[task][:n] for task in WINDOW_TASKS}
        # `O` of the Challenge may be any rhythm but AF.
        other = tensor(pool.arrhythmia[index] == ARRHYTHMIAS.index("O"), self.device).float()
        not_af = -torch.log1p(-torch.softmax(answer["rhythm"], 1)[:, RHYTHMS.index("AF")].clamp(max=0.999))
        loss: Tensor = (
            _cross_entropy(answer["rhythm"], rhythm[:n])
            + 0.3 * (not_af * other).mean()
            + _cross_entropy(answer["arrhythmia"], pool.arrhythmia[index])
            + _binary(answer["shockable"][:, 0], pool.shockable[index])
            + 0.5 * _binary(answer["quality"][:, 0], pool.quality[index])
            + 0.3 * _huber(answer["rr_ms"][:, 0], rr_target, 0.02)
            + 0.1 * _huber(answer["age"][:, 0], years, 0.3)
            + 0.1 * _binary(answer["male"][:, 0], male)
            + 0.5 * _binary(answer["potassium"][:, 0], self.potassium[index])
            + 0.02 * (3 * use.square().sum() + 2 * path.square().sum())
        )
        if self.sequences:
            loss = loss + _cross_entropy(out["rhythm"][n:], rhythm[n:])
        return loss

    def _kept(self, rng: np.random.Generator, n: int, slots: int, most: int) -> Tensor:
        """Of four in ten windows a history that begins late: (n, slots) False for what is left out."""
        first = (rng.random((n, 1)) < 0.4) * rng.integers(0, most, (n, 1))
        return tensor(np.arange(slots) >= first, self.device)


def lend(hop_tokens: Tensor, hop_mask: Tensor, windows: Int, rng: np.random.Generator) -> None:
    """Give `windows` (j,) one another's hops, in place: hop_tokens (k, 15, D), hop_mask (k, 15)."""
    lent = rng.permutation(windows)
    hop_tokens[windows], hop_mask[windows] = hop_tokens[lent], hop_mask[lent]


def tensor(array: npt.NDArray[Any], device: str | torch.device) -> Tensor:
    """A tensor of an array; float64 becomes float32."""
    return torch.from_numpy(array.astype(np.float32) if array.dtype == np.float64 else array).to(device)


def _cross_entropy(logits: Tensor, labels: npt.NDArray[np.int8]) -> Tensor:
    """Mean over the examples with a label."""
    target = torch.from_numpy(labels.astype(np.int64)).to(logits.device)
    total = fn.cross_entropy(logits, target, ignore_index=UNKNOWN, reduction="sum", label_smoothing=0.02)
    return total / (target != UNKNOWN).sum().clamp(min=1)


def _binary(logit: Tensor, labels: npt.NDArray[Any]) -> Tensor:
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
