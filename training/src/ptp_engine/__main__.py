"""Runs a model on PyTorch for the server.

usage: ptp-engine ROLE MODEL [options]      ptp-engine ROLE --help

  target       serve a Hugging Face model folder to the verifier
  drafter      serve a PTP drafter, a checkpoint of ptp-train, to the drafter service

For example, a pair on one GPU:

  ptp-engine target ~/models/Qwen3-8B --memory-fraction 0.7
  ptp-engine drafter work/drafter.pt --target ~/models/Qwen3-8B --memory-fraction 0.2

The services connect with PTP_ENGINE=127.0.0.1:7202 (verifier) and PTP_ENGINE=127.0.0.1:7201 (drafter). One target on
several GPUs: torchrun --standalone --nproc-per-node 4 -m ptp_engine target MODEL
"""

import sys

from ptp_train.cli.settings import unknown_option

from .cli import ROLES, parse, run


def main(words: list[str] | None = None) -> None:
    """Runs a command line, which is given without the program's name."""
    words = sys.argv[1:] if words is None else words
    if not words or words[0] in ("-h", "--help"):
        print((__doc__ or "").rstrip())
        return
    role, *rest = words
    if role not in ROLES:
        raise SystemExit(f"ptp-engine: role {unknown_option(role, list(ROLES))}")
    args = parse(role, rest)
    try:
        run(args)
    except KeyboardInterrupt:
        raise SystemExit(f"ptp-engine {role}: interrupted") from None


if __name__ == "__main__":
    main()
