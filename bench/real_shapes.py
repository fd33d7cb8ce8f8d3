"""Compares greedy texts of exported targets in the shapes of well-known models with the texts of transformers.

    PYTHONPATH=training/src python bench/real_shapes.py                    # all shapes: minutes, 10 GB of memory
    PYTHONPATH=training/src python bench/real_shapes.py Qwen2.5-0.5B --tokens 16

The weights are random, so nothing is downloaded. Prints one line of JSON per shape. Exits with 1 if a token
differs.
"""

import argparse
import itertools
import json
import pathlib
import tempfile
from collections.abc import Iterator

import numpy as np
import onnxruntime
import torch
import transformers
from ptp_train.export.model_folder import Form, write_folder
from ptp_train.model import hugging_face
from ptp_train.model.stored_target import StoredTarget
from ptp_train.model.transformer import save

TOKENIZER = pathlib.Path(__file__).parents[1] / "test" / "models" / "tiny" / "tokenizer.json"
"""Tokenizer of the exported folders. Any tokenizer suffices, because texts are compared as tokens."""
TIED, APART = {"tie_word_embeddings": True}, {"tie_word_embeddings": False}
SHAPES = {
    "Qwen3-0.6B": ("Qwen3", 1024, 3072, 28, 16, 8, {"vocab_size": 151_936, "head_dim": 128, **TIED}),
    "Qwen2.5-0.5B": ("Qwen2", 896, 4864, 24, 14, 2, {"vocab_size": 151_936, **TIED}),
    "Llama-3.2-1B": ("Llama", 2048, 8192, 16, 32, 8, {"vocab_size": 128_256, "head_dim": 64, **TIED}),
    "TinyLlama-1.1B": ("Llama", 2048, 5632, 22, 32, 4, {"vocab_size": 32_000, **APART}),
}
CONTEXT = 512
PROMPT = [7, 77, 177, 277]


def write_model(shape: tuple, folder: pathlib.Path) -> None:
    """Writes a model in bfloat16 with weights so large that its texts vary."""
    family, width, hidden, layers, heads, kv_heads, others = shape
    sizes = {"hidden_size": width, "intermediate_size": hidden, "num_hidden_layers": layers}
    attention = {"num_attention_heads": heads, "num_key_value_heads": kv_heads, "max_position_embeddings": CONTEXT}
    config = getattr(transformers, f"{family}Config")(**sizes, **attention, **others)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim > 1:
                p.normal_(std=0.1 if p.shape[0] == config.vocab_size else 2 * p.shape[1] ** -0.5)
    model.save_pretrained(folder)


def expected_text(folder: pathlib.Path, count: int) -> tuple[list[int], np.ndarray]:
    """Returns transformers' greedy tokens in float32 and their log-probabilities."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    settings = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False}
    with torch.no_grad():
        ids = model.generate(torch.tensor([PROMPT]), **settings)
        logits = model(ids).logits[0, len(PROMPT) - 1 : -1].log_softmax(-1)
    written = ids[0, len(PROMPT) :]
    return written.tolist(), logits.gather(1, written[:, None])[:, 0].numpy()


def export(folder: pathlib.Path, out: pathlib.Path) -> None:
    """Imports a model and exports it with exact weights, in the form of large targets."""
    checkpoint = out.with_suffix(".pt")
    save(checkpoint, "target", hugging_face.open_target(folder))
    facts = {"end_of_text": 0}
    write_folder(StoredTarget(checkpoint), None, TOKENIZER.read_bytes(), out, "shape", facts, Form(storage="exact"))


def served_text(graph: pathlib.Path) -> Iterator[tuple[int, float]]:
    """Yields the graph's greedy tokens after the prompt and their log-probabilities."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level, options.enable_mem_pattern = 1, 3, False
    session = onnxruntime.InferenceSession(graph, options)
    shapes = {i.name: i.shape for i in session.get_inputs()}
    slots, vocab, uniforms = shapes["splits"][0], shapes["bias"][1], shapes["u"][1]
    cached = [name for name, shape in shapes.items() if shape and shape[0] and str(shape[0]).startswith("S")]
    row = shapes["k0_0"][1:]
    caches = {name: np.zeros((CONTEXT, *row), np.float32) for name in cached if name.endswith("_0")}
    column = np.ones((2, 1), np.float32)
    fixed = {"temperature": column * 0, "top_k": np.zeros((2, 1), np.int64), "top_p": column, "min_p": column * 0}
    fixed |= {"u": np.zeros((2, uniforms), np.float32), "top_count": np.zeros(1, np.int64)}
    fixed |= {name: np.zeros((0, vocab), np.float32) for name in ("scale", "bias")}
    fixed |= {f"mask_{i}": np.zeros((0, 0), np.float32) for i in range(1, slots)}
    fixed |= {name: np.zeros((0, *row), np.float32) for name in cached if not name.endswith("_0")}
    at, tokens = 0, PROMPT
    while True:
        last = len(tokens) - 1
        padded = tokens if last else [*tokens, 0]
        end = at + len(padded)
        mask = np.triu(np.full((len(padded), end), -np.inf, np.float32), at + 1)
        feeds = fixed | {"ids": np.array([padded]), "pos": np.arange(at, end)[None], "mask_0": mask}
        feeds |= {"splits": np.array([len(padded)] + [0] * (slots - 1)), "rows": np.array([last, last])}
        bound = session.io_binding()
        for name, cache in caches.items():
            feeds[name] = cache[:end]
            new = cache[at:end]
            bound.bind_output(f"n{name}", "cpu", 0, np.float32, (1, len(padded), row[0] * row[1]), new.ctypes.data)
        for name, value in feeds.items():
            bound.bind_input(name, "cpu", 0, value.dtype, value.shape, value.ctypes.data)
        for name in ("pick", "logprob"):
            bound.bind_output(name)
        session.run_with_iobinding(bound)
        pick, logprob = (value.numpy() for value in bound.get_outputs()[-2:])
        yield int(pick[0]), float(logprob[0])
        at, tokens = at + last + 1, [int(pick[0])]


def compare(name: str, count: int) -> dict:
    with tempfile.TemporaryDirectory() as work:
        model, out = pathlib.Path(work, "model"), pathlib.Path(work, "folder")
        write_model(SHAPES[name], model)
        expected, probabilities = expected_text(model, count)
        export(model, out)
        [graph] = out.glob("target.b*.onnx")
        written = list(itertools.islice(served_text(graph), count))
    equal = sum(a == b for (a, _), b in zip(written, expected, strict=True))
    difference = np.abs(np.array([p for _, p in written]) - probabilities).max()
    different = len(set(expected))
    return {
        "shape": name,
        "tokens": count,
        "different": different,
        "equal": equal,
        "logprob_difference": float(difference),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help=f"one of {', '.join(SHAPES)}; default: all")
    parser.add_argument("--tokens", type=int, default=64, help="number of tokens per text (default: 64)")
    args = parser.parse_args()
    if unknown := [name for name in args.shapes if name not in SHAPES]:
        parser.error(f"SHAPE must be one of {', '.join(SHAPES)}, got {unknown[0]}")
    wrong = False
    for name in args.shapes or SHAPES:
        result = compare(name, args.tokens)
        print(json.dumps(result), flush=True)
        wrong |= result["equal"] < args.tokens
    raise SystemExit(int(wrong))


if __name__ == "__main__":
    main()
