"""One path of the API: handles every request from its headers to its reply."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from starlette.types import Receive, Scope, Send

from buntime.caller import Caller
from buntime.cause import caused_by
from buntime.config import Config
from buntime.daemon.room import belongs_to
from buntime.errors import BuntimeError, ExecutionTimeout, InvalidRequest, MethodNotAllowed
from buntime.operations.assembly import Operations
from buntime.ports import AnotherHost
from buntime.web import carrying, idempotent
from buntime.web.auth import Authenticator, cause_of
from buntime.web.bodies import BodyMemory, check_declared, declared_length, received, received_unused, require_json
from buntime.web.decoding import decode_body, decode_query
from buntime.web.exchange import SESSION_ID, Exchange, Reply
from buntime.web.handover import handover_of
from buntime.web.leaving import while_connected
from buntime.web.metrics import Metrics
from buntime.web.named import with_ids
from buntime.web.operation import Call, Operation, Page, Upload
from buntime.web.silence import only_if, tells_only_if
from buntime.web.streaming import OpenStreams, Out, parts_of, perform
from buntime.web.wire.shapes import NoBody, encode


@dataclass(frozen=True, slots=True)
class World:
    """What all resources of one app share."""

    operations: Operations
    config: Config
    authenticator: Authenticator
    metrics: Metrics
    bodies: BodyMemory
    streams: OpenStreams


class Resource:
    """An ASGI application for one path. It checks the key before anything else."""

    def __init__(self, path: str, operations: Sequence[Operation], world: World) -> None:
        self.path = path
        self._operations = {operation.method: operation for operation in operations}
        self._world = world
        methods = {*self._operations, "OPTIONS"} | ({"HEAD"} if "GET" in self._operations else set())
        self._allow = (b"allow", ", ".join(sorted(methods)).encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange = scope["exchange"]
        exchange.route = self.path
        exchange.note_session(exchange.path_params.get("sessionId"))
        stands = self._world.operations.owners.standing()
        caller = await self._world.authenticator.caller_of(exchange)
        belongs_to(caller.account.id)
        try:
            with tells_only_if(stands):
                await self._answer(exchange, caller, receive, only_if(stands, send))
        except (BuntimeError, AnotherHost):
            await self._world.authenticator.count_question(exchange, caller)
            raise

    async def _answer(self, exchange: Exchange, caller: Caller, receive: Receive, send: Send) -> None:
        if exchange.method == "OPTIONS":
            await exchange.send(Reply(204, b"", headers=[self._allow]), send)
            return
        operation = self._operations.get("GET" if exchange.method == "HEAD" else exchange.method)
        if operation is None:
            exchange.headers.append(self._allow)
            raise MethodNotAllowed(f"This path accepts {self._allow[1].decode()}.")
        caller.require(operation.scope)
        with caused_by(cause_of(exchange, caller)):
            await self._perform(operation, exchange, caller, receive, send)

    async def _perform(
        self, operation: Operation, exchange: Exchange, caller: Caller, receive: Receive, send: Send
    ) -> None:
        key = idempotent.key_of(exchange, honoured=operation.idempotent)
        query, filters = decode_query(
            operation.query,
            exchange.scope["query_string"],
            filters=operation.filters,
            any_bytes=operation.any_bytes,
        )
        exchange.note_session(getattr(query, "session_id", None))
        call = self._call(exchange, caller, query, filters)
        if exchange.is_question:
            await self._where(operation, call, exchange, send)
            return
        if operation.body is None:
            await self._without_json(operation, call, exchange, receive, send)
        else:
            await self._with_json(operation, call, key, exchange, receive, send)

    async def _where(self, operation: Operation, call: Call[Any, Any], exchange: Exchange, send: Send) -> None:
        """Tells the edge which host has the session, if path or query name one, before it reads the body. What this
        raises is the answer to the client."""
        if operation.body is not None:
            check_declared(exchange, call.caller.plan)
        call = await with_ids(call, exchange)
        session_id = call.path.get("sessionId") or getattr(call.query, "session_id", None)
        if isinstance(session_id, str) and SESSION_ID.fullmatch(session_id):
            await self._world.operations.entrance.own(call.caller, session_id)
        await carrying.say_here(exchange, send)

    async def _without_json(
        self, operation: Operation, call: Call[Any, Any], exchange: Exchange, receive: Receive, send: Send
    ) -> None:
        if operation.raw:
            call.upload = Upload(parts_of(receive), declared_length(exchange))
        elif unused := await received_unused(exchange, receive):
            decode_body(NoBody, unused)
        if wants_stream(operation, call):
            await self._stream(operation, call, exchange, None if operation.raw else receive, send)
        else:
            await exchange.send(await _within(operation, call, exchange), send)

    async def _with_json(
        self,
        operation: Operation,
        call: Call[Any, Any],
        key: str | None,
        exchange: Exchange,
        receive: Receive,
        send: Send,
    ) -> None:
        async with received(exchange, receive, call.caller.plan, self._world.bodies) as raw:
            call.body = _body(operation, exchange, raw)
            exchange.note_session(getattr(call.body, "session_id", None))
            if not wants_stream(operation, call):
                if key is None and operation.ends_with_client:
                    reply = await while_connected(_within(operation, call, exchange), receive)
                elif key is None:
                    reply = await _within(operation, call, exchange)
                else:
                    sender = call.caller.key.id if operation.own_replies else ""
                    told = idempotent.fingerprint(exchange, raw, sender)
                    reply = await self._once(operation, call, key, exchange, told)
                await exchange.send(reply, send)
                return
        if key is not None:
            raise InvalidRequest("Idempotency-Key", "A streamed response does not take an Idempotency-Key.")
        del raw
        await self._stream(operation, call, exchange, receive, send)

    async def _stream(
        self, operation: Operation, call: Call[Any, Any], exchange: Exchange, receive: Receive | None, send: Send
    ) -> None:
        assert operation.streamed is not None
        call = await with_ids(call, exchange)
        out, streamer = Out(exchange, send), operation.streamed.streamer
        endless = self._world.streams if operation.streamed.endless else None
        await perform(out, lambda: streamer(call, out), receive, endless)

    def _call(self, exchange: Exchange, caller: Caller, query: Any, filters: Mapping[str, str]) -> Call[Any, Any]:
        last = next(iter(exchange.header(b"last-event-id")), None)
        return Call(
            self._world.operations,
            self._world.config,
            self._world.metrics,
            caller,
            exchange.path_params,
            query,
            None,
            filters,
            None,
            header=exchange.header,
            last_event_id=None if last is None else last.decode("latin-1"),
            handover=handover_of(exchange.scope),
            next_hosts=carrying.next_of(exchange),
        )

    async def _once(
        self, operation: Operation, call: Call[Any, Any], key: str, exchange: Exchange, fingerprint: str
    ) -> Reply:
        """The key stays taken until the work has ended, even when the client no longer waits."""
        account = call.caller.account.id

        async def work(answer: Any) -> Reply:
            told = replace(call, answer=answer)
            return await (_reply if operation.settles else _within)(operation, told, exchange)

        kept = self._world.operations.idempotency
        request = idempotent.KeyedRequest(
            account, key, fingerprint, kept.now, operation.secret, operation.is_repeatable
        )
        whole = idempotent.once(kept, request, work)
        async with _limited(operation.seconds_for(call)):
            name = f"{operation.name} once for {account}"
            return await kept.finish(whole, name, until_cut=not operation.settles)


def _body(operation: Operation, exchange: Exchange, raw: bytes) -> Any:
    assert operation.body is not None
    if not raw and operation.body_optional:
        return operation.body()
    require_json(exchange)
    return decode_body(operation.body, raw)


def wants_stream(operation: Operation, call: Call[Any, Any]) -> bool:
    return operation.streamed is not None and operation.streamed.when(call)


class PublicResource:
    """An ASGI application for one page that needs no key."""

    def __init__(self, page: Page) -> None:
        self.path = page.path
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange = scope["exchange"]
        exchange.route = self.path
        allow = (b"allow", b"GET, HEAD, OPTIONS")
        if exchange.method in ("GET", "HEAD"):
            await exchange.send(self._reply(exchange), send)
        elif exchange.method == "OPTIONS":
            await exchange.send(Reply(204, b"", headers=[allow]), send)
        else:
            exchange.headers.append(allow)
            raise MethodNotAllowed("This path accepts GET, HEAD and OPTIONS.")

    def _reply(self, exchange: Exchange) -> Reply:
        if self._page.html is None:
            return self._page.render(exchange)
        exchange.headers.append((b"vary", b"Accept"))
        return self._page.html(exchange) if exchange.prefers_page else self._page.render(exchange)


async def _reply(operation: Operation, call: Call[Any, Any], exchange: Exchange) -> Reply:
    call = await with_ids(call, exchange)
    answer = await operation.handler(call)
    headers = [(name.encode(), value.encode()) for name, value in call.told.items()]
    return Reply(200, encode(answer), headers=headers, session_id=getattr(answer, "session_id", None))


async def _within(operation: Operation, call: Call[Any, Any], exchange: Exchange) -> Reply:
    async with _limited(operation.seconds_for(call)):
        return await _reply(operation, call, exchange)


class _limited:  # noqa: N801 - reads as a statement
    """Raises ExecutionTimeout when the block takes longer."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timeout = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            if not self._timeout.expired():
                raise
            raise ExecutionTimeout(f"The request took longer than {self._seconds:g} seconds.") from None
