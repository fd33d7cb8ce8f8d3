"""Tests the exported graphs against the PyTorch modules, and the sampler in the graph against the shared vectors."""

import argparse
import copy
import itertools
import json
import pathlib
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tiny_pair import byte_tokenizer

from ptp_train.export import command, manifest
from ptp_train.export import model_folder as export
from ptp_train.export.graphs import embeddings as graph_embeddings
from ptp_train.export.graphs.adjust import adjusted
from ptp_train.export.graphs.graph import FLOAT, INT64, Graph, WeightFile
from ptp_train.export.graphs.sampler import NEAREST, sampler
from ptp_train.model import embeddings
from ptp_train.model.coordinates import dimensions, pick
from ptp_train.model.drafter import Drafter, DrafterConfig, without
from ptp_train.model.sampling import shape
from ptp_train.model.transformer import Config, Target, save

VECTORS = pathlib.Path(__file__).parents[2] / "test" / "vectors"
CONFIG = Config(vocab=257, width=64, layers=3, heads=4, kv_heads=2, head_width=16, hidden=96, context=64)
ROW = CONFIG.kv_heads * CONFIG.head_width


def session(path: pathlib.Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options)


@torch.no_grad()
def liven(module: torch.nn.Module) -> None:
    """Sets random weights so large that an untrained network's outputs depend on all inputs."""
    for name, p in module.named_parameters():
        if p.ndim == 2:
            p.normal_(std=0.4 if "embedding" in name else p.shape[1] ** -0.5)
        else:
            p.add_(torch.randn_like(p) * 0.1)


@torch.no_grad()
def storable(*modules: torch.nn.Module) -> tuple:
    """Returns the modules with large random weights that float16 holds exactly, so that graph and module use the same
    numbers.
    """
    for module in modules:
        liven(module)
        for p in module.parameters():
            p.data = p.data.half().float()
    return tuple(module.eval() for module in modules)


OWN = replace(CONFIG, width=32, layers=2, heads=2, kv_heads=1, hidden=64)
FORMS = {
    "c, tree, sequential head": {"rank": 8},
    "c, tree, shortlist": {"rank": 8, "shortlist": 100},
    "c, one u, shortlist, head with many ranks": {"pick": "cdf", "rank": 40, "shortlist": 100},
    "independent, tree, shortlist, no head": {"method": "independent", "rank": 0, "shortlist": 100},
    "o, one u": {"method": "o", "pick": "cdf", "rank": 0},
    "c, one u, adapters": {"pick": "cdf", "rank": 8, "kind": "lora", "source": (0, 1, 2)},
    "independent, tree, separate": {"method": "independent", "rank": 0, "kind": "separate", "own": OWN},
    "o, tree, separate, sequential head": {"method": "o", "rank": 8, "kind": "separate", "own": OWN},
}
SETTINGS = [(0.7, 50.0, 0.9), (0.0, 0.0, 1.0), (1.0, 0.0, 1.0)]
"""Temperature, top-k and top-p."""


def some_tokens(form: dict) -> torch.Tensor | None:
    """Returns ids for the shortlist of a form, if it has one, from all parts of the vocabulary."""
    count = form.get("shortlist")
    return torch.randperm(CONFIG.vocab)[:count].sort().values if count else None


@pytest.fixture(scope="module", params=FORMS)
def pair(request):
    """Returns a target and a drafter whose weights float16 holds exactly."""
    torch.manual_seed(0)
    target = Target(CONFIG)
    form = {"source": (0, 1), "length": 4, "frequencies": 4} | FORMS[request.param]
    drafter = Drafter(DrafterConfig(CONFIG, **form), target, some_tokens(form))
    return storable(target, drafter)


@pytest.fixture(scope="module")
def folder(pair, tmp_path_factory):
    out = tmp_path_factory.mktemp("model")
    facts = {"drafter": {"yield_curve": [0, 1, 1, 1, 1], "accuracy_by_position": [1, 0, 0, 0]}}
    exact = export.Form(storage="exact")  # float16 would round the sequential head's matrix of corrections.
    export.write_folder(*pair, byte_tokenizer().to_str().encode(), out, "test", facts, drafter_form=exact)
    return out


def causal(past: int, length: int) -> np.ndarray:
    mask = np.zeros((length, past + length), np.float32)
    mask[:, past:] = np.triu(np.full((length, length), -np.inf, np.float32), 1)
    return mask


class Cache:
    """Cached rows of a sequence, as in the server's engine."""

    def __init__(self, layers: int, width: int = ROW):
        self.rows = {f"{kv}{n}": np.zeros((1, 0, width), np.float32) for kv in ("k", "v") for n in range(layers)}

    def __len__(self) -> int:
        return self.rows["k0"].shape[1]

    def append(self, result: dict, start: int, count: int) -> None:
        for name in self.rows:
            self.rows[name] = np.concatenate([self.rows[name], result[f"n{name}"][:, start : start + count]], 1)


def context_feeds(slots: list[tuple[Cache, list[int]]], masks=None, positions=None) -> dict:
    feeds = {
        "ids": np.concatenate([tokens for _, tokens in slots])[None].astype(np.int64),
        "pos": np.concatenate(positions or [len(c) + np.arange(len(t)) for c, t in slots])[None].astype(np.int64),
    }
    if len(slots) > 1:
        feeds["splits"] = np.array([len(t) for _, t in slots])
    for i, (cache, tokens) in enumerate(slots):
        feeds[f"mask_{i}"] = masks[i] if masks else causal(len(cache), len(tokens))
        feeds |= {f"p{name}_{i}": rows for name, rows in cache.rows.items()}
    return feeds


def run(model: onnxruntime.InferenceSession, feeds: dict) -> dict:
    names = [o.name for o in model.get_outputs()]
    return dict(zip(names, model.run(names, feeds), strict=True))


def sampling(rows: np.ndarray, u: np.ndarray, temperature=0.0, top_k=0, top_p=1.0, top_count=0) -> dict:
    column = (len(rows), 1)
    return {
        "rows": np.asarray(rows, np.int64),
        "temperature": np.full(column, temperature, np.float32),
        "top_k": np.full(column, top_k, np.int64),
        "top_p": np.full(column, top_p, np.float32),
        "min_p": np.zeros(column, np.float32),
        "top_count": np.array([top_count]),
        "scale": np.zeros((0, CONFIG.vocab), np.float32),
        "bias": np.zeros((0, CONFIG.vocab), np.float32),
        "u": u,
    }


def write(model, tokens: list[int], chunks: list[int], **settings) -> tuple[np.ndarray, np.ndarray]:
    """Returns picks and log-probabilities of `tokens`, which run in chunks of the given lengths (cyclic) with fixed
    uniforms.
    """
    cache, at, picks, logprobs = Cache(CONFIG.layers), 0, [], []
    lengths = itertools.cycle(chunks)
    dimensions = next(i.shape[1] for i in model.get_inputs() if i.name == "u")
    u = np.random.default_rng(2).random((len(tokens), dimensions), np.float32)
    while at < len(tokens):
        n = min(next(lengths), len(tokens) - at)
        n += len(tokens) - at - n == 1  # No chunk has a single token.
        out = run(
            model, context_feeds([(cache, tokens[at : at + n])]) | sampling(np.arange(n), u[at : at + n], **settings)
        )
        cache.append(out, 0, n)
        assert out["top_id"].shape == (n, settings.get("top_count", 0))
        picks.append(out["pick"])
        logprobs.append(out["logprob"])
        at += n
    return np.concatenate(picks), np.concatenate(logprobs)


@pytest.fixture(scope="module")
def tokens():
    return np.random.default_rng(1).integers(0, CONFIG.vocab, 40).tolist()


def test_target_graph_equals_the_module(pair, folder, tokens):
    picks, logprobs = write(session(folder / "target.b1.onnx"), tokens, [40])
    logits = pair[0](torch.tensor([tokens]))[0]
    assert picks.tolist() == logits.argmax(-1).tolist()
    expected = logits.log_softmax(-1).gather(-1, torch.from_numpy(picks)[:, None])[:, 0]
    np.testing.assert_allclose(logprobs, expected.detach(), atol=1e-4)


@pytest.mark.parametrize("setting", [(1.0, 0, 1.0), (0.7, 50, 0.9), (1.3, 0, 0.95), (1.0, 90, 1.0)])
def test_target_samples_as_the_reference_does(pair, folder, tokens, setting):
    temperature, top_k, top_p = setting
    kind = pair[1].config.pick
    u = np.random.default_rng(2).random((40, dimensions(kind, CONFIG.vocab)), np.float32)
    settings = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    picks, _ = write(session(folder / "target.b1.onnx"), tokens, [40], **settings)
    logits = pair[0](torch.tensor([tokens]))[0]
    p = shape(logits, *(torch.tensor(float(x)) for x in (temperature, top_k, top_p)))
    agree = (picks == pick(kind, p, torch.from_numpy(u)).numpy()).mean()
    assert agree > 0.97  # A u within rounding of a boundary may fall on either side.


def test_the_most_probable_tokens_are_returned(pair, folder, tokens):
    out = run(
        session(folder / "target.b1.onnx"),
        context_feeds([(Cache(CONFIG.layers), tokens)])
        | sampling(
            np.arange(len(tokens)), np.zeros((len(tokens), pair[1].config.coordinates), np.float32), top_count=3
        ),
    )
    expected = pair[0](torch.tensor([tokens]))[0].log_softmax(-1).topk(3)
    np.testing.assert_allclose(out["top_logprob"], expected.values.detach().numpy(), atol=1e-4, rtol=0)
    assert (out["top_id"] == expected.indices.numpy()).mean() > 0.99
    assert (out["top_id"][:, 0] == out["pick"]).all()  # Greedy decoding.
    assert (out["top_logprob"][:, 0] == out["logprob"]).all()


@pytest.mark.parametrize("chunks", [[2], [3], [5], [8], [2, 7, 3, 5]])
def test_chunking_changes_no_bit(folder, tokens, chunks):
    model = session(folder / "target.b1.onnx")
    settings = {"temperature": 0.8, "top_k": 20, "top_p": 0.9}
    whole, parts = write(model, tokens, [40], **settings), write(model, tokens, chunks, **settings)
    for a, b in zip(whole, parts, strict=True):
        assert a.tobytes() == b.tobytes()


def test_a_ragged_batch_changes_no_bit(pair, folder, tokens):
    """Compares four sequences with four settings, batched and alone."""
    alone, together = session(folder / "target.b1.onnx"), session(folder / "target.b4.onnx")
    settings = [(0.0, 0, 1.0), (1.0, 0, 1.0), (0.7, 10, 0.9), (1.2, 100, 0.99)]
    lengths, rng = [2, 9, 3, 6], np.random.default_rng(4)
    d = pair[1].config.coordinates
    u = [rng.random((n, d), np.float32) for n in lengths]
    caches = []
    for i in range(4):
        cache = Cache(CONFIG.layers)
        out = run(alone, context_feeds([(cache, tokens[: 5 * i + 2])]) | sampling([0, 0], u[0][:2]))
        cache.append(out, 0, 5 * i + 2)
        caches.append(cache)
    slots = [(c, tokens[20 : 20 + n]) for c, n in zip(caches, lengths, strict=True)]
    parts = [sampling(np.arange(n), x, *s, top_count=5) for n, s, x in zip(lengths, settings, u, strict=True)]
    joint = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]} | {"rows": np.arange(sum(lengths))}
    joint["top_count"] = parts[0]["top_count"]
    batch = run(together, context_feeds(slots) | joint)
    at = 0
    for slot, part, n in zip(slots, parts, lengths, strict=True):
        single = run(alone, context_feeds([slot]) | part)
        for name, value in single.items():
            got = batch[name][:, at : at + n] if value.ndim == 3 else batch[name][at : at + n]
            assert got.tobytes() == value.tobytes(), name
        at += n


def drafter_feeds(branches: list[list[tuple]], contexts: list[int]) -> dict:
    """branches[slot]: (visible, last token, u [L, D]); contexts[slot]: P + T."""
    flat = [b for slot in branches for b in slot]
    u = np.concatenate([b[2] for b in flat])
    feeds = {
        "u": u[None],
        "upos": np.concatenate([b[0] - 1 + np.arange(len(b[2])) for b in flat])[None].astype(np.int64),
        "last": np.concatenate([np.full(len(b[2]), b[1]) for b in flat])[None].astype(np.int64),
        "first": np.concatenate([np.arange(len(b[2])) == 0 for b in flat])[None, :, None].astype(np.float32),
    }
    lengths = [len(b[2]) for b in flat]
    feeds["grid"] = np.zeros((max(lengths), len(flat)), np.int64)
    for n, (start, length) in enumerate(zip(np.cumsum([0, *lengths]), lengths, strict=False)):
        feeds["grid"][:length, n] = start + np.arange(length)
    feeds["cell"] = np.concatenate([np.arange(length) * len(flat) + n for n, length in enumerate(lengths)])
    for i, (slot, context) in enumerate(zip(branches, contexts, strict=True)):
        m = sum(len(b[2]) for b in slot)
        mask = np.full((m, context + m), -np.inf, np.float32)
        row = 0
        for visible, _, x in slot:
            mask[row : row + len(x), :visible] = 0
            mask[row : row + len(x), context + row : context + row + len(x)] = causal(0, len(x))
            row += len(x)
        feeds[f"umask_{i}"] = mask
    if len(branches) > 1:
        feeds["usplits"] = np.array([sum(len(b[2]) for b in slot) for slot in branches])
    return feeds


def drafts(target: Target, drafter: Drafter, model, tokens: list[int], setting, slots: int) -> tuple:
    """Returns tokens and confidences of the graph `model`, and those of the module, for branches at several depths of a
    context. Half of the context is cached, and the other half is run together with the branches.
    """
    temperature, top_k, top_p = setting
    starts, lengths = [12, 17, 20], [4, 1, 3]
    c = drafter.config
    u = np.random.default_rng(5).random((len(starts), 4, c.coordinates), np.float32)
    with torch.no_grad():
        ids = torch.tensor([tokens[:20]])
        cache = drafter.read(ids) if c.kind == "separate" else target.read(ids, c.depth)[1]
        last = torch.tensor([[tokens[s - 1] for s in starts]])
        conditions = tuple(torch.full((1, 1, 1), x) for x in (temperature, top_p, top_k))
        asked = (cache, last, torch.tensor([starts]), torch.from_numpy(u)[None], conditions)
        excluded = drafter.draft(*asked)[:, :, 0]
        excluded[0, 1] = -1
        drafted = drafter.draft(*asked, excluded)
        rows = drafter(*asked, drafted)
        rows[:, :, 0] = without(rows[:, :, 0], excluded, drafter.shortlist)
        chances = rows.softmax(-1).gather(-1, drafter.places(drafted)[..., None])[0, :, :, 0]
        assert drafter.lists(drafted).all()
    assert (drafted[:, :, 0] != excluded).all()
    width = c.sizes.kv_heads * c.sizes.head_width
    read = Cache(c.depth, width)
    padding = [(Cache(c.depth, width), tokens[:2]) for _ in range(slots - 1)]
    nothing = np.zeros((1, c.coordinates), np.float32)
    idle = [[(2, tokens[1], nothing)] for _ in padding]
    idle_branches = [(2, tokens[1], nothing)]

    def step(cache, part, branches):
        contexts = [(cache, part), *padding]
        feeds = context_feeds(contexts) | drafter_feeds([branches, *idle], [len(c) + len(t) for c, t in contexts])
        column = (*feeds["u"].shape[:2], 1)
        for name, value in (("temperature", temperature), ("top_p", top_p), ("top_k", top_k)):
            feeds[name] = np.full(column, value, np.float32)
        feeds["excluded"] = np.full(column[:2], -1)
        if branches is not idle_branches:
            firsts = np.cumsum([0, *lengths])[:-1]
            feeds["excluded"][0, firsts] = excluded[0].numpy()
        taken = {i.name for i in model.get_inputs()}
        return run(model, {name: value for name, value in feeds.items() if name in taken})

    read.append(step(read, tokens[:10], idle_branches), 0, 10)
    branches = [(s, tokens[s - 1], row[:n]) for s, n, row in zip(starts, lengths, u, strict=True)]
    out = step(read, tokens[10:20], branches)
    count = sum(lengths)
    expected = (
        np.concatenate([row[:n] for n, row in zip(lengths, x.numpy(), strict=True)]) for x in (drafted[0], chances)
    )
    return out["draft"][:count], out["confidence"][:count], *expected


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("slots", [1, 4])
def test_drafter_graph_equals_the_module(pair, folder, tokens, setting, slots):
    model = session(folder / f"drafter.b{slots}.onnx")
    draft, confidence, expected, chances = drafts(*pair, model, tokens, setting, slots)
    assert draft.tolist() == expected.tolist()
    np.testing.assert_allclose(confidence, chances, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["c, tree, sequential head", "c, tree, shortlist"])
def test_drafter_graph_in_the_default_form_is_near_the_module(name, tokens, tmp_path):
    torch.manual_seed(0)
    target, form = Target(CONFIG), {"source": (0, 1), "length": 4, "frequencies": 4} | FORMS[name]
    pair = storable(target, Drafter(DrafterConfig(CONFIG, **form), target, some_tokens(form)))
    facts = {"drafter": {"yield_curve": [0, 1, 1, 1, 1], "accuracy_by_position": [1, 0, 0, 0]}}
    export.write_folder(*pair, byte_tokenizer().to_str().encode(), tmp_path, "test", facts)
    model = session(tmp_path / "drafter.b1.onnx")
    found = [drafts(*pair, model, tokens, setting, 1) for setting in SETTINGS]
    draft, confidence, expected, chances = (np.concatenate(parts) for parts in zip(*found, strict=True))
    equal = draft == expected
    assert equal.mean() >= 0.95
    np.testing.assert_allclose(confidence[equal], chances[equal], atol=2e-3, rtol=0)


def sampler_session(tmp_path: pathlib.Path, vocab: int, kind: str) -> onnxruntime.InferenceSession:
    g = Graph(WeightFile(tmp_path / "unused.weights"))
    g.input("logits", FLOAT, ["R", vocab])
    sampler(g, "logits", vocab, kind)
    g.output("pick", INT64, ["R"])
    path = tmp_path / f"sampler{vocab}.onnx"
    g.save(path)
    return session(path)


def sample(model, logits: np.ndarray, temperature, top_k, top_p, u, min_p=0) -> np.ndarray:
    column = lambda x, kind: np.broadcast_to(np.asarray(x, kind), (len(logits),)).reshape(-1, 1)  # noqa: E731
    return model.run(
        ["pick"],
        {
            "logits": logits,
            "temperature": column(temperature, np.float32),
            "top_k": column(top_k, np.int64),
            "top_p": column(top_p, np.float32),
            "min_p": column(min_p, np.float32),
            "u": np.asarray(u, np.float32).reshape(len(logits), -1),
        },
    )[0]


@pytest.mark.parametrize(
    ("kind", "file", "size"), [("cdf", "sampling", None), ("tree", "tree", 150), ("tree", "tree", 24)]
)
@pytest.mark.parametrize("vocab", [24, 300])
def test_sampler_answers_the_shared_vectors(tmp_path, kind, file, size, vocab):
    """Pads the cases of one uniform with excluded tokens to two sizes: a size at which all tokens are ranked, and a
    size at which only the nearest are. The tree depends on the vocabulary's size, so its cases are not padded.
    """
    cases = [c for c in json.loads((VECTORS / f"{file}.json").read_text())["cases"] if size in (None, len(c["logits"]))]
    assert len(cases) > 5
    vocab = size or vocab
    logits = np.full((len(cases), vocab), -np.inf, np.float32)
    for row, case in zip(logits, cases, strict=True):
        row[: len(case["logits"])] = case["logits"]
    fields = ([c[k] for c in cases] for k in ("temperature", "top_k", "top_p", "u"))
    got = sample(sampler_session(tmp_path, vocab, kind), logits, *fields)
    assert got.tolist() == [c["token"] for c in cases]


@pytest.mark.parametrize("kind", ["cdf", "tree"])
def test_sampler_agrees_with_the_reference_on_every_path(tmp_path, kind):
    rng = np.random.default_rng(6)
    vocab, count = 300, 400
    logits = (rng.standard_normal((count, vocab)) * rng.choice([0.2, 1, 4], (count, 1))).astype(np.float32)
    temperature, top_k = rng.choice([0, 0.5, 1], count), rng.choice([0, 1, NEAREST, 200, vocab], count)
    top_p = rng.choice([0.3, 0.9, 0.999, 1], count)
    u = rng.random((count, dimensions(kind, vocab)), np.float32)
    model = sampler_session(tmp_path, vocab, kind)
    got = sample(model, logits, temperature, top_k, top_p, u)
    settings = (torch.tensor(x, dtype=torch.float32) for x in (temperature, top_k, top_p))
    expected = pick(kind, shape(torch.from_numpy(logits), *settings), torch.from_numpy(u)).numpy()
    assert (got == expected).mean() > 0.99
    # A row's result does not depend on the paths of other rows.
    for i in range(0, count, 2):
        pair = slice(i, i + 2)
        alone = sample(model, logits[pair], temperature[pair], top_k[pair], top_p[pair], u[pair])
        assert alone.tolist() == got[pair].tolist()


@pytest.mark.parametrize("kind", ["cdf", "tree"])
def test_min_p_comes_before_top_k_and_top_p(tmp_path, kind):
    rng = np.random.default_rng(8)
    vocab, count = 300, 400
    logits = (rng.standard_normal((count, vocab)) * rng.choice([0.2, 1, 4], (count, 1))).astype(np.float32)
    temperature = rng.choice([0.5, 1, 2], count).astype(np.float32)
    top_k, top_p = rng.choice([0, 5, 200], count), rng.choice([0.5, 0.9, 1], count)
    min_p = rng.choice([0, 0.05, 0.5, 1], count).astype(np.float32)
    u = rng.random((count, dimensions(kind, vocab)), np.float32)
    got = sample(sampler_session(tmp_path, vocab, kind), logits, temperature, top_k, top_p, u, min_p)
    p = np.exp((logits - logits.max(1, keepdims=True)) / temperature[:, None])
    likely = np.where(p < min_p[:, None], -np.inf, logits).astype(np.float32)
    assert (np.isinf(likely).sum(1)[min_p == 1] == vocab - 1).all()
    settings = (torch.tensor(x, dtype=torch.float32) for x in (temperature, top_k, top_p))
    expected = pick(kind, shape(torch.from_numpy(likely), *settings), torch.from_numpy(u)).numpy()
    assert (got == expected).mean() > 0.99


def test_adjustments_change_only_the_requested_logits(tmp_path):
    rng = np.random.default_rng(9)
    rows, vocab = 6, 50
    logits = rng.standard_normal((rows, vocab)).astype(np.float32)
    g = Graph(WeightFile(tmp_path / "unused.weights"))
    g.input("logits", FLOAT, ["R", vocab])
    g.node("Identity", [adjusted(g, "logits", vocab)], "out")
    g.output("out", FLOAT, ["R", vocab])
    g.save(tmp_path / "adjusted.onnx")
    model = session(tmp_path / "adjusted.onnx")
    run = lambda scale, bias: model.run(["out"], {"logits": logits, "scale": scale, "bias": bias})[0]  # noqa: E731
    none = np.zeros((0, vocab), np.float32)
    assert (run(none, none) == logits).all()
    scale, bias = np.ones_like(logits), np.zeros_like(logits)
    assert (run(scale, bias) == logits).all()
    scale[1, :10], bias[2, 3], bias[3, ::2] = 1.5, 7, -np.inf
    expected = logits.copy()
    expected[1, :10] = np.where(logits[1, :10] > 0, logits[1, :10] / np.float32(1.5), logits[1, :10] * np.float32(1.5))
    expected[2, 3] += 7
    expected[3, ::2] = -np.inf
    assert (run(scale, bias) == expected).all()


@pytest.mark.parametrize("kind", ["cdf", "tree"])
def test_sampler_has_a_token_for_the_largest_u(tmp_path, kind):
    rng = np.random.default_rng(7)
    logits = rng.standard_normal((64, 300)).astype(np.float32)
    model = sampler_session(tmp_path, 300, kind)
    u = np.full((64, dimensions(kind, 300)), 1 - 2**-24, np.float32)
    for top_k, top_p in ((0, 1), (5, 1), (0, 0.5), (100, 0.99)):
        got = sample(model, logits, 1, top_k, top_p, u)
        assert ((got >= 0) & (got < 300)).all()
        p = shape(torch.from_numpy(logits), *(torch.tensor(float(x)) for x in (1, top_k, top_p)))
        assert (p.gather(-1, torch.from_numpy(got)[:, None]) > 0).all()


def test_weights_are_stored_once_and_cast_when_loaded(folder, tmp_path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(folder / "target.b1.onnx", options)
    loaded = onnx.load(tmp_path / "optimised.onnx", load_external_data=False).graph
    produced = {n.output[0]: n.op_type for n in loaded.node}
    constants = {i.name: i.data_type for i in loaded.initializer}
    for node in loaded.node:
        if node.op_type in ("MatMul", "Gemm"):
            assert node.input[1] not in produced and constants[node.input[1]] == onnx.TensorProto.FLOAT
    parameters = sum(p.numel() for p in Target(CONFIG).parameters() if p.ndim == 2)
    assert (folder / "target.weights").stat().st_size < 2 * parameters + 4096 * 40


def test_manifest_describes_the_folder(pair, folder):
    content = json.loads((folder / "manifest.json").read_text())
    assert content["format_version"] == 1
    c = pair[1].config
    assert (content["pick"], content["uniforms_per_position"]) == (c.pick, 1 if c.pick == "cdf" else 9)
    row = 2 * c.sizes.kv_heads * c.sizes.head_width * 4
    assert content["bytes_per_token"] == {"target": 3 * 2 * ROW * 4, "drafter": c.depth * row}
    assert set(content["files"]) == {f.name for f in folder.iterdir()} - {"manifest.json"}
    for name, entry in content["files"].items():
        assert entry == {"sha256": manifest.digest(folder / name), "bytes": (folder / name).stat().st_size}


def test_export_reads_checkpoints_and_reports(pair, tmp_path):
    target, drafter = pair
    settings = {"tokens": "1000", "out": "/somewhere"}
    save(tmp_path / "target.pt", "target", target, bits_per_byte={"held_files": 1.5}, tokens=1000, settings=settings)
    given, log = {"steps": "4000", "samples": "/somewhere"}, [{"step": 5}]
    save(tmp_path / "drafter.pt", "drafter", drafter, settings=given, log=log)
    (tmp_path / "tokenizer.json").write_bytes(byte_tokenizer().to_str().encode())
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    paths = {
        "target": "target.pt",
        "drafter": "drafter.pt",
        "tokens": ".",
        "evaluation": "e.json",
        "sources": "none",
        "out": "out",
    }
    flags = [x for name, path in paths.items() for x in (f"--{name}", str(tmp_path / path))]
    args = parser.parse_args([*flags, "--id", "pair"])
    with pytest.raises(
        SystemExit, match="--evaluation must exist, .*: run `ptp-train evaluate`, which measures the yield curve"
    ):
        command.run(args)
    curve = {
        "yield_curve": [0, 0.5, 0.7, 0.8, 0.9],
        "yield_curve_after_miss": [0, 0.3, 0.4, 0.5, 0.5],
        "accuracy": [0.5, 0.4, 0.3, 0.2],
        "tokens_per_call": 1.9,
    }
    split = {"drafter": curve}
    at = {"conditions": [{"temperature": 0.7}], "held_files": split, "held_packages": split}
    (tmp_path / "e.json").write_text(json.dumps({"settings": [at]}))
    command.run(args)
    content = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert content["target"]["bits_per_byte"] == {"held_files": 1.5}
    for name in ("yield_curve", "yield_curve_after_miss"):
        assert content["drafter"][name] == curve[name]
    measured = {"conditions": at["conditions"], "tokens_per_call": {"held_files": 1.9, "held_packages": 1.9}}
    assert content["drafter"]["measured"] == [measured]
    assert content["recipe"] == {"target": {"tokens": 1000}, "drafter": {"steps": 5}}
    assert "corpus" not in content


def test_a_pair_can_be_served_with_longer_contexts_than_it_was_trained_for(pair, tmp_path, tokens):
    long = copy.deepcopy(pair)
    export.serve_context(*long, 3 * CONFIG.context)
    facts = {"drafter": {"yield_curve": [0, 1, 1, 1, 1], "accuracy_by_position": [1, 0, 0, 0]}}
    export.write_folder(*long, byte_tokenizer().to_str().encode(), tmp_path, "long", facts)
    assert json.loads((tmp_path / "manifest.json").read_text())["context_length"] == 3 * CONFIG.context
    count = 2 * CONFIG.context
    ids = (tokens * count)[:count]
    picks, _ = write(session(tmp_path / "target.b1.onnx"), ids, [64])
    assert picks.tolist() == long[0](torch.tensor([ids]))[0].argmax(-1).tolist()


def test_small_targets_have_a_graph_per_number_of_sequences_and_large_ones_a_single_graph(tmp_path, monkeypatch):
    target = Target(Config(vocab=300, width=64, layers=1, heads=1, kv_heads=1, hidden=64, context=64))

    def slots_of(name: str, **options) -> tuple[list[int], list[int] | None, str | None]:
        export.write_folder(target, None, byte_tokenizer().to_str().encode(), tmp_path / name, "test", {}, **options)
        manifest = json.loads((tmp_path / name / "manifest.json").read_text())
        return manifest["max_slots"], manifest["target"].get("slots"), manifest["target"].get("caches")

    assert slots_of("small") == ([1, 2, 4, 8], None, None)
    assert slots_of("chosen", slots=(1, 3)) == ([1, 3], None, None)
    assert (tmp_path / "chosen" / "target.b3.onnx").exists()
    assert slots_of("chosen in place", slots=(4,), in_place=True) == ([4], None, "in_place")
    monkeypatch.setattr(export, "LARGE", 1000)
    assert slots_of("large") == ([1, 4], [8], "in_place") and (tmp_path / "large" / "target.b8.onnx").exists()
    assert slots_of("large and packed", in_place=False) == ([1, 4], [8], None)
    with pytest.raises(SystemExit, match="--slots must start with 1 and be in ascending order, got 2,4"):
        command.check(argparse.Namespace(slots=(2, 4), to="server", id="x", device="cpu", **{"from": None}))


def test_embedded_uniforms(tmp_path):
    """Tests features of multiples of 2^-24, including the smallest and the largest multiple."""
    g = Graph(WeightFile(tmp_path / "unused.weights"))
    g.input("u", FLOAT, [1, "M", 3])
    name = graph_embeddings.features(g, "fourier", "u", 3, 4)
    g.output(name, FLOAT, [1, "M", None])
    g.save(tmp_path / "embedding.onnx")
    whole = np.random.default_rng(0).integers(0, 2**24, (1, 40, 3))
    whole[0, 0] = 0, 1, 2**24 - 1
    whole[0, 1] = 2**23, 2**23 - 1, 3
    u = (whole / 2**24).astype(np.float32)
    (found,) = session(tmp_path / "embedding.onnx").run(None, {"u": u})
    expected = embeddings.features("fourier", torch.from_numpy(u), 4).numpy()
    assert found.shape[-1] == 3 * embeddings.EMBEDDINGS["fourier"].count(4)
    np.testing.assert_allclose(found, expected, atol=2e-5)
