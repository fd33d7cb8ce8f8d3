"""Reads a Hugging Face model folder (config.json, *.safetensors) of the Llama family as a target, without transformers.

If a model needs an operation that `Target` does not implement, exits with an error that names the field of config.json.
The families differ in biases (Qwen2), norms of queries and keys (Qwen3) and default values, but their tensors have the
same names.
"""

import json
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from safetensors import safe_open

from .transformer import Config, Target


@dataclass(frozen=True)
class Family:
    """Properties of one architecture."""

    qkv_bias: bool = False
    qk_norm: bool = False
    head_width: int | None = None
    """Default width of a head. None means hidden_size / num_attention_heads."""


FAMILIES = {
    "LlamaForCausalLM": Family(),
    "MistralForCausalLM": Family(),
    "Qwen2ForCausalLM": Family(qkv_bias=True),
    "Qwen3ForCausalLM": Family(qk_norm=True, head_width=128),
}
NOT_COMPUTED = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "partial_rotary_factor": 1.0,
    "quantization_config": None,
}
"""Fields that select operations that `Target` does not implement. They must have these values if they are present."""
LONGEST = 4096
"""Default maximum length of the context in tokens."""
LAYER = {
    "input_layernorm": "norm_attention",
    "post_attention_layernorm": "norm_mlp",
    "self_attn.q_proj": "q",
    "self_attn.k_proj": "k",
    "self_attn.v_proj": "v",
    "self_attn.o_proj": "o",
    "self_attn.q_norm": "norm_q",
    "self_attn.k_norm": "norm_k",
    "mlp.gate_proj": "gate",
    "mlp.up_proj": "up",
    "mlp.down_proj": "down",
}
OUTSIDE = {
    "model.embed_tokens.weight": "embedding.weight",
    "model.norm.weight": "norm.weight",
    "lm_head.weight": "output.weight",
}


def read_json(folder: pathlib.Path, name: str, needed: bool = True) -> dict:
    """Returns the content of a JSON file of a model folder. If the file is missing, exits if it is `needed`, or else
    returns {}.
    """
    path = folder / name
    if not path.exists():
        if needed:
            raise SystemExit(f"{folder} must be the folder of a Hugging Face model, but has no {name}")
        return {}
    return json.loads(path.read_text(encoding="utf8"))


def read_config(raw: dict, context: int | None = None, tied: bool = True, option: str = "--context") -> Config:
    """Returns the configuration of `Target` for a parsed config.json. If a field is not supported, exits with an error
    that names the field.

    context: maximum number of tokens in a sequence (default: max_position_embeddings, but at most LONGEST).
    tied: default of tie_word_embeddings.
    option: name of the command-line option for `context`, for errors.
    """
    architectures = raw.get("architectures") or [f"of model_type {raw.get('model_type')}"]
    if len(architectures) != 1 or architectures[0] not in FAMILIES:
        raise SystemExit(f"architectures must be one of {', '.join(FAMILIES)}, got {', '.join(architectures)}")
    family = FAMILIES[architectures[0]]
    for field, value in NOT_COMPUTED.items():
        if raw.get(field, value) != value and raw[field] is not None:
            raise SystemExit(f"{field} must be {json.dumps(value)}, got {json.dumps(raw[field])}")
    positions, heads = raw["max_position_embeddings"], raw["num_attention_heads"]
    context = context or min(positions, LONGEST)
    if not 1 <= context <= positions:
        raise SystemExit(f"{option} must be in [1, {positions}] (max_position_embeddings), got {context}")
    check_window(raw, context, option)
    theta, scaling = rope(raw)
    return Config(
        vocab=raw["vocab_size"],
        width=raw["hidden_size"],
        layers=raw["num_hidden_layers"],
        heads=heads,
        kv_heads=raw.get("num_key_value_heads") or heads,
        head_width=raw.get("head_dim") or family.head_width or raw["hidden_size"] // heads,
        hidden=raw["intermediate_size"],
        rope_theta=theta,
        context=context,
        epsilon=raw.get("rms_norm_eps", 1e-6),
        tied=raw.get("tie_word_embeddings", tied),
        qkv_bias=family.qkv_bias,
        qk_norm=family.qk_norm,
        rope_scaling=scaling,
    )


def check_window(raw: dict, context: int, option: str) -> None:
    """Exits if a sliding window is shorter than the context. A longer window has no effect."""
    window = raw.get("sliding_window")
    sliding = "sliding_attention" in raw.get("layer_types", ["sliding_attention"])
    if window and sliding and raw.get("use_sliding_window", True) and window < context:
        raise SystemExit(
            f"sliding_window must be at least the context of {context} tokens, got {window}: lower {option}"
        )


def rope(raw: dict) -> tuple[float, tuple[float, ...]]:
    """Returns the base of the rotary embedding and `Config.rope_scaling`, which are read from rope_parameters
    (transformers 5) or the older fields.
    """
    field = "rope_parameters" if raw.get("rope_parameters") else "rope_scaling"
    given = raw.get(field) or {}
    theta = float(given.get("rope_theta", raw.get("rope_theta", 10000.0)))
    kind = given.get("rope_type", given.get("type", "default"))
    if kind == "default":
        return theta, ()
    if kind == "linear":
        return theta, (float(given["factor"]),)
    if kind == "llama3":
        names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
        return theta, tuple(float(given[name]) for name in names)
    raise SystemExit(f"{field}.rope_type must be default, linear or llama3, got {kind}")


def weight_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the *.safetensors files of a model: a single file, or the shards that the index lists."""
    index = read_json(folder, "model.safetensors.index.json", needed=False)
    names = sorted(set(index["weight_map"].values())) if index else ["model.safetensors"]
    for name in names:
        if not (folder / name).exists():
            raise SystemExit(f"{folder} must contain safetensors weights, but has no {name}")
    return [folder / name for name in names]


def our_name(theirs: str) -> str | None:
    """Returns the name in `Target` of a tensor of the checkpoint, or None if `Target` has no such parameter."""
    if theirs in OUTSIDE:
        return OUTSIDE[theirs]
    match theirs.split("."):
        case ["model", "layers", number, *module, kind] if ".".join(module) in LAYER:
            return f"layers.{number}.{LAYER['.'.join(module)]}.{kind}"
    return None


def tensors(files: list[pathlib.Path]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields names and values of all tensors, except for the tables of rotary frequencies that old checkpoints contain."""
    for path in files:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - a safetensors file is not iterable
                if not name.endswith("rotary_emb.inv_freq"):
                    yield name, file.get_tensor(name)


def load(folder: pathlib.Path, context: int | None = None, option: str = "--context") -> Target:
    """Returns the target in float32. Otherwise the same as `open_target`."""
    return open_target(folder, context, option).float()


def open_target(folder: pathlib.Path, context: int | None = None, option: str = "--context") -> Target:
    """Returns the target in the number formats of its files, where its weights stay until they are used. If a tensor is
    missing or has a wrong shape, exits with an error that names it.

    context, option: see `read_config`.
    """
    files = weight_files(folder)
    raw = read_json(folder, "config.json")
    names = [name for path in files for name in safe_open(path, framework="pt").keys()]  # noqa: SIM118
    config = read_config(raw, context, "lm_head.weight" not in names, option)
    with torch.device("meta"):
        target = Target(config)
    expected = dict(target.state_dict())
    weights: dict[str, torch.Tensor] = {}
    for theirs, value in tensors(files):
        ours = our_name(theirs)
        if config.tied and ours == "output.weight":
            continue  # The head is a copy of the embedding.
        if ours not in expected:
            raise SystemExit(f"{folder} must not have a tensor {theirs}, which {raw['architectures'][0]} does not use")
        if not value.is_floating_point() or value.itemsize < 2:
            raise SystemExit(f"{theirs} must be float32, float16 or bfloat16, got {value.dtype}")
        if value.shape != expected[ours].shape:
            shapes = [list(shape) for shape in (expected[ours].shape, value.shape)]
            raise SystemExit(f"{theirs} must have shape {shapes[0]} according to config.json, got {shapes[1]}")
        if not torch.stack(value.aminmax()).isfinite().all():  # A NaN is both the minimum and the maximum.
            raise SystemExit(f"{theirs} must be finite, but contains an infinity or NaN")
        weights[ours] = value
    if missing := sorted(expected.keys() - weights.keys()):
        raise SystemExit(f"{folder} has no tensor for {missing[0]} (and {len(missing) - 1} other parameters)")
    target.load_state_dict(weights, assign=True)
    return target.eval()
