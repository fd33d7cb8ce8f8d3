"""Options of the commands, checked before any work starts. Errors name the option, its limits and the given value.

A command module has `add_arguments(parser)` and `run(args)`, and may have `check(args)` for conditions between options.
A recipe checks all of its steps before the first one starts, so `check` must not read files that earlier steps write;
`planned` returns the options of those steps. Path defaults that begin with `work/` move with --work.
"""

import argparse
import difflib
import pathlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

WORK = pathlib.Path("work")


@dataclass(frozen=True)
class Limited:
    """An argparse type with limits, which appear in errors and in --help."""

    convert: Callable[[str], Any]
    accepts: Callable[[Any], bool]
    limits: str

    def __call__(self, text: str) -> Any:
        try:
            value = self.convert(text)
        except (ValueError, TypeError):
            value = None
        if value is None or not self.accepts(value):
            raise argparse.ArgumentTypeError(f"must be {self.limits}, got {text}")
        return value


def _whole(text: str) -> int:
    return int(text.replace("_", "").replace(",", ""))


def integer(low: int, high: int | None = None) -> Limited:
    """Returns an argparse type that accepts integers in [low, high]. It also accepts 1_000_000."""
    limits = f"in [{low}, {high}]" if high is not None else f"an integer of at least {low}"
    return Limited(_whole, lambda n: n >= low and (high is None or n <= high), limits)


def number(low: float, high: float | None = None, above: bool = False) -> Limited:
    """Returns an argparse type that accepts finite numbers in [low, high], or in (low, high] if `above` is true."""
    limits = (
        f"in {'(' if above else '['}{low:g}, {high:g}]"
        if high is not None
        else f"{'above' if above else 'at least'} {low:g}"
    )

    def accepts(x: float) -> bool:
        return (x > low if above else x >= low) and (x < float("inf") if high is None else x <= high)

    return Limited(float, accepts, limits)


def multiple(of: int, low: int, high: int) -> Limited:
    """Returns an argparse type that accepts multiples of `of` in [low, high]."""
    return Limited(_whole, lambda n: low <= n <= high and n % of == 0, f"a multiple of {of} in [{low}, {high}]")


def integers(low: int, high: int | None = None) -> Limited:
    """Returns an argparse type that accepts comma-separated integers in [low, high]: "0,1,3" -> (0, 1, 3)."""
    limits = f"comma-separated integers {f'in [{low}, {high}]' if high is not None else f'of at least {low}'}"
    good = integer(low, high).accepts
    return Limited(lambda t: tuple(int(x) for x in t.split(",")), lambda v: all(map(good, v)), limits)


def numbers(*names: str) -> Limited:
    """Returns an argparse type that accepts comma-separated numbers, one for each name: numbers("temperature", "top_k",
    "top_p").
    """
    limits = f"{len(names)} comma-separated numbers ({', '.join(names)})"
    return Limited(lambda t: tuple(float(x) for x in t.split(",")), lambda v: len(v) == len(names), limits)


def matching(pattern: str, limits: str) -> Limited:
    """Returns an argparse type that accepts texts that match all of `pattern`. `limits` describes the pattern in
    errors.
    """
    return Limited(str, lambda t: re.fullmatch(pattern, t) is not None, limits)


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Adds limits and default to each option's help."""

    def _get_help_string(self, action: argparse.Action) -> str:
        facts = [action.type.limits] if isinstance(action.type, Limited) else []
        if action.default not in (None, False, argparse.SUPPRESS) and action.option_strings:
            default = action.default
            shown = " ".join(map(str, default)) if isinstance(default, list) else default
            shown = ",".join(map(str, default)) if isinstance(default, tuple) else shown
            facts.append(f"default {shown}".replace("%", "%%"))
        return f"{action.help or ''} ({'; '.join(facts)})".strip() if facts else action.help or ""


class Parser(argparse.ArgumentParser):
    """Reports errors on one line, such as `--vocab-size must be in [257, 32768], got 100`, without the usage text."""

    def __init__(self, **settings: Any):
        super().__init__(allow_abbrev=False, formatter_class=Formatter, **settings)

    def error(self, message: str) -> NoReturn:
        message = re.sub(r"^argument (\S+?)(?:/\S+)?: (must )", r"\1 \2", message)
        message = re.sub(
            r"^argument (\S+?)(?:/\S+)?: invalid choice: '?(.*?)'? \(choose from (.*)\)$",
            r"\1 must be one of \3, got \2",
            message,
        )
        message = re.sub(r"^the following arguments are required: ", "must be given: ", message)
        raise SystemExit(f"{self.prog}: {message}")

    def parse_args(self, args: list[str] | None = None, namespace: Any = None) -> argparse.Namespace:  # type: ignore[override]
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(unknown_option(unknown[0], [o for a in self._actions for o in a.option_strings]))
        move_work(self, found)
        return found


def unknown_option(given: str, valid: list[str]) -> str:
    """Returns an error message for an unknown option, step or command, which suggests the nearest valid name."""
    near = difflib.get_close_matches(given.split("=")[0], valid, 1, 0.5)
    return f"{given} is unknown{f': did you mean {near[0]}?' if near else ''}"


def move_work(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Moves path options that are left at a default under `work/` to --work."""
    root = getattr(args, "work", WORK)

    def moved(path: Any) -> Any:
        inside = isinstance(path, pathlib.Path) and path.parts[:1] == WORK.parts
        return root / path.relative_to(WORK) if inside else path

    for action in parser._actions:
        value = getattr(args, action.dest, None)
        if value is not None and value is action.default and action.dest != "work":
            setattr(args, action.dest, [moved(p) for p in value] if isinstance(value, list) else moved(value))


def require(condition: bool, message: str) -> None:
    """Exits with `message` unless `condition` holds. The message names the option, the limit and the value."""
    if not condition:
        raise SystemExit(message)


def planned(args: argparse.Namespace, path: pathlib.Path) -> argparse.Namespace | None:
    """Returns the options of the recipe's earlier step whose --out is `path`, or None if there is none."""
    return next((step for step in reversed(getattr(args, "earlier", [])) if getattr(step, "out", None) == path), None)
