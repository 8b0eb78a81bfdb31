"""A server that tests start with `buntime serve`, as a user does."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from buntime.account import new_account, new_key
from buntime.config import Config
from buntime.stores import store_file
from buntime.stores.sqlite import accounts, database
from tests.acceptance.client import Client
from tests.acceptance.purging import purge
from tests.ports import free_port

BUNTIME = Path(sys.executable).with_name("buntime")
IMAGES = Path(os.environ.get("BUNTIME_IMAGES_DIR", "/var/lib/buntime/images"))
READY_SECONDS = 180.0  # long enough to make the image
STOP_SECONDS = 60.0
VOLUMES_GB = 20


class Server:
    """One data directory and its server. A test can start, kill and restart the server."""

    def __init__(self, data_dir: Path, *, pool_size: int) -> None:
        self.config = Config(data_dir=data_dir, port=free_port(), images_dir=IMAGES, volumes_gb=VOLUMES_GB)
        self.settings = {"BUNTIME_POOL_SIZE": str(pool_size)}  # a test may add settings between two starts
        self.program = BUNTIME  # a test may set that of another version between two starts
        self.peer = f"127.0.0.1:{free_port()}"  # where other hosts of a fleet reach it
        self.log = data_dir.with_name(data_dir.name + ".log")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        config = self.config
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("BUNTIME_")},
            "BUNTIME_DATA_DIR": str(config.data_dir),
            "BUNTIME_PORT": str(config.port),
            "BUNTIME_IMAGES_DIR": str(config.images_dir),
            "BUNTIME_VOLUMES_GB": str(config.volumes_gb),
            **({"BUNTIME_PEER": self.peer} if "BUNTIME_STORE" in self.settings else {}),
            **self.settings,
        }

    def start(self, command: Sequence[str | Path] = ()) -> None:
        """Starts the server and waits until it is ready. `command`: by default, `buntime serve`."""
        self.launch(command)
        self.wait_ready()

    def launch(self, command: Sequence[str | Path] = ()) -> None:
        assert self._process is None
        command = command or (self.program, "serve")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def wait_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + READY_SECONDS
        while True:
            assert self._process.poll() is None, f"the server ended during startup:\n{self.said()[-3000:]}"
            assert time.monotonic() < deadline, f"the server is not ready:\n{self.said()[-3000:]}"
            try:
                if self.client(None).call("GET", "/readyz", timeout=5.0).status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.02)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def wait_end(self) -> int:
        """Waits until the server ends. Returns its exit code, which is negative for a signal."""
        assert self._process is not None
        code = self._process.wait(STOP_SECONDS)
        self._process = None
        return code

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Stops the server with SIGTERM, as a service manager does, or with another signal. Returns its exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        return self.wait_end()

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self.wait_end()

    def end(self) -> None:
        """Kills the server if it runs, and removes everything of it from the host."""
        if self._process is not None:
            self._process.kill()
            self.wait_end()
        if self.program != BUNTIME:  # another version
            self.cli("purge", "--yes")
            return
        assert purge(self.environment, self.log) == 0, self.said()[-3000:]

    def run_cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.program, *arguments], env=self.environment, capture_output=True, text=True, check=False, timeout=120
        )

    def cli(self, *arguments: str) -> str:
        """Runs a command that must succeed. Returns its stdout, stripped."""
        done = self.run_cli(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def new_client(self, plan: str = "paid") -> Client:
        """Returns a client with a key of a new account, made as `buntime keys create` makes it."""
        now = int(time.time())
        account = new_account(plan, now)
        key, secret = new_key(account.id, now)
        with closing(database.connect(store_file(self.config))) as store, database.transaction(store):
            accounts.add_account(store, account)
            accounts.add_key(store, key)
        return self.client(secret)

    def client(self, key: str | None) -> Client:
        return Client(self.config.port, key)

    def metrics(self) -> str:
        """Returns the metrics from the operator's socket."""
        with socket.socket(socket.AF_UNIX) as stream:
            stream.settimeout(60)
            stream.connect(str(self.config.metrics_socket))
            stream.sendall(b"GET /metrics HTTP/1.1\r\nHost: metrics\r\nConnection: close\r\n\r\n")
            head, _, body = b"".join(iter(lambda: stream.recv(65536), b"")).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        return body.decode()

    def parked(self) -> int:
        """Returns the number of sandboxes in the pool."""
        return int(float(self.metrics().partition("\nbuntime_pool_parked ")[2].split()[0]))

    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""
