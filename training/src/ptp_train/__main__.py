"""Trains a target and its drafter, and writes the model folder that the server loads.

usage: ptp-train COMMAND [options]      ptp-train COMMAND --help

Commands in order. Each command reads files that earlier commands wrote under --work (default: work):
{commands}
A recipe (a small YAML file) runs all of these commands, and resumes after an interruption:

  ptp-train run tiny                          a small real pair, minutes on a CPU
  ptp-train run cpu-default --work work/cpu   a pair of the same size as the default pair
  ptp-train run cpu-default --set target.layers=8

Also:
{others}
Progress of a run: tensorboard --logdir work/logs
"""

import sys

from .cli.commands import COMMANDS, check, parse, start
from .cli.settings import unknown_option

OTHERS = ("run", "prompts")


def overview() -> str:
    """Returns the text of `ptp-train --help` without importing PyTorch."""

    def lines(names: list[str]) -> str:
        return "".join(f"  {name:17}{COMMANDS[name].summary}\n" for name in names)

    main_way = [name for name in COMMANDS if name not in OTHERS]
    return (__doc__ or "").format(commands=lines(main_way), others=lines(list(OTHERS))).rstrip()


def main(words: list[str] | None = None) -> None:
    """Runs a command line, which is given without the program's name."""
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
        raise SystemExit(
            f"ptp-train {name}: interrupted; run the command again to resume from the last checkpoint"
        ) from None


if __name__ == "__main__":
    main()
