"""The sequential head corrects a drafter's hidden states by the tokens already picked in the draft.

The transformer runs once over all positions. Only this head runs position by position, like Hydra's heads (Ankner et
al. 2024) and, with a recurrent state, ReDrafter's (Cheng et al. 2024). With rank R, embedding E and unit(x) = x /
rms(x),

    a_k, b_k = W h_k + A unit(E[t_{k-1}]) + U unit(z_{k-1})
    z_k = silu(a_k) b_k,   logits_k = head(h_k + C z_k)

The head reuses the model's embedding and output head, so its own size does not depend on V. W h_k is computed for all
positions at once. Each position then costs R (3 width + 2 R) multiplications per row, plus V width for the output head.

With H the output head, logits_k = H h_k + (H C) z_k. If the rank is small, a drafter therefore reads H once for all
positions, and H C [V, R] at each position. This is the correction by a low-rank bias of DSpark (2026), except that H C
has no parameters of its own, and so also corrects tokens that training rarely saw.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .transformer import EPSILON, Config


def unit(x: Tensor) -> Tensor:
    """Returns x [..., N] divided by its root mean square."""
    return F.rms_norm(x, x.shape[-1:], eps=EPSILON)


class SequentialHead(nn.Module):
    def __init__(self, c: Config, rank: int):
        super().__init__()
        self.from_hidden = nn.Linear(c.width, 2 * rank)
        self.from_token = nn.Linear(c.width, 2 * rank, bias=False)
        self.from_state = nn.Linear(rank, 2 * rank, bias=False)
        self.out = nn.Linear(rank, c.width, bias=False)
        nn.init.zeros_(self.out.weight)

    def step(self, hidden: Tensor, before: Tensor, state: Tensor | None) -> Tensor:
        """Returns the state [..., R] of one position. `hidden` and the embedded previous token are [..., width]. `state`
        is the previous state, or None at the first position.
        """
        return self.next(self.from_hidden(hidden) + self.from_token(unit(before)), state)

    def next(self, gates: Tensor, state: Tensor | None) -> Tensor:
        """Returns the state [..., R] from a and b [..., 2 R] without their recurrent part, and the previous state."""
        a, b = (gates if state is None else gates + self.from_state(unit(state))).chunk(2, -1)
        return F.silu(a) * b

    def forward(self, hidden: Tensor, before: Tensor) -> Tensor:
        """Corrects all positions at once if their tokens are known. `hidden` and the embedded previous tokens are [...,
        L, width].
        """
        gates = self.from_hidden(hidden) + self.from_token(unit(before))
        states, state = [], None
        for k in range(gates.shape[-2]):
            state = self.next(gates[..., k, :], state)
            states.append(state)
        return hidden + self.out(torch.stack(states, -2))
