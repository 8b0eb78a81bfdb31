"""The server that everything is done to."""

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path

from tests.acceptance import power, traces
from tests.acceptance.client import Reply
from tests.acceptance.server import Server
from tests.waiting import until

CRASHING = Path(power.__file__).with_name("crashing_server.py")
NO_STEP = "-"
PATIENCE = 180.0  # seconds; a guard against a hang
REST = 0.05
DISK = Path("/var/tmp")  # a disk, as /var/lib is; /tmp may be memory


class Gone(Exception):
    """The server died before it answered."""


class Victim(Server):
    """Started with a step at which it dies as soon as `arm` was called."""

    step = NO_STEP

    @property
    def armed(self) -> Path:
        return self.log.with_name(self.log.name + ".armed")

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def died(self) -> bool:
        """Whether it has, or is about to: its sockets close before it is gone."""
        try:
            once(lambda: self.client(None).call("GET", "/healthz"))
        except Gone:
            until(lambda: not self.alive, "its death")
        return not self.alive

    def up(self, step: str = NO_STEP, settings: Mapping[str, str] | None = None) -> bool:
        """Runs, with this step and these settings; False where it did so already."""
        wanted = settings if settings is not None else self.settings
        if self.alive and step == self.step and wanted == self.settings:
            return False
        if self.alive:
            self.end_cleanly()
        self.down()
        self.step, self.settings = step, dict(wanted)
        self.launch((sys.executable, CRASHING, step, self.armed))
        until(self._answers, "the start")
        return True

    def _answers(self) -> bool:
        """It may have no room for another session: then `/readyz` says no."""
        assert self.alive, f"it ended at its start:\n{self.said()[-3000:]}"
        with suppress(Gone):
            return once(lambda: self.client(None).call("GET", "/healthz")).status == 200
        return False

    def start_and_die(self, seconds: float) -> None:
        """Killed this long after the beginning of its start."""
        self.down()
        self.step = NO_STEP
        self.launch((sys.executable, CRASHING, NO_STEP, self.armed))
        time.sleep(seconds)
        self.shoot()

    def end_cleanly(self) -> None:
        code = self.stop()
        assert code == 0, f"it stopped with {code}:\n{self.said()[-3000:]}"

    def arm(self) -> None:
        self.armed.touch()

    def disarm(self) -> None:
        self.armed.unlink(missing_ok=True)

    def shoot(self) -> None:
        """Killed, from another thread, if it was not dead yet; `down` buries it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def down(self) -> None:
        """Killed, if it was not dead yet."""
        if self._process is not None:
            self._process.kill()
            code = self.wait_end()
            assert code == -signal.SIGKILL, f"it ended by itself with {code}:\n{self.said()[-3000:]}"
        self.disarm()

    def reboot(self) -> None:
        self.down()
        power.reboot(self.config)

    def cut_power(self) -> None:
        self.down()
        power.cut(self.config)


@contextmanager
def fresh_victim() -> Iterator[Victim]:
    """Not started yet. Raises AssertionError where something of it is left on the host when the block has ended."""
    directory = Path(tempfile.mkdtemp(prefix="buntime-torture-", dir=DISK))
    # another server's mount namespace may hold a copy of our mounts: of a shared one it lets go when we do
    subprocess.run(["mount", "--bind", directory, directory], check=True)
    subprocess.run(["mount", "--make-shared", directory], check=True)
    victim = Victim(directory / "data", pool_size=0)
    try:
        yield victim
    finally:
        victim.end()
        left = traces.left_behind(victim.config)
        subprocess.run(["umount", directory], check=True)
        shutil.rmtree(directory)
        assert not left, "left on the host after purge:\n" + "\n".join(left)


def once(ask: Callable[[], Reply]) -> Reply:
    """Raises Gone where the connection breaks, and where the edge has nobody behind it."""
    try:
        reply = ask()
    except (OSError, HTTPException) as broken:
        raise Gone from broken
    if reply.status in (502, 504):
        raise Gone
    if reply.status == 503:
        assert reply.error["code"] == "unavailable", reply.shown()
        assert int(reply.headers.get("retry-after", "0")) > 0, f"no Retry-After: {reply.shown()}"
    return reply


def patiently(ask: Callable[[], Reply], *, busy: bool = False) -> Reply:
    """Asked again while it is to be: 503, and 409 `session_busy` where `busy`. Raises Gone as `once`."""
    deadline = time.monotonic() + PATIENCE
    while True:
        reply = once(ask)
        again = reply.status == 503 or (busy and reply.status == 409 and reply.error["code"] == "session_busy")
        if not again:
            return reply
        assert time.monotonic() < deadline, f"never: {reply.shown()}"
        time.sleep(REST)


def dies(victim: Victim, seconds: float) -> bool:
    """Whether it dies by itself in that time."""
    with suppress(AssertionError):
        until(lambda: not victim.alive, "its death", seconds)
    return not victim.alive
