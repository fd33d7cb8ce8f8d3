"""Runs an exported target graph in onnxruntime in the same way as the server's engine: with packed tokens, and caches
of exact length.
"""

import pathlib

import numpy as np
import onnxruntime


class Reader:
    """A sequence with its past rows by layer."""

    def __init__(self, graph: "TargetGraph"):
        self.past = {name: np.zeros((1, 0, graph.row), np.float32) for name in graph.cached}

    def __len__(self) -> int:
        return next(iter(self.past.values())).shape[1]


class TargetGraph:
    """Graph in a file target.b{slots}.onnx."""

    def __init__(self, path: pathlib.Path):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(path, options)
        shapes = {i.name: i.shape for i in self.session.get_inputs()}
        self.cached = [name[1:-2] for name in shapes if name.startswith(("pk", "pv")) and name.endswith("_0")]
        self.row = shapes["pk0_0"][2]
        self.uniforms, self.vocab = shapes["u"][1], shapes["bias"][1]

    def run(self, slots: list[tuple[Reader, list[int]]], temperature: float = 0.0, u: np.ndarray | None = None):
        """Runs each slot's tokens, at least two per slot. Returns, for each slot, the picks after each token
        and their log-probabilities.

        u: uniforms [tokens of all slots, D].
        """
        if u is None:
            u = np.zeros((sum(len(tokens) for _, tokens in slots), self.uniforms), np.float32)
        feeds = inputs_of([(len(reader), tokens) for reader, tokens in slots], self.vocab, temperature, u)
        if len(slots) > 1:
            feeds["splits"] = np.array([len(tokens) for _, tokens in slots])
        for i, (reader, _) in enumerate(slots):
            feeds |= {f"p{name}_{i}": rows for name, rows in reader.past.items()}
        names = [o.name for o in self.session.get_outputs()]
        out = dict(zip(names, self.session.run(names, feeds), strict=True))
        results, at = [], 0
        for reader, tokens in slots:
            here = slice(at, at + len(tokens))
            for name in self.cached:
                reader.past[name] = np.concatenate([reader.past[name], out[f"n{name}"][:, here]], 1)
            results.append((out["pick"][here], out["logprob"][here]))
            at += len(tokens)
        self.log_probabilities = out.get("log_probabilities")
        return results

    def distributions(self, tokens: list[int]) -> np.ndarray:
        """Returns log-probabilities [len(tokens), V] of a graph that outputs them."""
        self.run([(Reader(self), tokens)])
        return self.log_probabilities

    def read(self, tokens: list[int], chunks: list[int], **settings):
        """Returns picks and log-probabilities of a sequence that runs in chunks of the given lengths."""
        reader, at, parts = Reader(self), 0, []
        u = settings.pop("u", None)
        for n in chunks:
            part = None if u is None else u[at : at + n]
            parts += self.run([(reader, tokens[at : at + n])], u=part, **settings)
            at += n
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))

    def greedy(self, prompt: list[int], count: int) -> list[int]:
        """Returns `count` tokens after the prompt, one per run, next to a dummy token whose rows are discarded."""
        reader, written, ids = Reader(self), [], prompt
        for _ in range(count):
            [(picks, _)] = self.run([(reader, [*ids, 0])])
            reader.past = {name: rows[:, :-1] for name, rows in reader.past.items()}
            ids = [int(picks[-2])]
            written += ids
        return written


def inputs_of(slots: list[tuple[int, list[int]]], vocab: int, temperature: float, u: np.ndarray) -> dict:
    """Returns a graph's inputs for slots with the given numbers of past rows and tokens, except for splits and caches.
    The graph picks after each token.

    u: uniforms [tokens of all slots, D].
    """
    column = np.ones((len(u), 1), np.float32)
    masks = {}
    for i, (past, tokens) in enumerate(slots):
        masks[f"mask_{i}"] = mask = np.zeros((len(tokens), past + len(tokens)), np.float32)
        mask[:, past:] = np.triu(np.full((len(tokens),) * 2, -np.inf, np.float32), 1)
    return masks | {
        "ids": np.concatenate([tokens for _, tokens in slots])[None].astype(np.int64),
        "pos": np.concatenate([past + np.arange(len(tokens)) for past, tokens in slots])[None].astype(np.int64),
        "rows": np.arange(len(u)),
        "temperature": column * np.float32(temperature),
        "top_k": np.zeros((len(u), 1), np.int64),
        "top_p": column,
        "min_p": column * 0,
        "top_count": np.zeros(1, np.int64),
        **{name: np.zeros((0, vocab), np.float32) for name in ("scale", "bias")},
        "u": u,
    }
