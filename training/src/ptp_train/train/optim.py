"""Optimizer with Muon for the matrices inside the layers, and AdamW for embeddings and vectors.

Muon (Jordan et al. 2024) updates a matrix by its momentum, after a Newton-Schulz iteration that brings all singular
values near 1. torch.optim.Muon computes the same, but always in bfloat16, which is 13 to 22 times slower on processors
without bfloat16 instructions.
"""

import torch
from torch import Tensor, nn


def orthogonalise(g: Tensor, iterations: int = 4, dtype: torch.dtype = torch.float32) -> Tensor:
    """Returns g [R, C] with its singular values brought near 1, computed in `dtype` with the coefficients of Jordan et
    al. 2024.
    """
    x = (g / (g.norm() + 1e-7)).to(dtype)
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    for _ in range(iterations):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.T if tall else x).to(g.dtype)


class MuonAdamW:
    """Optimizer of both groups of parameters. `scale` in `step` is the schedule's factor in [0, 1]. The iteration runs
    in `dtype`.
    """

    def __init__(
        self,
        module: nn.Module,
        matrix_rate: float = 0.02,
        rate: float = 3e-3,
        momentum: float = 0.95,
        dtype: torch.dtype = torch.float32,
    ):
        self.dtype = dtype
        trained = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
        self.matrices = [p for n, p in trained if p.ndim == 2 and "layers." in n]
        chosen = {id(p) for p in self.matrices}
        self.others = [p for _, p in trained if id(p) not in chosen]
        self.matrix_rate, self.rate, self.momentum = matrix_rate, rate, momentum
        self.velocity = [torch.zeros_like(p) for p in self.matrices]
        self.adamw = torch.optim.AdamW(self.others, lr=rate, betas=(0.9, 0.95), weight_decay=0.0)

    def step(self, scale: float) -> None:
        torch.nn.utils.clip_grad_norm_(self.others, 1.0)
        for group in self.adamw.param_groups:
            group["lr"] = self.rate * scale
        self.adamw.step()
        with torch.no_grad():
            for p, v in zip(self.matrices, self.velocity, strict=True):
                v.mul_(self.momentum).add_(p.grad)
                update = orthogonalise(p.grad + self.momentum * v, dtype=self.dtype)
                rate = self.matrix_rate * scale
                p.mul_(1 - 0.02 * rate).add_(update, alpha=-rate * max(1, p.shape[0] / p.shape[1]) ** 0.5)
        for p in (*self.matrices, *self.others):
            p.grad = None

    def state_dict(self) -> dict:
        return {"velocity": self.velocity, "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        for mine, stored in zip(self.velocity, state["velocity"], strict=True):
            mine.copy_(stored)
        self.adamw.load_state_dict(state["adamw"])


def schedule(done: float, steady: float = 0.4, warm: float = 0.01, floor: float = 0.03) -> float:
    """Returns the factor on the learning rate at the fraction `done` of the run: linear warm-up, then constant, then
    linear decay to `floor`.
    """
    if done < warm:
        return (done + 1e-4) / (warm + 1e-4)
    return 1.0 if done < steady else max(floor, 1 - (1 - floor) * (done - steady) / (1 - steady))
