"""Makes a trained model deeper and wider without changing its outputs, to continue training at a larger size.

New parts read from the residual stream through random weights and write zeros into it at first, so they have gradients from the
first step: Net2Net (Chen et al. 2016) with zero outputs in place of copied neurons. Growing a small model is cheaper than
training the large one from scratch (Gong et al. 2019).
"""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..cli.settings import require
from .drafter import Drafter, DrafterConfig
from .transformer import Config, Layer, Target

SCALED = ("width", "layers", "heads", "kv_heads", "hidden")


def check(old: Config, new: Config) -> None:
    """Exits naming a size that `old` cannot grow to."""
    for name in SCALED:
        given, least = getattr(new, name), getattr(old, name)
        require(given >= least, f"{name} must be at least that of --init, {least}, got {given}")
    groups = old.heads // old.kv_heads
    require(
        new.heads == groups * new.kv_heads,
        f"heads per key/value head must be those of --init, {groups}, got {new.heads} for {new.kv_heads}",
    )
    plain = not (old.qkv_bias or old.qk_norm or not old.tied)
    require(plain, "--grow needs an --init without biases and query norms, with a tied head")


def placed(fresh: Tensor, old: Tensor, outside: float | None) -> Tensor:
    """`old` [R, C] in the corner of `fresh` [R', C']; elsewhere the number `outside`, or None for the values of `fresh`."""
    grown = fresh.clone() if outside is None else torch.full_like(fresh, outside)
    grown[tuple(slice(0, n) for n in old.shape)] = old
    return grown


def grown_layer(old: Layer, c: Config) -> Layer:
    """A layer of the sizes of `c` that acts like `old` on the old part of its input and passes on the rest."""
    layer = Layer(c, c.layers)
    for name, p in layer.named_parameters():
        was = old.get_parameter(name).detach()
        if p.ndim == 1:
            grown = norm_weight(was, len(p))
        else:
            grown = placed(p.detach(), was, 0.0 if name.startswith(("o.", "down.")) else None)
        p.data.copy_(grown)
    return layer


def norm_weight(old: Tensor, width: int) -> Tensor:
    """An RMSNorm's weight [width], scaled because new inputs are 0 and lower the mean square by len(old) / width."""
    grown = torch.full((width,), old.mean().item())
    grown[: len(old)] = old
    return grown * math.sqrt(len(old) / width)


def silenced(layer: Layer) -> Layer:
    """Makes a layer the identity by zeroing its output matrices."""
    for matrix in (layer.o, layer.down):
        nn.init.zeros_(matrix.weight)
    return layer


@torch.no_grad()
def grown(old: Target, c: Config) -> Target:
    """A target of the sizes of `c` with the logits of `old`, up to rounding and the norms' epsilon.

    New layers are spread evenly, each after the layer whose inner weights it copies."""
    check(old.config, c)
    c = replace(old.config, **{name: getattr(c, name) for name in (*SCALED, "context")})
    new = Target(c)
    new.embedding.weight.copy_(placed(new.embedding.weight, old.embedding.weight, 0.0))
    new.norm.weight.copy_(norm_weight(old.norm.weight, c.width))
    before = -1
    for i in range(c.layers):
        source = i * old.config.layers // c.layers
        layer = grown_layer(old.layers[source], c)
        new.layers[i] = silenced(layer) if source == before else layer
        before = source
    return new


def check_drafter(old: DrafterConfig, new: DrafterConfig) -> None:
    """Exits if a setting differs that growing cannot change."""
    for name in ("method", "pick", "embedding", "frequencies", "rank", "length", "lora_rank"):
        mine, given = getattr(old, name), getattr(new, name)
        require(mine == given, f"--{name.replace('_', '-')} must be that of --init, {mine}, got {given}")
    fits = old.kind == new.kind == "reader" or (new.kind == "feature" and old.kind in ("reader", "feature"))
    require(fits, f"--init must be of kind reader, or feature for --kind feature, got {old.kind} for {new.kind}")
    layers = len(old.source)
    require(
        layers == len(new.source),
        f"--source must name {layers} layers as in --init, got {','.join(map(str, new.source))}",
    )
    require(
        old.target.vocab == new.target.vocab,
        f"--target must have the vocabulary of --init, {old.target.vocab} tokens, got {new.target.vocab}",
    )
    check(old.target, new.target)


@torch.no_grad()
def grown_drafter(old: Drafter, config: DrafterConfig, form: type[Drafter] = Drafter) -> Drafter:
    """A drafter of the sizes of `config` that drafts as `old` does, over a target grown from the one of `old`.

    `config.source` names the new places of the layers. A reader may become a `feature` drafter, which then has to learn that its
    context ends one token earlier."""
    check_drafter(old.config, config)
    new = form(config)
    c, was = config.sizes, old.config.sizes
    new.embedding.weight.copy_(placed(new.embedding.weight, old.embedding.weight, 0.0))
    new.norm.weight.copy_(norm_weight(old.norm.weight, c.width))
    for i, layer in enumerate(old.layers):
        new.layers[i] = grown_layer(layer, c)
    for name, p in new.uniform.named_parameters():
        p.copy_(placed(p, old.uniform.get_parameter(name), 0.0))
    if new.feature is not None and old.feature is not None:
        new.feature.weight.copy_(placed(new.feature.weight, old.feature.weight, 0.0))
    if new.sequential is not None:
        for name, p in new.sequential.named_parameters():
            writes = name.startswith("out.")
            p.copy_(placed(p, old.sequential.get_parameter(name), 0.0 if writes else None))
        # it normalises the embedding, and the added zeros lower the root mean square
        new.sequential.from_token.weight[:, : was.width] *= math.sqrt(was.width / c.width)
    return new
