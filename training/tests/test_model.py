"""Tests the consistency of the networks: caches, masks and independence of drafts."""

from dataclasses import replace

import pytest
import torch

from ptp_train.model import coordinates, grow
from ptp_train.model.drafter import Drafter, DrafterConfig, load_drafter
from ptp_train.model.transformer import Config, Target, load_target, save
from ptp_train.train.target import taken

CONFIG = Config(vocab=96, width=64, layers=4, heads=4, kv_heads=2, head_width=16, hidden=96, context=64)
CONDITIONS = tuple(torch.tensor(x) for x in (0.7, 0.9, 50.0))


OWN = replace(CONFIG, width=32, layers=2, heads=2, kv_heads=1, hidden=64)
FORMS = {
    "o by one u": {"method": "o", "pick": "cdf", "rank": 0},
    "c by a tree, sequential head": {"method": "c", "pick": "tree", "rank": 8},
    "c by a tree, shortlist": {"rank": 8, "shortlist": 40},
    "adapters on the target": {"method": "o", "kind": "lora", "source": (0, 1, 2, 3), "rank": 0},
    "a transformer of its own": {"method": "c", "kind": "separate", "source": (0, 1), "own": OWN, "rank": 8},
}


@pytest.fixture(scope="module", params=FORMS)
def pair(request):
    torch.manual_seed(0)
    target = Target(CONFIG)
    config = DrafterConfig(CONFIG, **({"source": (0, 1, 3), "length": 4} | FORMS[request.param]))
    listed = torch.randperm(CONFIG.vocab)[: config.shortlist].sort().values if config.shortlist else None
    drafter = Drafter(config, target, listed)
    for p in (*target.parameters(), *drafter.parameters()):
        if p.ndim == 2:
            torch.nn.init.normal_(p, std=0.1)
    return target.eval(), drafter.eval()


def inputs(pair, ids, starts):
    target, drafter = pair
    cache = drafter.read(ids) if drafter.config.kind == "separate" else target.read(ids, 4)[1]
    return cache, ids.gather(1, starts - 1), starts


def draft(pair, ids, starts, u):
    """Returns logits with fixed answers, so that a sequential head sees the same tokens for any u."""
    return pair[1](*inputs(pair, ids, starts), u, CONDITIONS, torch.ones(u.shape[:3], dtype=torch.long))


@torch.no_grad()
def test_extend_in_chunks_equals_one_forward_pass(pair):
    target, _ = pair
    ids = torch.randint(0, 96, (2, 24))
    cache = target.empty_cache(2, 24)
    parts = [target.extend(ids[:, a:b], cache, a) for a, b in ((0, 10), (10, 11), (11, 24))]
    torch.testing.assert_close(torch.cat(parts, 1), target(ids), atol=1e-4, rtol=1e-4)


def uniforms(pair, n):
    return torch.rand(1, n, 4, pair[1].config.coordinates)


@torch.no_grad()
def test_a_completion_depends_on_its_own_past_only(pair):
    ids, starts, u = torch.randint(0, 96, (1, 24)), torch.tensor([[5, 9, 17]]), uniforms(pair, 3)
    base = draft(pair, ids, starts, u)
    later = ids.clone()
    later[:, 9:] = (later[:, 9:] + 1) % 96
    changed = u.clone()
    changed[:, 1, 2] = 1 - changed[:, 1, 2]
    after_text, after_u = draft(pair, later, starts, u), draft(pair, ids, starts, changed)
    torch.testing.assert_close(after_text[:, :2], base[:, :2])
    assert not torch.allclose(after_text[:, 2], base[:, 2], atol=1e-3)
    torch.testing.assert_close(after_u[:, [0, 2]], base[:, [0, 2]])
    first = 2 if pair[1].config.method == "o" else 3  # C-PTP does not see a position's own uniforms.
    torch.testing.assert_close(after_u[:, 1, :first], base[:, 1, :first])
    assert not torch.allclose(after_u[:, 1, first], base[:, 1, first], atol=1e-4)


@torch.no_grad()
def test_independent_prediction_sees_no_uniforms():
    torch.manual_seed(1)
    target = Target(CONFIG)
    pair = target, Drafter(DrafterConfig(CONFIG, source=(0, 3), length=4, method="independent", rank=0), target)
    ids, starts = torch.randint(0, 96, (1, 24)), torch.tensor([[7]])
    torch.testing.assert_close(draft(pair, ids, starts, uniforms(pair, 1)), draft(pair, ids, starts, uniforms(pair, 1)))


@torch.no_grad()
def test_drafting_position_by_position_is_consistent_with_teacher_forcing(pair):
    """With the drafted tokens as answers, the logits pick the same tokens."""
    drafter = pair[1]
    ids, starts, u = torch.randint(0, 96, (1, 24)), torch.tensor([[5, 9, 17]]), uniforms(pair, 3)
    asked = (*inputs(pair, ids, starts), u, CONDITIONS)
    tokens = drafter.draft(*asked)
    assert torch.equal(drafter.choose(drafter(*asked, tokens), u, CONDITIONS[0])[0], tokens)


@torch.no_grad()
def test_greedy_completions_do_not_read_u(pair):
    ids, starts = torch.randint(0, 96, (1, 24)), torch.tensor([[7]])
    greedy = (torch.tensor(0.0), torch.tensor(1.0), torch.tensor(0.0))
    one, two = (pair[1].draft(*inputs(pair, ids, starts), uniforms(pair, 1), greedy) for _ in range(2))
    assert torch.equal(one, two)


@torch.no_grad()
def test_reading_the_head_once_for_all_positions_changes_no_draft(pair):
    """With a sequential head of a small rank, the corrections are a product of its state."""
    drafter = pair[1]
    ids, starts, u = torch.randint(0, 96, (1, 24)), torch.tensor([[5, 9, 17]]), uniforms(pair, 3)
    asked = (*inputs(pair, ids, starts), u, CONDITIONS)
    expected = drafter.draft(*asked)
    drafter.factorise()
    assert (drafter.correction is not None) == (drafter.sequential is not None)
    assert torch.equal(drafter.draft(*asked), expected)
    drafter.correction = None


@torch.no_grad()
def test_a_shortlist_drafts_like_the_target_without_the_other_tokens():
    """The probabilities of tokens in the list are the target's, renormalised, and uniforms keep their meaning."""
    torch.manual_seed(7)
    target = Target(CONFIG)
    listed = torch.randperm(CONFIG.vocab)[:30].sort().values
    drafter = Drafter(DrafterConfig(CONFIG, source=(0,), length=1, rank=0, shortlist=30), target, listed)
    assert torch.equal(drafter.head_weight, target.head_weight[listed])
    logits, u = torch.randn(500, CONFIG.vocab) * 3, torch.rand(500, drafter.config.coordinates)
    tokens, probability = drafter.choose(drafter.listed(logits), u, torch.ones(500))
    p = torch.zeros_like(logits).index_copy_(-1, listed, logits[:, listed].softmax(-1))
    assert torch.equal(tokens, coordinates.pick("tree", p, u))
    torch.testing.assert_close(probability, p.gather(-1, tokens[:, None])[:, 0])
    assert torch.equal(drafter.spread(drafter.listed(p)), p)
    assert drafter.lists(torch.arange(CONFIG.vocab)).nonzero()[:, 0].equal(listed)
    assert drafter.places(listed).equal(torch.arange(30))


def test_saved_models_load_equal(pair, tmp_path):
    target, drafter = pair
    save(tmp_path / "target.pt", "target", target)
    save(tmp_path / "drafter.pt", "drafter", drafter)
    for module, loaded in (
        (target, load_target(tmp_path / "target.pt")),
        (drafter, load_drafter(tmp_path / "drafter.pt")),
    ):
        assert loaded.config == module.config
        for name, value in module.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], value)


@pytest.mark.parametrize("pair", ["c by a tree, sequential head"], indirect=True)
def test_a_compiled_drafter_gives_the_same_drafts(pair):
    """Traces the module as on a GPU, for two lengths of context."""
    compiled = torch.compile(pair[1], backend="eager")
    for length in (24, 31):
        ids, starts, u = torch.randint(0, 96, (1, length)), torch.tensor([[5, 9, 17]]), uniforms(pair, 3)
        expected = draft(pair, ids, starts, u)
        found = draft((pair[0], compiled), ids, starts, u)
        torch.testing.assert_close(found, expected)
        found.sum().backward()


def test_a_grown_target_keeps_its_outputs_and_trains_its_new_parts():
    torch.manual_seed(3)
    small = Target(Config(60, 64, 2, 2, 1, head_width=32, hidden=80, context=64, epsilon=1e-12))
    for p in small.parameters():
        torch.nn.init.normal_(p, 0.3 if p.ndim == 2 else 1.0, 0.1)
    large = grow.grown(small, Config(60, 96, 5, 4, 2, head_width=32, hidden=100, context=128))
    assert large.config == replace(small.config, width=96, layers=5, heads=4, kv_heads=2, hidden=100, context=128)
    ids = torch.randint(60, (2, 40))
    torch.testing.assert_close(large(ids), small(ids), atol=1e-4, rtol=1e-4)
    large(ids).logsumexp(-1).sum().backward()
    silent = {n for n, p in large.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    inner = {
        f"layers.{i}.{n}" for i in (1, 2, 4) for n in ("q.weight", "k.weight", "v.weight", "gate.weight", "up.weight")
    }
    inner |= {f"layers.{i}.{n}.weight" for i in (1, 2, 4) for n in ("norm_attention", "norm_mlp")}
    assert silent <= inner  # Parameters before an output matrix that is still zero have no gradient.


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"layers": 1}, "layers must be at least 2, as in --init, got 1"),
        ({"heads": 4}, "heads must be 2 x kv_heads, as in --init, got 4 heads and 1 key/value heads"),
        ({"qkv_bias": True}, "has no biases"),
    ],
)
def test_impossible_growth_is_rejected(changed, message):
    old = Config(60, 64, 2, 2, 1, head_width=32, hidden=80, qkv_bias=changed.get("qkv_bias", False))
    with pytest.raises(SystemExit, match=message):
        grow.check(old, replace(old, **changed))


def test_a_model_of_some_layers_computes_the_same_as_these_layers():
    torch.manual_seed(5)
    large = Target(Config(60, 64, 4, 2, 1, head_width=32, hidden=80, context=64))
    small = taken(large, (0, 3))
    assert small.config == replace(large.config, layers=2)
    ids = torch.randint(60, (2, 12))
    for layer in (large.layers[1], large.layers[2]):  # The new layers.
        torch.nn.init.zeros_(layer.o.weight)
        torch.nn.init.zeros_(layer.down.weight)
    torch.testing.assert_close(small(ids), large(ids))


@pytest.mark.parametrize("shortlist", [0, 40])
def test_a_grown_drafter_drafts_the_same(shortlist):
    torch.manual_seed(4 + shortlist)
    small = Target(Config(60, 64, 3, 2, 1, head_width=32, hidden=80, context=64, epsilon=1e-12))
    for p in small.parameters():
        torch.nn.init.normal_(p, 0.0 if p.ndim == 2 else 1.0, 0.15)
    shape = {"rank": 16, "length": 4, "source": (0, 2), "shortlist": shortlist}
    drafter = Drafter(DrafterConfig(small.config, **shape), small, torch.arange(20, 60) if shortlist else None)
    torch.nn.init.normal_(drafter.sequential.out.weight, std=0.2)
    large = grow.grown(small, Config(60, 96, 6, 4, 2, head_width=32, hidden=100))
    grown = grow.grown_drafter(drafter, DrafterConfig(large.config, **shape | {"source": (0, 4)}))
    ids, starts = torch.randint(60, (2, 20)), torch.tensor([[5, 11], [7, 20]])
    u, answers = torch.rand(2, 2, 4, drafter.config.coordinates), torch.randint(60, (2, 2, 4))
    last = ids.gather(1, starts - 1)
    rows = [
        d(t.read(ids, t.config.layers)[1], last, starts, u, CONDITIONS, answers)
        for d, t in ((drafter, small), (grown, large))
    ]
    torch.testing.assert_close(*rows, atol=1e-3, rtol=1e-3)
    with pytest.raises(SystemExit, match="--source must name 2 layers, as in --init, got 0,2,4"):
        grow.check_drafter(drafter.config, replace(grown.config, source=(0, 2, 4)))
    with pytest.raises(SystemExit, match="--rank must be 16, as in --init, got 8"):
        grow.check_drafter(drafter.config, replace(grown.config, rank=8))
