"""Writes a model folder for the server: ONNX graphs with their weights, the tokenizer and manifest.json.

Per model there is one graph for each of some numbers of slots; they share one weight file. See graph.py for how a run is
packed; what the graphs take and give stands at `target_graph`, `drafter_graph` and `feature_graph`.
"""

import json
import pathlib
from dataclasses import asdict, dataclass, replace

import torch

from ..model.drafter import Drafter
from ..model.transformer import Target, parameters_of
from . import manifest
from .graphs.drafter_graph import drafter_graph
from .graphs.feature_graph import feature_graph
from .graphs.graph import WeightFile
from .graphs.target_graph import target_graph

SLOTS = (1, 2, 4, 8)
LARGE = 200_000_000
"""Parameters from which there are graphs for SLOTS_OF_LARGE only: each holds a copy of the weights in memory as its kernels
want them."""
SLOTS_OF_LARGE = (1, 4)


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
