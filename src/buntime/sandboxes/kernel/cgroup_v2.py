"""Cgroups v2: one tree for all controllers. See `cgroup`."""

import signal
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from buntime.plan import MB, Limits
from buntime.sandboxes.kernel.cgroup import (
    GUEST_CPU,
    GUEST_MEMORY,
    GUEST_PIDS,
    KILL_SECONDS,
    ONE_RUN_PIDS,
    OPERATIONS,
    PERIOD_US,
    READ_BYTES,
    RUN_PIDS,
    WRITE_BYTES,
    RunUsage,
    crowds,
    memory_free,
    place_of,
    put_if_other,
    whole_disk,
)
from buntime.sandboxes.kernel.cgroup_tree import (
    Read,
    children_of,
    field_of,
    make_directory,
    pids_of,
    put_if_there,
    put_text,
    remove_directory,
    remove_tree,
    signal_members,
    text_of,
)

SWAP_LIMIT = "memory.swap.max"
SWAP_SHARE = 2  # this part of a session's memory may be in swap, so that the rest is enough to bring it back


class CgroupsV2:
    CONTROLLERS = "+cpu +memory +pids +io"
    PER_RUN = "+cpu +pids +io"  # memory follows, see `count_memory`

    def __init__(self, root: Path) -> None:
        self._root = root

    def _dir(self, sandbox: str, *rest: str) -> Path:
        return self._root.joinpath(sandbox, *rest)

    def _runs(self, sandbox: str) -> str:
        return f"{self._root}/{sandbox}/runs"

    def oci_path(self, sandbox: str) -> str:
        return f"/{self._root.name}/{sandbox}/guest"

    def create(self, sandbox: str, disk: str | None) -> None:
        top, runs = self._dir(sandbox), self._dir(sandbox, "runs")
        runs.mkdir(parents=True, exist_ok=True)
        for parent in (self._root.parent, self._root, top):
            (parent / "cgroup.subtree_control").write_text(self.CONTROLLERS)
        (runs / "cgroup.subtree_control").write_text(self.PER_RUN)
        (top / "pids.max").write_text(str(RUN_PIDS + GUEST_PIDS))
        (runs / "pids.max").write_text(str(RUN_PIDS))
        if disk:
            limits = f"rbps={READ_BYTES} wbps={WRITE_BYTES} riops={OPERATIONS} wiops={OPERATIONS}"
            (top / "io.max").write_text(f"{whole_disk(disk)} {limits}")

    def limit(self, sandbox: str, limits: Limits) -> None:
        top, runs = self._dir(sandbox), self._dir(sandbox, "runs")
        (top / "memory.max").write_text(str(limits.memory * MB + GUEST_MEMORY))
        _settle(top, runs, limits.memory * MB)
        for directory, cores in ((top, limits.cpu + GUEST_CPU), (runs, limits.cpu)):
            quota = int(cores * PERIOD_US)
            burst = directory / "cpu.max.burst"
            if int(burst.read_text()) > quota:
                burst.write_text("0")  # it may never exceed the quota
            put_if_other(directory / "cpu.max", f"{quota} {PERIOD_US}")
            put_if_other(burst, str(quota))

    def seen(self, sandbox: str) -> Mapping[str, Path]:
        return {"": self._dir(sandbox, "runs")}

    def guest_processes(self, sandbox: str) -> list[int]:
        return pids_of(f"{self._root}/{sandbox}/guest")

    def lives(self, sandbox: str) -> bool:
        return bool(self.guest_processes(sandbox))

    def session_processes(self, sandbox: str, leave_out: Iterable[str] = ()) -> int:
        runs = self._runs(sandbox)
        return sum(len(pids_of(f"{runs}/{run}")) for run in set(children_of(runs)) - set(leave_out))

    def runs(self, sandbox: str) -> list[str]:
        return children_of(self._runs(sandbox))

    def run_processes(self, sandbox: str, run: str) -> list[int]:
        return pids_of(f"{self._runs(sandbox)}/{run}")

    def place_of(self, membership: str) -> tuple[str | None, str | None]:
        return place_of(membership, "", self._root.name)

    def add_run(self, sandbox: str, run: str) -> None:
        group = f"{self._runs(sandbox)}/{run}"
        make_directory(group)
        put_text(f"{group}/pids.max", str(ONE_RUN_PIDS))

    def join_run(self, sandbox: str, run: str, pid: int) -> None:
        put_text(f"{self._runs(sandbox)}/{run}/cgroup.procs", str(pid))

    def count_memory(self, sandbox: str, run: str, pid: int) -> None:
        """For all runs of the session, from the first one on."""
        runs = self._dir(sandbox, "runs")
        if not (runs / run / "memory.peak").exists():
            (runs / "cgroup.subtree_control").write_text("+memory")

    def usage(self, sandbox: str, run: str, read: Read = text_of) -> RunUsage:
        group = f"{self._runs(sandbox)}/{run}"
        return RunUsage(
            cpu_ms=field_of(f"{group}/cpu.stat", "usage_usec", read) // 1000,
            peak_memory=int(read(f"{group}/memory.peak")),
            memory_kills=field_of(f"{group}/memory.events.local", "oom_kill", read),
        )

    def totals(self, sandbox: str) -> tuple[int, int]:
        runs = self._runs(sandbox)
        return field_of(f"{runs}/cpu.stat", "usage_usec"), int(text_of(f"{runs}/memory.current"))

    def refused_forks(self, sandbox: str, run: str, read: Read = text_of) -> int:
        return field_of(f"{self._runs(sandbox)}/{run}/pids.events", "max", read)

    def refused_by_session(self, sandbox: str, read: Read = text_of) -> int:
        try:  # `pids.events` includes each run's own limit
            return field_of(f"{self._runs(sandbox)}/pids.events.local", "max", read)
        except FileNotFoundError:  # before Linux 6.11 the kernel counts at the run
            return 0

    def processes(self, sandbox: str) -> int:
        return int(text_of(f"{self._runs(sandbox)}/pids.current"))

    def crowds(self, sandbox: str, run: str) -> bool:
        return crowds(self._runs(sandbox), run)

    def kill_run(self, sandbox: str, run: str) -> bool:
        group = f"{self._runs(sandbox)}/{run}"
        if not put_if_there(f"{group}/cgroup.kill", "1"):
            return True
        deadline = time.monotonic() + KILL_SECONDS
        while pids_of(group):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)
        return True

    def remove_run(self, sandbox: str, run: str, *, keep: bool = False) -> bool:
        return remove_directory(f"{self._runs(sandbox)}/{run}")

    def drop_kept(self, sandbox: str) -> None:
        pass  # the kernel renames no group here

    def terminate(self, sandbox: str) -> None:
        for run in self.runs(sandbox):
            group = f"{self._runs(sandbox)}/{run}"
            signal_members(group, pids_of(group), signal.SIGTERM)

    def memory_free(self, sandbox: str) -> tuple[int, int]:
        runs = self._runs(sandbox)
        limit = int(text_of(f"{runs}/memory.max"))
        return memory_free(runs, limit, int(text_of(f"{runs}/memory.current")), ""), limit

    def hoarders(self, sandbox: str) -> list[str]:
        return []  # sockets' memory counts as the session's memory

    def throttled(self, sandbox: str) -> int:
        return field_of(f"{self._runs(sandbox)}/cpu.stat", "nr_throttled")

    def freeze(self, sandbox: str, frozen: bool) -> None:
        (self._dir(sandbox) / "cgroup.freeze").write_text(str(int(frozen)))

    def is_frozen(self, sandbox: str) -> bool:
        return field_of(self._dir(sandbox) / "cgroup.events", "frozen") == 1

    def pages_at(self, sandbox: str) -> tuple[Path, Path]:
        return self._dir(sandbox), self._dir(sandbox)

    def lend_swap(self, sandbox: str) -> bool:
        top, runs = self._dir(sandbox), self._dir(sandbox, "runs")
        if not (runs / SWAP_LIMIT).exists():
            return False
        most = _session_memory(top) // SWAP_SHARE
        put_text(top / SWAP_LIMIT, str(most + GUEST_MEMORY))
        put_text(runs / SWAP_LIMIT, str(most))
        return True

    def settle_swap(self, sandbox: str) -> int:
        top, runs = self._dir(sandbox), self._dir(sandbox, "runs")
        return _settle(top, runs, _session_memory(top))

    def remove(self, sandbox: str) -> bool:
        return remove_tree(self._dir(sandbox))

    def sandboxes(self) -> set[str]:
        return set(children_of(self._root))

    def remove_root(self) -> None:
        remove_directory(self._root)


def _session_memory(top: Path) -> int:
    return int(text_of(top / "memory.max")) - GUEST_MEMORY


def _settle(top: Path, runs: Path, memory: int) -> int:
    """Limits what a session has in swap to what is there now, and memory to the rest. So both together stay within its
    `memory`, in bytes. Returns what is in swap."""
    out = 0
    if (runs / SWAP_LIMIT).exists():  # this kernel may not count it
        out = min(int(text_of(runs / "memory.swap.current")), memory // SWAP_SHARE)
        put_text(top / SWAP_LIMIT, str(out + GUEST_MEMORY))
        put_text(runs / SWAP_LIMIT, str(out))
    (runs / "memory.max").write_text(str(memory - out))
    return out
