"""The kernel's limits and accounts of a sandbox: what cgroup v1 and v2 have in common.

    buntime-<instance>/<sandbox>/          cpu, memory and disk I/O of the whole sandbox, with the guest's share
                                /guest     the guest, on v2 alone; on v1 they are in the group above
                                /runs      the session's own limits
                                     /<n>  one run: the processes that it starts are born here and counted here

Memory and pids are limited at `runs`, so a session that uses up its own cannot take the guest with it. Pids are limited
at each run too, so a run that uses up its own leaves some for the next. The OCI runtime puts the guest there;
these modules make and remove the rest. All calls are quick file access, except where a docstring says otherwise.

Each group with memory costs the kernel an array over all file systems of the host. So a run's memory is counted from
`count_memory` on: in a sandbox that no session has claimed yet, no run has memory of its own. At the end of such a
group, the kernel goes through all file systems of the host. So the next run takes over that of an ended one.

Memory and swap together are never more than the limit. v1 has a limit for both. On v2 they are apart: a session has no
swap until it is paged out, and for what is out, its limit on memory is lower.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from buntime.plan import MB, Limits
from buntime.sandboxes.kernel.cgroup_tree import Read, field_of, text_of

PERIOD_US = 100_000
GUEST_CPU = 0.1  # cores that the guest may use while the session uses all of its own
GUEST_MEMORY = 96 * MB
SOCKET_SHARE = 8  # cgroup v1 counts sockets' memory apart from the session's, up to this part of its limit
RUN_PIDS = 512  # processes and threads of all runs of a session …
ONE_RUN_PIDS = 448  # … and of one run, so that a fork bomb leaves some for the next command
MANY_PIDS = 64  # where the kernel does not say which run met the session's limit: one with so many
FEW_PIDS = 16  # a session with so few left has met its limit
GUEST_PIDS = 128
KILL_SECONDS = 5.0
# Disk I/O of one sandbox, a second: far above what an agent's work needs, far below what starves its neighbours
READ_BYTES, WRITE_BYTES, OPERATIONS = 200 * MB, 100 * MB, 2000


@dataclass(frozen=True, slots=True)
class RunUsage:
    cpu_ms: int
    peak_memory: int  # bytes
    memory_kills: int  # processes that the kernel killed for memory


NO_USAGE = RunUsage(cpu_ms=0, peak_memory=0, memory_kills=0)


class Cgroups(Protocol):
    """Methods are idempotent where they can be. `sandbox` and `run` are the server's own names, never a session's."""

    def oci_path(self, sandbox: str) -> str: ...
    def create(self, sandbox: str, disk: str | None) -> None:
        """`disk`: "major:minor" of the disk that I/O limits are for, or of a partition of it."""
        ...

    def limit(self, sandbox: str, limits: Limits) -> None: ...
    def seen(self, sandbox: str) -> Mapping[str, Path]:
        """The session's own cgroups, by their places below /sys/fs/cgroup in a sandbox that sees the host's version."""
        ...

    def guest_processes(self, sandbox: str) -> list[int]:
        """Init, the guest, and what the guest has started and nobody has moved."""
        ...

    def lives(self, sandbox: str) -> bool:
        """Whether there is any of the `guest_processes`. The kernel leaves out those that have ended, waited for or
        not."""
        ...

    def session_processes(self, sandbox: str, leave_out: Iterable[str] = ()) -> int: ...
    def runs(self, sandbox: str) -> list[str]: ...
    def run_processes(self, sandbox: str, run: str) -> list[int]: ...
    def place_of(self, membership: str) -> tuple[str | None, str | None]:
        """The sandbox and the run that /proc/<pid>/cgroup names. The guest has no run."""
        ...

    def add_run(self, sandbox: str, run: str) -> None: ...
    def join_run(self, sandbox: str, run: str, pid: int) -> None: ...
    def count_memory(self, sandbox: str, run: str, pid: int) -> None:
        """Counts the memory of the run from now on. `pid`: its only process. The kernel may take 20 ms."""
        ...

    def usage(self, sandbox: str, run: str, read: Read = text_of) -> RunUsage:
        """Raises OSError where the run is gone or its memory is not counted. `read`: see `OpenFiles`."""
        ...

    def totals(self, sandbox: str) -> tuple[int, int]:
        """CPU time in microseconds that all runs have used since the sandbox was made, ended ones too, and the bytes of
        memory that they have now. Raises OSError where the sandbox is gone."""
        ...

    def refused_forks(self, sandbox: str, run: str, read: Read = text_of) -> int:
        """How many the kernel counts at the run itself."""
        ...

    def refused_by_session(self, sandbox: str, read: Read = text_of) -> int:
        """How many the kernel counts only for all runs together: 0 on v1."""
        ...

    def processes(self, sandbox: str) -> int:
        """Processes and threads of all runs."""
        ...

    def crowds(self, sandbox: str, run: str) -> bool:
        """Whether the run has many of the session's processes, or the session may start no more."""
        ...

    def kill_run(self, sandbox: str, run: str) -> bool:
        """Ends every process of the run. Returns whether none is left."""
        ...

    def remove_run(self, sandbox: str, run: str, *, keep: bool = False) -> bool:
        """Returns False where processes live in it. `keep`: keeps its memory cgroup for the next `count_memory`, where
        the kernel can rename one (v1) and if it holds little."""
        ...

    def drop_kept(self, sandbox: str) -> None:
        """Removes what `remove_run` has kept."""
        ...

    def terminate(self, sandbox: str) -> None:
        """Sends SIGTERM to every process of every run."""
        ...

    def freeze(self, sandbox: str, frozen: bool) -> None:
        """Tells the kernel to stop every process of the sandbox, or to let it go on."""
        ...

    def is_frozen(self, sandbox: str) -> bool:
        """Whether every process has stopped."""
        ...

    def memory_free(self, sandbox: str) -> tuple[int, int]:
        """Bytes that the session may still use, and its limit. Pages of files in memory count as free."""
        ...

    def hoarders(self, sandbox: str) -> list[str]:
        """Runs to end because the session's sockets hold twice what they may. The kernel does not stop them itself."""
        ...

    def throttled(self, sandbox: str) -> int:
        """How often the session has waited because its CPU time was used up, since its start."""
        ...

    def pages_at(self, sandbox: str) -> tuple[Path, Path]:
        """The cgroup that all processes of the sandbox are in or below, and the one that counts its memory."""
        ...

    def lend_swap(self, sandbox: str) -> bool:
        """Lets pages of a frozen sandbox go to swap. Returns False where the kernel does not count them: then a session
        could have more and more there. Raises OSError."""
        ...

    def settle_swap(self, sandbox: str) -> int:
        """Ends what `lend_swap` began, and keeps the session's memory and swap together within its limit. Returns the
        bytes in swap for which its limit on memory is lower now: call it again as they come back. Raises OSError."""
        ...

    def remove(self, sandbox: str) -> bool:
        """Removes the whole tree of a sandbox. Returns False where a process lives."""
        ...

    def sandboxes(self) -> set[str]:
        """Those that have a tree."""
        ...

    def remove_root(self) -> None: ...


def whole_disk(device: str, devices: Path = Path("/sys/dev/block")) -> str:
    """The disk of a partition, both as "major:minor". The kernel refuses to limit a partition."""
    place = (devices / device).resolve()
    return (place.parent / "dev").read_text().strip() if (place / "partition").exists() else device


def place_of(membership: str, controller: str, name: str) -> tuple[str | None, str | None]:
    """Lines are "<number>:<controllers>:<path>"; v2 names no controllers."""
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        _, found, below = path.partition(f"/{name}/")
        if found and controller in controllers.split(","):
            sandbox, *rest = below.split("/")
            return sandbox, rest[1] if len(rest) > 1 and rest[0] == "runs" else None
    return None, None


def crowds(runs: str, run: str) -> bool:
    if int(text_of(f"{runs}/{run}/pids.current")) >= MANY_PIDS:
        return True
    return int(text_of(f"{runs}/pids.current")) > RUN_PIDS - FEW_PIDS


def put_if_other(file: Path, text: str) -> None:
    """Writes a limit of CPU time unless it is there. For each write the kernel looks at all CPU cgroups of the host."""
    if file.read_text().strip() != text:
        file.write_text(text)


def memory_free(group: str, limit: int, used: int, prefix: str) -> int:
    names = ("inactive_file", "active_file")
    return limit - used + sum(field_of(f"{group}/memory.stat", prefix + name) for name in names)
