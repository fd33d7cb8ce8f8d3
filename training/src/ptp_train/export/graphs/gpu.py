"""The target as an ONNX graph for onnxruntime's WebGPU provider. All nodes run on the GPU, where the KV caches stay.

The provider has no kernels for `Attention`, `LogSoftmax`, `If` and arithmetic with int64 (training/research/NOTEBOOK.md
has the table), so this graph uses `GroupQueryAttention`, has one path for all rows, and counts tokens in float32.
"""

import numpy as np

from ...model.coordinates import dimensions
from ...model.stored_target import AnyTarget
from ...model.transformer import Layer
from .adjust import min_p
from .graph import CONTRIB, FLOAT, INT32, INT64, Graph, Stream, WeightFile, add_rope, split_input
from .pick import pick


def gpu_target_graph(target: AnyTarget, weights: WeightFile, slots: int, kind: str) -> Graph:
    """Does the same as `target_graph`.

    Inputs as there, except: instead of masks, pk and pv, for each slot i length_{i} [1] (int32), P_i + T_i - 1, and
    total_{i} (int32, scalar), P_i + T_i; pk{l}_{i} and pv{l}_{i} [1, G, C_i, D], with C_i >= P_i rows of each head, and
    any values in the rows from P_i on; scale and bias [R, V] or [1, 1]; top_k as float; nearest [1], the number of most
    probable tokens K to which top-k and top-p apply; rank [1, K], the numbers 0 .. K - 1 as float; top_count >= 1; run [1,
    1], a number that no other run has.
    Outputs: picked [R, 3 + 2 top_count], in one tensor so that a run reads the GPU once: the token; the natural logarithm
    of its probability; `run`, plus 1 if top-p keeps more than K tokens, so that the run must be repeated with a larger K;
    the log probabilities of the most probable tokens, and these tokens; nk{l}_{i} and nv{l}_{i} [1, G, max(C_i, P_i + T_i), D].
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
    g.node("Greater", [logits, g.constant(0, np.float32)], "scale.positive")
    g.node("Div", [logits, scale], "scale.divided")
    g.node("Mul", [logits, scale], "scale.multiplied")
    g.node("Where", ["scale.positive", "scale.divided", "scale.multiplied"], "scale.done")
    return g.node("Add", ["scale.done", bias], "adjusted")


def sampler(g: Graph, logits: str, vocab: int, kind: str) -> tuple[str, str]:
    """Returns the tokens [R, 1] picked from logits [R, V] and, as 1 or 0, the rows that need a larger K [R, 1]. The rules
    are those of `sampler.sampler`.
    """
    temperature, top_k, top_p = (g.input(name, FLOAT, ["R", 1]) for name in ("temperature", "top_k", "top_p"))
    g.input("min_p", FLOAT, ["R", 1])
    g.input("u", FLOAT, ["R", dimensions(kind, vocab)])
    nearest, rank = g.input("nearest", INT64, [1]), g.input("rank", FLOAT, [1, "K"])
    zero, one = g.constant(0, np.float32), g.constant(1, np.float32)

    g.node("LessOrEqual", [temperature, zero], "greedy")
    g.node("Not", ["greedy"], "random")
    g.node("Where", ["greedy", one, temperature], "divisor")
    g.node("Div", [logits, "divisor"], "scaled")
    g.node("ReduceMax", ["scaled", g.constant([1])], "scaled.max", keepdims=1)
    g.node("Sub", ["scaled", "scaled.max"], "scaled.below")
    g.node("Exp", ["scaled.below"], "weights.all")
    min_p(g, "weights.all", "weights")

    g.node("LessOrEqual", [top_k, zero], "top_k.off")
    g.node("Where", ["top_k.off", g.constant(vocab, np.float32), top_k], "top_k.limit")
    g.node("GreaterOrEqual", [top_p, one], "top_p.off")
    # Infinity, so that rounding cuts nothing if top_p = 1.
    g.node("Where", ["top_p.off", g.constant(np.inf, np.float32), top_p], "top_p.limit")
    g.node("And", ["top_k.off", "top_p.off"], "unlimited")
    g.node("Not", ["unlimited"], "limited")

    g.node("ReduceSum", ["weights", g.constant([1])], "weights.sum", keepdims=1)
    g.node("TopK", ["scaled", nearest], ["near.scaled", "near.ids"], axis=1)
    g.node("Sub", ["near.scaled", "scaled.max"], "near.below")
    g.node("Exp", ["near.below"], "near.all")
    min_p(g, "near.all", "near.weights")
    g.node("Less", [rank, "top_k.limit"], "near.inside")
    g.node("Where", ["near.inside", "near.weights", zero], "near.top")
    g.node("CumSum", ["near.top", g.constant(1)], "near.sum")
    g.node("CumSum", ["near.top", g.constant(1)], "near.above", exclusive=1)
    g.node("ReduceMax", ["near.sum", g.constant([1])], "near.reached", keepdims=1)
    g.node("Where", ["top_k.off", "weights.sum", "near.reached"], "near.whole")
    g.node("Mul", ["near.whole", "top_p.limit"], "near.mass")
    g.node("Less", ["near.above", "near.mass"], "near.nucleus")
    g.node("Where", ["near.nucleus", "near.top", zero], "near.kept")
    g.node("Mul", ["weights", zero], "zeros")
    g.node("ScatterElements", ["zeros", "near.ids", "near.kept"], "near", axis=1)
    g.node("Where", ["limited", "near", "weights"], "kept")

    g.node("Less", ["near.reached", "near.mass"], "near.open")
    g.node("And", ["near.open", "top_k.off"], "near.short.of_any")
    g.node("And", ["near.short.of_any", "limited"], "near.short.limited")
    g.node("And", ["near.short.limited", "random"], "near.short")
    short = g.node("Cast", ["near.short"], "short", to=FLOAT)
    best = g.number(g.node("ArgMax", [logits], "best", axis=1, keepdims=1), vocab)
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
    g.node("Concat", [token, "logprob", marked, "top_logprob", g.number("top_id", vocab)], "picked", axis=1)
    g.output("picked", FLOAT, ["R", "3+2K"])
