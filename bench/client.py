"""A cheap client of the API: on a small machine the client's own work is part of every figure."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

import aiohttp
import msgspec

from bench.connections import TIMEOUT_SECONDS, Connections

NONE: Mapping[str, str] = MappingProxyType({})


class Refused(Exception):
    """A response other than 200."""

    def __init__(self, path: str, status: int, body: bytes, retry_after: int | None = None) -> None:
        super().__init__(f"{path}: {status}: {body[:300].decode(errors='replace')}")
        self.status = status
        self.retry_after = retry_after  # seconds


class Client:
    """Keeps its connections alive. One caller at a time uses one connection."""

    def __init__(self, url: str, key: str, metrics: Path) -> None:
        """`metrics`: the socket on which the server serves its metrics."""
        self._url = url
        self._metrics = metrics
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._connections = Connections(url)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connections.close()

    def reconnect(self) -> None:
        """Forgets the connections to a host that has lost its power."""
        self._connections.close()

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> bytes:
        return await self._ask("GET", path, None, query)

    async def read(self, path: str) -> dict[str, Any]:
        """Returns the response's JSON."""
        answer: dict[str, Any] = msgspec.json.decode(await self.get(path))
        return answer

    async def post(self, path: str, body: bytes | None, headers: Mapping[str, str] = NONE) -> bytes:
        return await self._ask("POST", path, body, None, headers)

    async def ask(self, path: str, /, **fields: Any) -> dict[str, Any]:
        """Posts these fields and returns the response."""
        answer: dict[str, Any] = msgspec.json.decode(await self.post(path, msgspec.json.encode(fields)))
        return answer

    async def healthz(self) -> None:
        await self.get("/healthz")

    async def create(self, **fields: Any) -> str:
        """Creates a session, with all defaults unless `fields` say otherwise, and returns its id."""
        return str((await self.create_with(fields))["sessionId"])

    async def create_once(self, key: str) -> str:
        """Creates a session, however often it is called with this idempotency key, and returns its id."""
        return str((await self.create_with({}, {"Idempotency-Key": key}))["sessionId"])

    async def create_with(self, fields: Mapping[str, Any], headers: Mapping[str, str] = NONE) -> dict[str, Any]:
        """Creates a session with these fields and returns the response."""
        body = msgspec.json.encode(fields) if fields else None
        answer: dict[str, Any] = msgspec.json.decode(await self.post("/sessions/create", body, headers))
        return answer

    async def delete(self, session: str) -> None:
        await self._ask("DELETE", f"/sessions/{session}", None, None)

    async def execute(self, session: str, *, headers: Mapping[str, str] = NONE, **what: Any) -> dict[str, Any]:
        """`what`: `code` or `command`, and other fields. Raises Refused, even for a run that failed."""
        body = msgspec.json.encode({"sessionId": session, **what})
        answer: dict[str, Any] = msgspec.json.decode(await self.post("/execute", body, headers))
        if answer["exitCode"] != 0:
            raise Refused("/execute", 200, str(answer).encode())
        return answer

    @asynccontextmanager
    async def streamed(self, session: str, **what: Any) -> AsyncIterator[aiohttp.StreamReader]:
        """Yields an execute's events as they arrive. Leaving the block ends a run that is still running."""
        body = msgspec.json.encode({"sessionId": session, "stream": True, **what})
        asked = aiohttp.request(
            "POST",
            self._url + "/execute",
            data=body,
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS),
        )
        async with asked as answer:
            if answer.status != 200:
                raise Refused("/execute", answer.status, await answer.read())
            yield answer.content

    async def sleep(self, session: str, depth: str) -> None:
        """Puts the session to sleep. `depth`: `idle` or `deep-sleep`."""
        await self.post(f"/sessions/{session}/sleep", msgspec.json.encode({"depth": depth}))

    async def wake(self, session: str) -> None:
        await self.post(f"/sessions/{session}/wake", None)

    async def snapshot(self, session: str) -> str:
        """Takes a snapshot of the session and returns its id."""
        return str((await self.ask(f"/sessions/{session}/snapshots"))["snapshotId"])

    async def delete_snapshot(self, snapshot: str) -> None:
        await self._ask("DELETE", f"/snapshots/{snapshot}", None, None)

    async def restore(self, session: str, snapshot: str) -> None:
        await self.ask(f"/sessions/{session}/restore", snapshotId=snapshot)

    async def fork(self, session: str, count: int) -> list[str]:
        """Returns the ids of the new sessions. Raises Refused if any of them could not be made."""
        path = f"/sessions/{session}/fork"
        made = (await self.ask(path, count=count))["sessions"]
        refused = [each["error"] for each in made if "error" in each]
        if refused:
            raise Refused(path, 200, f"{len(refused)} of {count}: {refused[0]}".encode())
        return [str(each["session"]["sessionId"]) for each in made]

    async def make_image(self, name: str, session: str) -> None:
        """Makes an image of the session's files."""
        await self.ask("/images/create", name=name, sessionId=session)

    async def delete_image(self, name: str) -> None:
        await self._ask("DELETE", f"/images/{name}", None, None)

    async def count(self, state: str) -> int:
        """Returns the number of sessions in this state."""
        page = msgspec.json.decode(await self.get("/sessions", {"state": state, "limit": "1"}))
        return int(page["total"])

    async def gauge(self, name: str) -> int:
        """Returns a metric that is a whole number. A name with labels is as the page has it."""
        return int(await self.number(name))

    async def number(self, name: str) -> float:
        """Returns any metric."""
        connector = aiohttp.UnixConnector(str(self._metrics))
        async with aiohttp.ClientSession(connector=connector) as http, http.get("http://metrics/metrics") as answer:
            text = await answer.text()
        for line in text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
        raise Refused("/metrics", 200, f"there is no {name}".encode())

    async def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str] = NONE,
    ) -> bytes:
        answer = await self._connections.ask(method, path, query, {**self._headers, **headers}, body)
        if answer.status != 200:
            wait = answer.headers.get("retry-after")
            raise Refused(path, answer.status, answer.body, int(wait) if wait else None)
        return answer.body
