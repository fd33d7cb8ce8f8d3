"""Writes a model folder for the server: ONNX graphs with their weights, the tokenizer and manifest.json.

Each model has one graph per supported number of slots, and its graphs share one weight file. A large target has a
single graph, whose slots may be empty, because each graph keeps a packed copy of the weights in memory. `target_graph`,
`drafter_graph` and `feature_graph` describe inputs and outputs, and graph.py describes how sequences are packed.
"""

import json
import pathlib
from dataclasses import asdict, dataclass, replace

import torch

from ..model.drafter import Drafter
from ..model.stored_target import AnyTarget
from ..model.transformer import Config, parameters_of
from . import manifest
from .graphs.drafter_graph import drafter_graph
from .graphs.feature_graph import feature_graph
from .graphs.gpu import gpu_target_graph
from .graphs.graph import WeightFile
from .graphs.int8 import NARROW
from .graphs.target_graph import target_graph

SLOTS = (1, 2, 4, 8)
LARGE = 200_000_000
"""Minimum number of parameters of a large target."""
SLOTS_OF_LARGE = (8,)
"""Number of slots of a large target's graph."""
SLOTS_OF_LARGE_DRAFTER = (1, 4)
"""Numbers of slots of the graphs of a large target's drafter."""


@dataclass(frozen=True)
class Form:
    """Number formats of a model's graphs and weight file (see `WeightFile`)."""

    precision: str = "float32"
    storage: str = "float16"


OURS = Form()
"""Number formats of models trained here."""


def write_graphs(
    target: AnyTarget,
    drafter: Drafter | None,
    out: pathlib.Path,
    form: Form,
    drafter_form: Form,
    kind: str,
    counts: dict[str, tuple[int, ...]],
    in_place: bool,
    half_caches: bool,
    device: str,
) -> list[str]:
    """Writes all graphs and weight files into `out` and returns their names.

    counts: numbers of slots of the graphs of `target` and `drafter`. in_place, half_caches: see `target_graph`.
    """
    weights = WeightFile(out / "target.weights", form.precision, form.storage)
    graphs = {
        f"target.b{slots}.onnx": gpu_target_graph(target, weights, slots, kind)
        if device == "gpu"
        else target_graph(target, weights, slots, kind, in_place, half_caches)
        for slots in counts["target"]
    }
    names = [weights.path.name]
    if drafter:
        weights = WeightFile(out / "drafter.weights", drafter_form.precision, drafter_form.storage)
        build = feature_graph if drafter.config.given else drafter_graph
        graphs |= {f"drafter.b{slots}.onnx": build(drafter, target, weights, slots) for slots in counts["drafter"]}
        names.append(weights.path.name)
    for name, graph in graphs.items():
        graph.save(out / name)
    return [*names, *graphs]


def single_rows(c: Config, form: Form) -> bool:
    """Returns true if a graph with caches in place gives a single token the same results as several tokens.

    The matrix products must be in integers, whose sums do not depend on their order, and attention must have several
    query heads for each key, because a product with a single row runs in another kernel.
    """
    return (
        form.precision == "int8" and min(c.width, c.heads * c.head_width, c.hidden) >= NARROW and c.heads > c.kv_heads
    )


def write_folder(
    target: AnyTarget,
    drafter: Drafter | None,
    tokenizer: bytes,
    out: pathlib.Path,
    identity: str,
    facts: dict,
    form: Form = OURS,
    drafter_form: Form = OURS,
    chat_template: bytes | None = None,
    slots: tuple[int, ...] | None = None,
    in_place: bool | None = None,
    device: str = "cpu",
) -> None:
    """Writes a model folder. `drafter` is None if the folder contains only a target.

    slots: numbers of slots for which to write graphs. in_place: see `target_graph`. The defaults depend on the target's
    size. device: `gpu` for a target whose graphs are those of `gpu_target_graph`. facts: see `manifest.build`. The
    server needs a chat template, so callers without `chat_template` have to add the template to the folder.
    """
    if drafter and drafter.config.target != target.config:
        raise SystemExit(f"--drafter must be made for a target with {target.config}, got {drafter.config.target}")
    out.mkdir(parents=True, exist_ok=True)
    texts = {"tokenizer.json": tokenizer} | ({"chat_template.jinja": chat_template} if chat_template else {})
    for name, text in texts.items():
        (out / name).write_bytes(text)
    # "tree" is the drafters' default, so that adding a drafter later does not change texts.
    pick = drafter.config.pick if drafter else "tree"
    large = parameters_of(target) >= LARGE
    in_place = device == "cpu" and (large if in_place is None else in_place)
    counts = {
        "target": slots or (SLOTS_OF_LARGE if large else SLOTS),
        "drafter": slots or (SLOTS_OF_LARGE_DRAFTER if large else SLOTS),
    }
    # Rounding a cache to float16 changes less than the products in int8 do.
    half_caches = in_place and form.precision == "int8" and min(counts["target"]) > 1
    with torch.no_grad():
        graphs = write_graphs(target, drafter, out, form, drafter_form, pick, counts, in_place, half_caches, device)
    names = [*texts, *graphs]
    layout = {"slots": counts["target"]} if counts["target"] != counts["drafter"] else {}
    if device == "gpu":
        layout["device"] = device
    if in_place:
        layout["caches"] = "in_place"
        if single_rows(target.config, form):
            layout["min_rows"] = 1
    if half_caches:
        layout["cache_type"] = "float16"
    facts = {**facts, "target": facts.get("target", {}) | asdict(form) | layout}
    if drafter:
        facts["drafter"] = facts["drafter"] | asdict(drafter_form)
    content = manifest.build(target, drafter, out, names, counts["drafter"], identity, facts, pick)
    (out / "manifest.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf8")


def serve_context(target: AnyTarget, drafter: Drafter | None, context: int) -> None:
    """Sets the maximum length of a served sequence of both models to `context` tokens. No parameter depends on it."""
    target.config = replace(target.config, context=context)
    if drafter:
        own = drafter.config.own and replace(drafter.config.own, context=context)
        drafter.config = replace(drafter.config, target=target.config, own=own)
