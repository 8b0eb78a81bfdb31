"""Sends requests to the programs of sessions, by way of the server's address."""

import random
import time
from collections.abc import Callable

import httpx2

from buntime_sdk.bodies import async_whole_until
from buntime_sdk.errors import BuntimeError, Unauthorized
from buntime_sdk.failures import failure_of, is_late, refusal_in
from buntime_sdk.previews import (
    ERROR_HEADER,
    FRESH_SECONDS,
    MOST_TOKENS,
    TOKEN_HEADER,
    Visit,
    delay_before_visit,
    no_cookies,
)
from buntime_sdk.retries import RetryRules
from buntime_sdk.waiting import AsyncPause, Eventual, async_close_with

CONNECT_SECONDS = 10.0
LEAST_SECONDS = 0.001  # the HTTP client takes no 0


class AsyncPreviews:
    """Visits previews. It has connections of its own, which never carry the API key."""

    def __init__(
        self,
        client: Callable[..., httpx2.AsyncClient],
        base_url: str,
        *,
        rules: RetryRules,
        on_retry: Callable[[BuntimeError, int, float], object] | None,
        pause: AsyncPause,
    ) -> None:
        """`client`: makes the HTTP client, when the first preview is visited."""
        self._client = client
        self._base_url = base_url
        self._rules = rules
        self._on_retry = on_retry
        self._pause = pause
        self._http: httpx2.AsyncClient | None = None
        self._tokens: dict[str, tuple[str, float]] = {}  # session → token, and until when it is used

    async def close(self) -> None:
        if self._http is not None:
            await self._http.aclose()

    async def fetch(
        self, session_id: str, visit: Visit, new_token: Callable[[], Eventual[str]], *, needs_token: bool
    ) -> httpx2.Response:
        """Returns the program's response. `needs_token`: as far as the client knows; the server's word counts."""
        began, waited, attempt, is_renewed = time.monotonic(), 0.0, 0, False
        while True:
            try:
                token = self._token(session_id)
                if token is None and needs_token:
                    token = self._kept(session_id, await new_token())
                return await self._sent(visit, token)
            except Unauthorized:
                if is_renewed or not visit.is_repeatable:
                    raise
                self._tokens.pop(session_id, None)
                needs_token = is_renewed = True
            except BuntimeError as failure:
                attempt += 1
                waited = max(waited, time.monotonic() - began)  # a pause may be shorter than asked, as in the fake
                delay = self._delay_before(failure, attempt, visit, waited)
                if delay is None:
                    raise
                waited += delay
                await self._pause(delay)

    async def _sent(self, visit: Visit, token: str | None) -> httpx2.Response:
        """Raises what the server refuses. A program's own response is never an error."""
        if self._http is None:
            self._http = self._client(cookies=no_cookies())
            async_close_with(self, self._http.aclose)
        try:
            response = await self._http.send(self._request(self._http, visit, token), stream=True)
            response.request = httpx2.Request(visit.method, visit.url)  # the one that the caller knows
            if visit.stream and ERROR_HEADER not in response.headers:
                return response
            try:
                content = await async_whole_until(response, visit.deadline)
            finally:
                await response.aclose()
        except httpx2.RequestError as broken:
            raise visit.late() if is_late(broken) else failure_of(broken, self._base_url) from broken
        if ERROR_HEADER in response.headers:
            raise refusal_in(response, content, response.headers[ERROR_HEADER])
        return response

    def _request(self, http: httpx2.AsyncClient, visit: Visit, token: str | None) -> httpx2.Request:
        url, name = visit.through(self._base_url)
        left = max(visit.deadline.left, LEAST_SECONDS)
        headers = {**visit.headers, "Host": visit.url.netloc.decode()}
        if token is not None:
            headers[TOKEN_HEADER] = token
        return http.build_request(
            visit.method,
            url,
            headers=headers,
            content=visit.content,
            json=visit.json,
            timeout=httpx2.Timeout(left, connect=min(CONNECT_SECONDS, left), pool=None),
            extensions={} if name is None else {"sni_hostname": name},
        )

    def _delay_before(self, failure: BuntimeError, attempt: int, visit: Visit, waited: float) -> float | None:
        chance = random.random()
        delay = delay_before_visit(failure, attempt, self._rules, visit, waited=waited, random=chance)
        if delay is not None and self._on_retry is not None:
            self._on_retry(failure, attempt, delay)
        return delay

    def _token(self, session_id: str) -> str | None:
        token, fresh_until = self._tokens.get(session_id, ("", 0.0))
        return token if time.monotonic() < fresh_until else None

    def _kept(self, session_id: str, token: str) -> str:
        while len(self._tokens) >= MOST_TOKENS:
            del self._tokens[next(iter(self._tokens))]
        self._tokens[session_id] = token, time.monotonic() + FRESH_SECONDS
        return token
