"""The server as a service of systemd, from the units in deploy/systemd."""

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from buntime.config import Config, from_environment
from tests.acceptance.client import Client
from tests.acceptance.server import BUNTIME

CHECKOUT = Path(__file__).resolve().parents[2]
UNITS = Path("/etc/systemd/system")
DOCUMENTED_AT = "/opt/buntime"  # where the unit has the checkout
MACHINE = Path("/etc/buntime-vm")  # only the machine of scripts/test --vm has this file
PATIENCE = 180.0  # seconds; a guard against a hang
POOL_SIZE = 4


class Service:
    """`buntime.service` of this machine, with the default data directory and port."""

    def __init__(self) -> None:
        self.config: Config = from_environment(os.environ)

    def client(self, key: str | None) -> Client:
        return Client(self.config.port, key)

    def new_client(self, plan: str = "paid") -> Client:
        return self.client(run(BUNTIME, "keys", "create", "--plan", plan))

    def main_pid(self) -> int:
        return int(run("systemctl", "show", "--property=MainPID", "--value", "buntime"))

    def wait_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self._is_ready():
            log = "journalctl", "--unit=buntime", "--lines=50", "--output=cat"
            assert time.monotonic() < deadline, f"the service is not ready:\n{run(*log)}"
            time.sleep(0.1)

    def _is_ready(self) -> bool:
        try:
            return self.client(None).call("GET", "/readyz", timeout=5.0).status == 200
        except OSError:
            return False


@contextmanager
def running() -> Iterator[Service]:
    """Starts scripts/serve by the shipped unit; stops and purges it afterwards."""
    assert MACHINE.exists(), "this installs units and purges the server's data: only scripts/test --vm runs it"
    install("buntime.service")
    settings = f"Environment=BUNTIME_POOL_SIZE={POOL_SIZE} BUNTIME_IMAGES_DIR={os.environ['BUNTIME_IMAGES_DIR']}"
    drop_in = UNITS / "buntime.service.d/test.conf"
    drop_in.parent.mkdir(exist_ok=True)
    drop_in.write_text(f"[Service]\n{settings}\nExecStart=\nExecStart={CHECKOUT}/scripts/serve\n")
    run("systemctl", "daemon-reload")
    run("systemctl", "enable", "--now", "buntime")
    service = Service()
    try:
        service.wait_ready()
        yield service
    finally:
        run("systemctl", "disable", "--now", "buntime")
        run(BUNTIME, "purge", "--yes")


def install(unit: str) -> None:
    text = (CHECKOUT / "deploy/systemd" / unit).read_text()
    (UNITS / unit).write_text(text.replace(DOCUMENTED_AT, str(CHECKOUT)))


def run(*command: str | Path) -> str:
    """What a command that succeeds prints, without the end of the line."""
    done = ended(command)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def ended(command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
