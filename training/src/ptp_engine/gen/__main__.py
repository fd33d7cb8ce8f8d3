"""Generates the other modules of this package from the .proto files of the repository, with grpcio-tools:

python -m ptp_engine.gen                # in training/
"""

import pathlib
import re
import tempfile

import grpc_tools
from grpc_tools import protoc

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[3]
SOURCES = {
    ROOT / "proto": ("ptp/v1/common.proto", "ptp/v1/engine.proto"),
    ROOT / "training" / "proto": ("grpc/health/v1/health.proto",),
}
"""Names of the .proto files, by the folder to which they are relative."""
KINDS = ("python", "pyi", "grpc_python")


def generate(out: pathlib.Path) -> None:
    """Writes the modules to the folder `out`, where they import each other without the folders of the .proto files."""
    builtin = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    with tempfile.TemporaryDirectory() as folder:
        for root, names in SOURCES.items():
            options = [f"--{kind}_out={folder}" for kind in KINDS]
            if protoc.main(["protoc", f"-I{root}", f"-I{builtin}", *options, *names]):
                raise SystemExit(f"protoc failed for {', '.join(names)} in {root}")
        for path in pathlib.Path(folder).rglob("*.py*"):
            if path.name != "common_pb2_grpc.py":  # common.proto has no service.
                (out / path.name).write_text(relative(path.read_text()))


def relative(module: str) -> str:
    """Returns the text of a module that imports other generated modules from its own package."""
    return re.sub(r"^from (?:ptp|grpc)\.[\w.]+ import (\w+_pb2)", r"from . import \1", module, flags=re.M)


if __name__ == "__main__":
    generate(HERE)
