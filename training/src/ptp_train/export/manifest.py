"""Builds manifest.json of a model folder: the properties that the server needs, and information for readers. Its schema
is protocol/src/manifest.ts.
"""

import datetime
import hashlib
import json
import pathlib
from collections import Counter
from dataclasses import asdict

from tokenizers import Tokenizer

from ..data.tokenizer import END_OF_TEXT
from ..model import coordinates
from ..model.drafter import Drafter
from ..model.stored_target import AnyTarget
from ..model.transformer import parameters_of, read_checkpoint

FORMAT_VERSION = 1
SPLITS = ("held_files", "held_packages")
RECIPE = {
    "target": ("tokens", "batch_tokens", "context", "seed"),
    "drafter": ("steps", "completions", "context_tokens", "rate", "matrix_rate", "decay", "beta", "seed"),
}
"""Names of the options of train/target.py and train/distill.py that are recorded."""


def digest(path: pathlib.Path) -> str:
    hashed = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            hashed.update(block)
    return hashed.hexdigest()


def gather(target: pathlib.Path, drafter: pathlib.Path | None, evaluation: pathlib.Path, *others: pathlib.Path) -> dict:
    """Collects facts from checkpoints and reports.

    The evaluation must exist if there is a drafter. The other files, sources.json of the corpus and tokens.json of the
    tokenizer, may be missing.
    """
    target_file = read_checkpoint(target)
    drafter_file = read_checkpoint(drafter) if drafter else {}
    sources, tokens = (json.loads(p.read_text()) if p.exists() else None for p in others)
    facts: dict = {
        "target": {k: target_file[k] for k in ("bits_per_byte", "tokens", "source") if k in target_file},
        **target_file.get("special_tokens", {}),
    }
    if drafter:
        facts["drafter"] = drafting_facts(evaluation)
        if mixture := drafter_file.get("trained_for"):
            facts["sampling"] = {"trained_for": mixture}
    if sources and (drafter or "source" not in target_file):  # An imported target was not trained on the corpus.
        licences = Counter(p["licence"] for p in sources["packages"].values())
        facts["corpus"] = {
            "bytes": sources["bytes"],
            "files": sources["files"],
            "packages": len(sources["packages"]),
            "licences": dict(licences.most_common()),
        }
        if tokens:
            facts["corpus"]["tokens"] = {split: t["tokens"] for split, t in tokens.items()}
    for part, file in (("target", target_file), ("drafter", drafter_file)):
        if settings := file.get("settings"):
            recipe = {k: json.loads(settings[k]) for k in RECIPE[part] if k in settings}
            if "steps" in recipe:  # The number of steps actually made. With --minutes it differs from --steps.
                recipe["steps"] = file["log"][-1]["step"]
            facts.setdefault("recipe", {})[part] = recipe
    return facts


def drafting_facts(evaluation: pathlib.Path) -> dict:
    """Returns the results of `evaluate`. Yield curve and accuracy come from the first sampling condition."""
    if not evaluation.exists():
        raise SystemExit(
            f"--evaluation must exist, {evaluation} is missing: run `ptp-train evaluate`, which measures the yield curve"
        )
    settings = json.loads(evaluation.read_text())["settings"]
    first = settings[0]["held_files"]["drafter"]
    return {
        **{name: first[name] for name in ("yield_curve", "yield_curve_after_miss") if name in first},
        "accuracy_by_position": first["accuracy"],
        "measured": [
            {
                "conditions": s["conditions"],
                "tokens_per_call": {split: s[split]["drafter"]["tokens_per_call"] for split in SPLITS},
            }
            for s in settings
        ],
    }


def licences(sources: dict) -> str:
    """Returns the text of a model folder's LICENCES.md, made from the corpus' sources.json."""
    lines = [
        "# Licences of the corpus",
        "",
        "The models in this folder were trained on, or measured with, declaration files of these npm packages.",
        "",
        "| package | version | licence | copyright |",
        "| --- | --- | --- | --- |",
    ]
    for name, p in sorted(sources["packages"].items()):
        notice = p.get("copyright", "").replace("|", "\\|")
        lines.append(f"| {name} | {p['version']} | {p['licence']} | {notice} |")
    return "\n".join(lines) + "\n"


def end_of_text(folder: pathlib.Path, facts: dict) -> int:
    """Returns the token that ends a text: the token in the facts of an imported target, or else END_OF_TEXT."""
    token = facts.get("end_of_text", Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id(END_OF_TEXT))
    if token is None:
        raise SystemExit(f"--tokens must contain a tokenizer with the token {END_OF_TEXT}")
    return token


def build(
    target: AnyTarget,
    drafter: Drafter | None,
    folder: pathlib.Path,
    names: list[str],
    slots: tuple[int, ...],
    identity: str,
    facts: dict,
    pick: str,
) -> dict:
    """Returns the manifest of a folder with the files `names` and graphs that use the rule `pick` (coordinates.py).

    `facts` are merged into it, key by key. With a drafter, facts["drafter"] must have yield_curve and
    accuracy_by_position.
    """
    c = target.config
    width = 2 if facts.get("target", {}).get("cache_type") == "float16" else 4
    row = 2 * c.kv_heads * c.head_width * width
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
    content = {
        "format_version": FORMAT_VERSION,
        "id": identity,
        "created": now,
        "sizes": asdict(c),
        "context_length": c.context,
        "end_of_text": end_of_text(folder, facts),
        "pick": pick,
        "uniforms_per_position": coordinates.dimensions(pick, c.vocab),
        "max_slots": list(slots),
        "bytes_per_token": {"target": c.layers * row},
        "target": {"parameters": parameters_of(target)},
        "tokenizer": {"sha256": digest(folder / "tokenizer.json")},
    }
    if drafter:
        d = drafter.config
        content["bytes_per_token"]["drafter"] = d.depth * d.sizes.kv_heads * d.sizes.head_width * 8
        content["drafter"] = {
            "parameters": parameters_of(drafter),
            **{k: getattr(d, k) for k in ("kind", "method", "embedding", "frequencies", "rank", "length", "shortlist")},
            "source": list(d.source),
            "sizes": asdict(d.sizes),
            "max_branch_length": d.length,
        }
    for key, value in facts.items():
        content[key] = {**content[key], **value} if isinstance(content.get(key), dict) else value
    if drafter and len(curve := content["drafter"]["yield_curve"]) != d.length + 1:
        raise SystemExit(f"yield_curve must have {d.length + 1} values, got {len(curve)}")
    content["files"] = {n: {"sha256": digest(folder / n), "bytes": (folder / n).stat().st_size} for n in names}
    return content
