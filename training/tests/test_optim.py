"""Tests our Muon against PyTorch's, which always computes in bfloat16."""

import pytest
import torch
from torch import nn

from ptp_train.train.optim import MuonAdamW


@pytest.mark.parametrize("shape", [(64, 64), (96, 64), (64, 96)])
def test_the_update_of_a_matrix_is_that_of_torch(shape):
    """Covers momentum, Nesterov, four iterations, weight decay, and the rate of tall matrices. bfloat16 rounds by up to
    1 %.
    """
    torch.manual_seed(0)
    ours = nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(*reversed(shape))])})
    weight, bias = ours["layers"][0].weight, ours["layers"][0].bias
    theirs = nn.Parameter(weight.detach().clone())
    start = theirs.detach().clone()
    mine = MuonAdamW(ours, matrix_rate=0.02)
    reference = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.02, momentum=0.95, ns_steps=4)
    for step in range(3):
        gradient = torch.randn(shape, generator=torch.Generator().manual_seed(step))
        weight.grad, theirs.grad, bias.grad = gradient.clone(), gradient.clone(), torch.ones_like(bias)
        mine.step(1.0)
        reference.step()
    moved, expected = weight.detach() - start, theirs.detach() - start
    assert (moved - expected).norm() < 0.02 * expected.norm()
