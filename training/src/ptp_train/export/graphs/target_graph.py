"""The target as an ONNX graph, including the sampler."""

from ...model.stored_target import AnyTarget
from .adjust import adjusted, nearest
from .cache import context_inputs, context_rows, new_rows
from .graph import FLOAT, INT64, Graph, Stream, WeightFile, add_rope
from .in_place import attend_in_place, in_place_inputs
from .sampler import sampler


def target_graph(
    target: AnyTarget, weights: WeightFile, slots: int, kind: str, in_place: bool = False, half_caches: bool = False
) -> Graph:
    """Runs the target over N packed tokens of `slots` sequences, and the sampler at R chosen rows.

    Inputs: ids and pos [1, N]; splits [slots], the number of tokens per slot (only with several slots); mask_{i} [T_i,
    P_i + T_i], added to the scores; pk and pv (`context_inputs`); rows [R], the tokens after which to pick, with R >= 2
    because a single row would run in other kernels (batch invariance); scale and bias [R, V] or [0, V] (`adjusted`);
    temperature, top_k, top_p and min_p [R, 1]; u [R, D] for the picking rule `kind`; top_count [1].
    Outputs: pick [R]; logprob [R], the natural logarithm of its probability before shaping; top_id and top_logprob [R,
    top_count], the most probable tokens before shaping; nk{l} and nv{l} [1, N, G*D].

    in_place: the graph takes k{l}_{i} and v{l}_{i} [S_i, G, D] instead of pk and pv, and writes the new rows into these
    caches (in_place.py). The last slots may then be empty: T_i = S_i = 0. half_caches: these caches are float16.
    """
    c = target.config
    g = Graph(weights)
    width = c.kv_heads * c.head_width
    given = in_place_inputs(g, c, slots, half_caches) if in_place else context_inputs(g, c.layers, slots, width)
    rows = g.input("rows", INT64, ["R"])
    add_rope(g, c, 1)  # One more position is for padding after a full context.

    x = g.gather("embedding", target.embedding.weight, given.ids, "embedded")
    stream = Stream(g, c, x, given.positions, slots, given.splits)
    for n, layer in enumerate(target.layers):
        name = f"layer{n}"
        if in_place:
            attended = attend_in_place(stream, layer, n, given)
        else:
            new = new_rows(g, n)
            q = stream.project(layer, name, new)
            attended = stream.attend(q, *context_rows(stream, new, given, n), given.masks)
        if n == c.layers - 1:  # From here on, compute only the rows to pick from.
            attended = g.node("Gather", [attended, rows], "attended.rows", axis=1)
            stream.x = g.node("Gather", [stream.x, rows], "x.rows", axis=1)
        stream.finish(layer, name, attended)
    g.node("Squeeze", [stream.norm("norm", target.norm), g.constant([0])], "final")
    g.head("embedding" if c.tied else "output", "final", target.head_weight, "logits")
    token = sampler(g, adjusted(g, "logits", c.vocab), c.vocab, kind)
    g.node("LogSoftmax", ["logits"], "log_probabilities", axis=1)
    g.node("Unsqueeze", [token, g.constant([1])], "token.column")
    g.node("GatherElements", ["log_probabilities", "token.column"], "logprob.column", axis=1)
    g.node("Squeeze", ["logprob.column", g.constant([1])], "logprob")
    g.output("pick", INT64, ["R"])
    g.output("logprob", FLOAT, ["R"])
    nearest(g, "log_probabilities")
    return g
