"""Bodies of large files pass between the client and the guest. The guest is hostile: only its bytes pass."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from buntime.config import Config
from buntime.edge import nginx
from buntime.edge.refusals import REFUSALS, error
from tests.edge.rig import Message, Rig, edge, open_to_workers, read_message
from tests.edge.test_tls import DOMAIN, make_certificate
from tests.ports import free_port
from tests.waiting import eventually

TICKET = "0123456789abcdef" * 2
MB = 1 << 20
CONTENT = bytes(range(256)) * 12 * 1024  # 3 MB
TARGET = "/files/content?sessionId=ses_abcdefghij12345678&path=a%20b"
KEY = "Bearer btk_secret"
SECONDS = 20.0
SILENCE = 1  # seconds, in place of BODY_SILENCE
FINAL = (
    b'HTTP/1.1 409 Answer\r\ncontent-type: application/json\r\nx-ours: 1\r\ncontent-length: 12\r\n\r\n{"final": 1}',
    409,
)

type Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class ControlPlane:
    """Answers each question with a ticket. Notes the questions, and how the edge says that it went."""

    address: str = ""
    length: int | None = len(CONTENT)
    status: int = 200
    lines: Sequence[str] = ("content-type: application/octet-stream", "etag: ours", "x-ratelimit-remaining: 5")
    plain: bytes = b""  # an ordinary answer in place of a ticket
    final: bytes = FINAL[0]
    questions: list[Message] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    requests: list[Message] = field(default_factory=list)  # that came as they were sent

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        question = await read_message(reader, bodiless=True)
        assert question is not None
        self.questions.append(question)
        if self.plain:
            writer.write(self.plain)
        else:
            told = [f"x-body-address: {self.address}", f"x-body-ticket: {TICKET}"]
            told += [] if self.length is None else [f"x-body-length: {self.length}"]
            head = (f"HTTP/1.1 {self.status} OK", *self.lines, *told, "transfer-encoding: chunked", "", "")
            writer.write("\r\n".join(head).encode())
            self.heard.append(await self._end(reader, writer))
        writer.close()

    async def _end(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        said = await reader.read(1)
        if not said:
            return "left"
        how = "carried" if said == b"0" else "refused"
        if how == "refused" or self.questions[-1].line.startswith("PUT"):
            writer.write(b"%x\r\n%s\r\n" % (len(self.final), self.final))
        writer.write(b"0\r\n\r\n")
        with suppress(ConnectionError):
            await reader.read()
        return how

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await read_message(reader):
            self.requests.append(request)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain")

    async def ends(self, *heard: str) -> None:
        await eventually(lambda: self.heard == list(heard))


@pytest.fixture
async def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    monkeypatch.setattr(nginx, "BODY_SILENCE", SILENCE)
    async with edge(Config(data_dir=tmp_path, port=free_port())) as rig:
        yield rig


@pytest.fixture
async def plane(rig: Rig) -> AsyncIterator[ControlPlane]:
    plane = ControlPlane()
    async with listening(plane.answer, rig.config.edge_socket), listening(plane.take, rig.config.api_socket):
        yield plane


@asynccontextmanager
async def listening(serve: Serve, path: Path) -> AsyncIterator[None]:
    async def quietly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await serve(reader, writer)
        writer.close()

    server = await asyncio.start_unix_server(quietly, path, limit=1 << 22)
    open_to_workers(path)
    try:
        yield
    finally:
        server.close()
        server.close_clients()
        path.unlink(missing_ok=True)


class Guest:
    """Serves one connection after another. Notes heads and bodies."""

    def __init__(self, *answer: bytes, takes: int = 0, stays: bool = False) -> None:
        """`takes`: bytes of a body before it answers. `stays`: it does not close the connection."""
        self._answer = answer
        self._takes = takes
        self._stays = stays
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            self.bodies.append(await reader.readexactly(self._takes))
            for part in self._answer:
                writer.write(part)
                await writer.drain()
            if self._stays:
                await reader.read()
        writer.close()


async def open_to(rig: Rig, plane: ControlPlane, guest: Serve) -> None:
    server = await asyncio.start_server(guest, "127.0.0.2", 0, limit=1 << 22)
    rig.stack.append(server)
    plane.address = f"127.0.0.2:{server.sockets[0].getsockname()[1]}"


def ok(length: int = len(CONTENT), more: str = "") -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{more}\r\n".encode()


async def get(rig: Rig, method: str = "GET", **headers: str) -> Message:
    async with asyncio.timeout(SECONDS):
        return await rig.get(TARGET, "api", method, b"", Authorization=KEY, **headers)


async def put(rig: Rig, content: bytes = CONTENT, **headers: str) -> Message:
    async with asyncio.timeout(SECONDS):
        return await rig.get(TARGET, "api", "PUT", content, Authorization=KEY, **headers)


CONDITIONS = (
    ("If-None-Match", "*"),
    ("If-Match", '"theirs"'),
    ("If-Modified-Since", "Fri, 27 Nov 2026 08:00:00 GMT"),
    ("If-Unmodified-Since", "Fri, 27 Nov 2015 08:00:00 GMT"),
)
DATED = b'content-length: 2\r\netag: "ours"\r\nlast-modified: Fri, 27 Nov 2020 08:00:00 GMT\r\n\r\n{}'


# --- down ---


async def test_the_bytes_come_from_the_guest_and_the_headers_from_the_control_plane(
    rig: Rig, plane: ControlPlane
) -> None:
    theirs = "Set-Cookie: a=b\r\nETag: theirs\r\nX-Accel-Redirect: /x\r\nLocation: /y\r\nX_Evil: 1\r\n"
    guest = Guest(ok(more=theirs), CONTENT)
    await open_to(rig, plane, guest)
    plane.status = 206
    answer = await get(rig, Range="bytes=0-", Cookie="c=d", X_Body_Length="7", X_Request_Id="mine")
    assert (answer.status, answer.body) == (206, CONTENT)
    named = {name.lower(): value for name, value in answer.fields}
    assert named.pop("date")
    assert named == {
        "server": "nginx", "connection": "close", "content-length": str(len(CONTENT)), "etag": "ours",
        "content-type": "application/octet-stream", "x-ratelimit-remaining": "5",
    }  # fmt: skip
    await plane.ends("carried")
    question = plane.questions[0]
    assert question.target == TARGET
    assert question.all("Authorization") == [KEY]
    assert question.all("Range") == ["bytes=0-"]
    assert question.all("X-Body-Length") == []
    assert question.all("X-Request-Id") == ["mine"]
    assert question.all("X-Forwarded-For") == ["127.0.0.1"]
    lines = guest.heads[0].decode().split("\r\n")
    assert lines[0] == f"GET /{TICKET} HTTP/1.1"
    assert {line.partition(":")[0] for line in lines[1:] if line} == {"Host", "Connection"}


UNSOUND = {
    "another length": (ok(5), b"12345"),
    "no length": (b"HTTP/1.1 200 OK\r\n\r\n", CONTENT),
    "chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",),
    "no HTTP": (b"noise\r\n\r\n",),
    "a redirect": (b"HTTP/1.1 302 Found\r\nLocation: http://x/\r\nContent-Length: %d\r\n\r\n" % len(CONTENT), CONTENT),
    "an interim answer": (b"HTTP/1.1 103 Hints\r\nLink: </x>\r\n\r\n", ok(), CONTENT),
    "another protocol": (b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", CONTENT),
    "a long header": (b"HTTP/1.1 200 OK\r\nX: " + bytes(MB).replace(b"\0", b"x"),),
    "a type": (ok(more="Content-Type: a/b; charset=x, text/html\r\n"), CONTENT),
    "two lengths": (ok(more="Content-Length: 5\r\n"), CONTENT),
    "an error": (b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",),
    "nothing": (),
}


@pytest.mark.parametrize("what", UNSOUND)
async def test_an_unsound_answer_of_the_guest_is_an_error_of_ours(rig: Rig, plane: ControlPlane, what: str) -> None:
    await open_to(rig, plane, Guest(*UNSOUND[what]))
    answer = await get(rig)
    assert (answer.status, json.loads(answer.body)) in (
        (FINAL[1], {"final": 1}),
        (503, json.loads(error(REFUSALS[503], 0))),
    )
    assert answer.header("Content-Type") == "application/json"
    assert not answer.all("Link")
    assert not answer.all("Location")
    await eventually(lambda: plane.heard in (["refused"], ["left"]))


async def test_a_guest_that_is_not_there_is_an_answer_of_the_control_plane(rig: Rig, plane: ControlPlane) -> None:
    plane.address = f"127.0.0.2:{free_port()}"
    answer = await get(rig)
    assert (answer.status, answer.body, answer.header("x-ours")) == (FINAL[1], b'{"final": 1}', "1")
    await plane.ends("refused")


@pytest.mark.parametrize("sent", [b"", ok(), ok() + CONTENT[:5]], ids=["nothing", "a head", "the beginning"])
async def test_a_silent_guest_ends_the_request(rig: Rig, plane: ControlPlane, sent: bytes) -> None:
    await open_to(rig, plane, Guest(sent, stays=True))
    if sent:
        reader, writer = await _begin(rig)
        async with asyncio.timeout(SECONDS):
            received = await reader.read()
        assert len(received.partition(b"\r\n\r\n")[2]) == max(len(sent) - len(ok()), 0)
        writer.close()
        await plane.ends("left")
    else:
        assert (await get(rig)).status == FINAL[1]
        await plane.ends("refused")


async def _begin(rig: Rig, method: str = "GET", more: str = "") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await rig.connect()
    writer.write(f"{method} {TARGET} HTTP/1.1\r\nHost: api\r\nAuthorization: {KEY}\r\n{more}\r\n".encode())
    return reader, writer


async def test_more_than_announced_is_not_passed_on(rig: Rig, plane: ControlPlane) -> None:
    await open_to(rig, plane, Guest(ok(), CONTENT, b"more" * MB))
    reader, writer = await _begin(rig)
    async with asyncio.timeout(SECONDS):
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(len(CONTENT)) == CONTENT
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                assert await reader.read(1) == b""
    writer.close()


async def test_less_than_announced_breaks_the_connection(rig: Rig, plane: ControlPlane) -> None:
    await open_to(rig, plane, Guest(ok(), CONTENT[:-1]))
    reader, writer = await _begin(rig)
    async with asyncio.timeout(SECONDS):
        received = await reader.read()
    assert received.partition(b"\r\n\r\n")[2] == CONTENT[:-1]
    writer.close()
    await plane.ends("left")


@pytest.mark.parametrize("is_whole", [True, False])
async def test_a_body_of_unknown_length_ends_with_its_last_chunk(rig: Rig, plane: ControlPlane, is_whole: bool) -> None:
    plane.length = None
    chunks = b"%x\r\n%s\r\n" % (len(CONTENT), CONTENT)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\nX-Theirs: 1\r\n\r\n"
    await open_to(rig, plane, Guest(head, chunks, b"0\r\n\r\n" if is_whole else b""))
    reader, writer = await _begin(rig, more="Connection: close\r\n")
    async with asyncio.timeout(SECONDS):
        received = await reader.read()
    writer.close()
    assert b"heirs" not in received
    assert received.endswith(b"0\r\n\r\n") == is_whole
    assert (CONTENT[-100:] in received) or not is_whole
    await eventually(lambda: plane.heard in (["carried"], ["left"] if not is_whole else ["carried"]))


async def test_a_client_that_leaves_ends_the_question(rig: Rig, plane: ControlPlane) -> None:
    plane.length = 1 << 40
    await open_to(rig, plane, Guest(ok(1 << 40), *([bytes(MB)] * 100), stays=True))
    reader, writer = await _begin(rig)
    assert (await reader.read(100)).startswith(b"HTTP/1.1 200")
    writer.close()
    await plane.ends("left")


async def test_an_ordinary_answer_is_passed_on(rig: Rig, plane: ControlPlane) -> None:
    plane.plain = b"HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: 2\r\nx-a: b\r\n\r\n{}"
    answer = await get(rig)
    assert (answer.status, answer.body, answer.header("x-a")) == (404, b"{}", "b")
    plane.plain = b'HTTP/1.1 304 Not Modified\r\netag: "x"\r\n\r\n'
    head = await rig.send(f"HEAD {TARGET} HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n".encode())
    assert head is not None
    assert head.status == 200  # by the API's socket
    reader, writer = await _begin(rig, more="Connection: close\r\n")
    async with asyncio.timeout(SECONDS):
        known = await reader.read()
    assert known.startswith(b"HTTP/1.1 304 ")
    assert b'etag: "x"' in known
    assert b"ontent-" not in known
    writer.close()


@pytest.mark.parametrize(("name", "value"), CONDITIONS)
async def test_the_control_plane_judges_conditions_alone(rig: Rig, plane: ControlPlane, name: str, value: str) -> None:
    plane.plain = b"HTTP/1.1 200 OK\r\n" + DATED
    answer = await get(rig, **{name.replace("-", "_"): value})
    assert (answer.status, answer.body) == (200, b"{}")
    assert plane.questions[0].all(name) == [value]


@pytest.mark.parametrize(
    "target", ["//files/content?a=b", "/x/../files/content", "/files/%63ontent", "/files/content%0A"]
)
async def test_only_the_path_itself_is_asked_about(rig: Rig, plane: ControlPlane, target: str) -> None:
    async with asyncio.timeout(SECONDS):
        answer = await rig.get(target, "api", "GET", b"", Authorization=KEY)
    assert (answer.body, plane.questions) == (b"plain", [])
    assert plane.requests[0].target == target


# --- up ---


@pytest.mark.parametrize(("name", "value"), CONDITIONS)
async def test_an_upload_that_succeeded_is_not_refused_by_a_condition(
    rig: Rig, plane: ControlPlane, name: str, value: str
) -> None:
    plane.final = b"HTTP/1.1 200 Answer\r\n" + DATED
    guest = Guest(b"HTTP/1.1 502 Ask\r\nContent-Length: 0\r\n\r\n", takes=len(CONTENT))
    await open_to(rig, plane, guest)
    answer = await put(rig, CONTENT, **{name.replace("-", "_"): value})
    assert (answer.status, answer.body) == (200, b"{}")


async def test_an_upload_reaches_the_guest_and_the_control_plane_answers(rig: Rig, plane: ControlPlane) -> None:
    guest = Guest(b"HTTP/1.1 502 Ask\r\nContent-Length: 0\r\n\r\n", takes=len(CONTENT))
    await open_to(rig, plane, guest)
    answer = await put(rig)
    assert (answer.status, answer.body, answer.header("x-ours")) == (FINAL[1], b'{"final": 1}', "1")
    assert guest.bodies == [CONTENT]
    lines = guest.heads[0].decode().split("\r\n")
    assert lines[0] == f"PUT /{TICKET} HTTP/1.1"
    assert {line.partition(":")[0] for line in lines[1:] if line} == {"Host", "Connection", "Content-Length"}
    assert plane.questions[0].all("X-Body-Length") == [str(len(CONTENT))]
    await plane.ends("carried")


@pytest.mark.parametrize("takes", [0, 5, len(CONTENT)])
@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"noise\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Theirs: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 507 Full\r\n\r\n",
    ],
    ids=["nothing", "noise", "a lie", "full"],
)
async def test_the_guest_never_answers_an_upload(rig: Rig, plane: ControlPlane, takes: int, said: bytes) -> None:
    await open_to(rig, plane, Guest(said, takes=takes))
    reader, writer = await _begin(rig, "PUT", f"Content-Length: {len(CONTENT)}\r\n")
    writer.write(CONTENT)
    async with asyncio.timeout(SECONDS):
        answer = await read_message(reader)
    writer.close()
    assert answer is not None
    assert answer.status in (FINAL[1], 503)
    assert not answer.all("X-Theirs")
    await eventually(lambda: plane.heard in (["carried"], ["left"]))


async def test_an_upload_that_breaks_off_ends_the_question(rig: Rig, plane: ControlPlane) -> None:
    await open_to(rig, plane, Guest(takes=len(CONTENT)))
    _, writer = await _begin(rig, "PUT", f"Content-Length: {len(CONTENT)}\r\n")
    writer.write(CONTENT[:MB])
    await eventually(lambda: len(plane.questions) == 1)
    await asyncio.sleep(0.2)
    writer.close()
    await plane.ends("left")


async def test_what_the_edge_does_not_carry_goes_to_the_control_plane(rig: Rig, plane: ControlPlane) -> None:
    small = await put(rig, bytes(MB - 1))
    assert (small.status, small.body) == (200, b"plain")
    reader, writer = await _begin(rig, "PUT", "Transfer-Encoding: chunked\r\nConnection: close\r\n")
    writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(CONTENT), CONTENT))
    async with asyncio.timeout(SECONDS):
        assert (await reader.read()).endswith(b"plain")
    writer.close()
    assert (await get(rig, "POST")).body == b"plain"
    plane.plain = b"HTTP/1.1 200 OK\r\nx-body-back: 1\r\ncontent-length: 0\r\n\r\n"
    assert plane.questions == []
    assert (await put(rig)).body == b"plain"
    assert [len(request.body) for request in plane.requests] == [MB - 1, len(CONTENT), 0, len(CONTENT)]


# --- HTTP/2 ---


async def test_http_2_works_in_both_directions(tmp_path: Path) -> None:
    cert, key, sent = tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "sent"
    make_certificate(cert, key)
    sent.write_bytes(CONTENT)
    config = Config(data_dir=tmp_path, port=free_port(), domain=DOMAIN, tls_cert=cert, tls_key=key)
    plane, guest = ControlPlane(), Guest(b"HTTP/1.1 502 Ask\r\n\r\n", takes=len(CONTENT))
    way = ["--http2", "--resolve", f"{DOMAIN}:{config.port}:127.0.0.1", "--cacert", str(cert)]

    async def curl(*more: str) -> tuple[str, bytes]:
        process = await asyncio.create_subprocess_exec(
            *("curl", "-sS", "-w", "%{stderr}%{http_code} %{http_version}", *way, *more),
            f"https://{DOMAIN}:{config.port}{TARGET}",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        content, said = await process.communicate()
        return said.decode(), content

    async with (
        asyncio.timeout(SECONDS),
        edge(config) as rig,
        listening(plane.answer, config.edge_socket),
        listening(plane.take, config.api_socket),
    ):
        await open_to(rig, plane, guest)
        assert await curl("-T", str(sent)) == (f"{FINAL[1]} 2", b'{"final": 1}')
        assert guest.bodies == [CONTENT]
        await open_to(rig, plane, Guest(ok(), CONTENT))
        assert await curl() == ("200 2", CONTENT)
        await open_to(rig, plane, Guest(ok(), CONTENT[:-1]))
        said, content = await curl()
        assert "curl: (" in said
        assert content != CONTENT
        await plane.ends("carried", "carried", "left")


async def test_a_key_that_is_not_valid_any_more_counts_for_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nginx, "REQUESTS_OF_ADDRESS", 1)
    monkeypatch.setattr(nginx, "REQUESTS_AT_ONCE", 4)
    plane = ControlPlane()
    async with (
        edge(Config(data_dir=tmp_path, port=free_port())) as rig,
        listening(plane.answer, rig.config.edge_socket),
    ):
        plane.plain = b"HTTP/1.1 200 OK\r\nx-ratelimit-remaining: 5\r\ncontent-length: 2\r\n\r\n{}"
        assert {(await get(rig)).status for _ in range(10)} == {200}
        plane.plain = b"HTTP/1.1 401 No\r\ncontent-length: 2\r\n\r\n{}"
        assert {(await get(rig)).status for _ in range(10)} == {401, 429}
