"""The target, a causal language model in the style of Llama, and the parts that the drafter (drafter.py) shares with
it.

Shapes in the docstrings: B sequences, S context tokens, H query heads, G key/value heads, head width D, V tokens in the
vocabulary.
"""

import hashlib
import math
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-5


@dataclass(frozen=True)
class Config:
    """Sizes and variants of one transformer. `context` is the maximum number of tokens in a training sequence.

    The fields from `epsilon` on exist for imported models (hugging_face.py). Our own models use the defaults.
    """

    vocab: int = 2048
    width: int = 256
    layers: int = 8
    heads: int = 4
    kv_heads: int = 2
    head_width: int = 64
    hidden: int = 704
    rope_theta: float = 10000.0
    context: int = 1024
    epsilon: float = EPSILON
    """Number added to the mean square in every RMSNorm."""
    tied: bool = True
    """True if the embedding is also the output head."""
    qkv_bias: bool = False
    """True if queries, keys and values have biases (Qwen2)."""
    qk_norm: bool = False
    """True if each head's query and key goes through an RMSNorm before its rotation (Qwen3)."""
    rope_scaling: tuple[float, ...] = ()
    """Slower rotations for longer contexts: () for no scaling, (factor,) for linear scaling, or (factor,
    low_freq_factor, high_freq_factor, original context) for Llama 3.1's scaling (see `rope_frequencies`).
    """


def rope_frequencies(config: Config) -> Tensor:
    """Returns the rotation of each of the D/2 pairs in radians per position, in float32 as in transformers
    (modeling_rope_utils.py).

    Llama 3.1's scaling slows rotations down by `factor` if they make fewer than low_freq_factor turns in the original
    context, leaves those with more than high_freq_factor turns unchanged, and blends in between.
    """
    exponents = torch.arange(0, config.head_width, 2, dtype=torch.float32) / config.head_width
    frequency = 1.0 / config.rope_theta**exponents
    if len(config.rope_scaling) <= 1:
        return frequency / (config.rope_scaling or (1.0,))[0]
    factor, low, high, original = config.rope_scaling
    turns = original * frequency / (2 * math.pi)
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return kept * frequency + (1 - kept) * frequency / factor


def rope_tables(positions: Tensor, config: Config) -> tuple[Tensor, Tensor]:
    """Returns cos and sin of the rotary embedding (Su et al. 2021), each of shape positions.shape + [D/2]."""
    angle = positions[..., None].float() * rope_frequencies(config).to(positions.device)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Applies the rotary embedding to x [B, T, heads, D]. The two halves of D form the pairs (Llama's layout). cos and
    sin are [B or 1, T, D/2].
    """
    a, b = x.chunk(2, -1)
    cos, sin = cos[:, :, None], sin[:, :, None]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class RMSNorm(nn.Module):
    def __init__(self, width: int, epsilon: float = EPSILON):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.epsilon)


KeyValue = tuple[Tensor, Tensor]
"""Keys and values of one layer, each [B, G, S, D]."""


class Layer(nn.Module):
    """RMSNorm, grouped-query attention with rotary positions, and SwiGLU. The caller computes the attention."""

    def __init__(self, c: Config, depth: int):
        super().__init__()
        self.c = c
        self.norm_attention = RMSNorm(c.width, c.epsilon)
        self.norm_mlp = RMSNorm(c.width, c.epsilon)
        self.q = nn.Linear(c.width, c.heads * c.head_width, bias=c.qkv_bias)
        self.k = nn.Linear(c.width, c.kv_heads * c.head_width, bias=c.qkv_bias)
        self.v = nn.Linear(c.width, c.kv_heads * c.head_width, bias=c.qkv_bias)
        self.norm_q = RMSNorm(c.head_width, c.epsilon) if c.qk_norm else None
        self.norm_k = RMSNorm(c.head_width, c.epsilon) if c.qk_norm else None
        self.o = nn.Linear(c.heads * c.head_width, c.width, bias=False)
        self.gate = nn.Linear(c.width, c.hidden, bias=False)
        self.up = nn.Linear(c.width, c.hidden, bias=False)
        self.down = nn.Linear(c.hidden, c.width, bias=False)
        for name, p in self.named_parameters():
            if p.ndim == 2:
                residual = name.startswith(("o.", "down."))
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * depth) if residual else 0.02)

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Projects x [B, T, width] to q [B, H, T, D] and to k and v [B, G, T, D]. q and k are rotated."""
        y = self.norm_attention(x)
        q = self.q(y).view(*x.shape[:2], -1, self.c.head_width)
        if self.norm_q is not None:
            q = self.norm_q(q)
        return rotate(q, cos, sin).transpose(1, 2), *self._keys_values(y, cos, sin)

    def keys_values(self, x: Tensor, cos: Tensor, sin: Tensor) -> KeyValue:
        """Returns the keys and values of `project`, without the queries."""
        return self._keys_values(self.norm_attention(x), cos, sin)

    def _keys_values(self, y: Tensor, cos: Tensor, sin: Tensor) -> KeyValue:
        k, v = (linear(y).view(*y.shape[:2], -1, self.c.head_width) for linear in (self.k, self.v))
        if self.norm_k is not None:
            k = self.norm_k(k)
        return rotate(k, cos, sin).transpose(1, 2), v.transpose(1, 2)

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """Returns the layer's output: x plus the projected `attended` [B, H, T, D], then the MLP."""
        x = x + self.o(attended.transpose(1, 2).reshape(*x.shape[:2], -1))
        y = self.norm_mlp(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


def attend(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Computes grouped-query attention of q [B, H, T, D] over keys and values [B, G, S, D].

    mask [T, S] is true where a query may attend. There is one product per group of heads, because PyTorch's own
    attention (2.13, CPU) first copies keys and values for every head.
    """
    b, h, t, d = q.shape
    groups = keys.shape[1]
    scores = q.reshape(b, groups, h // groups * t, d) @ keys.transpose(-1, -2) / math.sqrt(d)
    if mask is not None:
        scores = scores.view(b, h, t, -1).masked_fill(~mask, -torch.inf).view(scores.shape)
    return (scores.softmax(-1) @ values).view(b, h, t, d)


def read_layers(layers: Iterable[Layer], x: Tensor, c: Config) -> tuple[Tensor, list[KeyValue]]:
    """Runs layers causally over x [B, S, width]. Returns hidden states [B, S, width], and keys and values by layer."""
    cos, sin = rope_tables(torch.arange(x.shape[1], device=x.device)[None], c)
    cache: list[KeyValue] = []
    for layer in layers:
        q, k, v = layer.project(x, cos, sin)
        cache.append((k, v))
        x = layer.finish(x, F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True))
    return x, cache


class Target(nn.Module):
    """A causal language model."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab, config.width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.layers = nn.ModuleList(Layer(config, config.layers) for _ in range(config.layers))
        self.norm = RMSNorm(config.width, config.epsilon)
        self.output = None if config.tied else nn.Linear(config.width, config.vocab, bias=False)

    @property
    def head_weight(self) -> Tensor:
        """Output head [V, width]."""
        return self.embedding.weight if self.output is None else self.output.weight

    def predict(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns normalised hidden states (the starting point of `feature` drafters) and logits [..., V] for x [...,
        width].
        """
        feature = self.norm(x)
        return feature, F.linear(feature, self.embedding.weight) if self.output is None else self.output(feature)

    def head(self, x: Tensor) -> Tensor:
        """Maps x [..., width] to logits [..., V]."""
        return self.predict(x)[1]

    def forward(self, ids: Tensor) -> Tensor:
        """Maps ids [B, S] to logits [B, S, V]."""
        return self.head(self.read(ids, len(self.layers))[0])

    def read(self, ids: Tensor, depth: int) -> tuple[Tensor, list[KeyValue]]:
        """Runs the first `depth` layers over ids [B, S]. Returns hidden states [B, S, width] and each layer's keys and
        values.
        """
        return read_layers(self.layers[:depth], self.embedding(ids), self.config)

    def extend(self, ids: Tensor, cache: list[KeyValue], start: int) -> Tensor:
        """Appends ids [B, T] at position `start` to a cache made by `empty_cache`. Returns logits [B, T, V]."""
        end = start + ids.shape[1]
        x = self.embedding(ids)
        positions = torch.arange(start, end, device=ids.device)
        cos, sin = rope_tables(positions[None], self.config)
        mask = None if ids.shape[1] == 1 else torch.arange(end, device=ids.device)[None] <= positions[:, None]
        for layer, (keys, values) in zip(self.layers, cache, strict=True):
            q, k, v = layer.project(x, cos, sin)
            keys[:, :, start:end], values[:, :, start:end] = k, v
            attended = attend(q, keys[:, :, :end], values[:, :, :end], mask)
            x = layer.finish(x, attended)
        return self.head(x)

    def empty_cache(self, batch: int, capacity: int) -> list[KeyValue]:
        """Returns an empty KV cache of `capacity` tokens for `batch` sequences."""
        c = self.config
        shape = (batch, c.kv_heads, capacity, c.head_width)
        device = self.embedding.weight.device
        return [(torch.zeros(shape, device=device), torch.zeros(shape, device=device)) for _ in self.layers]


def parameters_of(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def save(path, kind: str, module: nn.Module, **extra) -> None:
    """Writes a checkpoint with configuration and weights, atomically."""
    partial = f"{path}.partial"
    torch.save({"kind": kind, "config": asdict(module.config), "weights": module.state_dict(), **extra}, partial)
    os.replace(partial, path)


def identity(module: nn.Module) -> str:
    """Returns twelve hexadecimal digits of the SHA-256 of all weights. Samples and drafters record these digits to
    identify their target.
    """
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def check_resume(path, stored: dict, module: nn.Module) -> None:
    """Exits unless the checkpoint has the configuration of `module`."""

    def agrees(old, new) -> bool:  # Checkpoints of older versions lack newer fields.
        if isinstance(old, dict):
            return isinstance(new, dict) and all(agrees(value, new.get(name)) for name, value in old.items())
        return old == new

    if not agrees(stored["config"], asdict(module.config)):
        raise SystemExit(f"{path} is a checkpoint of a different model: remove it, or choose another --out")


def read_checkpoint(path) -> dict:
    """Reads a checkpoint. The weights stay in the file until they are used."""
    return torch.load(path, map_location="cpu", mmap=True)


def load_target(path) -> Target:
    """Returns the target of a checkpoint in float32. An imported target's checkpoint has the number format of its model."""
    stored = read_checkpoint(path)
    with torch.device("meta"):
        target = Target(Config(**stored["config"]))
    target.load_state_dict(stored["weights"], assign=True)
    return target.float().eval()
