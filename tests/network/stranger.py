"""A client with other addresses than this host: a network namespace, and programs that connect from it."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.network.place import INSIDE, SECONDS, _ip

LINK = "buntime-tedge"  # the host's end
MACS = ("02:62:75:6e:01:01", "02:62:75:6e:01:02")  # of the host's end and the stranger's end
HOST = "192.31.197.1"
HOST6 = "2001:db8:197::1"
ADDRESSES = ("192.31.197.10", "192.31.197.11")
# Two in one /64, and one in another.
ADDRESSES6 = ("2001:db8:197:a::1", "2001:db8:197:a::2", "2001:db8:197:b::1")


@dataclass(frozen=True, slots=True)
class Stranger:
    process: subprocess.Popen[str]

    def enter(self) -> list[str]:
        """Returns a command prefix that runs a program in the stranger's network."""
        return ["nsenter", "--net", "--target", str(self.process.pid)]


@contextmanager
def stranger() -> Iterator[Stranger]:
    with subprocess.Popen(["unshare", "--net", "sh", "-c", "echo ready; exec cat"], text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            # sets neighbours explicitly, since a new IPv6 link takes seconds to discover them
            _ip(
                f"link add {LINK} address {MACS[0]} type veth peer name eth0 address {MACS[1]} netns {process.pid}\n"
                f"addr add {HOST}/24 dev {LINK}\naddr add {HOST6}/48 dev {LINK} nodad\nlink set {LINK} up\n"
                + "".join(f"neigh replace {there} lladdr {MACS[1]} dev {LINK}\n" for there in ADDRESSES + ADDRESSES6)
            )
            inner = "".join(f"addr add {address}/24 dev eth0\n" for address in ADDRESSES)
            inner += "".join(f"addr add {address}/48 dev eth0 nodad\n" for address in ADDRESSES6)
            inner += "".join(f"neigh replace {here} lladdr {MACS[0]} dev eth0\n" for here in (HOST, HOST6))
            there = Stranger(process)
            subprocess.run([*there.enter(), "ip", "-batch", "-"], input=f"link set eth0 up\nlink set lo up\n{inner}",
                           text=True, check=True, timeout=SECONDS)  # fmt: skip
            yield there
        finally:
            process.kill()
            subprocess.run(["ip", "link", "del", LINK], capture_output=True, check=False)


class Connections:
    """Connections that a program keeps open until an order closes them."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._one_at_a_time = threading.Lock()

    def ask(self, order: str) -> list[int]:
        """Sends an order. `open N` returns how many of N new connections were accepted and refused.

        `close N` and `held` return how many are open now.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._one_at_a_time:
            self._process.stdin.write(order + "\n")
            self._process.stdin.flush()
            return [int(number) for number in self._process.stdout.readline().split()]


@contextmanager
def connections(enter: list[str], source: str, to: str, port: int, sent: str = "") -> Iterator[Connections]:
    """Runs the program with the source address `source`. It sends `sent` on each connection."""
    program = [sys.executable, str(INSIDE / "hold.py"), source, to, str(port), sent]
    with subprocess.Popen([*enter, *program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Connections(process)
        finally:
            process.kill()
