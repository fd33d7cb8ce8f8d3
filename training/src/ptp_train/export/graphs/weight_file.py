"""The file that holds a model's large tensors and is shared by its graphs (ONNX external data)."""

import pathlib

import torch
from onnx import TensorProto

ALIGNMENT = 4096
"""Alignment of tensors in bytes, so that the file can be memory-mapped."""
BATCH_INVARIANT = ("float32", "int8")
"""Precisions in which a token's result does not depend on its batch. Targets require one of them."""
PRECISIONS = (*BATCH_INVARIANT, "int8-fused")
STORAGES = ("float16", "exact")
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
        path.write_bytes(b"")

    def add(self, name: str, value: torch.Tensor) -> TensorProto:
        if name not in self.tensors:
            data = value.contiguous().flatten().view(torch.uint8).numpy().tobytes()
            with self.path.open("ab") as f:
                f.write(b"\0" * (-f.tell() % ALIGNMENT))
                offset = f.tell()
                f.write(data)
            kind, external = KINDS[value.dtype], TensorProto.EXTERNAL
            tensor = TensorProto(name=name, data_type=kind, dims=value.shape, data_location=external)
            for key, value in (("location", self.path.name), ("offset", offset), ("length", len(data))):
                tensor.external_data.add(key=key, value=str(value))
            self.tensors[name] = tensor
        return self.tensors[name]

    def narrow(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """Converts a float matrix to its storage type. Raises ValueError if the storage is float16 and a value is too
        large for it.
        """
        if self.storage == "float16":
            half = value.to(torch.float16)
            if not half.isfinite().all():
                raise ValueError(f"{name} must fit float16, got a magnitude of {value.abs().max()}")
            return half
        candidates = (value.to(kind) for kind in (torch.float16, torch.bfloat16, torch.float32))
        return next(c for c in candidates if torch.equal(c.float(), value))
