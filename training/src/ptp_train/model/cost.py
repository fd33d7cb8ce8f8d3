"""Estimated costs of draft and verify calls, and the choice of a drafter's shape by these costs.

A product of `rows` rows with n weights in 8-bit integers reads n bytes and makes rows * n multiplications, so it takes
max(n / BANDWIDTH, rows * n / SPEED). Every layer, and every position of the sequential head, also takes a fixed time.
The constants are assumptions for one free core. Only the ratio of two calls matters; docs/results.md, "Cost of a draft",
compares it with measured ratios.
"""

from dataclasses import dataclass, replace

from .drafter_config import DrafterConfig
from .transformer import Config

BANDWIDTH = 8.4e9
"""Memory bandwidth, bytes per second."""
SPEED = 75e9
"""Number of multiplications per second."""
LAYER, POSITION = 0.15, 0.2
"""Fixed durations of a layer and of a position of the sequential head, milliseconds."""
DRAFT = 8
"""Number of drafted tokens in the compared calls. The verify call has one more."""
NEW = 4
"""Number of new context tokens in a draft call."""
SHARE = 1 / 3
"""Maximum duration of a draft call, as a share of the duration of a verify call."""
RIGHT = 0.7
"""Assumed probability that a drafted token is right if all tokens before it are."""
LEAST_GAIN = 1.2
"""Minimum estimated speedup over plain decoding, below which a drafter is not worth its training."""
SHORTLISTS = (65_536, 32_768, 16_384, 8_192)
"""Candidates for the size of a shortlist."""


@dataclass(frozen=True)
class Cost:
    """Cost of a call or of a part of a call."""

    read: float = 0.0
    """Number of bytes of weights that are read."""
    ms: float = 0.0
    """Duration, milliseconds."""

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.read + other.read, self.ms + other.ms)


def product(weights: float, rows: int) -> Cost:
    return Cost(weights, 1000 * weights * max(1 / BANDWIDTH, rows / SPEED))


def layers(c: Config, count: float, rows: int) -> Cost:
    """Returns the cost of `count` layers. Attention to the context is left out, because both calls have it."""
    queries, keys = c.heads * c.head_width, 2 * c.kv_heads * c.head_width
    weights = c.width * (2 * queries + keys) + 3 * c.width * c.hidden
    return product(count * weights, rows) + Cost(ms=count * LAYER)


def verify_cost(c: Config, rows: int = DRAFT + 1) -> Cost:
    return layers(c, c.layers, rows) + product(c.vocab * c.width, rows)


def draft_cost(d: DrafterConfig) -> Cost:
    """Returns the cost of a draft of DRAFT tokens after NEW context tokens."""
    c, listed = d.sizes, d.shortlist or d.sizes.vocab
    context = layers(c, d.depth, NEW)
    if d.kind == "feature":
        context += product(c.vocab * c.width, DRAFT + 1)
    steps = DRAFT - d.given
    body = layers(c, len(d.source), steps)
    if not d.rank:
        return context + body + product(listed * c.width, steps)
    head = product(d.rank * (3 * c.width + 2 * d.rank), 1)
    once = product(listed * c.width, steps) if d.factored else Cost()
    each = head + product(listed * (d.rank if d.factored else c.width), 1) + Cost(ms=POSITION)
    return context + body + once + Cost(steps * each.read, steps * each.ms)


def gain(d: DrafterConfig) -> float:
    """Returns the estimated speedup over plain decoding on one processor, which drafts and then verifies."""
    tokens = sum(RIGHT**k for k in range(DRAFT + 1))
    return tokens * verify_cost(d.target, 1).ms / (verify_cost(d.target).ms + draft_cost(d).ms)


def sources(c: Config) -> list[tuple[int, ...]]:
    """Returns candidates of `DrafterConfig.source`, best first: three layers over as much of the target as possible, down
    to a single layer.
    """
    deep = [(0, last // 2, last) for last in range(c.layers // 2, 1, -1)]
    return [*deep, *((0, 1),) * (c.layers > 1), (0,)]


def chosen(d: DrafterConfig) -> DrafterConfig:
    """Returns `d` as a `reader` with the best source, rank and shortlist for which a draft call takes at most SHARE of a
    verify call, or else as the smallest `reader`. Exits if decoding would not become LEAST_GAIN times as fast.

    The output head, with its corrections, may take half of the maximum duration.
    """
    c = d.target
    verify = verify_cost(c).ms
    lists = [0, *(n for n in SHORTLISTS if n < c.vocab)]
    rank = max(8, min(256, c.width // 8))
    sized = [replace(d, kind="reader", own=None, rank=rank, shortlist=n, source=(0,)) for n in lists]

    def head(candidate: DrafterConfig) -> float:
        bare = layers(c, candidate.depth, NEW) + layers(c, 1, DRAFT)
        return draft_cost(candidate).ms - bare.ms

    base = next((s for s in sized if head(s) <= SHARE * verify / 2), sized[-1])
    candidates = [replace(base, source=source) for source in sources(c)]
    best = next((s for s in candidates if draft_cost(s).ms <= SHARE * verify), candidates[-1])
    if gain(best) < LEAST_GAIN:
        raise SystemExit(
            f"a drafter is not worth its training for this target: a draft of {DRAFT} would take "
            f"{draft_cost(best).ms / verify:.2f} of the time of a verify of {DRAFT + 1}, so decoding would be "
            f"{gain(best):.2f} times as fast as without drafts (at least {LEAST_GAIN} is needed). To train a drafter "
            "anyway, set --shape manual"
        )
    return best


def summary(d: DrafterConfig) -> str:
    """Returns a sentence with the costs of both calls."""
    draft, verify = draft_cost(d), verify_cost(d.target)
    listed = f"{d.shortlist:,} tokens" if d.shortlist else "all tokens"
    return (
        f"{d.kind} with source {','.join(map(str, d.source))}, rank {d.rank}, {listed}: a draft of {DRAFT} reads "
        f"{draft.read / 1e6:,.0f} MB and a verify of {DRAFT + 1} {verify.read / 1e6:,.0f} MB in int8; estimated "
        f"{draft.ms:.1f} and {verify.ms:.1f} ms ({draft.ms / verify.ms:.2f}), {gain(d):.1f} times plain decoding"
    )
