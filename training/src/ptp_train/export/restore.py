"""Turns a model folder back into checkpoints, to continue the training of a published pair.

The weights are the same as in the folder: exact if it was exported with --storage exact, or else rounded to float16.
Matrices in int8 are restored as integers times scale, and another export in int8 results in the same integers. If
--tokens already has a tokenizer.json with the same tokens under other ids, the vocabulary is reordered to these ids.
"""

import argparse
import json
import pathlib

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from tokenizers import Tokenizer
from torch import Tensor, nn

from ..cli.settings import require
from ..model.drafter import Drafter, DrafterConfig
from ..model.transformer import Config, Layer, Target, identity, parameters_of, save


class StoredTensors:
    """Returns the parameters of an exported graph in float32, by the names that the graph builder gave them."""

    def __init__(self, path: pathlib.Path):
        self.arrays = {
            t.name.removesuffix(".stored"): numpy_helper.to_array(t)
            for t in onnx.load(path).graph.initializer
            if not t.name.startswith("const_")
        }

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def get(self, name: str) -> Tensor:
        return torch.from_numpy(self.arrays[name].astype(np.float32))

    def integers(self, name: str) -> Tensor:
        return torch.from_numpy(self.arrays[name].copy())

    def matrix(self, name: str) -> Tensor:
        """Returns the matrix of a product in PyTorch's layout, [out, in]."""
        if f"{name}.i8" in self:
            return self.get(f"{name}.i8").T * self.get(f"{name}.scale")[:, None]
        return self.get(name).T

    def head(self, name: str) -> Tensor:
        """Returns an output head [V, width]. Float heads are stored without transposition."""
        return self.matrix(f"{name}.head") if f"{name}.head.i8" in self else self.get(name)

    def fill(self, linear: nn.Linear, name: str) -> None:
        linear.weight.copy_(self.matrix(name))
        if linear.bias is not None:
            linear.bias.copy_(self.get(f"{name}.bias"))

    def fill_layer(self, layer: Layer, name: str) -> None:
        c = layer.c
        queries, keys = c.heads * c.head_width, c.kv_heads * c.head_width
        parts = (layer.q, layer.k, layer.v)
        for part, weight in zip(parts, self.matrix(f"{name}.qkv.weight").split([queries, keys, keys]), strict=True):
            part.weight.copy_(weight)
        if c.qkv_bias:
            for part, bias in zip(parts, self.get(f"{name}.qkv.weight.bias").split([queries, keys, keys]), strict=True):
                part.bias.copy_(bias)
        if c.qk_norm:
            gains = self.get(f"{name}.qk.gains")
            layer.norm_q.weight.copy_(gains[0])
            layer.norm_k.weight.copy_(gains[c.heads])
        for part, weight in zip(
            (layer.gate, layer.up), self.matrix(f"{name}.gate_up.weight").split(c.hidden), strict=True
        ):
            part.weight.copy_(weight)
        self.fill(layer.o, f"{name}.o.weight")
        self.fill(layer.down, f"{name}.down.weight")
        layer.norm_attention.weight.copy_(self.get(f"{name}.norm_attention.weight"))
        layer.norm_mlp.weight.copy_(self.get(f"{name}.norm_mlp.weight"))

    def fill_vocabulary(self, model: Target | Drafter) -> None:
        """Copies embedding, final norm and output head."""
        model.embedding.weight.copy_(self.get("embedding"))
        model.norm.weight.copy_(self.get("norm.weight"))
        if model.output is not None:
            model.output.weight.copy_(self.head("output"))


def config_of(sizes: dict) -> Config:
    return Config(**{**sizes, "rope_scaling": tuple(sizes["rope_scaling"])})


def graph_of(folder: pathlib.Path, part: str) -> pathlib.Path:
    """Returns the path of one of the graphs, which all have the same weights."""
    paths = sorted(folder.glob(f"{part}.b*.onnx"))
    require(bool(paths), f"{folder} must contain {part}.b*.onnx")
    return paths[0]


@torch.no_grad()
def target_of(folder: pathlib.Path) -> Target:
    """Reads the target of a model folder."""
    target = Target(config_of(manifest_of(folder)["sizes"]))
    stored = StoredTensors(graph_of(folder, "target"))
    stored.fill_vocabulary(target)
    for n, layer in enumerate(target.layers):
        stored.fill_layer(layer, f"layer{n}")
    return target.eval()


@torch.no_grad()
def drafter_of(folder: pathlib.Path) -> Drafter:
    """Reads the drafter of a model folder. Parameters that its graph does not use keep their initial values."""
    manifest = manifest_of(folder)
    facts, target = manifest["drafter"], config_of(manifest["sizes"])
    require(
        facts["kind"] != "lora",
        "--from must contain a drafter, and its kind must not be lora, because exporting merges the adapters into the layers",
    )
    shape = {k: facts[k] for k in ("kind", "method", "embedding", "frequencies", "rank", "length")}
    own = config_of(facts["sizes"]) if facts["kind"] == "separate" else None
    shape["shortlist"] = facts.get("shortlist", 0)  # Older folders lack this key.
    stored = StoredTensors(graph_of(folder, "drafter"))
    listed = stored.integers("shortlist") if shape["shortlist"] else None
    config = DrafterConfig(target, tuple(facts["source"]), pick=manifest["pick"], own=own, **shape)
    drafter = Drafter(config, shortlist=listed)
    stored.fill_vocabulary(drafter)
    for n, layer in enumerate(drafter.layers):
        stored.fill_layer(layer, f"own{n}")
    uniform, head = drafter.uniform, drafter.sequential
    stored.fill(uniform.condition, "condition.weight")
    if facts["method"] != "independent":
        uniform.greedy.copy_(stored.get("uniform.greedy"))
        for linear, name in ((uniform.uniform, "uniform"), (uniform.hidden, "hidden")):
            if linear is not None:
                linear.weight.copy_(stored.matrix(f"{name}.weight"))
                linear.bias.copy_(stored.get(f"{name}.bias"))
    if drafter.feature is not None:
        stored.fill(drafter.feature, "feature.weight")
    if head is not None:
        for name in ("from_hidden", "from_token", "from_state", "out"):
            stored.fill(getattr(head, name), f"head.{name}")
    return drafter.eval()


def manifest_of(folder: pathlib.Path) -> dict:
    return json.loads((folder / "manifest.json").read_text(encoding="utf8"))


def order_between(old: Tokenizer, new: Tokenizer) -> Tensor:
    """Returns, for each token of `new` in the order of its ids, the id of the same token in `old`."""
    tokens = new.get_vocab()
    require(old.get_vocab().keys() == tokens.keys(), "--tokens must have the same tokens as --from, in any order")
    return torch.tensor([old.token_to_id(token) for token in sorted(tokens, key=tokens.__getitem__)])


@torch.no_grad()
def reorder(model: Target | Drafter, order: Tensor) -> None:
    """Gives the vocabulary new ids. Row i becomes the old row order[i]."""
    model.embedding.weight.copy_(model.embedding.weight[order].clone())
    if model.output is None:
        return
    if (shortlist := getattr(model, "shortlist", None)) is not None:
        ids, order = order.argsort()[shortlist].sort()
        shortlist.copy_(ids)
    model.output.weight.copy_(model.output.weight[order].clone())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--from", type=pathlib.Path, required=True, help="model folder, for example ../models/default")
    add("--out", type=pathlib.Path, default=pathlib.Path("work/target.pt"), help="the target's checkpoint")
    add("--drafter", type=pathlib.Path, default=pathlib.Path("work/drafter.pt"), help="the drafter's checkpoint")
    add(
        "--tokens",
        type=pathlib.Path,
        default=pathlib.Path("work/tokens"),
        help="folder for tokenizer and chat template; an existing tokenizer.json decides the ids",
    )


def run(args: argparse.Namespace) -> None:
    folder: pathlib.Path = getattr(args, "from")
    manifest = manifest_of(folder)
    args.tokens.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "chat_template.jinja"):
        if (folder / name).exists() and not (args.tokens / name).exists():
            (args.tokens / name).write_bytes((folder / name).read_bytes())
    tokenizers = [Tokenizer.from_file(str(f / "tokenizer.json")) for f in (folder, args.tokens)]
    order = order_between(*tokenizers)
    moved = not torch.equal(order, torch.arange(len(order)))
    target = target_of(folder)
    facts = {k: manifest["target"][k] for k in ("bits_per_byte", "tokens", "source") if k in manifest["target"]}
    if "source" in facts:
        require(not moved, "--tokens must have the same ids as --from, because the model was imported")
        special = ("end_of_text", "stop_tokens", "begin_of_text")
        facts["special_tokens"] = {k: manifest[k] for k in special if k in manifest}
    if moved:
        reorder(target, order)
    save(args.out, "target", target, identity=identity(target), **facts)
    report = {"target": parameters_of(target)}
    if "drafter" in manifest:
        drafter = drafter_of(folder)
        if moved:
            reorder(drafter, order)
        origin = {"target_identity": identity(target), "trained_for": manifest.get("sampling", {}).get("trained_for")}
        save(args.drafter, "drafter", drafter, **origin)
        report["drafter"] = parameters_of(drafter)
    print(json.dumps(report | {"vocabulary": "reordered" if moved else "as it was"}))
