"""The adapters: merged, stacked and as published."""

import torch
from torch import nn

from model.lora import TaskLinear


def _trained(n_tasks: int = 3) -> TaskLinear:
    torch.manual_seed(1)
    layer = TaskLinear(10, 6, n_tasks, rank=4, alpha=8.0)
    with torch.no_grad():
        layer.up.normal_(0, 0.3)
        layer.bias.normal_(0, 0.3)
    return layer


def test_merged_adapters_answer_as_unmerged_ones() -> None:
    layer = _trained()
    x = torch.randn(17, 10)
    torch.testing.assert_close(layer.merged()(x), layer(x), atol=1e-5, rtol=0)


def test_each_task_has_the_shared_weight_and_its_own_low_rank_change() -> None:
    layer = _trained()
    x = torch.randn(5, 10)
    for task in range(3):
        weight = layer.weight + 2.0 * layer.up[task] @ layer.down[task]
        expected = x @ weight.T + layer.bias[task]
        torch.testing.assert_close(layer(x)[:, task], expected, atol=1e-5, rtol=0)
        assert torch.linalg.matrix_rank(weight - layer.weight) == 4


def test_a_fresh_adapter_changes_nothing() -> None:
    layer = TaskLinear(10, 6, 2, rank=2, alpha=4.0)
    x = torch.randn(4, 10)
    torch.testing.assert_close(layer(x)[:, 0], x @ layer.weight.T)
    torch.testing.assert_close(layer(x)[:, 1], layer(x)[:, 0])


def test_merging_what_is_merged_gives_itself() -> None:
    merged = _trained().merged()
    assert merged.merged() is merged


def test_each_task_answers_as_an_adapter_of_the_peft_library_does_merged_or_not() -> None:
    from peft import LoraConfig, get_peft_model

    layer = _trained()
    x = torch.randn(9, 10)
    for task in range(3):
        plain = nn.Sequential(nn.Linear(10, 6))
        with torch.no_grad():
            plain[0].weight.copy_(layer.weight)
            plain[0].bias.copy_(layer.bias[task])
        theirs = get_peft_model(plain, LoraConfig(r=4, lora_alpha=8, target_modules=["0"]))
        with torch.no_grad():
            theirs.base_model.model[0].lora_A["default"].weight.copy_(layer.down[task])
            theirs.base_model.model[0].lora_B["default"].weight.copy_(layer.up[task])
        torch.testing.assert_close(layer(x)[:, task], theirs(x), atol=1e-5, rtol=0)
        torch.testing.assert_close(layer.merged()(x)[:, task], theirs.merge_and_unload()(x), atol=1e-5, rtol=0)
