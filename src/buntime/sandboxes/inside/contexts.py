"""Contexts of the session, by way of its guest. Implements `inside.Contexts`.

`guest/native/contexts/contexts.c` describes the protocol. Each context has a cgroup, which the launcher knows by
the context's id.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Annotated
from weakref import WeakValueDictionary

import msgspec
from msgspec import Meta

from buntime.daemon.tasks import begun, ends_within
from buntime.errors import BuntimeError, ContextLost, ContextNotFound, InvalidRequest, SessionBusy
from buntime.inside import Context, ContextFailure, Evaluation, NewContext, Shows, Sink
from buntime.ports import OUTPUT_LIMIT, SandboxGone
from buntime.sandboxes.guest.client import LARGEST_NUMBER, Count, Guest, Nothing
from buntime.sandboxes.inside.evaluations import Evaluated, read_evaluation
from buntime.sandboxes.inside.launcher import ANSWER_SECONDS, Launcher, Spare
from buntime.sandboxes.inside.sinks import WatchedSinks
from buntime.sandboxes.kernel.cgroup import NO_USAGE, RunUsage
from buntime.sandboxes.kernel.cgroup_tree import OpenFiles
from buntime.sandboxes.machinery import Machinery

TIMEOUT_EXIT, INTERRUPTED_EXIT, THREW_EXIT = 124, 130, 1
MOST = 2000  # contexts that a guest may list …
LARGEST_LIST = 2 << 20  # … in so many bytes


class _Context(msgspec.Struct, rename="camel"):
    id: Annotated[str, Meta(pattern="^ctx_[a-z0-9]{18}$")]
    created_at: Count
    working_dir: Annotated[str, Meta(max_length=4096)]
    runs: Count
    lost: Annotated[str, Meta(max_length=100)] | None

    def shown(self) -> Context:
        status = "running" if self.lost is None else "lost"
        known = (self.created_at, self.runs, self.working_dir, self.lost)
        return Context(self.id, status, *known)  # type: ignore[arg-type]


class _Created(msgspec.Struct):
    context: _Context | None
    said: Annotated[str, Meta(max_length=10_000)]


class _List(msgspec.Struct):
    contexts: Annotated[list[_Context], Meta(max_length=MOST)]


class _Idle(msgspec.Struct):
    idle: bool


class _Known(msgspec.Struct):
    known: bool


class GuestContexts:
    def __init__(
        self, guest: Guest, launcher: Launcher, machinery: Machinery, disk_is_full: Callable[[float], Awaitable[bool]]
    ) -> None:
        self._guest = guest
        self._launcher = launcher
        self._machinery = machinery
        self._disk_is_full = disk_is_full
        # by id: one run at a time; None before the first run, because most sessions have no contexts
        self._turns: WeakValueDictionary[str, asyncio.Lock] | None = None

    async def take_over(self) -> None:
        """Interrupts runs whose client is gone, after a restart of the server."""
        if self._launcher.live("contexts") == 0:
            return
        for context in await self.list():
            if context.status == "running":
                await self._stop(context.id, "killed")

    async def create(self, new: NewContext) -> Context:
        body = msgspec.json.encode({"id": new.id, "env": {**self._launcher.env, **new.env}, "cwd": new.working_dir})

        async def start(spare: Spare) -> Context:
            query = {"spare": str(spare.pid)}
            made = await self._guest.call("POST", "/contexts/create", query, _Created, body)
            if made.context is None or made.context.id != new.id:
                raise _refusal(made.said)
            return made.context.shown()

        context, _ = await self._launcher.background("contexts", start, new.id)
        return context

    async def list(self) -> Sequence[Context]:
        asked = self._guest.call("GET", "/contexts", {}, _List, most=LARGEST_LIST)
        found = await self._launcher.in_time(asked, ANSWER_SECONDS)
        return [context.shown() for context in found.contexts]

    async def delete(self, context_id: str) -> None:
        if not (await self._ask("POST", "/contexts/delete", {"id": context_id}, _Known)).known:
            raise ContextNotFound(context_id)
        await self._end_all_of(context_id)

    async def ending(self) -> None:
        if self._launcher.live("contexts") > 0:
            await self._ask("POST", "/contexts/ending", {}, Nothing)

    async def settled(self) -> None:
        """Waits until all runs that clients have left are ended. To be called while no request uses the sandbox."""
        for turn in list(self._turns.values()) if self._turns is not None else ():
            async with turn:
                pass

    # --- runs ---

    async def run(
        self, context_id: str, code: str, timeout: float, sink: Sink | None = None, shows: Shows | None = None
    ) -> Evaluation:
        await self._launcher.make_room()
        if self._turns is None:
            self._turns = WeakValueDictionary()
        turn = self._turns.setdefault(context_id, asyncio.Lock())
        await turn.acquire()
        figures = OpenFiles()
        group = self._held_group(context_id)
        sinks = WatchedSinks(sink, shows)
        started = time.monotonic()
        running = begun(self._evaluate(context_id, code, sinks), f"run in {context_id}")  # it sends the request
        goes_on = False
        try:
            if group is not None:  # behind the request, which takes longer than this to reach the code
                self._launcher.watch(group, figures.text_of, used=True)
            before = self._usage(group, figures)
            late = await self._wait(context_id, running, sinks, timeout)
            wall_ms = int((time.monotonic() - started) * 1000)
            async with self._launcher.ending_an_impostor():
                evaluated = running.result()
            goes_on = not evaluated.has_lost_context
            _raise_for_outcome(context_id, evaluated)
            met_limit = group is not None and self._launcher.met_limit(group, figures.text_of)
            usage = self._usage(group, figures)
            if met_limit:
                await self._end_all_of(context_id)
            result = self._evaluation(evaluated, before, usage, wall_ms, late=late, met_limit=met_limit)
            failed = result.exit_code not in (0, TIMEOUT_EXIT)
            return replace(result, disk_full=True) if failed and await self._disk_is_full(started) else result
        finally:
            if goes_on:
                self._leave(group, turn)
            else:
                self._machinery.tasks.start(self._settle(context_id, group, turn, running), f"end in {context_id}")
            asyncio.get_running_loop().call_soon(figures.close)  # behind the answer

    def _held_group(self, context_id: str) -> str | None:
        """The context's cgroup, held for the run that begins."""
        group = self._launcher.named(context_id)
        if group is not None:
            self._launcher.hold(group)
        return group

    async def _evaluate(self, context_id: str, code: str, sinks: WatchedSinks) -> Evaluated:
        limit = OUTPUT_LIMIT if sinks.sink is None else LARGEST_NUMBER
        body = msgspec.json.encode({"code": code, "maxOutput": limit, "live": sinks.sink is not None})
        async with self._guest.request("POST", "/contexts/run", {"id": context_id}, body) as answer:
            return await read_evaluation(answer, sinks.sink, sinks.shows)

    async def _wait(
        self, context_id: str, running: asyncio.Future[Evaluated], sinks: WatchedSinks, timeout: float
    ) -> bool:
        """Waits until the run has ended. True when it reached its timeout and was interrupted."""
        with self._machinery.runs.one():
            if await ends_within(timeout, running):
                return False
            await self._launcher.until_thawed()
            thaws = self._launcher.thaws()
            await self._stop(context_id, "timeout")
            while not await sinks.drained(running, ANSWER_SECONDS):
                await self._launcher.in_time(_until(running), 0, thaws)
            return True

    async def _stop(self, context_id: str, reason: str) -> None:
        """Interrupts the context's run. Code that does not stop is killed, and the context with it."""
        query = {"id": context_id, "reason": reason}
        asked = self._guest.call("POST", "/contexts/interrupt", query, _Idle)
        if not (await self._launcher.in_time(asked, ANSWER_SECONDS)).idle:
            group = self._launcher.named(context_id)
            if group is not None:
                await asyncio.to_thread(self._launcher.kill_run, group)

    def _leave(self, group: str | None, turn: asyncio.Lock) -> None:
        if group is not None:
            self._launcher.release(group)
        turn.release()

    async def _settle(
        self, context_id: str, group: str | None, turn: asyncio.Lock, running: asyncio.Future[Evaluated]
    ) -> None:
        """Ends a run whose client has left, and what a lost context has left behind."""
        try:
            if not running.done() or running.cancelled() or running.exception() is not None:
                running.cancel()
                await self._launcher.until_thawed()
                await self._stop(context_id, "killed")
            elif running.result().has_lost_context:
                await self._end_all_of(context_id)
        except (SandboxGone, BuntimeError):
            pass  # the run has ended too
        finally:
            self._leave(group, turn)

    async def _end_all_of(self, context_id: str) -> None:
        """Ends everything that the context has started."""
        group = self._launcher.named(context_id)
        if group is not None:
            await asyncio.to_thread(self._launcher.end, group)

    def _usage(self, group: str | None, figures: OpenFiles) -> RunUsage:
        try:
            return NO_USAGE if group is None else self._launcher.usage(group, figures.text_of)
        except SandboxGone:
            return NO_USAGE

    def _evaluation(
        self, evaluated: Evaluated, before: RunUsage, after: RunUsage, wall_ms: int, *, late: bool, met_limit: bool
    ) -> Evaluation:
        end, told = evaluated.end, evaluated.told
        late = late and (told is None or told.interrupted)
        failure = told.failure if told is not None else None
        exit_code = TIMEOUT_EXIT if late else _exit_code(evaluated)
        return Evaluation(
            exit_code=exit_code,
            value=told.value.plain() if told is not None and told.value is not None else None,
            displayed=evaluated.displayed,
            failure=None if failure is None else ContextFailure(failure.name, failure.message, failure.stack),
            survived=end.exit_code is None and not met_limit,
            timed_out=late,
            out_of_memory=after.memory_kills > before.memory_kills,
            disk_full=False,
            met_process_limit=met_limit,
            stdout=evaluated.stdout,
            stderr=evaluated.stderr,
            truncated=end.truncated,
            wall_ms=wall_ms,
            cpu_ms=max(after.cpu_ms - before.cpu_ms, 0),
            peak_memory=after.peak_memory,
            files_written=end.files_written,
            files_written_truncated=end.files_written_truncated,
        )

    async def _ask[T](self, method: str, path: str, query: dict[str, str], kind: type[T]) -> T:
        return await self._launcher.in_time(self._guest.call(method, path, query, kind), ANSWER_SECONDS)


async def _until(running: asyncio.Future[Evaluated]) -> None:
    await asyncio.wait({running})


def _exit_code(evaluated: Evaluated) -> int:
    if evaluated.told is None:
        return evaluated.end.exit_code or 0
    if evaluated.told.interrupted:
        return INTERRUPTED_EXIT
    return THREW_EXIT if evaluated.told.failure is not None else 0


def _raise_for_outcome(context_id: str, evaluated: Evaluated) -> None:
    match evaluated.end.outcome:
        case "absent":
            raise ContextNotFound(context_id)
        case "lost":
            raise ContextLost(context_id, evaluated.end.reason)
        case "busy":
            raise SessionBusy("Another run of this context has not ended yet.", contextId=context_id)


def _refusal(said: str) -> BuntimeError:
    """Why a context did not start. `said`: what its process printed."""
    if said.startswith("buntime: workingDir "):
        return InvalidRequest("workingDir", said.removeprefix("buntime: ").strip()[:1000])
    return SessionBusy("The context's process ended while it started. Try again, or stop something.", said=said[:1000])
