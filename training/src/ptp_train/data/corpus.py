"""Builds the text corpus: TypeScript declaration files of npm packages, or the files of any folder (--text).

Only npm packages with a permissive licence are read. For --text, the user has to check licences. Near-duplicate files
are dropped. Two test sets are held out: whole packages, or sub-folders and single files of --text (`held_packages`),
and a random share of the other files (`held_files`).
"""

import argparse
import hashlib
import json
import pathlib
from collections.abc import Iterator

from ..cli.settings import require
from .npm_packages import npm_sources

HELD_PACKAGES = ("zod", "fastify", "rxjs", "@types/leaflet", "ioredis")
HELD_FILES_SHARE = 0.02
HELD_FILES_BYTES = 4_000
"""Minimum size of `held_files`, provided that twice this size remains to train on."""
HELD_FOLDERS = 25
"""Reciprocal of the share of sub-folders and single files of --text that is held out."""
PACKAGE_LIMIT_BYTES = 1_200_000
FILE_LIMIT_CHARS = 400_000
SEEN_LINES_LIMIT = 0.5
"""Share of lines (of 16 or more characters) that also occur in earlier files. A file with a higher share is a
near-duplicate.
"""


def clean(text: str) -> str | None:
    """Returns the normalised text of a file, or None if it is tiny, minified or generated."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").lstrip("\ufeff")
    lines = text.split("\n")
    if len(text) < 200 or max(map(len, lines)) > 1000 or len(text) / len(lines) > 120:
        return None
    if "sourceMappingURL" in lines[-1]:
        text = "\n".join(lines[:-1]) + "\n"
    if len(text) > FILE_LIMIT_CHARS:
        text = text[:FILE_LIMIT_CHARS]
        text = text[: text.rfind("\n") + 1]
    return text


def is_near_duplicate(text: str, seen: set[str]) -> bool:
    """Returns true if most of the text's longer lines are in `seen`. Otherwise adds the lines to `seen`."""
    lines = [stripped for line in text.split("\n") if len(stripped := line.strip()) >= 16]
    if not lines or sum(line in seen for line in lines) / len(lines) > SEEN_LINES_LIMIT:
        return True
    seen.update(lines)
    return False


def share_of(name: str) -> float:
    """Returns a number in [0, 1) that depends only on the name, so that every build makes the same choice."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def split_of(package: str, path: str, held: set[str]) -> str:
    """Returns `train`, `held_files` or, for the packages in `held`, `held_packages`."""
    if package in held:
        return "held_packages"
    return "held_files" if share_of(f"{package}/{path}") < HELD_FILES_SHARE else "train"


def documents_in(folder: pathlib.Path, pattern: str) -> Iterator[tuple[pathlib.Path, str]]:
    """Yields relative paths and cleaned texts of the files under a folder, shallow paths first, or of a single file.
    Skips nested node_modules.
    """
    files = [folder] if folder.is_file() else folder.rglob(pattern)
    for file in sorted(files, key=lambda f: (len(f.parts), str(f))):
        path = pathlib.Path(file.name) if file == folder else file.relative_to(folder)
        if "node_modules" in path.parts or not file.is_file():
            continue
        try:
            text = clean(file.read_text(encoding="utf8"))
        except UnicodeDecodeError:
            continue
        if text is not None:
            yield path, text


def text_sources(text: pathlib.Path, pattern: str) -> list[tuple[str, pathlib.Path, dict]]:
    """Returns the files of --text that match the pattern, and the sub-folders with such files, ordered by `share_of`.
    The first of these sources are held out.
    """

    def has_text(path: pathlib.Path) -> bool:
        if path.is_dir():
            return path.name != "node_modules" and any(path.rglob(pattern))
        return path.match(pattern)

    found = sorted(filter(has_text, text.iterdir()), key=lambda p: share_of(p.name))
    require(
        len(found) > 1,
        f"--text must have at least 2 sub-folders or files that match {pattern}, got {len(found)}: "
        f"1 in {HELD_FOLDERS} is held out",
    )
    return [(p.name, p, {"version": "", "licence": "not stated", "copyright": ""}) for p in found]


def size_of(entries: list[dict]) -> int:
    """Returns the size of the documents' texts in bytes."""
    return sum(len(entry["text"].encode()) for entry in entries)


def fill_held_files(documents: dict[str, list[dict]]) -> None:
    """Moves documents from `train` to `held_files` until the held-out files suffice for measurements. A small corpus
    would otherwise hold out few files or none. Documents without which `train` would be too small stay there.
    """
    train, held = documents["train"], documents["held_files"]
    for entry in sorted(train, key=lambda entry: share_of(f"{entry['package']}/{entry['path']}")):
        if size_of(held) >= HELD_FILES_BYTES:
            return
        if size_of(train) - size_of([entry]) >= 2 * HELD_FILES_BYTES:
            train.remove(entry)
            held.append(entry)


def build(args: argparse.Namespace) -> dict:
    """Writes {train,held_files,held_packages}.jsonl, with lines {"package", "path", "text"}, and sources.json.

    Returns the content of sources.json: the number of bytes and files of each split, and the version, licence,
    copyright and number of bytes of each package.
    """
    seen: set[str] = set()
    documents: dict[str, list[dict]] = {"train": [], "held_files": [], "held_packages": []}
    sources: dict[str, dict] = {}
    if args.text:
        found, limit = text_sources(args.text, args.files), None
        held = {name for name, _, _ in found[: -(-len(found) // HELD_FOLDERS)]}
    else:
        found, limit = npm_sources(args.corpus, args.all_packages, HELD_PACKAGES), PACKAGE_LIMIT_BYTES
        held = set(HELD_PACKAGES)
    for package, folder, facts in found:
        taken = 0
        for path, text in documents_in(folder, args.files):
            if limit and taken >= limit:
                break
            if not is_near_duplicate(text, seen):
                taken += len(text.encode())
                documents[split_of(package, str(path), held)].append(
                    {"package": package, "path": str(path), "text": text}
                )
        if taken:
            sources[package] = facts | {"bytes": taken}
    require(bool(documents["train"]), f"--files must match files of at least 200 characters, got {args.files}")
    fill_held_files(documents)
    args.out.mkdir(parents=True, exist_ok=True)
    for split, entries in documents.items():
        with (args.out / f"{split}.jsonl").open("w", encoding="utf8") as f:
            f.writelines(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
    total = {split: size_of(entries) for split, entries in documents.items()}
    report = {"bytes": total, "files": {s: len(e) for s, e in documents.items()}, "packages": sources}
    (args.out / "sources.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf8")
    return report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--corpus", type=pathlib.Path, default=pathlib.Path("corpus"), help="folder with package.json and node_modules")
    add(
        "--all-packages",
        action="store_true",
        help="read all of node_modules, not only the dependencies in package.json",
    )
    add(
        "--text",
        type=pathlib.Path,
        help="read the text files of this folder and its sub-folders instead of npm packages",
    )
    add("--files", default="*.d.ts", help="pattern of the files to read")
    add("--out", type=pathlib.Path, default=pathlib.Path("work/corpus"), help="folder for the .jsonl files")


def check(args: argparse.Namespace) -> None:
    if args.text:
        require(args.text.is_dir(), f"--text must be a folder, got {args.text}")
        text_sources(args.text, args.files)
    else:
        modules = args.corpus / "node_modules"
        require(modules.is_dir(), f"{modules} is missing: run `npm ci --ignore-scripts` in {args.corpus} first")


def run(args: argparse.Namespace) -> None:
    report = build(args)
    print(json.dumps({"bytes": report["bytes"], "files": report["files"], "packages": len(report["packages"])}))
