"""One address or one session cannot use up what others need."""

import asyncio

import pytest

from buntime.edge.nginx import CONNECTIONS_OF_ADDRESS, REFUSALS_OF_ADDRESS
from tests.edge.rig import OK, FakeSession, Message, Reply, Rig, permit


async def test_repeated_refusals_stop_questions_about_an_address_for_the_rest_of_the_second(
    rig: Rig,
) -> None:
    statuses = [(await rig.get(host=f"ses-{number}.localhost")).status for number in range(3 * REFUSALS_OF_ADDRESS)]
    assert set(statuses) == {404, 429}
    assert statuses[:REFUSALS_OF_ADDRESS] == [404] * REFUSALS_OF_ADDRESS
    assert len(rig.asked()) == statuses.count(404)
    await asyncio.sleep(1.1)
    page = await rig.get(host="ses-other.localhost")
    assert page.status == 404


async def test_a_404_from_the_sessions_program_does_not_count_as_a_refusal(rig: Rig) -> None:
    await rig.open_to(FakeSession(lambda _: b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"))
    assert {(await rig.get(f"/{number}")).status for number in range(2 * REFUSALS_OF_ADDRESS)} == {404}
    await rig.open_to(FakeSession())
    assert (await rig.get(host="ses-other.localhost")).status == 200


async def test_questions_about_a_session_without_a_server_are_limited(
    rig: Rig,
) -> None:
    address = await rig.listen(FakeSession())
    rig.stack.pop().close()

    async def answer(question: Message) -> Reply:
        return Reply(502) if question.target == "/nothing" else permit(address)

    rig.answer = answer
    statuses = [(await rig.get()).status for _ in range(3 * REFUSALS_OF_ADDRESS)]
    assert set(statuses) == {502, 429}
    assert len(rig.asked("/nothing")) == statuses.count(502)


async def test_a_refused_address_can_still_use_its_permissions(rig: Rig) -> None:
    address = await rig.listen(FakeSession())

    async def answer(question: Message) -> Reply:
        return permit(address) if question.header("X-Preview-Host") == "ses-mine.localhost" else Reply(404)

    rig.answer = answer
    await rig.get(host="ses-mine.localhost")
    for number in range(2 * REFUSALS_OF_ADDRESS):
        await rig.get(host=f"ses-{number}.localhost")
    assert (await rig.get(host="ses-mine.localhost")).status == 200


async def test_connections_of_one_address_are_limited(rig: Rig) -> None:
    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    await rig.open_to(FakeSession(serve=wait))
    request = f"GET / HTTP/1.1\r\nHost: {rig.host}\r\nAccept: text/html\r\n\r\n".encode()
    open_ones = [await rig.connect() for _ in range(CONNECTIONS_OF_ADDRESS)]
    for _, writer in open_ones:
        writer.write(request)
    await asyncio.sleep(0.5)
    try:
        page = await rig.send(request)
        assert page is not None
        assert (page.status, page.header("Retry-After")) == (429, "1")
        assert b"Too many requests" in page.body
    finally:
        for _, writer in open_ones:
            writer.close()
    await asyncio.sleep(0.2)
    await rig.open_to(FakeSession(lambda _: OK))
    assert (await rig.get(host="ses-other.localhost")).status == 200


@pytest.mark.parametrize(
    ("request_line", "status"), [("GET /{long} HTTP/1.1", 414), ("GET / HTTP/1.1\r\nA: {long}", 431)]
)
async def test_the_header_of_a_preview_request_is_limited(rig: Rig, request_line: str, status: int) -> None:
    await rig.open_to(FakeSession())
    head = request_line.format(long="x" * 20_000)
    answer = await rig.send(f"{head}\r\nHost: {rig.host}\r\n\r\n".encode())
    assert answer is not None
    assert answer.status == status
    assert rig.asked() == []
