"""Kinds of source text, so that evaluations can show which text is easy to draft."""

import re
from collections import Counter

COMMENT = re.compile(r"\s*(//|/\*|\*)")
TEST = re.compile(r"\b(describe|it|test|expect)\s*\(")
JSON = re.compile(r'\s*("(\\.|[^"\\])*"\s*(:.*)?|[\[\]{}]*|[\w.+-]+),?\s*')
DECLARATIONS = {
    "classes": re.compile(r"\b(class|constructor|private|protected|public|static)\b|^\s*(get|set)\s+\w+\("),
    "interfaces": re.compile(r"\binterface\b|^\s*(readonly\s+)?[\w$'\"]+\??:\s"),
    "functions": re.compile(r"\bfunction\b|=>|^\s*[\w$]+(<.*>)?\(.*\)\s*[:{]"),
}
"""Patterns of lines that belong to a kind of declaration."""


def category(text: str) -> str:
    """Returns the kind of a piece of TypeScript or JSON that may begin and end anywhere: "comments" if at least half of
    its characters are in lines of comments, else "tests", "JSON", or the kind of declaration with the most lines, or
    "other".
    """
    lines = [line for line in text.splitlines() if line.strip()]
    code = [line for line in lines if not COMMENT.match(line)]
    if 2 * sum(map(len, code)) <= sum(map(len, lines)):
        return "comments"
    if sum(bool(TEST.search(line)) for line in code) >= 2:
        return "tests"
    whole = code[1:-1] or code[1:] or code  # The first and last lines may be cut.
    if any(":" in line for line in code) and all(JSON.fullmatch(line) for line in whole):
        return "JSON"
    counts = Counter(kind for line in code for kind, pattern in DECLARATIONS.items() if pattern.search(line))
    return counts.most_common(1)[0][0] if counts else "other"
