"""Targets with random weights in the shapes of well-known models."""

import torch
import transformers
from ptp_engine.attention import NAME
from ptp_engine.gen import engine_pb2
from ptp_engine.load import Options
from ptp_engine.target import TargetModel

HEADS = {"num_key_value_heads": 8, "max_position_embeddings": 4096, "bos_token_id": None, "eos_token_id": None}
QWEN = {"vocab_size": 151936, "head_dim": 128, **HEADS}
SHAPES = {
    "Qwen3-0.6B": ("Qwen3Config", 1024, 3072, 28, 16, {**QWEN, "tie_word_embeddings": True}),
    "Llama-3.2-1B": ("LlamaConfig", 2048, 8192, 16, 32, {**HEADS, "vocab_size": 128256, "tie_word_embeddings": True}),
    "Qwen3-8B": ("Qwen3Config", 4096, 12288, 36, 32, {**QWEN, "tie_word_embeddings": False}),
}
NARROW = {**HEADS, "vocab_size": 1000, "tie_word_embeddings": True}
TINY = {"tiny": ("LlamaConfig", 64, 128, 1, 8, NARROW), "tiny-2": ("Qwen3Config", 64, 128, 2, 8, NARROW)}
LOGIT_SCALE = 3.0
"""Standard deviation of the logits. With the usual random weights, all tokens would be about equally probable."""
SAMPLING = engine_pb2.TargetSlot(sampling={"temperature": 0.7, "top_k": 50, "top_p": 0.9}, uniforms={"seed": 7})


def build(shape: tuple, device: torch.device) -> TargetModel:
    """Returns a target with random weights, which are made on the device."""
    name, width, hidden, layers, heads, others = shape
    config = getattr(transformers, name)(
        hidden_size=width, intermediate_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, **others
    )
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    torch.manual_seed(0)
    with device:
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=NAME).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(LOGIT_SCALE / (config.initializer_range * width**0.5))
    options = Options(model=name, context_length=2048, max_slots=16, max_sequences=16, memory_fraction=0.5)
    return TargetModel(model, options)


def slot(sequence: int, at: int, tokens: list[int], picks: bool = True) -> engine_pb2.TargetSlot:
    message = engine_pb2.TargetSlot(sequence=sequence, at=at, tokens=tokens)
    if picks:
        message.MergeFrom(SAMPLING)
    return message


def run(target: TargetModel, *slots: engine_pb2.TargetSlot) -> list[engine_pb2.TargetOutput]:
    return list(target.run(engine_pb2.TargetRun(slots=slots)).outputs)


def text(target: TargetModel, length: int) -> list[int]:
    return [(7919 * i + 13) % target.vocabulary for i in range(length)]
