"""Which requests count as one client, with and without a trusted proxy in front of the edge."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest

from buntime.config import BadSetting, Config, from_environment
from buntime.edge.nginx import CONNECTIONS_OF_ADDRESS, HEADER_SECONDS, REFUSALS_OF_ADDRESS, REQUESTS_AT_ONCE
from tests.edge.rig import FakeSession, Message, Rig, Serve, control_plane, edge, open_to_workers, read_message

PROXY = "127.0.0.1/32"


@pytest.fixture
async def behind(config: Config) -> AsyncIterator[Rig]:
    """Runs an edge that trusts this machine as a proxy."""
    async with edge(replace(config, trusted_proxies=PROXY)) as rig, control_plane(rig):
        yield rig


@asynccontextmanager
async def _listening(rig: Rig, answer: Serve) -> AsyncIterator[None]:
    """Runs a program that takes the control plane's port."""
    server = await asyncio.start_unix_server(answer, rig.config.api_socket, backlog=4096)
    open_to_workers(rig.config.api_socket)
    try:
        yield
    finally:
        server.close()
        server.close_clients()
        rig.config.api_socket.unlink(missing_ok=True)


@asynccontextmanager
async def api(rig: Rig) -> AsyncIterator[None]:
    """Runs an API that answers with what the edge says about the client. `/wait` never gets an answer."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await read_message(reader):
            if request.target != "/wait":
                said = json.dumps(request.all("X-Forwarded-For")).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said))
        writer.close()

    async with _listening(rig, answer):
        yield


@asynccontextmanager
async def waiting(rig: Rig, host: str, count: int, **headers: str) -> AsyncIterator[None]:
    """Keeps requests of one client open that get no answer."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    opened = [await rig.connect() for _ in range(count)]
    for _, writer in opened:
        writer.write(f"GET /wait HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n".encode())
    await asyncio.sleep(0.5)
    try:
        yield
    finally:
        for _, writer in opened:
            writer.close()
        await asyncio.sleep(0)  # lets the event loop close them


async def _served(rig: Rig) -> None:
    """Waits until the edge serves requests again, after it noticed that its clients left."""
    async with asyncio.timeout(20):
        while (await rig.get(host="localhost")).status != 200:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.05)


async def test_concurrent_api_requests_of_one_address_are_limited(rig: Rig) -> None:
    async with api(rig):
        async with waiting(rig, "localhost", CONNECTIONS_OF_ADDRESS):
            refused = await rig.get(host="localhost")
        assert (refused.status, refused.header("Retry-After")) == (429, "1")
        error = json.loads(refused.body)["error"]
        assert (error["code"], error["retryable"]) == ("rate_limit_exceeded", True)
        await _served(rig)


async def test_api_requests_of_one_address_per_second_are_limited(rig: Rig) -> None:
    async def ask_repeatedly(source: str, count: int) -> list[int]:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.config.port, local_addr=(source, 0))
        statuses = []
        for _ in range(count):
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = await read_message(reader)
            assert answer is not None
            statuses.append(answer.status)
        writer.close()
        return statuses

    async with api(rig):
        many = await asyncio.gather(*(ask_repeatedly("127.0.0.7", REQUESTS_AT_ONCE // 2) for _ in range(8)))
        assert {status for statuses in many for status in statuses} == {200, 429}
        assert await ask_repeatedly("127.0.0.8", 100) == [200] * 100


@asynccontextmanager
async def keyed_api(rig: Rig, key: bytes, left: list[int]) -> AsyncIterator[None]:
    """Runs an API that answers a good key with its remaining requests, and any other key with 401."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await read_message(reader):
            is_good = request.header("Authorization") == f"Bearer {key.decode()}"
            status = b"401 Unauthorized" if not is_good and request.target != "/healthz" else b"200 OK"
            said = b"X-RateLimit-Remaining: %d\r\n" % left[0] if is_good else b""
            writer.write(b"HTTP/1.1 %s\r\n%sContent-Length: 0\r\n\r\n" % (status, said))
        writer.close()

    async with _listening(rig, answer):
        yield


async def _statuses(rig: Rig, count: int, *keys: str, path: str = "/") -> list[int]:
    """Returns the statuses of requests on a few connections. Requests take turns with the keys."""

    async def ask_repeatedly() -> list[int]:
        reader, writer = await rig.connect()
        statuses = []
        for number in range(count // 8):
            key = keys[number % len(keys)]
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
            answer = await read_message(reader)
            assert answer is not None
            statuses.append(answer.status)
        writer.close()
        return statuses

    return [status for part in await asyncio.gather(*(ask_repeatedly() for _ in range(8))) for status in part]


async def test_only_the_plan_limits_a_valid_key_within_its_rate(rig: Rig) -> None:
    left = [1000]
    async with keyed_api(rig, b"btk_good", left):
        assert set(await _statuses(rig, 8, "btk_good")) == {200}
        floods = [asyncio.create_task(_statuses(rig, 4 * REQUESTS_AT_ONCE, "btk_bad")) for _ in range(2)]
        assert set(await _statuses(rig, 2 * REQUESTS_AT_ONCE, "btk_good")) == {200}
        assert {status for flood in floods for status in await flood} == {401, 429}
        left[0] = 0
        assert 429 in await _statuses(rig, 4 * REQUESTS_AT_ONCE, "btk_good"), "a good key over its rate must count"


@pytest.mark.parametrize("path", ["/", "/healthz"])
async def test_an_invalid_key_does_not_lift_the_limit(rig: Rig, path: str) -> None:
    async with keyed_api(rig, b"btk_good", [1000]):
        assert 429 in await _statuses(rig, 4 * REQUESTS_AT_ONCE, "btk_bad", "x" * 300, "", path=path)


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
        ("2001:db8:0:a::1", "2001:db8:0:a:ffff::2", "2001:db8:0:b::1"),
        ("2001:db8:a:a0a::1", "2001:db8:a:a0a::a0a", "2001:db8:a:a0b::1"),  # addresses with line feed bytes
    ],
)
async def test_clients_of_a_trusted_proxy_are_counted_one_by_one_and_by_64_bits_of_ipv6(
    behind: Rig, one: str, same: str, other: str
) -> None:
    async with api(behind), waiting(behind, "localhost", CONNECTIONS_OF_ADDRESS, X_Forwarded_For=one):
        statuses = [(await behind.get(host="localhost", X_Forwarded_For=who)).status for who in (same, other)]
    assert statuses == [429, 200]


async def test_the_client_is_the_last_address_that_is_not_a_trusted_proxy(behind: Rig) -> None:
    session = FakeSession()
    await behind.open_to(session)
    async with api(behind):
        for said in ("6.6.6.6, 192.0.2.7", "6.6.6.6, 192.0.2.7, 127.0.0.1", "nonsense, 192.0.2.7"):
            answer = await behind.get(host="localhost", X_Forwarded_For=said)
            assert json.loads(answer.body) == ["192.0.2.7"]
            await behind.get(X_Forwarded_For=said)
    assert {value for request in session.requests for value in request.all("X-Forwarded-For")} == {"192.0.2.7"}
    assert behind.asked()[0].header("X-Preview-Address") == "192.0.2.7"


@pytest.mark.parametrize("said", ["", "nonsense", "unix:", "127.0.0.1"])
async def test_a_trusted_proxy_that_names_no_client_counts_as_the_client(behind: Rig, said: str) -> None:
    async with api(behind):
        answer = await behind.get(host="localhost", X_Forwarded_For=said)
    assert json.loads(answer.body) == ["127.0.0.1"]


async def test_only_trusted_proxies_choose_the_address_that_counts(rig: Rig) -> None:
    async with api(rig), waiting(rig, "localhost", CONNECTIONS_OF_ADDRESS, X_Forwarded_For="192.0.2.1"):
        refused = await rig.get(host="localhost", X_Forwarded_For="192.0.2.2")
        assert refused.status == 429
    async with api(rig):
        await _served(rig)
        assert json.loads((await rig.get(host="localhost", X_Forwarded_For="192.0.2.2")).body) == ["127.0.0.1"]


async def test_guessing_behind_a_trusted_proxy_counts_only_for_the_guesser(behind: Rig) -> None:
    async def guess(who: str) -> Message:
        return await behind.get(host="ses-none.localhost", X_Forwarded_For=who)

    statuses = {(await guess("192.0.2.1")).status for _ in range(2 * REFUSALS_OF_ADDRESS)}
    assert statuses == {404, 429}
    assert (await guess("192.0.2.2")).status == 404


async def test_an_unfinished_header_ends_its_connection(rig: Rig) -> None:
    opened = [await rig.connect() for _ in range(50)]

    async def dribble(writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
        while not writer.is_closing():
            writer.write(b"x")
            await asyncio.sleep(0.5)

    dribbling = [asyncio.create_task(dribble(writer)) for _, writer in opened]
    try:
        async with asyncio.timeout(3 * HEADER_SECONDS):
            for reader, _ in opened:
                with suppress(ConnectionError):
                    assert await reader.read() == b""
    finally:
        for task in dribbling:
            task.cancel()
        for _, writer in opened:
            writer.close()


@pytest.mark.parametrize("said", ["example.com", "192.0.2.1/24", "10.0.0.0/8,", "10.0.0.0/8 10.1.0.0/16", "fe80::1%lo"])
def test_proxies_are_networks(said: str) -> None:
    with pytest.raises(BadSetting, match="BUNTIME_TRUSTED_PROXIES"):
        from_environment({"BUNTIME_TRUSTED_PROXIES": said})


def test_several_proxies_are_separated_by_commas() -> None:
    config = from_environment({"BUNTIME_TRUSTED_PROXIES": "10.0.0.0/8, 2001:db8::1"})
    assert [str(network) for network in config.proxies] == ["10.0.0.0/8", "2001:db8::1/128"]
