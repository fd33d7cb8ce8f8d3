"""Architecture and prediction method of a drafter."""

from dataclasses import dataclass

from . import coordinates
from .transformer import Config

KINDS = ("feature", "reader", "lora", "separate")
METHODS = ("o", "c", "independent")


@dataclass(frozen=True)
class DrafterConfig:
    """Architecture and prediction method of a drafter.

    Methods (docs/ptp.md): with `o`, position k sees u_1 .. u_k and its argmax is the token. With `c`, position k sees
    u_1 .. u_{k-1} and outputs the distribution from which u_k picks. `independent` is `c` without uniforms, the
    baseline.
    """

    target: Config
    source: tuple[int, ...] = (0, 1, 3)
    """Context layer source[j] provides the keys and values for layer j of the drafter, and the initial weights. A
    `separate` drafter uses the keys and values of its own layers, and only `start_from` initialises it from the target.
    """
    length: int = 8
    """L, the maximum length of a draft in training. If the kind is `feature`, the context stream picks its first token.
    """
    kind: str = "reader"
    method: str = "c"
    pick: str = "tree"
    """Rule by which uniforms choose a token (coordinates.py)."""
    embedding: str = "fourier"
    """Features of the uniforms (embeddings.py)."""
    frequencies: int = 8
    """Number of harmonics in the fourier embedding."""
    rank: int = 128
    """Rank of the sequential head (sequential_head.py). 0 means no sequential head."""
    shortlist: int = 0
    """S, the number of tokens that the drafter may propose. 0 means all tokens."""
    lora_rank: int = 64
    own: Config | None = None
    """Sizes of a `separate` drafter. None for the other kinds, which have the target's sizes."""

    @property
    def coordinates(self) -> int:
        """D, the number of uniforms per position."""
        return coordinates.dimensions(self.pick, self.target.vocab)

    @property
    def sizes(self) -> Config:
        """Sizes of both streams."""
        return self.own or self.target

    @property
    def depth(self) -> int:
        """Number of layers in the context stream. Unless the kind is `feature`, the last layer computes only keys and
        values.
        """
        return self.target.layers if self.kind == "feature" else max(self.source) + 1

    @property
    def given(self) -> int:
        """Number of leading draft tokens that the context stream picks."""
        return 1 if self.kind == "feature" else 0

    @property
    def factored(self) -> bool:
        """True if drafting reads the output head once for all positions (sequential_head.py)."""
        return 0 < 2 * self.rank <= self.sizes.width
