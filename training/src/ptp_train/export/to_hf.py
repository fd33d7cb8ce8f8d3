"""Writes a target as a Hugging Face model folder, which transformers, vLLM and SGLang load."""

import pathlib

import torch

from ..model.hugging_face import LAYER, OUTSIDE
from .portable import TYPES, PortableTarget, hf_config


def hf_state(model: PortableTarget) -> dict[str, torch.Tensor]:
    """Returns the parameters under transformers' names."""
    outside = {ours: theirs for theirs, ours in OUTSIDE.items()}
    layer = {ours: theirs for theirs, ours in LAYER.items()}
    state = {}
    for name, value in model.target.state_dict().items():
        if name in outside:
            state[outside[name]] = value
        else:
            _, number, module, kind = name.split(".")
            state[f"model.layers.{number}.{layer[module]}.{kind}"] = value
    return state


def write(model: PortableTarget, out: pathlib.Path, kind: str = "f32") -> None:
    """Writes config.json, model.safetensors, the tokenizer with its chat template, and generation_config.json."""
    import transformers  # Imported here because it takes seconds to load.

    config = getattr(transformers, f"{model.family}Config")(**hf_config(model))
    with torch.device("meta"):
        network = getattr(transformers, f"{model.family}ForCausalLM")(config)
    state = {name: value.to(TYPES[kind]) for name, value in hf_state(model).items()}
    if model.target.config.tied:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    network.load_state_dict(state, assign=True)
    network.tie_weights()
    network.config.dtype = TYPES[kind]
    network.save_pretrained(out)
    tokenizer = model.tokenizer
    special = {"eos_token": model.end_of_text, "bos_token": model.begin_of_text}
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        clean_up_tokenization_spaces=False,
        model_max_length=model.target.config.context,
        chat_template=model.chat_template,
        **{name: tokenizer.id_to_token(token) for name, token in special.items() if token is not None},
    ).save_pretrained(out)
