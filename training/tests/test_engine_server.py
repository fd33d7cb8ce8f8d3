"""The gRPC server of ptp-engine: streams, errors, health, and the process with its logs and signals."""

import asyncio
import json
import pathlib
import signal
import subprocess
import sys
import time

import grpc
import pytest
from engine_client import StubModel, close_request, open_request, stub_at, target_request
from serving import ROOT

from ptp_engine import server
from ptp_engine.__main__ import main
from ptp_engine.gen import __main__ as generator
from ptp_engine.gen import engine_pb2, engine_pb2_grpc, health_pb2, health_pb2_grpc

HERE = pathlib.Path(__file__).parent


def slot(sequence: int, *tokens: int) -> engine_pb2.TargetSlot:
    return engine_pb2.TargetSlot(sequence=sequence, tokens=tokens)


def with_server(use, model: StubModel | None = None, listen: str = "127.0.0.1:0"):
    """Runs the coroutine function `use` with a channel to a server in this process, and returns its result."""

    async def run():
        running, address = await server.start(model or StubModel(), listen)
        async with grpc.aio.insecure_channel(address) as channel:
            result = await use(channel)
        await running.stop(None)
        return result

    return asyncio.run(asyncio.wait_for(run(), 20))


async def exchange(channel, *requests, answers: int) -> list:
    """Sends requests on a new stream and returns the first `answers` responses."""
    call = engine_pb2_grpc.EngineServiceStub(channel).Run()
    for request in requests:
        await call.write(request)
    responses = [await call.read() for _ in range(answers)]
    call.cancel()
    return responses


def test_requests_are_answered_in_order(tmp_path):
    async def use(channel):
        info = await engine_pb2_grpc.EngineServiceStub(channel).GetEngine(engine_pb2.GetEngineRequest())
        reuse = engine_pb2.RunRequest(id=8, reuse_prefix=engine_pb2.ReusePrefix(sequence=5, tokens=[1, 2, 3]))
        draft = engine_pb2.RunRequest(
            id=9, draft=engine_pb2.DraftRun(slots=[engine_pb2.DraftSlot(sequence=5, tokens=[1])])
        )
        runs = [target_request(1, slot(5, 10, 20), slot(6, 30)), target_request(2, slot(6, 40))]
        return info, await exchange(channel, open_request(5), open_request(6), reuse, *runs, draft, answers=4)

    info, (reused, first, second, drafted) = with_server(use, listen=f"unix:{tmp_path}/engine.sock")
    assert info.model == "stub"
    assert (reused.id, reused.reused.rows, reused.reused.cache.lookups) == (8, 2, 3)
    assert (first.id, [list(output.picks) for output in first.target.outputs]) == (1, [[11, 21], [31]])
    assert (second.id, [list(output.picks) for output in second.target.outputs]) == (2, [[41]])
    assert (drafted.id, drafted.draft.run_us) == (9, 7)


def test_sequences_belong_to_their_stream():
    model = StubModel()

    async def use(channel):
        stub = engine_pb2_grpc.EngineServiceStub(channel)
        calls = [stub.Run(), stub.Run()]
        for call in calls:
            await call.write(open_request(1))
            await call.write(target_request(1, slot(1, 10)))
            assert (await call.read()).target.outputs[0].picks == [11]
        assert len(model.sequences) == 2
        await calls[0].write(close_request(1))
        await calls[0].write(close_request(1))
        await calls[0].write(target_request(2, slot(1, 10)))
        lost = await calls[0].read()
        assert (lost.error.code, lost.error.message) == (5, "sequence 1 is not open")
        await calls[1].write(open_request(2))
        await calls[1].write(target_request(3, slot(2, 10)))
        kept = await calls[1].read()
        assert kept.target.outputs[0].picks == [11] and len(model.sequences) == 2
        calls[1].cancel()
        while model.sequences:
            await asyncio.sleep(0.01)

    with_server(use, model)
    assert len(model.closed) == 3 and len(set(model.closed)) == 3


def test_errors_are_answered_and_the_stream_continues(caplog):
    async def use(channel):
        requests = [target_request(n, slot(1, token)) for n, token in enumerate((100, 101, 10))]
        return await exchange(channel, open_request(1), *requests, engine_pb2.RunRequest(id=7), answers=4)

    named, hidden, fine, empty = with_server(use)
    assert (named.error.code, named.error.message) == (11, "`tokens` must be below 100, got 100")
    assert hidden.error.code == 13 and "secret" not in hidden.error.message
    assert "secret words" in caplog.text
    assert fine.target.outputs[0].picks == [11]
    assert (empty.id, empty.error.code) == (7, 3)


def test_a_sequence_that_cannot_be_opened_fails_when_it_is_used():
    async def use(channel):
        requests = [open_request(1), open_request(2), target_request(1, slot(2, 10)), close_request(1)]
        again = [close_request(2), open_request(2), target_request(2, slot(2, 10))]
        return await exchange(channel, *requests, *again, answers=2)

    failed, fine = with_server(use, StubModel(max_sequences=1))
    assert (failed.error.code, failed.error.message) == (8, "at most 1 sequences")
    assert fine.target.outputs[0].picks == [11]


def test_health():
    async def use(channel):
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "ptp.v1.EngineService"):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.Check(health_pb2.HealthCheckRequest(service="other"))
        assert raised.value.code() == grpc.StatusCode.NOT_FOUND
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()

    with_server(use)


def test_an_address_in_use_is_reported():
    async def run():
        running, address = await server.start(StubModel(), "127.0.0.1:0")
        try:
            with pytest.raises(
                SystemExit, match=f"--listen must be an address that this process can use, got {address}"
            ):
                await server.start(StubModel(), address)
        finally:
            await running.stop(None)

    asyncio.run(run())


WORKER = """
import asyncio, sys
sys.path.insert(0, sys.argv[2])
from engine_client import StubModel
from ptp_engine.log import start_logging
from ptp_engine.server import serve
start_logging("target")
asyncio.run(serve(StubModel(), sys.argv[1]))
"""


@pytest.fixture
def process(tmp_path):
    """Yields the address and the process of a worker with a StubModel."""
    address = f"unix:{tmp_path}/engine.sock"
    command = [sys.executable, "-c", WORKER, address, str(HERE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        yield address, running
        running.kill()


def test_sigterm_ends_the_process_while_a_client_is_connected(process):
    address, running = process
    requests = iter([open_request(1), target_request(1, slot(1, 10))])

    def forever():
        yield from requests
        time.sleep(30)

    responses = stub_at(address).Run(forever())
    assert next(responses).target.outputs[0].picks == [11]
    running.send_signal(signal.SIGTERM)
    assert running.wait(timeout=10) == 0
    lines = [json.loads(line) for line in running.stdout]
    assert [line["msg"] for line in lines] == ["listening", "client connected", "stopping", "client disconnected"]
    assert lines[0].keys() == {"level", "time", "service", "msg", "address"} and lines[0]["address"] == address
    assert lines[0]["level"] == "info" and lines[0]["service"] == "target"
    assert abs(lines[0]["time"] / 1000 - time.time()) < 60


def test_a_lost_gpu_ends_the_process(process):
    address, running = process
    responses = stub_at(address).Run(iter([open_request(1), target_request(1, slot(1, 102))]))
    with pytest.raises(grpc.RpcError):
        next(responses)
    assert running.wait(timeout=10) == 1
    last = json.loads(list(running.stdout)[-1])
    assert last["level"] == "fatal"
    assert last["msg"] == "the worker has to be restarted: CUDA error: an illegal memory access was encountered"


def test_the_committed_stubs_are_those_of_the_protocol(tmp_path):
    generator.generate(tmp_path)
    for path in tmp_path.iterdir():
        committed = generator.HERE / path.name
        assert path.read_text() == committed.read_text(), "run `python -m ptp_engine.gen` in training/"
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in generator.HERE.glob("*_pb2*") if p.is_file()}


def error_of(*words: str) -> str:
    with pytest.raises(SystemExit) as raised:
        main(list(words))
    return str(raised.value)


def test_help_does_not_load_pytorch():
    code = "import sys; from ptp_engine.__main__ import main; main(['--help']); assert 'torch' not in sys.modules"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "ptp-engine target ~/models" in shown


def test_options_are_checked_before_anything_is_loaded(tmp_path):
    model = str(ROOT)
    assert error_of("targt") == "ptp-engine: role targt is unknown: did you mean target?"
    assert error_of("target") == "ptp-engine target: must be given: MODEL"
    assert error_of("drafter", model) == "ptp-engine drafter: must be given: --target"
    missing = str(tmp_path / "none.pt")
    assert (
        error_of("drafter", missing, "--target", model)
        == f"ptp-engine drafter: CHECKPOINT must exist, {missing} is missing"
    )
    assert error_of("target", model, "--device", "gpu").endswith("--device must be auto, cpu, cuda or cuda:N, got gpu")
    assert error_of("target", model, "--listen", "7202").endswith("--listen must be host:port or unix:/path, got 7202")
    assert error_of("target", model, "--memory-fraction", "0").endswith("--memory-fraction must be in (0, 1], got 0")


def test_torchrun_starts_targets_on_no_particular_device(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    model = str(ROOT)
    assert error_of("drafter", model, "--target", model).startswith("ptp-engine drafter must run in one process")
    assert error_of("target", model, "--device", "cuda:1").endswith(
        "--device must be auto, cpu or cuda with torchrun, got cuda:1"
    )
