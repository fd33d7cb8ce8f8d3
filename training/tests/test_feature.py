"""Tests of `feature` drafters: the module, and its graph against the module."""

import pathlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_export import CONFIG, SETTINGS, Cache, context_feeds, liven, run, session, some_tokens, storable
from tiny_pair import byte_tokenizer

from ptp_train.export import model_folder as export
from ptp_train.model import coordinates
from ptp_train.model.drafter import Drafter, DrafterConfig, Given
from ptp_train.model.grow import grown_drafter
from ptp_train.model.sampling import shape
from ptp_train.model.transformer import Target
from ptp_train.train.batches import Samples, TargetOutputsCache, draft_batch, run_target
from ptp_train.train.integers import in_integers
from ptp_train.train.samples import GENERATED

LENGTH = 4
FORMS = {
    "c, tree, sequential head": {"rank": 8},
    "c, one u, no head": {"rank": 0, "pick": "cdf"},
    "o, tree": {"rank": 0, "method": "o"},
    "c, tree, shortlist": {"rank": 8, "shortlist": 100},
}


@pytest.fixture(scope="module", params=FORMS)
def pair(request):
    torch.manual_seed(0)
    target = Target(CONFIG)
    form = {"source": (0, 2), "length": LENGTH, "frequencies": 4, "kind": "feature"} | FORMS[request.param]
    drafter = Drafter(DrafterConfig(CONFIG, **form), target, some_tokens(form))
    return storable(target, drafter)


def write(pair, out: pathlib.Path, **form) -> pathlib.Path:
    facts = {"drafter": {"yield_curve": [0, 1, 1, 1, 1], "accuracy_by_position": [1, 0, 0, 0]}}
    export.write_folder(*pair, byte_tokenizer().to_str().encode(), out, "test", facts, **form)
    return out


@pytest.fixture(scope="module")
def folder(pair, tmp_path_factory) -> pathlib.Path:
    exact = export.Form(storage="exact")  # float16 would round the sequential head's matrix of corrections.
    return write(pair, tmp_path_factory.mktemp("model"), drafter_form=exact)


@pytest.fixture(scope="module")
def tokens():
    return np.random.default_rng(1).integers(0, CONFIG.vocab, 40).tolist()


def conditions_of(setting):
    temperature, top_k, top_p = setting
    return tuple(torch.full((1, 1, 1), x) for x in (temperature, top_p, top_k))


@torch.no_grad()
def continued(target: Target, pick: str, text: list[int], u: np.ndarray, setting) -> list[int]:
    """Returns the target's continuation of `text`, token by token, with uniforms u [L, D]."""
    temperature, top_k, top_p = (torch.tensor(x) for x in setting)
    written = []
    for row in torch.from_numpy(u):
        p = shape(target(torch.tensor([text + written]))[0, -1], temperature, top_k, top_p)
        written.append(int(coordinates.pick(pick, p, row)))
    return written


@torch.no_grad()
def drafted(target: Target, drafter: Drafter, text: list[int], u: np.ndarray, setting):
    """Returns the module's draft after `text` with u [L, D], and the probabilities of all its tokens but the first."""
    x, cache = target.read(torch.tensor([text]), len(target.layers))
    feature, logits = target.predict(x[:, -1:])
    asked = (cache, torch.tensor([[text[-1]]]), torch.tensor([[len(text)]]), torch.from_numpy(u)[None, None])
    given, conditions = Given(feature, logits), conditions_of(setting)
    draft = drafter.draft(*asked, conditions, None, given)
    rows = drafter(*asked, conditions, draft, given).softmax(-1)
    return draft[0, 0].tolist(), rows.gather(-1, drafter.places(draft[:, :, 1:, None]))[0, 0, :, 0].numpy()


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_first_token_is_the_targets_own(pair, tokens, setting):
    target, drafter = pair
    u = np.random.default_rng(3).random((LENGTH, drafter.config.coordinates), np.float32)
    draft, _ = drafted(target, drafter, tokens[:20], u, setting)
    assert draft[:1] == continued(target, drafter.config.pick, tokens[:20], u[:1], setting)


def test_an_excluded_first_token_is_not_drafted(pair, tokens):
    target, drafter = pair
    x, cache = target.read(torch.tensor([tokens[:20]]), len(target.layers))
    given = Given(*target.predict(x[:, -1:]))
    u = torch.rand(1, 1, LENGTH, drafter.config.coordinates)
    asked = (cache, torch.tensor([tokens[19:20]]), torch.tensor([[20]]), u, conditions_of((0.7, 50.0, 0.9)))
    first = drafter.draft(*asked, None, given)[:, :, 0]
    assert drafter.draft(*asked, first, given)[:, :, 0] != first


def test_it_sees_only_the_embedding_of_the_first_token(pair, tokens):
    """In drafting, the first token has no keys and values yet, so training must not use them either."""
    target, drafter = pair
    u = torch.rand(1, 1, LENGTH, drafter.config.coordinates)
    answers = torch.tensor([[tokens[20:24]]])
    rows = []
    for end in (20, 24):  # Tests with the context alone, and with later tokens.
        x, cache = target.read(torch.tensor([tokens[:end]]), len(target.layers))
        given = Given(*target.predict(x[:, 19:20]))
        asked = (cache, torch.tensor([tokens[19:20]]), torch.tensor([[20]]), u, conditions_of((1.0, 0.0, 1.0)))
        rows.append(drafter(*asked, answers, given))
    torch.testing.assert_close(rows[0], rows[1])
    assert rows[0].shape == (1, 1, LENGTH - 1, drafter.config.shortlist or CONFIG.vocab)


class Asked:
    """One sequence's part of a run: its text, the block under verification, and the uniforms from the block's first
    token on.
    """

    def __init__(self, text: list[int], block: list[int], u: np.ndarray, setting):
        self.text, self.block, self.u, self.setting = text, block, u, setting


def check_feeds(parts: list[tuple[Asked, int]], steps: int) -> dict:
    """parts: the parts of the run, each with its number of context tokens in this run."""
    columns = 1 + max(len(a.block) for a, _ in parts)
    d = parts[0][0].u.shape[1]
    feeds = {
        "check_rows": np.zeros((len(parts), columns), np.int64),
        "check_tokens": np.full((len(parts), columns), -1, np.int64),
        "visible": np.array([[len(a.text)] for a, _ in parts]),
        "uniforms": np.zeros((len(parts), columns + steps, d), np.float32),
        "steps": np.array([steps]),
    }
    at = 0
    for i, (a, count) in enumerate(parts):
        n = len(a.block)
        tip = at + count - n - 1
        feeds["check_rows"][i] = tip + np.minimum(np.arange(columns), n)
        feeds["check_tokens"][i, :n] = a.block
        feeds["uniforms"][i, : len(a.u)] = a.u[: columns + steps]
        at += count
    for n, (name, kind) in enumerate((("temperature", np.float32), ("top_k", np.int64), ("top_p", np.float32))):
        feeds[f"sampling.{name}"] = np.array([[a.setting[n]] for a, _ in parts], kind)
    feeds["sampling.min_p"] = np.zeros((len(parts), 1), np.float32)
    return feeds


def checked(
    pair, model, tokens: list[int], slots: int
) -> Iterator[tuple[np.ndarray, np.ndarray, list[int], np.ndarray]]:
    """Asserts that the graph `model` accepts the right tokens of some blocks and picks the target's next token. Yields
    the remaining draft and its confidences, and those of the module, for each block.
    """
    target, drafter = pair
    c = drafter.config
    rng = np.random.default_rng(5)
    steps = LENGTH - 1
    # (tokens before, length of the block, number of its tokens that are right, sampling)
    cases = [(20, 4, 4, SETTINGS[0]), (20, 4, 2, SETTINGS[0]), (17, 3, 0, SETTINGS[1]), (12, 0, 0, SETTINGS[2])]
    asked = []
    for before, length, right, setting in cases:
        u = rng.random((length + LENGTH, c.coordinates), np.float32)
        block = continued(target, c.pick, tokens[:before], u[:length], setting)
        if right < length:
            block[right] = (block[right] + 1) % CONFIG.vocab
            block[right + 1 :] = tokens[: length - right - 1]
        asked.append(Asked(tokens[:before], block, u, setting))
    for group in [asked] if slots == 4 else [[a] for a in asked]:
        contexts = []
        for a in group:
            cache = Cache(CONFIG.layers)
            idle = Asked(a.text[:10], [], a.u, a.setting)
            others = [(Cache(CONFIG.layers), tokens[:2]) for _ in range(slots - 1)]
            feeds = context_feeds([(cache, a.text[:10]), *others])
            feeds |= check_feeds([(idle, 10), *((Asked(tokens[:2], [], a.u, a.setting), 2) for _ in others)], 1)
            cache.append(run(model, feeds), 0, 10)
            contexts.append((cache, a.text[10:] + a.block))
        feeds = context_feeds(contexts)
        feeds |= check_feeds([(a, len(t)) for a, (_, t) in zip(group, contexts, strict=True)], steps)
        out = run(model, feeds)
        for i, a in enumerate(group):
            _, _, right, _ = cases[asked.index(a)]
            assert out["accepted"][i].tolist() == [right]
            expected, chances = drafted(
                target, drafter, a.text + a.block[:right], a.u[right : right + LENGTH], a.setting
            )
            assert out["given"][i].tolist() == expected[:1]
            yield out["draft"][i], out["confidence"][i], expected[1:], chances


@pytest.mark.parametrize("slots", [1, 4])
def test_the_graph_finds_where_a_block_goes_wrong_and_drafts_from_there(pair, folder, tokens, slots):
    results = list(checked(pair, session(folder / f"drafter.b{slots}.onnx"), tokens, slots))
    assert len(results) == 4
    for draft, confidence, expected, chances in results:
        assert draft.tolist() == expected
        np.testing.assert_allclose(confidence, chances, atol=1e-4, rtol=0)


def test_the_graph_in_the_default_form_is_near_the_module(pair, tokens, tmp_path):
    model = session(write(pair, tmp_path) / "drafter.b1.onnx")
    columns = zip(*checked(pair, model, tokens, 1), strict=True)
    draft, confidence, expected, chances = (np.concatenate(column) for column in columns)
    equal = draft == expected
    assert equal.mean() >= 0.9
    np.testing.assert_allclose(confidence[equal], chances[equal], atol=2e-3, rtol=0)


def test_a_reader_becomes_a_feature_drafter(pair):
    target, drafter = pair
    old = Drafter(replace(drafter.config, kind="reader"), target)
    liven(old)
    new = grown_drafter(old, drafter.config)
    assert (new.feature.weight == 0).all()
    again = grown_drafter(new, drafter.config)
    for name, p in old.named_parameters():
        assert torch.equal(p, new.get_parameter(name))
        assert torch.equal(p, again.get_parameter(name))
    with pytest.raises(
        SystemExit, match="--init must have kind reader, or kind feature if --kind is feature, got feature"
    ):
        grown_drafter(drafter, replace(drafter.config, kind="reader"))


def test_kept_outputs_give_the_same_drafts(pair, tokens, tmp_path):
    """Outputs kept in float16 by TargetOutputsCache give the same drafts as new ones, up to rounding."""
    target, drafter = pair
    ids = np.random.default_rng(3).integers(0, CONFIG.vocab, (6, GENERATED + 8)).astype(np.uint16)
    settings = np.tile(np.array([0.7, 50, 0.9], np.float32), (6, 1))
    np.savez(tmp_path / "train-0-000000.npz", tokens=ids, settings=settings)
    samples = Samples(tmp_path, "train", "cpu")
    length = ids.shape[1]
    kept = TargetOutputsCache(target, drafter.config.pick, samples, 2 * length, drafter.config.source)
    starts, inside = torch.full((2, 1), 20), torch.rand(2, 1, LENGTH, drafter.config.coordinates)
    for _ in range(4):
        outputs = kept.draw(np.random.default_rng(1))
        batch = next(g for g in samples.groups(2 * length) if torch.equal(g["tokens"].long(), outputs.ids))
        got, fresh = (
            draft_batch(r, drafter, starts, inside) for r in (outputs, run_target(target, drafter.config.pick, batch))
        )
        torch.testing.assert_close(got.u, fresh.u)
        torch.testing.assert_close(got.p, fresh.p, atol=1e-3, rtol=0)
        torch.testing.assert_close(got.given.feature, fresh.given.feature, atol=1e-2, rtol=0)
        torch.testing.assert_close(got.cache[2][0], fresh.cache[2][0], atol=1e-2, rtol=0)
    assert len(kept.kept) == 1
    assert sum(len(g["tokens"]) for g in samples.groups(2 * length)) == 6


def test_the_mixture_of_sampling_conditions_is_counted(tmp_path):
    common = [[1, 0, 1]] * 120 + [[0.7, 50, 0.9]] * 78
    rare = [[0.3, 20, 0.81], [1.2, 100, 0.99]]
    for n, rows in enumerate((common, rare)):
        tokens = np.zeros((len(rows), 4), np.uint16)
        np.savez(tmp_path / f"train-{n}-000000.npz", tokens=tokens, settings=np.array(rows, np.float32))
    assert Samples(tmp_path, "train", "cpu").mixture() == [
        {"share": 0.6, "temperature": 1.0, "top_k": 0.0, "top_p": 1.0},
        {"share": 0.39, "temperature": 0.7, "top_k": 50.0, "top_p": 0.9},
        {"share": 0.01, "temperature": [0.3, 1.2], "top_k": [20.0, 100.0], "top_p": [0.81, 0.99]},
    ]


def test_a_context_in_integers_is_near_the_exact_one(pair, tokens):
    target, _ = pair
    ids = torch.tensor([tokens])
    with torch.no_grad():
        exact, near = target(ids).softmax(-1), in_integers(target)(ids).softmax(-1)
    apart = (exact - near).abs().sum(-1) / 2
    assert 1e-4 < apart.mean() < 0.2
    assert (in_integers(target).output.weight != target.head_weight).any()
