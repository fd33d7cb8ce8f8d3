"""Tests the ids of the special tokens against the server's, with folders that protocol/test/hf-manifest.test.ts reads too."""

import json
import pathlib

import pytest

from ptp_train.model.import_hf import read_tokenizer, special_tokens

FIXTURE = json.loads((pathlib.Path(__file__).parents[2] / "test/fixtures/hf-folders.json").read_text(encoding="utf8"))
VOCAB = 6


@pytest.mark.parametrize("case", FIXTURE["cases"], ids=lambda case: case["name"])
def test_special_tokens(case, tmp_path):
    config = {"vocab_size": VOCAB, **case.get("config", {})}
    tokenizer = {**FIXTURE["tokenizer"], "post_processor": case.get("post_processor")}
    files = {"config": config, "tokenizer": tokenizer}
    files |= {name: case[name] for name in ("generation_config", "tokenizer_config") if name in case}
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))

    def read() -> dict:
        return special_tokens(tmp_path, read_tokenizer(tmp_path, config["vocab_size"]), config["vocab_size"])

    if "error" in case:
        with pytest.raises(SystemExit, match=case["error"]):
            read()
    else:
        assert read() == case["expected"]
