"""Makes a drafter for a random model in the shape of Qwen3-0.6B: all steps from a Hugging Face folder to a model folder.

    PYTHONPATH=training/src python bench/public_size.py --work FOLDER              # 15 GB of disk, 10 GB of memory
    PYTHONPATH=training/src python bench/public_size.py --work FOLDER --small      # two narrow layers

Runs the commands of the recipe `hugging-face` on random weights, with few sequences and steps, and prints the duration,
CPU time and peak memory of each command. `npm run bench -- decode --models FOLDER/folder` then serves the pair.
"""

import argparse
import json
import os
import pathlib
import sys
import time
import traceback
from collections.abc import Callable

from ptp_train import __main__ as ptp_train
from ptp_train.export import portable, to_hf
from random_qwen3 import SIZES, SMALL, VOCABULARY, random_target, tokenizer

ROOT = pathlib.Path(__file__).parents[1]
THREADS = ("teacher-samples", "distill", "evaluate")
"""Commands that have an option --threads."""
TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"


def checkpoint(folder: pathlib.Path, small: bool) -> None:
    """Writes a folder like that of a published model."""
    target = random_target(SMALL if small else SIZES)
    model = portable.PortableTarget("random", target, tokenizer().to_str(), TEMPLATE, VOCABULARY - 1)
    to_hf.write(model, folder, "f16")


def commands(source: pathlib.Path, work: pathlib.Path, args: argparse.Namespace) -> list[list[str]]:
    """Returns the steps of the recipe `hugging-face`, with fewer sequences and steps."""
    sequences = ["--sequences", str(args.sequences)]
    held = [*sequences, "--conditions", "0.7,50,0.9"]
    # A model of two narrow layers is too small for `--shape auto`.
    shape = ["--source", "0,1", "--rank", "16", "--shortlist", "32768"] if args.small else ["--shape", "auto"]
    return [
        ["import-hf", "--from", str(source), "--context", "1024"],
        ["corpus", "--text", str(ROOT / "docs"), "--files", "*.md"],
        ["tokenizer", "--use", str(work / "tokens/tokenizer.json")],
        ["teacher-samples", "--split", "train", *sequences],
        ["teacher-samples", "--split", "held_files", *held],
        ["teacher-samples", "--split", "held_packages", *held],
        ["distill", *shape, "--steps", str(args.steps), "--completions", "64", "--context-tokens", "512"],
        ["evaluate", "--sequences", "1"],
        ["export", "--id", "random", "--out", str(work / "folder"), "--target-precision", "int8"]
        + ["--drafter-precision", "int8-fused"],
    ]


def measured(name: str, work: Callable[[], object]) -> dict:
    """Runs `work` in a process of its own and returns its costs. Exits if it fails."""
    began = time.monotonic()
    process = os.fork()
    if process == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    _, status, usage = os.wait4(process, 0)
    if status:
        raise SystemExit(f"{name} must succeed, got status {os.waitstatus_to_exitcode(status)}")
    return {
        "step": name,
        "seconds": round(time.monotonic() - began, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mb": usage.ru_maxrss // 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=pathlib.Path, required=True, metavar="FOLDER", help="folder for all files")
    parser.add_argument("--sequences", type=int, default=2, help="number of sequences per split (default: 2)")
    parser.add_argument("--steps", type=int, default=2, help="number of training steps (default: 2)")
    parser.add_argument("--small", action="store_true", help="two narrow layers")
    args = parser.parse_args()
    work = args.work.resolve()
    source = work / "checkpoint"
    if not source.exists():
        print(json.dumps(measured("checkpoint", lambda: checkpoint(source, args.small))), flush=True)
    for command in commands(source, work, args):
        words = [*command, "--work", str(work), *(["--threads", "1"] if command[0] in THREADS else [])]
        print(json.dumps(measured(" ".join(command[:3]), lambda words=words: ptp_train.main(words))), flush=True)


if __name__ == "__main__":
    main()
