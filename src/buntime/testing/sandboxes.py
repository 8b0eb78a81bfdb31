"""Fake sandboxes for tests. Files are a dictionary, and nothing really runs."""

import asyncio
import posixpath
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from buntime.errors import Unavailable
from buntime.ids import new_sandbox_id, new_volume_id
from buntime.image import MADE_PREFIX
from buntime.inside import Ended, FileToWrite, Sink, Stream
from buntime.measurement import Counted
from buntime.paths import RECORDS, WORKSPACE, for_client
from buntime.plan import MB, Limits
from buntime.ports import (
    Budget,
    Claimed,
    Exits,
    HostNumbers,
    Kind,
    NoRoom,
    Observed,
    Run,
    RunResult,
    Sandbox,
    SandboxGone,
    Strain,
    TellExits,
    Used,
    VolumeLost,
    Worked,
)
from buntime.session import DEFAULT_NETWORK, Network, Session, State
from buntime.snapshot import MOST_LAYERS, MadeImage
from buntime.testing.contexts import FakeContexts
from buntime.testing.files import FakeFiles
from buntime.testing.processes import FakeProcesses
from buntime.testing.roots import FakeRoots
from buntime.testing.services import FakeServices
from buntime.testing.terminals import FakeTerminals
from buntime.testing.volumes import FakeVolume, FakeVolumes
from buntime.usage import Counters

IMAGE = "fake"


def result(stdout: bytes = b"", stderr: bytes = b"", exit_code: int = 0, **others: object) -> RunResult:
    """A run's result with plausible numbers. `others` replace fields of RunResult."""
    fields: dict[str, object] = {
        "truncated": False,
        "wall_ms": 5,
        "cpu_ms": 4,
        "peak_memory": 12 * MB,
        "timed_out": False,
        "out_of_memory": False,
        "disk_full": False,
        "met_process_limit": False,
        "files_written": (),
        "files_written_truncated": False,
    }
    return RunResult(stdout=stdout, stderr=stderr, exit_code=exit_code, **(fields | others))  # type: ignore[arg-type]


async def small_shell(run: Run, sandbox: "FakeSandbox") -> RunResult:
    """What fake sandboxes run unless a test says otherwise. It knows one `echo`, `cat`, `printenv`, `touch`, `exit` or
    `sleep`, which takes no time and ends at the timeout. Code is echoed."""
    if run.code is not None:
        return result(run.code.encode() + b"\n")
    name, _, argument = (run.command or "").partition(" ")
    path = posixpath.normpath(posixpath.join(run.working_dir, argument))
    match name:
        case "echo":
            return result(argument.encode() + b"\n")
        case "cat":
            return result(await sandbox.files.read_whole(path, 1 << 30) if argument else run.stdin)
        case "printenv":
            return result(run.env.get(argument, "").encode() + b"\n", exit_code=int(argument not in run.env))
        case "touch":
            await sandbox.files.write_batch([FileToWrite(path, b"")])
            return result(files_written=[for_client(path)])
        case "sleep":
            late = float(argument) > run.timeout
            return result(exit_code=124 if late else 0, timed_out=late)
        case "exit":
            return result(exit_code=int(argument))
    return result(stderr=f"bash: {name}: command not found\n".encode(), exit_code=127)


type Runner = Callable[[Run, FakeSandbox], Awaitable[RunResult]]
type BeforeRules = Callable[[Network], Awaitable[None]]


async def at_once(network: Network) -> None:
    """The kernel takes all rules, and needs no time for it."""


class FakeSandbox:
    """`ports.Sandbox` on a FakeVolume."""

    def __init__(
        self,
        sandbox_id: str,
        volume_id: str,
        volume: FakeVolume,
        runner: Runner,
        image: str,
        env: Mapping[str, str],
        exited: Callable[["FakeSandbox", Ended], None],
        before_rules: BeforeRules,
    ) -> None:
        """`env`: what the image sets. `exited` is called when a process has ended."""
        self._id = sandbox_id
        self._before_rules = before_rules
        self._runner = runner
        self._env = env
        self.image = image
        self.volume_id = volume_id
        self.volume = volume
        self.network: Network = DEFAULT_NETWORK
        self.alive = True
        self.frozen = False
        self.cpu = self.bytes_in = self.bytes_out = self.memory = 0  # what the kernel has counted; a test may set them
        self.session = ""  # id
        self.processes = FakeProcesses(partial(exited, self))
        self.services = FakeServices(self.processes)
        self.contexts = FakeContexts()
        self.terminals = FakeTerminals()
        self.files = FakeFiles(volume, self._check)

    @property
    def id(self) -> str:
        return self._id

    @property
    def address(self) -> str:
        """This machine. A test that listens here plays a program of the session."""
        return "127.0.0.1"

    @property
    def counters(self) -> Counters:
        return Counters(self._id, self.cpu, self.bytes_out, self.memory)

    async def forget_records(self) -> None:
        self._check()
        self.volume.remove_below(RECORDS)

    async def freeze(self) -> bool:
        self._check()
        self.frozen = True
        return True

    async def quiesce(self, *, durable: bool = True) -> bool:
        self.processes.end_all("deep_sleep")
        self.frozen = True
        return True

    async def thaw(self) -> None:
        self.frozen = False

    def live(self, kind: Kind) -> int:
        lives = {"processes": self.processes.live, "terminals": self.terminals.live, "contexts": self.contexts.live}
        return lives.get(kind, 0)

    async def run(self, run: Run, sink: Sink | None = None) -> RunResult:
        self._check()
        result = await self._runner(replace(run, env={**self._env, **run.env}), self)
        if sink is None:
            return result
        outputs: tuple[tuple[Stream, bytes], ...] = (("stdout", result.stdout), ("stderr", result.stderr))
        for stream, content in outputs:
            if content:
                await sink(stream, content)
        return replace(result, stdout=b"", stderr=b"")

    def count_processes(self) -> int:
        return self.processes.live + self.contexts.live + self.terminals.live

    async def observe(self) -> Observed:
        self._check()
        files = sum(name.startswith(WORKSPACE + "/") for name in self.volume.files)
        return Observed(files, self.count_processes())

    async def restrict(self, network: Network) -> None:
        self._check_alive()
        await self._before_rules(network)
        self._check_alive()
        self.network = network

    def _check(self) -> None:
        assert not self.frozen, "a frozen sandbox answers nothing"
        self._check_alive()

    def _check_alive(self) -> None:
        if not self.alive:
            raise SandboxGone(f"{self._id} does not run")


class FakeSandboxes:
    """`ports.Sandboxes` in memory. `runner`: what a run does. `capacity`: how many sandboxes the host can hold.

    A test may clear `open_for_claims` to delay claims, as a busy host does. What it sets as `before_rules` may wait, or
    raise what `Sandbox.restrict` raises. Sandboxes in `out_of_reach` (ids) run and cannot be adopted now.
    """

    def __init__(self, runner: Runner = small_shell, capacity: int = 1000) -> None:
        self._runner = runner
        self.capacity = capacity
        self.claims_waiting = 0
        self.open_for_claims = asyncio.Event()
        self.open_for_claims.set()
        self.before_rules: BeforeRules = at_once
        self.out_of_reach: set[str] = set()
        self.running: dict[str, FakeSandbox] = {}
        self.made: dict[str, MadeImage] = {}  # by id
        self.roots = FakeRoots()
        self.volumes = FakeVolumes(self._used, self._is_stood_on)
        self.short = Strain(memory=0, disk=0)  # for tests to set, like the next one
        self.got_bytes: set[str] = set()  # ids of sessions
        self.used_ahead = 0, 0  # what a sandbox has of `cpu` and `bytes_out` before a session claims it
        self.disconnected: list[str] = []  # ids of sandboxes, in order
        self.parked = self.wanted = self.prepared = 0  # a test may set them; nothing fills the pool
        self.claims = self.misses = self.refused = 0
        self._tell: TellExits | None = None
        self._telling: set[asyncio.Future[None]] = set()

    def on_exited(self, call: TellExits) -> None:
        self._tell = call

    def _exited(self, sandbox: FakeSandbox, ended: Ended) -> None:
        if self._tell is not None:
            telling = asyncio.ensure_future(self._tell(Exits(sandbox.session, [ended], lambda: None)))
            self._telling.add(telling)
            telling.add_done_callback(self._telling.discard)

    async def claim(
        self, session_id: str, limits: Limits, image: str = "", layer: str = "", account: str = ""
    ) -> Claimed:
        layers = self._require_layers(image)
        self.claims_waiting += 1
        await self.open_for_claims.wait()
        self.claims_waiting -= 1
        if sum(not volume.is_layer for volume in self.volumes.values()) >= self.capacity:
            self.refused += 1
            raise Unavailable("This host cannot hold one more session now.")
        self.claims += 1
        self.misses += not self.parked
        self.parked = max(self.parked - 1, 0)
        volume_id = new_volume_id()
        if layer:
            await self.volumes.copy(layer, volume_id, limits.disk)
        else:
            self.volumes[volume_id] = FakeVolume(limits.disk)
            if layers:
                self.volumes[volume_id].stand_on(self.volumes[layers[0]])
        self.volumes[volume_id].remove_below(RECORDS)
        sandbox = self._run(volume_id, image, session_id)
        sandbox.cpu, sandbox.bytes_out = self.used_ahead
        used = None if image or layer else Used(sandbox.counters, 0)
        return Claimed(sandbox, volume_id, image or IMAGE, used)

    async def get(self, sandbox_id: str) -> Sandbox | None:
        return self._reached(sandbox_id)

    async def live(self, sandbox_ids: Collection[str]) -> Callable[[str, Kind], int]:
        def count(sandbox_id: str, kind: Kind) -> int:
            sandbox = self.running.get(sandbox_id)
            return 0 if sandbox is None else sandbox.live(kind)

        return count

    def is_running(self, sandbox_id: str) -> bool:
        return sandbox_id in self.running

    async def start(self, session: Session) -> Sandbox:
        if session.volume not in self.volumes:
            raise VolumeLost(session.volume)
        self._require_layers(session.image)
        if running := await self.get(session.sandbox):
            return running
        sandbox = self._run(session.volume, session.image, session.id)
        sandbox.network = session.network
        return sandbox

    async def kill(self, sandbox_id: str) -> None:
        sandbox = self.running.pop(sandbox_id, None)
        if sandbox is not None:
            sandbox.alive = False
            sandbox.terminals.cut()

    async def restrict(self, sandbox_id: str, network: Network) -> None:
        if (sandbox := self._reached(sandbox_id)) is not None:
            with suppress(SandboxGone):
                await sandbox.restrict(network)

    def _reached(self, sandbox_id: str) -> FakeSandbox | None:
        if sandbox_id in self.out_of_reach:
            raise Unavailable("The session's host cannot act just now.", 5)
        return self.running.get(sandbox_id)

    async def disconnect(self, sandbox_id: str) -> None:
        self.disconnected.append(sandbox_id)

    async def stop(self, session: Session) -> None:
        for sandbox in list(self.running.values()):
            if sandbox.volume_id == session.volume:
                await self.kill(sandbox.id)

    async def destroy(self, session: Session) -> None:
        await self.stop(session)
        await self.volumes.remove(session.volume)

    async def know(self, image: MadeImage) -> None:
        if len(self._chain(image.base)) >= MOST_LAYERS:
            raise ValueError(f"an image has at most {MOST_LAYERS} layers")
        self.made[image.id] = image

    async def forget(self, image_id: str) -> None:
        self.made.pop(image_id, None)

    async def recover(self, owned: Mapping[str, Session], layers: Collection[str] = ()) -> None:
        for sandbox_id in set(self.running) - set(owned):
            await self.kill(sandbox_id)
        for volume_id in set(self.volumes) - {session.volume for session in owned.values()} - set(layers):
            await self.volumes.remove(volume_id)
        for session in owned.values():
            self.volumes.drop_parents(session.volume, but=session.saved.mark if session.saved else "")
        for sandbox in list(self.running.values()):
            if owned[sandbox.id].state is State.DEEP_SLEEP:
                await self.kill(sandbox.id)
            sandbox.frozen = owned[sandbox.id].state is State.IDLE

    def on_lost(self, call: Callable[[str], Coroutine[Any, Any, None]]) -> None:
        """Never called: a sandbox here always answers."""

    async def adopt(self) -> None:
        """`recover` has adopted them all."""

    def strain(self) -> Strain:
        return self.short

    def numbers(self) -> HostNumbers:
        return HostNumbers(
            running=len(self.running),
            to_adopt=0,
            parked=self.parked,
            wanted=self.wanted,
            prepared=self.prepared,
            claims=self.claims,
            misses=self.misses,
            addresses=self.capacity,
            addresses_used=len(self.running) + self.parked,
            memory=Budget(4096 * MB, 1024 * MB, 512 * MB),
            host_disk=Budget(40960 * MB, 10240 * MB, 2048 * MB),
            volumes_disk=Budget(20480 * MB, sum(volume.used for volume in self.volumes.values()), 2048 * MB),
            no_room={reason: self.refused if reason is NoRoom.MEMORY else 0 for reason in NoRoom},
        )

    def images(self) -> Collection[str]:
        return {image for image in self.made if all(each.layer in self.volumes for each in self._chain(image))}

    async def used(self, sessions: Sequence[Session]) -> Mapping[str, Used]:
        return {session.id: self._used_by(session) for session in sessions}

    def _used_by(self, session: Session) -> Used:
        sandbox, volume = self.running.get(session.sandbox), self.volumes.get(session.volume)
        return Used(sandbox.counters if sandbox else None, volume.used if volume else 0)

    async def counted(self, sessions: Sequence[Session]) -> Mapping[str, Counted]:
        found = {}
        for session in sessions:
            sandbox, used = self.running.get(session.sandbox), self._used_by(session)
            if sandbox is not None and used.counters is not None:
                found[session.id] = Counted(used.counters, sandbox.bytes_in, sandbox.count_processes(), used.disk)
        return found

    async def worked(self, sessions: Sequence[Session]) -> Mapping[str, Worked]:
        running = {session.id: self.running[session.sandbox] for session in sessions if session.sandbox in self.running}
        return {name: Worked(one.id, one.cpu, one.bytes_in + one.bytes_out) for name, one in running.items()}

    async def touched(self) -> Collection[str]:
        return self.got_bytes

    def _used(self) -> set[str]:
        return {sandbox.volume_id for sandbox in self.running.values()}

    def _chain(self, image_id: str) -> list[MadeImage]:
        """The made image and those below it, the uppermost first."""
        chain = list[MadeImage]()
        while image_id in self.made:
            chain.append(self.made[image_id])
            image_id = chain[-1].base
        return chain

    def _require_layers(self, image_id: str) -> list[str]:
        """The image's layers, the uppermost first. The host has every image that nobody made, unless `roots` says
        otherwise."""
        chain = self._chain(image_id)
        lowest = chain[-1].base if chain else image_id
        if lowest.startswith(MADE_PREFIX) or not self.roots.has(lowest):
            raise Unavailable(f"This host does not have the image {image_id} that the session stands on.")
        for made in chain:
            if made.layer not in self.volumes:
                raise VolumeLost(made.layer)
        return [made.layer for made in chain]

    def _is_stood_on(self, layer: str) -> bool:
        images = (sandbox.image for sandbox in self.running.values())
        return any(made.layer == layer for image in images for made in self._chain(image))

    def _run(self, volume_id: str, image: str, session_id: str) -> FakeSandbox:
        env = {name: value for made in reversed(self._chain(image)) for name, value in made.env.items()}
        volume = self.volumes[volume_id]
        own = new_sandbox_id(), volume_id, volume, self._runner, image, env
        sandbox = FakeSandbox(*own, self._exited, lambda network: self.before_rules(network))
        sandbox.session = session_id
        self.running[sandbox.id] = sandbox
        return sandbox
