"""Makes API calls: adds the key, applies the timeout, retries where that is safe and turns refusals into errors."""

import json
import random
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import httpx2

from buntime_sdk._async.previews import CONNECT_SECONDS, AsyncPreviews
from buntime_sdk.arguments import require_key
from buntime_sdk.bodies import async_parts_until
from buntime_sdk.deadlines import NEVER, Deadline
from buntime_sdk.dialing import AsyncDial, AsyncSocket
from buntime_sdk.errors import BuntimeError, ConnectionFailed, error_of
from buntime_sdk.events import EventParser, ServerEvent
from buntime_sdk.failures import failure_of, read_json, refusal_in
from buntime_sdk.retries import RetryRules, delay_before, may_have_begun
from buntime_sdk.shapes import RateLimit
from buntime_sdk.waiting import AsyncPause, Eventual, async_close_with

T = TypeVar("T")

LEAST_PATIENCE = 1.0  # least seconds that one wait for a call in progress takes off the patience
LEAST_SILENCE = 0.5  # seconds that a response may take, even right before a deadline
HEARTBEAT_SECONDS = 15.0  # the server sends a heartbeat this often on a silent stream


@dataclass(frozen=True, slots=True)
class Call:
    """One API call.

    `json`: fields that are None are left out, unless `nulls` is true. `body`: returns the content again for each
    attempt. `repeatable`: carrying out the call twice does no harm. None means every method but POST, and any call with
    a key. `waits`: seconds that the server may be silent beyond the client's timeout, because a program runs.
    `is_retried`: False where the caller retries by itself. `deadline`: no attempt outlasts it or begins after it.
    """

    method: str
    path: str
    query: Mapping[str, object] | None = None
    json: Mapping[str, object] | None = None
    body: Callable[[], AsyncIterator[bytes] | bytes] | None = None
    headers: Mapping[str, str] | None = None
    key: str | None = None
    repeatable: bool | None = None
    waits: float = 0.0
    nulls: bool = False
    is_retried: bool = True
    deadline: Deadline = NEVER


class AsyncCalls:
    def __init__(
        self,
        http: httpx2.AsyncClient,
        previews: AsyncPreviews,
        dial: AsyncDial,
        base_url: str,
        headers: Mapping[str, str],
        *,
        timeout: float,
        rules: RetryRules,
        on_retry: Callable[[BuntimeError, int, float], object] | None,
        pause: AsyncPause,
    ) -> None:
        self.previews = previews
        self.timeout = timeout
        self._http = http
        async_close_with(self, http.aclose)
        self._dial = dial
        self._base_url = base_url
        self._headers = headers
        self._rules = rules
        self._on_retry = on_retry
        self._pause = pause
        self.rate_limit: RateLimit | None = None

    async def close(self) -> None:
        await self._http.aclose()
        await self.previews.close()

    async def json(self, call: Call) -> dict[str, Any]:
        """Returns the response's JSON object."""
        return await self._repeated(call, lambda: self._once(call))

    async def json_and_headers(self, call: Call) -> tuple[dict[str, Any], httpx2.Headers]:
        return await self._repeated(call, lambda: self._once_with_headers(call))

    async def gone(self, call: Call, absent: str, *, existed: bool = False) -> None:
        """Deletes something. If the response is lost, a retry may find nothing: that counts as deleted.

        `existed`: it counts as deleted even if the first attempt finds nothing.
        """
        begun = existed

        async def once() -> None:
            nonlocal begun
            try:
                await self._once(call)
            except BuntimeError as failure:
                if begun and failure.code == absent:
                    return
                begun = begun or may_have_begun(failure)
                raise

        await self._repeated(call, once)

    @asynccontextmanager
    async def answer(self, call: Call) -> AsyncIterator[httpx2.Response]:
        """Yields a response before its body is read. Leaving the block early closes the connection."""
        response = await self._repeated(call, lambda: self._sent(call))
        try:
            yield response
        except httpx2.RequestError as broken:
            raise failure_of(broken, self._base_url) from broken
        finally:
            await response.aclose()

    @asynccontextmanager
    async def events(self, call: Call) -> AsyncIterator[AsyncGenerator[ServerEvent]]:
        """Yields Server-Sent Events as they arrive, until the response ends. Raises what an `error` event reports."""
        async with self.answer(replace(call, waits=call.waits + HEARTBEAT_SECONDS)) as response:
            yield _events(response, self._base_url, call.deadline)

    async def socket(
        self,
        path: str,
        query: Mapping[str, object],
        greeted: Callable[[AsyncSocket], Eventual[T]],
        *,
        repeatable: bool,
    ) -> T:
        """Opens a WebSocket and returns what `greeted` makes of it. Closes the socket on failure."""
        url = str(httpx2.URL(self._base_url + path, params=_query(query)))

        async def once() -> T:
            socket = await self._dial(url, self._headers, self.timeout)
            try:
                return await greeted(socket)
            except BaseException:  # also when interrupted
                await socket.close()
                raise

        return await self._repeated(Call("GET", path, query, repeatable=repeatable), once)

    def delay_before(self, failure: BuntimeError, attempt: int, *, repeatable: bool = True) -> float | None:
        """Returns the seconds to wait before the next attempt of a failed call, or None to give up."""
        chance = random.random()
        delay = delay_before(failure, attempt, self._rules, repeatable=repeatable, random=chance)
        if delay is not None and self._on_retry is not None:
            self._on_retry(failure, attempt, delay)
        return delay

    async def wait(self, seconds: float) -> None:
        await self._pause(seconds)

    async def _repeated(self, call: Call, once: Callable[[], Eventual[T]]) -> T:
        repeatable = call.repeatable
        if repeatable is None:
            repeatable = call.method != "POST" or call.key is not None
        attempt = 0
        patience = self.timeout + call.waits
        while True:
            try:
                return await once()
            except BuntimeError as failure:
                is_under_way = failure.code == "idempotency_in_progress" and patience > 0
                attempt = max(attempt, 1) if is_under_way else attempt + 1
                delay = self.delay_before(failure, attempt, repeatable=repeatable) if call.is_retried else None
                if delay is None or delay > call.deadline.left:
                    raise
                if is_under_way:  # wait for it as long as for its own response
                    patience -= max(delay, LEAST_PATIENCE)
            await self._pause(delay)

    async def _once(self, call: Call) -> dict[str, Any]:
        told, _ = await self._once_with_headers(call)
        return told

    async def _once_with_headers(self, call: Call) -> tuple[dict[str, Any], httpx2.Headers]:
        response = await self._sent(call)
        try:
            content = await response.aread()
        except httpx2.RequestError as broken:
            raise failure_of(broken, self._base_url) from broken
        finally:
            await response.aclose()
        told = read_json(content)
        if not isinstance(told, dict):
            shown = {"code": "unexpected_answer", "message": "The response is not JSON. Is this a buntime server?"}
            raise error_of(shown, response.status_code, response.headers.get("x-request-id"))
        return told, response.headers

    async def _sent(self, call: Call) -> httpx2.Response:
        """Returns a successful response without its body."""
        try:
            response = await self._http.send(self._request(call), stream=True)
            self._note_rate(response.headers)
            if response.is_success:
                return response
            try:
                content = await response.aread()
            finally:
                await response.aclose()
        except httpx2.RequestError as broken:
            raise failure_of(broken, self._base_url) from broken
        raise refusal_in(response, content, url=self._base_url)

    def _request(self, call: Call) -> httpx2.Request:
        headers = {**self._headers, **(call.headers or {})}
        if call.key is not None:
            require_key(call.key)
            headers["Idempotency-Key"] = call.key
        content: AsyncIterator[bytes] | bytes | None = call.body() if call.body is not None else None
        if call.json is not None:
            headers["Content-Type"] = "application/json"
            content = json.dumps(call.json if call.nulls else without_none(call.json)).encode()
        silence = min(self.timeout + call.waits, max(call.deadline.left, LEAST_SILENCE))
        return self._http.build_request(
            call.method,
            self._base_url + call.path,
            params=_query(call.query) if call.query else None,
            content=content,
            headers=headers,
            timeout=httpx2.Timeout(silence, connect=min(CONNECT_SECONDS, self.timeout, silence), pool=None),
        )

    def _note_rate(self, headers: httpx2.Headers) -> None:
        try:
            limit, remaining, reset = (int(headers[f"x-ratelimit-{name}"]) for name in ("limit", "remaining", "reset"))
        except (KeyError, ValueError):
            return
        self.rate_limit = RateLimit(limit, remaining, reset)


async def _events(response: httpx2.Response, url: str, deadline: Deadline) -> AsyncGenerator[ServerEvent]:
    parser = EventParser()
    try:
        async with aclosing(async_parts_until(response, deadline)) as parts:
            async for part in parts:
                for event in parser.feed(part):
                    if event.name == "error":
                        raise error_of(event.told, None, response.headers.get("x-request-id"))
                    yield event
    except httpx2.RequestError as broken:
        raise failure_of(broken, url) from broken


def broken_stream() -> ConnectionFailed:
    """The error for a stream that ended without its last event."""
    return ConnectionFailed("The stream ended before its last event: the connection broke.", begun=True)


def key_or_new(key: str | None) -> str:
    """Returns the caller's idempotency key, or else a new one for this call, which makes it safe to retry."""
    return secrets.token_hex(16) if key is None else key


def without_none(fields: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}


def _query(query: Mapping[str, object]) -> dict[str, str]:
    said = {True: "true", False: "false"}
    return {
        name: said[value] if isinstance(value, bool) else str(value)
        for name, value in query.items()
        if value is not None
    }
