"""A trained model made deeper and wider without changing what it says, so that training goes on from there.

What is new writes nothing into the residual stream at first (its output matrices are zero) and reads from it by random weights,
so that it has gradients from the first step: Net2Net (Chen et al. 2016), with zero outputs in place of copied neurons. Growing a
small model and going on is cheaper than training the large one from the start (Gong et al. 2019).
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
    """Refuses sizes that `old` cannot grow to, by name."""
    for name in SCALED:
        given, least = getattr(new, name), getattr(old, name)
        require(given >= least, f"--init has {name} {least}, which can grow but not shrink, got {given}")
    groups = old.heads // old.kv_heads
    require(
        new.heads == groups * new.kv_heads,
        f"--init has {groups} heads for each key, got {new.heads} for {new.kv_heads}",
    )
    plain = not (old.qkv_bias or old.qk_norm or not old.tied)
    require(plain, "--init must have no biases, no query norms and a tied head to grow")


def placed(fresh: Tensor, old: Tensor, outside: float | None) -> Tensor:
    """`old` [R, C] in the corner of `fresh` [R', C']; elsewhere `outside`, or what `fresh` has where that is None."""
    grown = fresh.clone() if outside is None else torch.full_like(fresh, outside)
    grown[tuple(slice(0, n) for n in old.shape)] = old
    return grown


def grown_layer(old: Layer, c: Config) -> Layer:
    """A layer of the sizes of `c` that does what `old` does to the old part of its input and leaves the rest as it is."""
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
    """An RMSNorm's weight [width]: new inputs are 0, which makes the mean square smaller by len(old) / width."""
    grown = torch.full((width,), old.mean().item())
    grown[: len(old)] = old
    return grown * math.sqrt(len(old) / width)


def silenced(layer: Layer) -> Layer:
    """A layer that passes its input on: its output matrices are zero."""
    for matrix in (layer.o, layer.down):
        nn.init.zeros_(matrix.weight)
    return layer


@torch.no_grad()
def grown(old: Target, c: Config) -> Target:
    """A target of the sizes of `c` with the logits of `old` (but for rounding, and the norms' epsilon). New layers are spread
    evenly, each after the one whose inner weights it copies."""
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
    """Refuses what a drafter cannot be grown to: another method or shape than its own."""
    for name in ("method", "pick", "embedding", "frequencies", "rank", "length", "lora_rank"):
        mine, given = getattr(old, name), getattr(new, name)
        require(mine == given, f"--init has --{name.replace('_', '-')} {mine}, got {given}")
    fits = old.kind == new.kind == "reader" or (new.kind == "feature" and old.kind in ("reader", "feature"))
    require(fits, f"--init must be a reader, or of --kind feature for that kind, got {old.kind} for {new.kind}")
    layers = len(old.source)
    require(layers == len(new.source), f"--init has {layers} layers, got --source {','.join(map(str, new.source))}")
    require(old.target.vocab == new.target.vocab, f"--init has {old.target.vocab} tokens, got {new.target.vocab}")
    check(old.target, new.target)


@torch.no_grad()
def grown_drafter(old: Drafter, config: DrafterConfig, form: type[Drafter] = Drafter) -> Drafter:
    """A drafter with the sizes of `config` that drafts what `old` does, if its context layers have in the old heads' place what
    those of `old` have (which they do in a grown target, where source names the layers' new places). A reader may become a
    `feature` drafter, which has to learn that its context ends one token earlier."""
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
        # it reads the embedding divided by its root mean square, which zeros make smaller
        new.sequential.from_token.weight[:, : was.width] *= math.sqrt(was.width / c.width)
    return new
