"""What the phases of the training do to a batch."""

import numpy as np
import torch

from model.phases import lend


def test_windows_lend_one_another_their_hops_with_their_masks_and_leave_the_others_theirs() -> None:
    number = torch.arange(8.0)[:, None, None].expand(8, 15, 4).clone()
    mask = torch.zeros(8, 15, dtype=torch.bool)
    for i in range(8):
        mask[i, i:] = True
    windows = np.array([1, 3, 4, 6])
    lend(number, mask, windows, np.random.default_rng(0))
    whose = number[:, 0, 0].long()
    assert sorted(whose[windows].tolist()) == windows.tolist()
    assert whose[windows].tolist() != windows.tolist()
    assert whose[[0, 2, 5, 7]].tolist() == [0, 2, 5, 7]
    assert (number == number[:, :1, :1]).all()
    assert mask.sum(1).tolist() == (15 - whose).tolist()
