"""Tests the logits and texts of small random models of the Llama family against transformers."""

import json
import os

import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from onnx_target import TargetGraph
from random_hf import MODELS, SIZES, random_model
from safetensors.torch import load_file, save_file
from tiny_pair import byte_tokenizer

from ptp_train.export.graphs.weight_file import PRECISIONS
from ptp_train.export.model_folder import SLOTS, Form, write_folder
from ptp_train.model import hugging_face
from ptp_train.model.drafter import Drafter, DrafterConfig
from ptp_train.model.transformer import Target, load_target, save

os.environ["TOKENIZERS_PARALLELISM"] = "false"
torch.set_num_threads(1)
TOKENIZER = byte_tokenizer().to_str().encode()
WRITTEN = 200
"""Number of tokens in a greedy text."""
MARGIN = 1e-3
"""Minimum difference between the best logit and the next one, so that rounding cannot change a compared text."""


@pytest.fixture(scope="module", params=MODELS)
def pair(request, tmp_path_factory):
    """Returns the model in transformers, and our import of its files."""
    folder = tmp_path_factory.mktemp(request.param)
    model = random_model(request.param)
    model.save_pretrained(folder)
    return model, hugging_face.load(folder)


@torch.no_grad()
def greedy(model: transformers.PreTrainedModel, prompt: list[int]) -> list[int]:
    """Returns transformers' greedy text of at most WRITTEN tokens after the prompt. Checks its margins and variety."""
    ids = model.generate(torch.tensor([prompt]), max_new_tokens=WRITTEN, do_sample=False, use_cache=True)[0]
    best = model(ids[None]).logits[0, len(prompt) - 1 : -1].topk(2).values
    assert (best[:, 0] - best[:, 1]).min() > MARGIN
    written = ids[len(prompt) :].tolist()
    assert len(set(written)) > len(written) // 8
    return written


@torch.no_grad()
def test_logits_are_those_of_transformers(pair):
    model, target = pair
    ids = torch.randint(0, SIZES["vocab_size"], (2, 256), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(target(ids), model(ids).logits, atol=2e-4, rtol=1e-4)


@torch.no_grad()
def exported(target: Target, folder) -> TargetGraph:
    """Returns the target's graph with exact weights."""
    write_folder(target, None, TOKENIZER, folder, "own", {}, Form(storage="exact"))
    return TargetGraph(folder / "target.b1.onnx")


@torch.no_grad()
def test_greedy_text_is_the_same_as_in_transformers(pair, tmp_path):
    """Greedy decoding with a KV cache gives the same text in PyTorch and onnxruntime as in transformers."""
    model, target = pair
    prompt = [7, 77, 177]
    expected = greedy(model, prompt)
    assert len(expected) == WRITTEN
    assert exported(target, tmp_path).greedy(prompt, WRITTEN) == expected
    cache = target.empty_cache(1, len(prompt) + WRITTEN)
    written, ids = [], prompt
    for _ in range(WRITTEN):
        at = len(prompt) + len(written) - len(ids)
        ids = [target.extend(torch.tensor([ids]), cache, at)[0, -1].argmax().item()]
        written += ids
    assert written == expected


@torch.no_grad()
def test_log_probabilities_of_the_graph_are_those_of_transformers(pair, tmp_path):
    model, target = pair
    tokens = torch.randint(0, SIZES["vocab_size"], (1, 200), generator=torch.Generator().manual_seed(2))
    picks, logprobs = exported(target, tmp_path).read(tokens[0].tolist(), [120, 80])
    expected = model(tokens).logits[0].log_softmax(-1)
    np.testing.assert_allclose(logprobs, expected.gather(-1, torch.from_numpy(picks)[:, None])[:, 0], atol=5e-4)


@torch.no_grad()
def test_bfloat16_weights_are_kept_as_they_are_in_half_the_space(tmp_path):
    random_model("qwen3").to(torch.bfloat16).save_pretrained(tmp_path)
    model = transformers.Qwen3ForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    target = hugging_face.load(tmp_path)
    graph = exported(target, tmp_path)
    matrices = sum(p.numel() for p in model.parameters() if p.ndim == 2)
    assert (
        tmp_path / "target.weights"
    ).stat().st_size < 2 * matrices + 150_000  # The tensors are rotary tables, and there is padding between tensors.
    assert graph.greedy([7, 77, 177], WRITTEN) == greedy(model, [7, 77, 177])


@torch.no_grad()
def test_sharded_weights_are_read_and_a_checkpoint_keeps_all(tmp_path):
    model = random_model("qwen2")
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(hugging_face.weight_files(tmp_path)) > 1
    target = hugging_face.load(tmp_path, context=128)
    assert target.config.context == 128
    save(tmp_path / "target.pt", "target", target)
    again = load_target(tmp_path / "target.pt")
    assert again.config == target.config
    ids = torch.arange(50)[None]
    assert torch.equal(again(ids), target(ids))
    torch.testing.assert_close(target(ids), model(ids).logits, atol=2e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    random_model("llama", sliding_window=None).save_pretrained(folder)
    return folder


REFUSED = [
    ({"architectures": ["GPT2LMHeadModel"]}, "architectures must be one of LlamaForCausalLM, .*, got GPT2LMHeadModel"),
    ({"architectures": None, "model_type": "gemma3"}, "architectures must be one of .*, got of model_type gemma3"),
    ({"rope_parameters": {"rope_type": "yarn"}}, "rope_parameters.rope_type must be .*, got yarn"),
    ({"rope_parameters": None, "rope_scaling": {"type": "dynamic"}}, "rope_scaling.rope_type must be .*, got dynamic"),
    ({"sliding_window": 100}, "sliding_window must be at least the context of 256 tokens, got 100: lower --context"),
    ({"hidden_act": "gelu"}, 'hidden_act must be "silu", got "gelu"'),
    ({"attention_bias": True}, "attention_bias must be false, got true"),
    ({"quantization_config": {"bits": 4}}, r'quantization_config must be null, got {"bits": 4}'),
    ({"max_position_embeddings": 0}, r"--context must be in \[1, 0\] \(max_position_embeddings\), got"),
    (
        {"vocab_size": 400},
        r"(embed_tokens|lm_head).weight must have shape \[400, 64\] according to config.json, got \[384, 64\]",
    ),
    ({"num_hidden_layers": 4}, r"has no tensor for layers.3.down.weight \(and 8 other parameters\)"),
    ({"num_hidden_layers": 2}, "must not have a tensor model.layers.2.*, which LlamaForCausalLM does not use"),
    ({"architectures": ["Qwen2ForCausalLM"]}, r"has no tensor for layers.0.k.bias \(and 8 other parameters\)"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_unsupported_configurations_are_rejected_by_field(llama, tmp_path, changes, message):
    for path in llama.iterdir():
        (tmp_path / path.name).symlink_to(path)
    raw = json.loads((llama / "config.json").read_text()) | changes
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(SystemExit, match=message):
        hugging_face.load(tmp_path)


def test_a_window_that_is_off_or_long_enough_is_accepted(llama):
    raw = json.loads((llama / "config.json").read_text())
    for changes in ({"sliding_window": 256}, {"sliding_window": 9, "use_sliding_window": False}):
        assert hugging_face.read_config(raw | changes).context == 256
    assert hugging_face.read_config(raw | {"sliding_window": 9}, context=9).context == 9
    with pytest.raises(SystemExit, match="sliding_window"):
        hugging_face.read_config(raw | {"sliding_window": 9, "layer_types": ["sliding_attention"]})


def test_unusable_weights_are_rejected_by_name(llama, tmp_path):
    (tmp_path / "config.json").write_bytes((llama / "config.json").read_bytes())
    with pytest.raises(SystemExit, match="has no model.safetensors"):
        hugging_face.load(tmp_path)
    weights = load_file(llama / "model.safetensors")
    for value, message in (
        (
            weights["model.norm.weight"].to(torch.int8),
            "model.norm.weight must be float32, float16 or bfloat16, got torch.int8",
        ),
        (torch.full_like(weights["model.norm.weight"], torch.nan), "model.norm.weight must be finite"),
    ):
        save_file(weights | {"model.norm.weight": value}, tmp_path / "model.safetensors")
        with pytest.raises(SystemExit, match=message):
            hugging_face.load(tmp_path)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_drafter_can_be_made_for_an_imported_target(pair, tmp_path, precision):
    """The drafter's layers start from the layers of a target of any family, and onnxruntime loads both graphs."""
    _, target = pair
    drafter = Drafter(DrafterConfig(target.config, source=(0, 1), length=4), target).eval()
    facts = {"drafter": {"yield_curve": [0, 1, 1, 1, 1], "accuracy_by_position": [1, 0, 0, 0]}}
    write_folder(target, drafter, TOKENIZER, tmp_path, "own", facts, Form(precision, "exact"), Form(precision))
    graphs = list(tmp_path.glob("*.onnx"))
    assert len(graphs) == 2 * len(SLOTS)
    for graph in graphs:
        onnxruntime.InferenceSession(graph)
