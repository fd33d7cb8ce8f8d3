"""Writes the benchmark prompts. They are beginnings of held-out files, which are never trained on."""

import argparse
import json
import pathlib

PROMPT_CHARS = 600


def beginning(text: str) -> str:
    """Returns the first lines of a text, at most PROMPT_CHARS characters."""
    cut = text[:PROMPT_CHARS]
    return cut[: cut.rfind("\n") + 1]


def choose(corpus: pathlib.Path, split: str, count: int) -> list[dict]:
    """Returns `count` documents, evenly spaced in the split, as {split, package, path, prompt}."""
    with (corpus / f"{split}.jsonl").open(encoding="utf8") as f:
        documents = [d for d in map(json.loads, f) if len(d["text"]) > 3 * PROMPT_CHARS]
    step = max(1, len(documents) // count)
    chosen = documents[::step][:count]
    return [
        {"split": split, "package": d["package"], "path": d["path"], "prompt": beginning(d["text"])} for d in chosen
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--corpus", type=pathlib.Path, default=pathlib.Path("work/corpus"))
    add("--out", type=pathlib.Path, default=pathlib.Path("../bench/prompts.json"))
    add("--count", type=int, default=16, help="prompts per split")


def run(args: argparse.Namespace) -> None:
    prompts = [p for split in ("held_files", "held_packages") for p in choose(args.corpus, split, args.count)]
    args.out.write_text(json.dumps(prompts, indent=1, ensure_ascii=False) + "\n", encoding="utf8")
    print(json.dumps({"prompts": len(prompts), "packages": sorted({p["package"] for p in prompts})}))
