"""Writes a model folder for the server: ONNX graphs with their weights, the tokenizer and manifest.json.

Per model there is one graph for each number of slots in SLOTS; they share one weight file. See graph.py for how a run is
packed; what the graphs take and give stands at `target_graph` and `drafter_graph`.
"""

import argparse
import json
import pathlib
from dataclasses import asdict, dataclass

import numpy as np
import torch

from . import manifest
from .drafter import Drafter, load_drafter
from .graph import FLOAT, INT64, Graph, Stream, WeightFile, add_rope, split_input
from .graph_sampler import sampler
from .model import Target, load_target
from .weight_file import PRECISIONS, STORAGES

SLOTS = (1, 4)


def cache_inputs(g: Graph, layers: int, slots: int, width: int) -> tuple[list[list[str]], list[list[str]]]:
    """Past keys pk{layer}_{slot} and values pv{layer}_{slot} [1, P_slot, G*D], each as [layer][slot]."""
    return tuple(
        [[g.input(f"{name}{n}_{i}", FLOAT, [1, f"P{i}", width]) for i in range(slots)] for n in range(layers)]
        for name in ("pk", "pv")
    )


def new_rows(g: Graph, layer: int) -> tuple[str, str]:
    """Names of the outputs for a layer's new keys and values."""
    names = (f"nk{layer}", f"nv{layer}")
    for name in names:
        g.output(name, FLOAT, [1, "N", "G*D"])
    return names


def past_and_new(past: list[str], new: list[str]) -> list[list[str]]:
    return [list(pair) for pair in zip(past, new, strict=True)]


def target_graph(target: Target, weights: WeightFile, slots: int) -> Graph:
    """The target over N packed tokens of `slots` sequences, with the sampler at R chosen rows.

    Inputs: ids, pos [1, N]; splits [slots], tokens per slot (graphs with several slots only); mask_{i} [T_i, P_i + T_i],
    added to the scores; pk, pv (`cache_inputs`); rows [R], the tokens after which a pick is wanted, R >= 2 because one
    row alone would run other kernels (batch invariance); temperature, top_k, top_p, u [R, 1].
    Outputs: pick [R]; logprob [R], natural log of its probability under the unshaped model; nk{l}, nv{l} [1, N, G*D].
    """
    c = target.config
    g = Graph(weights)
    ids, positions = g.input("ids", INT64, [1, "N"]), g.input("pos", INT64, [1, "N"])
    splits = split_input(g, "splits", slots)
    masks = [g.input(f"mask_{i}", FLOAT, [f"T{i}", f"S{i}"]) for i in range(slots)]
    past_keys, past_values = cache_inputs(g, c.layers, slots, c.kv_heads * c.head_width)
    rows = g.input("rows", INT64, ["R"])
    add_rope(g, c, 1)  # the last is for the padding after a full context

    embedding = g.tensor("embedding", target.embedding.weight)
    x = g.node("Gather", [embedding, ids], "embedded")
    stream = Stream(g, c, x, positions, slots, splits)
    for n, layer in enumerate(target.layers):
        name = f"layer{n}"
        new = new_rows(g, n)
        q = stream.project(layer, name, new)
        keys, values = (
            past_and_new(past[n], stream.split(x)) for past, x in zip((past_keys, past_values), new, strict=True)
        )
        attended = stream.attend(q, keys, values, masks)
        if n == c.layers - 1:  # from here on only the rows that picks are wanted for
            attended = g.node("Gather", [attended, rows], "attended.rows", axis=1)
            stream.x = g.node("Gather", [stream.x, rows], "x.rows", axis=1)
        stream.finish(layer, name, attended)
    g.node("Squeeze", [stream.norm("norm", target.norm), g.constant([0])], "final")
    g.head("embedding" if c.tied else "output", "final", target.head_weight, "logits")
    token = sampler(g, "logits", c.vocab)
    g.node("LogSoftmax", ["logits"], "log_probabilities", axis=1)
    g.node("Unsqueeze", [token, g.constant([1])], "token.column")
    g.node("GatherElements", ["log_probabilities", "token.column"], "logprob.column", axis=1)
    g.node("Squeeze", ["logprob.column", g.constant([1])], "logprob")
    g.output("pick", INT64, ["R"])
    g.output("logprob", FLOAT, ["R"])
    return g


def uniform_embedding(g: Graph, drafter: Drafter) -> str:
    """UniformEmbedding of [1, M] positions; adds the inputs u [1, M, D] and the conditions, each [1, M, 1]."""
    c, e = drafter.config, drafter.uniform
    u = g.input("u", FLOAT, [1, "M", c.coordinates])
    temperature, top_p, top_k = (g.input(name, FLOAT, [1, "M", 1]) for name in ("temperature", "top_p", "top_k"))
    zero = g.constant(0, np.float32)
    d, f = c.coordinates, c.frequencies
    harmonics = np.pi * np.arange(1, f + 1, dtype=np.float32)
    flat = "u.column"
    g.node("Unsqueeze", [u, g.constant([3])], flat)
    g.node("Mul", [flat, g.constant(harmonics, np.float32)], "u.angle")
    g.node("Cos", ["u.angle"], "u.cos")
    g.node("Sin", ["u.angle"], "u.sin")
    g.node("Mul", [flat, g.constant(2, np.float32)], "u.twice")
    g.node("Sub", ["u.twice", g.constant(1, np.float32)], "u.centred")
    g.node("Concat", ["u.centred", "u.cos", "u.sin"], "u.features.by_coordinate", axis=3)
    g.node("Reshape", ["u.features.by_coordinate", g.constant([1, -1, d * (1 + 2 * f)])], "u.features")
    g.linear("uniform.weight", "u.features", e.uniform.weight, "u.linear")
    g.node("Add", ["u.linear", g.tensor("uniform.bias", e.uniform.bias)], "u.random")
    g.node("Greater", [temperature, zero], "random")
    g.node("Where", ["random", "u.random", g.tensor("uniform.greedy", e.greedy)], "u.embedded")

    vocab = float(c.target.vocab)
    g.node("Greater", [top_k, zero], "top_k.on")
    g.node("Where", ["top_k.on", top_k, g.constant(vocab, np.float32)], "top_k.limit")
    g.node("Log", ["top_k.limit"], "top_k.log")
    g.node("Div", ["top_k.log", g.constant(np.log(vocab), np.float32)], "limit")
    g.node("Concat", [temperature, top_p, "limit"], "conditions", axis=2)
    g.linear("condition.weight", "conditions", e.condition.weight, "conditions.embedded")
    return g.node("Add", ["u.embedded", "conditions.embedded"], "u.conditioned")


def drafter_graph(drafter: Drafter, target: Target, weights: WeightFile, slots: int) -> Graph:
    """The drafter: N packed context tokens through the target's first layers, M packed u-positions through its own.

    Context inputs: ids, pos, splits, mask_{i}, pk, pv as in `target_graph`, for the target's layers 0 .. max(source).
    u inputs, M_i >= 1 of slot i, branch after branch: u [1, M, D]; upos [1, M]; last [1, M], the token before a branch, counted
    where first [1, M, 1] is 1 (a branch's first u) and not where it is 0; temperature, top_p, top_k [1, M, 1] (float, top_k
    0 for no limit); usplits [slots] (several slots only); umask_{i} [M_i, P_i + T_i + M_i].
    Outputs: draft [M] the most probable tokens; confidence [M] their probabilities; nk{l}, nv{l} [1, N, G*D].
    """
    c = drafter.config.target
    source = drafter.config.source
    depth = max(source) + 1
    g = Graph(weights)
    ids, positions = g.input("ids", INT64, [1, "N"]), g.input("pos", INT64, [1, "N"])
    splits = split_input(g, "splits", slots)
    masks = [g.input(f"mask_{i}", FLOAT, [f"T{i}", f"S{i}"]) for i in range(slots)]
    past_keys, past_values = cache_inputs(g, depth, slots, c.kv_heads * c.head_width)
    own_positions = g.input("upos", INT64, [1, "M"])
    own_splits = split_input(g, "usplits", slots)
    own_masks = [g.input(f"umask_{i}", FLOAT, [f"M{i}", f"U{i}"]) for i in range(slots)]
    last, first = g.input("last", INT64, [1, "M"]), g.input("first", FLOAT, [1, "M", 1])
    add_rope(g, c, drafter.config.length)

    x = g.node("Gather", [g.tensor("target.embedding", target.embedding.weight), ids], "embedded")
    context = Stream(g, c, x, positions, slots, splits)
    context_keys, context_values = [], []
    for n, layer in enumerate(target.layers[:depth]):
        name = f"context{n}"
        new = new_rows(g, n)
        if n < depth - 1:
            q = context.project(layer, name, new)
        else:
            context.project_keys(layer, name, new)
        context_keys.append(past_and_new(past_keys[n], context.split(new[0])))
        context_values.append(past_and_new(past_values[n], context.split(new[1])))
        if n < depth - 1:
            context.finish(layer, name, context.attend(q, context_keys[n], context_values[n], masks))

    embedding = g.tensor("embedding", drafter.embedding.weight)
    g.node("Gather", [embedding, last], "last.embedded")
    g.node("Mul", ["last.embedded", first], "last.counted")
    x = g.node("Add", [uniform_embedding(g, drafter), "last.counted"], "u.input")
    own = Stream(g, c, x, own_positions, slots, own_splits)
    for j, layer in enumerate(drafter.layers):
        name = f"own{j}"
        new = (f"{name}.k", f"{name}.v")
        q = own.project(layer, name, new)
        keys, values = (
            [[*seen, mine] for seen, mine in zip(of_context[source[j]], own.split(n), strict=True)]
            for of_context, n in zip((context_keys, context_values), new, strict=True)
        )
        own.finish(layer, name, own.attend(q, keys, values, own_masks))
    g.node("Squeeze", [own.norm("norm", drafter.norm), g.constant([0])], "final")
    g.node("Gemm", ["final", embedding], "logits", transB=1)
    g.node("ArgMax", ["logits"], "draft", axis=1, keepdims=0)
    g.node("Softmax", ["logits"], "probabilities", axis=1)
    g.node("ReduceMax", ["probabilities", g.constant([1])], "confidence", keepdims=0)
    g.output("draft", INT64, ["M"])
    g.output("confidence", FLOAT, ["M"])
    return g


@dataclass(frozen=True)
class Form:
    """Numbers of a model's graphs and weight file, see `WeightFile`."""

    precision: str = "float32"
    storage: str = "float16"


OURS = Form()
"""What our own models are written in."""


def write_graphs(
    target: Target, drafter: Drafter | None, out: pathlib.Path, form: Form, drafter_form: Form
) -> list[str]:
    """Writes all graphs and weight files into `out`; returns their names."""
    weights = WeightFile(out / "target.weights", form.precision, form.storage)
    graphs = {f"target.b{slots}.onnx": target_graph(target, weights, slots) for slots in SLOTS}
    names = [weights.path.name]
    if drafter:
        weights = WeightFile(out / "drafter.weights", drafter_form.precision, drafter_form.storage)
        graphs |= {f"drafter.b{slots}.onnx": drafter_graph(drafter, target, weights, slots) for slots in SLOTS}
        names.append(weights.path.name)
    for name, graph in graphs.items():
        graph.save(out / name)
    return [*names, *graphs]


def write_folder(
    target: Target,
    drafter: Drafter | None,
    tokenizer: bytes,
    out: pathlib.Path,
    identity: str,
    facts: dict,
    form: Form = OURS,
    drafter_form: Form = OURS,
    chat_template: bytes | None = None,
) -> None:
    """Writes a whole model folder, of a target alone without a drafter.

    `facts` are added to the manifest's parts, see `manifest.build`. A chat template that isn't given has to be put there: the
    server needs one.
    """
    if drafter and drafter.config.target != target.config:
        raise SystemExit(f"the drafter was made for a target of {drafter.config.target}, got {target.config}")
    if drafter and drafter.config.coordinates != 1:
        raise SystemExit(f"the sampler takes 1 uniform per position, the drafter {drafter.config.coordinates}")
    out.mkdir(parents=True, exist_ok=True)
    texts = {"tokenizer.json": tokenizer} | ({"chat_template.jinja": chat_template} if chat_template else {})
    for name, text in texts.items():
        (out / name).write_bytes(text)
    with torch.no_grad():
        names = [*texts, *write_graphs(target, drafter, out, form, drafter_form)]
    facts = {**facts, "target": facts.get("target", {}) | asdict(form)}
    if drafter:
        facts["drafter"] = facts["drafter"] | asdict(drafter_form)
    content = manifest.build(target, drafter, out, names, SLOTS, identity, facts)
    (out / "manifest.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf8")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", type=pathlib.Path, default=pathlib.Path("work/target.pt"))
    parser.add_argument("--drafter", type=pathlib.Path, default=pathlib.Path("work/drafter.pt"))
    parser.add_argument(
        "--tokens", type=pathlib.Path, default=pathlib.Path("work/tokens"), help="folder of tokenizer.json"
    )
    parser.add_argument("--evaluation", type=pathlib.Path, default=pathlib.Path("work/evaluation.json"))
    parser.add_argument("--sources", type=pathlib.Path, default=pathlib.Path("work/corpus/sources.json"))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("../models/default"))
    parser.add_argument("--id", required=True, help="name of the pair, as clients see it")
    parser.add_argument(
        "--target-only", action="store_true", help="write a folder without a drafter, for plain decoding"
    )
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="the target's matrix products")
    parser.add_argument("--drafter-precision", choices=PRECISIONS, default="float32", help="the drafter's")
    parser.add_argument(
        "--storage",
        choices=STORAGES,
        help="the target's matrices: rounded to float16, or as they are (default: exact for imported models, else float16)",
    )


def run(args: argparse.Namespace) -> None:
    path = None if args.target_only else args.drafter
    facts = manifest.gather(args.target, path, args.evaluation, args.sources, args.tokens / "tokens.json")
    storage = args.storage or ("exact" if "source" in facts["target"] else "float16")
    template = args.tokens / "chat_template.jinja"
    write_folder(
        load_target(args.target),
        load_drafter(path) if path else None,
        (args.tokens / "tokenizer.json").read_bytes(),
        args.out,
        args.id,
        facts,
        Form(args.precision, storage),
        Form(args.drafter_precision),
        template.read_bytes() if template.exists() else None,
    )
    if "corpus" in facts:
        sources = json.loads(args.sources.read_text())
        (args.out / "LICENCES.md").write_text(manifest.licences(sources), encoding="utf8")
    sizes = {f.name: f.stat().st_size for f in sorted(args.out.iterdir())}
    print(json.dumps({"out": args.out.name, "bytes": sum(sizes.values()), "files": sizes}))
