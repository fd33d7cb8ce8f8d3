"""Trains an O-PTP drafter on the target's samples: given the context and its own uniforms, say what the target picks.

For random starts inside the written part, u is drawn inside each token's interval by Beta(b, b) with b < 1 (near the borders,
where mistakes are made), and the next L tokens are learnt by cross-entropy; late positions weigh less (decay^k).
"""

import argparse
import json
import pathlib
import time
from dataclasses import asdict

import numpy as np
import torch
import torch.nn.functional as F

from .batches import Samples, completions, context
from .drafter import Drafter, DrafterConfig
from .evaluate import accuracy
from .model import check_resume, load_target, parameters_of, save
from .optim import MuonAdamW, schedule
from .samples import GENERATED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", type=pathlib.Path, default=pathlib.Path("work/target.pt"))
    parser.add_argument("--samples", type=pathlib.Path, default=pathlib.Path("work/samples"))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("work/drafter.pt"))
    parser.add_argument("--source", default="0,1,3", help="target layers that the drafter's layers read and start from")
    parser.add_argument("--length", type=int, default=8, help="positions per completion, L")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--completions", type=int, default=128, help="completions per step")
    parser.add_argument("--context-tokens", type=int, default=2048, help="tokens of the sequences of a step, together")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--matrix-rate", type=float, default=0.01)
    parser.add_argument("--decay", type=float, default=0.9)
    parser.add_argument("--beta", type=float, default=0.3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--checkpoint-seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=0)


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    target = load_target(args.target).to(device)
    source = tuple(int(x) for x in args.source.split(","))
    if max(source) >= target.config.layers:
        raise SystemExit(f"--source must name layers below {target.config.layers}, got {args.source}")
    drafter = Drafter(DrafterConfig(target.config, source, args.length), target.cpu()).to(device)
    target.to(device)
    optimiser = MuonAdamW(drafter, args.matrix_rate, args.rate)
    samples = Samples(args.samples, "train", device)
    held = Samples(args.samples, "held_files", device)
    checkpoint = args.out.with_suffix(".checkpoint.pt")
    step, log = 0, []
    if checkpoint.exists():
        stored = torch.load(checkpoint, map_location=device)
        check_resume(checkpoint, stored, drafter)
        drafter.load_state_dict(stored["weights"])
        optimiser.load_state_dict(stored["optimiser"])
        step, log = stored["step"], stored["log"]
        print(f"resumed at step {step}", flush=True)
    rng = np.random.default_rng(args.seed + step)
    beta = torch.distributions.Beta(torch.tensor(args.beta), torch.tensor(args.beta))
    weight = args.decay ** torch.arange(args.length, device=device)
    weight = weight / weight.mean()
    print(f"{parameters_of(drafter):,} parameters on {device}, {args.steps:,} steps", flush=True)
    began, at_start, saved, smooth, right = time.time(), step, time.time(), None, None
    while step < args.steps:
        batch = samples.draw(args.context_tokens, rng)
        sequences, first = len(batch["tokens"]), batch["tokens"].shape[1] - GENERATED
        shape = (sequences, max(1, args.completions // sequences))
        starts = torch.from_numpy(rng.integers(first, first + GENERATED - args.length + 1, shape)).to(device)
        inside = beta.sample((*shape, args.length)).to(device)
        ids, last, u, answers, settings = completions(batch, starts, args.length, inside)
        logits = drafter(context(target, drafter, ids), last, starts, u, settings)
        loss = F.cross_entropy(logits.flatten(0, 2), answers.flatten(), reduction="none").view(answers.shape)
        loss = (loss * weight).mean()
        loss.backward()
        optimiser.step(schedule(step / args.steps))
        step += 1
        correct = (logits.argmax(-1) == answers).long().cumprod(-1).sum(-1).float().mean().item()
        smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
        right = correct if right is None else 0.98 * right + 0.02 * correct
        if step % 25 == 0:
            rate = (step - at_start) / (time.time() - began)
            left = (args.steps - step) / rate / 60
            print(
                f"step {step} loss {smooth:.3f} correct {right:.3f} {rate:.2f} steps/s {left:.0f} min left",
                flush=True,
            )
        if time.time() - saved > args.checkpoint_seconds or step >= args.steps:
            log.append({"step": step, "loss": round(smooth, 4), **accuracy(target, drafter, held)})
            print(json.dumps(log[-1]), flush=True)
            state = {"optimiser": optimiser.state_dict(), "step": step, "log": log}
            save(checkpoint, "drafter checkpoint", drafter, **state)
            save(
                args.out, "drafter", drafter, log=log, settings={k: str(v) for k, v in vars(args).items() if k != "run"}
            )
            saved = time.time()
    print(
        json.dumps({"steps": step, "minutes": round((time.time() - began) / 60, 1), "config": asdict(drafter.config)})
    )
