"""Trains a target and a drafter for it, and writes the model folder that the server reads.

usage: ptp-train COMMAND [options]      ptp-train COMMAND --help

In order; each command reads what the ones before wrote under --work (default: work):
{commands}
The whole way by a recipe (a small YAML file), going on where it was left off:

  ptp-train run tiny                          a small real pair, minutes on a CPU
  ptp-train run cpu-default --work work/cpu   the default pair
  ptp-train run cpu-default --set target.layers=8

Also:
{others}
Where a run stands: tensorboard --logdir work/logs
"""

import sys

from .cli.commands import COMMANDS, check, parse, start
from .cli.settings import unknown_option

OTHERS = ("run", "prompts", "tiny")


def overview() -> str:
    """What `ptp-train --help` shows; nothing heavy is imported for it."""

    def lines(names: list[str]) -> str:
        return "".join(f"  {name:17}{COMMANDS[name].summary}\n" for name in names)

    main_way = [name for name in COMMANDS if name not in OTHERS]
    return (__doc__ or "").format(commands=lines(main_way), others=lines(list(OTHERS))).rstrip()


def main(words: list[str] | None = None) -> None:
    """The command line; words without the program's name."""
    words = sys.argv[1:] if words is None else words
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return
    name, *rest = words
    if name not in COMMANDS:
        raise SystemExit(f"ptp-train: command {unknown_option(name, list(COMMANDS))}")
    args = parse(name, rest)
    check(args)
    try:
        start(args)
    except KeyboardInterrupt:
        raise SystemExit(f"ptp-train {name}: interrupted; the same command goes on from the last checkpoint") from None


if __name__ == "__main__":
    main()
