"""Client, edge and session agree on the end and the host of each request and answer."""

import asyncio

import pytest

from tests.edge.rig import HOST, OK, FakeSession, Message, Reply, Rig, permit, read_message
from tests.ports import free_port

HEAD = f"POST / HTTP/1.1\r\nHost: {HOST}\r\n"
INNER = f"GET /smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n"


async def both(rig: Rig, request: str) -> tuple[list[str], list[int]]:
    """Sends these bytes. Returns the targets that the session sees and the statuses that the client sees."""
    session = FakeSession()
    await rig.open_to(session)
    reader, writer = await rig.connect()
    writer.write(request.encode("latin-1"))
    statuses = []
    try:
        async with asyncio.timeout(0.5):
            while answer := await read_message(reader):
                statuses.append(answer.status)
    except TimeoutError:
        pass
    writer.close()
    return [request.target for request in session.requests], statuses


@pytest.mark.parametrize(
    "fields",
    [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 99999999999999999999999\r\n",
        "Content-Length : 5\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding:\x0bchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "A: 1\r\n Transfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\n\tA: 1\r\n",
        "A: \x00\r\n",
        "A\x00: 1\r\n",
    ],
)
async def test_a_request_with_an_ambiguous_end_does_not_reach_the_session(rig: Rig, fields: str) -> None:
    targets, statuses = await both(rig, f"{HEAD}{fields}\r\n0\r\n\r\n{INNER}")
    assert "/smuggled" not in targets
    assert targets == []
    assert len(statuses) == 1
    assert 400 <= statuses[0] < 600


@pytest.mark.parametrize(
    "fields",
    [
        "Transfer_Encoding: chunked\r\nContent-Length: {length}\r\n",
        "X: 1\nTransfer-Encoding: chunked\r\n",  # a bare line feed ends a line for the edge, and so for the session
    ],
)
async def test_invalid_headers_do_not_reach_the_session(rig: Rig, fields: str) -> None:
    body = "0\r\n\r\n"
    session = FakeSession()
    await rig.open_to(session)
    await rig.send(f"{HEAD}Connection: close\r\n{fields.format(length=len(body))}\r\n{body}".encode())
    [request] = session.requests
    assert request.body in (b"", body.encode())
    assert not any("_" in name for name, _ in request.fields)


@pytest.mark.parametrize(
    "chunks",
    [
        "5;a=b\r\n12345\r\n0\r\n\r\n",
        "05\r\n12345\r\n0\r\nTrailer: x\r\n\r\n",
        "5 \r\n12345\r\n0\r\n\r\n",
        "5\n12345\n0\n\n",
    ],
)
async def test_chunks_reach_the_session_in_the_edges_own_form(rig: Rig, chunks: str) -> None:
    session = FakeSession()
    await rig.open_to(session)
    await rig.send(f"{HEAD}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n{chunks}".encode())
    [request] = session.requests
    assert (request.body, request.header("Trailer")) == (b"12345", None)


@pytest.mark.parametrize("chunks", ["-1\r\n", "5\r\n1234567\r\n", "g\r\n", "fffffffffffffffff\r\n"])
async def test_bytes_after_malformed_chunks_are_not_a_request(rig: Rig, chunks: str) -> None:
    targets, _ = await both(rig, f"{HEAD}Transfer-Encoding: chunked\r\n\r\n{chunks}{INNER}")
    assert "/smuggled" not in targets


async def test_the_body_of_a_refused_request_is_not_read_as_a_request(rig: Rig) -> None:
    asked = []

    async def answer(question: Message) -> Reply:
        asked.append(question.header("X-Preview-Uri"))
        return Reply(401)

    rig.answer = answer
    reader, writer = await rig.connect()
    writer.write(f"{HEAD}Content-Length: {len(INNER)}\r\n\r\n{INNER}".encode())
    writer.write(f"GET /next HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
    for _ in range(2):
        answered = await asyncio.wait_for(read_message(reader), 5)
        assert answered is not None
        assert answered.status == 401
    writer.close()
    assert asked == ["/", "/next"]


@pytest.mark.parametrize(
    "head",
    [
        f"GET / HTTP/1.1\r\nHost: {HOST}\r\nHost: {HOST}\r\n",
        f"GET / HTTP/1.1\r\nHost: {HOST}\r\nHost: other\r\n",
        f"GET http://{HOST}/ HTTP/1.1\r\nHost: other.localhost\r\n",
        f"GET http://{HOST}/ HTTP/1.1\r\nHost: ses-other.localhost\r\n",
        f"GET http://{HOST}/ HTTP/1.1\r\n",
        f"GET http://{HOST}/ HTTP/1.0\r\n",
        f"GET http://{HOST}/\r\n",
        f"GET http://{HOST}/ HTTP/0.9\r\n",
        f"GET / HTTP/1.1\r\nHost: {HOST}@other\r\n",
        f"GET / HTTP/1.1\r\nHost: {HOST}/x\r\n",
        f"GET / HTTP/1.1\r\nHost: {HOST} x\r\n",
        f"GET / HTTP/1.1\r\nHost: {HOST}:80x\r\n",
        f"CONNECT {HOST}:80 HTTP/1.1\r\nHost: {HOST}\r\n",
        f"TRACE / HTTP/1.1\r\nHost: {HOST}\r\n",
    ],
)
async def test_a_request_with_an_ambiguous_host_does_not_reach_the_session(rig: Rig, head: str) -> None:
    targets, statuses = await both(rig, f"{head}\r\n")
    assert targets == []
    assert rig.asked() == []
    assert all(400 <= status < 600 for status in statuses)


@pytest.mark.parametrize("host", [HOST.upper(), HOST + ":80", HOST + ".", HOST + ".:80", HOST + ":"])
async def test_a_host_may_be_written_in_several_ways(rig: Rig, host: str) -> None:
    session = FakeSession()
    await rig.open_to(session)
    assert (await rig.get(host=host)).status == 200
    assert session.requests[0].all("Host") == [host]


async def test_the_host_is_removed_from_an_absolute_target(rig: Rig) -> None:
    session = FakeSession()
    await rig.open_to(session)
    assert (await rig.get(f"http://{HOST}/p?q", host=HOST)).status == 200
    assert session.requests[0].target == "/p?q"


async def test_each_request_on_a_connection_goes_to_the_host_that_it_names(rig: Rig) -> None:
    sessions = {name: FakeSession() for name in ("ses-a.localhost", "ses-b.localhost")}
    addresses = {name: await rig.listen(session) for name, session in sessions.items()}

    async def answer(question: Message) -> Reply:
        address = addresses.get(question.header("X-Preview-Host") or "")
        return permit(address) if address else Reply(404)

    rig.answer = answer
    reader, writer = await rig.connect()
    statuses = []
    for host in ("ses-a.localhost", "ses-b.localhost", "ses-c.localhost", "ses_a.localhost", "ses-a.localhost"):
        writer.write(f"GET /{host} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        answered = await asyncio.wait_for(read_message(reader), 5)
        assert answered is not None
        statuses.append(answered.status)
    writer.close()
    assert statuses == [200, 200, 404, 404, 200]
    for name, session in sessions.items():
        assert {request.target for request in session.requests} == {f"/{name}"}


# A malicious session


async def answers(rig: Rig, said: bytes, later: bytes = b"") -> Message | None:
    """Lets the session answer every request with `said`, and then send `later`. Returns what the client gets."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await read_message(reader):
            writer.write(said)
            await writer.drain()
            if later:
                await asyncio.sleep(0.05)
                writer.write(later)

    await rig.open_to(FakeSession(serve=serve))
    return await rig.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())


@pytest.mark.parametrize(
    "said",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: \x00\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * 300_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: x\r\n" * 50_000 + b"\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + OK,
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK,
        b"HTTP/1.1 103 Early Hints\r\nContent-Length: 0\r\n\r\n" + OK,
        b"HTTP/1.1 103 Early Hints\r\nContent-Length: 500\r\n\r\n" + OK,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n" + OK,
        b"HTTP/1.1 102 P\r\n\r\n" * 20_000 + OK,
    ],
)
async def test_an_invalid_answer_becomes_an_error_page(rig: Rig, said: bytes) -> None:
    answer = await answers(rig, said)
    assert answer is not None
    assert (answer.status, answer.header("Content-Type")) == (502, "application/json")
    assert b"not valid HTTP" in answer.body


@pytest.mark.parametrize("later", [False, True])
async def test_bytes_after_a_sessions_answer_never_reach_another_request(rig: Rig, later: bool) -> None:
    extra = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    for _ in range(5):
        answer = await (answers(rig, OK, extra) if later else answers(rig, OK + extra))
        assert answer is not None
        assert (answer.status, answer.body) == (200, b"ok")
        await asyncio.sleep(0.1)


async def test_an_answer_before_the_body_was_read_reaches_the_client(rig: Rig) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
        await writer.drain()
        await asyncio.sleep(0.2)

    await rig.open_to(FakeSession(serve=refuse))
    answer = await rig.get(method="POST", body=bytes(100_000))
    assert (answer.status, answer.body) == (413, b"big")


async def test_a_preview_host_never_reaches_the_api(rig: Rig) -> None:
    rig.answer = no_address
    assert (await rig.get("/sessions")).status == 500


async def no_address(question: Message) -> Reply:
    return permit(f"nonsense:{free_port()}")
