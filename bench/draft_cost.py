"""Measures a draft of 8 tokens against a verify of 9, on exported int8 graphs in the shape of Qwen3-0.6B.

    PYTHONPATH=training/src python bench/draft_cost.py --out FOLDER      # one thread, 4 GB of memory
    PYTHONPATH=training/src python bench/draft_cost.py --out FOLDER --small

The calls take turns. Prints the median and shortest durations, and the types of ONNX nodes that take longest
(docs/results.md, "Cost of a draft"). FOLDER keeps the graphs for another run.
"""

import argparse
import gc
import json
import pathlib
import time
from collections import Counter

import numpy as np
import onnxruntime
import torch
from ptp_train.export.graphs.drafter_graph import drafter_graph
from ptp_train.export.graphs.target_graph import target_graph
from ptp_train.export.graphs.weight_file import WeightFile
from ptp_train.model.drafter import Drafter, DrafterConfig
from ptp_train.model.transformer import Config
from random_qwen3 import SIZES, SMALL, VOCABULARY, random_target

PAST, NEW, DRAFT = 256, 4, 8
"""Numbers of cached tokens, of new tokens in a draft call, and of drafted tokens."""
SHORTLIST, RANK = 32_768, 128
SAMPLING = {"temperature": 0.7, "top_p": 0.9, "top_k": 50}


def forms(sizes: dict) -> dict[str, dict]:
    """Returns the settings of each drafter in the comparison."""
    rank = min(RANK, sizes["width"] // 8)
    return {
        "draft, head at each position": {"rank": sizes["width"] // 2 + 64},
        "draft, head once": {"rank": rank},
        "draft, head once, shortlist": {"rank": rank, "shortlist": SHORTLIST},
    }


@torch.no_grad()
def export(out: pathlib.Path, sizes: dict) -> None:
    """Writes the graphs that are missing."""
    path = out / "verify.onnx"
    if not path.exists():
        weights = WeightFile(out / "verify.weights", "int8", "exact")
        target_graph(random_target(sizes), weights, 1, "tree").save(path)
    target = random_target(sizes | {"layers": min(4, sizes["layers"])})  # The drafters read no other layers.
    for name, form in forms(sizes).items():
        path = out / f"{name}.onnx"
        if path.exists():
            continue
        config = DrafterConfig(target.config, (0, 1, 3) if sizes["layers"] > 3 else (0, 1), length=DRAFT, **form)
        listed = torch.randperm(VOCABULARY)[: config.shortlist].sort().values if config.shortlist else None
        drafter = Drafter(config, target, listed).eval()
        torch.nn.init.normal_(drafter.sequential.out.weight, std=0.05)
        drafter_graph(drafter, target, WeightFile(path.with_suffix(".weights"), "int8-fused"), 1).save(path)
        del drafter
        gc.collect()


def context_feeds(c: Config, tokens: int, layers: int, rng: np.random.Generator) -> dict:
    mask = np.zeros((tokens, PAST + tokens), np.float32)
    mask[:, PAST:] = np.triu(np.full((tokens, tokens), -np.inf, np.float32), 1)
    feeds = {"ids": rng.integers(0, c.vocab, (1, tokens)), "pos": PAST + np.arange(tokens)[None], "mask_0": mask}
    for n in range(layers):
        for part in ("k", "v"):
            feeds[f"p{part}{n}_0"] = rng.standard_normal((1, PAST, c.kv_heads * c.head_width)).astype(np.float32)
    return feeds


def verify_feeds(c: Config, rng: np.random.Generator) -> dict:
    rows = DRAFT + 1
    feeds = context_feeds(c, rows, c.layers, rng) | {"rows": np.arange(rows), "top_count": np.array([0])}
    for name, value in (SAMPLING | {"min_p": 0.0}).items():
        feeds[name] = np.full((rows, 1), value, np.int64 if name == "top_k" else np.float32)
    empty = np.zeros((0, c.vocab), np.float32)
    return feeds | {"scale": empty, "bias": empty, "u": rng.random((rows, depth(c)), np.float32)}


def draft_feeds(c: Config, rng: np.random.Generator) -> dict:
    end = PAST + NEW
    mask = np.zeros((DRAFT, end + DRAFT), np.float32)
    mask[:, end:] = np.triu(np.full((DRAFT, DRAFT), -np.inf, np.float32), 1)
    first = np.zeros((1, DRAFT, 1), np.float32)
    first[0, 0] = 1
    column = {name: np.full((1, DRAFT, 1), value, np.float32) for name, value in SAMPLING.items()}
    return (
        context_feeds(c, NEW, 4, rng)
        | column
        | {
            "u": rng.random((1, DRAFT, depth(c)), np.float32),
            "upos": end - 1 + np.arange(DRAFT)[None],
            "first": first,
            "last": np.full((1, DRAFT), 7),
            "excluded": np.full((1, DRAFT), -1),
            "umask_0": mask,
            "grid": np.arange(DRAFT)[:, None],
            "cell": np.arange(DRAFT),
        }
    )


def depth(c: Config) -> int:
    return (c.vocab - 1).bit_length()


class Call:
    """One graph with the inputs of a call."""

    def __init__(self, path: pathlib.Path, feeds: dict):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(path.with_suffix(""))
        self.session = onnxruntime.InferenceSession(path, options)
        taken = {i.name for i in self.session.get_inputs()}
        self.feeds = {name: value for name, value in feeds.items() if name in taken}
        self.run()
        self.durations: list[float] = []

    def run(self) -> float:
        began = time.perf_counter()
        self.session.run(None, self.feeds)
        return 1000 * (time.perf_counter() - began)

    def shares(self) -> dict[str, float]:
        """Returns the total durations of the types of nodes that take longest, milliseconds per run."""
        path = pathlib.Path(self.session.end_profiling())
        spent: Counter[str] = Counter()
        for event in json.loads(path.read_text()):
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                spent[event["args"]["op_name"]] += event["dur"] / 1000 / (len(self.durations) + 1)
        path.unlink()
        return {name: round(ms, 1) for name, ms in spent.most_common(6) if name != "Loop"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="FOLDER", help="folder for the graphs")
    parser.add_argument("--runs", type=int, default=15, help="number of runs of each call (default: 15)")
    parser.add_argument("--small", action="store_true", help="two narrow layers, as a test of this program")
    args = parser.parse_args()
    torch.set_num_threads(1)
    sizes = SMALL if args.small else SIZES
    args.out.mkdir(parents=True, exist_ok=True)
    export(args.out, sizes)
    c = Config(vocab=VOCABULARY, **sizes)
    rng = np.random.default_rng(0)
    names = ["verify", *forms(sizes)]
    calls = {n: Call(args.out / f"{n}.onnx", (verify_feeds if n == "verify" else draft_feeds)(c, rng)) for n in names}
    for _ in range(args.runs):
        for call in calls.values():
            call.durations.append(call.run())
    report = {
        name: {"ms": round(float(np.median(call.durations)), 1), "least": round(min(call.durations), 1)}
        | {"nodes": call.shares()}
        for name, call in calls.items()
    }
    for name, figures in report.items():
        figures["of verify"] = round(figures["least"] / report["verify"]["least"], 3)
        print(json.dumps({"call": name, **figures}))


if __name__ == "__main__":
    main()
