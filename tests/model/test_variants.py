"""The rows of the ablation: each builds, answers and differs from the whole model where it says so."""

from typing import Any

import pytest
import torch
from torch import Tensor

from model.ecg_moe import EcgMoe
from model.segments import BEAT_CHANNELS, N_FEATURES, N_WINDOW_FEATURES, TOKEN_BEATS, TOKEN_HOPS
from tests.benchmarks.variants import VARIANTS, PlainNet


def changed(name: str) -> EcgMoe:
    torch.manual_seed(0)
    model = EcgMoe(VARIANTS[name].sizes)
    VARIANTS[name].change(model)
    return model.eval()


def windows(model: EcgMoe, beat_tokens: Tensor) -> dict[str, Any]:
    rng = torch.Generator().manual_seed(1)
    hops = torch.randn(2, TOKEN_HOPS, model.sizes.token, generator=rng)
    features = torch.randn(2, TOKEN_BEATS, N_WINDOW_FEATURES, generator=rng).abs()
    age = torch.linspace(29, 0, TOKEN_BEATS).expand(2, -1)
    answers: dict[str, Any] = model.windows(
        hops, torch.ones(2, TOKEN_HOPS, dtype=torch.bool), beat_tokens, features, age,
        torch.ones(2, TOKEN_BEATS, dtype=torch.bool),
    )  # fmt: skip
    return answers


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_answers(name: str) -> None:
    model = changed(name)
    beats = torch.randn(3, BEAT_CHANNELS, 128), torch.randn(3, N_FEATURES)
    tokens = torch.randn(2, TOKEN_BEATS, model.sizes.token)
    assert all(torch.isfinite(value).all() for value in model.beats(*beats).values())
    assert torch.isfinite(windows(model, tokens)["rhythm"]).all()


@pytest.mark.parametrize(("name", "deaf"), [("full", False), ("no-morphology", True)])
def test_without_a_morphology_path_nothing_hears_of_the_samples_of_a_beat(name: str, deaf: bool) -> None:
    model, features = changed(name), torch.randn(3, N_FEATURES)
    one, other = (model.beats(wave, features) for wave in torch.randn(2, 3, BEAT_CHANNELS, 128))
    assert all(torch.equal(one[what], other[what]) is deaf for what in ("probs", "token"))


def test_the_plain_net_has_the_size_that_it_is_named_for() -> None:
    assert 12_000 < sum(p.numel() for p in PlainNet().parameters()) < 16_000
