"""The contract of `inside.Processes`: one suite for the fake and for real sandboxes of this host."""

import asyncio
from collections.abc import AsyncIterator, Sequence, Set

import pytest

from buntime.errors import InvalidRequest, InvalidState, ProcessNotFound
from buntime.ids import new_process_id
from buntime.inside import LogPage, NewProcess, Process, Processes
from buntime.ports import Sandbox
from tests.contracts.test_sandboxes import LIMITS, REAL, FakeHost, Host, LocalHost

UNKNOWN = f"proc_{'0' * 18}"
SECONDS = 20  # a guard against a hang


@pytest.fixture(params=["fake", pytest.param("local", marks=REAL)])
async def sandbox(request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    host: Host = FakeHost() if request.param == "fake" else LocalHost()
    try:
        await host.reopen({})
        yield (await host.sandboxes.claim("ses_abc123def456ghi789", LIMITS)).sandbox
    finally:
        await host.close()


@pytest.fixture
def processes(sandbox: Sandbox) -> Processes:
    return sandbox.processes


def new(command: str, number: int = 1, **fields: object) -> NewProcess:
    """Returns a new process. Ids sort by the order in which a test starts them."""
    return NewProcess(new_process_id(number), command=command, **fields)  # type: ignore[arg-type]


async def followed(processes: Processes, process_id: str, cursor: int = 0) -> list[LogPage]:
    async with asyncio.timeout(SECONDS), processes.follow(process_id, cursor) as pages:
        return [page async for page in pages]


def text(pages: Sequence[LogPage]) -> bytes:
    return b"".join(entry.content for page in pages for entry in page.entries)


async def until_said(processes: Processes, process_id: str, size: int) -> None:
    async with asyncio.timeout(SECONDS):
        while (await processes.logs(process_id, 0, 1 << 20)).cursor < size:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_process_is_found_with_its_end_and_output(processes: Processes) -> None:
    wanted = new("echo hello", name="a name")
    started = await processes.start(wanted)
    assert (started.id, started.status, started.exit_code, started.name) == (wanted.id, "running", None, "a name")
    assert started.pid > 0
    assert started.command == "echo hello"
    pages = await followed(processes, wanted.id)
    assert text(pages) == b"hello\n"
    end = pages[-1].process
    assert (end.status, end.exit_code, end.reason, pages[-1].last) == ("exited", 0, None, True)
    assert [page.last for page in pages[:-1]] == [False] * (len(pages) - 1)
    assert await processes.get(wanted.id) == end
    assert end.ended_at is not None


async def test_the_exit_code_is_the_programs_own(processes: Processes) -> None:
    wanted = new("exit 7")
    await processes.start(wanted)
    assert (await followed(processes, wanted.id))[-1].process.exit_code == 7


async def test_a_list_is_paged_newest_first(processes: Processes) -> None:
    ids = [(await processes.start(new(f"exit {number}", number))).id for number in range(1, 6)]
    found, total = await processes.list(2, 1)
    assert ([process.id for process in found], total) == ([ids[3], ids[2]], 5)
    assert await processes.list(2, 5) == ([], 5)


async def test_an_unknown_process_is_not_found(processes: Processes) -> None:
    for call in (
        processes.get(UNKNOWN),
        processes.input(UNKNOWN, b"", close=False),
        processes.signal(UNKNOWN, 15),
        processes.logs(UNKNOWN, 0, 1),
        followed(processes, UNKNOWN),
    ):
        with pytest.raises(ProcessNotFound):
            await call


async def test_input_is_read_until_it_is_closed(processes: Processes) -> None:
    wanted = new("cat")
    await processes.start(wanted)
    await processes.input(wanted.id, b"one ", close=False)
    await processes.input(wanted.id, b"two", close=True)
    pages = await followed(processes, wanted.id)
    assert (text(pages), pages[-1].process.exit_code) == (b"one two", 0)
    with pytest.raises(InvalidState):
        await processes.input(wanted.id, b"three", close=False)


async def test_a_signal_ends_a_process_and_an_ended_one_refuses_it(processes: Processes) -> None:
    wanted = new("sleep 1000")
    await processes.start(wanted)
    await processes.signal(wanted.id, 9)
    assert (await followed(processes, wanted.id))[-1].process.exit_code == 137
    with pytest.raises(InvalidState):
        await processes.signal(wanted.id, 9)


async def test_a_page_begins_at_the_cursor_of_an_earlier_page(processes: Processes) -> None:
    wanted = new("cat")
    await processes.start(wanted)
    for at, part in enumerate((b"first", b"second", b"third"), 1):
        await processes.input(wanted.id, part, close=False)
        await until_said(processes, wanted.id, len(b"firstsecondthird"[: (5, 11, 16)[at - 1]]))
    page = await processes.logs(wanted.id, 0, 1)
    assert (text([page]), page.cursor, page.dropped, page.last) == (b"first", 5, 0, False)
    assert page.end == len(b"firstsecondthird")
    page = await processes.logs(wanted.id, 5, 1 << 20)
    assert (text([page]), page.cursor) == (b"secondthird", 16)
    assert (await processes.logs(wanted.id, 16, 1)).entries == []
    for cursor in (3, 17):
        with pytest.raises(InvalidRequest) as refused:
            await processes.logs(wanted.id, cursor, 1)
        assert refused.value.details["field"] == "cursor"


async def test_a_follower_sees_output_as_it_comes(processes: Processes) -> None:
    wanted = new("cat")
    await processes.start(wanted)
    seen = b""
    async with asyncio.timeout(SECONDS), processes.follow(wanted.id, 0) as pages:
        await processes.input(wanted.id, b"one", close=False)
        async for page in pages:
            seen += text([page])
            if seen == b"one":
                break
        await processes.input(wanted.id, b"two", close=True)
        async for page in pages:
            seen += text([page])
    assert seen == b"onetwo"


async def test_a_follower_that_leaves_takes_nothing_from_another(processes: Processes) -> None:
    wanted = new("cat")
    await processes.start(wanted)
    other = asyncio.create_task(followed(processes, wanted.id))
    async with processes.follow(wanted.id, 0) as pages:
        await processes.input(wanted.id, b"one", close=False)
        async for page in pages:
            if page.entries:
                break
    await processes.input(wanted.id, b"two", close=True)
    assert text(await other) == b"onetwo"


async def test_the_newest_output_is_kept_and_the_rest_counted(processes: Processes) -> None:
    wanted = new("cat", log_bytes=4000)
    await processes.start(wanted)
    parts = [b"%04d" % number * 100 for number in range(30)]
    for number, part in enumerate(parts, 1):
        await processes.input(wanted.id, part, close=number == len(parts))
        if number < len(parts):
            await _reached(processes, wanted.id, 400 * number)
    pages = await followed(processes, wanted.id, 0)
    assert text(pages) == b"".join(parts)[-len(text(pages)) :]
    assert 1000 <= len(text(pages)) <= 4000
    assert sum(page.dropped for page in pages) + len(text(pages)) == 12_000


async def _reached(processes: Processes, process_id: str, size: int) -> None:
    async with asyncio.timeout(SECONDS):
        cursor = 0
        while cursor < size:
            cursor = (await processes.logs(process_id, cursor, 1 << 20)).cursor
            await asyncio.sleep(0)


async def test_a_process_that_ends_after_ending_has_its_reason(processes: Processes) -> None:
    wanted = new("sleep 1000")
    await processes.start(wanted)
    await processes.ending("deep_sleep")
    await processes.signal(wanted.id, 15)
    end: Process = (await followed(processes, wanted.id))[-1].process
    assert (end.exit_code, end.reason) == (143, "deep_sleep")
    await processes.settle()


async def test_an_attended_process_has_figures_after_its_end(processes: Processes) -> None:
    wanted = new("echo hello", stdin=b"")
    async with processes.attend(wanted) as attended:
        assert attended.process.id == wanted.id
        await followed(processes, wanted.id)
        usage = await attended.ended()
        assert usage.peak_memory > 0
        assert (usage.memory_kills, usage.met_process_limit) == (0, False)


async def test_a_process_with_all_its_input_refuses_more(processes: Processes) -> None:
    wanted = new("sleep 1000", stdin=b"all")
    await processes.start(wanted)
    with pytest.raises(InvalidState):
        await processes.input(wanted.id, b"more", close=False)


async def test_an_unused_port_has_no_listener(processes: Processes) -> None:
    assert await processes.listeners(8080) == set()


async def listening(processes: Processes, port: int) -> Set[int]:
    async with asyncio.timeout(SECONDS):
        while not (found := await processes.listeners(port)):  # noqa: ASYNC110 - the kernel has no event for it
            await asyncio.sleep(0.01)
    return found


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::"])
async def test_a_listener_is_found_on_any_address(processes: Processes, address: str) -> None:
    await processes.start(new(f"python3 -m http.server 8080 --bind {address}"))
    assert len(await listening(processes, 8080)) == 1
    assert await processes.listeners(808) == await processes.listeners(18080) == set()


async def test_a_listening_socket_keeps_its_identity_and_a_later_one_has_another(processes: Processes) -> None:
    first, second, third = (new("python3 -m http.server 8080", number) for number in range(1, 4))
    await processes.start(first)
    before = await listening(processes, 8080)
    await processes.start(second)
    assert (await followed(processes, second.id))[-1].process.exit_code == 1
    assert await processes.listeners(8080) == before
    await processes.signal(first.id, 9)
    await followed(processes, first.id)
    async with asyncio.timeout(SECONDS):
        while await processes.listeners(8080):  # noqa: ASYNC110 - the kernel has no event for it
            await asyncio.sleep(0.01)
    await processes.start(third)
    assert not await listening(processes, 8080) & before


async def test_live_counts_running_processes(sandbox: Sandbox) -> None:
    wanted = new("sleep 1000")
    await sandbox.processes.start(wanted)
    assert sandbox.live("processes") == 1
    await sandbox.processes.signal(wanted.id, 9)
    async with asyncio.timeout(SECONDS):
        while sandbox.live("processes"):  # noqa: ASYNC110 - the kernel has no event for it
            await asyncio.sleep(0.01)
