"""The target as an ONNX graph for onnxruntime's WebGPU provider. All nodes run on the GPU, where the KV caches stay.

The provider has no kernels for `Attention`, `LogSoftmax`, `If` and arithmetic with int64 (training/research/NOTEBOOK.md
has the table), so this graph uses `GroupQueryAttention`, has one path for all rows, and counts tokens in float32.
"""

import numpy as np

from ...model.coordinates import dimensions
from ...model.stored_target import AnyTarget
from ...model.transformer import Layer
from .adjust import min_p, scaled
from .graph import CONTRIB, FLOAT, INT32, INT64, Graph, Stream, WeightFile, add_rope, split_input
from .pick import number, pick
from .sampler import keep, limits, most_probable, weigh


def gpu_target_graph(target: AnyTarget, weights: WeightFile, slots: int, kind: str) -> Graph:
    """Does the same as `target_graph`.

    Inputs: the same, except that instead of masks, pk and pv, each slot i has length_{i} [1] (int32), P_i + T_i - 1;
    total_{i} (int32, scalar), P_i + T_i; and pk{l}_{i} and pv{l}_{i} [1, G, C_i, D], with C_i >= P_i rows of each head,
    whose rows from P_i on may have any values. scale and bias are [R, V] or [1, 1], top_k is float, and top_count is at
    least 1. nearest [1] is K, the number of most probable tokens to which top-k and top-p apply; rank [1, K] has the
    numbers 0 .. K - 1 as float; run [1, 1] is a number that no other run has.
    Outputs: nk{l}_{i} and nv{l}_{i} [1, G, max(C_i, P_i + T_i), D], and picked [R, 3 + 2 top_count], one tensor so that
    a run reads the GPU once. Its columns are the token; the natural logarithm of its probability; `run`, plus 1 if top-p
    keeps more than K tokens, so that the run must be repeated with a larger K; the log-probabilities of the most
    probable tokens; and these tokens.
    """
    c = target.config
    g = Graph(weights, on_gpu=True)
    ids, positions = g.input("ids", INT64, [1, "N"]), g.input("pos", INT64, [1, "N"])
    splits = split_input(g, "splits", slots)
    lengths = [(g.input(f"length_{i}", INT32, [1]), g.input(f"total_{i}", INT32, [])) for i in range(slots)]
    rows = g.input("rows", INT64, ["R"])
    add_rope(g, c, 1)  # One more position is for padding after a full context.

    x = g.gather("embedding", target.embedding.weight, ids, "embedded")
    stream = Stream(g, c, x, positions, slots, splits)
    for n, layer in enumerate(target.layers):
        attended = attend(stream, layer, n, lengths)
        if n == c.layers - 1:  # From here on, compute only the rows to pick from.
            attended = g.node("Gather", [attended, rows], "attended.rows", axis=1)
            stream.x = g.node("Gather", [stream.x, rows], "x.rows", axis=1)
        stream.finish(layer, f"layer{n}", attended)
    g.node("Squeeze", [stream.norm("norm", target.norm), g.constant([0])], "final")
    g.head("embedding" if c.tied else "output", "final", target.head_weight, "logits")
    results(g, *sampler(g, adjusted(g, "logits"), c.vocab, kind), c.vocab)
    return g


def attend(stream: Stream, layer: Layer, number: int, lengths: list[tuple[str, str]]) -> str:
    """Returns a layer's attention [1, N, H*D]. Each slot's node also writes its cache with the new rows."""
    g, c, name = stream.graph, stream.config, f"layer{number}"
    new = (f"{name}.k", f"{name}.v")
    queries = stream.project(layer, name, new)
    attended = []
    for i, (own, length) in enumerate(zip(zip(*map(stream.split, (queries, *new)), strict=True), lengths, strict=True)):
        caches = [f"{part}{number}_{i}" for part in ("pk", "pv", "nk", "nv")]
        for cache in caches[:2]:
            g.input(cache, FLOAT, [1, c.kv_heads, f"C{i}", c.head_width])
        for cache in caches[2:]:
            g.output(cache, FLOAT, [1, c.kv_heads, f"S{i}", c.head_width])
        out, heads = f"{name}.attended{i}", {"num_heads": c.heads, "kv_num_heads": c.kv_heads}
        g.node("GroupQueryAttention", [*own, *caches[:2], *length], [out, *caches[2:]], CONTRIB, **heads)
        attended.append(out)
    return stream.join(attended, f"{name}.attended")


def adjusted(g: Graph, logits: str) -> str:
    """Does the same as `adjust.adjusted`, without a branch: scale and bias have one element if no row needs them."""
    scale, bias = (g.input(name, FLOAT, [f"{name}.rows", f"{name}.columns"]) for name in ("scale", "bias"))
    return g.node("Add", [scaled(g, logits, scale), bias], "adjusted")


def sampler(g: Graph, logits: str, vocab: int, kind: str) -> tuple[str, str]:
    """Returns the tokens picked from logits [R, V], and 1 for rows that need a larger K, else 0, both [R, 1]. The rules
    are those of `sampler.sampler`.
    """
    weights = weigh(g, logits)
    top_k, top_p, _ = (g.input(name, FLOAT, ["R", 1]) for name in ("top_k", "top_p", "min_p"))
    g.input("u", FLOAT, ["R", dimensions(kind, vocab)])
    nearest, rank = g.input("nearest", INT64, [1]), g.input("rank", FLOAT, [1, "K"])

    min_p(g, weights, "weights")
    g.node("Not", [limits(g, top_k, top_p, vocab)], "limited")
    g.node("ReduceSum", ["weights", g.constant([1])], "weights.sum", keepdims=1)
    near = keep(g, most_probable(g, nearest, "near"), rank, "near.kept")
    g.node("Mul", ["weights", g.constant(0, np.float32)], "zeros")
    g.node("ScatterElements", ["zeros", "near.ids", near], "near", axis=1)
    g.node("Where", ["limited", "near", "weights"], "kept")

    g.node("Less", ["near.kept.reached", "near.kept.mass"], "near.open")
    g.node("And", ["near.open", "top_k.off"], "near.short.of_any")
    g.node("And", ["near.short.of_any", "limited"], "near.short.limited")
    g.node("And", ["near.short.limited", "random"], "near.short")
    short = g.node("Cast", ["near.short"], "short", to=FLOAT)
    best = number(g, g.node("ArgMax", [logits], "best", axis=1, keepdims=1), vocab)
    token = g.node("Where", ["random", pick(g, kind, "kept", "u", vocab, "picked.token"), best], "token")
    return token, short


def results(g: Graph, token: str, short: str, vocab: int) -> None:
    """Adds the inputs top_count and run and the output picked."""
    g.node("ReduceMax", ["logits", g.constant([1])], "logits.max", keepdims=1)
    g.node("Sub", ["logits", "logits.max"], "logits.below")
    g.node("Exp", ["logits.below"], "logits.weights")
    g.node("ReduceSum", ["logits.weights", g.constant([1])], "logits.sum", keepdims=1)
    g.node("Log", ["logits.sum"], "logits.log_sum")
    g.node("Sub", ["logits.below", "logits.log_sum"], "log_probabilities")
    g.node("Cast", [token], "token.id", to=INT64)
    g.node("GatherElements", ["log_probabilities", "token.id"], "logprob", axis=1)
    g.node("TopK", ["log_probabilities", g.input("top_count", INT64, [1])], ["top_logprob", "top_id"], axis=1)
    # Zeros, or the results of another run, would be a sign that the device is lost.
    marked = g.node("Add", [short, g.input("run", FLOAT, [1, 1])], "short.marked")
    g.node("Concat", [token, "logprob", marked, "top_logprob", number(g, "top_id", vocab)], "picked", axis=1)
    g.output("picked", FLOAT, ["R", "3+2K"])
