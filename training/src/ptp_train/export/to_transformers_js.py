"""Writes a target for transformers.js: a Hugging Face folder whose weights are in onnx/model.onnx."""

import pathlib

import numpy as np
import torch
from onnx import TensorProto

from ..model.transformer import Target
from .graphs.graph import CONTRIB, FLOAT, INT64, Graph, Stream, WeightFile, add_rope
from .portable import PortableTarget, hf_config, write_json

INT32 = TensorProto.INT32
END = np.iinfo(np.int64).max
"""Index beyond the end of any dimension, for Slice."""
BATCH = "batch_size"
"""Name by which transformers.js recognises this dimension of an empty cache."""


def generation_graph(target: Target, weights: WeightFile) -> Graph:
    """Returns the graph over B sequences of T new tokens and P cached tokens, with G key/value heads of width D.

    Inputs: input_ids [B, T]; attention_mask [B, P + T], all ones; num_logits_to_keep, the number of last tokens that
    get logits, where 0 means all tokens; past_key_values.N.key and .value [B, G, P, D].
    Outputs: logits [B, kept, V]; present.N.key and .value [B, G, P + T, D].
    """
    c = target.config
    g = Graph(weights)
    g.input("input_ids", INT64, [BATCH, "T"])
    g.input("attention_mask", INT64, [BATCH, "P+T"])
    g.input("num_logits_to_keep", INT64, [])
    add_rope(g, c, 1)
    lengths(g)
    embedded = g.node("Gather", [g.tensor("embedding", target.embedding.weight), "input_ids"], "embedded")
    stream = Stream(g, c, embedded, "positions", 1, None)
    for n, layer in enumerate(target.layers):
        name = f"layer{n}"
        q = stream.project(layer, name, (f"{name}.k", f"{name}.v"))
        shape = [c.kv_heads, "P", c.head_width]
        past = [g.input(f"past_key_values.{n}.{part}", FLOAT, [BATCH, *shape]) for part in ("key", "value")]
        inputs = [q, f"{name}.k", f"{name}.v", *past, "seqlens_k", "total_sequence_length"]
        present = [f"present.{n}.{part}" for part in ("key", "value")]
        heads = {"num_heads": c.heads, "kv_num_heads": c.kv_heads}
        g.node("GroupQueryAttention", inputs, [f"{name}.attended", *present], CONTRIB, **heads)
        stream.finish(layer, name, f"{name}.attended")
        for part in present:
            g.output(part, FLOAT, [BATCH, c.kv_heads, "P+T", c.head_width])
    logits(g, stream.norm("norm", target.norm), target)
    g.outputs.insert(0, g.outputs.pop())
    return g


def lengths(g: Graph) -> None:
    """Adds GroupQueryAttention's inputs seqlens_k [B] = P + T - 1 and total_sequence_length = P + T, and positions [B,
    T].
    """
    one = g.constant([1])
    g.node("ReduceSum", ["attention_mask", one], "lengths", keepdims=0)
    g.node("Sub", ["lengths", one], "lengths.last")
    g.node("Cast", ["lengths.last"], "seqlens_k", to=INT32)
    g.node("Shape", ["attention_mask"], "mask.size", start=1, end=2)
    g.node("Squeeze", ["mask.size"], "total")
    g.node("Cast", ["total"], "total_sequence_length", to=INT32)
    g.node("Shape", ["input_ids"], "ids.shape")
    g.node("Gather", ["ids.shape", g.constant(1)], "new")
    g.node("Sub", ["total", "new"], "past")
    g.node("Range", ["past", "total", g.constant(1)], "positions.row")
    g.node("Expand", ["positions.row", "ids.shape"], "positions")


def logits(g: Graph, x: str, target: Target) -> None:
    """Adds the output head over the last rows of x [B, T, width]."""
    c = target.config
    g.node("Unsqueeze", ["num_logits_to_keep", g.constant([0])], "kept")
    g.node("Neg", ["kept"], "kept.start")
    g.node("Slice", [x, "kept.start", g.constant([END]), g.constant([1])], "kept.rows")
    # Gemm works on rows, and can use an embedding as the head without a transposed copy.
    g.node("Reshape", ["kept.rows", g.constant([-1, c.width])], "kept.flat")
    g.head("embedding" if c.tied else "output", "kept.flat", target.head_weight, "logits.flat")
    g.node("Shape", ["kept.rows"], "kept.shape", start=0, end=2)
    g.node("Concat", ["kept.shape", g.constant([c.vocab])], "logits.shape", axis=0)
    g.node("Reshape", ["logits.flat", "logits.shape"], "logits")
    g.output("logits", FLOAT, [BATCH, "kept", c.vocab])


@torch.no_grad()
def write(model: PortableTarget, out: pathlib.Path) -> None:
    """Writes the graph with its weights, config.json, generation_config.json and the tokenizer."""
    (out / "onnx").mkdir(parents=True, exist_ok=True)
    weights = WeightFile(out / "onnx" / "model.onnx_data", storage="exact")
    generation_graph(model.target, weights).save(out / "onnx" / "model.onnx")
    config = hf_config(model)
    kind = {"model_type": model.family.lower(), "architectures": [f"{model.family}ForCausalLM"]}
    write_json(out / "config.json", kind | config | {"transformers.js_config": {"use_external_data_format": True}})
    write_json(out / "generation_config.json", {"eos_token_id": config["eos_token_id"]})
    (out / "tokenizer.json").write_text(model.tokenizer_json, encoding="utf8")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": model.target.config.context}
    for name, token in (("eos_token", model.end_of_text), ("bos_token", model.begin_of_text)):
        if token is not None:
            settings[name] = model.tokenizer.id_to_token(token)
    if model.chat_template:
        settings["chat_template"] = model.chat_template
    write_json(out / "tokenizer_config.json", settings)
