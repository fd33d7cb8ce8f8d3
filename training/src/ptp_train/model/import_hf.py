"""Imports a Hugging Face model folder (Llama, Mistral, Qwen2, Qwen3) as the target: weights, tokenizer and chat
template.
"""

import argparse
import json
import pathlib
import re

from tokenizers import Tokenizer

from ..data.tokenizer import PLAIN_TEMPLATE
from . import hugging_face
from .hugging_face import read_json
from .transformer import parameters_of, save


def content(token: dict | str | None) -> str | None:
    """Returns the text of a special token, which tokenizer_config.json writes as a string or as an object."""
    return token["content"] if isinstance(token, dict) else token


def begin_of_text(tokenizer: Tokenizer, settings: dict) -> int | None:
    """Returns the token that the tokenizer adds before a text, or None if it adds none."""
    if settings.get("add_bos_token") is not None:
        bos = content(settings.get("bos_token"))
        return tokenizer.token_to_id(bos) if settings["add_bos_token"] and bos else None
    plain = tokenizer.encode("a", add_special_tokens=False).ids
    ids = tokenizer.encode("a").ids
    before = next(i for i in range(len(ids)) if ids[i : i + len(plain)] == plain)
    if before > 1:
        raise SystemExit(f"tokenizer.json must add at most 1 token before a text, got {before}")
    return ids[0] if before else None


def special_tokens(folder: pathlib.Path, tokenizer: Tokenizer, vocab: int) -> dict:
    """Returns end_of_text, stop_tokens and begin_of_text for manifest.json.

    Texts end where transformers' `generate` stops: at the eos_token_id of generation_config.json, or else of
    config.json, or else at the tokenizer's eos_token. If there are several tokens, the tokenizer's eos_token is
    end_of_text.
    """
    settings = read_json(folder, "tokenizer_config.json", needed=False)
    named = tokenizer.token_to_id(content(settings.get("eos_token")) or "")
    given = read_json(folder, "generation_config.json", needed=False).get("eos_token_id")
    given = read_json(folder, "config.json").get("eos_token_id") if given is None else given
    ends = [named] if given is None else given if isinstance(given, list) else [given]
    if ends in ([None], []):
        raise SystemExit(
            "eos_token_id must be in generation_config.json or config.json, or eos_token must be in tokenizer_config.json"
        )
    if max(ends) >= vocab:
        raise SystemExit(f"eos_token_id must be below vocab_size {vocab}, got {max(ends)}")
    end = named if named in ends else ends[0]
    stops = [token for token in ends if token != end]
    return {"end_of_text": end, "stop_tokens": stops, "begin_of_text": begin_of_text(tokenizer, settings)}


def chat_template(folder: pathlib.Path) -> str | None:
    """Returns chat_template.jinja, or else the template in tokenizer_config.json. If there are several, returns the
    template named `default`.
    """
    file = folder / "chat_template.jinja"
    if file.exists():
        return file.read_text(encoding="utf8")
    given = read_json(folder, "tokenizer_config.json", needed=False).get("chat_template")
    return {t["name"]: t["template"] for t in given}.get("default") if isinstance(given, list) else given


def read_tokenizer(folder: pathlib.Path, vocab: int) -> Tokenizer:
    """Returns the content of tokenizer.json. Exits if the server cannot use it."""
    raw = read_json(folder, "tokenizer.json")
    decoder = raw.get("decoder") or {}
    kinds = [part["type"] for part in (decoder, *decoder.get("decoders", [])) if part]
    falls_back = raw["model"].get("byte_fallback") and "ByteFallback" in kinds
    if raw["model"]["type"] != "BPE" or not ("ByteLevel" in kinds or falls_back):
        raise SystemExit(
            f"tokenizer.json must be a byte-level BPE or a BPE with byte fallback, got {raw['model']['type']} with {kinds}"
        )
    tokenizer = Tokenizer.from_str(json.dumps(raw))
    highest = max(tokenizer.get_vocab().values())
    if highest >= vocab:
        raise SystemExit(f"tokenizer.json must have token ids below vocab_size {vocab}, got {highest}")
    return tokenizer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--from", type=pathlib.Path, required=True, help="folder with config.json, *.safetensors and tokenizer.json")
    add("--out", type=pathlib.Path, default=pathlib.Path("work/target.pt"), help="the target's checkpoint")
    add(
        "--tokens",
        type=pathlib.Path,
        default=pathlib.Path("work/tokens"),
        help="folder for tokenizer and chat template",
    )
    add(
        "--context",
        type=int,
        help=f"maximum number of tokens in a sequence (default: the model's maximum, but at most {hugging_face.LONGEST})",
    )


def run(args: argparse.Namespace) -> None:
    folder: pathlib.Path = getattr(args, "from")
    target = hugging_face.open_target(folder, args.context)
    vocab = target.config.vocab
    tokenizer = read_tokenizer(folder, vocab)
    special = special_tokens(folder, tokenizer, vocab)
    template = chat_template(folder)
    for made in (args.out.parent, args.tokens):
        made.mkdir(parents=True, exist_ok=True)
    (args.tokens / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    (args.tokens / "chat_template.jinja").write_text(template or "{{ bos_token }}" + PLAIN_TEMPLATE, encoding="utf8")
    architecture = read_json(folder, "config.json")["architectures"][0]
    save(args.out, "target", target, special_tokens=special, source={"architecture": architecture})
    if template is None:
        print("the model has no chat template: each message of a chat becomes one line")
    begin = special["begin_of_text"]
    separator = tokenizer.id_to_token(special["end_of_text"] if begin is None else begin)
    if separator and re.fullmatch(r"[^']+", separator):
        print(f"next: ptp-train tokenizer --use {args.tokens / 'tokenizer.json'} --separator '{separator}'")
    facts = {
        "architecture": architecture,
        "parameters": parameters_of(target),
        "context": target.config.context,
        **special,
    }
    print(json.dumps(facts))
