"""Pick as ONNX nodes: from weights [R, V], which need not sum to 1, and uniforms u [R, D] to tokens [R, 1].

The rules are the same as in model/coordinates.py and engine/src/testing/reference-sampler.ts. No row depends on other
rows. In graphs for a GPU, the tokens are float32.
"""

import numpy as np

from ...model.coordinates import dimensions
from .graph import FLOAT, INT64, Graph

STAGE = 7
"""Maximum number of tree levels in one stage, which computes all 2^7 - 1 nodes together."""


def pick(g: Graph, kind: str, weights: str, u: str, vocab: int, out: str) -> str:
    return first_above(g, weights, u, out) if kind == "cdf" else tree(g, weights, u, vocab, out)


def pick_listed(g: Graph, kind: str, weights: str, u: str, ids: np.ndarray, vocab: int, out: str) -> str:
    """Returns the index in `ids` of the token that u picks from weights [R, S]. The tokens `ids` [S], in ascending order,
    have these weights. All other tokens have weight 0.
    """
    return first_above(g, weights, u, out) if kind == "cdf" else listed_tree(g, weights, u, ids, vocab, out)


def first_above(g: Graph, weights: str, u: str, out: str) -> str:
    """Returns the first index whose running sum F exceeds u Z, where Z is the total weight and u is [R, 1].

    Such an index always exists: u <= 1 - 2^-24, so u Z < Z in float32 (for normal Z).
    """
    # onnxruntime's CumSum is several times faster along the first axis.
    g.node("Transpose", [u], f"{out}.u", perm=[1, 0])
    g.node("Transpose", [weights], f"{out}.columns", perm=[1, 0])
    g.node("CumSum", [f"{out}.columns", g.constant(0)], f"{out}.F")
    g.node("Gather", [f"{out}.F", g.constant([-1])], f"{out}.Z", axis=0)
    g.node("Mul", [f"{out}.Z", f"{out}.u"], f"{out}.uZ")
    g.node("LessOrEqual", [f"{out}.F", f"{out}.uZ"], f"{out}.below")
    g.node("Cast", [f"{out}.below"], f"{out}.ones", to=FLOAT)
    g.node("ReduceSum", [f"{out}.ones", g.constant([0])], f"{out}.count", keepdims=0)
    g.node("Unsqueeze", [f"{out}.count", g.constant([1])], f"{out}.column")
    return g.node("Cast", [f"{out}.column"], out, to=FLOAT if g.on_gpu else INT64)


def number(g: Graph, index: str, count: int) -> str:
    """Returns an index, which is less than `count`, as float32. WebGPU has no kernel that casts int64."""
    numbers = g.named(f"numbers.{count}", np.arange(count, dtype=np.float32))
    return g.node("Gather", [numbers, index], f"{index}.number")


def stages(depth: int) -> list[int]:
    """Returns the number of levels of each stage, as even as possible and at most STAGE."""
    count = -(-depth // STAGE)
    return [depth // count + (i < depth % count) for i in range(count)]


def subtree(levels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns matrices that describe a complete binary tree of G = 2^levels leaves. Its G - 1 inner nodes are numbered
    level by level.

    left and right [G, G - 1]: 1 where a leaf is below the left or the right child of a node.
    level [G - 1]: level of each node.
    turns [G - 1, G] and base [1, G]: with b = 1 for nodes where the walk goes right, b turns + base counts the nodes
    above a leaf that lead to it.
    """
    leaves = 2**levels
    left, right = np.zeros((2, leaves, leaves - 1), np.float32)
    level = np.zeros(leaves - 1, np.int64)
    for d in range(levels):
        for leaf in range(leaves):
            node = 2**d - 1 + (leaf >> (levels - d))
            level[node] = d
            (right if leaf >> (levels - d - 1) & 1 else left)[leaf, node] = 1
    return left, right, level, (right - left).T.copy(), left.sum(1)[None]


def tree(g: Graph, weights: str, u: str, vocab: int, out: str) -> str:
    """Walks down the tree over the token ids. At each node, the walk goes right if u (left + right) >= left and right >
    0.

    A stage computes all decisions at once. Its result is the leaf at the end of the path that follows them.
    """
    depth = dimensions("tree", vocab)
    size = 2**depth
    if size > vocab:
        weights = g.node("Pad", [weights, g.constant([0, 0, 0, size - vocab])], f"{out}.padded")
    above, index = 0, None
    for n, levels in enumerate(stages(depth)):
        name = f"{out}.stage{n}"
        leaves, size = 2**levels, size >> levels
        sums = weights
        if size > 1:
            g.node("Reshape", [weights, g.constant([0, leaves, size])], f"{name}.blocks")
            sums = g.node("ReduceSum", [f"{name}.blocks", g.constant([2])], f"{name}.sums", keepdims=0)
        leaf = walk(g, sums, u, levels, above, name)
        place = number(g, leaf, leaves) if g.on_gpu else leaf
        index = place if index is None else below(g, index, place, leaves, name)
        if size > 1:
            weights = g.node("GatherND", [f"{name}.blocks", leaf], f"{name}.chosen", batch_dims=1)
        above += levels
    return g.node("Identity", [index], out)


def listed_tree(g: Graph, weights: str, u: str, ids: np.ndarray, vocab: int, out: str) -> str:
    """Approximates `tree` for the weights of few tokens (`pick_listed`), so that nothing has the size of the vocabulary.
    Sums are differences of float32 running sums, so tokens with a probability below 1e-7 may never be drafted.
    """
    depth = dimensions("tree", vocab)
    g.node("CumSum", [weights, g.constant(1)], f"{out}.through")
    g.node("Pad", [f"{out}.through", g.constant([0, 1, 0, 0])], f"{out}.before")
    above, index = 0, g.constant([[0]])
    for n, levels in enumerate(stages(depth)):
        name = f"{out}.stage{n}"
        leaves = 2**levels
        above += levels
        # Number of listed tokens before each leaf.
        borders = np.searchsorted(ids, np.arange(2**above + 1) << (depth - above))
        g.node("Mul", [index, g.constant(leaves)], f"{name}.start")
        g.node("Add", [f"{name}.start", g.constant([list(range(leaves + 1))])], f"{name}.leaves")
        g.node("Gather", [g.named(f"shortlist.borders{above}", borders), f"{name}.leaves"], f"{name}.borders")
        if n == 0:  # All rows start at the root.
            g.node("Squeeze", [f"{name}.borders", g.constant([0])], f"{name}.border")
            g.node("Gather", [f"{out}.before", f"{name}.border"], f"{name}.edges", axis=1)
        else:
            g.node("GatherElements", [f"{out}.before", f"{name}.borders"], f"{name}.edges", axis=1)
        for part, begin, end in (("ends", 1, leaves + 1), ("starts", 0, leaves)):
            cut = [g.constant([begin]), g.constant([end]), g.constant([1])]
            g.node("Slice", [f"{name}.edges", *cut], f"{name}.{part}")
        sums = g.node("Sub", [f"{name}.ends", f"{name}.starts"], f"{name}.sums")
        leaf = walk(g, sums, u, levels, above - levels, name)
        index = leaf if n == 0 else below(g, index, leaf, leaves, name)
    return g.node("Gather", [g.named(f"shortlist.borders{depth}", borders), index], out)


def below(g: Graph, index: str, leaf: str, leaves: int, name: str) -> str:
    """Returns the index, in its level, of a leaf of the subtree with `leaves` leaves and its root at `index`."""
    g.node("Mul", [index, g.constant(leaves, np.float32 if g.on_gpu else np.int64)], f"{name}.above")
    return g.node("Add", [f"{name}.above", leaf], f"{name}.index")


def walk(g: Graph, sums: str, u: str, levels: int, above: int, name: str) -> str:
    """Returns the leaf [R, 1] to which uniforms lead in a subtree with `levels` levels below level `above`.

    sums: weights of all leaves [R, 2^levels].
    """
    left, right, level, turns, base = subtree(levels)
    # Compare with the sum of both children, so that a node with a child without probability leads to the other child for
    # any u.
    g.node("MatMul", [sums, g.named(f"tree{levels}.left", left)], f"{name}.left")
    g.node("MatMul", [sums, g.named(f"tree{levels}.right", right)], f"{name}.right")
    g.node("Add", [f"{name}.left", f"{name}.right"], f"{name}.both")
    g.node("Gather", [u, g.constant((level + above).tolist())], f"{name}.u", axis=1)
    g.node("Mul", [f"{name}.u", f"{name}.both"], f"{name}.bound")
    g.node("LessOrEqual", [f"{name}.left", f"{name}.bound"], f"{name}.beyond")
    # This condition is necessary when the sums are subnormal.
    g.node("Greater", [f"{name}.right", g.constant(0, np.float32)], f"{name}.something")
    g.node("And", [f"{name}.beyond", f"{name}.something"], f"{name}.rightwards")
    g.node("Cast", [f"{name}.rightwards"], f"{name}.bits", to=FLOAT)
    g.node("MatMul", [f"{name}.bits", g.named(f"tree{levels}.turns", turns)], f"{name}.turned")
    g.node("Add", [f"{name}.turned", g.named(f"tree{levels}.base", base)], f"{name}.led")
    return g.node("ArgMax", [f"{name}.led"], f"{name}.leaf", axis=1, keepdims=1)
