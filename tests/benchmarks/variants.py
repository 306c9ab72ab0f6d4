"""ECG-MoE with a part of it switched off, and the plain net that it has to beat."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from model.course import Extra
from model.ecg_moe import EcgMoe, FeatureExpert, MorphologyPath
from model.forms import FORM_FEATURES
from model.hop_encoder import HopEncoder
from model.kernels import BEAT_SAMPLES
from model.labels import BEATS
from model.pool import Pool
from model.rr_beats import RrBeats
from model.segments import (
    BEAT_CHANNELS,
    CONTEXT,
    FEATURES,
    FIRST_FORM,
    HOP_SAMPLES,
    N_FEATURES,
    SHAPE,
    TICK_HZ,
    Float,
    Int,
)
from model.sizes import SIZES, Sizes

_SIGNAL = [FEATURES.index(name) for name in ("quality", "second_lead")]  # these need no beat
_FORM_RR = [
    FIRST_FORM + FORM_FEATURES.index(name)
    for name in ("form_early", "form_next", "usual_early", "early_in_form", "form_z", "next_in_form")
]
BY_SHAPE = [i for i in range(SHAPE, N_FEATURES) if not CONTEXT.start <= i < CONTEXT.stop and i not in _FORM_RR]
"""Beat features that tell of a beat's looks alone, not of its time."""


class Nothing(nn.Module):
    """Zeros (..., n) in the place of a part; of the shape of its input the first `dims` stay."""

    def __init__(self, n: int, dims: int = 1) -> None:
        super().__init__()
        self.n, self.dims = n, dims

    def forward(self, x: Tensor, *_: Tensor) -> Tensor:
        return x.new_zeros(*x.shape[: self.dims], self.n)


class FullHeads(nn.Module):
    """In the place of a shared layer with adapters: a whole layer for each task."""

    def __init__(self, n_in: int, n_out: int, n_tasks: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(n_in, n_out) for _ in range(n_tasks))

    def forward(self, x: Tensor) -> Tensor:  # (k, in) -> (k, tasks, out)
        return torch.stack([layer(x) for layer in self.layers], 1)


class OneForAll(nn.Module):
    """One layer for all tasks, no adapters."""

    def __init__(self, n_in: int, n_out: int, n_tasks: int) -> None:
        super().__init__()
        self.layer, self.n_tasks = nn.Linear(n_in, n_out), n_tasks

    def forward(self, x: Tensor) -> Tensor:  # (k, in) -> (k, tasks, out)
        return self.layer(x)[:, None].expand(-1, self.n_tasks, -1)


class RrAlone(nn.Module):
    """In the place of the morphology path: beats by the RR expert, tokens that say their classes and nothing else."""

    def __init__(self, path: MorphologyPath, sizes: Sizes) -> None:
        super().__init__()
        self.rr, self.sizes, self.temperature = path.rr, sizes, path.temperature

    def forward(self, wave: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n = (len(BEATS) - 1, self.sizes.code, len(self.sizes.kernels))
        logits, code, gate = (wave.new_zeros(len(wave), k) for k in n)
        return logits, code, gate

    def classes(self, logits: Tensor, features: Tensor) -> Tensor:
        return torch.log_softmax(fn.pad(self.rr(features), (0, 2), value=-20.0), 1)


@dataclass(frozen=True, slots=True)
class BeatsByShape(RrBeats):
    """Beats of which their looks are known and their time is not."""

    def features(self, index: Int) -> Float:
        out = np.zeros((index.size, N_FEATURES), np.float32)
        out[:, BY_SHAPE] = self.context[index]
        return out

    @classmethod
    def of(cls, pool: Pool, records: Int) -> "BeatsByShape":
        """All N, S and V of these records."""
        beats = np.flatnonzero(np.isin(pool.of_beat, records) & (pool.beat >= 0) & (pool.beat <= BEATS.index("V")))
        return cls(pool.of_beat[beats], pool.beat_features[beats][:, BY_SHAPE], pool.beat[beats])


# --------------------------------------------- what is changed of a model, of what it sees, of its teachers


def _views(*names: str) -> Callable[[EcgMoe], None]:
    def change(model: EcgMoe) -> None:
        encoder = model.encoder
        for name in names:
            place, n = ("trend_season", "period", "patch", "conv").index(name), model.sizes.view
            setattr(encoder, name, Nothing(n))
            _still(encoder, slice(place * n, (place + 1) * n))

    return change


def _still(encoder: HopEncoder, columns: slice) -> None:
    for name, value in (("running_mean", 0.0), ("running_var", 1.0)):
        encoder.view_norm.get_buffer(name)[columns] = value


def _band_stem(model: EcgMoe) -> None:
    model.encoder.band = Nothing(model.sizes.band)


def _rhythm_experts(*names: str) -> Callable[[EcgMoe], None]:
    def change(model: EcgMoe) -> None:
        for name in names:
            setattr(model.fusion, name, Nothing(model.sizes.rhythm))
        if len(names) == 3:
            model.fusion.gate = Nothing(3)

    return change


def _no_morphology(model: EcgMoe) -> None:
    model.morphology = RrAlone(model.morphology, model.sizes)
    model.fusion.beat_score, model.fusion.beat_out = Nothing(1, 2), Nothing(model.sizes.rhythm)


def _no_samples(model: EcgMoe) -> None:
    for i in range(len(model.sizes.kernels)):
        model.morphology.experts[i] = Nothing(model.sizes.code)


def _no_rhythm(model: EcgMoe) -> None:
    _rhythm_experts("statistics", "sequence", "band")(model)
    model.morphology.rr = FeatureExpert(model.sizes, BY_SHAPE, 3, 0.1)


def _one_expert(model: EcgMoe) -> None:
    model.fusion.gate, model.morphology.gate = Nothing(3), Nothing(1)


def _full_heads(model: EcgMoe) -> None:
    s = model.sizes
    model.morphology.fuse, model.fusion.adapt = FullHeads(s.code, s.code, 1), FullHeads(64, 48, 8)


def _no_hierarchy(model: EcgMoe) -> None:
    f = model.fusion
    f.gate, f.beat_score, f.path_gate, f.adapt = Nothing(3), Nothing(1, 2), Nothing(2), OneForAll(64, 48, 8)


def _samples_lead(model: EcgMoe) -> None:
    model.morphology.WAVES = 0.5  # a twentieth is right where features tell the looks of a beat


def _samples_alone(model: EcgMoe) -> None:
    model.morphology.WAVES = 1.0


def _without(pool: Pool, columns: list[int]) -> Pool:
    features = pool.beat_features.copy()
    features[:, columns] = 0
    return replace(pool, beat_features=features)


def _no_shape(pool: Pool) -> Pool:
    return replace(_without(pool, list(range(SHAPE, CONTEXT.start))), beat_form=np.zeros_like(pool.beat_form))


def _no_time(pool: Pool) -> Pool:
    out = _without(pool, [i for i in range(N_FEATURES) if i not in BY_SHAPE])
    out.beat_features[:, FEATURES.index("rr_unknown")] = 1
    return out


def fixed_windows(pool: Pool) -> Pool:
    """Each beat's samples are those of the second, on the clock's grid, that its R peak lies in, scaled by the hop they
    are cut from; no template, no features of its looks, no form. Its time is kept."""
    out = _without(pool, [i for i in range(SHAPE, N_FEATURES) if i not in (*range(N_FEATURES)[CONTEXT], *_SIGNAL)])
    wave = np.zeros_like(pool.beat_wave)
    for r in range(pool.source.size):
        beats, hops = np.flatnonzero(pool.of_beat == r), np.flatnonzero(pool.of_hop == r)
        start, end = pool.beat_at[beats] // TICK_HZ * (TICK_HZ // 2), pool.hop_end[hops] // 2
        k = np.searchsorted(end, start + BEAT_SAMPLES).clip(max=hops.size - 1)
        at = (start - end[k] + HOP_SAMPLES)[:, None, None] + np.arange(BEAT_SAMPLES)
        hop = pool.hop_wave[hops[k]].astype(np.float32)
        piece = np.take_along_axis(hop, at.clip(0, HOP_SAMPLES - 1), 2) * ((at >= 0) & (at < HOP_SAMPLES))
        spread = hop.std(2, keepdims=True)
        wave[beats, ::2] = (piece - hop.mean(2, keepdims=True)) / (spread + 0.05)
    return replace(out, beat_wave=wave, beat_form=np.zeros_like(pool.beat_form))


def _no_periods(pool: Pool) -> Pool:
    out = _without(fixed_windows(pool), [i for i in range(N_FEATURES) if i not in _SIGNAL])
    return replace(out, window_beats=np.full_like(pool.window_beats, -1))


def _no_votes(pool: Pool) -> Pool:
    return replace(pool, beat_form=np.zeros_like(pool.beat_form))


def _no_sequences(extra: Extra, pool: Pool, records: Int) -> Extra:
    return replace(extra, sequences=())


def _taught_by_shape(extra: Extra, pool: Pool, records: Int) -> Extra:
    return replace(extra, sequences=(), beats=BeatsByShape.of(pool, records))


def _no_rr_database(extra: Extra, pool: Pool, records: Int) -> Extra:
    return replace(extra, sequences=(), beats=None)


def _same_model(model: EcgMoe) -> None:
    pass


def _same_pool(pool: Pool) -> Pool:
    return pool


def _same_extra(extra: Extra, pool: Pool, records: Int) -> Extra:
    return extra


@dataclass(frozen=True, slots=True)
class Variant:
    """A model by what is changed of the whole one."""

    told: str
    change: Callable[[EcgMoe], None] = _same_model
    pool: Callable[[Pool], Pool] = _same_pool
    extra: Callable[[Extra, Pool, Int], Extra] = _same_extra
    sizes: Sizes = SIZES
    own_beats: bool = False  # its morphology path is not the whole model's


# One expert of as many parameters as the four: kernel 7 and 28 channels; features by one net of 220 for four of 96.
_ONE = Sizes(kernels=(7,), width=28, members=1, member_width=220)
VARIANTS = {
    "full": Variant("whole model"),
    "no-morphology": Variant("no morphology path", _no_morphology, _no_shape, own_beats=True),
    "no-samples": Variant("no experts over samples", _no_samples, own_beats=True),
    "no-rhythm": Variant("no rhythm path", _no_rhythm, _no_time, _taught_by_shape, own_beats=True),
    "no-statistics": Variant("no expert on RR statistics", _rhythm_experts("statistics")),
    "no-sequence": Variant("no expert on the RR sequence", _rhythm_experts("sequence")),
    "no-band": Variant("no band expert (hops)", _rhythm_experts("band")),
    "one-expert": Variant("one expert for several", _one_expert, sizes=_ONE, own_beats=True),
    "fixed": Variant("fixed windows, RR kept", _samples_lead, fixed_windows, own_beats=True),
    "no-periods": Variant("no periods at all", _samples_alone, _no_periods, _no_sequences, own_beats=True),
    "no-trend": Variant("no trend and season view", _views("trend_season")),
    "no-period": Variant("no period view", _views("period")),
    "no-patch": Variant("no patch view", _views("patch")),
    "no-conv": Variant("no convolution view", _views("conv")),
    "no-views": Variant("none of the four views", _views("trend_season", "period", "patch", "conv")),
    "no-stem": Variant("no band stem", _band_stem),
    "no-lora": Variant("no LoRA: full heads", _full_heads, own_beats=True),
    "flat": Variant("no fusion hierarchy", _no_hierarchy),
    "no-votes": Variant("no votes of the form", pool=_no_votes),
    "ds1-only": Variant("DS1 alone teaches, no RR database", extra=_no_rr_database, own_beats=True),
}


class PlainNet(nn.Module):
    """Beats by a small convolution over the best lead and its difference from the template, and 16 RR features."""

    def __init__(self) -> None:
        super().__init__()
        sizes = ((2, 16, 9), (16, 32, 7), (32, 32, 5))
        self.convs = nn.Sequential(*(
            layer for a, b, k in sizes for layer in (nn.Conv1d(a, b, k, 2, k // 2), nn.BatchNorm1d(b), nn.ReLU())
        ))  # fmt: skip
        self.norm, self.dropout = nn.BatchNorm1d(SHAPE, affine=False), nn.Dropout(0.2)
        self.out = nn.Sequential(nn.Linear(64 + SHAPE, 56), nn.ReLU(), nn.Dropout(0.2), nn.Linear(56, len(BEATS)))

    def forward(self, wave: Tensor, features: Tensor) -> Tensor:
        """(k, 4, 128), (k, F) -> logits (k, 5)."""
        h = self.convs(wave[:, : BEAT_CHANNELS // 2])
        f = self.norm(features[:, :SHAPE]).clamp(-5, 5)
        out: Tensor = self.out(self.dropout(torch.cat([h.mean(2), h.amax(2), f], 1)))
        return out
