"""Makes the tiny pair of the server's tests, test/models: real graphs with byte tokens that run in milliseconds.

    python tests/tiny_pair.py --out ../test/models/tiny-feature --kind feature      # in training/

Both networks are trained for a minute on this package's source, so that drafts are right and wrong often enough for the
tests.
"""

import argparse
import json
import pathlib
import types

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

import ptp_train
from ptp_train.data.tokenizer import END_OF_TEXT
from ptp_train.export.model_folder import write_folder
from ptp_train.model.drafter import Drafter, DrafterConfig
from ptp_train.model.transformer import Config, Target
from ptp_train.train.batches import draft_batch, run_target
from ptp_train.train.evaluate import after_misses, decode
from ptp_train.train.losses import kl
from ptp_train.train.optim import MuonAdamW, schedule
from ptp_train.train.samples import GENERATED, MIXTURE, conditions, prompts_from, write
from ptp_train.train.target import windows
from ptp_train.train.walks import by_drafter

CREATED = "2026-01-01T00:00:00Z"
CONFIG = Config(vocab=257, width=64, layers=3, heads=4, kv_heads=2, head_width=16, hidden=160, context=256)
PROMPT = CONFIG.context - GENERATED


def byte_tokenizer() -> Tokenizer:
    """Vocabulary, which consists of END_OF_TEXT and one token per byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate([END_OF_TEXT, *alphabet])}, []))
    tokenizer.add_special_tokens([END_OF_TEXT])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def train_target(tokens: np.ndarray, steps: int, rng: np.random.Generator) -> Target:
    target = Target(CONFIG)
    optimiser = MuonAdamW(target)
    for step in range(steps):
        batch = windows(tokens, 8, CONFIG.context, rng)
        F.cross_entropy(target(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten()).backward()
        optimiser.step(schedule(step / steps))
    return target.eval()


def sample(target: Target, tokens: np.ndarray, count: int, rng: np.random.Generator) -> dict:
    """Returns `count` sequences written by the target, as input of `run_target`."""
    settings = torch.from_numpy(conditions(count, rng))
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    arrays = write(target, prompts_from(tokens, count, PROMPT, rng), settings, generator)
    return {"settings": settings} | {k: torch.from_numpy(v.astype(np.int32)) for k, v in arrays.items()}


def train_drafter(target: Target, samples: dict, kind: str, steps: int, rng: np.random.Generator) -> Drafter:
    drafter = Drafter(DrafterConfig(CONFIG, (0, 2), length=8, kind=kind, rank=32), target)
    given = drafter.config.given
    optimiser = MuonAdamW(drafter)
    beta = torch.distributions.Beta(torch.tensor(0.3), torch.tensor(0.3))
    for step in range(steps):
        rows = torch.from_numpy(rng.integers(0, len(samples["tokens"]), 8))
        outputs = run_target(target, drafter.config.pick, {k: v[rows] for k, v in samples.items()})
        starts = torch.from_numpy(rng.integers(PROMPT, CONFIG.context - drafter.config.length + 1, (8, 12)))
        inside = beta.sample((8, 12, drafter.config.length, drafter.config.coordinates))
        q = draft_batch(outputs, drafter, starts, inside)
        logits = drafter(q.cache, q.last, q.starts, q.u, q.conditions, q.answers, q.given)
        kl(logits.flatten(0, 2), q.answers[:, :, given:].flatten(), q.p[:, :, given:].flatten(0, 2)).mean().backward()
        optimiser.step(schedule(step / steps))
    return drafter.eval()


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("../test/models/tiny"))
    parser.add_argument("--kind", choices=("feature", "reader"), default="reader", help="kind of the drafter")
    parser.add_argument("--steps", type=int, default=600, help="number of training steps for each network")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    tokenizer = byte_tokenizer()
    text = "".join(p.read_text(encoding="utf8") for p in sorted(pathlib.Path(ptp_train.__file__).parent.rglob("*.py")))
    tokens = np.array(tokenizer.encode(text).ids, np.int16)
    target = train_target(tokens, args.steps, rng)
    drafter = train_drafter(target, sample(target, tokens, 512, rng), args.kind, args.steps, rng)
    held = types.SimpleNamespace(files=[sample(target, tokens, 32, rng)])
    figures = decode(target, drafter.config.pick, by_drafter(drafter), held, 32, drafter.config.length)
    print(json.dumps(figures))
    facts = {
        "created": CREATED,
        "drafter": {
            "yield_curve": figures["yield_curve"],
            **({} if drafter.config.given else {"yield_curve_after_miss": after_misses(target, drafter, held, 32)}),
            "accuracy_by_position": figures["accuracy"],
            "tokens_per_call": figures["tokens_per_call"],
        },
        "sampling": {"trained_for": MIXTURE},
    }
    write_folder(target, drafter, tokenizer.to_str().encode(), args.out, "tiny", facts, slots=(1, 4))


if __name__ == "__main__":
    main(options())
