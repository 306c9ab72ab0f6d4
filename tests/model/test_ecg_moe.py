"""The architecture: its forms agree, rows do not touch one another, masks hide what they should."""

import pytest
import torch
from torch import Tensor

from model.ecg_moe import WINDOW_TASKS, EcgMoe, example_inputs
from model.rr_statistics import N_STATISTICS, rr_statistics
from model.segments import FEATURES


@pytest.fixture(scope="module")
def models() -> tuple[EcgMoe, EcgMoe]:
    """The plain form and the form for service of the same random weights, adapters and norms included."""
    torch.manual_seed(3)
    plain = EcgMoe()
    with torch.no_grad():
        for name, tensor in plain.state_dict().items():
            if name.endswith((".up", "running_mean")) or ("norm" in name and name.endswith("bias")):
                tensor.normal_(0, 0.2)
            elif name.endswith(("running_var", "temperature")) or ("norm" in name and name.endswith("weight")):
                tensor.uniform_(0.5, 2.0)
    served = EcgMoe()
    served.load_state_dict(plain.state_dict())
    return plain.eval(), served.for_service()


def _random(kind: str, k: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(k)
    items = [
        torch.randn(x.shape, generator=generator)
        if x.is_floating_point()
        else torch.rand(x.shape, generator=generator) > 0.3
        for x in example_inputs(kind, k)
    ]
    if kind == "window":
        items[4] = torch.arange(47.0, -1.0, -1.0).expand(k, -1) * 0.6  # ages
    return tuple(items)


def test_grouped_experts_and_merged_adapters_answer_as_the_plain_form(models: tuple[EcgMoe, EcgMoe]) -> None:
    plain, served = models
    for kind, name in (("beat", "beats"), ("hop", "hops"), ("window", "windows")):
        items = _random(kind, 9)
        with torch.no_grad():
            expected, got = getattr(plain, name)(*items), getattr(served, name)(*items)
        assert expected.keys() == got.keys()
        for key, value in expected.items():
            torch.testing.assert_close(
                got[key], value, atol=1e-4 if key in {"rr_ms", "age"} else 1e-5, rtol=1e-5, equal_nan=True
            )


def test_no_norm_is_left_between_the_convolutions_of_the_form_for_service(models: tuple[EcgMoe, EcgMoe]) -> None:
    plain, served = models
    assert any(isinstance(part, torch.nn.BatchNorm2d) for part in plain.modules())
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in served.modules())


def test_an_item_has_the_same_answer_alone_and_in_a_batch(models: tuple[EcgMoe, EcgMoe]) -> None:
    served = models[1]
    for kind, name in (("beat", "beats"), ("hop", "hops"), ("window", "windows")):
        items = _random(kind, 7)
        with torch.no_grad():
            together, alone = getattr(served, name)(*items), getattr(served, name)(*(x[3:4] for x in items))
        for key, value in together.items():
            torch.testing.assert_close(
                alone[key], value[3:4], atol=1e-3 if key in {"rr_ms", "age"} else 1e-5, rtol=1e-4
            )


def test_gates_and_classes_are_shares_of_one(models: tuple[EcgMoe, EcgMoe]) -> None:
    served = models[1]
    with torch.no_grad():
        beats, windows = served.beats(*_random("beat", 4)), served.windows(*_random("window", 4))
    for shares in (
        beats["probs"],
        beats["gates"],
        windows["rhythm"],
        windows["arrhythmia"],
        windows["gates"][:, :3],
        windows["gates"][:, 3:],
    ):
        assert (shares >= 0).all()
        torch.testing.assert_close(shares.sum(1), torch.ones(4))


def test_every_window_task_has_its_own_adapter(models: tuple[EcgMoe, EcgMoe]) -> None:
    assert models[0].fusion.adapt.bias.shape[0] == len(WINDOW_TASKS)


def test_a_hop_is_judged_alike_at_any_place_of_the_lead_that_is_missing(models: tuple[EcgMoe, EcgMoe]) -> None:
    """What lies in a lead whose mask is 0 does not matter as long as it is 0, as `cut_hops` leaves it."""
    served = models[1]
    wave, mask = _random("hop", 3)
    wave[:, 1], mask = 0.0, torch.tensor([[1.0, 0.0]]).repeat(3, 1)
    with torch.no_grad():
        token = served.hops(wave, mask)["token"]
    assert torch.isfinite(token).all()


def test_a_flat_line_and_a_window_of_nothing_have_finite_answers(models: tuple[EcgMoe, EcgMoe]) -> None:
    served = models[1]
    with torch.no_grad():
        assert torch.isfinite(served.hops(torch.zeros(2, 2, 500), torch.zeros(2, 2))["token"]).all()
        items = [x if x.is_floating_point() else torch.zeros_like(x) for x in example_inputs("window", 2)]
        out = served.windows(*items)
    assert torch.isnan(out.pop("rr_ms")).all()
    assert all(torch.isfinite(value).all() for value in out.values())


def test_the_rr_answer_is_of_the_intervals_that_ended_in_the_ten_seconds_before_the_last_two() -> None:
    features, age = torch.zeros(1, 48, len(FEATURES)), torch.arange(47.0, -1.0, -1.0)[None] * 0.6
    rr = torch.full((48,), 3.0)
    said = (age[0] >= 2) & (age[0] < 12)
    rr[said] = 1.0
    rr[said.nonzero()[3, 0]] = 1.5
    features[0, :, FEATURES.index("rr_s")] = torch.log(rr)
    statistics, rr_s = rr_statistics(features, age, torch.ones(1, 48, dtype=torch.bool))
    assert rr_s.item() == pytest.approx(1.0 + 0.5 / int(said.sum()), abs=1e-5)
    assert statistics.shape == (1, N_STATISTICS)


def test_rr_statistics_do_not_read_masked_beats() -> None:
    features, age = torch.randn(1, 48, len(FEATURES)), torch.rand(1, 48) * 30
    mask = torch.ones(1, 48, dtype=torch.bool)
    features[..., FEATURES.index("rr_unknown")] = 0.0
    mask[:, :20] = False
    changed, later = features.clone(), age.clone()
    changed[:, :20] += 1.0
    later[:, :20] += 1.0
    expected, got = rr_statistics(features, age, mask), rr_statistics(changed, later, mask)
    torch.testing.assert_close(got[0], expected[0])
    torch.testing.assert_close(got[1], expected[1])
