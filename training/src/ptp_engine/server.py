"""The gRPC server: EngineService over one model, and the standard health service.

The event loop's thread also runs the model, so that no request waits for another thread. Requests that arrive during a
run could not start before its end anyway.
"""

import asyncio
import itertools
import logging
import os
import signal
import sys

import grpc

from .gen import engine_pb2, engine_pb2_grpc, health_pb2, health_pb2_grpc
from .log import log
from .model import Model
from .stream import Stream

OPTIONS = [
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
    ("grpc.so_reuseport", 0),  # A second worker on a port in use must fail.
    # The services ping every 3 s. By default, a server closes a connection after more than two pings without data.
    ("grpc.http2.max_ping_strikes", 0),
]
SERVICES = ("", engine_pb2.DESCRIPTOR.services_by_name["EngineService"].full_name)


class EngineService(engine_pb2_grpc.EngineServiceServicer):
    def __init__(self, model: Model):
        self.model = model
        self.ids = itertools.count(1)

    async def GetEngine(self, request, context):
        return self.model.info()

    async def Run(self, requests, context):
        """Executes the requests of a stream. Reads and writes through `context`, which is faster than iterators."""
        stream = Stream(self.model, self.ids)
        log.info("client connected", extra={"peer": context.peer()})
        try:
            while (request := await context.read()) is not grpc.aio.EOF:
                response = stream.answer(request)
                if response is not None:
                    await context.write(response)
        except asyncio.CancelledError:
            pass  # The client has left, or the server is stopping.
        except Exception as error:
            end_process(error)
        finally:
            stream.end()
            log.info("client disconnected", extra={"peer": context.peer()})


class Health(health_pb2_grpc.HealthServicer):
    """Reports SERVING, because the server starts after the model has been loaded."""

    async def Check(self, request, context):
        if request.service not in SERVICES:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"service {request.service} is not served here")
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)

    async def Watch(self, request, context):
        known = request.service in SERVICES
        status = health_pb2.HealthCheckResponse
        yield status(status=status.SERVING if known else status.SERVICE_UNKNOWN)
        await asyncio.Event().wait()  # The status does not change until the server stops.


def end_process(error: Exception) -> None:
    """Ends the process with status 1, without cleaning up: after an error of the GPU, cleaning up can block."""
    log.critical(f"the worker has to be restarted: {str(error).splitlines()[0]}")
    sys.stdout.flush()
    os._exit(1)


async def start(model: Model, listen: str) -> tuple[grpc.aio.Server, str]:
    """Starts a server. Returns the server and its address, which contains the actual port if `listen` has port 0.

    listen: `host:port` or `unix:/path`.
    """
    server = grpc.aio.server(options=OPTIONS)
    engine_pb2_grpc.add_EngineServiceServicer_to_server(EngineService(model), server)
    health_pb2_grpc.add_HealthServicer_to_server(Health(), server)
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError:
        raise SystemExit(
            f"--listen must be an address that this process can use, got {listen}: is another process using it?"
        ) from None
    await server.start()
    return server, listen if listen.startswith("unix:") else f"{listen.rpartition(':')[0]}:{port}"


async def serve(model: Model, listen: str) -> None:
    """Serves the model until SIGTERM or SIGINT. Its streams end after the run in progress."""
    server, address = await start(model, listen)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    log.info("listening", extra={"address": address})
    await stop.wait()
    log.info("stopping")
    # gRPC logs every call that ends during the shutdown as an error.
    logging.getLogger("grpc").setLevel(logging.CRITICAL)
    await server.stop(None)
