"""Building blocks of the exported ONNX graphs: a thin builder, and a transformer over packed sequences.

A run packs the N tokens of several sequences ("slots") one after the other, and every activation is [1, N, ...]. Slot
i's cached keys and values are an input [1, P_i, G*D] per layer that has exactly the valid rows. Only the rows of new
tokens are outputs. The host appends to a cache by copying these rows, and rolls back by passing fewer rows.
"""

import pathlib
from collections.abc import Callable

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper

from ...model.transformer import Config, Layer, RMSNorm, rope_tables
from .int8 import NARROW, fused_linear, integer_linear, stored_channels
from .weight_file import WeightFile

FLOAT, FLOAT16, BOOL = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BOOL
INT32, INT64 = TensorProto.INT32, TensorProto.INT64
CONTRIB = "com.microsoft"


class Graph:
    """Collects nodes, inputs, outputs and constants. Values are strings, as in ONNX.

    The body of an If or a Loop has the outer graph as `parent`, which holds the body's constants and parameters. The
    Cast nodes of the parameters are then outside the body, where onnxruntime can fold them.

    on_gpu: all nodes must have kernels in onnxruntime's WebGPU provider, which does not compute with int64.
    """

    def __init__(self, weights: WeightFile, parent: "Graph | None" = None, on_gpu: bool = False):
        self.weights, self.parent, self.on_gpu = weights, parent, on_gpu
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.initializers: dict[str, TensorProto] = parent.initializers if parent else {}
        self.quantised: set[str] = set()

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
        """Adds a small constant to the graph. Equal values share one name."""
        array = np.asarray(value, kind)
        name = f"const_{array.dtype}_{array.shape}_{array.tolist()}".replace(" ", "")[:120]
        stored = onnx.numpy_helper.from_array(array, name)
        if self.initializers.setdefault(name, stored) != stored:
            raise ValueError(f"two constants are named {name}")
        return name

    def named(self, name: str, array: np.ndarray) -> str:
        """Adds a larger constant to the graph. Equal names must mean equal constants."""
        self.initializers.setdefault(name, onnx.numpy_helper.from_array(array, name))
        return name

    def tensor(self, name: str, value: torch.Tensor) -> str:
        """Adds a parameter. Vectors are in the graph. Matrices are in the weight file, in their storage type with a
        Cast to float32.

        onnxruntime folds the Cast when it loads the model, so it computes in float32.
        """
        if self.parent:
            return self.parent.tensor(name, value)
        stored = f"{name}.stored"
        if name in self.initializers or stored in self.initializers:
            return name
        if value.ndim < 2:
            self.initializers[name] = onnx.numpy_helper.from_array(value.detach().float().numpy(), name)
            return name
        kind = self.weights.storage_type(name, value)
        if kind == torch.float32:
            return self.table(name, value)
        self.initializers[stored] = self.weights.add(stored, value, kind)
        return self.node("Cast", [stored], name, to=FLOAT)

    def gather(self, name: str, value: torch.Tensor, ids: str, out: str) -> str:
        """Returns rows of a matrix parameter. Only these rows are cast to float32, so that a large embedding stays in
        the weight file.
        """
        name = self.tensor(name, value)
        if self.on_gpu or f"{name}.stored" not in self.initializers:
            return self.node("Gather", [name, ids], out)
        return self.node("Cast", [self.node("Gather", [f"{name}.stored", ids], f"{out}.stored")], out, to=FLOAT)

    def table(self, name: str, value: torch.Tensor) -> str:
        """Adds a float32 matrix in the weight file."""
        if name not in self.initializers:
            self.initializers[name] = self.weights.add(name, value, torch.float32)
        return name

    def linear(self, name: str, x: str, weight: torch.Tensor, out: str, bias: torch.Tensor | None = None) -> str:
        """Maps x [..., in] to [..., out] by `weight` [out, in], which is stored as `name`."""
        product = out if bias is None else f"{out}.unbiased"
        if in_integers := self.integer_form(weight):
            in_integers(self, name, x, weight, product)
        else:
            self.node("MatMul", [x, self.tensor(name, weight.detach().T)], product)
        return out if bias is None else self.node("Add", [product, self.tensor(f"{name}.bias", bias)], out)

    def store(self, name: str, weight: torch.Tensor) -> None:
        """Adds the matrix of `linear` without a product."""
        if self.integer_form(weight):
            stored_channels(self, name, weight)
        else:
            self.tensor(name, weight.detach().T)

    def head(self, name: str, x: str, weight: torch.Tensor, out: str) -> str:
        """Applies `linear` to rows x [R, in]. A float weight is not transposed, so that an embedding can also be the
        head.
        """
        if in_integers := self.integer_form(weight):
            return in_integers(self, f"{name}.head", x, weight, out)
        return self.node("Gemm", [x, self.tensor(name, weight)], out, transB=1)

    def integer_form(self, weight: torch.Tensor) -> Callable | None:
        """Adds the product by `weight` in integers. Returns None if the product stays in floats."""
        forms = {"int8": integer_linear, "int8-fused": fused_linear}
        return forms.get(self.weights.precision) if weight.shape[1] >= NARROW else None

    def choose(self, condition: str, out: str, then, otherwise: str, kind: int = INT64) -> str:
        """Adds an ONNX If with one result: `then(subgraph)` if the scalar `condition` is true, and else `otherwise`, a
        value of this graph or a function like `then`.
        """
        branches = []
        for side, build in (("then", then), ("else", otherwise)):
            sub = Graph(self.weights, self)
            value = build(sub) if callable(build) else build
            name = sub.node("Identity", [value], f"{out}_{side}")
            info = helper.make_tensor_value_info(name, kind, None)
            branches.append(helper.make_graph(sub.nodes, f"{out}_{side}", [], [info]))
        return self.node("If", [condition], out, then_branch=branches[0], else_branch=branches[1])

    def include(self, inner: "Graph", prefix: str, values: dict[str, str]) -> None:
        """Adds the nodes of `inner`, whose `parent` is this graph. The names of its values get the prefix, except for
        names in `values`, which maps them to values of this graph.
        """

        def renamed(name: str) -> str:
            return values.get(name) or (name if not name or name in self.initializers else prefix + name)

        def rename(nodes) -> None:
            for node in nodes:
                node.name = prefix + node.name
                for names in (node.input, node.output):
                    names[:] = [renamed(name) for name in names]
                for attribute in node.attribute:
                    if attribute.type == onnx.AttributeProto.GRAPH:
                        rename(attribute.g.node)
                        for value in (*attribute.g.input, *attribute.g.output):
                            value.name = renamed(value.name)

        rename(inner.nodes)
        self.nodes += inner.nodes

    def save(self, path: pathlib.Path) -> None:
        graph = helper.make_graph(self.nodes, path.name, self.inputs, self.outputs, list(self.initializers.values()))
        opsets = [helper.make_opsetid("", 23), helper.make_opsetid(CONTRIB, 1)]
        model = helper.make_model(graph, opset_imports=opsets, producer_name="ptp-train", ir_version=11)
        onnx.save(model, path)


class Stream:
    """Builds the nodes of a transformer over packed tokens [1, N, width]. They share one residual stream.

    `norm` also adds the output of the preceding attention or MLP sublayer to the residual stream, because onnxruntime
    has a single fused kernel for the addition and the norm.
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
            inputs, settings = [self.x, gamma], {"axis": -1, "epsilon": norm.epsilon, "stash_type": 1}
            return g.node("SimplifiedLayerNormalization", inputs, name, **settings)
        inputs = [self.x, self.contribution, gamma]
        self.x, self.contribution = f"{name}.sum", None
        outputs = [name, "", "", self.x]
        g.node("SkipSimplifiedLayerNormalization", inputs, outputs, CONTRIB, epsilon=norm.epsilon)
        return name

    def split(self, x: str) -> list[str]:
        """Returns each slot's part of x [1, N, *]."""
        if self.slots == 1:
            return [x]
        return self.graph.node("Split", [x, self.splits], [f"{x}.{i}" for i in range(self.slots)], axis=1)

    def join(self, parts: list[str], out: str) -> str:
        return parts[0] if self.slots == 1 else self.graph.node("Concat", parts, out, axis=1)

    def rotate(self, x: str, heads: int, out: str) -> str:
        inputs = [x, self.positions, "rope.cos", "rope.sin"]
        return self.graph.node("RotaryEmbedding", inputs, out, CONTRIB, num_heads=heads, interleaved=0)

    def project(self, layer: Layer, name: str, new: tuple[str, str]) -> str:
        """Returns the rotated queries [1, N, H*D] of a layer. Defines its rotated keys and its values [1, N, G*D] under
        the two names in `new`. One product computes queries, keys and values.
        """
        g, c = self.graph, self.config
        y = self.norm(f"{name}.norm_attention", layer.norm_attention)
        weight, bias = stacked(layer.q, layer.k, layer.v)
        g.linear(f"{name}.qkv.weight", y, weight, f"{name}.qkv", bias)
        queries, keys = c.heads * c.head_width, c.kv_heads * c.head_width
        sizes = g.constant([queries + keys, keys])
        g.node("Split", [f"{name}.qkv", sizes], [f"{name}.qk", new[1]], axis=-1)
        qk = self.norm_heads(f"{name}.qk", [(layer.norm_q, c.heads), (layer.norm_k, c.kv_heads)])
        rotated = self.rotate(qk, c.heads + c.kv_heads, f"{name}.qk.rotated")
        g.node("Split", [rotated, g.constant([queries, keys])], [f"{name}.q", new[0]], axis=-1)
        return f"{name}.q"

    def project_keys(self, layer: Layer, name: str, new: tuple[str, str]) -> None:
        """Does the same as `project`, but without queries, for the last layer of a context stream."""
        g, c = self.graph, self.config
        y = self.norm(f"{name}.norm_attention", layer.norm_attention)
        weight, bias = stacked(layer.k, layer.v)
        g.linear(f"{name}.kv.weight", y, weight, f"{name}.kv", bias)
        size = c.kv_heads * c.head_width
        sizes = g.constant([size, size])
        g.node("Split", [f"{name}.kv", sizes], [f"{name}.k.plain", new[1]], axis=-1)
        self.rotate(self.norm_heads(f"{name}.k.plain", [(layer.norm_k, c.kv_heads)]), c.kv_heads, new[0])

    def norm_heads(self, x: str, norms: list[tuple[RMSNorm | None, int]]) -> str:
        """Normalises each head of x [1, N, heads * D]; `norms` lists RMSNorms with their numbers of heads."""
        norm = norms[0][0]
        if norm is None:
            return x
        g, width = self.graph, self.config.head_width
        g.node("Reshape", [x, g.constant([0, 0, -1, width])], f"{x}.heads")
        inputs = [f"{x}.heads", g.constant([1.0] * width, np.float32)]
        g.node("SimplifiedLayerNormalization", inputs, f"{x}.unit", axis=-1, epsilon=norm.epsilon, stash_type=1)
        gains = torch.cat([norm.weight.expand(heads, -1) for norm, heads in norms])
        g.node("Mul", [f"{x}.unit", g.table(f"{x}.gains", gains)], f"{x}.scaled")
        return g.node("Reshape", [f"{x}.scaled", g.constant([0, 0, -1])], f"{x}.normed")

    def attend(self, queries: str, keys: list[list[str]], values: list[list[str]], masks: list[str]) -> str:
        """Returns the attention [1, N, H*D], computed slot by slot.

        The parts of a slot's keys and values [1, *, G*D] are concatenated, and the slot's mask [T_i, S_i] is added to
        the scores.
        """
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
        """Adds the output projection and SwiGLU."""
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


def stacked(*parts: torch.nn.Linear) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Returns weight and bias (None without biases) of the linear map that concatenates the results of all parts."""
    bias = None if parts[0].bias is None else torch.cat([part.bias for part in parts])
    return torch.cat([part.weight for part in parts]), bias


def add_rope(graph: Graph, config: Config, extra: int) -> None:
    """Adds the rotary tables for positions 0 .. context + extra - 1."""
    cos, sin = rope_tables(torch.arange(config.context + extra), config)
    graph.table("rope.cos", cos)
    graph.table("rope.sin", sin)


def split_input(graph: Graph, name: str, slots: int) -> str | None:
    """Adds the input `splits`, the number of tokens per slot. Only graphs with several slots have it."""
    return graph.input(name, INT64, [slots]) if slots > 1 else None
