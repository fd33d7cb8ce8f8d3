"""Runs the commands of the documents at tiny sizes, in the order of training/README.md.

A new command in a document has to get an entry in RUN or, with a reason, in NOT_RUN.
"""

import contextlib
import importlib.util
import json
import os
import re
import shlex

import documented_workspace
import pytest
import torch
from documented import ROOT, commands_of, documents
from torch.distributed.run import get_args_parser

from ptp_engine import cli as engine_cli
from ptp_train.__main__ import main
from ptp_train.cli import commands, recipes
from ptp_train.model.transformer import load_target
from ptp_train.train import batches, distill, samples, walks


def changed(*changes: str) -> str:
    """Returns --set options."""
    return " ".join(f"--set '{change}'" for change in changes)


FEW = ("*.context=512", "*.sequences=2", "*.completions=8", "*.steps=1", "*.threads=1", "export.slots=1")
NEW = (*FEW, "tokenizer.vocab-size=300", "*.width=64", "*.hidden=32", "*.batch-tokens=512", "*.source=0,1")
TOKENS = ("target/small.tokens=512", "target/grown.tokens=512", "target/small.layers=2")
SMALL = changed(*NEW, *TOKENS, "target/grown.layers=2")
GROWN = changed(*NEW, *TOKENS)
LARGE = changed(*NEW, "target.tokens=512", "target.layers=2")
IMPORTED = changed(*FEW, "distill.shape=manual")  # A target of this size does not gain from a drafter.
RUN = {
    "ptp-train --help": "",
    "ptp-train target --help": "",
    "ptp-train run cpu-default": SMALL,
    "ptp-train run cpu-default --plan": SMALL,
    "ptp-train run cpu-default --work work/eight --set target/grown.layers=12 --set '*.threads=4'": GROWN,
    "ptp-train run gpu-default --work work/gpu --set corpus.text=$HOME/src --set 'corpus.files=*.py'": LARGE,
    "ptp-train restore --work work/more --from ../models/default": "",
    "ptp-train corpus --work work/more": "",
    "ptp-train tokenizer --work work/more --use work/more/tokens/tokenizer.json --separator '<|endoftext|>'": "",
    "ptp-train target --work work/more --init work/more/target.pt --out work/more/next.pt --minutes 60": (
        "--minutes 0 --tokens 1024 --batch-tokens 1024 --threads 1"
    ),
    "ptp-train import-hf --work work/qwen3 --from ~/models/Qwen3-0.6B --context 2048": "",
    "ptp-train export --work work/qwen3 --target-only --id qwen3 --out ../models/qwen3": "",
    "ptp-train run hugging-face --work work/qwen3 --set import-hf.from=$HOME/models/Qwen3-0.6B --set export.id=qwen3 "
    "--set corpus.text=$HOME/notes --set 'corpus.files=*.md'": IMPORTED,
    "ptp-train export --work work/qwen3 --target-only --target-precision int8 --id qwen3 --out ../models/qwen3-int8": "",
    "ptp-train evaluate --work work/qwen3 --folder ../models/qwen3-int8": "--sequences 2",
    "ptp-train target --work work/qwen3 --init work/qwen3/target.pt --take 0,1,9 --tokens 2_000_000 "
    "--out work/qwen3/draft.pt": "--tokens 2048 --threads 1",
    "ptp-train export --work work/qwen3 --target-only --target work/qwen3/draft.pt --id draft --out ../models/draft": "",
    "ptp-engine target ~/models/Qwen3-0.6B --listen 0.0.0.0:7202": "--kv-megabytes 8",
    "ptp-engine drafter work/qwen3/drafter.pt --target ~/models/Qwen3-0.6B": "--kv-megabytes 8",
    "ptp-train export --to hf --from ../models/default --out work/hf": "--layers 1",
    "ptp-train export --to gguf --type q8_0 --from ../models/default --out work/model.gguf": "--layers 1",
    "ptp-train export --to transformers-js --from ../models/default --out work/js": "--layers 1",
    "training/.venv/bin/ptp-train run hugging-face --work work/qwen3 --set export.id=qwen3 "
    "--set import-hf.from=$HOME/models/Qwen3-0.6B --set corpus.text=$HOME/notes --set 'corpus.files=*.md'": (
        f"{IMPORTED} --plan"  # The same command as above, in another folder.
    ),
}
"""Commands that are run, and options to add so that they take seconds."""
NOT_RUN = {
    r"python3 -m venv \S+": "`npm run test:training` runs it",
    r"python3 -m (pip wheel|twine upload) .*|python3 -m venv \S+ && .*\.whl.*|/tmp/wheel/bin/.*": "makes a release",
    r"(training/.venv/bin/)?pip install -e .*": "`npm run test:training` runs it",
    r"torchrun .* -m ptp_engine .*": "takes four GPUs; test_engine_parallel.py runs it with two processes",
    r"tensorboard --logdir work/logs": "runs until it is stopped",
    r"ptp-train \S+": "names the command",
    r"ptp-train run continue": "takes hours; test_cli.py checks it",
    r"ptp-train export --device gpu": "names the option; test_gpu_form.py writes such a folder",
    r"ptp-train evaluate --context-precision int8": "test_pipeline.py runs it",
    r"ptp-engine .*Qwen3-8B.*|ptp-engine .*--listen 10\.0\.0\..*": "listens on an address of another machine",
    r"python -m ptp_engine target --help": "test_engine_server.py shows the help",
    r"python -m ptp_engine.gen": "rewrites generated files",
    r"python -m research( run .*)?": "takes hours",
    r"(PYTHONPATH=\S+ )?python bench/\S+.*": "test_bench.py and test/gguf.ts run some scripts, and the others take minutes",
    r"python3 -m sglang.launch_server .*": "needs SGLang and GPUs",
}
"""Patterns of the commands that are not run, and the reason. Their options are checked."""


def reason(command: str) -> str | None:
    return next((why for pattern, why in NOT_RUN.items() if re.fullmatch(pattern, command)), None)


DOCUMENTED = {command: document for document in documents() for command in commands_of(document)}


def test_every_documented_command_is_run_or_has_a_reason():
    assert [command for command in DOCUMENTED if command not in RUN and not reason(command)] == []
    assert [command for command in RUN if command not in DOCUMENTED] == []
    used = {pattern for pattern in NOT_RUN for command in DOCUMENTED if re.fullmatch(pattern, command)}
    assert used == NOT_RUN.keys()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("documented")
    documented_workspace.make(folder)
    return folder


@pytest.fixture
def shell(root, monkeypatch):
    """Returns a function that splits a command into words as a shell in the workspace does."""
    monkeypatch.setenv("HOME", str(root / "home"))
    monkeypatch.setattr(recipes, "FOLDERS", [root / "training/recipes"])
    for module in (samples, batches, walks, distill):
        monkeypatch.setattr(module, "GENERATED", 32)
    monkeypatch.chdir(root / "training")
    torch.set_num_threads(1)

    def words(command: str) -> list[str]:
        return [os.path.expandvars(os.path.expanduser(word)) for word in shlex.split(command)]

    return words


@pytest.mark.parametrize("command", RUN)
def test_run(command, root, shell, monkeypatch):
    program, *words = shell(f"{command} {RUN[command]}")
    if "/" in program:  # The path of the program starts at the root of the repository.
        monkeypatch.chdir(root)
    if program == "ptp-engine":
        args = engine_cli.parse(words[0], words[1:])
        assert engine_cli.load(args).info().context_length > 0
    else:
        with contextlib.suppress(SystemExit) if words[-1] == "--help" else contextlib.nullcontext():
            main(words)


@pytest.mark.parametrize("command", [command for command in DOCUMENTED if reason(command) and command not in RUN])
def test_options(command, shell):
    known_options(shell(command))


def known_options(words: list[str]) -> None:
    """Exits if a command has an option that its program does not know."""
    program, *rest = [word for word in words if not re.match(r"[A-Z]+=", word)]
    match [program.rpartition("/")[2], *rest]:
        case ["ptp-train", name]:
            assert name in commands.COMMANDS
        case ["ptp-train", "run", *options] | [_, "-m", "research", "run", *options]:
            planned(options)
        case ["ptp-train", name, *options]:
            commands.parse(name, options)
        case ["ptp-engine", "--help"]:
            pass
        case ["ptp-engine", role, *options] | [_, "-m", "ptp_engine", role, *options] if options != ["--help"]:
            engine_cli.parser_of(role).parse_args(options)
        case ["torchrun", *options]:
            args = get_args_parser().parse_args(options)
            assert args.module and args.training_script == "ptp_engine"
            engine_cli.parser_of(args.training_script_args[0]).parse_args(args.training_script_args[1:])
        case ["pip", "install", *_, package]:
            extra = package[package.index("[") + 1 : -1]
            assert re.search(rf"^{extra} = \[", (ROOT / "training/pyproject.toml").read_text(), re.M)
        case [_, "-m", module, *_]:
            assert module in ("venv", "twine", "sglang.launch_server") or importlib.util.find_spec(module)
        case ["tensorboard", option, _]:
            assert option == "--logdir"
        case [_, script, *options]:
            source = (ROOT / script).read_text()
            assert all(f'"{option}"' in source for option in options if option.startswith("--"))


def planned(options: list[str]) -> None:
    """Parses the steps of a recipe with its changes. Inputs of the steps may be missing."""
    recipe = commands.parse("run", options)
    folders = [ROOT / "training" / folder for folder in ("recipes", "research/recipes")]
    path = next(path for folder in folders if (path := folder / f"{recipe.recipe}.yaml").is_file())
    import research.__main__  # noqa: F401 - adds its commands

    steps = recipes.load(path)
    for change in recipe.set:
        recipes.override(steps, change)
    for name, given in steps.items():
        recipes.parse_step(name, given, path.parent, recipe.work)


def test_a_draft_model_keeps_rows_and_special_tokens_of_its_target(root):
    """This test reads files that the commands in the tests above write."""
    manifests = [json.loads((root / f"models/{name}/manifest.json").read_text()) for name in ("qwen3", "draft")]
    assert [m["sizes"]["vocab"] for m in manifests] == [320, 320]
    assert [m["sizes"]["layers"] for m in manifests] == [10, 3]
    for name in ("end_of_text", "stop_tokens", "begin_of_text"):
        assert manifests[0][name] == manifests[1][name]
    assert load_target(root / "training/work/qwen3/draft.pt").config.vocab == 320
    assert not (root / "training/work/qwen3/qwen3").exists()
