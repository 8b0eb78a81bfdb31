"""The server under torture."""

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path

from tests.acceptance import power, traces
from tests.acceptance.client import Reply
from tests.acceptance.crashing_server import LIES
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
    """A server that kills itself when it reaches `step`, once `arm` was called."""

    step = NO_STEP

    @property
    def armed(self) -> Path:
        return self.log.with_name(self.log.name + ".armed")

    @property
    def lies(self) -> Path:
        """While this file exists, the server's archive lies."""
        return self.armed.with_name(self.armed.name + LIES)

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def died(self) -> bool:
        """Tells whether the server died. Waits if it is dying: its sockets close before the process ends."""
        try:
            send(lambda: self.client(None).call("GET", "/healthz"))
        except Gone:
            until(lambda: not self.alive, "the server to die")
        return not self.alive

    def ensure_running(self, step: str = NO_STEP, settings: Mapping[str, str] | None = None) -> bool:
        """Runs the server with this step and these settings. Returns False if it already ran with them."""
        wanted = settings if settings is not None else self.settings
        if self.alive and step == self.step and wanted == self.settings:
            return False
        if self.alive:
            self.end_cleanly()
        self.kill_if_alive()
        self.step, self.settings = step, dict(wanted)
        self.launch((sys.executable, CRASHING, step, self.armed))
        until(self._answers, "the server to start")
        return True

    def _answers(self) -> bool:
        """Tells whether `/healthz` answers. (`/readyz` fails if there is no room for another session.)"""
        assert self.alive, f"the server ended during startup:\n{self.said()[-3000:]}"
        with suppress(Gone):
            return send(lambda: self.client(None).call("GET", "/healthz")).status == 200
        return False

    def start_and_die(self, seconds: float) -> None:
        """Starts the server and kills it this many seconds later."""
        self.kill_if_alive()
        self.step = NO_STEP
        self.launch((sys.executable, CRASHING, NO_STEP, self.armed))
        time.sleep(seconds)
        self.kill_from_thread()

    def end_cleanly(self) -> None:
        code = self.stop()
        assert code == 0, f"the server exited with {code}:\n{self.said()[-3000:]}"

    def arm(self) -> None:
        self.armed.touch()

    def disarm(self) -> None:
        self.armed.unlink(missing_ok=True)

    def kill_from_thread(self) -> None:
        """Kills the server from another thread. Call `kill_if_alive` afterwards to check its exit code."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def kill_if_alive(self) -> None:
        """Kills the server unless it is dead. Asserts that a signal ended it."""
        if self._process is not None:
            self._process.kill()
            code = self.wait_end()
            assert code == -signal.SIGKILL, f"the server exited by itself with {code}:\n{self.said()[-3000:]}"
        self.disarm()

    def reboot(self) -> None:
        self.kill_if_alive()
        power.reboot(self.config)

    def cut_power(self) -> None:
        self.kill_if_alive()
        power.cut(self.config)


@contextmanager
def fresh_victim() -> Iterator[Victim]:
    """Yields a server that is not started. Raises AssertionError if it leaves something on the host."""
    directory = Path(tempfile.mkdtemp(prefix="buntime-torture-", dir=DISK))
    # another server's mount namespace may copy our mounts; unmounting a shared mount unmounts its copies
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


def send(ask: Callable[[], Reply]) -> Reply:
    """Sends one request. Raises Gone if the connection breaks or the edge has no server behind it."""
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


def retry(ask: Callable[[], Reply], *, not_yet: Collection[str] = ()) -> Reply:
    """Sends a request until it is not refused with 503 or 408, or with a code of `not_yet`. Raises Gone as `send`.

    A request may take long on a host that is busy, and its work goes on meanwhile.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        reply = send(ask)
        if reply.status not in (408, 503) and not (reply.status >= 400 and reply.error["code"] in not_yet):
            return reply
        assert time.monotonic() < deadline, f"still refused: {reply.shown()}"
        time.sleep(REST)


def dies_within(victim: Victim, seconds: float) -> bool:
    """Tells whether the server dies by itself within this time."""
    with suppress(AssertionError):
        until(lambda: not victim.alive, "the server to die", seconds)
    return not victim.alive
