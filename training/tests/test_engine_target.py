"""Tests TargetModel against `generate` of transformers, and that its results do not depend on how tokens arrive."""

import grpc
import numpy as np
import pytest
import torch
import transformers
from tiny_hf import FAMILIES, VOCABULARY, run, save_tiny, slot, tiny_target

from ptp_engine.errors import EngineError
from ptp_engine.gen import engine_pb2
from ptp_engine.uniforms import uniforms
from ptp_train.model.coordinates import dimensions, pick

torch.set_num_threads(1)
GREEDY = {"temperature": 0.0}
RANDOM = {"temperature": 1.0}
PROMPT = (np.arange(1, 40) * 7 % VOCABULARY).tolist()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}

    def folder(family):
        if family not in made:
            made[family] = save_tiny(family, tmp_path_factory.mktemp(family))
        return made[family]

    return folder


@pytest.fixture(scope="module")
def llama(folders):
    return tiny_target(folders("llama"))


@pytest.fixture
def sequence(llama):
    llama.open(1)
    yield 1
    llama.close(1)


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_text_equals_generate(family, folders):
    """Verifies the text of `generate` in drafts of 8 tokens: all must be accepted."""
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        folders(family), dtype=torch.float32, attn_implementation="eager"
    )
    with torch.inference_mode():
        text = theirs.generate(torch.tensor([PROMPT]), max_new_tokens=200, do_sample=False)[0].tolist()
    target = tiny_target(folders(family))
    target.open(1)
    start = len(PROMPT) - 1
    run(target, slot(1, 0, text[:start]))
    picks = []
    for at in range(start, len(text) - 1, 9):
        picks += run(target, slot(1, at, text[at : min(at + 9, len(text) - 1)], GREEDY))[0].picks
    assert picks == text[len(PROMPT) :]


@pytest.mark.parametrize("family", ["gemma3", "mixtral"])
def test_results_equal_those_of_one_run(family, folders):
    """Checks chunks, rollback, other sequences in the run, and reused prefixes."""
    target = tiny_target(folders(family), max_slots=4)
    tokens = PROMPT + list(range(60, 100))
    for sequence in range(4):
        target.open(sequence)
    whole = run(target, slot(0, 0, tokens, RANDOM))[0]

    def check(output: engine_pb2.TargetOutput, start: int) -> None:
        here = slice(start, start + len(output.picks))
        assert list(output.picks) == list(whole.picks[here])
        np.testing.assert_allclose(output.log_probabilities, whole.log_probabilities[here], atol=2e-5)

    start = 0
    for count in (1, 5, 9, 2, 30):
        others = [slot(2, start, PROMPT[: count + 1]), slot(3, start, PROMPT[:1], GREEDY)]
        run(target, *(slot(n, 0, tokens[:start]) for n in (2, 3) if start))
        check(run(target, others[0], slot(1, start, tokens[start : start + count], RANDOM), others[1])[1], start)
        start += count
    run(target, slot(1, 20, [5, 6, 7, 8]))
    check(run(target, slot(1, 20, tokens[20:50], RANDOM))[0], 20)
    target.close(1)
    target.open(1)
    assert target.reuse_prefix(1, tokens) == 64
    check(run(target, slot(1, 64, tokens[64:], RANDOM))[0], 64)


def test_picks_use_the_uniforms_of_their_positions(llama, sequence):
    offset = -len(PROMPT)
    source = engine_pb2.UniformSource(seed=2**63 + 5, offset=offset)
    output = run(llama, slot(sequence, 0, PROMPT, RANDOM, uniforms=source, top_count=VOCABULARY))[0]
    last = len(PROMPT) - 1
    ids = np.array(output.top_ids).reshape(len(PROMPT), -1)[last]
    p = np.zeros(VOCABULARY, np.float32)
    p[ids] = np.exp(np.array(output.top_log_probabilities).reshape(len(PROMPT), -1)[last])
    assert sorted(ids) == list(range(VOCABULARY))
    u = uniforms(np.array([source.seed], np.uint64), np.array([0]), dimensions("tree", VOCABULARY))
    assert output.picks[last] == int(pick("tree", torch.from_numpy(p), torch.from_numpy(u[0])))


def test_prefill_picks_nothing(llama, sequence):
    output = run(llama, slot(sequence, 0, PROMPT))[0]
    assert not output.picks and not output.log_probabilities


def test_slots_have_their_own_sampling_and_alternatives(llama):
    for number in (1, 2, 3):
        llama.open(number)
    forced = engine_pb2.LogitAdjustment(biased=[42], biases=[1000.0])
    outputs = run(
        llama,
        slot(1, 0, PROMPT[:3], GREEDY, top_count=2),
        slot(2, 0, PROMPT[:2], RANDOM, adjustments=[engine_pb2.LogitAdjustment(), forced]),
        slot(3, 0, PROMPT[:4], {"temperature": 1.0, "top_k": 1}, top_count=1),
    )
    assert [len(o.picks) for o in outputs] == [3, 2, 4]
    assert [len(o.top_ids) for o in outputs] == [6, 0, 4]
    assert list(outputs[0].picks) == list(outputs[0].top_ids[::2])
    assert outputs[1].picks[1] == 42
    assert list(outputs[2].picks) == list(outputs[2].top_ids)
    for number in (1, 2, 3):
        llama.close(number)


def test_info_describes_the_model(llama):
    info = llama.info()
    assert (info.vocabulary_size, info.context_length, info.uniforms_per_position) == (VOCABULARY, 384, 9)
    assert info.bytes_per_token == 3 * 2 * 2 * 16 * 4
    assert (info.precision, info.device) == ("float32", "cpu")


def test_invalid_rows_are_refused_and_change_nothing(llama, sequence):
    first = run(llama, slot(sequence, 0, PROMPT, GREEDY))[0]
    for at, tokens in ((len(PROMPT) + 1, [1]), (len(PROMPT), [1] * 384)):
        with pytest.raises(EngineError) as caught:
            run(llama, slot(sequence, at, tokens, GREEDY))
        assert caught.value.code == grpc.StatusCode.OUT_OF_RANGE
    again = run(llama, slot(sequence, len(PROMPT) - 1, PROMPT[-1:], GREEDY))[0]
    assert again.picks[0] == first.picks[-1]


def test_the_number_of_sequences_is_limited(folders):
    target = tiny_target(folders("llama"), max_sequences=2)
    target.open(1)
    target.open(2)
    with pytest.raises(EngineError, match="at most 2"):
        target.open(3)


def test_rows_before_at_survive_a_failed_run(folders, monkeypatch):
    target = tiny_target(folders("llama"))
    target.open(1)
    expected = run(target, slot(1, 0, PROMPT, RANDOM))[0]

    def fail(*_):
        raise RuntimeError("broken")

    with monkeypatch.context() as patched:
        patched.setattr(target.passes, "forward", fail)
        with pytest.raises(RuntimeError):
            run(target, slot(1, 20, [1, 2, 3], RANDOM))
    assert list(run(target, slot(1, 20, PROMPT[20:], RANDOM))[0].picks) == list(expected.picks[20:])
