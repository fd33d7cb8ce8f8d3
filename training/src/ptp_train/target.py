"""Trains the target on next-token prediction; resumes from its checkpoint; reports bits per byte on held-out text."""

import argparse
import json
import math
import pathlib
import time

import numpy as np
import torch
import torch.nn.functional as F

from .model import Config, Target, check_resume, parameters_of, save
from .optim import MuonAdamW, schedule

LONG_SHARE = 0.2
"""The last share of the run is on sequences of the full context; before that they are half as long, which is cheaper."""


def windows(tokens: np.ndarray, count: int, length: int, rng: np.random.Generator) -> torch.Tensor:
    """`count` random windows of length + 1 tokens, int64 [count, length + 1]."""
    starts = rng.integers(0, len(tokens) - length - 1, count)
    return torch.from_numpy(np.stack([tokens[s : s + length + 1] for s in starts]).astype(np.int64))


@torch.no_grad()
def bits_per_byte(model: Target, tokens: np.ndarray, bytes_per_token: float, length: int, count: int) -> float:
    """Mean cross-entropy in bits, over `count` windows spread evenly, per byte of text."""
    starts = np.linspace(0, len(tokens) - length - 1, count).astype(int)
    device = model.embedding.weight.device
    loss = 0.0
    for s in starts:
        w = torch.from_numpy(tokens[s : s + length + 1].astype(np.int64)).to(device)
        loss += F.cross_entropy(model(w[None, :-1])[0], w[1:]).item()
    return loss / count / math.log(2) / bytes_per_token


def evaluate(model: Target, data: pathlib.Path, count: int) -> dict:
    facts = json.loads((data / "tokens.json").read_text())
    out = {}
    for split in ("held_files", "held_packages"):
        tokens = np.load(data / f"{split}.npy")
        per_token = facts[split]["bytes"] / facts[split]["tokens"]
        out[split] = round(bits_per_byte(model, tokens, per_token, model.config.context // 2, count), 4)
    return out


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path("work/tokens"))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("work/target.pt"))
    parser.add_argument("--tokens", type=int, default=6_000_000, help="length of the run")
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--hidden", type=int, default=704)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--checkpoint-seconds", type=float, default=240)
    parser.add_argument("--seed", type=int, default=0)


def run(args: argparse.Namespace) -> None:
    if args.batch_tokens % args.context:
        raise SystemExit(f"--batch-tokens must be a multiple of --context {args.context}, got {args.batch_tokens}")
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    vocab = json.loads((args.data / "tokenizer.json").read_text())["model"]["vocab"]
    heads = args.width // 64
    config = Config(
        len(vocab),
        args.width,
        args.layers,
        heads,
        max(1, heads // 2),
        hidden=args.hidden,
        context=args.context,
    )
    model = Target(config).to(device)
    optimiser = MuonAdamW(model)
    tokens = np.load(args.data / "train.npy")
    checkpoint = args.out.with_suffix(".checkpoint.pt")
    done, log = 0, []
    if checkpoint.exists():
        stored = torch.load(checkpoint, map_location=device)
        check_resume(checkpoint, stored, model)
        model.load_state_dict(stored["weights"])
        optimiser.load_state_dict(stored["optimiser"])
        done, log = stored["done"], stored["log"]
        print(f"resumed at {done:,} tokens", flush=True)
    rng = np.random.default_rng(args.seed + done)
    print(f"{parameters_of(model):,} parameters on {device}, {args.tokens:,} tokens to go through", flush=True)
    began, at_start, saved, smooth = time.time(), done, time.time(), None
    while done < args.tokens:
        share = done / args.tokens
        length = args.context if share >= 1 - LONG_SHARE else args.context // 2
        batch = windows(tokens, args.batch_tokens // length, length, rng).to(device)
        loss = F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        optimiser.step(schedule(share))
        done += args.batch_tokens
        smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
        if done // args.batch_tokens % 10 == 0:
            rate = (done - at_start) / (time.time() - began)
            left = (args.tokens - done) / rate / 60
            print(f"{done / 1e6:.2f}M loss {smooth:.3f} {rate:.0f} tok/s {left:.0f} min left", flush=True)
        if time.time() - saved > args.checkpoint_seconds or done >= args.tokens:
            log.append({"tokens": done, "loss": round(smooth, 4), "bits_per_byte": evaluate(model, args.data, 32)})
            print(json.dumps(log[-1]), flush=True)
            state = {"optimiser": optimiser.state_dict(), "done": done, "log": log}
            save(checkpoint, "target checkpoint", model, **state)
            saved = time.time()
    figures = evaluate(model, args.data, 200)
    settings = {k: str(v) for k, v in vars(args).items() if k != "run"}
    save(args.out, "target", model, log=log, bits_per_byte=figures, tokens=done, settings=settings)
    print(json.dumps({"bits_per_byte": figures, "tokens": done, "minutes": round((time.time() - began) / 60, 1)}))
