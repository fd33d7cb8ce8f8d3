"""Builds the text corpus: TypeScript declaration files of the npm packages that corpus/package.json names.

Only packages with a permissive licence are read, near-duplicate files are dropped, and two test sets are set aside
before anything is trained: whole packages (`held_packages`) and a random share of the other files (`held_files`).
"""

import argparse
import hashlib
import json
import pathlib
import re

PERMISSIVE = {
    *(
        "MIT",
        "Apache-2.0",
        "ISC",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "0BSD",
        "CC0-1.0",
        "Unlicense",
        "BlueOak-1.0.0",
    ),
    *("(MIT OR CC0-1.0)", "(Apache-2.0 AND BSD-3-Clause)"),
}
HELD_PACKAGES = ("zod", "fastify", "rxjs", "@types/leaflet", "ioredis")
HELD_FILES_SHARE = 0.02
COPYRIGHT = re.compile(r"^\W*(copyright (?:\(c\)|©|\d).{3,160})$", re.IGNORECASE | re.MULTILINE)
PACKAGE_LIMIT_BYTES = 1_200_000
FILE_LIMIT_CHARS = 400_000
SEEN_LINES_LIMIT = 0.5
"""A file is a near-duplicate when more than this share of its lines (of 16 or more characters) stand in earlier files."""


def licence_of(package_dir: pathlib.Path) -> str:
    """The SPDX name in a package's package.json, or "" where none is given as a plain string."""
    manifest = json.loads((package_dir / "package.json").read_text(encoding="utf8"))
    licence = manifest.get("license", "")
    return licence if isinstance(licence, str) else ""


def copyright_of(package_dir: pathlib.Path) -> str:
    """The copyright lines of a package's licence file, joined by "; "; its author where it has no such file."""
    lines: list[str] = []
    for file in sorted(package_dir.glob("*")):
        if file.is_file() and file.name.upper().startswith(("LICEN", "COPYING", "COPYRIGHT", "NOTICE")):
            text = file.read_text(encoding="utf8", errors="replace")
            lines += [" ".join(m.split()) for m in COPYRIGHT.findall(text)]
    if not lines:
        author = json.loads((package_dir / "package.json").read_text(encoding="utf8")).get("author", "")
        lines = [author.get("name", "") if isinstance(author, dict) else author]
    return "; ".join(dict.fromkeys(lines))


def clean(text: str) -> str | None:
    """Normalised text of one declaration file, or None for a file that is not written by and for people."""
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
    """Whether most of the text's longer lines were met before; the lines of a kept file are added to `seen`."""
    lines = [stripped for line in text.split("\n") if len(stripped := line.strip()) >= 16]
    if not lines or sum(line in seen for line in lines) / len(lines) > SEEN_LINES_LIMIT:
        return True
    seen.update(lines)
    return False


def split_of(package: str, path: str) -> str:
    """`train`, `held_files` or `held_packages`; a function of the names alone, so that every build agrees."""
    if package in HELD_PACKAGES:
        return "held_packages"
    digest = int.from_bytes(hashlib.sha256(f"{package}/{path}".encode()).digest()[:8], "big")
    return "held_files" if digest / 2**64 < HELD_FILES_SHARE else "train"


def build(corpus_dir: pathlib.Path, out_dir: pathlib.Path) -> dict:
    """Reads corpus_dir/node_modules, writes out_dir/{train,held_files,held_packages}.jsonl and sources.json.

    Each line is {"package", "path", "text"}. Returns what sources.json holds: bytes by split and, by package, version,
    licence and bytes.
    """
    manifest = json.loads((corpus_dir / "package.json").read_text(encoding="utf8"))
    names = sorted(manifest["dependencies"], key=lambda name: (name not in HELD_PACKAGES, name))
    seen: set[str] = set()
    documents: dict[str, list[dict]] = {"train": [], "held_files": [], "held_packages": []}
    sources: dict[str, dict] = {}
    for package in names:
        package_dir = corpus_dir / "node_modules" / package
        licence = licence_of(package_dir)
        if licence not in PERMISSIVE:
            print(f"left out {package}: licence {licence!r} is not on the permissive list")
            continue
        taken = 0
        for file in sorted(package_dir.rglob("*.d.ts"), key=lambda f: (len(f.parts), str(f))):
            path = file.relative_to(package_dir)
            if "node_modules" in path.parts or taken >= PACKAGE_LIMIT_BYTES:
                continue
            try:
                text = clean(file.read_text(encoding="utf8"))
            except UnicodeDecodeError:
                continue
            if text is None or is_near_duplicate(text, seen):
                continue
            taken += len(text.encode())
            entry = {"package": package, "path": str(path), "text": text}
            documents[split_of(package, str(path))].append(entry)
        if taken:
            version = json.loads((package_dir / "package.json").read_text(encoding="utf8"))["version"]
            notice = copyright_of(package_dir)
            sources[package] = {"version": version, "licence": licence, "copyright": notice, "bytes": taken}
    out_dir.mkdir(parents=True, exist_ok=True)
    for split, entries in documents.items():
        with (out_dir / f"{split}.jsonl").open("w", encoding="utf8") as f:
            f.writelines(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
    total = {split: sum(len(e["text"].encode()) for e in entries) for split, entries in documents.items()}
    report = {"bytes": total, "files": {s: len(e) for s, e in documents.items()}, "packages": sources}
    (out_dir / "sources.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf8")
    return report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--corpus",
        type=pathlib.Path,
        default=pathlib.Path("corpus"),
        help="folder with package.json and node_modules",
    )
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("work/corpus"), help="folder for the .jsonl files"
    )


def run(args: argparse.Namespace) -> None:
    if not (args.corpus / "node_modules").is_dir():
        raise SystemExit(f"{args.corpus}/node_modules is missing: run `npm ci --ignore-scripts` in {args.corpus} first")
    report = build(args.corpus, args.out)
    print(json.dumps({"bytes": report["bytes"], "files": report["files"], "packages": len(report["packages"])}))
