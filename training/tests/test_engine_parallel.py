"""One target in two processes gives the texts of one process."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from engine_client import Requests, close_request, open_request, stub_at, target_request
from random_hf import random_model

from ptp_engine.gen import common_pb2, engine_pb2
from ptp_engine.load import Options
from ptp_engine.target import TargetModel

WRITTEN = 24
PROMPT = list(range(3, 40))
SETTINGS = [(0.0, 0, 1.0), (0.8, 50, 0.9)]
"""Temperature, top_k and top_p of the two sequences."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    random_model("llama", seed=2).save_pretrained(folder)
    return folder


def slot(sequence: int, at: int, tokens: list[int]) -> engine_pb2.TargetSlot:
    temperature, top_k, top_p = SETTINGS[sequence - 1]
    return engine_pb2.TargetSlot(
        sequence=sequence,
        at=at,
        tokens=tokens,
        sampling=common_pb2.SamplingParameters(temperature=temperature, top_k=top_k, top_p=top_p),
        uniforms=engine_pb2.UniformSource(seed=7, offset=-len(PROMPT)),
    )


def write(run) -> tuple[list[list[int]], list[list[float]]]:
    """Writes two texts together and returns them with their log-probabilities. `run` executes slots."""
    texts, scores = [[], []], [[], []]
    new = [PROMPT, PROMPT[::-1]]
    for k in range(WRITTEN):
        at = len(PROMPT) + k - 1 if k else 0
        outputs = run([slot(sequence, at, new[sequence - 1]) for sequence in (1, 2)])
        for text, score, output in zip(texts, scores, outputs, strict=True):
            text.append(output.picks[-1])
            score.append(output.log_probabilities[-1])
        new = [[text[-1]] for text in texts]
    return texts, scores


def test_two_processes_write_the_text_of_one(folder, tmp_path):
    alone = TargetModel.load(Options(folder, device="cpu", kv_megabytes=4))
    for sequence in (1, 2):
        alone.open(sequence)
    expected, expected_scores = write(lambda slots: alone.run(engine_pb2.TargetRun(slots=slots)).outputs)
    assert len(set(expected[0])) > 5 and expected[0] != expected[1]

    address = f"unix:{tmp_path}/engine.sock"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "ptp_engine", "target", str(folder), "--listen", address, "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as group:
        try:
            stub = stub_at(address)
            info = stub.GetEngine(engine_pb2.GetEngineRequest())
            assert info.bytes_per_token == alone.info().bytes_per_token
            requests = Requests()
            responses = stub.Run(iter(requests))

            def run(slots):
                requests.send(target_request(1, *slots))
                return next(responses).target.outputs

            requests.send(open_request(1))
            requests.send(open_request(2))
            texts, scores = write(run)
            requests.send(close_request(1))
            requests.send(open_request(3))
            requests.send(engine_pb2.RunRequest(id=2, reuse_prefix=engine_pb2.ReusePrefix(sequence=3, tokens=PROMPT)))
            assert next(responses).reused.rows == 32
            requests.send(target_request(3, engine_pb2.TargetSlot(sequence=3, at=99, tokens=[1])))
            assert next(responses).error.code == 11
            requests.send(target_request(4, slot(2, 0, PROMPT[::-1])))
            assert next(responses).target.outputs[0].picks[-1] == expected[1][0]
            requests.end()
        finally:
            group.send_signal(signal.SIGTERM)
            lines = [json.loads(line) for line in group.stdout if line.startswith("{")]
    assert texts == expected
    np.testing.assert_allclose(scores, expected_scores, atol=1e-5)
    assert [line["msg"] for line in lines].count("listening") == 1
