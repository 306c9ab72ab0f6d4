"""What ECG-MoE's speed and accuracy are measured against: multi-task baselines on windows of 10 s, and their training.

A window is (k, 2, 1250): two leads at 125 Hz, cut from the hops that the monitor cuts. The backbone is a
residual net, the same that the band stem has for hops, at any width. Every baseline answers the five tasks of the
paper. They learn from the same pool, split, augmentation and number of examples as ECG-MoE's window tasks and stem, and
their convolutions run with channels last, as its do.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as fn
from tqdm import tqdm

from model.ecg_moe import AGE_MEAN, AGE_SD
from model.examples import UNKNOWN
from model.hop_encoder import ResidualNet
from model.labels import ARRHYTHMIAS
from model.phases import _augmented, _binary, _cross_entropy, _huber, draw, hop_chance
from model.pool import Pool
from model.segments import HOP_SAMPLES, Int

TASKS = {"rr_ms": 1, "age": 1, "male": 1, "potassium": 1, "arrhythmia": len(ARRHYTHMIAS)}
RR_MEAN, RR_SD = 800.0, 200.0  # ms
SAMPLES = 1250


class Backbone(nn.Module):
    """The band stem's residual net over the whole window: (k, 2, 1250) -> (k, 8 width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = ResidualNet(width)

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(2, keepdim=True)
        spread = centred.square().mean(2, keepdim=True).sqrt()
        out: Tensor = self.net((centred / (spread + 0.01)).clamp(-8, 8))
        return out


class Shared(nn.Module):
    """Hard sharing: one backbone, one head for each task. The baseline to beat."""

    def __init__(self, width: int, tasks: tuple[str, ...] = tuple(TASKS)) -> None:
        super().__init__()
        self.backbone = Backbone(width)
        n = self.backbone.net.features
        self.heads = nn.ModuleDict(
            {t: nn.Sequential(nn.Linear(n, 64), nn.ReLU(), nn.Linear(64, TASKS[t])) for t in tasks}
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.backbone(x)
        return {task: head(h) for task, head in self.heads.items()}


class Separate(nn.Module):
    """A net of its own for each task."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.nets = nn.ModuleList(Shared(width, (task,)) for task in TASKS)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {task: logits for net in self.nets for task, logits in net(x).items()}


class Ensemble(nn.Module):
    """Four backbones, a dense gate on the signal that weighs them, heads: an ensemble of foundation models in small."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.nets = nn.ModuleList(Shared(width) for _ in range(4))
        self.gate = nn.Sequential(nn.Linear(SAMPLES // 5, 64), nn.ReLU(), nn.Linear(64, 4))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        gate = torch.softmax(self.gate(fn.avg_pool1d(x[:, 0], 5)), 1)
        answers = [net(x) for net in self.nets]
        return {t: sum(gate[:, i : i + 1] * a[t] for i, a in enumerate(answers)) for t in TASKS}  # type: ignore[misc]


def windows_of(pool: Pool, hops: Int) -> tuple[Tensor, Tensor]:
    """The 10 s that end with each of `hops`, (k, 2, 1250) mV, zeros before the recording; the mask of leads (k, 2)."""
    wave = np.zeros((hops.size, 2, SAMPLES), np.float32)
    half = HOP_SAMPLES // 2
    for at, back, part in ((0, 4, slice(0, half)), (half, 3, slice(None)), (half + HOP_SAMPLES, 1, slice(None))):
        chosen = pool.window_hops[hops, -back]
        piece = pool.hop_wave[chosen.clip(0)][:, :, part].astype(np.float32)
        wave[:, :, at : at + piece.shape[2]] = np.where((chosen >= 0)[:, None, None], piece, 0)
    return torch.from_numpy(wave), torch.from_numpy(pool.hop_mask[hops])


def fit(net: nn.Module, pool: Pool, records: Int, seed: int, steps: int, batch: int, text: str) -> nn.Module:
    """Train on the windows of `records`, with the losses and weights of ECG-MoE's window phase."""
    hops = np.flatnonzero(np.isin(pool.of_hop, records) & (pool.hop_mask.max(1) > 0.5))
    chance = hop_chance(pool, hops)
    male = np.nan_to_num(pool.male[pool.of_hop], nan=UNKNOWN).astype(np.int8)
    potassium = np.nan_to_num(pool.potassium[pool.of_hop], nan=UNKNOWN).astype(np.int8)
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.15)
    net.train()
    for i in tqdm(range(steps), desc=text, mininterval=5):
        rng = np.random.default_rng((seed, i))
        index = draw(rng, hops, batch, chance)
        out = net(_augmented(*windows_of(pool, index), rng, np.arange(index.size), None)[0])
        rr = torch.from_numpy((pool.rr_ms[index] - RR_MEAN) / RR_SD)
        age = torch.from_numpy((pool.age[pool.of_hop[index]] - AGE_MEAN) / AGE_SD)
        loss = (
            _cross_entropy(out["arrhythmia"], pool.arrhythmia[index])
            + 0.3 * _huber(out["rr_ms"][:, 0], rr, 0.02)
            + 0.1 * _huber(out["age"][:, 0], age, 0.3)
            + 0.1 * _binary(out["male"][:, 0], male[index])
            + 0.5 * _binary(out["potassium"][:, 0], potassium[index])
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 2.0)
        optimizer.step()
        schedule.step()
    return net.eval()


@torch.no_grad()
def answers(net: nn.Module, pool: Pool, hops: Int) -> dict[str, Any]:
    """A baseline's answers for the windows that end with `hops`, in the units of `EcgMoe.windows`."""
    net.eval()  # one read from a file is not, and would go by the means of each batch
    parts = [net(windows_of(pool, part)[0]) for part in np.array_split(hops, max(hops.size // 256, 1))]
    raw = {task: torch.cat([p[task] for p in parts]) for task in TASKS}
    return {
        "rr_ms": (RR_MEAN + RR_SD * raw["rr_ms"][:, 0]).numpy(),
        "age": (AGE_MEAN + AGE_SD * raw["age"][:, 0]).numpy(),
        "male": torch.sigmoid(raw["male"][:, 0]).numpy(),
        "potassium": torch.sigmoid(raw["potassium"][:, 0]).numpy(),
        "arrhythmia": torch.softmax(raw["arrhythmia"], 1).numpy(),
    }
