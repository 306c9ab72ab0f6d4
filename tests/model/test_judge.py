"""Weights that fit are served, weights that do not are refused with one line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from model.ecg_moe import EcgMoe, example_inputs
from model.judge import WEIGHTS, Judge, WeightsError, load_model, save


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge.load(None, "cpu")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "some.safetensors"
    save(EcgMoe(), path, "test-1", ["rhythm", "shockable", "quality", "rr_ms", "arrhythmia"])
    return path


def _altered(path: Path, about: dict[str, str] | None = None, **tensors: torch.Tensor | None) -> Path:
    with safe_open(path, "pt") as file:
        described = dict(file.metadata())
    kept = load_file(path) | {name.replace("__", "."): tensor for name, tensor in tensors.items() if tensor is not None}
    for name, tensor in tensors.items():
        if tensor is None:
            del kept[name.replace("__", ".")]
    save_file(kept, path, described | (about or {}))
    return path


def _refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        Judge.load(path, "cpu")
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    assert "train" in text
    return text


def test_the_weights_that_come_with_the_package_load_and_answer(judge: Judge) -> None:
    beats = judge.beats(*(x.numpy() for x in example_inputs("beat", 3)))
    assert beats["probs"].shape == (3, 5)
    assert beats["token"].shape == (3, judge.D)
    assert beats["gates"].shape == (3, judge.E)
    assert judge.hops(*(x.numpy() for x in example_inputs("hop", 2)))["token"].shape == (2, judge.D)
    windows = judge.windows(*(x.numpy() for x in example_inputs("window", 2)))
    shapes = {name: array.shape for name, array in windows.items()}
    assert shapes == {
        "rhythm": (2, 10), "shockable": (2,), "quality": (2,), "rr_ms": (2,), "age": (2,), "male": (2,),
        "potassium": (2,), "arrhythmia": (2, 4), "gates": (2, judge.E2),
    }  # fmt: skip
    assert all(array.dtype == np.float32 for array in (*beats.values(), *windows.values()))


def test_a_task_without_training_answers_nan_and_not_a_number_that_looks_like_one(weights: Path) -> None:
    judge = Judge.load(weights, "cpu")
    windows = judge.windows(*(x.numpy() for x in example_inputs("window", 2)))
    assert judge.untrained == {"age", "male", "potassium"}
    assert np.isnan(windows["potassium"]).all() and np.isnan(windows["age"]).all()
    assert np.isfinite(windows["shockable"]).all()


def test_what_lies_in_masked_slots_does_not_matter(judge: Judge) -> None:
    rng = np.random.default_rng(0)
    hops, hop_mask, beats, features, age, beat_mask = (x.numpy() for x in example_inputs("window", 2))
    hop_mask[:, :9], beat_mask[:, :30] = False, False
    expected = judge.windows(hops, hop_mask, beats, features, age, beat_mask)
    for array, mask in ((hops, hop_mask), (beats, beat_mask), (features, beat_mask), (age, beat_mask)):
        array[~mask] = rng.normal(0, 100, array[~mask].shape)
    hops[0, 0, 0] = np.nan
    got = judge.windows(hops, hop_mask, beats, features, age, beat_mask)
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value)


def test_warming_up_runs_every_kind_at_each_batch_size(judge: Judge) -> None:
    judge.warm((1, 5))


@pytest.mark.parametrize("kind", ["beat", "hop", "window"])
def test_the_traced_model_answers_as_the_plain_one_to_the_bit(judge: Judge, kind: str) -> None:
    plain = load_model(WEIGHTS)[0].for_service()
    draw = torch.Generator().manual_seed(3)
    for k in (1, 2, 7, 33):
        inputs = [
            torch.rand(x.shape, generator=draw) > 0.3 if x.dtype == torch.bool else torch.randn(x.shape, generator=draw)
            for x in example_inputs(kind, k, plain.sizes)
        ]
        for _ in range(3):  # a program may be changed by its first calls
            answers = getattr(judge, f"{kind}s")(*(x.numpy() for x in inputs))
        if kind == "window":  # as the judge does it: what lies in masked slots does not matter
            tokens, hops, beat_tokens, features, age, beats = inputs
            inputs = [
                tokens * hops[..., None], hops, beat_tokens * beats[..., None], features * beats[..., None],
                age * beats, beats,
            ]  # fmt: skip
        with torch.inference_mode():
            wanted = getattr(plain, f"{kind}s")(*inputs)
        for name in set(answers) - judge.untrained:
            np.testing.assert_array_equal(answers[name], wanted[name].numpy(), err_msg=f"{name}, {k} items")


def test_what_a_traced_call_cannot_take_is_named_in_the_last_line(judge: Judge) -> None:
    """Which is what the worker's log tells."""
    wave, features = (x.numpy() for x in example_inputs("beat", 2))
    with pytest.raises(RuntimeError) as caught:
        judge.beats(wave[..., :96], features)
    assert "shapes cannot be multiplied" in str(caught.value).strip().splitlines()[-1]


def test_what_was_saved_is_what_is_loaded(weights: Path) -> None:
    model, about = load_model(weights)
    torch.manual_seed(0)
    for name, tensor in EcgMoe().state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor)
    assert about["version"] == "test-1"
    assert Judge.load(weights, "cpu").untrained == {"age", "male", "potassium"}


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "no such file" in _refusal(tmp_path / "none.safetensors")


def test_a_file_of_garbage_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "garbage.safetensors"
    path.write_bytes(b"not weights at all")
    assert "not a safetensors file" in _refusal(path)


def test_a_truncated_file_is_refused(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert "not a safetensors file" in _refusal(weights)


def test_weights_of_another_format_are_refused(weights: Path) -> None:
    assert "format '99'" in _refusal(_altered(weights, {"format": "99"}))


def test_a_missing_tensor_is_named(weights: Path) -> None:
    assert "lacks 'morphology.head.bias'" in _refusal(_altered(weights, morphology__head__bias=None))


def test_an_odd_tensor_is_named(weights: Path) -> None:
    assert "holds 'odd.one'" in _refusal(_altered(weights, odd__one=torch.zeros(2)))


def test_a_wrong_shape_is_named(weights: Path) -> None:
    assert "'morphology.head.bias' has shape (7,), not (4,)" in _refusal(
        _altered(weights, morphology__head__bias=torch.zeros(7))
    )


def test_weights_that_are_not_finite_are_refused(weights: Path) -> None:
    assert "not finite" in _refusal(_altered(weights, morphology__head__bias=torch.full((4,), torch.nan)))


def test_weights_learnt_on_other_features_are_refused(weights: Path) -> None:
    assert "other beat features" in _refusal(_altered(weights, {"features": json.dumps(["rr"])}))


def test_a_description_that_cannot_be_read_is_refused(weights: Path) -> None:
    assert "cannot be read" in _refusal(_altered(weights, {"sizes": "{"}))


def test_the_weights_and_their_card_lie_together() -> None:
    assert WEIGHTS.is_file()
    assert (WEIGHTS.parent / "README.md").is_file()
