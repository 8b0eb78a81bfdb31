"""A session that downloads is at work, though it uses hardly any processor time."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.acceptance.client import Session
from tests.acceptance.conftest import fresh_server
from tests.acceptance.sleeping import state
from tests.network.place import PUBLIC, World, world
from tests.waiting import until

pytestmark = pytest.mark.sandbox

PORT = 9000
IDLE_AFTER = 6  # seconds
# Sends each client 4 KiB five times a second, or one byte a second to those that say "slow".
SLOW_SERVER = f"""
import socket, threading, time
listener = socket.create_server(("0.0.0.0", {PORT}))
print("ready", flush=True)
def serve(client):
    slow = client.recv(10) == b"slow"
    try:
        while True:
            client.sendall(b"." if slow else b"." * 4096)
            time.sleep(1 if slow else 0.2)
    except OSError:
        client.close()
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""
DOWNLOAD = """
import socket, sys
stream = socket.create_connection((sys.argv[1], int(sys.argv[2])))
stream.sendall(sys.argv[3].encode())
while stream.recv(65536): pass
"""


@contextmanager
def slow_server(outside: World) -> Iterator[None]:
    command = [*outside.enter(), sys.executable, "-c", SLOW_SERVER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.kill()


def downloading(session: Session, how: str) -> None:
    session.write("download.py", DOWNLOAD).done()
    command = f"python3 download.py {PUBLIC[0]} {PORT} {how}"
    body = {"sessionId": session.id, "command": command}
    session.client.call("POST", "/processes/start", json_body=body).done()


def test_a_download_keeps_a_session_awake_and_a_heartbeat_does_not() -> None:
    with world() as outside, slow_server(outside), fresh_server(2) as server:
        server.settings["BUNTIME_TICK_MS"] = "200"
        server.start()
        client = server.new_client()
        policy = {"idleAfter": IDLE_AFTER, "awakeWhile": "processes"}
        loading, beating = client.open(sleepPolicy=policy), client.open(sleepPolicy=policy)
        downloading(loading, "fast")
        downloading(beating, "slow")
        end = time.monotonic() + 4 * IDLE_AFTER
        while time.monotonic() < end:
            assert state(loading) == "active"
            time.sleep(0.5)
        assert state(beating) == "idle"
        loading.output("pkill -f '[d]ownload.py'; true")
        until(lambda: state(loading) == "idle", "it to sleep when the download has ended")
