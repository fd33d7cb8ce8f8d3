"""Trains and measures drafters that differ in one setting, and writes a table. Each drafter is trained for the same
time, unless its row sets a time.

A YAML file has `base` (options of `distill`) and `rows`. Each row has a name, a group and its own settings; `samples`
names a folder next to --samples. Rows that already have a result are skipped.
"""

import argparse
import json
import pathlib

import torch
import yaml
from torch import Tensor

from ptp_train.cli.settings import integer, number, require
from ptp_train.model.drafter import Drafter, load_drafter
from ptp_train.model.sampling import shape
from ptp_train.model.transformer import Target, identity, load_target, parameters_of
from ptp_train.train import distill
from ptp_train.train.batches import Samples, TargetOutputs, run_target
from ptp_train.train.device import add_precision, use_threads
from ptp_train.train.evaluate import decode
from ptp_train.train.samples import GENERATED
from ptp_train.train.walks import by_drafter, proposals, spread, uniforms_inside

PAIR_STARTS = 24
"""Number of drafted pairs to check per sequence."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--rows", type=pathlib.Path, default=pathlib.Path(__file__).parent / "recipes" / "ablation-rows.yaml")
    add("--target", type=pathlib.Path, default=pathlib.Path("work/target.pt"))
    add(
        "--samples",
        type=pathlib.Path,
        default=pathlib.Path("work/samples"),
        help="folder of the training samples for all rows",
    )
    add(
        "--held",
        type=pathlib.Path,
        nargs="+",
        required=True,
        help="folders of held-out samples, one for each sampling condition",
    )
    add("--out", type=pathlib.Path, default=pathlib.Path("work/ablations"))
    add("--only", nargs="*", help="names of the rows to run (default: all)")
    add("--minutes", type=number(0, above=True), default=2.5, help="processor time in minutes for each row")
    add("--sequences", type=integer(1), default=24, help="number of held-out sequences for each condition")
    add_precision(parser)
    add("--seed", type=integer(0), default=0)


def distill_settings(args: argparse.Namespace, settings: dict, out: pathlib.Path) -> argparse.Namespace:
    """Returns `distill`'s settings of a row. Exits if a name is unknown."""
    parser = argparse.ArgumentParser(prog="ptp-train ablate")
    distill.add_arguments(parser)
    shared = {"target": args.target, "samples": args.samples, "held": args.held[0], "out": out, "minutes": args.minutes}
    shared |= {
        "precision": args.precision,
        "seed": args.seed,
        "threads": 1,
        "clock": "processor",
        "checkpoint-seconds": 1e9,
    }
    settings = shared | settings
    if settings["samples"] != args.samples:
        settings["samples"] = args.samples.parent / settings["samples"]
    words = [f"--{k}" if v is True else f"--{k}={v}" for k, v in settings.items()]
    chosen = parser.parse_args(words)
    distill.check(chosen)
    return chosen


@torch.no_grad()
def impossible_pairs(
    target: Target, drafter: Drafter, outputs: TargetOutputs, count: int, inside: Tensor
) -> tuple[int, int]:
    """Counts drafted two-token beginnings that the target cannot produce, because the second token has probability 0
    after temperature, top-k and top-p.

    Returns the number of such beginnings, and the number of all checked beginnings. Each sequence has `count` starts.
    """
    starts = spread(outputs, drafter.config.length)[:, :: GENERATED // count]
    tokens, _ = proposals(drafter, outputs, starts, inside)
    never = total = 0
    for n in range(starts.shape[1]):
        at = int(starts[0, n])
        ids = torch.cat([outputs.ids[:, :at], tokens[:, n, :1]], 1)
        temperature, top_p, top_k = (t[:, 0, 0] for t in outputs.conditions)
        p = shape(target(ids)[:, -1].float(), temperature, top_k, top_p)
        never += int((p.gather(-1, tokens[:, n, 1:2]) == 0).sum())
        total += len(ids)
    return never, total


def measure(args: argparse.Namespace, path: pathlib.Path) -> dict:
    """Returns the figures of a trained drafter: tokens per call under every condition, and for the first condition also
    accuracy and impossible pairs.
    """
    target, drafter = load_target(args.target), load_drafter(path)
    out: dict = {"parameters": parameters_of(drafter), "tokens_per_call": {}}
    for n, folder in enumerate(args.held):
        samples = Samples(folder, "held_files", "cpu")
        figures = decode(
            target, drafter.config.pick, by_drafter(drafter), samples, args.sequences, drafter.config.length
        )
        out["tokens_per_call"][folder.name] = figures["tokens_per_call"]
        if n == 0:
            out["accuracy"] = figures["accuracy"]
            outputs = run_target(
                target, drafter.config.pick, {k: v[: args.sequences] for k, v in samples.files[0].items()}
            )
            if drafter.config.length > 1:
                never, pairs = impossible_pairs(target, drafter, outputs, PAIR_STARTS, uniforms_inside(outputs, 3))
                out["impossible_pairs"] = round(never / pairs, 4)
    return out


def table(results: list[dict]) -> str:
    """Returns a Markdown table with a row for each result, in groups."""
    held = list(results[0]["tokens_per_call"])
    head = [
        "group",
        "row",
        "minutes",
        "parameters",
        "steps",
        *(f"tokens per call, {h}" for h in held),
        "right, position 1 .. 4",
        "impossible pairs",
    ]
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    for r in results:
        right = " ".join(f"{x:.2f}"[1:] for x in r["accuracy"][:4])
        cells = [r["group"], r["name"], f"{r['minutes']:g}", f"{r['parameters'] / 1e6:.2f} M", str(r["steps"])]
        cells += [f"{r['tokens_per_call'][h]:.2f}" for h in held] + [
            right,
            f"{100 * r.get('impossible_pairs', 0):.1f} %",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def run(args: argparse.Namespace) -> None:
    use_threads(1)
    recipe = yaml.safe_load(args.rows.read_text(encoding="utf8")) or {}
    require("base" in recipe and "rows" in recipe, f"--rows must be a mapping with base and rows, got {args.rows}")
    rows = [r for r in recipe["rows"] if not args.only or r["name"] in args.only]
    if missing := set(args.only or ()) - {r["name"] for r in rows}:
        raise SystemExit(f"--only must name rows of {args.rows}, got {', '.join(sorted(missing))}")
    args.out.mkdir(parents=True, exist_ok=True)
    made_for = identity(load_target(args.target))
    settings = {
        r["name"]: distill_settings(args, recipe["base"] | r.get("settings", {}), args.out / f"{r['name']}.pt")
        for r in rows
    }
    results = []
    for r in rows:
        path = args.out / f"{r['name']}.json"
        asked = {k: str(v) for k, v in sorted(vars(settings[r["name"]]).items())}
        if path.exists():
            known = json.loads(path.read_text())
            same = (known["target"], known.get("settings")) == (made_for, asked)
            require(
                same,
                f"{path} was made with a different target or different settings: remove it, or choose another --out",
            )
        else:
            print(f"== {r['name']}: {r.get('settings', {})}", flush=True)
            distill.run(settings[r["name"]])
            steps = torch.load(settings[r["name"]].out, map_location="cpu")["log"][-1]["step"]
            figures = measure(args, settings[r["name"]].out)
            result = {
                "group": r["group"],
                "name": r["name"],
                "steps": steps,
                "minutes": settings[r["name"]].minutes,
                "target": made_for,
                "settings": asked,
                **figures,
            }
            path.write_text(json.dumps(result) + "\n")
        results.append(json.loads(path.read_text()))
        print(json.dumps(results[-1]), flush=True)
    (args.out / "table.md").write_text(table(results))
    print(json.dumps({"rows": len(results), "minutes_per_row": args.minutes, "target": made_for}))
