"""Low-rank adapters on a shared linear layer, one per task, merged and stacked for service.

After Hu et al. 2021 (LoRA): task t computes ``x (W + s B_t A_t)^T + b + b_t`` with A (rank, in), B (out, rank) and
s = alpha / rank. Ours: one module holds the adapters of all tasks and answers for all at once, and each task has a
bias of its own.
"""

import torch
from torch import Tensor, nn


class TaskLinear(nn.Module):
    """A linear layer that several tasks share, each with its low-rank change."""

    def __init__(self, n_in: int, n_out: int, n_tasks: int, rank: int, alpha: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_out, n_in))
        self.bias = nn.Parameter(torch.zeros(n_tasks, n_out))
        self.down = nn.Parameter(torch.empty(n_tasks, rank, n_in))
        self.up = nn.Parameter(torch.zeros(n_tasks, n_out, rank))
        self.scale = alpha / rank
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        nn.init.kaiming_uniform_(self.down, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(k, in) to (k, tasks, out)."""
        low = torch.einsum("ki,tri->ktr", x, self.down)
        change = torch.einsum("ktr,tor->kto", low, self.up)
        return nn.functional.linear(x, self.weight)[:, None] + self.scale * change + self.bias

    def merged(self) -> "Merged":
        """The same function with the adapters folded into one stacked weight."""
        weight = self.weight + self.scale * torch.einsum("tor,tri->toi", self.up, self.down)
        return Merged(weight.detach(), self.bias.detach())


class Merged(nn.Module):
    """All tasks of a `TaskLinear` in a single matrix product."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        n_tasks, n_out, n_in = weight.shape
        self.shape = (n_tasks, n_out)
        self.register_buffer("weight", weight.reshape(n_tasks * n_out, n_in).contiguous())
        self.register_buffer("bias", bias.reshape(-1).contiguous())

    def merged(self) -> "Merged":
        """Itself."""
        return self

    def forward(self, x: Tensor) -> Tensor:
        """(k, in) to (k, tasks, out)."""
        return nn.functional.linear(x, self.get_buffer("weight"), self.get_buffer("bias")).reshape(-1, *self.shape)
