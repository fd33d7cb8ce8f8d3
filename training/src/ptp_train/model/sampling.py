"""Turns logits into probabilities (temperature, top-k, top-p) in PyTorch. coordinates.py picks tokens from them.

The server (engine/src/sampling) and the exported graph follow the same rules. test/vectors/sampling.json tests all
three implementations.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

TIES = 16
"""Maximum number of tokens tied at the boundary of top-k that are ordered by id."""


def shape(logits: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Returns probabilities [..., V] after temperature, top-k, top-p and renormalisation.

    temperature, top_k (0 for no limit) and top_p broadcast to logits.shape[:-1]. Tokens are ranked by descending
    probability, and tied tokens by ascending id. A token of rank r is kept if r < top_k and the tokens before it sum
    to less than top_p of the top-k mass. top_p = 1 keeps all tokens. Temperature 0 gives probability 1 to the highest
    logit, and to the lowest id on a tie.
    """
    lead, vocab = logits.shape[:-1], logits.shape[-1]
    temperature, top_k, top_p = (t.expand(lead).reshape(-1, 1) for t in (temperature, top_k, top_p))
    logits = logits.reshape(-1, vocab)
    greedy = temperature == 0
    p = (logits / torch.where(greedy, torch.ones_like(temperature), temperature)).softmax(-1)
    p = torch.where(greedy, F.one_hot(logits.argmax(-1), vocab).to(p.dtype), p)
    limit = torch.where(top_k > 0, top_k, torch.full_like(top_k, vocab))
    truncated = (~greedy & ((limit < vocab) | (top_p < 1)))[:, 0]
    for rows in (truncated & (limit[:, 0] <= 128), truncated & (limit[:, 0] > 128)):
        if bool(rows.any()):
            p[rows] = truncate(p[rows], limit[rows], top_p[rows])
    return p.view(*lead, vocab)


def truncate(p: Tensor, limit: Tensor, top_p: Tensor) -> Tensor:
    """Applies top-k and top-p to p [N, V] and renormalises. limit and top_p are [N, 1]."""
    longest = int(limit.max())
    index = p.topk(min(p.shape[-1], longest + TIES)).indices.sort(-1).values
    ordered, order = torch.sort(p.gather(-1, index), dim=-1, descending=True, stable=True)
    ordered = ordered * (torch.arange(ordered.shape[-1], device=p.device) < limit)
    before = ordered.cumsum(-1) - ordered
    ordered = ordered * ((before < top_p * ordered.sum(-1, keepdim=True)) | (top_p == 1))
    kept = torch.zeros_like(p).scatter_(-1, index.gather(-1, order), ordered)
    return kept / kept.sum(-1, keepdim=True)
