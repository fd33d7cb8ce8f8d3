"""The drafter: predicts drafts of L tokens in one call, from the context and the uniforms of their positions.

It has two streams. Context tokens go through the context stream, and the server caches its keys and values. The
positions to predict, called u-positions, go through `layers`, which attend to the context and to earlier u-positions of
their draft. There are four kinds:

- `feature`: the context stream is the whole frozen target and picks the first token of a draft. U-positions start from
  that token and the hidden state that predicted it (EAGLE's feature, Li et al. 2024, arXiv 2401.15077), go through
  separate layers and predict the other tokens.
- `reader`: the context stream consists of the first layers of the frozen target, and u-positions have separate layers.
- `lora`: both streams are the target, and low-rank adapters act on u-positions only (the paper's gated LoRA).
- `separate`: an independent transformer with one set of layers for both streams (the paper's scaling study).

Shapes in the docstrings: B sequences, S context tokens, N drafts per sequence, L positions per draft, D uniforms per
position, H and G query and key/value heads, V tokens in the vocabulary.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from . import coordinates
from .draft_head import DraftHead, without
from .drafter_config import DrafterConfig
from .embeddings import UniformEmbedding
from .lora import adapted
from .sampling import shape
from .sequential_head import SequentialHead
from .transformer import Config, KeyValue, Layer, RMSNorm, Target, read_checkpoint, read_layers, rope_tables


class Given(NamedTuple):
    """Outputs of a `feature` drafter's context stream for the first token of each draft."""

    feature: Tensor
    """[B, N, width]: normalised last hidden states that predict this token."""
    logits: Tensor | None
    """[B, N, V]: logits of these hidden states. `draft` needs them, but training does not."""


class Drafter(DraftHead):
    """Drafter over a target. The input that predicts token k has position k - 1, as in a language model. The first
    input of a draft also carries the embedding of the last context token.
    """

    def __init__(self, config: DrafterConfig, target: Target | None = None, shortlist: Tensor | None = None):
        """shortlist: ids of the `config.shortlist` tokens, in ascending order; by default 0, 1, 2 and so on."""
        super().__init__()
        self.config = config
        c = config.sizes
        depth = c.layers if config.kind == "separate" else config.target.layers
        if max(config.source) >= depth or min(config.source) < 0:
            raise ValueError(f"source must name layers in [0, {depth - 1}], got {list(config.source)}")
        self.embedding = nn.Embedding(c.vocab, c.width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.layers = nn.ModuleList(Layer(c, c.layers) for _ in config.source)
        self.norm = RMSNorm(c.width, c.epsilon)
        count = config.shortlist
        self.output = None if c.tied and not count else nn.Linear(c.width, count or c.vocab, bias=False)
        self.register_buffer("shortlist", torch.arange(count) if count and shortlist is None else shortlist)
        self.uniform = UniformEmbedding(config)
        self.sequential = SequentialHead(c, config.rank) if config.rank else None
        self.feature = nn.Linear(c.width, c.width, bias=False) if config.given else None
        if self.feature is not None:
            nn.init.zeros_(self.feature.weight)
        if target is not None and config.own is None:
            self.start_from(target, config.source)
        if config.kind == "lora":
            self.layers = nn.ModuleList(adapted(layer, config.lora_rank) for layer in self.layers)
        # With a shortlist, the embedding stays the target's, and needs no memory for gradients and the optimiser.
        self.embedding.requires_grad_(not count or config.own is not None)
        self.fit_uniforms()

    def fit_uniforms(self) -> None:
        """Scales embeddings of uniforms to the magnitude of token embeddings."""
        self.uniform.rescale(self.embedding.weight.detach().pow(2).mean().sqrt().item())

    def start_from(self, target: Target, chosen: tuple[int, ...]) -> None:
        """Copies embedding, head and `chosen` layers of a target. The target must have the drafter's own sizes."""
        self.embedding.weight.data.copy_(target.embedding.weight)
        self.norm.load_state_dict(target.norm.state_dict())
        if self.output is not None:
            rows = target.head_weight if self.shortlist is None else target.head_weight[self.shortlist]
            self.output.weight.data.copy_(rows)
        for layer, source in zip(self.layers, chosen, strict=True):
            layer.load_state_dict(target.layers[source].state_dict())

    def read(self, ids: Tensor) -> list[KeyValue]:
        """Returns keys and values of a `separate` drafter's context stream over ids [B, S]. For the other kinds,
        `Target.read` returns them.
        """
        return read_layers(self.layers, self.embedding(ids), self.config.sizes)[1]

    def inputs(self, last: Tensor, u: Tensor, conditions: tuple, feature: Tensor | None) -> Tensor:
        """Returns the inputs of the u-positions [B, N, L, width]. The arguments are the same as for `hidden`."""
        x = self.uniform(u, *(t.expand(u.shape[:3]) for t in conditions))
        before = self.embedding(last) if feature is None else self.embedding(last) + self.feature(feature)
        return torch.cat([x[:, :, :1] + before[:, :, None], x[:, :, 1:]], 2)

    def hidden(
        self,
        cache: list[KeyValue],
        last: Tensor,
        starts: Tensor,
        u: Tensor,
        conditions: tuple[Tensor, Tensor, Tensor],
        feature: Tensor | None = None,
    ) -> Tensor:
        """Returns the normalised last hidden states [B, N, L, width] of N drafts for each of B sequences.

        cache: keys and values of the context layers, each [B, G, S, D_head].
        last [B, N]: token before each draft.
        starts [B, N]: index of the first token to predict, in [1, S].
        u [B, N, L, D]: uniforms.
        conditions: temperature, top_p and top_k, each broadcastable to [B, N, L].
        feature [B, N, width]: last hidden state of the context stream, passed if the context ends one token before
        `last`.
        """
        b, n, length = u.shape[:3]
        c = self.config.sizes
        s = cache[self.config.source[0]][0].shape[2]
        device = u.device
        x = self.inputs(last, u, conditions, feature).flatten(1, 2)
        positions = (starts[:, :, None] - 1 + torch.arange(length, device=device)).flatten(1)
        cos, sin = rope_tables(positions, c)
        seen = torch.arange(s, device=device) < starts[..., None] - (0 if feature is None else 1)
        context_bias = torch.zeros(b, 1, n, 1, s, device=device).masked_fill(~seen[:, None, :, None], -torch.inf)
        future = torch.ones(length, length, dtype=torch.bool, device=device).triu(1)
        own_bias = torch.zeros(length, length, device=device).masked_fill(future, -torch.inf)
        group = c.heads // c.kv_heads
        blocks = (b, c.heads, n, length, c.head_width)
        for layer, source in zip(self.layers, self.config.source, strict=True):
            q, k, v = layer.project(x, cos, sin)
            keys, values = (t.repeat_interleave(group, 1) for t in cache[source])
            q = q / math.sqrt(c.head_width)
            own_q, own_k, own_v = (t.reshape(blocks) for t in (q, *(t.repeat_interleave(group, 1) for t in (k, v))))
            context_scores = (q @ keys.transpose(-1, -2)).view(*blocks[:-1], s) + context_bias
            own_scores = own_q @ own_k.transpose(-1, -2) + own_bias
            weights = torch.cat([context_scores, own_scores], -1).softmax(-1).to(values.dtype)
            attended = (weights[..., :s].reshape(b, c.heads, n * length, s) @ values).view(blocks)
            attended = attended + weights[..., s:] @ own_v
            x = layer.finish(x, attended.reshape(b, c.heads, n * length, c.head_width))
        return self.norm(x).view(b, n, length, -1)

    def forward(
        self,
        cache,
        last: Tensor,
        starts: Tensor,
        u: Tensor,
        conditions,
        answers: Tensor | None = None,
        given: Given | None = None,
    ) -> Tensor:
        """Returns logits [B, N, L, S]. The arguments are the same as for `hidden` and `logits`.

        A `feature` drafter needs `given` and the answers, and returns logits [B, N, L - 1, S] of all tokens but the
        first.
        """
        feature = None
        if given is not None:
            feature, last, starts, u, answers = (
                given.feature,
                answers[..., 0],
                starts + 1,
                u[:, :, 1:],
                answers[..., 1:],
            )
        return self.logits(self.hidden(cache, last, starts, u, conditions, feature), last, conditions, answers)

    @torch.no_grad()
    def draft(
        self,
        cache,
        last: Tensor,
        starts: Tensor,
        u: Tensor,
        conditions,
        excluded: Tensor | None = None,
        given: Given | None = None,
    ) -> Tensor:
        """Returns the drafted tokens [B, N, L]. The arguments are the same as for `hidden`.

        excluded [B, N]: token that the first position of each draft must not pick, or -1 for none. A branch for the
        rejection of a drafted token starts at that token's position and would otherwise draft it again. given: for
        `feature` only.
        """
        if given is None:
            return self._predicted(cache, last, starts, u, conditions, excluded)
        temperature, top_p, top_k = (t[..., 0] for t in conditions)
        p = shape(without(given.logits, excluded), temperature, top_k, top_p)
        first = coordinates.pick(self.config.pick, p, u[:, :, 0])
        rest = self._predicted(cache, first, starts + 1, u[:, :, 1:], conditions, None, given.feature)
        return torch.cat([first[..., None], rest], 2)

    def _predicted(self, cache, last, starts, u, conditions, excluded, feature=None) -> Tensor:
        """Returns tokens [B, N, L] drafted by the drafter's own layers. The arguments are the same as for `hidden` and
        `draft`.
        """
        hidden = self.hidden(cache, last, starts, u, conditions, feature)
        return self.picks(hidden, last, u, conditions[0].expand(u.shape[:3]), excluded)[0]


def target_identity_of(path) -> str | None:
    """Returns the `identity` of the target for which a drafter's checkpoint was made, if the checkpoint contains it."""
    return read_checkpoint(path).get("target_identity")


def load_drafter(path) -> Drafter:
    stored = torch.load(path, map_location="cpu")
    settings = dict(stored["config"])
    settings.pop("passes", None)  # Checkpoints of older versions contain it.
    settings["target"] = Config(**settings["target"])
    settings["own"] = Config(**settings["own"]) if settings["own"] else None
    settings["source"] = tuple(settings["source"])
    drafter = Drafter(DrafterConfig(**settings))
    try:
        drafter.load_state_dict(stored["weights"])
    except RuntimeError as reason:
        raise SystemExit(f"{path} was written by another version of ptp-train: train it again ({reason})") from None
    return drafter.eval()
