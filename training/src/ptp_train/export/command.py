"""Writes a model folder for the server, or the target in the format of another engine."""

import argparse
import json
import pathlib
from dataclasses import replace

from ..cli.settings import integer, integers, require
from ..model.drafter import load_drafter
from ..model.stored_target import StoredTarget
from . import manifest, portable, to_gguf, to_hf, to_transformers_js
from .graphs.weight_file import BATCH_INVARIANT, PRECISIONS, STORAGES
from .model_folder import Form, serve_context, write_folder

FORMATS = ("server", "hf", "gguf", "transformers-js")
MODELS = pathlib.Path("../models/default")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--to",
        choices=FORMATS,
        default="server",
        help="format to write: the server's model folder, or the target alone for transformers (hf), llama.cpp (gguf) or "
        "transformers.js",
    )
    add("--from", type=pathlib.Path, help="model folder whose target to export, instead of --target")
    add(
        "--type",
        choices=to_gguf.TYPES,
        default="f32",
        help="number format of matrices, with --to gguf and hf (f32, f16)",
    )
    add("--layers", type=integer(1, 96), help="export only the first N layers; not with --to server (default: all)")
    add("--target", type=pathlib.Path, default=pathlib.Path("work/target.pt"), help="the target's checkpoint")
    add("--drafter", type=pathlib.Path, default=pathlib.Path("work/drafter.pt"), help="the drafter's checkpoint")
    add("--tokens", type=pathlib.Path, default=pathlib.Path("work/tokens"), help="folder of tokenizer.json")
    add("--evaluation", type=pathlib.Path, default=pathlib.Path("work/evaluation.json"), help="report of `evaluate`")
    add("--sources", type=pathlib.Path, default=pathlib.Path("work/corpus/sources.json"), help="report of `corpus`")
    add("--out", type=pathlib.Path, default=MODELS, help="folder to write, or file to write with --to gguf")
    add("--id", help="model name for clients (default with --from: the name in the folder)")
    add("--target-only", action="store_true", help="write no drafter, for plain decoding")
    add(
        "--target-precision",
        choices=BATCH_INVARIANT,
        default="float32",
        help="number format of the target's matrix products",
    )
    add(
        "--device",
        choices=("cpu", "gpu"),
        default="cpu",
        help="gpu writes a target that keeps its KV caches on the GPU (default: cpu, which runs on both)",
    )
    add(
        "--drafter-precision",
        choices=PRECISIONS,
        default="float32",
        help="number format of the drafter's matrix products; int8-fused is fastest, with one scale for all rows of a product",
    )
    add(
        "--slots",
        type=integers(1, 64),
        help="numbers of slots for which to write graphs (default: 1,2,4,8; for targets with 200 M parameters or more, "
        "8 for the target and 1,4 for the drafter)",
    )
    add(
        "--context",
        type=integer(2, 131_072),
        help="maximum number of tokens in a served sequence (default: the training length, beyond which the target extrapolates)",
    )
    add(
        "--storage",
        choices=STORAGES,
        help="number format of the target's matrices: rounded to float16, or exact "
        "(default: exact for imported models, else float16)",
    )


def check(args: argparse.Namespace) -> None:
    source: pathlib.Path | None = getattr(args, "from")
    if args.to == "server":
        require(bool(args.id), "--id must be given")
        others = f"{', '.join(FORMATS[1:-1])} or {FORMATS[-1]}"
        require(source is None, f"--from can only be used with --to {others}, got --to {args.to}")
    else:
        require(args.out != MODELS, f"--out must be given with --to {args.to}")
        types = {"hf": ("f32", "f16"), "gguf": to_gguf.TYPES, "transformers-js": ("f32",)}[args.to]
        require(args.type in types, f"--type must be one of {', '.join(types)} with --to {args.to}, got {args.type}")
    if args.device == "gpu":
        require(args.to == "server", f"--device gpu can only be used with --to server, got --to {args.to}")
        require(
            args.target_precision == "float32",
            f"--target-precision must be float32 with --device gpu, got {args.target_precision}",
        )
    counts = args.slots
    fine = counts is None or (counts[0] == 1 and list(counts) == sorted(set(counts)))
    require(fine, f"--slots must start with 1 and be in ascending order, got {','.join(map(str, counts or ()))}")


def convert(args: argparse.Namespace) -> None:
    """Writes the target in the format of another engine."""
    source: pathlib.Path | None = getattr(args, "from")
    if source:
        model = portable.from_folder(source)
    else:
        model = portable.from_checkpoint(args.target, args.tokens, args.id or args.target.stem)
    model = replace(model, id=args.id or model.id)
    if args.layers:
        layers = model.target.config.layers
        require(args.layers <= layers, f"--layers must be at most {layers}, got {args.layers}")
        model = portable.with_layers(model, args.layers)
    try:
        if args.to == "hf":
            to_hf.write(model, args.out, args.type)
        elif args.to == "gguf":
            to_gguf.write(model, args.out, args.type)
        else:
            to_transformers_js.write(model, args.out)
    except ImportError as missing:
        raise SystemExit(
            f"--to {args.to} requires the package {missing.name}: run pip install -e '.[convert]'"
        ) from None
    print(json.dumps({"out": args.out.name, "format": args.to, "layers": model.target.config.layers}))


def run(args: argparse.Namespace) -> None:
    if args.to != "server":
        convert(args)
        return
    path = None if args.target_only else args.drafter
    facts = manifest.gather(args.target, path, args.evaluation, args.sources, args.tokens / "tokens.json")
    storage = args.storage or ("exact" if "source" in facts["target"] else "float16")
    template = args.tokens / "chat_template.jinja"
    target, drafter = StoredTarget(args.target), load_drafter(path) if path else None
    if args.context:
        serve_context(target, drafter, args.context)
    write_folder(
        target,
        drafter,
        (args.tokens / "tokenizer.json").read_bytes(),
        args.out,
        args.id,
        facts,
        Form(args.target_precision, storage),
        Form(args.drafter_precision),
        template.read_bytes() if template.exists() else None,
        args.slots,
        device=args.device,
    )
    if "corpus" in facts:
        sources = json.loads(args.sources.read_text())
        (args.out / "LICENCES.md").write_text(manifest.licences(sources), encoding="utf8")
    if args.target_precision == "int8":
        print(f"int8 changes the target slightly: `ptp-train evaluate --folder {args.out}` measures the change")
    sizes = {f.name: f.stat().st_size for f in sorted(args.out.iterdir())}
    print(json.dumps({"out": args.out.name, "bytes": sum(sizes.values()), "files": sizes}))
