"""Options of `ptp-engine`, and the start of a worker. PyTorch is loaded only after the options have been checked."""

import argparse
import asyncio
import contextlib
import logging
import os
import pathlib
import re
import signal
import threading
import time
from collections.abc import Iterator

from ptp_train.cli.settings import Parser, integer, matching, number, require

from .log import log, start_logging
from .model import Model

ROLES = {"target": "serve a target to the verifier", "drafter": "serve a PTP drafter to the drafter service"}
PORTS = {"target": 7202, "drafter": 7201}
ON_HUB = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(?<!\.pt)")
"""Names of models on the hub. Names that end with .pt are checkpoints."""
STILL_LOADING = 10
"""Interval between log lines while a model loads, seconds."""


def parser_of(role: str) -> Parser:
    """Returns the parser of a role's options."""
    parser = Parser(prog=f"ptp-engine {role}", description=f"Loads a model on PyTorch to {ROLES[role]}.")
    add = parser.add_argument
    model = "Hugging Face model: a folder (config.json, *.safetensors), or a name on the hub such as Qwen/Qwen3-8B"
    if role == "target":
        add("model", metavar="MODEL", help=model)
    else:
        add("model", type=pathlib.Path, metavar="CHECKPOINT", help="drafter checkpoint of `ptp-train distill`")
        add("--target", required=True, help=f"the drafter's target: {model}; or a target checkpoint of ptp-train")
        add(
            "--evaluation",
            type=pathlib.Path,
            help="report of `ptp-train evaluate` with the yield curve (default: evaluation.json in the checkpoint's "
            "folder; without a report, the curve is guessed)",
        )
    address = matching(r"unix:.+|\S+:\d+", "host:port or unix:/path")
    add("--listen", type=address, default=f"127.0.0.1:{PORTS[role]}", help="address of EngineService")
    device = matching(r"auto|cpu|cuda(:\d+)?", "auto, cpu, cuda or cuda:N")
    add("--device", type=device, default="auto", help="device of the model; auto: a GPU if PyTorch finds a GPU")
    add(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="number format of weights and KV cache; auto: bfloat16 on a GPU, float32 on a CPU",
    )
    add("--context-length", type=integer(2), help="maximum number of tokens in a sequence (default: the model's)")
    add("--max-sequences", type=integer(1, 4096), default=64, help="maximum number of open sequences")
    add("--max-slots", type=integer(1, 256), default=16, help="maximum number of sequences in one run")
    add(
        "--memory-fraction",
        type=number(0, 1, above=True),
        default=0.9,
        help="share of the GPU's memory for the weights and the KV cache of this process",
    )
    add("--kv-megabytes", type=integer(1), help="size of the KV cache, instead of the rest of --memory-fraction")
    if role == "target":
        add(
            "--pass-tokens",
            type=integer(2, 4096),
            default=64,
            help="number of tokens in every pass of the model on a GPU; a larger number helps many clients and slows "
            "down a single client",
        )
    add("--no-prefix-cache", action="store_true", help="do not keep the rows of closed sequences")
    add("--threads", type=integer(1, 1024), help="CPU threads (default: one per core, or OMP_NUM_THREADS)")
    add(
        "--exit-with-stdin",
        action="store_true",
        help="stop when standard input is closed, for example because the parent process has ended",
    )
    return parser


def parse(role: str, words: list[str]) -> argparse.Namespace:
    """Parses a role's options. Exits if a file in the options is missing, or if torchrun cannot start the role."""
    args = parser_of(role).parse_args(words)
    args.role = role
    names = {"model": "MODEL" if role == "target" else "CHECKPOINT", "target": "--target", "evaluation": "--evaluation"}
    for option, name in names.items():
        path = getattr(args, option, None)
        on_hub = isinstance(path, str) and ON_HUB.fullmatch(path)
        require(
            path is None or pathlib.Path(path).exists() or on_hub,
            f"ptp-engine {role}: {name} must exist, {path} is missing",
        )
    if in_group():
        require(role == "target", "ptp-engine drafter must run in one process: start it without torchrun")
        require(
            ":" not in args.device,
            f"ptp-engine target: --device must be auto, cpu or cuda with torchrun, got {args.device}",
        )
    return args


def in_group() -> bool:
    """Returns true if torchrun has started this process together with others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def run(args: argparse.Namespace) -> None:
    """Loads the model and serves it until the process receives SIGTERM or SIGINT."""
    start_logging(args.role)
    if args.exit_with_stdin and os.environ.get("RANK", "0") == "0":  # The other ranks end with rank 0.
        threading.Thread(target=stop_at_end_of_input, daemon=True).start()
    try:
        import grpc  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as missing:
        raise SystemExit(f"ptp-engine requires the package {missing.name}: run pip install -e '.[serve]'") from None
    from . import parallel
    from .server import serve

    group = parallel.join(args.device) if in_group() else None
    if group is not None and group.rank > 0:
        log.setLevel(logging.WARNING)
    with progress(args):
        model = load(args)
    if group is None:
        asyncio.run(serve(model, args.listen))
    elif group.rank == 0:
        asyncio.run(serve(parallel.Leader(model, group), args.listen))
    else:
        parallel.follow(model, group)


def stop_at_end_of_input() -> None:
    """Stops this process like SIGTERM when standard input ends."""
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def load(args: argparse.Namespace) -> Model:
    import transformers

    from ptp_train.train.device import use_threads

    if args.threads:
        use_threads(args.threads)
    transformers.utils.logging.disable_progress_bar()
    if args.role == "target":
        from .target import TargetModel

        return TargetModel.load(args)
    from .drafter_load import load_drafter_model

    return load_drafter_model(args)


@contextlib.contextmanager
def progress(args: argparse.Namespace) -> Iterator[None]:
    """Logs that the model is loading, every STILL_LOADING seconds, and the result."""
    name = pathlib.Path(args.model).name
    began, done = time.monotonic(), threading.Event()

    def report() -> None:
        while not done.wait(STILL_LOADING):
            log.info("still loading", extra={"seconds": round(time.monotonic() - began)})

    log.info("loading", extra={"model": name})
    threading.Thread(target=report, daemon=True).start()
    try:
        yield
    finally:
        done.set()
    log.info("loaded", extra={"model": name, "seconds": round(time.monotonic() - began, 1)})
