"""The sequential head: a light correction of a drafter's logits from the tokens already picked in the completion.

The transformer runs once over all positions; only this head goes from position to position, as Hydra's heads do (Ankner et
al. 2024) and, with a recurrent state, ReDrafter's (Cheng et al. 2024). With rank R,

    z_k = silu(W h_k + A[t_{k-1}] + U z_{k-1}),   logits_k = E h_k + C z_k

so that a step costs R (R + V) multiplications a row, where a layer of the transformer costs some width^2 * 10.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .model import Config


class SequentialHead(nn.Module):
    def __init__(self, c: Config, rank: int):
        super().__init__()
        self.from_hidden = nn.Linear(c.width, rank)
        self.from_token = nn.Embedding(c.vocab, rank)
        self.from_state = nn.Linear(rank, rank, bias=False)
        self.out = nn.Linear(rank, c.vocab, bias=False)
        nn.init.normal_(self.from_token.weight, std=0.5)
        nn.init.zeros_(self.out.weight)

    def step(self, hidden: Tensor, token: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """hidden [..., width], the token before [...], state [..., R] or None at the first position -> what is added to the
        logits [..., V], and the next state."""
        z = self.from_hidden(hidden) + self.from_token(token)
        state = F.silu(z if state is None else z + self.from_state(state))
        return self.out(state), state

    def forward(self, hidden: Tensor, before: Tensor) -> Tensor:
        """All positions with known tokens: hidden [..., L, width], before [..., L] (the token before each) -> [..., L, V]."""
        z = self.from_hidden(hidden) + self.from_token(before)
        states, state = [], None
        for k in range(z.shape[-2]):
            row = z[..., k, :]
            state = F.silu(row if state is None else row + self.from_state(state))
            states.append(state)
        return self.out(torch.stack(states, -2))
