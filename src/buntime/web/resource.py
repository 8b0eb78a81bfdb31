"""One path of the API: the way of every request from its headers to its reply."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from starlette.types import Receive, Scope, Send

from buntime.caller import Caller
from buntime.config import Config
from buntime.daemon.room import belongs_to
from buntime.errors import ExecutionTimeout, InvalidRequest, MethodNotAllowed
from buntime.operations.idempotency import Idempotency
from buntime.operations.sessions import ControlPlane
from buntime.web import idempotent
from buntime.web.auth import Door
from buntime.web.bodies import Gate, declared_length, received, require_json
from buntime.web.decoding import decode_body, decode_query
from buntime.web.exchange import Exchange, Reply
from buntime.web.operation import Call, Operation, Page, Upload
from buntime.web.streaming import OpenStreams, Out, parts_of, perform
from buntime.web.wire.shapes import encode


@dataclass(frozen=True, slots=True)
class World:
    """What all resources of one app share."""

    plane: ControlPlane
    idempotency: Idempotency
    config: Config
    door: Door
    gate: Gate
    streams: OpenStreams


class Resource:
    """An ASGI application for one path. A known path asks for the key before anything else."""

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
        caller = await self._world.door.enter(exchange)
        belongs_to(caller.account.id)
        if exchange.method == "OPTIONS":
            await exchange.send(Reply(204, b"", headers=[self._allow]), send)
            return
        operation = self._operations.get("GET" if exchange.method == "HEAD" else exchange.method)
        if operation is None:
            exchange.headers.append(self._allow)
            raise MethodNotAllowed(f"This path takes {self._allow[1].decode()}.")
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
        if operation.body is None:
            call = self._call(exchange, caller, query, None, filters)
            if operation.raw:
                upload = Upload(parts_of(receive), declared_length(exchange))
                call = replace(call, upload=upload)
            if wants_stream(operation, call):
                await self._stream(operation, call, exchange, None if operation.raw else receive, send)
            else:
                await exchange.send(await _within(operation, call), send)
            return
        async with received(exchange, receive, caller.plan, self._world.gate) as raw:
            if raw or not operation.body_optional:
                require_json(exchange)
            body = decode_body(operation.body, raw) if raw or not operation.body_optional else operation.body()
            exchange.note_session(getattr(body, "session_id", None))
            call = self._call(exchange, caller, query, body, filters)
            if not wants_stream(operation, call):
                once = None if key is None else idempotent.fingerprint(exchange, raw)
                reply = await (self._once(operation, call, key, once) if key and once else _within(operation, call))
                await exchange.send(reply, send)
                return
        if key is not None:
            raise InvalidRequest("Idempotency-Key", "An answer that streams does not take an Idempotency-Key.")
        del raw
        await self._stream(operation, call, exchange, receive, send)

    async def _stream(
        self, operation: Operation, call: Call[Any, Any], exchange: Exchange, receive: Receive | None, send: Send
    ) -> None:
        assert operation.streamed is not None
        out, streamer = Out(exchange, send), operation.streamed.streamer
        endless = self._world.streams if operation.streamed.endless else None
        await perform(out, lambda: streamer(call, out), receive, endless)

    def _call(
        self, exchange: Exchange, caller: Caller, query: Any, body: Any, filters: Mapping[str, str]
    ) -> Call[Any, Any]:
        world = self._world
        last = next(iter(exchange.header(b"last-event-id")), None)
        last_id = None if last is None else last.decode("latin-1")
        return Call(
            world.plane,
            world.config,
            caller,
            exchange.path_params,
            query,
            body,
            filters,
            None,
            header=exchange.header,
            last_event_id=last_id,
        )

    async def _once(self, operation: Operation, call: Call[Any, Any], key: str, fingerprint: str) -> Reply:
        """Owned by the control plane: the key stays taken until the work has ended, whoever still waits."""
        plane, account = self._world.plane, call.caller.account.id

        async def work(answer: Any) -> Reply:
            told = replace(call, answer=answer)
            return await (_reply(operation, told) if operation.settles else _within(operation, told))

        kept = self._world.idempotency
        whole = idempotent.once(kept, account, key, fingerprint, plane.now, work, secret=operation.secret)
        async with _limited(operation.seconds_for(call)):
            return await plane.finish(whole, f"{operation.name} once for {account}")


def wants_stream(operation: Operation, call: Call[Any, Any]) -> bool:
    return operation.streamed is not None and operation.streamed.when(call)


class PublicResource:
    """An ASGI application for one page that needs no key."""

    def __init__(self, page: Page) -> None:
        self.path = page.path
        self._render = page.render

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange = scope["exchange"]
        exchange.route = self.path
        allow = (b"allow", b"GET, HEAD, OPTIONS")
        if exchange.method in ("GET", "HEAD"):
            await exchange.send(self._render(), send)
        elif exchange.method == "OPTIONS":
            await exchange.send(Reply(204, b"", headers=[allow]), send)
        else:
            exchange.headers.append(allow)
            raise MethodNotAllowed("This path takes GET, HEAD and OPTIONS.")


async def _reply(operation: Operation, call: Call[Any, Any]) -> Reply:
    answer = await operation.handler(call)
    return Reply(200, encode(answer), session_id=getattr(answer, "session_id", None))


async def _within(operation: Operation, call: Call[Any, Any]) -> Reply:
    async with _limited(operation.seconds_for(call)):
        return await _reply(operation, call)


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
