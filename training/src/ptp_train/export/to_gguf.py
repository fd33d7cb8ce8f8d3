"""Writes a target as GGUF, the file format of llama.cpp, with architecture llama, qwen2 or qwen3."""

import json
import pathlib

import numpy as np
import torch
from torch import Tensor

from ..model.transformer import Config, Target, rope_frequencies
from .portable import PortableTarget

TYPES = ("f32", "f16", "q8_0", "q4_0")
LLAMA3_WORDS = "|".join(
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
QWEN2_WORDS = LLAMA3_WORDS.replace(r"\p{N}{1,3}", r"\p{N}")
PRE_TOKENIZERS = {LLAMA3_WORDS: "llama-bpe", QWEN2_WORDS: "qwen2"}
"""Names of pre-tokenizers in llama.cpp, by their regular expression in tokenizer.json."""
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""Token types of llama.cpp (llama_token_type)."""


def pre_tokenizer(raw: dict) -> str:
    """Returns llama.cpp's name of the pre-tokenizer. Exits if llama.cpp has no such pre-tokenizer."""
    given = raw.get("pre_tokenizer") or {}
    parts = given.get("pretokenizers", [given])
    split = next((p["pattern"].get("Regex") for p in parts if p["type"] == "Split"), None)
    by_bytes = next((p for p in parts if p["type"] == "ByteLevel"), {})
    if split is None and by_bytes.get("use_regex", False) and not by_bytes["add_prefix_space"]:
        return "gpt-2"
    if split not in PRE_TOKENIZERS or raw.get("normalizer") not in (None, {"type": "NFC"}):
        raise SystemExit(
            f"--to gguf requires a byte-level BPE with the pre-tokenizer of GPT-2, Llama 3 or Qwen2, got pre_tokenizer {given}"
        )
    return PRE_TOKENIZERS[split]


def interleaved(weight: Tensor, head_width: int) -> Tensor:
    """Reorders rows of queries or keys from pairs (i, i + D/2), which we rotate, to llama.cpp's pairs (2i, 2i + 1)."""
    heads = weight.reshape(-1, 2, head_width // 2, *weight.shape[1:])
    return heads.transpose(1, 2).reshape(weight.shape)


def tensors(target: Target, family: str) -> dict[str, Tensor]:
    """Returns the parameters under llama.cpp's names."""
    c = target.config
    turn = (lambda x: interleaved(x, c.head_width)) if family == "llama" else (lambda x: x)
    found = {"token_embd.weight": target.embedding.weight, "output_norm.weight": target.norm.weight}
    if target.output is not None:
        found["output.weight"] = target.output.weight
    if len(c.rope_scaling) == 4:
        found["rope_freqs.weight"] = rope_frequencies(Config(head_width=c.head_width, rope_theta=c.rope_theta)) / (
            rope_frequencies(c)
        )
    names = {
        "attn_norm": "norm_attention",
        "attn_q": "q",
        "attn_k": "k",
        "attn_v": "v",
        "attn_q_norm": "norm_q",
        "attn_k_norm": "norm_k",
        "attn_output": "o",
        "ffn_norm": "norm_mlp",
        "ffn_gate": "gate",
        "ffn_up": "up",
        "ffn_down": "down",
    }
    for n, layer in enumerate(target.layers):
        for theirs, ours in names.items():
            module = getattr(layer, ours)
            if module is None:
                continue
            for kind, value in module.named_parameters():
                found[f"blk.{n}.{theirs}.{kind}"] = turn(value) if ours in ("q", "k") else value
    return {name: value.detach() for name, value in found.items()}


def add_architecture(writer, model: PortableTarget) -> None:
    c = model.target.config
    writer.add_name(model.id)
    writer.add_context_length(c.context)
    writer.add_embedding_length(c.width)
    writer.add_block_count(c.layers)
    writer.add_feed_forward_length(c.hidden)
    writer.add_head_count(c.heads)
    writer.add_head_count_kv(c.kv_heads)
    writer.add_key_length(c.head_width)
    writer.add_value_length(c.head_width)
    writer.add_layer_norm_rms_eps(c.epsilon)
    writer.add_rope_dimension_count(c.head_width)
    writer.add_rope_freq_base(c.rope_theta)
    writer.add_vocab_size(c.vocab)
    if len(c.rope_scaling) == 1:
        writer.add_string(f"{writer.arch}.rope.scaling.type", "linear")
        writer.add_rope_scaling_factor(c.rope_scaling[0])


def add_tokenizer(writer, model: PortableTarget) -> None:
    raw = json.loads(model.tokenizer_json)
    tokens = [f"[unused{i}]" for i in range(model.target.config.vocab)]
    types = [UNUSED] * len(tokens)
    for token, i in raw["model"]["vocab"].items():
        tokens[i], types[i] = token, NORMAL
    for added in raw["added_tokens"]:
        tokens[added["id"]], types[added["id"]] = added["content"], CONTROL if added["special"] else USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer(raw))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in raw["model"]["merges"]])
    writer.add_eos_token_id(model.end_of_text)
    writer.add_bos_token_id(model.end_of_text if model.begin_of_text is None else model.begin_of_text)
    writer.add_add_bos_token(model.begin_of_text is not None)
    if model.stop_tokens:
        writer.add_eot_token_id(model.stop_tokens[0])
    if model.chat_template:
        writer.add_chat_template(model.chat_template)


def write(model: PortableTarget, path: pathlib.Path, kind: str = "f32") -> None:
    """Writes one file. Vectors stay f32. With q8_0, matrices are f16 if the length of their rows is not a multiple of
    32.
    """
    import gguf

    family = model.family.lower()
    writer = gguf.GGUFWriter(path, family)
    file_types = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0", "q4_0": "MOSTLY_Q4_0"}
    add_architecture(writer, model)
    add_tokenizer(writer, model)
    writer.add_file_type(gguf.LlamaFileType[file_types[kind]])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for name, value in tensors(model.target, family).items():
        array = value.to(torch.float32).contiguous().numpy()
        if kind == "f32" or array.ndim < 2:
            writer.add_tensor(name, array)
            continue
        block_type = None if kind == "f16" else gguf.GGMLQuantizationType[kind.upper()]
        if block_type is None or array.shape[1] % gguf.GGML_QUANT_SIZES[block_type][0] != 0:
            writer.add_tensor(name, array.astype(np.float16))
        else:
            writer.add_tensor(name, gguf.quants.quantize(array, block_type), raw_dtype=block_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
