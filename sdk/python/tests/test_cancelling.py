"""A call that is cancelled closes its connection, by which the server knows that its run must end."""

import asyncio
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from buntime_sdk import AsyncBuntime, Buntime
from stand_in import KEY, PATIENCE, Answer, End, StandIn

SILENT = Answer(0, end=End.OPEN)  # the program runs, and nothing is sent until the client leaves
RUNS: list[Callable[[Any], Any]] = [
    lambda session: session.execute("await Bun.sleep(1e9)"),
    lambda session: session.execute_command("sleep 1000"),
    lambda session: session.contexts.open("ctx_1").execute("for (;;) {}"),
    lambda session: session.execute("await Bun.sleep(1e9)", on_stdout=print),
]


def _until_asked(server: StandIn) -> None:
    deadline = time.monotonic() + PATIENCE
    while not server.asked:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("run", RUNS)
async def test_cancelling_the_task_of_a_run_closes_its_connection(run: Callable[[Any], Any]) -> None:
    with StandIn([SILENT]) as server:
        async with AsyncBuntime(KEY, server.url) as client:
            task = asyncio.ensure_future(run(client.sessions.open("ses_1")))
            await asyncio.to_thread(_until_asked, server)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(server.left.acquire, timeout=PATIENCE)
        assert len(server.asked) == 1


async def test_a_run_that_is_too_slow_for_its_caller_closes_its_connection() -> None:
    with StandIn([SILENT]) as server:
        async with AsyncBuntime(KEY, server.url) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await client.sessions.open("ses_1").execute("await Bun.sleep(1e9)")
            assert await asyncio.to_thread(server.left.acquire, timeout=PATIENCE)


@pytest.mark.parametrize("run", RUNS)
def test_an_interrupt_closes_the_connection_of_a_run(run: Callable[[Any], Any]) -> None:
    with StandIn([SILENT]) as server, Buntime(KEY, server.url) as client:
        main = threading.main_thread().ident
        assert main is not None

        def interrupt() -> None:
            _until_asked(server)
            signal.pthread_kill(main, signal.SIGINT)

        waiting = threading.Thread(target=interrupt, name="interrupt")
        waiting.start()
        with pytest.raises(KeyboardInterrupt):
            run(client.sessions.open("ses_1"))
        waiting.join()
        assert server.left.acquire(timeout=PATIENCE)
        assert len(server.asked) == 1
