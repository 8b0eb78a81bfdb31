"""The server as a service of systemd, from the units in deploy/systemd."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from buntime.config import Config, from_environment
from tests.acceptance.client import Client
from tests.acceptance.server import BUNTIME

CHECKOUT = Path(__file__).resolve().parents[2]
UNITS = Path("/etc/systemd/system")
DOCUMENTED_AT = "/opt/buntime"  # where the unit has the checkout
MACHINE = Path("/etc/buntime-vm")  # only the machine of scripts/test --vm has this file
PATIENCE = 480.0  # seconds; a guard against a hang: an emulated machine is slow
POOL_SIZE = 4
SETTINGS = Path("/etc/buntime.env")
FLEET = ("fleet/buntime.service.d/fleet.conf", "fleet/buntime-watchdog.service", "fleet/buntime-drain.service")
NONE: Mapping[str, str] = MappingProxyType({})


class Service:
    """`buntime.service` of this machine, with the default data directory and port."""

    def __init__(self, settings: Mapping[str, str] = NONE) -> None:
        self._environ = {**os.environ, **settings}
        self.config: Config = from_environment(self._environ)

    def client(self, key: str | None) -> Client:
        return Client(self.config.port, key)

    def new_client(self, plan: str = "paid") -> Client:
        return self.client(self.command("keys", "create", "--plan", plan))

    def command(self, *arguments: str) -> str:
        """What a command of buntime prints that succeeds."""
        return run(BUNTIME, *arguments, environ=self._environ)

    def main_pid(self, unit: str = "buntime") -> int:
        """0: none."""
        return int(run("systemctl", "show", "--property=MainPID", "--value", unit))

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


@contextmanager
def fleet_of_one(settings: Mapping[str, str]) -> Iterator[Service]:
    """Starts the units of a fleet, with the settings in /etc/buntime.env. Stops, purges and removes it afterwards."""
    assert MACHINE.exists(), "this installs units and purges the server's data: only scripts/test --vm runs it"
    settings = {
        "BUNTIME_POOL_SIZE": str(POOL_SIZE),
        "BUNTIME_IMAGES_DIR": os.environ["BUNTIME_IMAGES_DIR"],
        **settings,
    }
    shutil.rmtree(UNITS / "buntime.service.d", ignore_errors=True)
    for unit in ("buntime.service", *FLEET):
        install(unit)
    SETTINGS.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    service = Service(settings)
    run("systemctl", "daemon-reload")
    try:
        run("systemctl", "enable", "--now", "buntime", "buntime-watchdog")
        service.wait_ready()
        run("systemctl", "enable", "--now", "buntime-drain")  # fails before the host has joined, and is tried again
        yield service
    finally:
        run("systemctl", "disable", "--now", "buntime-drain", "buntime", "buntime-watchdog")
        service.command("purge", "--yes")
        SETTINGS.unlink()
        for unit in FLEET:
            (UNITS / Path(unit).relative_to("fleet")).unlink()
        run("systemctl", "daemon-reload")


def install(unit: str) -> None:
    """`unit`: below deploy/systemd. Those of a fleet go beside the others, as docs/deploying.md says."""
    text = (CHECKOUT / "deploy/systemd" / unit).read_text()
    place = UNITS / unit.removeprefix("fleet/")
    place.parent.mkdir(exist_ok=True)
    place.write_text(text.replace(DOCUMENTED_AT, str(CHECKOUT)))


def run(*command: str | Path, environ: Mapping[str, str] | None = None) -> str:
    """What a command that succeeds prints, without the end of the line."""
    done = ended(command, environ)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def ended(command: Sequence[str | Path], environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=PATIENCE)
