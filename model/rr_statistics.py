"""What the RR intervals of a window say in numbers, for the rhythm path: `rr_statistics`."""

import torch
from torch import Tensor

from model.segments import FEATURES

RR_LAG_S = 2.0  # the RR answer is of the 10 s that ended so long before the window
N_STATISTICS = 42
_RR, _RR_UNKNOWN = FEATURES.index("rr_s"), FEATURES.index("rr_unknown")
_SHAPE = [
    FEATURES.index(name)
    for name in (
        "correlation", "width", "width_change", "amplitude_change", "atrial_correlation", "second_correlation",
        "quality",
    )
]  # fmt: skip


def rr_statistics(features: Tensor, age: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Statistics (k, 42) of the RR of 12 s and of 30 s, and the detector's mean RR (k,) in s, 0 for none.

    The mean is of the RR intervals that ended in the 10 s up to RR_LAG_S before the window's end: by then every beat is
    ready. `features` (k, 48, F), `age` (k, 48) s from the R peak to the window's end, `mask` (k, 48) bool, newest last.
    """
    known = mask & (features[..., _RR_UNKNOWN] < 0.5)
    rr = (torch.exp(features[..., _RR]) * known)[:, None]  # s, (k, 1, 48)
    late = torch.stack([age < 10 + RR_LAG_S, age < 31], 1)  # (k, 2, 48)
    w = (known[:, None] & late).float()
    n = w.sum(2).clamp(min=1)
    mean = (rr * w).sum(2) / n
    safe = mean.clamp(min=0.2)
    pair = w[..., 1:] * w[..., :-1]
    n_pair = pair.sum(2).clamp(min=1)
    step = (rr[..., 1:] - rr[..., :-1]) / safe[..., None] * pair
    size = step.abs()
    turn = ((step[..., 1:] * step[..., :-1]) < 0).float()
    spread = (((rr - mean[..., None]) * w).square().sum(2) / n).sqrt() / safe
    beats = (mask[:, None] & late).float()
    n_beats = beats.sum(2)
    shape = beats @ features[..., _SHAPE] / n_beats.clamp(min=1)[..., None]  # (k, 2, 7)
    parts = [
        torch.log(safe), spread, (size.square().sum(2) / n_pair).sqrt(), size.sum(2) / n_pair,
        *((size > limit).float().sum(2) / n_pair for limit in (0.03, 0.06, 0.12, 0.25)),
        turn.sum(2) / n_pair, w.sum(2) / 20.0,
        (rr - 9 * (1 - w)).amax(2).clamp(min=0), (rr + 9 * (1 - w)).amin(2).clamp(max=3),
    ]  # fmt: skip
    newest = torch.where(mask, age, 10.0).amin(1, keepdim=True).clamp(max=10.0)
    recent = (mask & (age < 6)).float().sum(1, keepdim=True) / 10.0
    said = (known & (age >= RR_LAG_S) & (age < 10 + RR_LAG_S)).float()
    rr_s = (rr[:, 0] * said).sum(1) / said.sum(1).clamp(min=1)
    flat = torch.cat([torch.stack(parts, 2), shape, n_beats[..., None] / 20.0], 2).flatten(1)  # (k, 40)
    return torch.cat([flat, newest, recent], 1), rr_s
