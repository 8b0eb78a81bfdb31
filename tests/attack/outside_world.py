"""A network namespace that stands for the internet: it has cooperating servers and another client's address.

One of the servers is a name server, so that no flood of questions leaves the machine.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import tests.network.place

SINK = tests.network.place.INSIDE / "sink.py"  # a server that discards TCP and UDP input
PROGRAMS = Path(__file__).with_name("outside")
HALF_OPEN, NO_NAMES = PROGRAMS / "half_open.py", PROGRAMS / "no_names.py"
LINK = "buntime-tattack"  # the host's end
HERE, THERE = "192.175.48.1", "192.175.48.10"  # reserved (AS112): no ordinary host on the internet has them
CONNECTIONS = 16_500
SECONDS = 30.0  # a guard against a hang


@dataclass(frozen=True, slots=True)
class Outside:
    process: subprocess.Popen[str]
    address: str = THERE

    def enter(self) -> list[str]:
        return ["nsenter", "--net", "--target", str(self.process.pid)]

    @contextmanager
    def half_open(self, port: int) -> Iterator["HalfOpen"]:
        """Opens CONNECTIONS connections to the edge, each of which sends half a header."""
        program = [*self.enter(), sys.executable, str(HALF_OPEN), HERE, str(port), str(CONNECTIONS)]
        with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            try:
                yield HalfOpen(process)
            finally:
                process.kill()


class HalfOpen:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self._output = process.stdout.fileno()
        os.set_blocking(self._output, False)
        self._counts = b"0\n"

    def held(self) -> int:
        """Returns the highest number of open connections so far. The program replaces connections that close."""
        with suppress(BlockingIOError):
            self._counts += os.read(self._output, 1 << 20)
        return max(map(int, self._counts.split()))


@contextmanager
def outside() -> Iterator[Outside]:
    """Makes the namespace. Fails if another attack has one on this host."""
    with subprocess.Popen(["unshare", "--net", sys.executable, SINK], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            _ip(f"link add {LINK} type veth peer name eth0 netns {process.pid}\n")
            try:
                made = Outside(process)
                _ip(f"addr add {HERE}/24 dev {LINK}\nlink set {LINK} up\n")
                _ip(f"link set lo up\naddr add {THERE}/24 dev eth0\nlink set eth0 up\n", made.enter())
                with _answering_names(made):
                    yield made
            finally:
                _ip(f"link del {LINK}\n")
        finally:
            process.kill()


@contextmanager
def _answering_names(made: Outside) -> Iterator[None]:
    program = [*made.enter(), sys.executable, str(NO_NAMES), made.address]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.kill()


@contextmanager
def resolv_conf() -> Iterator[Path]:
    """Yields a file for BUNTIME_RESOLV_CONF that names the name server outside. It may be used before `outside`."""
    with TemporaryDirectory(prefix="buntime-attack-", dir="/var/tmp") as directory:
        Path(directory).chmod(0o755)  # the name server of sessions runs as nobody
        path = Path(directory) / "resolv.conf"
        path.write_text(f"nameserver {THERE}\n")
        yield path


def _ip(batch: str, enter: list[str] | None = None) -> None:
    subprocess.run([*(enter or []), "ip", "-batch", "-"], input=batch, text=True, check=True, timeout=SECONDS)
