"""The O-PTP drafter: a network that reads its target's keys and values.

Shapes in the docstrings: B sequences, S context tokens, N completions per sequence, L positions per completion,
G key/value heads, D head width, V vocabulary.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .model import Config, KeyValue, Layer, RMSNorm, Target, rope_tables


@dataclass(frozen=True)
class DrafterConfig:
    """Shape of a drafter that reads its target's keys and values.

    Layer j of the drafter attends to the keys and values of the target's layer source[j], so the context stream runs the
    target's layers 0 .. max(source) only (of the last one just its key and value projections).
    """

    target: Config
    source: tuple[int, ...] = (0, 1, 3)
    length: int = 8
    """Longest completion that it is trained for, L."""
    coordinates: int = 1
    """Uniforms per position, D."""
    frequencies: int = 16
    """Harmonics in the embedding of a uniform."""


class UniformEmbedding(nn.Module):
    """Embeds a position's uniforms and its sampling conditions.

    u enters as 2u - 1, cos(pi k u), sin(pi k u) for k = 1 .. frequencies, per coordinate. Greedy positions (temperature 0)
    have a learned vector in place of u, which has no meaning there. Conditions: temperature, top_p, log_V(top_k or V).
    """

    def __init__(self, c: DrafterConfig):
        super().__init__()
        self.c = c
        self.uniform = nn.Linear(c.coordinates * (1 + 2 * c.frequencies), c.target.width)
        self.greedy = nn.Parameter(torch.zeros(c.target.width))
        self.condition = nn.Linear(3, c.target.width, bias=False)
        nn.init.zeros_(self.condition.weight)

    def features(self, u: Tensor) -> Tensor:
        """u [..., D] -> [..., D * (1 + 2 * frequencies)]."""
        k = torch.arange(1, self.c.frequencies + 1, device=u.device, dtype=u.dtype) * math.pi
        angle = u[..., None] * k
        return torch.cat([u[..., None] * 2 - 1, angle.cos(), angle.sin()], -1).flatten(-2)

    def forward(self, u: Tensor, temperature: Tensor, top_p: Tensor, top_k: Tensor) -> Tensor:
        """u [..., D], the others [...] (top_k 0 for no limit, as float) -> [..., width]."""
        vocab = float(self.c.target.vocab)
        limit = torch.where(top_k > 0, top_k, torch.full_like(top_k, vocab)).log() / math.log(vocab)
        x = torch.where((temperature > 0)[..., None], self.uniform(self.features(u)), self.greedy)
        return x + self.condition(torch.stack([temperature, top_p, limit], -1))

    @torch.no_grad()
    def rescale(self, rms: float) -> None:
        """Brings the embedding of random uniforms to the given root mean square, that of the token embeddings."""
        x = self.uniform(self.features(torch.rand(4096, self.c.coordinates)))
        factor = rms / x.pow(2).mean().sqrt()
        for p in self.uniform.parameters():
            p.mul_(factor)


class Drafter(nn.Module):
    """O-PTP drafter (docs/ptp.md): completions of L tokens from the context before them and their own uniforms, in one call.

    Two streams: context tokens through the target's frozen layers (their keys and values are what is cached), u-positions
    through the drafter's own layers, initialised from the target's. The u-position that predicts token k has position
    k - 1; the first of a completion also carries the embedding of the last context token.
    """

    def __init__(self, config: DrafterConfig, target: Target | None = None):
        super().__init__()
        self.config = config
        c = config.target
        self.embedding = nn.Embedding(c.vocab, c.width)
        self.layers = nn.ModuleList(Layer(c, c.layers) for _ in config.source)
        self.norm = RMSNorm(c.width)
        self.uniform = UniformEmbedding(config)
        if target is not None:
            self.embedding.load_state_dict(target.embedding.state_dict())
            self.norm.load_state_dict(target.norm.state_dict())
            for layer, source in zip(self.layers, config.source, strict=True):
                layer.load_state_dict(target.layers[source].state_dict())
            self.uniform.rescale(target.embedding.weight.detach().pow(2).mean().sqrt().item())

    def forward(
        self,
        cache: list[KeyValue],
        last: Tensor,
        starts: Tensor,
        u: Tensor,
        conditions: tuple[Tensor, Tensor, Tensor],
    ) -> Tensor:
        """Logits [B, N, L, V] of N completions for each of B sequences.

        cache: keys and values of the target's layers 0 .. max(source), each [B, G, S, D] (`Target.read`).
        last [B, N]: the token before each completion. starts [B, N]: index of the first token to predict, 1 .. S.
        u [B, N, L, coordinates]. conditions: temperature, top_p, top_k, each broadcastable to [B, N, L].
        """
        b, n, length = u.shape[:3]
        c = self.config.target
        s = cache[0][0].shape[2]
        device = u.device
        x = self.uniform(u, *(t.expand(b, n, length) for t in conditions))
        x = torch.cat([x[:, :, :1] + self.embedding(last)[:, :, None], x[:, :, 1:]], 2).flatten(1, 2)
        positions = (starts[:, :, None] - 1 + torch.arange(length, device=device)).flatten(1)
        cos, sin = rope_tables(positions, c)
        seen = torch.arange(s, device=device) < starts[..., None]
        context_bias = torch.zeros(b, 1, n, 1, s, device=device).masked_fill(~seen[:, None, :, None], -torch.inf)
        future = torch.ones(length, length, dtype=torch.bool, device=device).triu(1)
        own_bias = torch.zeros(length, length, device=device).masked_fill(future, -torch.inf)
        group = c.heads // c.kv_heads
        for layer, source in zip(self.layers, self.config.source, strict=True):
            q, k, v = layer.project(x, cos, sin)
            keys, values = (t.repeat_interleave(group, 1) for t in cache[source])
            blocks = (b, c.heads, n, length, c.head_width)
            q = q / math.sqrt(c.head_width)
            own_q, own_k, own_v = (t.reshape(blocks) for t in (q, *(t.repeat_interleave(group, 1) for t in (k, v))))
            context_scores = (q @ keys.transpose(-1, -2)).view(*blocks[:-1], s) + context_bias
            own_scores = own_q @ own_k.transpose(-1, -2) + own_bias
            weights = torch.cat([context_scores, own_scores], -1).softmax(-1)
            attended = (weights[..., :s].reshape(b, c.heads, n * length, s) @ values).view(blocks)
            attended = attended + weights[..., s:] @ own_v
            x = layer.finish(x, attended.reshape(b, c.heads, n * length, c.head_width))
        return F.linear(self.norm(x), self.embedding.weight).view(b, n, length, -1)


def load_drafter(path) -> Drafter:
    stored = torch.load(path, map_location="cpu")
    settings = dict(stored["config"])
    settings["target"] = Config(**settings["target"])
    settings["source"] = tuple(settings["source"])
    drafter = Drafter(DrafterConfig(**settings))
    drafter.load_state_dict(stored["weights"])
    return drafter.eval()
