"""Measures ptp-engine's target on one GPU with random weights. Takes a few minutes and needs no downloads.

    python bench/gpu/run.py --out DIR            # in the repository; needs torch, transformers, grpcio and protobuf
    python bench/gpu/run.py --out DIR --tiny     # the same on a CPU with a tiny model, as a test

Writes DIR/gpu.json: for each model, whether results depend on the batch, the time of a verify of 1, 9 and 64 tokens
with and without CUDA graphs, the CPU time of a run outside the model, the time of a token with `generate` of
transformers, and the time to read the weights once; and the time of a drafter and a target that run at once.
"""

import argparse
import datetime
import json
import pathlib
import platform
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "training" / "src"))

import torch  # noqa: E402
import transformers  # noqa: E402
from measure import CONTEXT, at_once, bandwidth, measure  # noqa: E402

from models import SHAPES, TINY, build  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for gpu.json")
    parser.add_argument("--tiny", action="store_true", help="test on a CPU")
    parser.add_argument("--repeats", type=int, help="number of timed runs (default: 30, or 2 with --tiny)")
    args = parser.parse_args()
    if not args.tiny and not torch.cuda.is_available():
        raise SystemExit("PyTorch finds no GPU: use --tiny to test the script on a CPU")
    device = torch.device("cpu" if args.tiny else "cuda")
    if args.tiny:
        torch.set_num_threads(1)
    repeats = args.repeats or (2 if args.tiny else 30)
    args.out.mkdir(parents=True, exist_ok=True)
    began, per_second = time.monotonic(), bandwidth(device)
    report = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": platform.processor() or platform.machine() if args.tiny else torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "context": CONTEXT,
        "copy_gigabytes_per_second": round(per_second / 1e9, 1),
        "models": [],
    }
    targets = {}
    shapes = TINY if args.tiny else SHAPES
    for name, shape in shapes.items():
        targets[name] = build(shape, device)
        report["models"].append(measure(name, targets[name], per_second, repeats))
        print(json.dumps(report["models"][-1]), flush=True)
        (args.out / "gpu.json").write_text(json.dumps(report, indent=2) + "\n")
        if len(targets) > 1 and name != list(shapes)[-1]:
            del targets[name]  # Only the smallest and the largest model run at once.
    report["at_once"] = at_once(*targets.values(), repeats)
    report["seconds"] = round(time.monotonic() - began)
    (args.out / "gpu.json").write_text(json.dumps(report, indent=2) + "\n")
    print(args.out / "gpu.json")


if __name__ == "__main__":
    main()
