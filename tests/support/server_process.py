"""`emofuse serve` as a process, for tests that speak to it through sockets."""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request


def find_free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def get_json(port, route, data=None, token=""):
    """Status and JSON; status 0 where nobody listens."""
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(f"http://127.0.0.1:{port}{route}", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
    except (urllib.error.URLError, ConnectionError):
        return 0, None


def start_server(log, *flags, **environment) -> subprocess.Popen:
    """`emofuse serve`; what it says goes to a file, since a pipe that nobody empties would stop it."""
    command = [sys.executable, "-m", "emofuse_jax.cli", "serve", *flags]
    return subprocess.Popen(command, env=os.environ | environment, stderr=log, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def run_server(*flags, **environment):
    """Port and process of a server that is ready, and a function that reads its log; killed at the end."""
    port = find_free_port()
    with (
        tempfile.NamedTemporaryFile() as log,
        start_server(log, *flags, f"--port={port}", **environment) as process,
    ):
        try:
            deadline = time.monotonic() + 120
            while get_json(port, "/readyz")[0] != 200:
                assert process.poll() is None, pathlib.Path(log.name).read_text()
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield port, process, pathlib.Path(log.name).read_text
        finally:
            process.kill()
