"""Building blocks of the exported ONNX graphs: a thin builder, the weight file, and a transformer over packed sequences.

A run holds the tokens of several sequences ("slots") one after the other, N in all, and every activation is [1, N, ...].
Slot i's keys and values of earlier tokens come in as its past [1, P_i, G*D] per layer, of exactly as many rows as hold; only
the rows of the new tokens go out. So the host appends by copying a few rows and rolls back by passing fewer.
"""

import pathlib

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper

from .model import EPSILON, Config, Layer, RMSNorm, rope_tables

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
CONTRIB = "com.microsoft"
ALIGNMENT = 4096
"""Tensors in a weight file start at multiples of this many bytes, so that they can be mapped."""


class WeightFile:
    """The big tensors of a model, which all its graphs refer to (ONNX external data). Equal names are stored once."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.tensors: dict[str, TensorProto] = {}
        path.write_bytes(b"")

    def add(self, name: str, array: np.ndarray) -> TensorProto:
        if name not in self.tensors:
            data = np.ascontiguousarray(array).tobytes()
            with self.path.open("ab") as f:
                f.write(b"\0" * (-f.tell() % ALIGNMENT))
                offset = f.tell()
                f.write(data)
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            tensor = TensorProto(name=name, data_type=kind, dims=array.shape, data_location=TensorProto.EXTERNAL)
            for key, value in (("location", self.path.name), ("offset", offset), ("length", len(data))):
                tensor.external_data.add(key=key, value=str(value))
            self.tensors[name] = tensor
        return self.tensors[name]


class Graph:
    """Collects nodes, inputs, outputs and constants. Values are named by strings, as in ONNX."""

    def __init__(self, weights: WeightFile):
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.initializers: dict[str, TensorProto] = {}
        self.parent: Graph | None = None

    def input(self, name: str, kind: int, shape: list) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, name: str, kind: int, shape: list) -> None:
        """Makes the value `name` an output of the graph."""
        self.outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def node(self, op: str, inputs: list[str], outputs: str | list[str], domain: str = "", **attributes):
        names = [outputs] if isinstance(outputs, str) else outputs
        self.nodes.append(helper.make_node(op, inputs, names, name=f"{op}:{names[0]}", domain=domain, **attributes))
        return outputs

    def constant(self, value, kind: type = np.int64) -> str:
        """A small constant, kept inside the graph; the same value gives the same name."""
        if self.parent:
            return self.parent.constant(value, kind)
        array = np.asarray(value, kind)
        name = f"const_{array.dtype}_{array.shape}_{array.tolist()}".replace(" ", "")[:120]
        stored = onnx.numpy_helper.from_array(array, name)
        if self.initializers.setdefault(name, stored) != stored:
            raise ValueError(f"two constants are named {name}")
        return name

    def named(self, name: str, array: np.ndarray) -> str:
        """A constant of some size, kept inside the graph under a name of its own; equal names must be equal constants."""
        if self.parent:
            return self.parent.named(name, array)
        self.initializers.setdefault(name, onnx.numpy_helper.from_array(array, name))
        return name

    def tensor(self, name: str, value: torch.Tensor) -> str:
        """A parameter: in the graph if it is a vector, else in the weight file as float16 with a Cast to float32.

        onnxruntime folds the Cast when it loads the model, so that it computes, and packs its matrices, in float32.
        """
        if name in self.initializers or f"{name}.f16" in self.initializers:
            return name
        array = value.detach().numpy()
        if array.ndim < 2:
            self.initializers[name] = onnx.numpy_helper.from_array(array.astype(np.float32), name)
            return name
        half = array.astype(np.float16)
        if not np.isfinite(half).all():
            raise ValueError(f"{name} does not fit float16: largest magnitude {np.abs(array).max()}")
        self.initializers[f"{name}.f16"] = self.weights.add(f"{name}.f16", half)
        return self.node("Cast", [f"{name}.f16"], name, to=FLOAT)

    def table(self, name: str, value: torch.Tensor) -> str:
        """A float32 matrix in the weight file."""
        if name not in self.initializers:
            self.initializers[name] = self.weights.add(name, value.detach().numpy().astype(np.float32))
        return name

    def linear(self, name: str, x: str, weight: torch.Tensor, out: str) -> str:
        """x [..., in] -> [..., out]; `weight` is [out, in], as PyTorch has it."""
        return self.node("MatMul", [x, self.tensor(name, weight.detach().T)], out)

    def choose(self, condition: str, out: str, then, otherwise: str, kind: int = INT64) -> str:
        """ONNX If with one result: `then(subgraph)` names its value where the scalar `condition` holds, else `otherwise`."""
        branches = []
        for side in ("then", "else"):
            sub = Graph(self.weights)
            sub.parent = self
            value = then(sub) if side == "then" else otherwise
            name = sub.node("Identity", [value], f"{out}_{side}")
            info = helper.make_tensor_value_info(name, kind, None)
            branches.append(helper.make_graph(sub.nodes, f"{out}_{side}", [], [info]))
        return self.node("If", [condition], out, then_branch=branches[0], else_branch=branches[1])

    def save(self, path: pathlib.Path) -> None:
        graph = helper.make_graph(self.nodes, path.name, self.inputs, self.outputs, list(self.initializers.values()))
        opsets = [helper.make_opsetid("", 23), helper.make_opsetid(CONTRIB, 1)]
        model = helper.make_model(graph, opset_imports=opsets, producer_name="ptp-train", ir_version=11)
        onnx.save(model, path)


class Stream:
    """The residual stream of one transformer over packed tokens [1, N, width].

    Every `norm` also adds what the last block contributed, because onnxruntime has one kernel for both.
    """

    def __init__(self, graph: Graph, config: Config, x: str, positions: str, slots: int, splits: str | None):
        self.graph, self.config = graph, config
        self.x, self.positions = x, positions
        self.slots, self.splits = slots, splits
        self.contribution: str | None = None

    def norm(self, name: str, norm: RMSNorm) -> str:
        g = self.graph
        gamma = g.tensor(f"{name}.weight", norm.weight)
        if self.contribution is None:
            return g.node("SimplifiedLayerNormalization", [self.x, gamma], name, axis=-1, epsilon=EPSILON, stash_type=1)
        inputs = [self.x, self.contribution, gamma]
        self.x, self.contribution = f"{name}.sum", None
        outputs = [name, "", "", self.x]
        g.node("SkipSimplifiedLayerNormalization", inputs, outputs, CONTRIB, epsilon=EPSILON)
        return name

    def split(self, x: str) -> list[str]:
        """The slots' parts of x [1, N, *]."""
        if self.slots == 1:
            return [x]
        return self.graph.node("Split", [x, self.splits], [f"{x}.{i}" for i in range(self.slots)], axis=1)

    def join(self, parts: list[str], out: str) -> str:
        return parts[0] if self.slots == 1 else self.graph.node("Concat", parts, out, axis=1)

    def rotate(self, x: str, heads: int, out: str) -> str:
        inputs = [x, self.positions, "rope.cos", "rope.sin"]
        return self.graph.node("RotaryEmbedding", inputs, out, CONTRIB, num_heads=heads, interleaved=0)

    def project(self, layer: Layer, name: str, new: tuple[str, str]) -> str:
        """Queries [1, N, H*D] of a layer, and under the two names `new` its keys and values [1, N, G*D]; one matrix for
        all three. Queries and keys are rotated."""
        g, c = self.graph, self.config
        y = self.norm(f"{name}.norm_attention", layer.norm_attention)
        weight = torch.cat([layer.q.weight, layer.k.weight, layer.v.weight])
        g.linear(f"{name}.qkv.weight", y, weight, f"{name}.qkv")
        queries, keys = c.heads * c.head_width, c.kv_heads * c.head_width
        sizes = g.constant([queries + keys, keys])
        g.node("Split", [f"{name}.qkv", sizes], [f"{name}.qk", new[1]], axis=-1)
        rotated = self.rotate(f"{name}.qk", c.heads + c.kv_heads, f"{name}.qk.rotated")
        g.node("Split", [rotated, g.constant([queries, keys])], [f"{name}.q", new[0]], axis=-1)
        return f"{name}.q"

    def project_keys(self, layer: Layer, name: str, new: tuple[str, str]) -> None:
        """`project` without the queries, for the last layer of a context stream."""
        g, c = self.graph, self.config
        y = self.norm(f"{name}.norm_attention", layer.norm_attention)
        g.linear(f"{name}.kv.weight", y, torch.cat([layer.k.weight, layer.v.weight]), f"{name}.kv")
        size = c.kv_heads * c.head_width
        sizes = g.constant([size, size])
        g.node("Split", [f"{name}.kv", sizes], [f"{name}.k.plain", new[1]], axis=-1)
        self.rotate(f"{name}.k.plain", c.kv_heads, new[0])

    def attend(self, queries: str, keys: list[list[str]], values: list[list[str]], masks: list[str]) -> str:
        """Attention [1, N, H*D], slot by slot: the parts of each slot's keys [1, *, G*D] and values stand in a row;
        its mask is [T_i, S_i] and is added to the scores."""
        g, c = self.graph, self.config
        attended = []
        for i, q in enumerate(self.split(queries)):
            k = g.node("Concat", keys[i], f"{queries}.keys{i}", axis=1)
            v = g.node("Concat", values[i], f"{queries}.values{i}", axis=1)
            out = f"{queries}.attended{i}"
            heads = {"q_num_heads": c.heads, "kv_num_heads": c.kv_heads}
            attended.append(g.node("Attention", [q, k, v, masks[i]], out, **heads))
        return self.join(attended, f"{queries}.attended")

    def finish(self, layer: Layer, name: str, attended: str) -> None:
        """Output projection and SwiGLU."""
        g, hidden = self.graph, self.config.hidden
        self.contribution = g.linear(f"{name}.o.weight", attended, layer.o.weight, f"{name}.o")
        y = self.norm(f"{name}.norm_mlp", layer.norm_mlp)
        weight = torch.cat([layer.gate.weight, layer.up.weight])
        g.linear(f"{name}.gate_up.weight", y, weight, f"{name}.gate_up")
        sizes = g.constant([hidden, hidden])
        g.node("Split", [f"{name}.gate_up", sizes], [f"{name}.gate", f"{name}.up"], axis=-1)
        g.node("QuickGelu", [f"{name}.gate"], f"{name}.silu", CONTRIB, alpha=1.0)
        g.node("Mul", [f"{name}.silu", f"{name}.up"], f"{name}.gated")
        self.contribution = g.linear(f"{name}.down.weight", f"{name}.gated", layer.down.weight, f"{name}.down")


def add_rope(graph: Graph, config: Config, extra: int) -> None:
    """The rotary tables for positions 0 .. context + extra - 1."""
    cos, sin = rope_tables(torch.arange(config.context + extra), config)
    graph.table("rope.cos", cos)
    graph.table("rope.sin", sin)


def split_input(graph: Graph, name: str, slots: int) -> str | None:
    """Tokens per slot, an input of graphs with several slots."""
    return graph.input(name, INT64, [slots]) if slots > 1 else None
