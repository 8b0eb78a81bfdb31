"""The kernel's limits and accounts of a sandbox, for cgroup v1 and v2.

    buntime-<instance>/<sandbox>/          cpu, memory and disk I/O of the whole, the guest's share added
                                /guest     init and guest: the OCI runtime puts them there
                                /runs      the session's own limits
                                     /<n>  one run: what it starts is born here and counted here

Memory and pids are limited at `runs`: a session that uses up its own cannot take the guest with it. Pids are limited
at each run, too: one that uses up its own leaves some for the next.
The runtime makes `guest`; this module makes and removes the rest. All calls are quick file access.
"""

import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from buntime.plan import MB, Limits
from buntime.sandboxes.kernel.cgroup_tree import (
    children_of,
    field_of,
    pids_of,
    put_if_there,
    put_text,
    remove_directory,
    remove_tree,
    signal_members,
    text_of,
)

ROOT = Path("/sys/fs/cgroup")
PERIOD_US = 100_000
GUEST_CPU = 0.1  # cores that init and guest may use beside a session that uses all of its own
GUEST_MEMORY = 96 * MB
SOCKET_SHARE = 8  # cgroup v1 counts what sockets hold beside the memory: up to this part of it as much again
RUN_PIDS = 512  # processes and threads of all runs of a session …
ONE_RUN_PIDS = 448  # … and of one, so that a fork bomb leaves some for the next command
MANY_PIDS = 64  # so many are taken to have met the session's limit, where the kernel does not say who did
FEW_PIDS = 16  # with so few left, a session has met its limit
GUEST_PIDS = 128
KILL_SECONDS = 5.0
# disk I/O of one sandbox: far above what an agent's work needs, far below what starves its neighbours
READ_BYTES, WRITE_BYTES, OPERATIONS = 200 * MB, 100 * MB, 2000  # a second


@dataclass(frozen=True, slots=True)
class RunUsage:
    cpu_ms: int
    peak_memory: int  # bytes
    memory_kills: int  # processes that the kernel killed for memory


class Cgroups(Protocol):
    """Idempotent where it can be. `sandbox` and `run` are our own names, never a session's."""

    def oci_path(self, sandbox: str) -> str: ...
    def create(self, sandbox: str, disk: str | None) -> None:
        """`disk`: "major:minor" of the disk that I/O limits are for, or of a partition of it."""
        ...

    def limit(self, sandbox: str, limits: Limits) -> None: ...
    def guest_processes(self, sandbox: str) -> list[int]: ...
    def session_processes(self, sandbox: str, leave_out: Iterable[str] = ()) -> int: ...
    def runs(self, sandbox: str) -> list[str]: ...
    def run_processes(self, sandbox: str, run: str) -> list[int]: ...
    def place_of(self, membership: str) -> tuple[str | None, str | None]:
        """The sandbox and the run that /proc/<pid>/cgroup tells of; no run for the guest."""
        ...

    def add_run(self, sandbox: str, run: str) -> None: ...
    def join_run(self, sandbox: str, run: str, pid: int) -> None: ...
    def usage(self, sandbox: str, run: str) -> RunUsage: ...
    def refused_forks(self, sandbox: str, run: str) -> int:
        """How many the kernel counts at the run itself."""
        ...

    def refused_by_session(self, sandbox: str) -> int:
        """How many it counts only at all runs together: 0 on v1."""
        ...

    def processes(self, sandbox: str) -> int:
        """Processes and threads of all runs."""
        ...

    def crowds(self, sandbox: str, run: str) -> bool:
        """Whether the run holds many of the session's processes, or the session has none left."""
        ...

    def kill_run(self, sandbox: str, run: str) -> bool:
        """Ends every process of the run; whether none is left."""
        ...

    def remove_run(self, sandbox: str, run: str) -> bool:
        """False where processes live in it."""
        ...

    def terminate(self, sandbox: str) -> None:
        """SIGTERM to every process of every run."""
        ...

    def freeze(self, sandbox: str, frozen: bool) -> None:
        """Tells the kernel to stop, or let go on, every process of the sandbox."""
        ...

    def is_frozen(self, sandbox: str) -> bool:
        """Whether all of them have stopped."""
        ...

    def memory_free(self, sandbox: str) -> tuple[int, int]:
        """Bytes that the session may use beyond what it does, files' pages in memory aside; and its limit."""
        ...

    def hoarders(self, sandbox: str) -> list[str]:
        """Runs to end because the session's sockets hold twice what they may: the kernel does not stop them itself."""
        ...

    def throttled(self, sandbox: str) -> int:
        """How often the session has had to wait because its CPU time was used up, ever."""
        ...

    def reclaiming(self, sandbox: str) -> list[str]:
        """The command that has the kernel take what it can of the sandbox's memory: where the host swaps, nearly all.
        It ends when it is killed; what was taken until then stays taken."""
        ...

    def remove(self, sandbox: str) -> bool:
        """The whole tree of a sandbox whose processes are gone; False where something lives."""
        ...

    def sandboxes(self) -> set[str]:
        """Those that have a tree."""
        ...

    def remove_root(self) -> None: ...


def find_cgroups(instance: str) -> Cgroups:
    name = f"buntime-{instance}"
    return CgroupsV2(ROOT / name) if (ROOT / "cgroup.controllers").exists() else CgroupsV1(ROOT, name)


def is_hybrid() -> bool:
    """v1 with an empty v2 beside it, which crun refuses unless it is hidden from it."""
    return (ROOT / "unified").is_dir() and (ROOT / "memory").is_dir()


def whole_disk(device: str, devices: Path = Path("/sys/dev/block")) -> str:
    """The disk that a partition is on, both as "major:minor": the kernel refuses to limit a partition."""
    place = (devices / device).resolve()
    return (place.parent / "dev").read_text().strip() if (place / "partition").exists() else device


class CgroupsV1:
    OURS = ("memory", "pids", "cpu", "cpuacct", "blkio")
    PER_RUN = ("memory", "pids", "cpu", "cpuacct")  # cpu: runs share the session's equally, whatever each has forked
    SOCKETS, SOCKETS_HELD = "memory.kmem.tcp.limit_in_bytes", "memory.kmem.tcp.usage_in_bytes"
    ALL = (*OURS, "cpuset", "devices", "freezer", "systemd")

    def __init__(self, root: Path, name: str) -> None:
        self._mounts = root
        self._name = name

    def _dir(self, controller: str, sandbox: str, *rest: str) -> Path:
        return self._mounts.joinpath(controller, self._name, sandbox, *rest)

    def oci_path(self, sandbox: str) -> str:
        return f"/{self._name}/{sandbox}/guest"

    def create(self, sandbox: str, disk: str | None) -> None:
        for controller in self.OURS:
            self._dir(controller, sandbox, "runs").mkdir(parents=True, exist_ok=True)
        (self._dir("pids", sandbox) / "pids.max").write_text(str(RUN_PIDS + GUEST_PIDS))
        (self._dir("pids", sandbox, "runs") / "pids.max").write_text(str(RUN_PIDS))
        if disk:
            throttle = self._dir("blkio", sandbox)
            for name, value in (
                ("read_bps", READ_BYTES),
                ("write_bps", WRITE_BYTES),
                ("read_iops", OPERATIONS),
                ("write_iops", OPERATIONS),
            ):
                (throttle / f"blkio.throttle.{name}_device").write_text(f"{whole_disk(disk)} {value}")

    def limit(self, sandbox: str, limits: Limits) -> None:
        whole, runs = limits.memory * MB + GUEST_MEMORY, limits.memory * MB
        pairs = [(self._dir("memory", sandbox), whole), (self._dir("memory", sandbox, "runs"), runs)]
        # a child may not exceed its parent, nor memory what memory and swap are together: grow from the top, shrink
        # from the bottom
        now = int((pairs[0][0] / "memory.limit_in_bytes").read_text())
        steps = [step for directory, size in pairs for step in _memory_limits_v1(directory, size)]
        for file, size in steps if whole >= now else reversed(steps):
            file.write_text(str(size))
        with suppress(FileNotFoundError):  # the kernel may not account for it
            (pairs[1][0] / self.SOCKETS).write_text(str(runs // SOCKET_SHARE))
        for directory, cores in _largest_first(
            self._dir("cpu", sandbox), limits.cpu + GUEST_CPU, self._dir("cpu", sandbox, "runs"), limits.cpu
        ):
            _set_cpu_v1(directory, int(cores * PERIOD_US))

    def guest_processes(self, sandbox: str) -> list[int]:
        return pids_of(self._dir("pids", sandbox, "guest"))

    def session_processes(self, sandbox: str, leave_out: Iterable[str] = ()) -> int:
        runs = set(self.runs(sandbox)) - set(leave_out)
        return sum(len(pids_of(self._dir("pids", sandbox, "runs", run))) for run in runs)

    def runs(self, sandbox: str) -> list[str]:
        return children_of(self._dir("pids", sandbox, "runs"))

    def run_processes(self, sandbox: str, run: str) -> list[int]:
        return pids_of(self._dir("pids", sandbox, "runs", run))

    def place_of(self, membership: str) -> tuple[str | None, str | None]:
        return _place_of(membership, "pids", self._name)

    def add_run(self, sandbox: str, run: str) -> None:
        for controller in self.PER_RUN:
            self._dir(controller, sandbox, "runs", run).mkdir(exist_ok=True)
        (self._dir("pids", sandbox, "runs", run) / "pids.max").write_text(str(ONE_RUN_PIDS))
        with suppress(FileNotFoundError):
            # no limit, which starts the counting in this group; the limit of all runs is the one above
            put_text(self._dir("memory", sandbox, "runs", run) / self.SOCKETS, "-1")

    def join_run(self, sandbox: str, run: str, pid: int) -> None:
        for controller in self.PER_RUN:
            (self._dir(controller, sandbox, "runs", run) / "cgroup.procs").write_text(str(pid))

    def usage(self, sandbox: str, run: str) -> RunUsage:
        memory = self._dir("memory", sandbox, "runs", run)
        spent = int(text_of(self._dir("cpuacct", sandbox, "runs", run) / "cpuacct.usage"))
        return RunUsage(
            cpu_ms=spent // 1_000_000,
            peak_memory=int(text_of(memory / "memory.max_usage_in_bytes")),
            memory_kills=field_of(memory / "memory.oom_control", "oom_kill"),
        )

    def refused_forks(self, sandbox: str, run: str) -> int:
        return field_of(self._dir("pids", sandbox, "runs", run) / "pids.events", "max")

    def refused_by_session(self, sandbox: str) -> int:
        return 0

    def processes(self, sandbox: str) -> int:
        return int(text_of(self._dir("pids", sandbox, "runs") / "pids.current"))

    def crowds(self, sandbox: str, run: str) -> bool:
        return _crowds(self._dir("pids", sandbox, "runs"), run)

    def kill_run(self, sandbox: str, run: str) -> bool:
        group = self._dir("pids", sandbox, "runs", run)
        if not put_if_there(group / "pids.max", "0"):  # nothing in it can fork any more: the loop ends
            return True
        deadline = time.monotonic() + KILL_SECONDS
        while pids := pids_of(group):
            signal_members(group, pids, signal.SIGKILL)
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)
        return True

    def remove_run(self, sandbox: str, run: str) -> bool:
        gone = [remove_directory(self._dir(controller, sandbox, "runs", run)) for controller in self.PER_RUN]
        return all(gone)

    def terminate(self, sandbox: str) -> None:
        for run in self.runs(sandbox):
            group = self._dir("pids", sandbox, "runs", run)
            signal_members(group, pids_of(group), signal.SIGTERM)

    def memory_free(self, sandbox: str) -> tuple[int, int]:
        runs = self._dir("memory", sandbox, "runs")
        limit = int((runs / "memory.limit_in_bytes").read_text())
        return _free(runs, limit, int((runs / "memory.usage_in_bytes").read_text()), "total_"), limit

    def hoarders(self, sandbox: str) -> list[str]:
        runs = self._dir("memory", sandbox, "runs")
        limit, held = (int(text_of(runs / name)) for name in (self.SOCKETS, self.SOCKETS_HELD))
        if held < 2 * limit:
            return []
        of_run = {run: int(text_of(runs / run / self.SOCKETS_HELD)) for run in self.runs(sandbox)}
        return [run for run in of_run if of_run[run] >= limit // max(1, len(of_run))]

    def throttled(self, sandbox: str) -> int:
        return field_of(self._dir("cpu", sandbox, "runs") / "cpu.stat", "nr_throttled")

    def freeze(self, sandbox: str, frozen: bool) -> None:
        # processes of runs stay in the guest's group of this controller, which is below the sandbox's
        (self._dir("freezer", sandbox) / "freezer.state").write_text("FROZEN" if frozen else "THAWED")

    def is_frozen(self, sandbox: str) -> bool:
        return (self._dir("freezer", sandbox) / "freezer.state").read_text().strip() == "FROZEN"

    def reclaiming(self, sandbox: str) -> list[str]:
        return ["sh", "-c", 'echo 0 >"$0"', str(self._dir("memory", sandbox) / "memory.force_empty")]

    def remove(self, sandbox: str) -> bool:
        gone = [remove_tree(self._dir(controller, sandbox)) for controller in self.ALL]
        return all(gone)

    def sandboxes(self) -> set[str]:
        return {name for c in self.ALL for name in children_of(self._mounts / c / self._name)}

    def remove_root(self) -> None:
        for controller in self.ALL:
            remove_directory(self._mounts / controller / self._name)


class CgroupsV2:
    CONTROLLERS = "+cpu +memory +pids +io"

    def __init__(self, root: Path) -> None:
        self._root = root

    def _dir(self, sandbox: str, *rest: str) -> Path:
        return self._root.joinpath(sandbox, *rest)

    def oci_path(self, sandbox: str) -> str:
        return f"/{self._root.name}/{sandbox}/guest"

    def create(self, sandbox: str, disk: str | None) -> None:
        top, runs = self._dir(sandbox), self._dir(sandbox, "runs")
        runs.mkdir(parents=True, exist_ok=True)
        for parent in (self._root.parent, self._root, top, runs):
            (parent / "cgroup.subtree_control").write_text(self.CONTROLLERS)
        (top / "pids.max").write_text(str(RUN_PIDS + GUEST_PIDS))
        (runs / "pids.max").write_text(str(RUN_PIDS))
        if disk:
            limits = f"rbps={READ_BYTES} wbps={WRITE_BYTES} riops={OPERATIONS} wiops={OPERATIONS}"
            (top / "io.max").write_text(f"{whole_disk(disk)} {limits}")

    def limit(self, sandbox: str, limits: Limits) -> None:
        top, runs = self._dir(sandbox), self._dir(sandbox, "runs")
        for directory, size, cores in (
            (top, limits.memory * MB + GUEST_MEMORY, limits.cpu + GUEST_CPU),
            (runs, limits.memory * MB, limits.cpu),
        ):
            (directory / "memory.max").write_text(str(size))
            (directory / "memory.swap.max").write_text(str(size))  # where the host swaps: as much again, no more
            quota = int(cores * PERIOD_US)
            (directory / "cpu.max.burst").write_text("0")
            (directory / "cpu.max").write_text(f"{quota} {PERIOD_US}")
            (directory / "cpu.max.burst").write_text(str(quota))

    def guest_processes(self, sandbox: str) -> list[int]:
        return pids_of(self._dir(sandbox, "guest"))

    def session_processes(self, sandbox: str, leave_out: Iterable[str] = ()) -> int:
        runs = set(self.runs(sandbox)) - set(leave_out)
        return sum(len(pids_of(self._dir(sandbox, "runs", run))) for run in runs)

    def runs(self, sandbox: str) -> list[str]:
        return children_of(self._dir(sandbox, "runs"))

    def run_processes(self, sandbox: str, run: str) -> list[int]:
        return pids_of(self._dir(sandbox, "runs", run))

    def place_of(self, membership: str) -> tuple[str | None, str | None]:
        return _place_of(membership, "", self._root.name)

    def add_run(self, sandbox: str, run: str) -> None:
        group = self._dir(sandbox, "runs", run)
        group.mkdir(exist_ok=True)
        (group / "pids.max").write_text(str(ONE_RUN_PIDS))

    def join_run(self, sandbox: str, run: str, pid: int) -> None:
        (self._dir(sandbox, "runs", run) / "cgroup.procs").write_text(str(pid))

    def usage(self, sandbox: str, run: str) -> RunUsage:
        group = self._dir(sandbox, "runs", run)
        return RunUsage(
            cpu_ms=field_of(group / "cpu.stat", "usage_usec") // 1000,
            peak_memory=int(text_of(group / "memory.peak")),
            memory_kills=field_of(group / "memory.events.local", "oom_kill"),
        )

    def refused_forks(self, sandbox: str, run: str) -> int:
        return field_of(self._dir(sandbox, "runs", run) / "pids.events", "max")

    def refused_by_session(self, sandbox: str) -> int:
        try:  # `pids.events` would add those of each run's own limit
            return field_of(self._dir(sandbox, "runs") / "pids.events.local", "max")
        except FileNotFoundError:  # before Linux 6.11: counted at the run
            return 0

    def processes(self, sandbox: str) -> int:
        return int(text_of(self._dir(sandbox, "runs") / "pids.current"))

    def crowds(self, sandbox: str, run: str) -> bool:
        return _crowds(self._dir(sandbox, "runs"), run)

    def kill_run(self, sandbox: str, run: str) -> bool:
        group = self._dir(sandbox, "runs", run)
        if not put_if_there(group / "cgroup.kill", "1"):
            return True
        deadline = time.monotonic() + KILL_SECONDS
        while pids_of(group):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)
        return True

    def remove_run(self, sandbox: str, run: str) -> bool:
        return remove_directory(self._dir(sandbox, "runs", run))

    def terminate(self, sandbox: str) -> None:
        for run in self.runs(sandbox):
            group = self._dir(sandbox, "runs", run)
            signal_members(group, pids_of(group), signal.SIGTERM)

    def memory_free(self, sandbox: str) -> tuple[int, int]:
        runs = self._dir(sandbox, "runs")
        limit = int((runs / "memory.max").read_text())
        return _free(runs, limit, int((runs / "memory.current").read_text()), ""), limit

    def hoarders(self, sandbox: str) -> list[str]:
        return []  # what sockets hold is memory like any other

    def throttled(self, sandbox: str) -> int:
        return field_of(self._dir(sandbox, "runs") / "cpu.stat", "nr_throttled")

    def freeze(self, sandbox: str, frozen: bool) -> None:
        (self._dir(sandbox) / "cgroup.freeze").write_text(str(int(frozen)))

    def is_frozen(self, sandbox: str) -> bool:
        return field_of(self._dir(sandbox) / "cgroup.events", "frozen") == 1

    def reclaiming(self, sandbox: str) -> list[str]:
        return ["sh", "-c", 'cat "$0/memory.current" >"$0/memory.reclaim"', str(self._dir(sandbox))]

    def remove(self, sandbox: str) -> bool:
        return remove_tree(self._dir(sandbox))

    def sandboxes(self) -> set[str]:
        return set(children_of(self._root))

    def remove_root(self) -> None:
        remove_directory(self._root)


def _place_of(membership: str, controller: str, name: str) -> tuple[str | None, str | None]:
    """Lines are "<number>:<controllers>:<path>"; v2 names no controllers."""
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        _, found, below = path.partition(f"/{name}/")
        if found and controller in controllers.split(","):
            sandbox, *rest = below.split("/")
            return sandbox, rest[1] if len(rest) > 1 and rest[0] == "runs" else None
    return None, None


def _crowds(runs: Path, run: str) -> bool:
    if int(text_of(runs / run / "pids.current")) >= MANY_PIDS:
        return True
    return int(text_of(runs / "pids.current")) > RUN_PIDS - FEW_PIDS


def _free(group: Path, limit: int, used: int, prefix: str) -> int:
    names = ("inactive_file", "active_file")
    return limit - used + sum(field_of(group / "memory.stat", prefix + name) for name in names)


def _memory_limits_v1(directory: Path, size: int) -> list[tuple[Path, int]]:
    with_swap = directory / "memory.memsw.limit_in_bytes"  # where the host swaps: as much again, no more
    swap = [(with_swap, 2 * size)] if with_swap.exists() else []  # the kernel may not account for it
    return [*swap, (directory / "memory.limit_in_bytes", size)]


def _largest_first(a: Path, a_cores: float, b: Path, b_cores: float) -> Iterator[tuple[Path, float]]:
    """A child's quota may never exceed its parent's: free the parent, set the child, set the parent."""
    (a / "cpu.cfs_burst_us").write_text("0")
    (a / "cpu.cfs_quota_us").write_text("-1")
    yield b, b_cores
    yield a, a_cores


def _set_cpu_v1(directory: Path, quota: int) -> None:
    (directory / "cpu.cfs_burst_us").write_text("0")
    (directory / "cpu.cfs_period_us").write_text(str(PERIOD_US))
    (directory / "cpu.cfs_quota_us").write_text(str(quota))
    (directory / "cpu.cfs_burst_us").write_text(str(quota))
