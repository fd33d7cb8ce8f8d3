"""A target with its tokenizer, as input for exports to other engines."""

import json
import pathlib
from dataclasses import dataclass, replace

import torch
from tokenizers import Tokenizer

from ..data.tokenizer import END_OF_TEXT
from ..model.transformer import Target, load_target, read_checkpoint
from .restore import manifest_of, target_of

TYPES = {"f32": torch.float32, "f16": torch.float16}
"""Number formats of Hugging Face folders."""


@dataclass(frozen=True)
class PortableTarget:
    id: str
    target: Target
    tokenizer_json: str
    chat_template: str | None
    end_of_text: int
    begin_of_text: int | None = None
    """Token before every text, or None."""
    stop_tokens: tuple[int, ...] = ()
    """Additional end-of-text tokens."""

    @property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_str(self.tokenizer_json)

    @property
    def family(self) -> str:
        """The equivalent architecture: Llama, Qwen2 (biases) or Qwen3 (query and key norms)."""
        c = self.target.config
        if c.qkv_bias and c.qk_norm:
            raise SystemExit("--target must have at most one of qkv_bias and qk_norm, got both")
        return "Qwen2" if c.qkv_bias else "Qwen3" if c.qk_norm else "Llama"


def from_folder(folder: pathlib.Path) -> PortableTarget:
    """Reads the target of a model folder."""
    return _read(target_of(folder), folder, manifest_of(folder))


def from_checkpoint(path: pathlib.Path, tokens: pathlib.Path, identity: str) -> PortableTarget:
    """Reads a target.pt, with the tokenizer and the chat template of the folder `tokens`."""
    special = read_checkpoint(path).get("special_tokens", {})
    return _read(load_target(path), tokens, {"id": identity, **special})


def _read(target: Target, folder: pathlib.Path, facts: dict) -> PortableTarget:
    text = (folder / "tokenizer.json").read_text(encoding="utf8")
    template = folder / "chat_template.jinja"
    end = facts.get("end_of_text")
    if end is None:
        end = Tokenizer.from_str(text).token_to_id(END_OF_TEXT)
    return PortableTarget(
        facts["id"],
        target,
        text,
        template.read_text(encoding="utf8") if template.exists() else None,
        end,
        facts.get("begin_of_text"),
        tuple(facts.get("stop_tokens") or ()),
    )


def with_layers(model: PortableTarget, count: int) -> PortableTarget:
    """Returns a model with the first `count` layers, for use as an untrained draft model."""
    target = Target(replace(model.target.config, layers=count))
    state = model.target.state_dict()
    target.load_state_dict({name: state[name] for name in target.state_dict()})
    return replace(model, target=target.eval())


def hf_config(model: PortableTarget) -> dict:
    """Returns the fields of config.json that Llama, Qwen2 and Qwen3 share."""
    c = model.target.config
    rope = {"rope_type": "default", "rope_theta": c.rope_theta}
    if len(c.rope_scaling) == 1:
        rope |= {"rope_type": "linear", "factor": c.rope_scaling[0]}
    elif c.rope_scaling:
        names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
        rope |= {"rope_type": "llama3", **dict(zip(names, c.rope_scaling, strict=True))}
        rope["original_max_position_embeddings"] = int(rope["original_max_position_embeddings"])
    return {
        "vocab_size": c.vocab,
        "hidden_size": c.width,
        "intermediate_size": c.hidden,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads,
        "head_dim": c.head_width,
        "max_position_embeddings": c.context,
        "rms_norm_eps": c.epsilon,
        "tie_word_embeddings": c.tied,
        "rope_parameters": rope,
        "bos_token_id": model.begin_of_text,
        "eos_token_id": [model.end_of_text, *model.stop_tokens] if model.stop_tokens else model.end_of_text,
    }


def write_json(path: pathlib.Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf8")
