"""Commands of the documents: lines in blocks of code, and code in backticks that starts with a program."""

import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = re.compile(r"(?:\w+=\S+ )*(?:\S*/)?(ptp-train|ptp-engine|torchrun|tensorboard|pip|python3?) ")
"""Beginning of a command of a Python program. test/documented-commands.test.ts checks the commands of other programs."""
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.M | re.S)
SHELL = ("", "sh")


def documents() -> list[str]:
    """Returns the paths of all documents, except for the history of changes."""
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for path in listed.split() if not path.startswith("models/") and path != "CHANGELOG.md"]


def commands_of(document: str) -> list[str]:
    """Returns the commands of a document in order, each on one line and without comments."""
    text = (ROOT / document).read_text(encoding="utf8")
    lines = [line for language, block in BLOCK.findall(text) if language in SHELL for line in lines_of(block)]
    inline = re.findall(r"`([^`]+)`", BLOCK.sub("", text))
    commands = [" ".join(command.split()) for command in [*lines, *inline]]
    return [command for command in commands if PROGRAM.match(command)]


def lines_of(block: str) -> list[str]:
    """Returns the commands in a block of code."""
    joined = block.replace("\\\n", " ").split("\n")
    return [part.strip(" ()") for line in joined for part in re.sub(r"(^|\s)#.*", "", line).split(" && ")]
