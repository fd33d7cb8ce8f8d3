"""Runs a recipe: commands with their options, in order, from a YAML file.

    name: tiny
    description: result of the recipe, and its duration
    steps:
      - corpus: {text: ../../docs}            # a command and its options
      - teacher-samples/held: {split: held_files}    # the suffix /held makes the step's name unique

RECIPE is a file, or the name of a file in training/recipes. All steps are checked before the first one starts. A step
is skipped if it ran with the same options on the same inputs and its outputs are unchanged. Relative paths in a recipe
start at the recipe's folder, and relative paths in --set start at the current folder. `work/` at the beginning of a
path means --work.
"""

import argparse
import json
import os
import pathlib
from typing import Any

import yaml

from . import commands, recipe_state
from .settings import WORK, Parser, require, unknown_option

FOLDERS = [pathlib.Path(__file__).parents[3] / "recipes"]
"""Folders in which recipes are found by name."""


def find(name: str) -> pathlib.Path:
    """Returns the file of a recipe that is given by path or by name."""
    for path in (pathlib.Path(name), *(folder / f"{name}.yaml" for folder in FOLDERS)):
        if path.is_file():
            return path
    known = sorted(
        p.stem
        for folder in FOLDERS
        for p in folder.glob("*.yaml")
        if "steps" in (yaml.safe_load(p.read_text(encoding="utf8")) or {})
    )
    raise SystemExit(f"ptp-train run: RECIPE must be a file or one of {', '.join(known)}, got {name}")


def load(path: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Returns the steps of a recipe by name, with paths as written. Exits if the file is not a valid recipe."""
    content = yaml.safe_load(path.read_text(encoding="utf8"))
    where = f"{path.name}:"
    require(isinstance(content, dict), f"{where} a recipe must be a mapping with name, description and steps")
    for key in content:
        require(
            key in ("name", "description", "steps"),
            f"{where} {unknown_option(str(key), ['name', 'description', 'steps'])}",
        )
    require(
        bool(content.get("steps")) and isinstance(content["steps"], list), f"{where} steps must be a list of commands"
    )
    steps: dict[str, dict[str, Any]] = {}
    for entry in content["steps"]:
        entry = {entry: None} if isinstance(entry, str) else entry
        require(
            isinstance(entry, dict) and len(entry) == 1,
            f"{where} a step must be one command with its options, got {entry}",
        )
        ((name, options),) = entry.items()
        require(
            name not in steps,
            f"{where} two steps are named {name}: give each a distinct suffix, for example {name}/one and {name}/two",
        )
        valid = [c for c in commands.COMMANDS if c != "run"]
        require(name.split("/")[0] in valid, f"{where} step {unknown_option(name.split('/')[0], valid)}")
        require(isinstance(options or {}, dict), f"{where} step {name}: options must be a mapping, got {options}")
        steps[name] = dict(options or {})
    return steps


def override(steps: dict[str, dict[str, Any]], text: str) -> None:
    """Applies one --set STEP.OPTION=VALUE. STEP may be `*`, which means every step that has the option."""
    place, equals, value = text.partition("=")
    step, dot, option = place.rpartition(".")
    require(bool(equals and dot and step and option), f"--set must be STEP.OPTION=VALUE, got {text}")
    require(step == "*" or step in steps, f"--set {text}: step {unknown_option(step, list(steps))}")
    chosen = [step] if step != "*" else [s for s in steps if f"--{option}" in parser_for(s)._option_string_actions]
    require(bool(chosen), f"--set {text}: no step has an option --{option}")
    for name in chosen:
        steps[name][option] = Given(
            yaml.safe_load(value) if value.startswith("[") or value in ("true", "false", "null") else value
        )


class Given:
    """Returns a value from --set. Relative paths in it start at the current folder."""

    def __init__(self, value: Any):
        self.value = value


def place(path: str, base: pathlib.Path, work: pathlib.Path) -> str:
    """Resolves a path of a recipe. `work/` means --work, and other relative paths start at `base`."""
    return str(work / path[5:]) if path.startswith("work/") else os.path.normpath(base / path)


def parser_for(step: str) -> Parser:
    return commands.parser_of(step.split("/")[0])


def parse_step(step: str, options: dict[str, Any], folder: pathlib.Path, work: pathlib.Path) -> argparse.Namespace:
    """Returns a step's options, after checking each of them."""
    parser = parser_for(step)
    known = parser._option_string_actions
    words = [f"--work={work}"]
    for option, given in options.items():
        flag = f"--{option}"
        if flag not in known:
            raise SystemExit(f"step {step}: {unknown_option(flag, list(known))}")
        value, base = (given.value, pathlib.Path()) if isinstance(given, Given) else (given, folder)
        values = value if isinstance(value, list) else [value]
        if known[flag].type is pathlib.Path:
            values = [place(str(v), base, work) for v in values if v is not None]
        if known[flag].nargs == 0:
            require(isinstance(value, bool), f"step {step}: {flag} must be true or false, got {value}")
            words += [flag] if value else []
        elif isinstance(value, list):
            words += [flag, *map(str, values)]
        elif value is not None:
            words.append(f"{flag}={values[0]}")
    try:
        return commands.parse(step.split("/")[0], words, step)
    except SystemExit as error:
        raise SystemExit(f"step {step}: {error}") from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("recipe", metavar="RECIPE", help="YAML file, or the name of a file in training/recipes")
    add(
        "--set",
        metavar="STEP.OPTION=VALUE",
        action="append",
        default=[],
        help="override an option of a step; * as STEP means every step that has the option",
    )
    add("--plan", action="store_true", help="check and show the steps without running them")


def plan(args: argparse.Namespace) -> list[argparse.Namespace]:
    """Returns the options of every step, after checking them all."""
    path = find(args.recipe)
    steps = load(path)
    for text in args.set:
        override(steps, text)
    made: list[argparse.Namespace] = []
    for name, options in steps.items():
        settings = parse_step(name, options, path.parent, getattr(args, "work", WORK))
        try:
            commands.check(settings, made)
        except SystemExit as error:
            raise SystemExit(f"step {name}: {error}") from None
        made.append(settings)
    return made


def say_durations(steps: list[argparse.Namespace]) -> None:
    """Prints the estimated durations of long steps. The measurement takes as long as a few steps of training."""
    from ..train import estimate  # Imported here because it loads PyTorch.

    for line in estimate.long_steps(steps):
        print(line, flush=True)


def run(args: argparse.Namespace) -> None:
    steps = plan(args)
    measured = args.plan
    for n, settings in enumerate(steps, 1):
        title = f"== {n}/{len(steps)} {settings.step}"
        if args.plan:
            print(title, json.dumps(recipe_state.options_of(settings)))
        elif recipe_state.is_done(settings):
            print(f"{title}: already done", flush=True)
        else:
            print(title, flush=True)
            if settings.command == "teacher-samples" and not measured:
                say_durations([step for step in steps[n - 1 :] if not recipe_state.is_done(step)])
                measured = True
            began = recipe_state.begin(settings)
            commands.start(settings)
            recipe_state.finish(settings, began)
