"""A target that stays in its checkpoint, for exports that need a small part of it at a time."""

import copy
import os
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from .transformer import Config, Layer, RMSNorm, Target, read_checkpoint


class StoredTarget:
    """Reads each part of a target from the checkpoint when it is used, in the number format of the checkpoint.

    Has the same attributes as `Target`. The file is mapped anew for each part, because the pages of a mapping stay in
    memory until all of its tensors are gone.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = path
        with torch.device("meta"):
            self.shapes = Target(Config(**read_checkpoint(path)["config"]))
        self.config = self.shapes.config
        self.layers = StoredLayers(self, range(self.config.layers))

    def part(self, name: str) -> nn.Module:
        """Returns the submodule `name` of the target."""
        module = copy.deepcopy(self.shapes.get_submodule(name))
        weights = read_checkpoint(self.path)["weights"]
        module.load_state_dict({key: weights[f"{name}.{key}"] for key in module.state_dict()}, assign=True)
        return module.eval()

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yields all parameters, without values."""
        return self.shapes.parameters()

    @property
    def embedding(self) -> nn.Embedding:
        return self.part("embedding")

    @property
    def norm(self) -> RMSNorm:
        return self.part("norm")

    @property
    def head_weight(self) -> Tensor:
        """Output head [V, width]."""
        return self.part("embedding" if self.config.tied else "output").weight


class StoredLayers(Sequence[Layer]):
    """Layers of a `StoredTarget`, each read whenever it is accessed."""

    def __init__(self, target: StoredTarget, numbers: range):
        self.target, self.numbers = target, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return StoredLayers(self.target, self.numbers[index])
        return self.target.part(f"layers.{self.numbers[index]}")


AnyTarget = Target | StoredTarget
