"""Writes test/models/tiny-in-place, tiny-int8 and tiny-gpu: the target of test/models/tiny in the forms in which large
targets are exported, and in the form for GPUs.

PYTHONPATH=src python tests/tiny_in_place.py ../test/models
"""

import pathlib
import sys

from ptp_train.export.model_folder import Form, write_folder
from ptp_train.export.restore import target_of

TINY = pathlib.Path(__file__).parents[2] / "test" / "models" / "tiny"
CREATED = "2026-01-01T00:00:00Z"


def write(out: pathlib.Path, precision: str = "float32", device: str = "cpu") -> None:
    texts = [(TINY / name).read_bytes() for name in ("tokenizer.json", "chat_template.jinja")]
    facts = {"created": CREATED}
    layout = {"slots": (4,), "in_place": True, "device": device}
    write_folder(target_of(TINY), None, texts[0], out, "tiny", facts, Form(precision), chat_template=texts[1], **layout)


if __name__ == "__main__":
    for name, options in (("tiny-in-place", {}), ("tiny-int8", {"precision": "int8"}), ("tiny-gpu", {"device": "gpu"})):
        write(pathlib.Path(sys.argv[1], name), **options)
