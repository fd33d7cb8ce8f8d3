"""Writes the GGUF files of the tests of the llama.cpp engine into a folder.

    python write_ggufs.py FOLDER      # with training/src and training/tests in PYTHONPATH

The target of models/default, and small random models: Llama and Qwen3 by `ptp-train export`'s code, and Gemma 3, whose
layers have a sliding window, by hand.
"""

import json
import pathlib
import sys

import gguf
import numpy as np
import torch
from tiny_pair import byte_tokenizer

from ptp_train.export import portable, to_gguf
from ptp_train.model.transformer import Config, Target

SIZES = dict(vocab=257, width=64, layers=3, heads=4, kv_heads=2, head_width=16, hidden=96, context=512)
DEFAULT = pathlib.Path(__file__).parents[3] / "models" / "default"


def random_target(name: str, **shape) -> portable.PortableTarget:
    torch.manual_seed(0)
    target = Target(Config(**SIZES, **shape)).eval()
    with torch.no_grad():
        for p in target.parameters():
            if p.ndim > 1:
                p.normal_(std=0.4 if p.shape[0] == SIZES["vocab"] else p.shape[1] ** -0.5)
    return portable.PortableTarget(name, target, byte_tokenizer().to_str(), None, 0)


def write_gemma(path: pathlib.Path) -> None:
    """Six layers, the last with full attention and the others with a window of 16 tokens."""
    rng = np.random.default_rng(0)
    layers, width, heads, kv_heads, head_width, hidden = 6, 64, 4, 2, 16, 96
    writer = gguf.GGUFWriter(path, "gemma3")
    writer.add_name("random-gemma3")
    writer.add_context_length(512)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head_width)
    writer.add_value_length(head_width)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    writer.add_sliding_window(16)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    vocabulary = json.loads(byte_tokenizer().to_str())["model"]["vocab"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(list(vocabulary))
    writer.add_token_types([3] + [1] * 256)
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(False)

    def matrix(name, rows, columns, scale=None):
        value = rng.standard_normal((rows, columns)) * (scale or columns**-0.5)
        writer.add_tensor(f"{name}.weight", value.astype(np.float16))

    def norm(name, length):
        writer.add_tensor(f"{name}.weight", np.ones(length, np.float32))

    matrix("token_embd", len(vocabulary), width, 0.4)
    norm("output_norm", width)
    for layer in range(layers):
        block = f"blk.{layer}"
        for name in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"):
            norm(f"{block}.{name}", width)
        norm(f"{block}.attn_q_norm", head_width)
        norm(f"{block}.attn_k_norm", head_width)
        matrix(f"{block}.attn_q", heads * head_width, width)
        matrix(f"{block}.attn_k", kv_heads * head_width, width)
        matrix(f"{block}.attn_v", kv_heads * head_width, width)
        matrix(f"{block}.attn_output", width, heads * head_width)
        matrix(f"{block}.ffn_gate", hidden, width)
        matrix(f"{block}.ffn_up", hidden, width)
        matrix(f"{block}.ffn_down", width, hidden)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main(folder: pathlib.Path) -> None:
    for kind in ("f16", "q8_0", "q4_0"):
        to_gguf.write(portable.from_folder(DEFAULT), folder / f"default.{kind}.gguf", kind)
    to_gguf.write(random_target("random-llama"), folder / "llama.f16.gguf", "f16")
    to_gguf.write(random_target("random-qwen3", tied=False, qk_norm=True), folder / "qwen3.q8_0.gguf", "q8_0")
    write_gemma(folder / "gemma3.f16.gguf")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
