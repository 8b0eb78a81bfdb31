# Made by `generate` from ../_async/calls.py: change that.
"""Makes calls: adds the key, gives each its time, makes it again where that is safe, turns refusals into errors."""

import json
import random
import secrets
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx2
from buntime_sdk.dialing import Dial, Socket
from buntime_sdk.errors import BuntimeError, ConnectionFailed, InvalidRequest, RequestTimeout, error_of, seconds_of
from buntime_sdk.events import EventParser, ServerEvent
from buntime_sdk.retries import RetryRules, delay_before, may_have_begun
from buntime_sdk.shapes import RateLimit
from buntime_sdk.waiting import Pause, Plain, close_with

CONNECT_SECONDS = 10.0
LEAST_PATIENCE = 1.0  # seconds that one look at a call under way counts as
HEARTBEAT_SECONDS = 15.0  # the server fills the silence of a stream this often


@dataclass(frozen=True, slots=True)
class Call:
    """`repeatable`: carried out twice it does no harm; None: every method but POST, and what has a key.

    `json`: what is None in it is left out, unless `nulls`. `body`: makes the content anew for each attempt. `waits`:
    seconds that the server may be silent on top of the client's own time-out, since a program runs. `is_retried`: not
    where the caller does that itself.
    """

    method: str
    path: str
    query: Mapping[str, object] | None = None
    json: Mapping[str, object] | None = None
    body: Callable[[], Iterator[bytes] | bytes] | None = None
    headers: Mapping[str, str] | None = None
    key: str | None = None
    repeatable: bool | None = None
    waits: float = 0.0
    nulls: bool = False
    is_retried: bool = True


class Calls:
    def __init__(
        self,
        http: httpx2.Client,
        dial: Dial,
        base_url: str,
        headers: Mapping[str, str],
        *,
        timeout: float,
        rules: RetryRules,
        on_retry: Callable[[BuntimeError, int, float], object] | None,
        pause: Pause,
    ) -> None:
        self._http = http
        close_with(self, http.close)
        self._dial = dial
        self._base_url = base_url
        self._headers = headers
        self._timeout = timeout
        self._rules = rules
        self._on_retry = on_retry
        self._pause = pause
        self.rate_limit: RateLimit | None = None

    def close(self) -> None:
        self._http.close()

    def json(self, call: Call) -> dict[str, Any]:
        """The answer's JSON object."""
        return self._repeated(call, lambda: self._once(call))

    def gone(self, call: Call, absent: str) -> None:
        """A deletion. One that is made again, since its answer was lost, may find nothing left: then it is done."""
        begun = False

        def once() -> None:
            nonlocal begun
            try:
                self._once(call)
            except BuntimeError as failure:
                if begun and failure.code == absent:
                    return
                begun = begun or may_have_begun(failure)
                raise

        self._repeated(call, once)

    @contextmanager
    def answer(self, call: Call) -> Iterator[httpx2.Response]:
        """An answer whose body is still to come. Leaving the block ends the connection where it has not all come."""
        response = self._repeated(call, lambda: self._sent(call))
        try:
            yield response
        except httpx2.RequestError as broken:
            raise _failed(broken) from broken
        finally:
            response.close()

    @contextmanager
    def events(self, call: Call) -> Iterator[Generator[ServerEvent]]:
        """Server-Sent Events as they come, to the end of the answer. An `error` event is raised."""
        with self.answer(replace(call, waits=call.waits + HEARTBEAT_SECONDS)) as response:
            yield _events(response)

    def socket(self, path: str, query: Mapping[str, object], *, repeatable: bool) -> Socket:
        """A WebSocket."""
        call = Call("GET", path, query, repeatable=repeatable)
        url = str(httpx2.URL(self._base_url + path, params=_query(query)))
        return self._repeated(call, lambda: self._dial(url, self._headers, self._timeout))

    def delay_before(self, failure: BuntimeError, attempt: int, *, repeatable: bool = True) -> float | None:
        """Seconds before the next attempt of a call that failed; None where there is to be none."""
        chance = random.random()
        delay = delay_before(failure, attempt, self._rules, repeatable=repeatable, random=chance)
        if delay is not None and self._on_retry is not None:
            self._on_retry(failure, attempt, delay)
        return delay

    def wait(self, seconds: float) -> None:
        self._pause(seconds)

    def _repeated[T](self, call: Call, once: Callable[[], Plain[T]]) -> T:
        repeatable = call.repeatable
        if repeatable is None:
            repeatable = call.method != "POST" or call.key is not None
        attempt = 0
        patience = self._timeout + call.waits
        while True:
            try:
                return once()
            except BuntimeError as failure:
                is_under_way = failure.code == "idempotency_in_progress" and patience > 0
                attempt = max(attempt, 1) if is_under_way else attempt + 1
                delay = self.delay_before(failure, attempt, repeatable=repeatable) if call.is_retried else None
                if delay is None:
                    raise
                if is_under_way:  # it is waited for as long as its own answer would have been
                    patience -= max(delay, LEAST_PATIENCE)
            self._pause(delay)

    def _once(self, call: Call) -> dict[str, Any]:
        response = self._sent(call)
        try:
            content = response.read()
        except httpx2.RequestError as broken:
            raise _failed(broken) from broken
        finally:
            response.close()
        told = _read_json(content)
        if not isinstance(told, dict):
            shown = {"code": "unexpected_answer", "message": "The answer is not JSON: is this a buntime server?"}
            raise error_of(shown, response.status_code, response.headers.get("x-request-id"))
        return told

    def _sent(self, call: Call) -> httpx2.Response:
        """An answer that is no refusal, without its body."""
        try:
            response = self._http.send(self._request(call), stream=True)
            self._note_rate(response.headers)
            if response.is_success:
                return response
            try:
                content = response.read()
            finally:
                response.close()
        except httpx2.RequestError as broken:
            raise _failed(broken) from broken
        except httpx2.InvalidURL as wrong:
            raise ConnectionFailed(f"{self._base_url} is no URL: {wrong}", begun=False) from wrong
        raise _refusal(response, content)

    def _request(self, call: Call) -> httpx2.Request:
        headers = {**self._headers, **(call.headers or {})}
        if call.key is not None:
            if not is_visible(call.key):
                message = "An idempotency key is 1 to 255 visible ASCII characters."
                raise InvalidRequest(message, code="invalid_request", details={"field": "Idempotency-Key"})
            headers["Idempotency-Key"] = call.key
        content: Iterator[bytes] | bytes | None = call.body() if call.body is not None else None
        if call.json is not None:
            headers["Content-Type"] = "application/json"
            content = json.dumps(call.json if call.nulls else without_none(call.json)).encode()
        silence = self._timeout + call.waits
        return self._http.build_request(
            call.method,
            self._base_url + call.path,
            params=_query(call.query) if call.query else None,
            content=content,
            headers=headers,
            timeout=httpx2.Timeout(silence, connect=min(CONNECT_SECONDS, self._timeout), pool=None),
        )

    def _note_rate(self, headers: httpx2.Headers) -> None:
        try:
            limit, remaining, reset = (int(headers[f"x-ratelimit-{name}"]) for name in ("limit", "remaining", "reset"))
        except (KeyError, ValueError):
            return
        self.rate_limit = RateLimit(limit, remaining, reset)


def _events(response: httpx2.Response) -> Generator[ServerEvent]:
    parser = EventParser()
    try:
        for part in response.iter_bytes():
            for event in parser.feed(part):
                if event.name == "error":
                    raise error_of(event.told, None, response.headers.get("x-request-id"))
                yield event
    except httpx2.RequestError as broken:
        raise _failed(broken) from broken


def broken_stream() -> ConnectionFailed:
    """A stream that ended without its last event."""
    return ConnectionFailed("The stream ended before its last event: the connection broke.", begun=True)


def new_key() -> str:
    """For one call that may then be repeated."""
    return secrets.token_hex(16)


def is_visible(value: str) -> bool:
    """Whether it can stand in a header as it is: anything else would be told in an error, with what it is."""
    return value.isascii() and value.isprintable() and " " not in value and 0 < len(value) <= 255


def without_none(fields: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}


def _query(query: Mapping[str, object]) -> dict[str, str]:
    said = {True: "true", False: "false"}
    return {
        name: said[value] if isinstance(value, bool) else str(value)
        for name, value in query.items()
        if value is not None
    }


def _failed(broken: httpx2.RequestError) -> BuntimeError:
    if isinstance(broken, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.UnsupportedProtocol):
        return ConnectionFailed(f"No connection to the server: {broken or type(broken).__name__}", begun=False)
    if isinstance(broken, httpx2.TimeoutException):
        return RequestTimeout("The answer, or the next part of it, did not come in time.")
    return ConnectionFailed(f"The connection broke: {broken or type(broken).__name__}", begun=True)


def _refusal(response: httpx2.Response, content: bytes) -> BuntimeError:
    told = _read_json(content)
    shown = told.get("error") if isinstance(told, dict) else None
    after = seconds_of(response.headers.get("retry-after"))
    return error_of(shown, response.status_code, response.headers.get("x-request-id"), after)


def _read_json(content: bytes) -> object:
    try:
        return json.loads(content)
    except ValueError:
        return None
