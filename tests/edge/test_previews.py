"""Preview requests through the edge: questions to the control plane, the cache, and what reaches the session."""

import asyncio
import json
import re
import time

import pytest

from buntime.edge.refusals import PREVIEW_REFUSALS, page
from tests.edge.rig import OK, FakeSession, Message, Reply, Rig, control_plane, open_to_workers, permit, read_message

OURS = "bpt_1"


async def test_a_request_reaches_the_session_that_the_control_plane_names(rig: Rig) -> None:
    session = FakeSession()
    await rig.open_to(session)
    answer = await rig.get("/a%2Fb//c?x=%20y&z", method="POST", body=b"12345")
    assert (answer.status, answer.body) == (200, b"ok")
    [request] = session.requests
    assert (request.line, request.body) == ("POST /a%2Fb//c?x=%20y&z HTTP/1.1", b"12345")
    assert request.all("Host") == [rig.host]


async def test_the_question_carries_what_the_client_sent(rig: Rig) -> None:
    await rig.open_to(FakeSession())
    await rig.get(
        "/p?q=1", host=rig.host.upper(), method="PUT", body=b"x", X_Preview_Token=OURS, Accept="text/html",
        Cookie="a=1; __buntime_preview=bpt_2; b=2", X_Request_Id="mine",
    )  # fmt: skip
    [question] = rig.asked()
    said = {name: question.header(f"X-Preview-{name}") for name in ("Host", "Method", "Uri", "Token", "Cookie")}
    assert said == {"Host": rig.host, "Method": "PUT", "Uri": "/p?q=1", "Token": "bpt_1", "Cookie": "bpt_2"}
    assert [question.header(f"X-Preview-{name}") for name in ("Address", "Accept", "Upgrade")] == [
        "127.0.0.1",
        "text/html",
        None,
    ]
    assert question.header("X-Request-Id") == "mine"


async def test_a_refusal_of_the_control_plane_reaches_the_client_unchanged(rig: Rig) -> None:
    cookies = (("Set-Cookie", "__buntime_preview=bpt_1; Path=/; HttpOnly"), ("Set-Cookie", "b=2"))
    headers = (("Content-Type", "text/html"), ("Retry-After", "3"), ("Location", "/p"), *cookies)
    reply = Reply(503, (*headers, ("Cache-Control", "no-store"), ("Content-Security-Policy", "x")), b"<h1>waking</h1>")

    async def answer(question: Message) -> Reply:
        return reply

    rig.answer = answer
    given = await rig.get()
    assert (given.status, given.body) == (503, reply.body)
    assert {name: ", ".join(given.all(name)) for name, _ in reply.headers} == {
        "Content-Type": "text/html",
        "Retry-After": "3",
        "Location": "/p",
        "Set-Cookie": "__buntime_preview=bpt_1; Path=/; HttpOnly, b=2",
        "Cache-Control": "no-store",
        "Content-Security-Policy": "x",
    }


async def test_a_permission_is_remembered_only_for_its_second(rig: Rig) -> None:
    session = FakeSession()
    await rig.open_to(session)
    for _ in range(5):
        await rig.get()
    assert len(rig.asked()) == 1
    await asyncio.sleep(1.1)
    await rig.get()
    assert len(rig.asked()) == 2
    assert len(session.requests) == 6


class Renewing:
    """A control plane that admits everybody and renews: with which address, and after how long."""

    def __init__(self, rig: Rig, address: str, renewed: str | None = None, seconds: float = 0.0) -> None:
        """`renewed`: another address; "": nothing is renewed."""
        self._rig, self._address, self._seconds = rig, address, seconds
        self._renewed = address if renewed is None else renewed
        rig.answer = self._answer

    async def _answer(self, question: Message) -> Reply:
        if question.target != "/renew":
            return permit(self._address)
        await asyncio.sleep(self._seconds)
        return Reply(200, body=f"{self._renewed}\n".encode() * (question.body.count(b"\n") + 1))

    @property
    def keys(self) -> list[bytes]:
        """Of the permissions that the edge wanted to renew, sorted."""
        return sorted(key for question in self._rig.asked("/renew") for key in question.body.split(b"\n"))


async def test_permissions_that_are_used_are_renewed_without_a_question_for_each_request(rig: Rig) -> None:
    plane = Renewing(rig, await rig.listen(FakeSession()))
    for _ in range(4):
        visits = (rig.get(X_Preview_Token=f"bpt_{n}", Cookie="__buntime_preview=bpt_c") for n in range(20))
        assert [answer.status for answer in await asyncio.gather(*visits)] == [200] * 20
        await asyncio.sleep(0.6)
    assert len(rig.asked("/admit")) == 20
    renewed = sorted(f"{rig.host}\0bpt_{n}\0bpt_c".encode() for n in range(20))
    assert sorted({*plane.keys}) == renewed
    assert len(rig.asked("/renew")) < len(plane.keys)


async def test_a_permission_that_nobody_uses_is_not_renewed(rig: Rig) -> None:
    Renewing(rig, await rig.listen(FakeSession()))
    await rig.get()
    await rig.get()
    await asyncio.sleep(1.1)
    await rig.get()
    assert (len(rig.asked("/admit")), rig.asked("/renew")) == (2, [])


async def test_requests_once_a_second_have_their_permission_renewed_in_between(rig: Rig) -> None:
    plane = Renewing(rig, await rig.listen(FakeSession()))
    for _ in range(8):
        await rig.get()
        await asyncio.sleep(1.1)
    assert plane.keys
    assert len(rig.asked("/admit")) < 8


async def test_requests_at_long_intervals_are_asked_about_alone(rig: Rig) -> None:
    Renewing(rig, await rig.listen(FakeSession()))
    for _ in range(2):
        await rig.get()
        await asyncio.sleep(2.3)
    assert (len(rig.asked("/admit")), rig.asked("/renew")) == (2, [])


async def test_a_permission_that_is_not_renewed_ends(rig: Rig) -> None:
    plane = Renewing(rig, await rig.listen(FakeSession()), renewed="")
    for _ in range(3):
        await rig.get()
        await asyncio.sleep(0.6)
    assert plane.keys
    assert len(rig.asked("/admit")) == 2


async def test_a_renewed_permission_ends_a_second_after_the_question_and_not_after_its_answer(rig: Rig) -> None:
    plane = Renewing(rig, await rig.listen(FakeSession()), seconds=0.2)
    await rig.get()
    await asyncio.sleep(0.6)
    await rig.get()  # renewed until 1.7 s, and not until 1.9 s
    await asyncio.sleep(1.2)
    await rig.get()
    assert (len(plane.keys), len(rig.asked("/admit"))) == (1, 2)


async def test_a_renewal_that_comes_too_late_counts_for_nothing(rig: Rig) -> None:
    plane = Renewing(rig, await rig.listen(FakeSession()), seconds=0.5)
    await rig.get()
    await asyncio.sleep(0.6)
    await rig.get()
    await asyncio.sleep(0.6)
    await rig.get()
    assert (len(plane.keys), len(rig.asked("/admit"))) == (1, 2)


async def test_a_permission_is_asked_about_once_while_no_answer_comes(rig: Rig) -> None:
    plane = Renewing(rig, await rig.listen(FakeSession()), renewed="", seconds=0.2)
    await rig.get()
    await asyncio.sleep(0.55)
    for _ in range(30):
        await asyncio.gather(*(rig.get() for _ in range(4)))
        await asyncio.sleep(0.01)
    assert 1 <= len(plane.keys) <= 4  # of each of two workers, in the second half of one or two permissions


async def test_a_renewal_does_not_send_a_permission_elsewhere(rig: Rig) -> None:
    before, after = FakeSession(), FakeSession()
    plane = Renewing(rig, await rig.listen(before), await rig.listen(after))
    await rig.get()
    await asyncio.sleep(0.6)
    await rig.get()
    await asyncio.sleep(0.2)
    await rig.get()
    assert plane.keys
    assert (len(before.requests), len(after.requests)) == (3, 0)
    await asyncio.sleep(0.3)
    await rig.get()
    assert len(rig.asked("/admit")) == 2


async def test_a_malformed_renewal_renews_nothing(rig: Rig) -> None:
    address = await rig.listen(FakeSession())

    async def answer(question: Message) -> Reply:
        return Reply(500, body=f"{address}\n".encode()) if question.target == "/renew" else permit(address)

    rig.answer = answer
    for _ in range(3):
        assert (await rig.get()).status == 200
        await asyncio.sleep(0.6)
    assert len(rig.asked("/admit")) == 2
    assert rig.asked("/renew")


async def test_a_key_with_a_line_in_it_is_not_renewed(rig: Rig) -> None:
    plane = Renewing(rig, await rig.listen(FakeSession()))
    for _ in range(2):
        assert (await rig.get(Cookie="__buntime_preview=a\tb")).status == 200
        await asyncio.sleep(0.6)
    assert plane.keys == []


async def test_an_uncacheable_permission_is_requested_each_time(rig: Rig) -> None:
    address = await rig.listen(FakeSession())

    async def answer(question: Message) -> Reply:
        return permit(address, seconds=0)

    rig.answer = answer
    for _ in range(3):
        assert (await rig.get()).status == 200
    assert len(rig.asked()) == 3


async def test_a_refusal_is_never_remembered(rig: Rig) -> None:
    for _ in range(3):
        assert (await rig.get()).status == 404
    await rig.open_to(FakeSession())
    assert (await rig.get()).status == 200
    assert len(rig.asked()) == 4


@pytest.mark.parametrize("other", ["host", "token", "cookie"])
async def test_a_permission_is_valid_for_one_host_token_and_cookie(rig: Rig, other: str) -> None:
    await rig.open_to(FakeSession())
    await rig.get(X_Preview_Token=OURS, Cookie="__buntime_preview=bpt_1")

    async def refuse(question: Message) -> Reply:
        return Reply(401)

    rig.answer = refuse
    host = rig.host.replace(".", "-3000.", 1) if other == "host" else rig.host
    token = "bpt_2" if other == "token" else "bpt_1"
    cookie = f"__buntime_preview={'bpt_2' if other == 'cookie' else 'bpt_1'}"
    assert (await rig.get(host=host, X_Preview_Token=token, Cookie=cookie)).status == 401
    assert (await rig.get(X_Preview_Token=OURS, Cookie="x=y; __buntime_preview=bpt_1")).status == 200


async def test_a_token_in_the_query_is_checked_and_does_not_reach_the_session(rig: Rig) -> None:
    session = FakeSession()
    address = await rig.listen(session)

    async def answer(question: Message) -> Reply:
        return permit(address, uri="/p?q=%20" if "buntime_token" in (question.header("X-Preview-Uri") or "") else "")

    rig.answer = answer
    await rig.get("/p")
    await rig.get("/p?buntime_token=bpt_1&q=%20")
    await rig.get("/p")
    assert [request.target for request in session.requests] == ["/p", "/p?q=%20", "/p"]
    assert len(rig.asked()) == 2


async def test_many_requests_that_wait_for_a_session_cause_one_question_per_worker(rig: Rig) -> None:
    session = FakeSession()
    address = await rig.listen(session)
    awake = asyncio.Event()

    async def answer(question: Message) -> Reply:
        await awake.wait()
        return permit(address)

    rig.answer = answer
    waiting = [asyncio.create_task(rig.get()) for _ in range(100)]
    await asyncio.sleep(0.3)
    awake.set()
    assert {given.status for given in await asyncio.gather(*waiting)} == {200}
    assert len(session.requests) == 100
    assert len(rig.asked()) <= 2


async def test_requests_that_wait_for_a_refused_question_get_their_own_refusals(rig: Rig) -> None:
    asked = asyncio.Event()

    async def answer(question: Message) -> Reply:
        await asked.wait()
        return Reply(401, (), (question.header("X-Preview-Uri") or "").encode())

    rig.answer = answer
    waiting = [asyncio.create_task(rig.get(f"/{number}")) for number in range(10)]
    await asyncio.sleep(0.2)
    asked.set()
    assert [given.body for given in await asyncio.gather(*waiting)] == [b"/%d" % number for number in range(10)]


async def test_if_nothing_listens_the_control_plane_chooses_the_answer(rig: Rig) -> None:
    address = await rig.listen(FakeSession())
    rig.stack.pop().close()

    async def answer(question: Message) -> Reply:
        if question.target == "/nothing":
            return Reply(502, (("Content-Type", "text/html"),), b"<h1>nothing listens</h1>")
        return permit(address)

    rig.answer = answer
    given = await rig.get("/p", method="POST", body=b"x" * 100_000, Accept="text/html")
    assert (given.status, given.body, given.all("Content-Type")) == (502, b"<h1>nothing listens</h1>", ["text/html"])
    [question] = rig.asked("/nothing")
    assert (question.header("X-Preview-Uri"), question.header("X-Preview-Host")) == ("/p", rig.host)


async def test_an_error_from_the_sessions_program_passes_unchanged(rig: Rig) -> None:
    await rig.open_to(FakeSession(lambda _: b"HTTP/1.1 502 Mine\r\nContent-Length: 4\r\n\r\nmine"))
    given = await rig.get()
    assert (given.status, given.body) == (502, b"mine")
    assert rig.asked("/nothing") == []


async def test_no_program_can_pose_as_the_servers_refusal(rig: Rig) -> None:
    mine = b"HTTP/1.1 503 Mine\r\nX-Preview-Error: unavailable\r\nContent-Length: 4\r\n\r\nmine"
    await rig.open_to(FakeSession(lambda _: mine))
    given = await rig.get()
    assert (given.status, given.body, given.all("X-Preview-Error")) == (503, b"mine", [])


@pytest.mark.parametrize("status", PREVIEW_REFUSALS)
def test_a_page_of_the_edge_has_a_title_and_says_more_below_it(status: int) -> None:
    shown = page(PREVIEW_REFUSALS[status])
    ((title, text),) = re.findall("<h1>(.+)</h1>\n<p>(.+)</p>", shown)
    assert not title.endswith(".")
    assert title not in text
    assert ("refresh" in shown, "Error 503" in shown) == (status == 503, False)


async def test_a_program_that_closes_without_an_answer_is_explained_in_a_sentence(rig: Rig) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader)

    await rig.open_to(FakeSession(serve=hang_up))
    page = await rig.get(Accept="text/html,*/*")
    assert (page.status, page.header("Content-Type")) == (502, "text/html; charset=utf-8")
    assert b"<h1>The program did not send a valid response</h1>" in page.body
    refused = await rig.get(Accept="*/*")
    error = json.loads(refused.body)["error"]
    assert (error["code"], error["retryable"]) == ("unavailable", True)
    assert [page.all("X-Preview-Error"), refused.all("X-Preview-Error")] == [["unavailable"]] * 2


async def test_while_the_server_restarts_permissions_last_their_second_and_then_a_page_waits(
    edge_alone: Rig,
) -> None:
    async with control_plane(edge_alone):
        await edge_alone.open_to(FakeSession())
        await edge_alone.get()
    assert (await edge_alone.get()).status == 200
    await asyncio.sleep(1.1)
    page = await edge_alone.get(Accept="text/html")
    assert (page.status, page.header("Retry-After"), page.header("Cache-Control")) == (503, "1", "no-store")
    assert b"The server is restarting" in page.body
    assert b'http-equiv="refresh"' in page.body
    async with control_plane(edge_alone):
        assert (await edge_alone.get()).status == 200


async def test_a_restarted_control_plane_is_asked_on_a_new_connection(edge_alone: Rig) -> None:
    for _ in range(3):
        async with control_plane(edge_alone):
            await edge_alone.open_to(FakeSession())
            assert (await edge_alone.get(host=f"ses-{time.monotonic_ns()}.localhost")).status == 200


async def test_a_malformed_answer_admits_nobody(edge_alone: Rig) -> None:
    for garbage in (b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nX-Upstream: 127.0.0.2:80\r\n\r\n"):

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, said: bytes = garbage) -> None:
            await read_message(reader)
            writer.write(said)
            writer.close()

        async with await asyncio.start_unix_server(serve, edge_alone.config.edge_socket):
            open_to_workers(edge_alone.config.edge_socket)
            assert (await edge_alone.get()).status == 503


async def test_connections_to_a_session_are_kept_for_the_next_request(rig: Rig) -> None:
    session = FakeSession()
    await rig.open_to(session)
    for _ in range(20):
        await rig.get()
    assert session.connections <= 2  # one per worker


async def test_a_kept_connection_that_the_session_closed_is_not_used(rig: Rig) -> None:
    async def one_each(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader)
        writer.write(OK)
        await writer.drain()

    await rig.open_to(FakeSession(serve=one_each))
    for _ in range(20):
        assert (await rig.get()).status == 200


async def test_both_directions_stream_without_buffering(rig: Rig) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"chunked" in head
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        while line := await reader.readline():
            writer.write(await reader.readexactly(int(line, 16) + 2))

    await rig.open_to(FakeSession(serve=echo))
    reader, writer = await rig.connect()
    writer.write(f"POST / HTTP/1.1\r\nHost: {rig.host}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    for word in (b"first", b"second"):
        writer.write(b"%x\r\n%s\r\n" % (len(word), word))
        await asyncio.wait_for(reader.readuntil(word), 5)
    writer.close()


async def test_websockets_pass_and_wake(rig: Rig) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert "upgrade: websocket" in head
        assert "connection: upgrade" in head
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        while data := await reader.read(100):
            writer.write(data)

    await rig.open_to(FakeSession(serve=echo))
    reader, writer = await rig.connect()
    writer.write(f"GET / HTTP/1.1\r\nHost: {rig.host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert b" 101 " in head
    writer.write(b"\x81\x05hello")
    assert await asyncio.wait_for(reader.readexactly(7), 5) == b"\x81\x05hello"
    writer.close()
    assert rig.asked()[0].header("X-Preview-Upgrade") == "1"


async def test_a_large_body_arrives_complete_even_if_the_session_must_wake(rig: Rig) -> None:
    session = FakeSession(lambda request: b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n%08d" % len(request.body))
    address = await rig.listen(session)

    async def answer(question: Message) -> Reply:
        await asyncio.sleep(0.3)
        return permit(address)

    rig.answer = answer
    assert (await rig.get(method="PUT", body=bytes(30 << 20))).body == b"%08d" % (30 << 20)


async def test_a_client_that_expects_100_continue_gets_it(rig: Rig) -> None:
    session = FakeSession()
    await rig.open_to(session)
    reader, writer = await rig.connect()
    writer.write(f"POST / HTTP/1.1\r\nHost: {rig.host}\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n".encode())
    assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5) == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"abc")
    answer = await read_message(reader)
    assert answer is not None
    assert answer.status == 200
    assert (session.requests[0].body, session.requests[0].header("Expect")) == (b"abc", None)
    writer.close()


async def test_an_old_client_gets_a_chunked_answer_without_chunks(rig: Rig) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Trailer: 1\r\n\r\n"
    await rig.open_to(FakeSession(lambda _: chunked))
    answer = await rig.send(f"GET / HTTP/1.0\r\nHost: {rig.host}\r\n\r\n".encode())
    assert answer is not None
    assert (answer.body, answer.header("Transfer-Encoding"), answer.header("X-Trailer")) == (b"ok", None, None)


async def test_a_head_request_has_its_headers_and_no_body(rig: Rig) -> None:
    await rig.open_to(FakeSession(lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"))
    reader, writer = await rig.connect()
    for _ in range(2):
        writer.write(f"HEAD / HTTP/1.1\r\nHost: {rig.host}\r\n\r\n".encode())
        answer = await asyncio.wait_for(read_message(reader, bodiless=True), 5)
        assert answer is not None
        assert answer.header("Content-Length") == "1000"
    writer.close()
