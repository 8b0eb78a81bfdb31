"""A server as its user starts it, with its command line."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from buntime.config import Config
from tests.acceptance.client import Client
from tests.ports import free_port

BUNTIME = Path(sys.executable).with_name("buntime")
IMAGES = Path(os.environ.get("BUNTIME_IMAGES_DIR", "/var/lib/buntime/images"))
READY_SECONDS = 180.0  # the image may have to be made
STOP_SECONDS = 60.0
VOLUMES_GB = 20


class Server:
    """One data directory and the server on it, which may be started, killed and started again."""

    def __init__(self, data_dir: Path, *, pool_size: int) -> None:
        self.config = Config(data_dir=data_dir, port=free_port(), images_dir=IMAGES, volumes_gb=VOLUMES_GB)
        self.settings = {"BUNTIME_POOL_SIZE": str(pool_size)}  # a test may add to them between two starts
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
            **self.settings,
        }

    def start(self, command: Sequence[str | Path] = (BUNTIME, "serve")) -> None:
        """Answers `/readyz` when this returns."""
        self.launch(command)
        self.wait_ready()

    def launch(self, command: Sequence[str | Path] = (BUNTIME, "serve")) -> None:
        assert self._process is None
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def wait_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + READY_SECONDS
        while True:
            assert self._process.poll() is None, f"the server ended at its start:\n{self.said()[-3000:]}"
            assert time.monotonic() < deadline, f"the server is not ready:\n{self.said()[-3000:]}"
            try:
                if self.client(None).call("GET", "/readyz", timeout=5.0).status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.02)

    def wait_end(self) -> int:
        """Its exit code, negative for a signal."""
        assert self._process is not None
        code = self._process.wait(STOP_SECONDS)
        self._process = None
        return code

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """As a service manager does, or with SIGINT as Ctrl-C."""
        assert self._process is not None
        self._process.send_signal(number)
        return self.wait_end()

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self.wait_end()

    def end(self) -> None:
        """Whatever state it is in: nothing of it runs or is left on the host afterwards."""
        if self._process is not None:
            self._process.kill()
            self.wait_end()
        self.cli("purge", "--yes")

    def run_cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [BUNTIME, *arguments], env=self.environment, capture_output=True, text=True, check=False, timeout=120
        )

    def cli(self, *arguments: str) -> str:
        """What a command that succeeds prints, without the end of the line."""
        done = self.run_cli(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def new_client(self, plan: str = "paid") -> Client:
        """With a key of a new account."""
        return self.client(self.cli("keys", "create", "--plan", plan))

    def client(self, key: str | None) -> Client:
        return Client(self.config.port, key)

    def metrics(self) -> str:
        """As an operator reads them."""
        with socket.socket(socket.AF_UNIX) as stream:
            stream.settimeout(60)
            stream.connect(str(self.config.metrics_socket))
            stream.sendall(b"GET /metrics HTTP/1.1\r\nHost: metrics\r\nConnection: close\r\n\r\n")
            head, _, body = b"".join(iter(lambda: stream.recv(65536), b"")).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        return body.decode()

    def parked(self) -> int:
        """Sandboxes in the pool."""
        return int(float(self.metrics().partition("\nbuntime_pool ")[2].split()[0]))

    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""
