"""Served texts of imported Hugging Face models are the same as in transformers."""

import argparse
import json
import pathlib
import urllib.request

import pytest
import torch
import transformers
from random_hf import random_model
from serving import ROOT, server
from test_hugging_face import WRITTEN, greedy
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from ptp_train.export import command as export
from ptp_train.model import import_hf

BEGIN, END = "<|begin|>", "<|end|>"
BEGIN_ID, END_ID = 0, 1


def byte_level_bpe(begins: bool) -> Tokenizer:
    """Returns 384 tokens trained on a text, two of them special. `begins` adds BEGIN before every text, like Llama."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=384, special_tokens=[BEGIN, END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([(ROOT / "LICENSE").read_text(encoding="utf8")], trainer)
    if begins:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{BEGIN} $A", special_tokens=[(BEGIN, BEGIN_ID)]
        )
    return tokenizer


def hugging_face_folder(folder: pathlib.Path, name: str, begins: bool, **changes):
    """Writes a folder with a random model, tokenizer and chat template, using transformers."""
    model = random_model(name, eos_token_id=END_ID, **changes)
    model.save_pretrained(folder)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=byte_level_bpe(begins), bos_token=BEGIN if begins else None, eos_token=END
    )
    tokenizer.chat_template = "{% for m in messages %}{{ m.role + ': ' + m.content + eos_token }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    return model, tokenizer


SENTENCEPIECE = json.loads((ROOT / "test" / "fixtures" / "sentencepiece.json").read_text(encoding="utf8"))


def sentencepiece(form: str) -> Tokenizer:
    """Returns a vocabulary with byte fallback that adds a space before a text in one of two ways."""
    return Tokenizer.from_str(json.dumps(SENTENCEPIECE["tokenizer"] | SENTENCEPIECE["forms"][form]))


def ptp_train(command, **options) -> None:
    """Runs a command with its options."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    command.run(parser.parse_args([word for word in words if word != "True"]))


def post(url: str, body: dict) -> dict:
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


@pytest.mark.parametrize(
    ("name", "begins", "seed", "long", "short"),
    [
        ("llama", True, 2, "The quick brown fox", "Hello, world"),
        ("qwen3-tied", False, 4, "Hello, world", "import numpy as np"),
    ],
)
def test_served_text_is_that_of_transformers(tmp_path, name, begins, seed, long, short):
    """Returns a text of WRITTEN tokens, and a text that ends earlier."""
    model, tokenizer = hugging_face_folder(tmp_path / "hf", name, begins, seed=seed)
    work, out = tmp_path / "work", tmp_path / "model"
    ptp_train(import_hf, **{"from": tmp_path / "hf"}, out=work / "target.pt", tokens=work / "tokens")
    ptp_train(
        export,
        target=work / "target.pt",
        tokens=work / "tokens",
        sources=work / "none",
        out=out,
        id="own",
        target_only=True,
    )
    conversation = [{"role": "user", "content": "hi"}]
    with server(out, tmp_path) as url:
        asked = {"model": "own", "max_tokens": WRITTEN, "temperature": 0}
        answers = [post(f"{url}/v1/completions", asked | {"prompt": prompt}) for prompt in (long, short)]
        chat = post(f"{url}/v1/chat/completions", asked | {"messages": conversation, "max_tokens": 1})
    for prompt, answer in zip((long, short), answers, strict=True):
        ids = tokenizer(prompt).input_ids
        assert (ids[0] == BEGIN_ID) == begins
        expected = greedy(model, ids)
        ended = expected[-1] == END_ID
        assert ended == (prompt == short) and (ended or len(expected) == WRITTEN)
        assert answer["usage"]["prompt_tokens"] == len(ids)
        assert answer["usage"]["completion_tokens"] == len(expected) - ended
        assert answer["choices"][0]["finish_reason"] == ("stop" if ended else "length")
        assert answer["choices"][0]["text"] == tokenizer.decode(expected, skip_special_tokens=True)
    written = tokenizer.apply_chat_template(conversation, tokenize=False)
    assert chat["usage"]["prompt_tokens"] == len(tokenizer(written, add_special_tokens=False).input_ids)


@pytest.mark.parametrize("form", SENTENCEPIECE["forms"])
def test_sentencepiece_vectors_are_the_tokenizers_packages(form):
    tokenizer = sentencepiece(form)
    for row in SENTENCEPIECE["vectors"][form]:
        assert tokenizer.encode(row["text"], add_special_tokens=False).ids == row["ids"]


def test_served_text_with_byte_fallback(tmp_path):
    """Returns a vocabulary like Llama 2's."""
    hf, work, out = tmp_path / "hf", tmp_path / "work", tmp_path / "model"
    tokenizer = sentencepiece("prepend")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    vocab = tokenizer.get_vocab_size()
    model = random_model("llama", seed=3, vocab_size=vocab, bos_token_id=1, eos_token_id=2)
    with torch.no_grad():  # Random bytes are not valid text, and decoders replace them differently.
        model.lm_head.weight[:259] = 0
    model.save_pretrained(hf)
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    wrapped.chat_template = "{% for m in messages %}{{ m.role + ': ' + m.content + eos_token }}{% endfor %}"
    wrapped.save_pretrained(hf)
    ptp_train(import_hf, **{"from": hf}, out=work / "target.pt", tokens=work / "tokens")
    paths = {"target": work / "target.pt", "tokens": work / "tokens", "sources": work / "none", "out": out}
    ptp_train(export, **paths, id="own", target_only=True)
    prompt, conversation = "caf\u00e9  au lait\n", [{"role": "user", "content": "hi"}]
    with server(out, tmp_path) as url:
        asked = {"model": "own", "max_tokens": WRITTEN, "temperature": 0}
        answer = post(f"{url}/v1/completions", asked | {"prompt": prompt})
        chat = post(f"{url}/v1/chat/completions", asked | {"messages": conversation, "max_tokens": 1})
    ids = wrapped(prompt).input_ids
    expected = greedy(model, ids)
    assert answer["usage"]["prompt_tokens"] == len(ids)
    assert wrapped.decode(ids[1:]) + answer["choices"][0]["text"] == wrapped.decode(ids[1:] + expected)
    written = wrapped.apply_chat_template(conversation, tokenize=False)
    assert chat["usage"]["prompt_tokens"] == len(wrapped(written, add_special_tokens=False).input_ids)


def changed(folder: pathlib.Path, file: str, **changes) -> None:
    raw = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(raw | changes))


def test_special_tokens_and_template_are_exported(tmp_path):
    hugging_face_folder(tmp_path, "llama", begins=True)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    special = lambda: tuple(import_hf.special_tokens(tmp_path, tokenizer, 384).values())  # noqa: E731
    assert special() == (END_ID, [], BEGIN_ID)
    changed(tmp_path, "generation_config.json", eos_token_id=[5, END_ID, 6])
    assert special() == (END_ID, [5, 6], BEGIN_ID)
    changed(tmp_path, "generation_config.json", eos_token_id=None)
    changed(tmp_path, "config.json", eos_token_id=[7, 8])
    assert special() == (7, [8], BEGIN_ID)
    changed(tmp_path, "config.json", eos_token_id=None)
    changed(tmp_path, "tokenizer_config.json", add_bos_token=False)
    assert special() == (END_ID, [], None)
    changed(tmp_path, "config.json", eos_token_id=384)
    with pytest.raises(SystemExit, match="eos_token_id must be below vocab_size 384, got 384"):
        special()
    (tmp_path / "tokenizer_config.json").unlink()
    changed(tmp_path, "config.json", eos_token_id=None)
    with pytest.raises(SystemExit, match="eos_token_id must be in generation_config.json"):
        special()

    (tmp_path / "chat_template.jinja").unlink()
    assert import_hf.chat_template(tmp_path) is None
    for given in ("{{ a }}", [{"name": "tool", "template": "{{ b }}"}, {"name": "default", "template": "{{ a }}"}]):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": given}))
        assert import_hf.chat_template(tmp_path) == "{{ a }}"


def test_tokenizers_that_the_server_cannot_use_are_rejected(tmp_path):
    tokenizer = byte_level_bpe(begins=False)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(SystemExit, match="must have token ids below vocab_size 383, got 383"):
        import_hf.read_tokenizer(tmp_path, 383)
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(
        SystemExit, match=r"must be a byte-level BPE or a BPE with byte fallback, got BPE with \['WordPiece'\]"
    ):
        import_hf.read_tokenizer(tmp_path, 384)


def test_the_manifest_of_a_target_alone_is_complete(tmp_path):
    hugging_face_folder(tmp_path / "hf", "qwen2", begins=False)
    work, out = tmp_path / "work", tmp_path / "model"
    ptp_train(import_hf, **{"from": tmp_path / "hf"}, out=work / "t.pt", tokens=work / "tokens", context=100)
    options = {"target": work / "t.pt", "tokens": work / "tokens", "sources": work / "none", "out": out, "id": "own"}
    ptp_train(export, **options, target_only=True, target_precision="int8")
    content = json.loads((out / "manifest.json").read_text())
    assert content["context_length"] == 100 and content["sizes"]["qkv_bias"] and "drafter" not in content
    assert content["target"]["precision"] == "int8" and content["target"]["storage"] == "exact"
    assert content["target"]["source"] == {"architecture": "Qwen2ForCausalLM"}
    assert {"chat_template.jinja", "tokenizer.json", "target.weights"} <= content["files"].keys()
    assert content["bytes_per_token"] == {"target": 3 * 2 * 2 * 16 * 4}
