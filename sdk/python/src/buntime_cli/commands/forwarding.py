"""`buntime forward`: a port of a session as a local port."""

import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from buntime_cli.commands.connection import connected
from buntime_cli.commands.errors import CommandError, one_line, sentence_of
from buntime_cli.commands.naming import SessionName, find
from buntime_cli.commands.options import AsJson
from buntime_cli.commands.showing import print_json
from buntime_cli.commands.stopping import SIGNALS, Stopped

if TYPE_CHECKING:
    import asyncio

    from buntime_sdk import Session

    from buntime_cli.commands.forward_relay import ForwardRelay

forwarding = typer.Typer()

TOKEN_SECONDS, FRESH_SECONDS = 3600, 3000.0  # how long a token is asked for, and used


@forwarding.command("forward")
def forward_command(
    context: typer.Context,
    session: SessionName,
    ports: Annotated[str, typer.Argument(metavar="PORT[:LOCAL]", help="The session's port, and the local port.")],
    as_json: AsJson = False,
) -> None:
    """Make a port of a session available as a port of this machine.

    Carries HTTP and WebSocket to the session's preview, also to a private one, and each request wakes the session. Only
    this machine can reach the local port, which is PORT by default; 0 takes a free one. Press Ctrl-C to end it.

    Example: buntime forward demo 8080:3000
    """
    port, local = _parsed(ports)
    with connected(context, as_json) as client:
        found = find(client, session).refresh()
        preview = found.preview_url(port)
        import asyncio

        from buntime_sdk import BuntimeError

        from buntime_cli.commands.forward_relay import ForwardRelay

        tokens = HourlyTokens(found, port)

        def say(failure: BuntimeError) -> None:
            print(f"buntime: {one_line(sentence_of(failure, client.base_url))}", file=sys.stderr, flush=True)

        relay = ForwardRelay(client.base_url, preview, tokens, say)
        asyncio.run(_until_stopped(relay, found.id, port, local, as_json=as_json))


def _parsed(ports: str) -> tuple[int, int]:
    port, colon, local = ports.partition(":")
    if not (port.isdecimal() and port.isascii() and (not colon or (local.isdecimal() and local.isascii()))):
        raise typer.BadParameter(f"{ports!r} is not PORT or PORT:LOCAL, such as 8080:3000.")
    numbers = int(port), int(local) if colon else int(port)
    if max(numbers) > 65535:
        raise typer.BadParameter(f"{max(numbers)} is not a port: the highest is 65535.")
    return numbers


class HourlyTokens:
    """Tokens for a preview. One is used for most of its hour, or until the server refuses it."""

    def __init__(self, session: "Session", port: int) -> None:
        self._session, self._port = session, port
        self._token, self._fresh_until = "", 0.0

    async def get(self) -> str:
        """Raises BuntimeError."""
        import asyncio

        if time.monotonic() >= self._fresh_until:
            made = await asyncio.to_thread(self._session.preview_token, port=self._port, ttl=TOKEN_SECONDS)
            self._token, self._fresh_until = made.token, time.monotonic() + FRESH_SECONDS
        return self._token

    def refused(self) -> None:
        self._fresh_until = 0.0


async def _until_stopped(relay: "ForwardRelay", session: str, port: int, local: int, *, as_json: bool) -> None:
    """Raises Stopped at a signal, and CommandError if the local port is in use."""
    stopped = _signal()
    await relay.tokens.get()  # a refused key is reported before the port is open
    try:
        server = await relay.listen(local)
    except OSError as taken:
        reason = os.strerror(taken.errno or 0)
        sentence = f"Cannot listen on port {local} of this machine: {reason}. Choose another: {port}:LOCAL"
        raise CommandError(sentence, "local_port") from None
    url = f"http://localhost:{server.sockets[0].getsockname()[1]}"
    if as_json:
        print_json({"url": url, "session": session, "port": port})
    else:
        print(f"{url} is port {port} of {session}. Press Ctrl-C to stop.", flush=True)
    try:
        raise Stopped(await stopped)
    finally:
        server.close()


def _signal() -> "asyncio.Future[int]":
    """The first signal that arrives. An exception in a signal's handler would end in a task of the loop."""
    import asyncio

    loop = asyncio.get_running_loop()
    came: asyncio.Future[int] = loop.create_future()

    def stop(number: int) -> None:
        if not came.done():
            came.set_result(number)

    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, stop, number)
    return came
