"""Pick: the token that a position's uniforms choose, and the uniforms that choose a given token.

Both samplers are exact: with random uniforms they return token t with probability P(t).

- `cdf`, the paper's sampler (docs/ptp.md): one uniform picks the first token whose cumulative probability exceeds it,
  in vocabulary order.
- `tree`: D = ceil(log2 V) uniforms walk down the complete binary tree over the token ids, highest bit first. At each
  node the walk goes left if u_d (P(left) + P(right)) < P(left) or P(right) = 0. Two similar distributions pick the same
  token more often than with `cdf`, because a change in one token's probability moves only the boundaries on its path.

The reference sampler in engine/src/testing/reference-sampler.ts and the exported graph follow the same rules. The
vectors in test/vectors/sampling.json and tree.json test all three.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

KINDS = ("cdf", "tree")
BELOW_ONE = 1 - 2**-24
"""Largest uniform that the server draws."""


def dimensions(kind: str, vocab: int) -> int:
    """Returns D, the number of uniforms per position."""
    return 1 if kind == "cdf" else max(1, (vocab - 1).bit_length())


def pick(kind: str, p: Tensor, u: Tensor) -> Tensor:
    """Returns the tokens [...] that uniforms u [..., D] choose from weights p [..., V], which need not sum to 1."""
    return _pick_cdf(p, u[..., 0]) if kind == "cdf" else _pick_tree(p, u)


def interval(kind: str, p: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the bounds [low, high) of the uniforms that choose `token` [...] from p [..., V], float32 [..., D]."""
    return _interval_cdf(p, token) if kind == "cdf" else _interval_tree(p, token)


def between(low: Tensor, high: Tensor, inside: Tensor) -> Tensor:
    """Returns uniforms at the fractions `inside`, in [0, 1), of [low, high). Rounding never raises them to `high`."""
    return torch.minimum(low + (high - low) * inside, torch.nextafter(high, low)).clamp(0, BELOW_ONE)


def _pick_cdf(p: Tensor, u: Tensor) -> Tensor:
    cumulative = p.double().cumsum(-1)
    total = cumulative[..., -1:]
    chosen = (cumulative <= u.double()[..., None] * total).sum(-1)
    return torch.minimum(chosen, (cumulative < total).sum(-1))


def _interval_cdf(p: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
    cumulative = p.double().cumsum(-1)
    high = cumulative.gather(-1, token[..., None])
    low = high - p.gather(-1, token[..., None]).double()
    return low.clamp(min=0).float(), high.float()


def _halves(p: Tensor) -> list[Tensor]:
    """Returns the probabilities of each node's two children by level: [..., 2^d, 2] for d = 0 .. D - 1."""
    depth = dimensions("tree", p.shape[-1])
    nodes = F.pad(p, (0, 2**depth - p.shape[-1]))
    levels = []
    for d in reversed(range(depth)):
        pairs = nodes.unflatten(-1, (2**d, 2))
        levels.append(pairs)
        nodes = pairs.sum(-1)
    return levels[::-1]


def _children(pairs: Tensor, node: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the two children of `node` [...] from pairs [..., 2^d, 2]."""
    chosen = pairs.gather(-2, node[..., None, None].expand(*node.shape, 1, 2))[..., 0, :]
    return chosen[..., 0], chosen[..., 1]


def _pick_tree(p: Tensor, u: Tensor) -> Tensor:
    node = torch.zeros(p.shape[:-1], dtype=torch.long, device=p.device)
    for d, pairs in enumerate(_halves(p)):
        left, right = _children(pairs, node)
        node = 2 * node + ((u[..., d] * (left + right) >= left) & (right > 0))
    return node


def _interval_tree(p: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
    low, high = [], []
    levels = _halves(p)
    for d, pairs in enumerate(levels):
        below = len(levels) - 1 - d
        left, right = _children(pairs, token >> (below + 1))
        border = (left / (left + right)).nan_to_num(0.5)
        rightwards = (token >> below) & 1 == 1
        low.append(torch.where(rightwards, border, 0.0))
        high.append(torch.where(rightwards, 1.0, border))
    return torch.stack(low, -1).float(), torch.stack(high, -1).float()
