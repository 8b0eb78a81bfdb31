"""Cgroups v1: a tree for each controller. See `cgroup`."""

import os
import signal
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import structlog

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
    SOCKET_SHARE,
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

log = structlog.get_logger()

WITH_SWAP = "memory.memsw.limit_in_bytes"
PEAK = "memory.max_usage_in_bytes"
KEPT = "kept"  # name of the memory cgroup that waits for the next run; runs are named by numbers
RESERVE = 256 << 10  # bytes for each processor that the kernel counts ahead
KEPT_BYTES = MB + RESERVE * (os.cpu_count() or 1)  # that the group holds at most
KEPT_BESIDE = 1  # other runs with memory: more would be two that wait for their first use already


class CgroupsV1:
    LIMITED = ("memory", "pids", "cpu", "cpuacct", "blkio")
    PER_RUN = ("pids", "cpu", "cpuacct")  # cpu: each run gets an equal share, however many processes it has
    SEEN = ("memory", "cpu")  # by the session
    SOCKETS, SOCKETS_HELD = "memory.kmem.tcp.limit_in_bytes", "memory.kmem.tcp.usage_in_bytes"
    ALL = (*LIMITED, "cpuset", "devices", "freezer", "systemd")

    def __init__(self, root: Path, name: str) -> None:
        self._mounts = root
        self._name = name
        self._hands_down_cpus = False

    def _dir(self, controller: str, sandbox: str, *rest: str) -> Path:
        return self._mounts.joinpath(controller, self._name, sandbox, *rest)

    def _runs(self, controller: str, sandbox: str) -> str:
        return f"{self._mounts}/{controller}/{self._name}/{sandbox}/runs"

    def oci_path(self, sandbox: str) -> str:
        return f"/{self._name}/{sandbox}"

    def create(self, sandbox: str, disk: str | None) -> None:
        if not self._hands_down_cpus:
            _hand_down_cpus(self._mounts / "cpuset" / self._name)
            self._hands_down_cpus = True
        for controller in self.LIMITED:
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
        # A child may not exceed its parent, nor memory exceed memory and swap together. So limits grow from the top and
        # shrink from the bottom.
        now = int((pairs[0][0] / "memory.limit_in_bytes").read_text())
        steps = [step for directory, size in pairs for step in _memory_limits_v1(directory, size)]
        for file, size in steps if whole >= now else reversed(steps):
            file.write_text(str(size))
        with suppress(FileNotFoundError):  # this kernel may not count it
            (pairs[1][0] / self.SOCKETS).write_text(str(runs // SOCKET_SHARE))
        _limit_cpu(
            (self._dir("cpu", sandbox), int((limits.cpu + GUEST_CPU) * PERIOD_US)),
            (self._dir("cpu", sandbox, "runs"), int(limits.cpu * PERIOD_US)),
        )

    def seen(self, sandbox: str) -> Mapping[str, Path]:
        return {controller: self._dir(controller, sandbox, "runs") for controller in self.SEEN}

    def guest_processes(self, sandbox: str) -> list[int]:
        group = f"{self._mounts}/pids/{self._name}/{sandbox}"
        earlier = f"{group}/guest"  # a group of the guest's own, as earlier versions had
        return [*pids_of(group), *pids_of(earlier)]

    def lives(self, sandbox: str) -> bool:
        return bool(pids_of(f"{self._mounts}/pids/{self._name}/{sandbox}") or self.guest_processes(sandbox))

    def session_processes(self, sandbox: str, leave_out: Iterable[str] = ()) -> int:
        runs = self._runs("pids", sandbox)
        return sum(len(pids_of(f"{runs}/{run}")) for run in set(children_of(runs)) - set(leave_out))

    def runs(self, sandbox: str) -> list[str]:
        return children_of(self._runs("pids", sandbox))

    def run_processes(self, sandbox: str, run: str) -> list[int]:
        return pids_of(f"{self._runs('pids', sandbox)}/{run}")

    def place_of(self, membership: str) -> tuple[str | None, str | None]:
        return place_of(membership, "pids", self._name)

    def add_run(self, sandbox: str, run: str) -> None:
        remove_directory(f"{self._runs('memory', sandbox)}/{run}")  # which a server that was killed may have left
        for controller in self.PER_RUN:
            make_directory(f"{self._runs(controller, sandbox)}/{run}")
        put_text(f"{self._runs('pids', sandbox)}/{run}/pids.max", str(ONE_RUN_PIDS))

    def join_run(self, sandbox: str, run: str, pid: int) -> None:
        for controller in self.PER_RUN:
            put_text(f"{self._runs(controller, sandbox)}/{run}/cgroup.procs", str(pid))

    def count_memory(self, sandbox: str, run: str, pid: int) -> None:
        runs = self._runs("memory", sandbox)
        group = f"{runs}/{run}"
        if _rename(f"{runs}/{KEPT}", group):
            put_text(f"{group}/{PEAK}", "0")  # it begins at what the group still holds
        else:
            make_directory(group)
        with suppress(FileNotFoundError):
            # "no limit" starts the counting in this group; the group above has the limit of all runs
            put_text(f"{group}/{self.SOCKETS}", "-1")
        put_text(f"{group}/cgroup.procs", str(pid))

    def usage(self, sandbox: str, run: str, read: Read = text_of) -> RunUsage:
        memory = f"{self._runs('memory', sandbox)}/{run}"
        spent = int(read(f"{self._runs('cpuacct', sandbox)}/{run}/cpuacct.usage"))
        return RunUsage(
            cpu_ms=spent // 1_000_000,
            peak_memory=int(read(f"{memory}/{PEAK}")),
            memory_kills=field_of(f"{memory}/memory.oom_control", "oom_kill", read),
        )

    def totals(self, sandbox: str) -> tuple[int, int]:
        spent = int(text_of(f"{self._runs('cpuacct', sandbox)}/cpuacct.usage"))
        return spent // 1000, int(text_of(f"{self._runs('memory', sandbox)}/memory.usage_in_bytes"))

    def refused_forks(self, sandbox: str, run: str, read: Read = text_of) -> int:
        return field_of(f"{self._runs('pids', sandbox)}/{run}/pids.events", "max", read)

    def refused_by_session(self, sandbox: str, read: Read = text_of) -> int:
        return 0

    def processes(self, sandbox: str) -> int:
        return int(text_of(f"{self._runs('pids', sandbox)}/pids.current"))

    def crowds(self, sandbox: str, run: str) -> bool:
        return crowds(self._runs("pids", sandbox), run)

    def kill_run(self, sandbox: str, run: str) -> bool:
        group = f"{self._runs('pids', sandbox)}/{run}"
        if not put_if_there(f"{group}/pids.max", "0"):  # no process in it can fork any more, so the loop ends
            return True
        deadline = time.monotonic() + KILL_SECONDS
        while pids := pids_of(group):
            # stopped first, or a program could go on because its child was killed before it
            signal_members(group, pids, signal.SIGSTOP, signal.SIGKILL)
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)
        return True

    def remove_run(self, sandbox: str, run: str, *, keep: bool = False) -> bool:
        gone = [remove_directory(f"{self._runs(controller, sandbox)}/{run}") for controller in self.PER_RUN]
        memory = self._runs("memory", sandbox)
        if keep and all(gone) and self._keep(memory, run):
            return True
        return all([*gone, remove_directory(f"{memory}/{run}")])

    def _keep(self, runs: str, run: str) -> bool:
        """Keeps the memory cgroup of an ended run for the next one. Returns False where it stays as it is: it holds
        more than a little, or sockets, whose memory is counted apart, or the kernel has killed a process in it."""
        group = f"{runs}/{run}"
        try:
            held = _number(f"{group}/memory.memsw.usage_in_bytes") or int(text_of(f"{group}/memory.usage_in_bytes"))
            if held > KEPT_BYTES or len(children_of(runs)) > KEPT_BESIDE + 1:
                return False
            if _number(f"{group}/{self.SOCKETS_HELD}") or field_of(f"{group}/memory.oom_control", "oom_kill"):
                return False
        except OSError:
            return False
        return _rename(group, f"{runs}/{KEPT}")

    def drop_kept(self, sandbox: str) -> None:
        remove_directory(f"{self._runs('memory', sandbox)}/{KEPT}")

    def terminate(self, sandbox: str) -> None:
        for run in self.runs(sandbox):
            group = f"{self._runs('pids', sandbox)}/{run}"
            signal_members(group, pids_of(group), signal.SIGTERM)

    def memory_free(self, sandbox: str) -> tuple[int, int]:
        runs = self._runs("memory", sandbox)
        limit = int(text_of(f"{runs}/memory.limit_in_bytes"))
        return memory_free(runs, limit, int(text_of(f"{runs}/memory.usage_in_bytes")), "total_"), limit

    def hoarders(self, sandbox: str) -> list[str]:
        runs = self._dir("memory", sandbox, "runs")
        limit, held = (int(text_of(runs / name)) for name in (self.SOCKETS, self.SOCKETS_HELD))
        if held < 2 * limit:
            return []
        of_run = {run: _number(f"{runs}/{run}/{self.SOCKETS_HELD}") for run in children_of(runs) if run != KEPT}
        return [run for run in of_run if of_run[run] >= limit // max(1, len(of_run))]

    def throttled(self, sandbox: str) -> int:
        return field_of(f"{self._runs('cpu', sandbox)}/cpu.stat", "nr_throttled")

    def freeze(self, sandbox: str, frozen: bool) -> None:
        # in this hierarchy, processes of runs stay in the guest's group, which is below the sandbox's
        (self._dir("freezer", sandbox) / "freezer.state").write_text("FROZEN" if frozen else "THAWED")

    def is_frozen(self, sandbox: str) -> bool:
        return (self._dir("freezer", sandbox) / "freezer.state").read_text().strip() == "FROZEN"

    def pages_at(self, sandbox: str) -> tuple[Path, Path]:
        return self._dir("pids", sandbox), self._dir("memory", sandbox)

    def lend_swap(self, sandbox: str) -> bool:
        return (self._dir("memory", sandbox, "runs") / WITH_SWAP).exists()

    def settle_swap(self, sandbox: str) -> int:
        return 0  # the kernel limits memory and swap together

    def remove(self, sandbox: str) -> bool:
        gone = [remove_tree(self._dir(controller, sandbox)) for controller in self.ALL]
        return all(gone)

    def sandboxes(self) -> set[str]:
        return {name for c in self.ALL for name in children_of(self._mounts / c / self._name)}

    def remove_root(self) -> None:
        for controller in self.ALL:
            remove_directory(self._mounts / controller / self._name)


def _number(file: str) -> int:
    """0 where there is no such file: the kernel may not count it, and groups end."""
    try:
        return int(text_of(file))
    except OSError:
        return 0


def _rename(group: str, name: str) -> bool:
    """Returns False where there is no such group, or one of that name."""
    try:
        os.rename(group, name)  # noqa: PTH104 - see `cgroup_tree`
    except OSError:
        return False
    return True


def _hand_down_cpus(group: Path) -> None:
    """Lets new groups below start with this one's processors and memory nodes. The runtime makes one for each sandbox,
    and would write them there. At each such write, the kernel compares all groups of the host. Where this fails, only
    that is lost."""
    names = ("cpuset.cpus", "cpuset.mems")
    if not all((group.parent / name).exists() for name in names):
        return  # this host has no such controller, or not here
    try:
        group.mkdir(exist_ok=True)
        for name in names:
            given = (group.parent / name).read_text()
            if given.strip() and not (group / name).read_text().strip():
                (group / name).write_text(given)
        (group / "cgroup.clone_children").write_text("1")
    except OSError as failed:
        log.info("processors_not_handed_down", reason=str(failed))


def _memory_limits_v1(directory: Path, size: int) -> list[tuple[Path, int]]:
    with_swap = directory / WITH_SWAP
    swap = [(with_swap, size)] if with_swap.exists() else []  # this kernel may not count it
    return [*swap, (directory / "memory.limit_in_bytes", size)]


def _limit_cpu(parent: tuple[Path, int], child: tuple[Path, int]) -> None:
    """Gives both groups their quotas, in microseconds of a period."""
    if all(_has_cpu(group, quota) for group, quota in (parent, child)):
        return
    # A child's quota may never exceed its parent's: lift the parent's, set the child's, set the parent's.
    put_if_other(parent[0] / "cpu.cfs_quota_us", "-1")
    for group, quota in (child, parent):
        burst = group / "cpu.cfs_burst_us"
        if int(burst.read_text()) > quota:
            burst.write_text("0")  # it may never exceed the quota
        put_if_other(group / "cpu.cfs_period_us", str(PERIOD_US))
        put_if_other(group / "cpu.cfs_quota_us", str(quota))
        put_if_other(burst, str(quota))


def _has_cpu(group: Path, quota: int) -> bool:
    return all(int((group / name).read_text()) == quota for name in ("cpu.cfs_quota_us", "cpu.cfs_burst_us"))
