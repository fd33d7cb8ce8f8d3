"""Options, inputs and outputs of completed recipe steps, kept in work/steps/STEP.json so that a rerun can skip these
steps.
"""

import argparse
import hashlib
import json
import os
import pathlib
import time

from .commands import COMMANDS, paths, reads

NOT_OPTIONS = ("command", "step", "logs", "work")


def digest(file: pathlib.Path) -> str:
    """Returns the first 16 hexadecimal digits of a file's SHA-256."""
    found = hashlib.sha256()
    with file.open("rb") as f:
        while block := f.read(1 << 22):
            found.update(block)
    return found.hexdigest()[:16]


def digests(args: argparse.Namespace, options: tuple[str, ...]) -> dict[str, str]:
    """Returns the digests, by path, of all files that the options name, including files in folders."""
    found = {}
    for _, path in paths(args, options):
        files = sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]
        found.update({str(f): digest(f) for f in files if f.is_file() and ".partial" not in f.name})
    return found


def options_of(args: argparse.Namespace) -> dict[str, str]:
    """Returns the options as text."""
    return {k: str(v) for k, v in sorted(vars(args).items()) if k not in NOT_OPTIONS}


def state_file(args: argparse.Namespace) -> pathlib.Path:
    return args.logs.parent.parent / "steps" / f"{args.step.replace('/', '-')}.json"


def inputs(args: argparse.Namespace) -> dict[str, str]:
    return digests(args, reads(args))


def begin(args: argparse.Namespace) -> dict:
    """Returns the options and inputs recorded before a step. Pass the result to `finish`."""
    return {"options": options_of(args), "inputs": inputs(args), "began": time.time()}


def finish(args: argparse.Namespace, began: dict) -> None:
    """Records a completed step."""
    file = state_file(args)
    file.parent.mkdir(parents=True, exist_ok=True)
    minutes = round((time.time() - began.pop("began")) / 60, 2)
    partial = file.with_suffix(".partial")
    partial.write_text(
        json.dumps(began | {"outputs": digests(args, COMMANDS[args.command].writes), "minutes": minutes}, indent=1)
    )
    os.replace(partial, file)


def is_done(args: argparse.Namespace) -> bool:
    """Returns true if the step was completed with these options and inputs, and its outputs are unchanged.

    Files that later steps add to the step's folders are ignored.
    """
    file = state_file(args)
    if not file.is_file():
        return False
    stored = json.loads(file.read_text())
    if stored["options"] != options_of(args) or stored["inputs"] != inputs(args):
        return False
    now = digests(args, COMMANDS[args.command].writes)
    return all(now.get(name) == value for name, value in stored["outputs"].items())
