"""Makes a trained model deeper and wider without changing its outputs, to continue training at a larger size.

At first, new parts multiply the residual stream by random weights and add zeros to it, so they have gradients from the
first step. The method is Net2Net (Chen et al. 2016) with zero outputs instead of copied neurons. Growing a small model
is cheaper than training the large one from scratch (Gong et al. 2019).
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
    """Exits with an error that names the size if `old` cannot grow to a size of `new`."""
    for name in SCALED:
        given, least = getattr(new, name), getattr(old, name)
        require(given >= least, f"{name} must be at least {least}, as in --init, got {given}")
    groups = old.heads // old.kv_heads
    require(
        new.heads == groups * new.kv_heads,
        f"heads must be {groups} x kv_heads, as in --init, got {new.heads} heads and {new.kv_heads} key/value heads",
    )
    plain = not (old.qkv_bias or old.qk_norm or not old.tied)
    require(plain, "--grow requires a target in --init that has no biases, no query norms and a tied head")


def placed(fresh: Tensor, old: Tensor, outside: float | None) -> Tensor:
    """Puts `old` [R, C] into the corner of `fresh` [R', C'] and returns the result. `outside` replaces the other
    values of `fresh` unless it is None.
    """
    grown = fresh.clone() if outside is None else torch.full_like(fresh, outside)
    grown[tuple(slice(0, n) for n in old.shape)] = old
    return grown


def grown_layer(old: Layer, c: Config) -> Layer:
    """Returns a layer with the sizes of `c` that acts like `old` on the old part of its input and passes on the rest."""
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
    """Returns an RMSNorm's weight [width]. The weight is scaled because the zeros of the new inputs reduce the mean
    square by the factor len(old) / width.
    """
    grown = torch.full((width,), old.mean().item())
    grown[: len(old)] = old
    return grown * math.sqrt(len(old) / width)


def silenced(layer: Layer) -> Layer:
    """Makes layers identity maps by zeroing their output matrices."""
    for matrix in (layer.o, layer.down):
        nn.init.zeros_(matrix.weight)
    return layer


@torch.no_grad()
def grown(old: Target, c: Config) -> Target:
    """Returns a target with the sizes of `c`. Its logits are the same as the logits of `old`, apart from rounding and
    the epsilon of the norms.

    New layers are spread evenly. Each follows the layer from which it copies its inner weights.
    """
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
    """Exits if the configurations differ in a setting that growing cannot change."""
    for name in ("method", "pick", "embedding", "frequencies", "rank", "length", "shortlist", "lora_rank"):
        mine, given = getattr(old, name), getattr(new, name)
        require(mine == given, f"--{name.replace('_', '-')} must be {mine}, as in --init, got {given}")
    fits = old.kind == new.kind == "reader" or (new.kind == "feature" and old.kind in ("reader", "feature"))
    require(
        fits,
        f"--init must have kind reader, or kind feature if --kind is feature, got {old.kind} for --kind {new.kind}",
    )
    layers = len(old.source)
    require(
        layers == len(new.source),
        f"--source must name {layers} layers, as in --init, got {','.join(map(str, new.source))}",
    )
    require(
        old.target.vocab == new.target.vocab,
        f"--target must have the same vocabulary size as --init ({old.target.vocab}), got {new.target.vocab}",
    )
    check(old.target, new.target)


@torch.no_grad()
def grown_drafter(old: Drafter, config: DrafterConfig, form: type[Drafter] = Drafter) -> Drafter:
    """Returns a drafter with the sizes of `config` that drafts like `old`. Its target was grown from the target of
    `old`.

    `config.source` lists the new indices of the source layers. A `reader` may become a `feature` drafter, which then
    has to learn that its context ends one token earlier.
    """
    if config == old.config and type(old) is form:
        return old
    check_drafter(old.config, config)
    new = form(config, shortlist=old.shortlist)
    c, was = config.sizes, old.config.sizes
    new.embedding.weight.copy_(placed(new.embedding.weight, old.embedding.weight, 0.0))
    new.norm.weight.copy_(norm_weight(old.norm.weight, c.width))
    if new.output is not None:
        new.output.weight.copy_(placed(new.output.weight, old.output.weight, 0.0))
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
        # This norm is applied to the embedding, whose root mean square falls because of the added zeros.
        new.sequential.from_token.weight[:, : was.width] *= math.sqrt(was.width / c.width)
    return new
