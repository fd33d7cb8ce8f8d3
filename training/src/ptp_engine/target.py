"""The target: runs slots of several sequences on a Hugging Face model and picks tokens."""

import time
from collections.abc import Iterator
from collections.abc import Sequence as Tokens
from typing import Any

import torch
from torch import Tensor, nn

from ptp_train.model.coordinates import dimensions

from .attention import Pool
from .batch import Packer, Piece, Shape, passes, unpack
from .gen import engine_pb2
from .graphs import CudaGraph, Passes
from .load import Options, attention_layers, context_of, load
from .log import log
from .memory import allocate
from .picking import Output, fill, picked_rows, picks_after, plan
from .pooled import PooledModel
from .sampler import Draw
from .varlen import BLOCK, Kernel, choose, name_of

MOST_TOKENS = 512
"""Maximum number of prompt tokens of a pass without a varlen kernel."""
MOST_PICKS = 64
"""Maximum number of picks of a pass without a varlen kernel."""


class TargetModel(PooledModel):
    """Implements `Model` (model.py) for a target."""

    @classmethod
    def load(cls, options: Any) -> "TargetModel":
        """Loads a model. `options` has attributes of `Options`. Exits if the model cannot be served."""
        options = Options.of(options)
        target = cls(load(options), options)
        target.warm_up()
        return target

    def __init__(self, model: nn.Module, options: Options, kernel: Kernel | None = None, record: Any = None):
        """kernel, record: for tests. The default is the best kernel of the device, and CUDA graphs."""
        self.model = model
        context = context_of(model.config, options.context_length)
        vocabulary = model.config.get_text_config(decoder=True).vocab_size
        layers = attention_layers(model)
        self.kernel = kernel or choose(layers, model.device)
        block_size = self.kernel.block_size if self.kernel else BLOCK
        super().__init__(
            options,
            kv=allocate(options, [layer.layout for layer in layers], model.device, context, block_size),
            name=str(options.model).rstrip("/").rsplit("/", 1)[-1],
            context=context,
            vocabulary=vocabulary,
            dimensions=dimensions("tree", vocabulary),
            dtype=model.dtype,
            device=model.device,
        )
        self.pool = Pool(self.kv, self.kernel)
        for layer in layers:
            layer.pool = self.pool
        self.pass_tokens = options.pass_tokens
        self.pass_slots = min(options.max_slots, self.pass_tokens)
        self.packer = Packer(self.kernel, block_size, self.pass_tokens, self.pass_slots, self.context_length)
        record = record or (CudaGraph if self.device.type == "cuda" else None)
        self.passes = Passes(self._forward, self.device, record)
        log.info("attention", extra={"kernel": name_of(self.kernel), "block_size": block_size, "kv_rows": self.kv.rows})

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Runs passes of padding, so that no client waits for their recording."""
        if self.kernel is not None:
            for needs_logits in (False, True):
                self.passes.run(*self.packer.pack([]), needs_logits)

    @torch.inference_mode()
    def run(self, run: engine_pb2.TargetRun) -> engine_pb2.TargetResult:
        """Writes the rows of all slots and picks tokens. If it fails, the rows before each slot's `at` remain valid."""
        began = time.perf_counter_ns()
        pieces = self.pieces(run.slots)
        outputs = {number: Output(slot) for number, slot in enumerate(run.slots) if slot.HasField("sampling")}
        # The device may still be computing when the next pass starts.
        for picked, draw in [self._pass(part, run.slots) for part in self._passes(pieces, outputs)]:
            if draw is not None:
                fill(outputs, picked, draw.result())
        for piece in pieces:
            self.kv.commit(piece.sequence, piece.tokens)
        empty = engine_pb2.TargetOutput()
        messages = [outputs[i].message() if i in outputs else empty for i in range(len(pieces))]
        return engine_pb2.TargetResult(outputs=messages, run_us=(time.perf_counter_ns() - began) // 1000)

    def _passes(self, pieces: list[Piece], outputs: dict[int, Output]) -> Iterator[list[Piece]]:
        """Distributes the tokens of a run over passes."""
        if self.kernel is not None:
            yield from passes(pieces, self.pass_tokens, self.pass_slots)
            return
        # Logits after prompt tokens would be wasted.
        yield from passes([p for p in pieces if p.slot not in outputs], MOST_TOKENS, self.pass_slots)
        yield from passes([p for p in pieces if p.slot in outputs], MOST_PICKS, self.pass_slots)

    def _pass(self, pieces: list[Piece], slots: Tokens[engine_pb2.TargetSlot]) -> tuple[list[Piece], Draw | None]:
        """Starts a pass. Returns the pieces with picks and the picks, which the device may still be computing."""
        rows = picked_rows(pieces, slots)
        flat, shape = self.packer.pack(pieces)
        logits = self.passes.run(flat, shape, bool(rows))
        if logits is None:
            return [], None
        if len(rows) < len(logits):
            logits = logits[torch.tensor(rows, device=self.device)]
        picked = [piece for piece in pieces if picks_after(piece, slots)]
        return picked, Draw(logits, plan(picked, slots, self.dimensions))

    def _forward(self, flat: Tensor, shape: Shape, needs_logits: bool) -> Tensor | None:
        """Runs the model on a pass. Returns logits [R, V]."""
        ids, self.pool.batch = unpack(flat, shape, self.context_length)
        inputs = {"input_ids": ids[None], "position_ids": self.pool.batch.positions[None], "use_cache": False}
        if not needs_logits:
            self.model.base_model(**inputs)
            return None
        return self.model(**inputs).logits[0, :, : self.vocabulary]
