"""Network namespaces of a test: a host's, with the world on one side and a sandbox on the other."""

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

EDGE, OTHER, PORT = 8000, 8001, 9000
SECONDS = 0.3  # until a packet that does not come counts as lost


@dataclass(frozen=True, slots=True)
class Ends:
    """Addresses of one end of both links."""

    world: str
    sandbox: str


HOST = Ends("192.0.2.1", "198.51.100.1")
WORLD, SANDBOX = "192.0.2.2", "198.51.100.2"


class Namespace:
    """One network namespace, and a thread in it. It ends with its `with` block."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self.pid = 0

    def __enter__(self) -> "Namespace":
        self._process = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        self._process.stdout.readline()  # so it is in its namespace
        self.pid = self._process.pid
        self.within(self._enter)
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()
        self._process.communicate()

    def _enter(self) -> None:
        handle = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY)
        os.setns(handle, os.CLONE_NEWNET)
        os.close(handle)

    def within[T](self, work: Callable[[], T]) -> T:
        return self._thread.submit(work).result()

    def enter(self) -> list[str]:
        """A command prefix that runs a program there."""
        return ["nsenter", "--net", "--target", str(self.pid)]

    def ip(self, *lines: str) -> None:
        subprocess.run([*self.enter(), "ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)

    def listens(self, address: str, port: int, kind: socket.SocketKind = socket.SOCK_DGRAM) -> socket.socket:
        def make() -> socket.socket:
            listener = socket.socket(socket.AF_INET, kind)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, port))
            listener.settimeout(SECONDS)
            if kind is socket.SOCK_STREAM:
                listener.listen()
            return listener

        return self.within(make)


class Networks:
    """`WAYS`: by which a packet may go."""

    WAYS = ("sandbox to host", "host to sandbox", "sandbox to world", "world to sandbox", "world to edge")

    def __init__(self, host: Namespace, world: Namespace, sandbox: Namespace, stack: ExitStack) -> None:
        self.host, self.world, self.sandbox = host, world, sandbox
        self._sockets = {
            "host": host.listens(HOST.sandbox, PORT),
            "world": world.listens(WORLD, PORT),
            "sandbox": sandbox.listens(SANDBOX, PORT),
        }
        self._edge = host.listens(HOST.world, EDGE, socket.SOCK_STREAM)
        self._other = host.listens(HOST.world, OTHER, socket.SOCK_STREAM)
        for each in (*self._sockets.values(), self._edge, self._other):
            stack.callback(each.close)

    @property
    def ear(self) -> socket.socket:
        """What the sandbox sends to the host arrives here."""
        return self._sockets["host"]

    def within[T](self, work: Callable[[], T]) -> T:
        """In the host's namespace."""
        return self.host.within(work)

    def reached(self) -> set[str]:
        """The ways that are open now."""
        open_ways = {way for way in self.WAYS[:-1] if self._arrives(*way.split(" to "))}
        return open_ways | ({self.WAYS[-1]} if self._connects(self._edge, EDGE) else set())

    def reaches_other_port(self) -> bool:
        return self._connects(self._other, OTHER)

    def refused_at_the_edge(self) -> bool:
        try:
            self.world.within(lambda: socket.create_connection((HOST.world, EDGE), SECONDS)).close()
        except ConnectionRefusedError:
            return True
        return False

    @contextmanager
    def stream_from_the_edge(self) -> Iterator[tuple[socket.socket, socket.socket]]:
        """The host's end and the client's."""
        with self._stream(self._edge, EDGE) as ends:
            yield ends

    @contextmanager
    def stream_from_the_other_port(self) -> Iterator[tuple[socket.socket, socket.socket]]:
        with self._stream(self._other, OTHER) as ends:
            yield ends

    @contextmanager
    def _stream(self, listener: socket.socket, port: int) -> Iterator[tuple[socket.socket, socket.socket]]:
        with self.world.within(lambda: socket.create_connection((HOST.world, port), SECONDS)) as client:
            server, _ = listener.accept()
            with server:
                yield server, client

    def _arrives(self, sender: str, receiver: str) -> bool:
        to = {"world": WORLD, "sandbox": SANDBOX, "host": HOST.sandbox}[receiver]
        listener = self._sockets[receiver]
        listener.setblocking(False)
        try:
            while True:
                listener.recv(64)  # what came late
        except BlockingIOError:
            listener.settimeout(SECONDS)
        try:
            self._sockets[sender].sendto(b"packet", (to, PORT))
            listener.recv(64)
        except (TimeoutError, PermissionError):
            return False
        return True

    def _connects(self, listener: socket.socket, port: int) -> bool:
        try:
            with self.world.within(lambda: socket.create_connection((HOST.world, port), SECONDS)):
                listener.accept()[0].close()
        except (TimeoutError, ConnectionRefusedError):
            return False
        return True


@contextmanager
def networks(instance: str) -> Iterator[Networks]:
    """`instance`: of the server whose sandbox it is."""
    with ExitStack() as stack:
        host, world, sandbox = (stack.enter_context(Namespace()) for _ in range(3))
        sandboxes_link = f"buntime{instance}0000"
        host.ip(
            f"link add wan type veth peer name eth0 netns {world.pid}",
            f"link add {sandboxes_link} type veth peer name eth0 netns {sandbox.pid}",
            "link set lo up",
            f"addr add {HOST.world}/24 dev wan",
            f"addr add {HOST.sandbox}/24 dev {sandboxes_link}",
            "link set wan up",
            f"link set {sandboxes_link} up",
        )
        for namespace, address, router in ((world, WORLD, HOST.world), (sandbox, SANDBOX, HOST.sandbox)):
            namespace.ip(
                "link set lo up",
                f"addr add {address}/24 dev eth0",
                "link set eth0 up",
                f"route add default via {router}",
            )
        host.within(lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text("1"))
        yield Networks(host, world, sandbox, stack)
