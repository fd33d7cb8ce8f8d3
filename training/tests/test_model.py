"""The networks against themselves: caches, masks and independence of completions."""

import pytest
import torch

from ptp_train.drafter import Drafter, DrafterConfig, load_drafter
from ptp_train.model import Config, Target, load_target, save

CONFIG = Config(vocab=96, width=64, layers=4, heads=4, kv_heads=2, head_width=16, hidden=96, context=64)
CONDITIONS = tuple(torch.tensor(x) for x in (0.7, 0.9, 50.0))


@pytest.fixture(scope="module")
def pair():
    torch.manual_seed(0)
    target = Target(CONFIG)
    drafter = Drafter(DrafterConfig(CONFIG, source=(0, 1, 3), length=4), target)
    for p in (*target.parameters(), *drafter.parameters()):
        if p.ndim == 2:
            torch.nn.init.normal_(p, std=0.1)
    return target.eval(), drafter.eval()


def draft(pair, ids, starts, u):
    target, drafter = pair
    cache = target.read(ids, 4)[1]
    return drafter(cache, ids.gather(1, starts - 1), starts, u, CONDITIONS)


@torch.no_grad()
def test_extend_in_chunks_equals_one_forward_pass(pair):
    target, _ = pair
    ids = torch.randint(0, 96, (2, 24))
    cache = target.empty_cache(2, 24)
    parts = [target.extend(ids[:, a:b], cache, a) for a, b in ((0, 10), (10, 11), (11, 24))]
    torch.testing.assert_close(torch.cat(parts, 1), target(ids), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_completion_depends_on_its_own_past_only(pair):
    ids, starts, u = torch.randint(0, 96, (1, 24)), torch.tensor([[5, 9, 17]]), torch.rand(1, 3, 4, 1)
    base = draft(pair, ids, starts, u)
    later = ids.clone()
    later[:, 9:] = (later[:, 9:] + 1) % 96
    changed = u.clone()
    changed[:, 1, 2] = 1 - changed[:, 1, 2]
    after_text, after_u = draft(pair, later, starts, u), draft(pair, ids, starts, changed)
    torch.testing.assert_close(after_text[:, :2], base[:, :2])
    assert not torch.allclose(after_text[:, 2], base[:, 2], atol=1e-3)
    torch.testing.assert_close(after_u[:, [0, 2]], base[:, [0, 2]])
    torch.testing.assert_close(after_u[:, 1, :2], base[:, 1, :2])
    assert not torch.allclose(after_u[:, 1, 2:], base[:, 1, 2:], atol=1e-4)


@torch.no_grad()
def test_greedy_completions_do_not_read_u(pair):
    ids, starts = torch.randint(0, 96, (1, 24)), torch.tensor([[7]])
    target, drafter = pair
    cache = target.read(ids, 4)[1]
    greedy = (torch.tensor(0.0), torch.tensor(1.0), torch.tensor(0.0))
    one, two = (drafter(cache, ids.gather(1, starts - 1), starts, torch.rand(1, 1, 4, 1), greedy) for _ in range(2))
    torch.testing.assert_close(one, two)


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
