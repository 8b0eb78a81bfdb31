"""The resolver of sessions that have rules about names. They may reach what it answers.

The rules lead their questions to the gateway here. For a name that is allowed, the resolver asks the name server of all
sandboxes, and opens the addresses to the session before it sends the answer. It is part of the server: while the server
is down, these sessions resolve no name, and their connections go on.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from ipaddress import IPv4Address, IPv4Network
from typing import Any, cast

import structlog

from buntime.daemon.tasks import Tasks
from buntime.egress import Rules
from buntime.sandboxes.kernel.commands import HostCommandFailed
from buntime.sandboxes.network import messages
from buntime.sandboxes.network.messages import Answer, Malformed, Question
from buntime.sandboxes.network.namespaces import LONGEST, Network
from buntime.sandboxes.network.rules import UNREACHABLE

log = structlog.get_logger()

PORT = 53
ASK_SECONDS = 5.0
PENDING, PENDING_OF_ONE = 4000, 64  # questions under way, of all sessions and of one: more are not answered
STREAM_QUESTIONS, STREAM_SECONDS = 4, 5.0  # of one connection: the rate of connections bounds its rate
LONGEST_QUESTION = 4096  # bytes
LOOK_SECONDS, AGAIN_SECONDS = 1.0, 300.0  # between looks for denied names, and between looks at the same name
AT_ONCE = 20
INSIDE = tuple(map(IPv4Network, UNREACHABLE))
# Answers of these types hold addresses that a program would connect to. Sessions have only IPv4, which is type A.
EMPTY = (messages.AAAA, messages.SVCB, messages.HTTPS, messages.ANY)


class Unanswered(Exception):
    """The name server does not answer."""


@asynccontextmanager
async def answering(network: Network, tasks: Tasks) -> AsyncIterator[None]:
    """Answers while the block lasts. Raises HostCommandFailed where the address is taken."""
    loop = asyncio.get_running_loop()
    upstream, asker = await loop.create_datagram_endpoint(
        lambda: _Asker(network.gateway), remote_addr=(network.gateway, PORT)
    )
    resolver = Resolver(network, asker)
    try:
        datagrams, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(resolver, tasks), local_addr=(network.resolver, PORT)
        )
        streams = await asyncio.start_server(resolver.serve_stream, network.resolver, PORT)
    except OSError as taken:
        upstream.close()
        raise HostCommandFailed(f"the resolver cannot listen at {network.resolver}: {taken}") from taken
    watching = asyncio.create_task(resolver.watch_denied(), name="denied names")
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.wait({watching})
        streams.close()
        datagrams.close()
        upstream.close()


class Resolver:
    """Decides about each question."""

    def __init__(self, network: Network, asker: "_Asker") -> None:
        self._network = network
        self._asker = asker
        self._pending: Counter[str] = Counter()  # session's address → its questions under way
        self._asked: dict[tuple[int, str], float] = {}  # denied name of a slot → when it was asked last

    async def answer(self, session: str, message: bytes, *, stream: bool = False) -> bytes | None:
        """None where the question gets no answer."""
        found = self._network.rules_at(session)
        if found is None or self._pending[session] >= PENDING_OF_ONE or self._pending.total() >= PENDING:
            return None
        self._pending[session] += 1
        try:
            question = messages.parse_question(message)
            return await self._decide(*found, message, question, stream=stream)
        except Malformed:
            return None
        finally:
            self._pending[session] -= 1
            if not self._pending[session]:
                del self._pending[session]

    async def _decide(self, slot: int, rules: Rules, message: bytes, question: Question, *, stream: bool) -> bytes:
        if not rules.egress or not rules.resolves(question.name):
            return messages.nothing(message, question, messages.NO_SUCH_NAME)
        if question.type in EMPTY:
            return messages.nothing(message, question, messages.NO_ERROR)
        try:
            raw = await (self._asker.ask_stream(message) if stream else self._asker.ask(message))
            if question.type != messages.A or not rules.of_names:
                return raw
            answer = messages.parse_answer(raw, question)
            if not _is_public(answer) or not await self._may_have(slot, rules, answer):
                return messages.nothing(message, question, messages.NO_SUCH_NAME)
            return messages.shortened(raw, question, LONGEST)
        except (Unanswered, Malformed, OSError) as failed:
            log.info("name_not_answered", reason=str(failed) or type(failed).__name__)
            return messages.nothing(message, question, messages.SERVER_FAILURE)

    async def _may_have(self, slot: int, rules: Rules, answer: Answer) -> bool:
        """Puts the addresses in force. Returns whether the session may know them."""
        if any(map(rules.denies, answer.names)):  # a denied alias denies the addresses behind it
            await self._learn(slot, rules, "denied_names", answer.addresses, LONGEST)
            return False
        if not rules.allow or not answer.addresses:
            return True
        return await self._learn(slot, rules, "allowed_names", answer.addresses, answer.seconds)

    async def _learn(
        self, slot: int, rules: Rules, kind: str, addresses: Iterable[IPv4Address], seconds: float
    ) -> bool:
        return await asyncio.to_thread(self._network.learn, slot, rules, kind, addresses, seconds)

    async def serve_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = writer.get_extra_info("peername")[0]
        try:
            for _ in range(STREAM_QUESTIONS):
                async with asyncio.timeout(STREAM_SECONDS):
                    length = int.from_bytes(await reader.readexactly(2))
                    if length > LONGEST_QUESTION:
                        return
                    question = await reader.readexactly(length)
                    answer = await self.answer(session, question, stream=True)
                    if answer is None:
                        return
                    writer.write(len(answer).to_bytes(2) + answer)
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    # --- denied names ---

    async def watch_denied(self) -> None:
        """Resolves denied names, without end, to deny their addresses too: a session may know them from elsewhere.
        Names below a `*.` cannot be listed. Those that a session asks for are not resolved, because the question itself
        could carry data out."""
        while True:
            now = time.monotonic()
            denied = {(slot, name): rules for slot, rules in self._network.restricted() for name in rules.deny.names}
            self._asked = {what: at for what, at in self._asked.items() if what in denied}
            due = [what for what in denied if self._asked.get(what, -AGAIN_SECONDS) <= now - AGAIN_SECONDS]
            for start in range(0, len(due), AT_ONCE):
                batch = due[start : start + AT_ONCE]
                await asyncio.gather(*(self._deny_addresses(slot, denied[slot, name], name) for slot, name in batch))
            self._asked |= dict.fromkeys(due, now)
            await asyncio.sleep(LOOK_SECONDS)

    async def _deny_addresses(self, slot: int, rules: Rules, name: str) -> None:
        message = messages.question_for(name, 0)
        try:
            answer = messages.parse_answer(await self._asker.ask(message), messages.parse_question(message))
            await self._learn(slot, rules, "denied_names", answer.addresses, LONGEST)
        except (Unanswered, Malformed, OSError) as failed:
            log.info("denied_name_not_resolved", name=name, reason=str(failed) or type(failed).__name__)


def _is_public(answer: Answer) -> bool:
    return not any(address in network for address in answer.addresses for network in INSIDE)


class _Asker(asyncio.DatagramProtocol):
    """Asks the name server of all sandboxes."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._number = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # uvloop's class only behaves like it

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        waiting = self._waiting.get(messages.id_of(data))
        if waiting is not None and not waiting.done():
            waiting.set_result(data)

    def error_received(self, exc: Exception) -> None:
        """The name server is being restarted. Clients ask again by themselves."""

    async def ask(self, message: bytes) -> bytes:
        """Raises Unanswered."""
        if self._transport is None or self._transport.is_closing() or len(self._waiting) > PENDING:
            raise Unanswered
        while self._number in self._waiting:
            self._number = (self._number + 1) & 0xFFFF
        number, self._number = self._number, (self._number + 1) & 0xFFFF
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._transport.sendto(messages.with_id(message, number))
            async with asyncio.timeout(ASK_SECONDS):
                return messages.with_id(await waiting, messages.id_of(message))
        except TimeoutError:
            raise Unanswered from None
        finally:
            del self._waiting[number]

    async def ask_stream(self, message: bytes) -> bytes:
        """The same, without a limit on the answer's size. Raises Unanswered and OSError."""
        try:
            async with asyncio.timeout(ASK_SECONDS):
                reader, writer = await asyncio.open_connection(self._server, PORT)
                try:
                    writer.write(len(message).to_bytes(2) + message)
                    return await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
                finally:
                    writer.close()
                    with suppress(OSError):
                        await writer.wait_closed()
        except (TimeoutError, asyncio.IncompleteReadError):
            raise Unanswered from None


class _Datagrams(asyncio.DatagramProtocol):
    """Questions of sessions, one in each datagram."""

    def __init__(self, resolver: Resolver, tasks: Tasks) -> None:
        self._resolver = resolver
        self._tasks = tasks
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # uvloop's class only behaves like it

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self._tasks.start(self._answer(data, addr), "question")

    async def _answer(self, message: bytes, session: tuple[str | Any, int]) -> None:
        answer = await self._resolver.answer(session[0], message)
        if answer is not None and self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(answer, session)
