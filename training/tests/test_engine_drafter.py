"""Drafters on PyTorch draft the same tokens as their exported graphs."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from engine_client import open_request, stub_at
from engine_pair import CURVE, KINDS, LENGTH, SETTINGS, TEXT, Pair, load, slot_of, verify
from random_hf import random_model
from test_export import CONFIG, storable

from ptp_engine.branches import USUAL
from ptp_engine.cli import parse
from ptp_engine.drafter_load import GUESS, read_target
from ptp_engine.errors import EngineError
from ptp_engine.gen import engine_pb2
from ptp_engine.graphs import Recorded
from ptp_train.model import hugging_face
from ptp_train.model.drafter import Drafter, DrafterConfig, load_drafter
from ptp_train.model.lora import LoraLinear, merged
from ptp_train.model.transformer import Target, save


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory) -> Pair:
    return Pair(tmp_path_factory.mktemp("pair"), KINDS[request.param])


@pytest.mark.parametrize("setting", SETTINGS)
def test_drafts_are_those_of_the_exported_graph(pair, setting):
    """Two sequences are prefilled, draft together, are rolled back, and draft again."""
    model, checks = pair.model, bool(pair.config.given)
    for sequence in (1, 2):
        model.open(sequence)
    other = TEXT[::-1]
    verify(
        pair, [TEXT[:30], other[:3]], [slot_of(1, 0, TEXT[:30], setting), slot_of(2, 0, other[:3], setting, 2**64 - 1)]
    )
    for at, text in ((30, TEXT[:35]), (32, [*TEXT[:32], 7, 8])):
        first = slot_of(1, at, text, setting)
        second = slot_of(2, 3, other[:9], SETTINGS[0], 2**64 - 1)
        if checks:
            first.check.CopyFrom(engine_pb2.BlockCheck(block=min(3, len(first.tokens) - 1), length=LENGTH))
            second.check.CopyFrom(engine_pb2.BlockCheck(block=0, length=2))
        else:
            drafted = [engine_pb2.BranchRequest(visible=v, length=n) for v, n in ((len(text), 4), (at, 1), (at + 1, 3))]
            first.branches.extend(drafted)
            second.branches.append(engine_pb2.BranchRequest(visible=9, length=2))
        result = verify(pair, [text, other[:9]], [first, second])
        if not checks:  # A branch can start anew without the token that it has drafted.
            first.branches[1].excluded = result.outputs[0].branches[1].tokens[0]
            second.branches[0].excluded = result.outputs[1].branches[0].tokens[0]
            again = verify(pair, [text, other[:9]], [first, second])
            assert again.outputs[0].branches[1].tokens[0] != first.branches[1].excluded
            assert again.outputs[1].branches[0].tokens[0] != second.branches[0].excluded
        third = slot_of(2, 3, other[:5], setting, 2**64 - 1)
        verify(pair, [other[:5]], [third])
    for sequence in (1, 2):
        model.close(sequence)


class Recording:
    """Stand-in for a CUDA graph: runs the function again, from the same memory to the same memory."""

    made = 0

    def __init__(self, run):
        self.run = run
        self.result = run()
        Recording.made += 1

    def replay(self):
        for own, new in zip(self.result, self.run(), strict=True):
            own.copy_(new)
        return self.result


def test_recorded_picks_are_the_same(pair, monkeypatch):
    """Recordings have padded shapes, so few of them serve all numbers of branches."""
    monkeypatch.setattr(Recording, "made", 0)
    drafting = pair.model.drafting
    monkeypatch.setattr(drafting, "recorded", Recorded(drafting.tokens, torch.device("cpu"), Recording))
    with torch.inference_mode():
        drafting.warm_up()
    assert Recording.made == len(USUAL)
    pair.model.open(1)
    for count, length in ((1, 2), (3, 4), (2, 3), (4, 1), (1, 4)):
        slot = slot_of(1, 0, TEXT[:20], SETTINGS[0], seed=count)
        if pair.config.given:
            slot.check.CopyFrom(engine_pb2.BlockCheck(block=count, length=length))
        else:
            slot.branches.extend(engine_pb2.BranchRequest(visible=20 - n, length=length) for n in range(count))
        verify(pair, [TEXT[:20]], [slot])
    assert Recording.made == len(USUAL)
    pair.model.close(1)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_block_is_accepted_as_far_as_the_target_agrees(tmp_path, setting):
    pair = Pair(tmp_path, KINDS["feature, c, tree, sequential head"])
    pair.model.open(1)
    slot = slot_of(1, 0, TEXT[:20], setting)
    slot.check.CopyFrom(engine_pb2.BlockCheck(block=0, length=LENGTH))
    text, right = TEXT[:20], []
    for _ in range(3):  # Draft one token at a time, so that every token is the target's own.
        slot.check.length = 1
        [branch] = verify(pair, [text], [slot]).outputs[0].branches
        right.append(branch.tokens[0])
        text = [*text, right[-1]]
        slot = slot_of(1, len(text) - 2, text, setting)
        slot.check.CopyFrom(engine_pb2.BlockCheck(block=0, length=1))
    block = [*right[:2], (right[2] + 1) % CONFIG.vocab]
    slot = slot_of(1, 19, TEXT[:20] + block, setting)
    slot.check.CopyFrom(engine_pb2.BlockCheck(block=3, length=LENGTH))
    [branch] = verify(pair, [TEXT[:20] + block], [slot]).outputs[0].branches
    assert (branch.accepted, branch.tokens[0]) == (2, right[2])


def test_bfloat16_seldom_changes_a_draft(pair):
    folder = pair.folder
    rounded = load(folder / "drafter.pt", folder / "target.pt", "--dtype", "bfloat16")
    first = []
    for model in (pair.model, rounded):
        model.open(1)
        tokens = []
        for end in range(8, 56, 3):
            slot = slot_of(1, 0, TEXT[:end], SETTINGS[1])
            if pair.config.given:
                slot.check.CopyFrom(engine_pb2.BlockCheck(length=LENGTH))
            else:
                slot.branches.add(visible=end, length=LENGTH)
            tokens.append(model.run(engine_pb2.DraftRun(slots=[slot])).outputs[0].branches[0].tokens[0])
        first.append(tokens)
        model.close(1)
    assert sum(a == b for a, b in zip(*first, strict=True)) >= 12
    assert rounded.info().precision == "bfloat16"
    assert rounded.info().bytes_per_token == pair.model.info().bytes_per_token / 2


def test_weights_are_rounded_once(pair):
    """Rounding comes after the adapters have been merged, and leaves the weights for uniforms alone."""
    folder = pair.folder
    model = load(folder / "drafter.pt", folder / "target.pt", "--dtype", "bfloat16")
    served, stored = model.drafting.drafter, load_drafter(folder / "drafter.pt")
    exact = merged(stored.layers[0]).down.weight
    assert torch.equal(served.layers[0].down.weight, exact.bfloat16())
    assert torch.equal(served.uniform.uniform.weight, stored.uniform.uniform.weight)


def test_layers_are_in_memory_once(pair):
    drafting, context = pair.model.drafting, pair.model.context
    held = [part for part in vars(drafting).values() if isinstance(part, torch.nn.Module)]
    assert held == [drafting.drafter]
    layers = [*drafting.drafter.layers, *context.layers]
    shared = pair.config.depth if pair.config.kind == "separate" else 0
    assert len({id(layer) for layer in layers}) == len(layers) - shared
    assert not any(isinstance(part, LoraLinear) for layer in layers for part in layer.modules())


def test_the_engine_describes_the_drafter(pair):
    info = pair.model.info()
    checks = pair.config.given
    assert (info.model, info.vocabulary_size, info.context_length) == ("drafter", 257, CONFIG.context)
    assert info.uniforms_per_position == pair.config.coordinates and info.precision == "float32"
    assert info.drafter.checks_blocks == bool(checks) and info.drafter.max_branch_length == LENGTH
    guess = np.cumsum([0, *(GUESS ** (k - checks) for k in range(1, LENGTH + 1))])
    np.testing.assert_allclose(info.drafter.yield_curve, guess, rtol=1e-6)
    sizes = pair.config.sizes
    assert info.bytes_per_token == pair.config.depth * 2 * sizes.kv_heads * sizes.head_width * 4


def test_the_yield_curve_comes_from_the_evaluation(tmp_path):
    Pair(tmp_path, KINDS["c, tree, sequential head"])
    figures = {"yield_curve": CURVE, "yield_curve_after_miss": CURVE[::-1], "accuracy": [], "tokens_per_call": 2}
    split = {"drafter": figures}
    report = {"settings": [{"conditions": [], "held_files": split, "held_packages": split}]}
    (tmp_path / "evaluation.json").write_text(json.dumps(report))
    facts = load(tmp_path / "drafter.pt", tmp_path / "target.pt").info().drafter
    np.testing.assert_allclose(facts.yield_curve, CURVE)
    np.testing.assert_allclose(facts.yield_curve_after_miss, CURVE[::-1])
    figures["yield_curve"] = [0, 1]
    (tmp_path / "other.json").write_text(json.dumps(report))
    with pytest.raises(SystemExit, match="yield_curve must have 5 values, got 2"):
        load(tmp_path / "drafter.pt", tmp_path / "target.pt", "--evaluation", str(tmp_path / "other.json"))
    torch.manual_seed(9)
    save(tmp_path / "other.pt", "target", Target(CONFIG))
    with pytest.raises(SystemExit, match="--target must be the target of CHECKPOINT with identity"):
        load(tmp_path / "drafter.pt", tmp_path / "other.pt")


def test_a_target_in_hugging_faces_format(tmp_path):
    """The same target as a Hugging Face folder and as a checkpoint gives the same drafts."""
    random_model("llama", seed=2).save_pretrained(tmp_path / "hf")
    target = hugging_face.load(tmp_path / "hf")
    drafter = Drafter(DrafterConfig(target.config, (0, 1), length=LENGTH), target)
    storable(drafter)
    save(tmp_path / "target.pt", "target", target)
    save(tmp_path / "drafter.pt", "drafter", drafter)
    results = []
    for source in ("hf", "target.pt"):
        model = load(tmp_path / "drafter.pt", tmp_path / source)
        model.open(1)
        slot = slot_of(1, 0, TEXT[:20], SETTINGS[0])
        slot.branches.add(visible=20, length=LENGTH)
        results.append(model.run(engine_pb2.DraftRun(slots=[slot])).outputs)
    assert results[0] == results[1]


def test_errors_name_the_options_of_the_drafter(tmp_path, monkeypatch):
    random_model("llama", seed=2).save_pretrained(tmp_path / "hf")
    longest = hugging_face.read_json(tmp_path / "hf", "config.json")["max_position_embeddings"]
    with pytest.raises(SystemExit, match=rf"^--context-length must be in \[1, {longest}\] .*, got {longest + 1}$"):
        read_target(str(tmp_path / "hf"), longest + 1)
    (tmp_path / "hf" / "model.safetensors").unlink()
    with pytest.raises(SystemExit, match="hf must contain safetensors weights, but has no model.safetensors"):
        read_target(str(tmp_path / "hf"), None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SystemExit, match="--target must be a folder, or a name that the hub has, got no/such-model: "):
        read_target("no/such-model", None)
    (tmp_path / "drafter.pt").touch()
    with pytest.raises(SystemExit, match="ptp-engine drafter: --target must exist, work/missing.pt is missing"):
        parse("drafter", [str(tmp_path / "drafter.pt"), "--target", "work/missing.pt"])


def test_prefixes_are_reused_and_limits_are_named(tmp_path):
    pair = Pair(tmp_path, KINDS["c, tree, sequential head"])
    model = load(tmp_path / "drafter.pt", tmp_path / "target.pt", "--max-sequences", "2", "--context-length", "50")
    model.open(1)
    model.run(engine_pb2.DraftRun(slots=[slot_of(1, 0, TEXT[:40], SETTINGS[0])]))
    model.close(1)
    model.open(2)
    assert model.reuse_prefix(2, TEXT[:35]) == 32
    assert model.cache().hits == 1 and model.cache().reused_tokens == 32
    pair.model = model
    slot = slot_of(2, 32, TEXT[:36], SETTINGS[0])
    slot.branches.add(visible=36, length=LENGTH)
    verify(pair, [TEXT[:36]], [slot])
    with pytest.raises(EngineError, match="the length of a sequence must be at most 50, got 60"):
        model.run(engine_pb2.DraftRun(slots=[slot_of(2, 36, TEXT, SETTINGS[0])]))
    model.open(3)
    with pytest.raises(EngineError, match="the number of open sequences must be at most 2"):
        model.open(4)
    with pytest.raises(SystemExit, match="--context-length must be at most 1952, .* got 3000"):
        load(tmp_path / "drafter.pt", tmp_path / "target.pt", "--context-length", "3000", "--kv-megabytes", "1")


def test_the_process_serves_a_drafter(tmp_path):
    pair = Pair(tmp_path, KINDS["c, tree, sequential head"])
    address = f"unix:{tmp_path}/engine.sock"
    command = [sys.executable, "-m", "ptp_engine", "drafter", str(tmp_path / "drafter.pt"), "--device", "cpu"]
    command += ["--target", str(tmp_path / "target.pt"), "--listen", address, "--max-sequences", "3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            stub = stub_at(address)
            info = stub.GetEngine(engine_pb2.GetEngineRequest())
            slot = slot_of(7, 0, TEXT[:20], SETTINGS[0])
            slot.branches.add(visible=20, length=LENGTH)
            draft = engine_pb2.RunRequest(id=1, draft=engine_pb2.DraftRun(slots=[slot]))
            [response] = stub.Run(iter([open_request(7), draft]))
        finally:
            process.terminate()
            lines, errors = process.communicate()
    assert process.returncode == 0 and errors == ""
    expected = pair.model.info()
    expected.max_sequences = 3
    assert info == expected
    [[tokens], _] = pair.branches(TEXT[:20], slot)
    assert list(response.draft.outputs[0].branches[0].tokens) == tokens and response.draft.run_us > 0
    messages = [json.loads(line)["msg"] for line in lines.splitlines()]
    assert [m for m in messages if m != "still loading"] == [
        "loading",
        "guessing the yield curve, because there is no evaluation: run ptp-train evaluate, and pass --evaluation",
        "loaded",
        "listening",
        "client connected",
        "client disconnected",
        "stopping",
    ]
