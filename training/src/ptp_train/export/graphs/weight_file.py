"""The file that holds a model's large tensors and is shared by its graphs (ONNX external data)."""

import hashlib
import pathlib
from collections.abc import Iterator

import numpy as np
import torch
from onnx import TensorProto

ALIGNMENT = 4096
"""Alignment of tensors in bytes, so that the file can be memory-mapped."""
BATCH_INVARIANT = ("float32", "int8")
"""Precisions in which a token's result does not depend on its batch. Targets require one of them."""
PRECISIONS = (*BATCH_INVARIANT, "int8-fused")
STORAGES = ("float16", "exact")
BLOCK = 2**20
"""Maximum number of elements that are converted at a time, so that memory does not grow with the matrices."""
KINDS = {
    torch.float16: TensorProto.FLOAT16,
    torch.bfloat16: TensorProto.BFLOAT16,
    torch.float32: TensorProto.FLOAT,
    torch.int8: TensorProto.INT8,
}


class WeightFile:
    """Stores the tensors of all graphs of one model, each name once.

    precision: number format of matrix products (PRECISIONS, int8.py). storage: number format of float matrices:
    `float16`, or `exact`, which is the narrowest of float16, bfloat16 and float32 that represents all values.
    """

    def __init__(self, path: pathlib.Path, precision: str = "float32", storage: str = "float16"):
        for name, value, allowed in (("precision", precision, PRECISIONS), ("storage", storage, STORAGES)):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value}")
        self.path = path
        self.precision = precision
        self.storage = storage
        self.tensors: dict[str, TensorProto] = {}
        self.places: dict[bytes, tuple[int, int]] = {}
        """Offset and length of each stored content, by its digest. Equal matrices are stored once."""
        path.write_bytes(b"")

    def add(self, name: str, value: torch.Tensor, kind: torch.dtype) -> TensorProto:
        """Stores a tensor in the number format `kind`, unless a tensor with this name is already stored."""
        if name not in self.tensors:
            content = digest(value, kind)
            if content not in self.places:
                with self.path.open("ab") as f:
                    f.write(b"\0" * (-f.tell() % ALIGNMENT))
                    offset = f.tell()
                    for rows in blocks(value):
                        f.write(stored_bytes(rows, kind))
                    self.places[content] = offset, f.tell() - offset
            offset, length = self.places[content]
            external = TensorProto.EXTERNAL
            tensor = TensorProto(name=name, data_type=KINDS[kind], dims=value.shape, data_location=external)
            for key, entry in (("location", self.path.name), ("offset", offset), ("length", length)):
                tensor.external_data.add(key=key, value=str(entry))
            self.tensors[name] = tensor
        return self.tensors[name]

    def storage_type(self, name: str, value: torch.Tensor) -> torch.dtype:
        """Returns the number format in which to store a float matrix. Raises ValueError if the storage is float16 and a
        value is too large for it.
        """
        if self.storage == "float16":
            if not all(rows.to(torch.float16).isfinite().all() for rows in blocks(value)):
                raise ValueError(f"{name} must fit float16, got a magnitude of {value.abs().max()}")
            return torch.float16
        candidates = (torch.float16, torch.bfloat16, torch.float32)
        return next(k for k in candidates if all(torch.equal(r.to(k).to(r.dtype), r) for r in blocks(value)))


def blocks(value: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yields consecutive rows of a tensor, at most BLOCK elements at a time."""
    return iter(value.detach().split(max(1, BLOCK * len(value) // max(1, value.numel()))))


def stored_bytes(rows: torch.Tensor, kind: torch.dtype) -> np.ndarray:
    return rows.to(kind).contiguous().flatten().view(torch.uint8).numpy()


def digest(value: torch.Tensor, kind: torch.dtype) -> bytes:
    hashed = hashlib.blake2b()
    for rows in blocks(value):
        hashed.update(stored_bytes(rows, kind))
    return hashed.digest()
