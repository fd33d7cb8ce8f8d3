"""Writes a model folder for the server: ONNX graphs with their weights, the tokenizer and manifest.json.

Per model there is one graph for each of some numbers of slots; they share one weight file. See graph.py for how a run is
packed; what the graphs take and give stands at `target_graph`, `drafter_graph` and `feature_graph`.
"""

import argparse
import json
import pathlib
from dataclasses import asdict, dataclass, replace

import torch

from ..cli.settings import integer, integers, require
from ..model.drafter import Drafter, load_drafter
from ..model.transformer import Target, load_target, parameters_of
from . import manifest
from .graphs.adjust import adjusted, nearest
from .graphs.cache import context_inputs, context_rows, new_rows
from .graphs.drafter_graph import drafter_graph
from .graphs.feature_graph import feature_graph
from .graphs.graph import FLOAT, INT64, Graph, Stream, WeightFile, add_rope
from .graphs.sampler import sampler
from .graphs.weight_file import BATCH_INVARIANT, PRECISIONS, STORAGES

SLOTS = (1, 2, 4, 8)
LARGE = 200_000_000
"""Parameters from which there are graphs for SLOTS_OF_LARGE only: each holds a copy of the weights in memory as its kernels
want them."""
SLOTS_OF_LARGE = (1, 4)


def target_graph(target: Target, weights: WeightFile, slots: int, kind: str) -> Graph:
    """The target over N packed tokens of `slots` sequences, with the sampler at R chosen rows.

    Inputs: ids, pos [1, N]; splits [slots], tokens per slot (graphs with several slots only); mask_{i} [T_i, P_i + T_i],
    added to the scores; pk, pv (`context_inputs`); rows [R], the tokens after which a pick is wanted, R >= 2 because one
    row alone would run other kernels (batch invariance); scale, bias [R, V] or [0, V] (`adjusted`); temperature, top_k, top_p,
    min_p [R, 1]; u [R, D] for Pick `kind`; top_count [1].
    Outputs: pick [R]; logprob [R], natural log of its probability under the unshaped model; top_id, top_logprob
    [R, top_count], the most probable tokens under that; nk{l}, nv{l} [1, N, G*D].
    """
    c = target.config
    g = Graph(weights)
    given = context_inputs(g, c.layers, slots, c.kv_heads * c.head_width)
    rows = g.input("rows", INT64, ["R"])
    add_rope(g, c, 1)  # the last is for the padding after a full context

    embedding = g.tensor("embedding", target.embedding.weight)
    x = g.node("Gather", [embedding, given.ids], "embedded")
    stream = Stream(g, c, x, given.positions, slots, given.splits)
    for n, layer in enumerate(target.layers):
        name = f"layer{n}"
        new = new_rows(g, n)
        q = stream.project(layer, name, new)
        attended = stream.attend(q, *context_rows(stream, new, given, n), given.masks)
        if n == c.layers - 1:  # from here on only the rows that picks are wanted for
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


@dataclass(frozen=True)
class Form:
    """Numbers of a model's graphs and weight file, see `WeightFile`."""

    precision: str = "float32"
    storage: str = "float16"


OURS = Form()
"""What our own models are written in."""


def write_graphs(
    target: Target,
    drafter: Drafter | None,
    out: pathlib.Path,
    form: Form,
    drafter_form: Form,
    kind: str,
    counts: tuple[int, ...],
) -> list[str]:
    """Writes all graphs and weight files into `out`; returns their names."""
    weights = WeightFile(out / "target.weights", form.precision, form.storage)
    graphs = {f"target.b{slots}.onnx": target_graph(target, weights, slots, kind) for slots in counts}
    names = [weights.path.name]
    if drafter:
        weights = WeightFile(out / "drafter.weights", drafter_form.precision, drafter_form.storage)
        build = feature_graph if drafter.config.given else drafter_graph
        graphs |= {f"drafter.b{slots}.onnx": build(drafter, target, weights, slots) for slots in counts}
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
    slots: tuple[int, ...] | None = None,
) -> None:
    """Writes a whole model folder, of a target alone without a drafter.

    slots: the numbers of sequences that there are graphs for, 1 among them; by the target's size unless given.
    `facts` are added to the manifest's parts, see `manifest.build`. A chat template that isn't given has to be put there: the
    server needs one.
    """
    if drafter and drafter.config.target != target.config:
        raise SystemExit(f"the drafter was made for a target of {drafter.config.target}, got {target.config}")
    out.mkdir(parents=True, exist_ok=True)
    texts = {"tokenizer.json": tokenizer} | ({"chat_template.jinja": chat_template} if chat_template else {})
    for name, text in texts.items():
        (out / name).write_bytes(text)
    pick = drafter.config.pick if drafter else "tree"  # as a later drafter will have it, so that texts stay the same
    counts = slots or (SLOTS if parameters_of(target) < LARGE else SLOTS_OF_LARGE)
    with torch.no_grad():
        names = [*texts, *write_graphs(target, drafter, out, form, drafter_form, pick, counts)]
    facts = {**facts, "target": facts.get("target", {}) | asdict(form)}
    if drafter:
        facts["drafter"] = facts["drafter"] | asdict(drafter_form)
    content = manifest.build(target, drafter, out, names, counts, identity, facts, pick)
    (out / "manifest.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf8")


def serve_context(target: Target, drafter: Drafter | None, context: int) -> None:
    """Lets both be served with sequences of up to `context` tokens; their parameters don't depend on it."""
    target.config = replace(target.config, context=context)
    if drafter:
        own = drafter.config.own and replace(drafter.config.own, context=context)
        drafter.config = replace(drafter.config, target=target.config, own=own)


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
    parser.add_argument(
        "--target-precision", choices=BATCH_INVARIANT, default="float32", help="of the target's products"
    )
    parser.add_argument(
        "--drafter-precision",
        choices=PRECISIONS,
        default="float32",
        help="of the drafter's; int8-fused is the fastest, and has one scale for all rows of a product",
    )
    parser.add_argument(
        "--slots",
        type=integers(1, 64),
        help="numbers of sequences that there are graphs for (default: 1,2,4,8; from 200 M parameters on 1,4)",
    )
    parser.add_argument(
        "--context",
        type=integer(2, 131_072),
        help="longest sequence to serve, in tokens; beyond what the target was trained for it extrapolates (default: as trained)",
    )
    parser.add_argument(
        "--storage",
        choices=STORAGES,
        help="the target's matrices: rounded to float16, or as they are (default: exact for imported models, else float16)",
    )


def check(args: argparse.Namespace) -> None:
    counts = args.slots
    fine = counts is None or (counts[0] == 1 and list(counts) == sorted(set(counts)))
    require(fine, f"--slots must rise from 1, got {','.join(map(str, counts or ()))}")


def run(args: argparse.Namespace) -> None:
    path = None if args.target_only else args.drafter
    facts = manifest.gather(args.target, path, args.evaluation, args.sources, args.tokens / "tokens.json")
    storage = args.storage or ("exact" if "source" in facts["target"] else "float16")
    template = args.tokens / "chat_template.jinja"
    target, drafter = load_target(args.target), load_drafter(path) if path else None
    passes = drafter.config.passes if drafter else 1
    require(passes == 1, f"--drafter must have been trained with --passes 1 to be exported, got {passes}")
    if args.context:
        serve_context(target, drafter, args.context)
    write_folder(
        target,
        drafter,
        (args.tokens / "tokenizer.json").read_bytes(),
        args.out,
        args.id,
        facts,
        Form(args.target_precision, storage),
        Form(args.drafter_precision),
        template.read_bytes() if template.exists() else None,
        args.slots,
    )
    if "corpus" in facts:
        sources = json.loads(args.sources.read_text())
        (args.out / "LICENCES.md").write_text(manifest.licences(sources), encoding="utf8")
    sizes = {f.name: f.stat().st_size for f in sorted(args.out.iterdir())}
    print(json.dumps({"out": args.out.name, "bytes": sum(sizes.values()), "files": sizes}))
