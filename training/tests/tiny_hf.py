"""Tiny Hugging Face models with random weights for tests of ptp_engine."""

import pathlib

import torch
import transformers

from ptp_engine.gen import engine_pb2
from ptp_engine.load import Options
from ptp_engine.target import TargetModel

VOCABULARY = 300
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": None,
    "pad_token_id": None,
    "initializer_range": 0.2,
}
FAMILIES = {
    "llama": ("LlamaConfig", {}),
    "qwen3": ("Qwen3Config", {}),
    "gemma2": ("Gemma2Config", {"sliding_window": 24, "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 16}),
    "gemma3": (
        "Gemma3TextConfig",
        {
            "sliding_window": 24,
            "query_pre_attn_scalar": 16,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
    "mistral": ("MistralConfig", {"sliding_window": 20}),
    "mixtral": ("MixtralConfig", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "gpt_oss": ("GptOssConfig", {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 24}),
}


def config_of(family: str, **changes: object) -> transformers.PreTrainedConfig:
    name, special = FAMILIES[family]
    return getattr(transformers, name)(**SIZES | special | changes)


def save_tiny(family: str, folder: pathlib.Path, **changes: object) -> pathlib.Path:
    """Saves a model with random weights and returns its folder."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config_of(family, **changes), dtype=torch.float32)
    model.save_pretrained(folder)
    return folder


def tiny_target(folder: pathlib.Path, **options: object) -> TargetModel:
    return TargetModel.load(Options(model=folder, device="cpu", **{"kv_megabytes": 8, "context_length": 384} | options))


def slot(sequence: int, at: int, tokens: list[int], sampling: dict | None = None, **fields: object):
    """Returns a TargetSlot. `sampling` are fields of SamplingParameters."""
    message = engine_pb2.TargetSlot(sequence=sequence, at=at, tokens=tokens, **fields)
    if sampling is not None:
        message.sampling.SetInParent()
        for name, value in sampling.items():
            setattr(message.sampling, name, value)
        if not message.HasField("uniforms"):
            message.uniforms.seed = 7
    return message


def run(target: TargetModel, *slots: engine_pb2.TargetSlot) -> list[engine_pb2.TargetOutput]:
    return list(target.run(engine_pb2.TargetRun(slots=slots)).outputs)
