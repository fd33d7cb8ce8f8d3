"""Loads a Hugging Face model for the engine, after checking that it can be served and fits into memory."""

import importlib.util
import json
import os
import pathlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from ptp_train.model.hugging_face import weight_files

from . import parallel
from .attention import NAME, Layer, Probe

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
FLOATING = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2}
"""Number of bytes per value in the floating-point formats of safetensors. Values in other formats keep their size."""
DOWNLOADED = ["*.json", "*.safetensors", "*.jinja"]
DUPLICATES = ["consolidated*", "original/*"]
"""Files on the hub with the same weights in the format of the model's authors."""
SERVED_LAYERS = {"full_attention", "sliding_attention", "sparse", "dense", "moe"}
MUST_BE_OFF = ("attention_chunk_size", "num_kv_shared_layers", "use_bidirectional_attention", "alibi")
"""Fields of config.json that select operations which the engine does not compute."""


@dataclass
class Options:
    """Options of a model. The command line has the same names."""

    model: pathlib.Path | str
    """Folder, name on the hub, or checkpoint of a drafter."""
    device: str = "auto"
    dtype: str = "auto"
    context_length: int | None = None
    max_sequences: int = 64
    max_slots: int = 16
    memory_fraction: float = 0.9
    no_prefix_cache: bool = False
    kv_megabytes: int | None = None
    """Size of the KV pool. By default, it is the rest of memory_fraction, limited to the rows of max_sequences."""
    pass_tokens: int = 64
    """Number of tokens in every pass on a GPU."""

    @classmethod
    def of(cls, given: Any) -> "Options":
        """Returns options from a namespace that may lack some of them."""
        return cls(**{name: getattr(given, name) for name in cls.__dataclass_fields__ if hasattr(given, name)})


def device_of(name: str) -> torch.device:
    """Returns the device for a value of --device. auto is a GPU if PyTorch finds a GPU."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def dtype_of(name: str, device: torch.device) -> torch.dtype:
    """Returns the number format that an option names. auto is bfloat16 on a GPU and float32 on a CPU."""
    return DTYPES[name] if name != "auto" else torch.float32 if device.type == "cpu" else torch.bfloat16


def memory_of(device: torch.device) -> tuple[int, int]:
    """Returns the free and the total memory of a device in bytes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)
    if device.type == "mps":
        total = torch.mps.recommended_max_memory()
        return total - torch.mps.driver_allocated_memory(), total
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), total
    except OSError:
        return total, total


def weight_bytes(files: list[pathlib.Path], dtype: torch.dtype) -> int:
    """Returns the size of a model's weights in memory. Floating-point weights are converted to `dtype`."""
    total = 0
    for path in files:
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        for name, tensor in header.items():
            if name != "__metadata__":
                start, end = tensor["data_offsets"]
                stored = FLOATING.get(tensor["dtype"])
                total += end - start if stored is None else (end - start) // stored * dtype.itemsize
    return total


def folder_of(model: pathlib.Path | str, option: str = "MODEL") -> pathlib.Path:
    """Returns the folder of a model. Downloads the model if it is a name on the hub.

    option: name of the command-line option for `model`, for errors.
    """
    folder = pathlib.Path(model)
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    try:
        return pathlib.Path(snapshot_download(str(model), allow_patterns=DOWNLOADED, ignore_patterns=DUPLICATES))
    except Exception as reason:  # Errors of the network, of the hub and of its cache have no common class.
        message = str(reason).strip().splitlines()[0]
        raise SystemExit(f"{option} must be a folder, or a name that the hub has, got {model}: {message}") from None


def check_config(config: PreTrainedConfig, context: int) -> None:
    """Exits if the engine cannot serve a model. The error names the field of config.json."""
    text = config.get_text_config(decoder=True)
    if config.is_encoder_decoder:
        raise SystemExit("MODEL must be a decoder, but is_encoder_decoder is true in its config.json")
    kinds = set(getattr(text, "layer_types", None) or []) - SERVED_LAYERS
    if kinds:
        served = "full_attention and sliding_attention"
        raise SystemExit(f"layer_types of MODEL must be {served}, got {', '.join(sorted(kinds))}")
    for field in MUST_BE_OFF:
        if getattr(text, field, None):
            raise SystemExit(f"{field} of MODEL must be absent or 0, got {getattr(text, field)}")
    rope = getattr(text, "rope_parameters", None) or {}
    for settings in rope.values() if all(isinstance(value, dict) for value in rope.values()) else [rope]:
        kind = settings.get("rope_type", "default")
        # The frequencies of these types would depend on the length of the longest sequence in a pass.
        original = settings.get("original_max_position_embeddings") or text.max_position_embeddings
        if kind in ("dynamic", "longrope") and context > original:
            raise SystemExit(
                f"--context-length must be at most {original}, because rope_type of MODEL is {kind}, got {context}"
            )


def check_memory(needed: int, device: torch.device, fraction: float) -> None:
    """Exits if weights exceed the free memory of a device, or a fraction of its total memory."""
    free, total = memory_of(device)
    limit = min(free, total * fraction)
    if needed > limit:
        raise SystemExit(
            f"MODEL needs {needed / 1e9:.1f} GB of memory on {device} for its weights, but {limit / 1e9:.1f} GB are "
            "available: choose a smaller or quantised model, or --dtype bfloat16"
        )


def load(options: Options) -> nn.Module:
    """Loads a model with our attention. Exits if it cannot be served or does not fit."""
    device = device_of(options.device)
    dtype = dtype_of(options.dtype, device)
    folder = folder_of(options.model)
    config = AutoConfig.from_pretrained(folder)
    check_config(config, context_of(config, options.context_length))
    group = parallel.joined()
    processes = 1 if group is None else group.size
    check_memory(weight_bytes(weight_files(folder), dtype) // processes, device, options.memory_fraction)
    if group is not None:
        placed = sharded(config, group.size)
    else:
        # With accelerate, weights go to the device one by one and need no memory of the host.
        placed = {"device_map": {"": device}} if importlib.util.find_spec("accelerate") else {}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, config=config, dtype=dtype, attn_implementation=NAME, **placed
        )
    except ImportError as missing:
        raise SystemExit(f"MODEL needs a package that is not installed: {str(missing).splitlines()[0]}") from None
    return model.eval() if placed else model.eval().to(device)


def sharded(config: PreTrainedConfig, size: int) -> dict[str, Any]:
    """Returns the arguments of `from_pretrained` for tensor parallelism over `size` processes."""
    from transformers.distributed import DistributedConfig

    text = config.get_text_config(decoder=True)
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    if heads % size:
        raise SystemExit(f"--nproc-per-node must divide the number of key/value heads of MODEL, {heads}, got {size}")
    if not importlib.util.find_spec("accelerate"):
        raise SystemExit("tensor parallelism requires the package accelerate: run pip install -e '.[serve]'")
    return {"distributed_config": DistributedConfig(tp_size=size)}


def context_of(config: PreTrainedConfig, requested: int | None) -> int:
    """Returns the maximum number of tokens in a sequence: the requested number, or else the maximum of the model."""
    longest = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
    if longest is None:
        raise SystemExit("max_position_embeddings must be in config.json of MODEL")
    if requested is not None and not 2 <= requested <= longest:
        raise SystemExit(f"--context-length must be in [2, {longest}] (max_position_embeddings), got {requested}")
    return requested or longest


def attention_layers(model: nn.Module) -> list[Layer]:
    """Finds the attention layers with a short pass, numbers them, and attaches them to their modules.

    Exits if the model has layers that keep state outside of attention.
    """
    if getattr(model, "_is_stateful", False):
        raise SystemExit(f"MODEL must have only attention layers, but {type(model).__name__} has recurrent layers")
    ids = torch.zeros(1, 2, dtype=torch.int64, device=model.device)
    with Probe() as probe, torch.inference_mode():
        model(input_ids=ids, position_ids=torch.arange(2, device=ids.device)[None], use_cache=False)
    text = model.config.get_text_config(decoder=True)
    if len(probe.layers) != text.num_hidden_layers:
        raise SystemExit(
            f"MODEL must call attention once in each of its num_hidden_layers = {text.num_hidden_layers} layers, "
            f"but {type(model).__name__} calls it {len(probe.layers)} times"
        )
    kinds = getattr(text, "layer_types", None)
    for number, (module, layer) in enumerate(probe.layers):
        layer.number = number
        if layer.window is None and kinds and kinds[number] == "sliding_attention":
            layer.window = text.sliding_window
        module.ptp_layer = layer
    return [layer for _, layer in probe.layers]
