"""Command line: `python -m ptp_train COMMAND --help`."""

import argparse
import importlib

COMMANDS = {
    "corpus": "collect TypeScript declarations from the packages of a corpus folder",
    "tokenizer": "train the tokenizer and encode the corpus",
    "target": "train the target model",
    "samples": "let the target write sequences for distillation",
    "distill": "train a PTP drafter on the target's samples",
    "export": "write models for the server: ONNX graphs, tokenizer, manifest",
    "tiny": "write the tiny random pair of the server's tests",
    "prompts": "write the prompts of the benches from held-out files",
    "evaluate": "measure a pair by coupled decoding on held-out text",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="ptp-train", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, summary in COMMANDS.items():
        module = importlib.import_module(f"ptp_train.{name}")
        sub = commands.add_parser(name, help=summary, description=module.__doc__)
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
