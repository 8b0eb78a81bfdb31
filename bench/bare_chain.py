"""The bare chain: the processes that any request must pass here, with nothing in them but the passing on.

    client → nginx → a server in Python → a guest on Bun → a program that has started and waits → back

There are no keys, limits, accounts, records, sandboxes or cgroups. No figure of the API can be faster than this, so it
shows which targets this machine forbids. The programs are `programs/bare_server.py` and `programs/bare_guest.js`.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from pathlib import Path
from socket import create_server
from string import Template

from bench.client import Client
from bench.context import Context, stopwatch
from bench.exchanges import connect, head
from bench.keyboards import Keyboard, plain
from bench.plain_nginx import running
from bench.previews import MB, Way
from bench.statistics import Summary

PIECES_OF_MB, LINE, MARK = 16, 64, b"~"  # of 64 KB each; bytes of a line, and what is in each once
PROGRAMS = Path(__file__).parent / "programs"
FRONT = Template("""\
  upstream bare { server unix:$socket; keepalive 64; keepalive_requests 100000; }
  server {
    listen 127.0.0.1:$port;
    proxy_buffering off;
    proxy_buffer_size 256k; proxy_buffers 8 256k;
    location / { proxy_pass http://bare; }
  }
""")


class BareChain:
    """Its guests have numbers. Each method returns milliseconds, unless it says otherwise."""

    def __init__(self, client: Client, port: int) -> None:
        self._client = client
        self._way = Way("the bare chain", "127.0.0.1", port, f"127.0.0.1:{port}")

    async def answer(self) -> float:
        """Without a guest."""
        return await stopwatch(self._client.get("/h"))

    async def ask(self, guest: int) -> float:
        return await stopwatch(self._client.get(f"/q/{guest}"))

    async def evaluation(self, guest: int) -> float:
        """`1+1` in a Bun that goes on."""
        return await stopwatch(self._client.get(f"/e/{guest}"))

    async def context_run(self, guest: int) -> float:
        """The same as a context must run it: the code may be TypeScript, and SIGINT can end it."""
        return await stopwatch(self._client.get(f"/i/{guest}"))

    async def command(self, guest: int) -> float:
        """`true`, by bash."""
        return await self._used("t", guest)

    async def code(self, guest: int) -> float:
        """`console.log(1)`, by a Bun that has started."""
        return await self._used("c", guest)

    async def create_and_code(self, guest: int) -> float:
        """The same after a request that writes 500 bytes to the disk."""
        return await stopwatch(self._client.get("/n")) + await stopwatch(self._client.get(f"/c/{guest}"))

    def stream(self, guest: int, megabytes: int) -> float:
        """Seconds until so much output of a program has come, in pieces of 64 KB. Blocking. Raises RuntimeError."""
        received, buffer = 0, bytearray(MB)
        with connect(self._way) as connection:
            start = time.perf_counter()
            connection.sendall(head("GET", f"/s/{guest}/{megabytes * PIECES_OF_MB:05}", self._way))
            while read := connection.recv_into(buffer):
                received += buffer.count(MARK, 0, read)
            spent = time.perf_counter() - start
        if received != megabytes * MB // LINE:
            raise RuntimeError(f"{received} lines came by the bare chain")
        return spent

    def terminal(self, guest: int) -> AbstractContextManager[Keyboard]:
        """A shell at a terminal. See `bench.keyboards.plain`."""
        return plain(self._way, f"/k/{guest}")

    async def prepare(self, guest: int) -> None:
        await self._client.get(f"/p/{guest}")

    async def _used(self, letter: str, guest: int) -> float:
        spent = await stopwatch(self._client.get(f"/{letter}/{guest}"))
        await self.prepare(guest)
        return spent


def least(bare: Summary, bare_answer: Summary, healthz: Summary) -> float:
    """The p50 of a request that does what the bare chain does, and costs this server no more than `/healthz`. That has
    no key, no session and no body."""
    return bare.p50 - bare_answer.p50 + healthz.p50


@asynccontextmanager
async def bare_chain(context: Context, guests: int) -> AsyncIterator[BareChain]:
    """With so many guests, whose programs wait. Raises RuntimeError."""
    bun = str(context.server.bun)
    with ExitStack() as stack:
        scratch = _directory(stack)
        ports = [_process(stack, [bun, "--smol", str(PROGRAMS / "bare_guest.js")]) for _ in range(guests)]
        socket, log = scratch / "socket", context.server.scratch / "bare-log"
        stack.callback(log.unlink, missing_ok=True)
        _process(stack, [sys.executable, str(PROGRAMS / "bare_server.py"), str(socket), str(log), *ports])
        with create_server(("127.0.0.1", 0)) as free:
            port = int(free.getsockname()[1])
        stack.enter_context(running(scratch / "nginx", FRONT.substitute(socket=socket, port=port), "127.0.0.1", port))
        async with Client(f"http://127.0.0.1:{port}", "", context.server.config.metrics_socket) as client:
            chain = BareChain(client, port)
            for guest in range(guests):
                await chain.prepare(guest)
            yield chain


def _directory(stack: ExitStack) -> Path:
    """The edge's user may look for sockets in it."""
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="buntime-bare-")))
    directory.chmod(0o755)
    return directory


def _process(stack: ExitStack, command: list[str]) -> str:
    """Starts it, and returns its first line."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()
