"""The files of a run's figures are open while it runs, and no longer."""

import asyncio
from pathlib import Path

from buntime.daemon.tasks import cancel_and_wait
from buntime.ids import new_id
from buntime.inside import NewContext, Stream
from buntime.ports import Run, Sandbox
from tests.contracts.test_sandboxes import LIMITS, REAL, LocalHost
from tests.waiting import eventually

pytestmark = REAL
SESSION = "ses_abc123def456ghi789"


def open_figures(host: LocalHost) -> list[str]:
    """Files of this process that are in cgroups of the host's runs."""
    found = []
    for file in Path("/proc/self/fd").iterdir():
        try:
            path = str(file.readlink())
        except FileNotFoundError:
            continue
        if f"buntime-{host.instance}/" in path and "/runs/" in path:
            found.append(path)
    return found


async def test_the_files_of_a_runs_figures_are_open_only_while_it_runs(host: LocalHost) -> None:
    sandbox: Sandbox = (await host.sandboxes.claim(SESSION, LIMITS)).sandbox
    seen: list[str] = []

    async def sink(stream: Stream, content: bytes) -> None:
        seen.extend(open_figures(host))

    ran = await sandbox.run(Run(60, command="sleep 0.05; echo 1"), sink)
    assert ran.exit_code == 0
    assert seen
    assert await sandbox.run(Run(60, command="exit 3")) is not None
    assert (await sandbox.run(Run(1, command="sleep 60"))).timed_out
    await asyncio.sleep(0)  # they are closed behind the answer
    assert open_figures(host) == []


async def test_the_files_of_a_contexts_figures_are_open_only_while_it_runs(host: LocalHost) -> None:
    sandbox: Sandbox = (await host.sandboxes.claim(SESSION, LIMITS)).sandbox
    context = await sandbox.contexts.create(NewContext(new_id("ctx_"), {}, "/workspace"))
    seen: list[str] = []

    async def sink(stream: Stream, content: bytes) -> None:
        seen.extend(open_figures(host))

    ran = await sandbox.contexts.run(context.id, "await Bun.sleep(50); console.log(1)", 60, sink)
    assert ran.exit_code == 0
    assert seen
    assert (await sandbox.contexts.run(context.id, "throw 1", 60)).exit_code == 1
    assert (await sandbox.contexts.run(context.id, "for (;;) {}", 1)).timed_out
    await asyncio.sleep(0)  # they are closed behind the answer
    assert open_figures(host) == []


async def test_no_file_of_figures_stays_open_when_a_client_leaves(host: LocalHost) -> None:
    sandbox: Sandbox = (await host.sandboxes.claim(SESSION, LIMITS)).sandbox
    context = await sandbox.contexts.create(NewContext(new_id("ctx_"), {}, "/workspace"))
    for work in (
        sandbox.run(Run(60, command="sleep 60")),
        sandbox.contexts.run(context.id, "await Bun.sleep(60_000)", 60),
    ):
        running = asyncio.create_task(work)
        await eventually(lambda: open_figures(host) != [], "its figures to be open")
        await cancel_and_wait(running)
        await asyncio.sleep(0)
        assert open_figures(host) == []
