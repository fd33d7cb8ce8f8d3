"""Tiny workspace with the files that documented commands read: recipes, a bundled pair, npm packages, and text and a
Hugging Face model in the home folder.
"""

import json
import pathlib
import shutil

from documented import ROOT
from random_hf import LLAMA3, random_model
from tiny_pair import byte_tokenizer
from tokenizers import AddedToken

from ptp_train.data.corpus import HELD_PACKAGES

TEMPLATE = "{% for m in messages %}{{ '<|im_start|>' + m.content + '<|im_end|>' }}{% endfor %}"
ROPE = LLAMA3 | {"rope_theta": 1e6, "original_max_position_embeddings": 512}


def make(root: pathlib.Path) -> None:
    training = root / "training"
    shutil.copytree(ROOT / "training/recipes", training / "recipes")
    (root / "models").mkdir()
    (root / "models/default").symlink_to(ROOT / "test/models/tiny")
    for folder in (root, training / "corpus"):
        npm_packages(folder)
    text_files(root / "home/src", "py")
    text_files(root / "home/notes", "md")
    hugging_face_model(root / "home/models/Qwen3-0.6B")


def text(kind: str, n: int) -> str:
    return "".join(f"{kind} {n} has line {i} of value {(i * n) % 97} and {n * i}\n" for i in range(20))


def text_files(folder: pathlib.Path, extension: str) -> None:
    """Writes a folder of files without sub-folders."""
    folder.mkdir(parents=True)
    for n in range(30):
        (folder / f"{n}.{extension}").write_text(text(extension, n))


def npm_packages(folder: pathlib.Path) -> None:
    names = ["a", *HELD_PACKAGES]
    for at, name in enumerate(names):
        package = folder / "node_modules" / name
        package.mkdir(parents=True)
        (package / "package.json").write_text(json.dumps({"name": name, "version": "1.0.0", "license": "MIT"}))
        for n in range(30 if at == 0 else 3):
            (package / f"{n}.d.ts").write_text(text(f"export const {name}", n + 1))
    (folder / "package.json").write_text(json.dumps({"dependencies": dict.fromkeys(names, "1.0.0")}))


def hugging_face_model(folder: pathlib.Path) -> None:
    """Writes a random model with the properties in which published checkpoints differ from our own: more rows than
    tokens, special tokens outside the vocabulary of the BPE, a tied head, biases and scaled rotary embeddings.
    """
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens([AddedToken("<|im_start|>", special=True), AddedToken("<|im_end|>", special=True)])
    end = tokenizer.token_to_id("<|im_end|>")
    sizes = {"vocab_size": 320, "intermediate_size": 32, "num_hidden_layers": 10, "max_position_embeddings": 4096}
    random_model("qwen2-tied", **sizes, rope_parameters=ROPE, eos_token_id=end).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"eos_token": "<|im_end|>", "add_bos_token": False, "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
