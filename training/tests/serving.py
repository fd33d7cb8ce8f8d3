"""Starts the server as users do, for tests that send requests."""

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[2]
LONGEST_START = 90
"""Time limit in seconds for the server's start. `npm start` takes three seconds on an idle machine if everything is
installed.
"""


def free_port() -> int:
    """Returns a free port, whose successor is free too."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 1))
                return port


@contextlib.contextmanager
def server(folder: pathlib.Path, logs: pathlib.Path, **env: str) -> Iterator[str]:
    """Runs `npm start` on a model folder and yields the URL of its API. gRPC listens on the next port."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.fail("this test starts the server: npm (Node.js) must be on PATH")
    port = free_port()
    command = [npm, "start", "--", "--model", str(folder), "--port", str(port)]
    with (logs / "server.log").open("w+") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | env, stdout=log, stderr=log, start_new_session=True
        )
        url, began = f"http://127.0.0.1:{port}", time.monotonic()
        try:
            while True:
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"{url}/readyz", timeout=1).close()
                    break
                if process.poll() is not None or time.monotonic() - began > LONGEST_START:
                    pytest.fail(f"the server did not start:\n{(logs / 'server.log').read_text()}")
                time.sleep(0.1)
            yield url
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            process.wait(timeout=30)
