"""Random pairs as checkpoints, as exported graphs, and on PyTorch, whose drafts must be equal."""

import pathlib

import numpy as np
import torch
from philox import uniforms
from test_export import CONFIG, FORMS, Cache, context_feeds, drafter_feeds, run, session, some_tokens, storable
from test_feature import FORMS as FEATURE_FORMS
from test_feature import Asked, check_feeds
from tiny_pair import byte_tokenizer

from ptp_engine.cli import parse
from ptp_engine.drafter import DrafterModel
from ptp_engine.drafter_load import load_drafter_model
from ptp_engine.gen import common_pb2, engine_pb2
from ptp_train.export.model_folder import Form, write_folder
from ptp_train.model.drafter import Drafter, DrafterConfig
from ptp_train.model.transformer import Target, identity, save

LENGTH = 4
KINDS = {
    **{name: {"source": (0, 1), **form} for name, form in FORMS.items()},
    **{
        f"feature, {name}": {"source": (0, 2), "kind": "feature", **form}
        for name, form in FEATURE_FORMS.items()
        if "pick" not in form
    },
    "feature, c, tree, no head": {"source": (0, 2), "kind": "feature", "rank": 0},
}
SETTINGS = [(0.7, 50, 0.9), (0.0, 0, 1.0), (1.0, 0, 1.0)]
TEXT = np.random.default_rng(1).integers(0, CONFIG.vocab, 60).tolist()
CURVE = [0, 0.9, 1.5, 1.9, 2.1]


class Pair:
    """Checkpoints of a pair, its exported graph, and the drafter on PyTorch."""

    def __init__(self, folder: pathlib.Path, form: dict):
        torch.manual_seed(0)
        target = Target(CONFIG)
        drafter = Drafter(DrafterConfig(CONFIG, length=LENGTH, frequencies=4, **form), target, some_tokens(form))
        storable(target, drafter)
        self.folder, self.config = folder, drafter.config
        save(folder / "target.pt", "target", target)
        save(folder / "drafter.pt", "drafter", drafter, target_identity=identity(target))
        facts = {"drafter": {"yield_curve": CURVE, "accuracy_by_position": [1, 0, 0, 0]}}
        write_folder(
            target,
            drafter,
            byte_tokenizer().to_str().encode(),
            folder,
            "test",
            facts,
            drafter_form=Form(storage="exact"),
        )
        self.graph = session(folder / "drafter.b1.onnx")
        self.model = load(folder / "drafter.pt", folder / "target.pt")

    def taken(self, feeds: dict) -> dict:
        names = {i.name for i in self.graph.get_inputs()}
        return run(self.graph, {name: value for name, value in feeds.items() if name in names})

    def cache(self) -> Cache:
        sizes = self.config.sizes
        return Cache(self.config.depth, sizes.kv_heads * sizes.head_width)

    def branches(self, text: list[int], slot: engine_pb2.DraftSlot) -> tuple[list[list[int]], list[list[float]]]:
        """Returns tokens and confidences of the graph, which runs the whole text anew."""
        d = self.config.coordinates
        offset, seed = slot.uniforms.offset, slot.uniforms.seed
        asked = [
            (b.visible, text[b.visible - 1], uniforms(seed, b.visible + offset, b.length, d)) for b in slot.branches
        ]
        lengths = [b.length for b in slot.branches]
        feeds = context_feeds([(self.cache(), text)]) | drafter_feeds([asked], [len(text)])
        column = (1, sum(lengths), 1)
        s = slot.sampling
        for name, value in (("temperature", s.temperature), ("top_p", s.top_p), ("top_k", s.top_k)):
            feeds[name] = np.full(column, value, np.float32)
        feeds["excluded"] = np.full(column[:2], -1)
        ends = np.cumsum(lengths)
        for b, end in zip(slot.branches, ends, strict=True):
            if b.HasField("excluded"):
                feeds["excluded"][0, end - b.length] = b.excluded
        out = self.taken(feeds)
        return tuple([column[e - n : e].tolist() for e, n in zip(ends, lengths, strict=True)] for column in picked(out))

    def check(self, text: list[int], slot: engine_pb2.DraftSlot) -> tuple[int, list[int], list[float]]:
        """Returns the number of accepted tokens, the draft and the confidences of the graph."""
        count, s = slot.check.block, slot.sampling
        first = len(text) - count
        u = uniforms(
            slot.uniforms.seed, first + slot.uniforms.offset, count + slot.check.length, self.config.coordinates
        )
        asked = Asked(text[:first], text[first:], u, (s.temperature, s.top_k, s.top_p))
        feeds = context_feeds([(self.cache(), text)]) | check_feeds([(asked, len(text))], max(1, slot.check.length - 1))
        out = self.taken(feeds)
        drafted, confidences = (out[name][0, : slot.check.length - 1].tolist() for name in ("draft", "confidence"))
        return int(out["accepted"][0, 0]), [*out["given"][0].tolist(), *drafted], [1.0, *confidences]


def picked(out: dict) -> tuple[np.ndarray, np.ndarray]:
    return out["draft"], out["confidence"]


def load(checkpoint: pathlib.Path, target: pathlib.Path, *options: str) -> DrafterModel:
    return load_drafter_model(parse("drafter", [str(checkpoint), "--target", str(target), "--device", "cpu", *options]))


def slot_of(sequence: int, at: int, text: list[int], setting: tuple, seed: int = 5) -> engine_pb2.DraftSlot:
    temperature, top_k, top_p = setting
    return engine_pb2.DraftSlot(
        sequence=sequence,
        at=at,
        tokens=text[at:],
        sampling=common_pb2.SamplingParameters(temperature=temperature, top_k=top_k, top_p=top_p),
        uniforms=engine_pb2.UniformSource(seed=seed, offset=-7),
    )


def verify(pair: Pair, texts: list[list[int]], slots: list[engine_pb2.DraftSlot]) -> engine_pb2.DraftRunResult:
    """Runs slots, whose sequences then contain `texts`, and compares the result with the graph's."""
    result = pair.model.run(engine_pb2.DraftRun(slots=slots))
    for text, slot, output in zip(texts, slots, result.outputs, strict=True):
        if slot.HasField("check"):
            accepted, tokens, confidences = pair.check(text, slot)
            [branch] = output.branches
            assert (branch.accepted, list(branch.tokens)) == (accepted, tokens)
            np.testing.assert_allclose(branch.confidences, confidences, atol=1e-4)
        elif slot.branches:
            expected = zip(*pair.branches(text, slot), strict=True)
            for branch, (tokens, confidences) in zip(output.branches, expected, strict=True):
                assert list(branch.tokens) == tokens and not branch.HasField("accepted")
                np.testing.assert_allclose(branch.confidences, confidences, atol=1e-4)
        else:
            assert not output.branches
    return result
