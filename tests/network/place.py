"""Targets that tests try to reach: a network namespace that stands for the internet and private networks, and a name
server with the test's records. Everything ends with its `with` block.
"""

import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address
from pathlib import Path

INSIDE = Path(__file__).with_name("inside")
LINK = "buntime-tworld"  # the host's end
PUBLIC = ("192.31.196.10", "192.31.196.11", "192.31.196.12", "192.31.196.13")
# one address of each kind that no session may reach
PRIVATE = ("10.98.77.1", "100.64.77.1", "169.254.77.77", "172.31.77.1", "192.168.177.1", "198.18.77.1", "192.0.0.77")
PORTS = (25, 53, 80, 443, 853, 8080)
SECONDS = 30.0  # a guard against a hang


class World:
    """The namespace. It answers TCP and UDP on PORTS of all its addresses."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.reached: list[str] = []
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.reached.append(line.strip())

    def enter(self) -> list[str]:
        """Returns a command prefix that runs a program in this network."""
        return ["nsenter", "--net", "--target", str(self._process.pid)]


@contextmanager
def world() -> Iterator[World]:
    """Makes the namespace and routes to it from this host."""
    program = [sys.executable, str(INSIDE / "world.py"), *map(str, PORTS)]
    with subprocess.Popen(["unshare", "--net", *program], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            addresses = "\n".join(f"addr add {address}/32 dev eth0" for address in PUBLIC + PRIVATE)
            routes = "\n".join(f"route add {address}/32 dev {LINK} src 192.31.196.1" for address in PUBLIC + PRIVATE)
            _ip(
                f"link add {LINK} type veth peer name eth0 netns {process.pid}\n"
                f"addr add 192.31.196.1/32 dev {LINK}\nlink set {LINK} up\n{routes}\n"
            )
            inner = f"link set lo up\n{addresses}\nlink set eth0 up\nroute add default dev eth0 scope link\n"
            subprocess.run(
                ["nsenter", "--net", "--target", str(process.pid), "ip", "-batch", "-"],
                input=inner, text=True, check=True, timeout=SECONDS,
            )  # fmt: skip
            yield World(process)
        finally:
            process.kill()
            subprocess.run(["ip", "link", "del", LINK], capture_output=True, check=False)


def nft(*arguments: str) -> str:
    return subprocess.run(["nft", *arguments], capture_output=True, text=True, check=True, timeout=SECONDS).stdout


def _ip(batch: str) -> None:
    subprocess.run(["ip", "-batch", "-"], input=batch, text=True, check=True, timeout=SECONDS)


def probe(enter: Sequence[str], targets: Sequence[str]) -> dict[str, str]:
    """Tries each target from the network that `enter` enters, and returns the results."""
    done = subprocess.run(
        [*enter, sys.executable, INSIDE / "probe.py", *targets],
        capture_output=True, text=True, check=True, timeout=SECONDS,
    )  # fmt: skip
    return dict(json.loads(done.stdout))


def enter_process(pid: int) -> list[str]:
    return ["nsenter", "--net", "--target", str(pid)]


def enter_handle(handle: int) -> list[str]:
    return ["nsenter", f"--net=/proc/{os.getpid()}/fd/{handle}"]


# --- names ---

Record = tuple[str, str, int]  # type (A or CNAME), value, TTL in seconds


class Upstream:
    """A name server on a loopback address that stands for the internet's name servers."""

    ADDRESS = "127.0.213.53"

    def __init__(self, address: str) -> None:
        self._address = address
        self.records: dict[str, Sequence[Record]] = {}
        self.asked: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, 53))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", (self._address, 53))
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            question, sender = self._socket.recvfrom(4096)
            if not question:
                return
            name, end = read_name(question, 12)
            self.asked.append(name)
            self._socket.sendto(self._answer(question[: end + 4], name), sender)

    def _answer(self, question: bytes, name: str) -> bytes:
        kind = int.from_bytes(question[-4:-2])
        out, owner, count = b"", name, 0
        while records := self.records.get(owner):
            for what, says, seconds in records:
                data = IPv4Address(says).packed if what == "A" else write_name(says)
                if what == "CNAME" or kind == 1:
                    number = {"A": 1, "CNAME": 5}[what]
                    out += write_name(owner) + struct.pack("!2HIH", number, 1, seconds, len(data)) + data
                    count += 1
            if records[0][0] != "CNAME":
                break
            owner = records[0][1]
        code = 0 if name in self.records else 3
        return question[:2] + struct.pack("!5H", 0x8180 | code, 1, count, 0, 0) + question[12:] + out


@contextmanager
def upstream(address: str = Upstream.ADDRESS) -> Iterator[Upstream]:
    with ExitStack() as stack:
        server = Upstream(address)
        stack.callback(server.close)
        yield server


def ask(
    enter: Sequence[str], server: str, name: str, kind: int = 1, *, stream: bool = False, seconds: float = 3.0
) -> tuple[int, list[str]]:
    """Sends a DNS query. Returns the answer's code and addresses, or (-1, []) if none arrives within `seconds`."""
    done = subprocess.run(
        [*enter, sys.executable, INSIDE / "ask.py", server, name, str(kind), "tcp" if stream else "udp", str(seconds)],
        capture_output=True, text=True, check=True, timeout=SECONDS,
    )  # fmt: skip
    code, *addresses = done.stdout.split()
    return int(code), addresses


def write_name(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def read_name(message: bytes, start: int) -> tuple[str, int]:
    labels = []
    while length := message[start]:
        labels.append(message[start + 1 : start + 1 + length].decode())
        start += 1 + length
    return ".".join(labels).lower(), start + 1
