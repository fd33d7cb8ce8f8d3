"""The commands in order, their modules, and the options that name their inputs and outputs."""

import argparse
import importlib
import pathlib
from dataclasses import dataclass
from types import ModuleType

from .settings import WORK, Parser


@dataclass(frozen=True)
class Command:
    """A module of this package with `add_arguments`, `run` and, if necessary, `check` (settings.py)."""

    module: str
    summary: str
    reads: tuple[str, ...] = ()
    """Options that name files or folders that must exist."""
    writes: tuple[str, ...] = ("out",)


COMMANDS = {
    "corpus": Command(
        "ptp_train.data.corpus", "collect text: declarations of npm packages, or any folder of text files"
    ),
    "tokenizer": Command(
        "ptp_train.data.tokenizer",
        "train the tokenizer, or use an existing one, and encode the corpus",
        ("corpus", "use", "chat_template"),
    ),
    "target": Command("ptp_train.train.target", "train the target model", ("data", "init")),
    "import-hf": Command(
        "ptp_train.model.import_hf", "import a Hugging Face model folder as the target", ("from",), ("out", "tokens")
    ),
    "restore": Command(
        "ptp_train.export.restore", "turn a model folder back into checkpoints", ("from",), ("out", "drafter")
    ),
    "teacher-samples": Command(
        "ptp_train.train.samples",
        "write sequences for distillation, continued by the target, the corpus or a drafter",
        ("target", "data", "drafter"),
    ),
    "distill": Command(
        "ptp_train.train.distill", "distil a drafter from the target", ("target", "samples", "held", "init")
    ),
    "evaluate": Command(
        "ptp_train.train.evaluate",
        "measure a pair by coupled decoding on held-out text, or the effect of an export in int8",
        ("target", "drafter", "samples", "independent", "autoregressive", "folder"),
    ),
    "export": Command(
        "ptp_train.export.command",
        "write a model folder for the server, or the target for transformers, llama.cpp or transformers.js",
        ("target", "drafter", "tokens", "evaluation"),
    ),
    "run": Command("ptp_train.cli.recipes", "run a recipe, a file of commands", writes=()),
    "prompts": Command(
        "ptp_train.data.prompts", "write the prompts of the server's benchmarks from held-out files", ("corpus",)
    ),
}
MADE_BY = {
    "corpus": "corpus",
    "data": "tokenizer",
    "tokens": "tokenizer",
    "target": "target",
    "samples": "teacher-samples",
    "held": "teacher-samples",
    "drafter": "distill",
    "evaluation": "evaluate",
}


def module_of(name: str) -> ModuleType:
    """Returns the command's module. Imports it only when needed, because PyTorch takes seconds to load."""
    return importlib.import_module(COMMANDS[name].module)


def parser_of(name: str) -> Parser:
    """Returns the parser of a command's options and --work."""
    module = module_of(name)
    parser = Parser(prog=f"ptp-train {name}", description=module.__doc__)
    parser.add_argument("--work", type=pathlib.Path, default=WORK, help="folder that replaces `work/` in default paths")
    module.add_arguments(parser)
    return parser


def parse(name: str, words: list[str], step: str | None = None) -> argparse.Namespace:
    """Parses a command's options from the words of a command line.

    Adds `command`, `step` (the command's name in a recipe) and `logs` (the folder for `Progress`).
    """
    args = parser_of(name).parse_args(words)
    args.command, args.step = name, step or name
    args.logs = getattr(args, "work", WORK) / "logs" / args.step.replace("/", "-")
    return args


def paths(args: argparse.Namespace, options: tuple[str, ...]) -> list[tuple[str, pathlib.Path]]:
    """Returns (option, path) for each path in `options` that is set."""
    found = []
    for option in options:
        value = getattr(args, option, None)
        found += [(option, v) for v in (value if isinstance(value, list | tuple) else [value]) if v is not None]
    return found


def reads(args: argparse.Namespace) -> tuple[str, ...]:
    """Returns the options that name the command's inputs. Neither `evaluate --folder` nor an `export` of only a target
    reads a drafter.
    """
    options = COMMANDS[args.command].reads
    if args.command == "evaluate" and args.folder:
        return ("target", "folder", "data")
    if args.command != "export":
        return options
    if getattr(args, "from"):
        return ("from",)
    alone = args.target_only or args.to != "server"
    return tuple(option for option in options if not (alone and option in ("drafter", "evaluation")))


def check(args: argparse.Namespace, earlier: list[argparse.Namespace] | None = None) -> None:
    """Exits if an input is missing or the module's `check` fails.

    earlier: options of the recipe's previous steps.
    """
    coming = [path for step in earlier or [] for _, path in paths(step, COMMANDS[step.command].writes)]
    for option, path in paths(args, reads(args)):
        if not path.exists() and not any(path.is_relative_to(made) for made in coming):
            maker = MADE_BY.get(option)
            hint = f": `ptp-train {maker}` makes it" if maker else ""
            raise SystemExit(
                f"ptp-train {args.command}: --{option.replace('_', '-')} must exist, {path} is missing{hint}"
            )
    module = module_of(args.command)
    if hasattr(module, "check"):
        args.earlier = earlier or []
        module.check(args)
        del args.earlier


def start(args: argparse.Namespace) -> None:
    """Runs a checked command. Creates output folders first, so that a wrong path fails before hours of work."""
    for _, path in paths(args, COMMANDS[args.command].writes):
        path.parent.mkdir(parents=True, exist_ok=True)
    module_of(args.command).run(args)
