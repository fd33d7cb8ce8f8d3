"""Installed npm packages, their licences and copyright lines."""

import json
import pathlib
import re
from collections.abc import Iterator

PERMISSIVE = {
    *("MIT", "Apache-2.0", "ISC", "BSD-2-Clause", "BSD-3-Clause", "0BSD", "CC0-1.0", "Unlicense", "BlueOak-1.0.0"),
    *("(MIT OR CC0-1.0)", "(Apache-2.0 AND BSD-3-Clause)"),
}
COPYRIGHT = re.compile(r"^\W*(copyright (?:\(c\)|©|\d).{3,160})$", re.IGNORECASE | re.MULTILINE)


def licence_of(package_dir: pathlib.Path) -> str:
    """Returns the SPDX expression in package.json, or "" if it has none."""
    manifest = json.loads((package_dir / "package.json").read_text(encoding="utf8"))
    licence = manifest.get("license", "")
    return licence if isinstance(licence, str) else ""


def copyright_of(package_dir: pathlib.Path) -> str:
    """Returns the copyright lines of a package's licence file, joined by "; ", or else the package's author."""
    lines: list[str] = []
    for file in sorted(package_dir.glob("*")):
        if file.is_file() and file.name.upper().startswith(("LICEN", "COPYING", "COPYRIGHT", "NOTICE")):
            text = file.read_text(encoding="utf8", errors="replace")
            lines += [" ".join(m.split()) for m in COPYRIGHT.findall(text)]
    if not lines:
        author = json.loads((package_dir / "package.json").read_text(encoding="utf8")).get("author", "")
        lines = [author.get("name", "") if isinstance(author, dict) else author]
    return "; ".join(dict.fromkeys(lines))


def installed(corpus_dir: pathlib.Path, every: bool, first: tuple[str, ...]) -> list[str]:
    """Returns the names of the dependencies in package.json, or of all packages in node_modules. Names in `first` come
    first.
    """
    if every:
        modules = corpus_dir / "node_modules"
        names = {str(m.parent.relative_to(modules)) for p in ("*", "@*/*") for m in modules.glob(f"{p}/package.json")}
        names = {n for n in names if not (modules / n).is_symlink()}
    else:
        names = set(json.loads((corpus_dir / "package.json").read_text(encoding="utf8"))["dependencies"])
    return sorted(names, key=lambda name: (name not in first, name))


def npm_sources(
    corpus_dir: pathlib.Path, every: bool, first: tuple[str, ...]
) -> Iterator[tuple[str, pathlib.Path, dict]]:
    """Yields name, folder and facts of packages with a permissive licence.

    Packages in `first` come first, so that the removal of near-duplicates keeps their files.
    """
    for package in installed(corpus_dir, every, first):
        folder = corpus_dir / "node_modules" / package
        licence = licence_of(folder)
        if licence not in PERMISSIVE:
            print(f"skipped {package}: licence {licence!r} is not on the permissive list")
            continue
        version = json.loads((folder / "package.json").read_text(encoding="utf8")).get("version", "")
        yield package, folder, {"version": version, "licence": licence, "copyright": copyright_of(folder)}
