"""ECG-MoE: a mixture of experts that reads beats and rhythm on two paths and answers several tasks.

After arXiv 2603.04589 as far as its abstract tells: several temporal feature models, period-aware experts, a
dual-path mixture over beat morphology and rhythm, hierarchical fusion with LoRA. Sizes, experts, gates, fusion order,
losses and the streaming form are our own design; docs/model.md says which is which.

    hop  (2, 500)  4 s, every 2 s ─▶ four frozen views + band stem ─▶ hop token (64)   computed once, kept
        (model/hop_encoder.py)
    beat (4, 128), features       ─▶ morphology experts, gate      ─▶ beat token (64)  computed once, kept ─▶ N S V F Q
    15 hop tokens, 48 beat tokens with features (30 s, newest last)
        ─▶ rhythm experts (RR statistics, RR sequence, band), gate ─▶ rhythm   ┐
        ─▶ beats of the window pooled                              ─▶ morphology ┴▶ path gate ▶ fusion with LoRA ▶ heads

Shapes: k items, 125 Hz, float32. `D` = Sizes.token, `C` = Sizes.code, `F` = Sizes.features, of which windows see the
first `W`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from model.hop_encoder import HopEncoder, rows_of
from model.kernels import BEAT_SAMPLES
from model.labels import ARRHYTHMIAS, BEATS, RHYTHMS
from model.lora import Merged, TaskLinear
from model.rr_statistics import N_STATISTICS, rr_statistics
from model.segments import (
    BEAT_CHANNELS,
    CONTEXT,
    HOP_SAMPLES,
    N_CHANNELS,
    TOKEN_BEATS,
    TOKEN_HOPS,
)
from model.sizes import SIZES, Sizes

WINDOW_TASKS = ("rhythm", "shockable", "quality", "rr_ms", "age", "male", "potassium", "arrhythmia")
OUTPUTS = {"rhythm": len(RHYTHMS), "arrhythmia": len(ARRHYTHMIAS)}  # the others have one
AGE_MEAN, AGE_SD = 60.0, 17.0
RR_SCALE = 100.0  # ms: unit of the residual over the detector's RR


# ------------------------------------------------------------ morphology path: experts over a beat


class MorphologyExpert(nn.Module):
    """A small convolutional net with its own kernel size: from notches (3) to the whole QRS (23)."""

    def __init__(self, s: Sizes, kernel: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(BEAT_CHANNELS, s.width, kernel, 2, kernel // 2)
        self.conv2 = nn.Conv1d(s.width, 2 * s.width, 5, 2, 2)
        self.out = nn.Linear(2 * s.width * 8, s.code)

    def forward(self, wave: Tensor) -> Tensor:  # (k, 4, 128) -> (k, C)
        h = fn.relu_(self.conv2(fn.relu_(self.conv1(wave))))  # (k, 2 width, 32)
        out: Tensor = self.out(fn.max_pool1d(h, 4).flatten(1))
        return out


class GroupedExperts(nn.Module):
    """All morphology experts in one pass: kernels padded to the longest, one wide convolution, then one grouped, both
    with channels last."""

    def __init__(self, experts: list[MorphologyExpert], kernels: tuple[int, ...]) -> None:
        super().__init__()
        longest = max(kernels)
        padded = [fn.pad(e.conv1.weight, ((longest - k) // 2,) * 2) for e, k in zip(experts, kernels, strict=True)]
        self.padding, self.n = longest // 2, len(experts)
        self.register_buffer("weight1", rows_of(torch.cat(padded).detach()))
        self.register_buffer("bias1", torch.cat([e.conv1.bias for e in experts if e.conv1.bias is not None]).detach())
        self.register_buffer("weight2", rows_of(torch.cat([e.conv2.weight for e in experts]).detach()))
        self.register_buffer("bias2", torch.cat([e.conv2.bias for e in experts if e.conv2.bias is not None]).detach())
        self.register_buffer("weight3", torch.stack([e.out.weight.T for e in experts]).detach())
        self.register_buffer("bias3", torch.stack([e.out.bias for e in experts]).detach())

    def forward(self, wave: Tensor, gate: Tensor) -> Tensor:  # (k, 4, 128), (k, E) -> (k, C)
        b = self.get_buffer
        h = fn.relu_(fn.conv2d(rows_of(wave), b("weight1"), b("bias1"), (1, 2), (0, self.padding)))
        h = fn.relu_(fn.conv2d(h, b("weight2"), b("bias2"), (1, 2), (0, 2), groups=self.n))  # (k, E 2 width, 1, 32)
        h = fn.max_pool2d(h, (1, 4)).reshape(h.shape[0], self.n, -1)  # (k, E, n)
        return (h * gate[..., None]).flatten(1) @ b("weight3").flatten(0, 1) + gate @ b("bias3")


class FeatureExpert(nn.Module):
    """Classes by some of the features: the mean of a few small nets side by side."""

    def __init__(self, s: Sizes, columns: list[int], n_classes: int, dropout: float) -> None:
        super().__init__()
        m, h, n = s.members, s.member_width, len(columns)
        self.columns: Tensor
        self.mean: Tensor
        self.spread: Tensor
        self.register_buffer("columns", torch.tensor(columns), persistent=False)
        self.register_buffer("mean", torch.zeros(n))
        self.register_buffer("spread", torch.ones(n))
        self.dropout = nn.Dropout(dropout)
        self.weight1 = nn.Parameter(torch.randn(n, m * h) * (2 / n) ** 0.5)
        self.weight2 = nn.Parameter(torch.randn(m, h, h) * (2 / h) ** 0.5)
        self.weight3 = nn.Parameter(torch.randn(m, h, n_classes) * 0.3 * (2 / h) ** 0.5)
        self.bias1, self.bias2 = nn.Parameter(torch.zeros(m * h)), nn.Parameter(torch.zeros(m, 1, h))
        self.bias3 = nn.Parameter(torch.zeros(m, 1, n_classes))

    def scaled(self, features: Tensor) -> Tensor:
        """(k, F) -> (k, n): the columns, by their mean and spread in the training."""
        out: Tensor = ((features[:, self.columns] - self.mean) / self.spread).clamp(-5, 5)
        return out

    def members(self, x: Tensor) -> Tensor:
        """What `scaled` gave -> logits (m, k, classes) of each member."""
        m, h, _ = self.weight2.shape
        x = self.dropout(fn.relu(x @ self.weight1 + self.bias1)).reshape(-1, m, h).transpose(0, 1)
        x = self.dropout(fn.relu(torch.baddbmm(self.bias2, x, self.weight2)))
        return torch.baddbmm(self.bias3, x, self.weight3)

    def forward(self, features: Tensor) -> Tensor:
        """(k, F) -> log probabilities (k, classes), mean of the members'."""
        return torch.log_softmax(self.members(self.scaled(features)), 2).mean(0)


class MorphologyPath(nn.Module):
    """Experts over the samples of a beat with a gate that sees its features; an expert on the features of the beat and
    its form; an expert on the RR intervals.

    The first two tell N or S, V, F and Q apart. Whether a beat that is not ventricular came too early for its rhythm
    (S), the RR expert alone decides. It learns from the many patients of whom beats are known without waveforms, and is
    frozen then, as the views are: 22 patients with waveforms, of whom six have nearly all S, teach that badly.
    """

    WAVES = 0.05  # share of the experts over samples in the answer (docs/model.md); their token goes to windows whole

    def __init__(self, s: Sizes) -> None:
        super().__init__()
        self.kernels = s.kernels
        self.experts = nn.ModuleList(MorphologyExpert(s, k) for k in s.kernels)
        self.grouped: GroupedExperts | None = None
        self.norm = nn.BatchNorm1d(s.features)
        self.gate = nn.Sequential(nn.Linear(s.features, 16), nn.ReLU(), nn.Linear(16, len(s.kernels)))
        self.context = nn.Sequential(nn.Linear(s.features, 48), nn.ReLU(), nn.Linear(48, s.code))
        self.dropout = nn.Dropout(s.dropout)
        self.fuse: TaskLinear | Merged = TaskLinear(s.code, s.code, 1, s.rank, s.alpha)
        self.head = nn.Linear(s.code, len(BEATS) - 1)  # N or S, V, F, Q
        context = range(CONTEXT.start, CONTEXT.stop)
        self.form = FeatureExpert(s, [i for i in range(s.features) if i not in context], len(BEATS) - 1, s.dropout)
        self.rr = FeatureExpert(s, list(context), 3, 0.1)  # N S V
        self.temperature: Tensor
        self.register_buffer("temperature", torch.ones(()))  # calibration

    def group(self) -> None:
        """Turn to the grouped form, for service."""
        self.grouped = GroupedExperts([e for e in self.experts if isinstance(e, MorphologyExpert)], self.kernels)
        self.fuse = self.fuse.merged()

    def forward(self, wave: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(k, 4, 128), (k, F) -> logits (k, 4) of N or S, V, F, Q by the samples; code (k, C), gate (k, E)."""
        f = self.norm(features).clamp(-5, 5)
        gate = torch.softmax(self.gate(f), 1)
        if self.grouped is not None:
            mixed = self.grouped(wave, gate)
        else:
            mixed = torch.stack([expert(wave) for expert in self.experts], 1).mul(gate[..., None]).sum(1)
        code = fn.relu(self.dropout(mixed) + self.context(f))
        hidden = fn.relu(self.fuse(self.dropout(code))[:, 0])
        return self.head(hidden), code, gate

    def classes(self, logits: Tensor, features: Tensor) -> Tensor:
        """Logits (k, 4) of `forward` -> log probabilities (k, 5) of N S V F Q: all experts together, not calibrated."""
        rr = self.rr(features)
        odds = rr[:, 1:2] - rr[:, :1]
        log = torch.log_softmax(logits, 1) * self.WAVES + self.form(features) * (1 - self.WAVES)
        classes = [log[:, :1] + fn.logsigmoid(-odds), log[:, :1] + fn.logsigmoid(odds), log[:, 1:]]
        return torch.log_softmax(torch.cat(classes, 1), 1)


# ------------------------------------------------------------ rhythm path: experts over tokens


class RhythmStatistics(nn.Module):
    """Expert on RR statistics."""

    def __init__(self, s: Sizes) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(N_STATISTICS, 48), nn.ReLU(), nn.Dropout(s.dropout), nn.Linear(48, s.rhythm))

    def forward(self, statistics: Tensor) -> Tensor:  # (k, 42) -> (k, rhythm)
        out: Tensor = self.net(statistics)
        return out


class RhythmSequence(nn.Module):
    """Expert on the order of beats: dilated convolutions over beat tokens, features and ages.

    Each is one linear map of a beat and of the two that stand so far before and after it, which takes two thirds of the
    time of a Conv1d.
    """

    WIDTH, DILATIONS = 24, (1, 2, 4)

    def __init__(self, s: Sizes) -> None:
        super().__init__()
        self.embed = nn.Linear(s.token + s.window_features + 1, self.WIDTH)
        self.convs = nn.ModuleList(nn.Linear(3 * self.WIDTH, self.WIDTH) for _ in self.DILATIONS)
        self.dropout = nn.Dropout(s.dropout)
        self.out = nn.Linear(2 * self.WIDTH, s.rhythm)

    def forward(self, tokens: Tensor, features: Tensor, age: Tensor, mask: Tensor) -> Tensor:
        """(k, 48, D), (k, 48, F), (k, 48), (k, 48) -> (k, rhythm)."""
        there = mask[..., None].float()  # (k, 48, 1)
        beats = torch.cat([tokens, features.clamp(-3, 3), age[..., None] / 30], 2)
        h = fn.relu_(self.embed(beats)) * there  # (k, 48, WIDTH)
        for d, conv in zip(self.DILATIONS, self.convs, strict=True):
            wide = fn.pad(h, (0, 0, d, d))
            h = h + fn.relu_(conv(torch.cat([wide[:, : -2 * d], h, wide[:, 2 * d :]], 2))) * there
        pooled = torch.cat([h.sum(1) / there.sum(1).clamp(min=1), h.amax(1)], 1)
        out: Tensor = self.out(self.dropout(pooled))
        return out


class RhythmBand(nn.Module):
    """Expert on hop tokens: f-waves, flutter and VF, asystole, noise. The last 10 s by place, all 30 s pooled."""

    RECENT = 5

    def __init__(self, s: Sizes) -> None:
        super().__init__()
        self.embed = nn.Linear(s.token, 32)
        self.score = nn.Linear(32, 1)
        n = 32 * (self.RECENT + 4)
        self.out = nn.Sequential(nn.Linear(n, 64), nn.ReLU(), nn.Dropout(s.dropout), nn.Linear(64, s.rhythm))

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:  # (k, 15, D), (k, 15) -> (k, rhythm)
        there = mask[..., None].float()
        h = fn.relu(self.embed(tokens)) * there
        weight = torch.softmax(self.score(h).masked_fill(~mask[..., None], -30.0), 1) * there
        recent = h[:, -self.RECENT :]
        count, all_ = there[:, -self.RECENT :].sum(1).clamp(min=1), there.sum(1).clamp(min=1)
        pooled = [(weight * h).sum(1), recent.sum(1) / count, h.sum(1) / all_, h.amax(1)]
        out: Tensor = self.out(torch.cat([recent.flatten(1), *pooled], 1))
        return out


class WindowFusion(nn.Module):
    """Rhythm experts and their gate; the window's beats pooled; the gate of the two paths; fusion with LoRA; heads."""

    N_EXPERTS = 3

    def __init__(self, s: Sizes) -> None:
        super().__init__()
        self.statistics_norm = nn.BatchNorm1d(N_STATISTICS)
        self.statistics, self.sequence, self.band = RhythmStatistics(s), RhythmSequence(s), RhythmBand(s)
        self.gate = nn.Sequential(nn.Linear(N_STATISTICS + 2, 16), nn.ReLU(), nn.Linear(16, self.N_EXPERTS))
        self.beat_score, self.beat_out = nn.Linear(s.token, 1), nn.Linear(2 * s.token, s.rhythm)
        self.path_gate = nn.Linear(2 * s.rhythm, 2)
        self.trunk = nn.Linear(2 * s.rhythm, 64)
        self.dropout = nn.Dropout(s.dropout)
        self.adapt: TaskLinear | Merged = TaskLinear(64, 48, len(WINDOW_TASKS), s.rank, s.alpha)
        self.heads = nn.ModuleDict({task: nn.Linear(48, OUTPUTS.get(task, 1)) for task in WINDOW_TASKS})
        self.temperature: Tensor
        self.register_buffer("temperature", torch.ones(len(WINDOW_TASKS)))  # calibration; 1 where there is none

    def merge(self) -> None:
        """Fold the adapters into the fusion layer, for service."""
        self.adapt = self.adapt.merged()

    def forward(
        self,
        hop_tokens: Tensor,
        hop_mask: Tensor,
        beat_tokens: Tensor,
        beat_features: Tensor,
        beat_age: Tensor,
        beat_mask: Tensor,
    ) -> dict[str, Tensor]:
        """Logits per task (k, n), `rr_s` of the detector (k,), `gates` (k, 5): three experts, two paths."""
        raw, rr_s = rr_statistics(beat_features, beat_age, beat_mask)
        statistics = self.statistics_norm(raw).clamp(-5, 5)
        amount = torch.stack([hop_mask.float().mean(1), beat_mask.float().mean(1)], 1)
        gate = torch.softmax(self.gate(torch.cat([statistics, amount], 1)), 1)  # (k, 3)
        answers = torch.stack([
            self.statistics(statistics),
            self.sequence(beat_tokens, beat_features, beat_age, beat_mask),
            self.band(hop_tokens, hop_mask),
        ], 1)  # (k, 3, rhythm)  # fmt: skip
        rhythm = fn.relu((answers * gate[..., None]).sum(1))
        there = beat_mask[..., None].float()
        weight = torch.softmax(self.beat_score(beat_tokens).masked_fill(~beat_mask[..., None], -30.0), 1) * there
        mean = (beat_tokens * there).sum(1) / there.sum(1).clamp(min=1)
        morphology = fn.relu(self.beat_out(torch.cat([(weight * beat_tokens).sum(1), mean], 1)))
        path = torch.softmax(self.path_gate(torch.cat([morphology, rhythm], 1)), 1)  # (k, 2)
        both = torch.cat([morphology * path[:, :1], rhythm * path[:, 1:]], 1) * 2
        hidden = fn.relu(self.adapt(self.dropout(fn.relu(self.trunk(both)))))  # (k, tasks, 48)
        out = {task: self.heads[task](hidden[:, i]) for i, task in enumerate(WINDOW_TASKS)}
        return out | {"rr_s": rr_s, "gates": torch.cat([gate, path], 1), "experts": answers}


class EcgMoe(nn.Module):
    """The whole model; `beats`, `hops` and `windows` are called apart, as tokens are kept between them."""

    def __init__(self, sizes: Sizes = SIZES) -> None:
        super().__init__()
        self.sizes = sizes
        self.encoder, self.morphology, self.fusion = HopEncoder(sizes), MorphologyPath(sizes), WindowFusion(sizes)

    def for_service(self) -> "EcgMoe":
        """This model with experts grouped, adapters and norms merged, in evaluation mode."""
        self.eval().requires_grad_(False)
        self.morphology.group()
        self.fusion.merge()
        self.encoder.trend_season.merge()
        self.encoder.band.fuse()
        return self

    def beats(self, wave: Tensor, features: Tensor) -> dict[str, Tensor]:
        """wave (k, 4, 128), features (k, F) -> probs (k, 5), token (k, D), gates (k, E)."""
        logits, code, gate = self.morphology(wave, features)
        classes = self.morphology.classes(logits, features)
        probs = torch.softmax(classes / self.morphology.temperature, 1)
        return {"probs": probs, "token": torch.cat([code, classes.exp()], 1), "gates": gate}

    def hops(self, wave: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """wave (k, 2, 500) mV, mask (k, 2) -> token (k, D)."""
        return {"token": self.encoder(wave, mask)}

    def windows(
        self,
        hop_tokens: Tensor,
        hop_mask: Tensor,
        beat_tokens: Tensor,
        beat_features: Tensor,
        beat_age: Tensor,
        beat_mask: Tensor,
    ) -> dict[str, Tensor]:
        """(k, 15, D), (k, 15), (k, 48, D), (k, 48, W), (k, 48) s, (k, 48), newest last -> the answers of each task."""
        out = self.fusion(hop_tokens, hop_mask, beat_tokens, beat_features, beat_age, beat_mask)
        for i, task in enumerate(WINDOW_TASKS):
            out[task] = out[task] / self.fusion.temperature[i]
        one = {task: out[task][:, 0] for task in WINDOW_TASKS if task not in OUTPUTS}
        return {
            "rhythm": torch.softmax(out["rhythm"], 1),
            "shockable": torch.sigmoid(one["shockable"]),
            "quality": torch.sigmoid(one["quality"]),
            "rr_ms": torch.where(out["rr_s"] > 0, 1000 * out["rr_s"] + RR_SCALE * one["rr_ms"], torch.nan),
            "age": AGE_MEAN + AGE_SD * one["age"],
            "male": torch.sigmoid(one["male"]),
            "potassium": torch.sigmoid(one["potassium"]),
            "arrhythmia": torch.softmax(out["arrhythmia"], 1),
            "gates": out["gates"],
        }


def example_inputs(kind: str, k: int, sizes: Sizes = SIZES) -> tuple[Tensor, ...]:
    """Zeros of the right shapes for `beats`, `hops` or `windows` (kind beat, hop, window)."""
    if kind == "beat":
        return torch.zeros(k, BEAT_CHANNELS, BEAT_SAMPLES), torch.zeros(k, sizes.features)
    if kind == "hop":
        return torch.zeros(k, N_CHANNELS, HOP_SAMPLES), torch.ones(k, N_CHANNELS)
    d, f = sizes.token, sizes.window_features
    return (
        torch.zeros(k, TOKEN_HOPS, d), torch.ones(k, TOKEN_HOPS, dtype=torch.bool), torch.zeros(k, TOKEN_BEATS, d),
        torch.zeros(k, TOKEN_BEATS, f), torch.zeros(k, TOKEN_BEATS), torch.ones(k, TOKEN_BEATS, dtype=torch.bool),
    )  # fmt: skip
