"""The edge asks with a file's request and carries the body itself. The request ends when the edge says so."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import msgspec
import pytest

from buntime.plan import MB
from tests.app.serving import Api
from tests.waiting import eventually

CONTENT = bytes(range(256)) * 4096  # 1 MB
SECONDS = 10.0


@dataclass
class Question:
    """A question of the edge that is open."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def ticket(self) -> str:
        return self.headers["x-body-ticket"]

    async def head(self) -> None:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        self.status = int(lines[0].split()[1])
        self.headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)

    async def body(self) -> bytes:
        return await self.reader.readexactly(int(self.headers["content-length"]))

    async def end(self, said: bytes = b"0\r\n\r\n") -> "Question | None":
        """Says how it went. Returns the final answer if there is one."""
        self.writer.write(said)
        if int(await self.reader.readline(), 16) == 0:
            return None
        final = Question(self.reader, self.writer)
        await final.head()
        return final


REFUSED = b"1\r\n-\r\n0\r\n\r\n"


@asynccontextmanager
async def asked(
    api: Api, method: str, session: str, path: str = "f", what: str = "content", **headers: str
) -> AsyncIterator[Question]:
    place = urlsplit(api.edge_url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    sent = {"Authorization": f"Bearer {api.key}", "X-Request-Id": "mine", **headers, "Transfer-Encoding": "chunked"}
    lines = [f"{method} /files/{what}?sessionId={session}&path={path} HTTP/1.1", "Host: edge"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in sent.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    question = Question(reader, writer)
    try:
        async with asyncio.timeout(SECONDS):
            await question.head()
            yield question
    finally:
        writer.close()


async def stored(api: Api, session: str, content: bytes = CONTENT) -> None:
    target = f"/files/content?sessionId={session}&path=f"
    assert (await api.call("PUT", target, content, Content_Type="x/y")).status == 200


async def files_of(api: Api, session: str) -> dict[str, bytes]:
    answer = await api.call("GET", f"/files/list?sessionId={session}")
    names = [entry["path"] for entry in answer.json["files"]]
    return {n: (await api.call("GET", f"/files/content?sessionId={session}&path={n}")).body for n in names}


def carried(api: Api) -> dict[str, bytes]:
    """By ticket, what the edge has brought."""
    [sandbox] = api.sandboxes.running.values()
    return sandbox.files.carried


def is_held(api: Api, session: str) -> bool:
    return api.lifecycle.holds.in_use(session)


async def test_a_download_lasts_until_the_edge_has_carried_it(api: Api) -> None:
    session = await api.session()
    await stored(api, session)
    async with asked(api, "GET", session) as question:
        assert question.status == 200
        assert question.headers["x-body-address"] == "192.0.2.1:49"
        assert question.headers["x-body-length"] == str(len(CONTENT))
        assert re.fullmatch("[0-9a-f]{32}", question.ticket)
        assert question.headers["content-type"] == "application/octet-stream"
        assert "x-ratelimit-remaining" in question.headers
        assert "content-length" not in question.headers
        assert is_held(api, session)
        assert await question.end() is None
    await eventually(lambda: not is_held(api, session))


async def test_ranges_conditions_and_errors_are_as_without_the_edge(api: Api) -> None:
    session = await api.session()
    await stored(api, session)
    async with asked(api, "GET", session, Range="bytes=5-999999") as question:
        assert (question.status, question.headers["x-body-length"]) == (206, "999995")
        assert question.headers["content-range"] == f"bytes 5-999999/{len(CONTENT)}"
        etag = question.headers["etag"]
    async with asked(api, "GET", session, Range="bytes=5-8") as question:
        assert (question.status, await question.body()) == (206, CONTENT[5:9])
    async with asked(api, "GET", session, If_None_Match=etag) as question:
        assert question.status == 304
    async with asked(api, "GET", session, Range="bytes=9999999-") as question:
        assert (question.status, question.headers["content-range"]) == (416, f"bytes */{len(CONTENT)}")
    async with asked(api, "GET", session, "none") as question:
        assert question.status == 404
    async with asked(api, "GET", session, Authorization="Bearer btk_wrong") as question:
        assert question.status == 401
    async with asked(api, "PUT", session, X_Body_Length=str(2000 * MB)) as question:
        assert question.status == 507
        assert msgspec.json.decode(await question.body())["error"]["code"] == "disk_full"
    await eventually(lambda: not is_held(api, session))


async def test_a_client_that_leaves_ends_the_request(api: Api) -> None:
    session = await api.session()
    await stored(api, session)
    for method, length in (("GET", 0), ("PUT", 2 * MB)):
        async with asked(api, method, session, X_Body_Length=str(length)) as question:
            assert is_held(api, session)
            question.writer.close()
            await eventually(lambda: not is_held(api, session))
    assert await files_of(api, session) == {"f": CONTENT}


async def test_a_download_that_could_not_begin_is_unavailable(api: Api) -> None:
    session = await api.session()
    await stored(api, session)
    async with asked(api, "GET", session) as question:
        final = await question.end(REFUSED)
        assert final is not None
        assert final.status == 503
        assert final.headers["retry-after"] == "1"
        assert msgspec.json.decode(await final.body())["error"]["code"] == "unavailable"


async def test_an_upload_is_answered_when_the_edge_has_brought_it(api: Api) -> None:
    session = await api.session()
    async with asked(api, "PUT", session, X_Body_Length=str(len(CONTENT))) as question:
        assert question.headers["x-body-length"] == str(len(CONTENT))
        carried(api)[question.ticket] = CONTENT
        final = await question.end()
        assert final is not None
        assert (final.status, final.headers["x-request-id"]) == (200, "mine")
        assert msgspec.json.decode(await final.body()) == {"path": "f", "size": len(CONTENT)}
    assert await files_of(api, session) == {"f": CONTENT}


@pytest.mark.parametrize("said", [b"0\r\n\r\n", REFUSED])
async def test_an_upload_that_the_guest_did_not_get_leaves_the_old_file(api: Api, said: bytes) -> None:
    session = await api.session()
    await stored(api, session)
    async with asked(api, "PUT", session, X_Body_Length=str(2 * MB)) as question:
        carried(api)[question.ticket] = CONTENT
        final = await question.end(said)
        assert final is not None
        assert final.status == 409
    assert await files_of(api, session) == {"f": CONTENT}


async def test_archives_are_carried_in_both_directions(api: Api) -> None:
    session = await api.session()
    await stored(api, session)
    async with asked(api, "GET", session, ".", "archive") as question:
        assert (question.status, question.headers["content-type"]) == (200, "application/gzip")
        assert "x-body-length" not in question.headers
        packed = carried(api)[question.ticket]
        assert await question.end() is None
    async with asked(api, "PUT", session, "to", "archive", X_Body_Length=str(len(packed))) as question:
        carried(api)[question.ticket] = packed
        final = await question.end()
        assert final is not None
        assert msgspec.json.decode(await final.body()) == {"path": "to", "entries": 2}
    async with asked(api, "GET", session, "none", "archive") as question:
        assert question.status == 404
