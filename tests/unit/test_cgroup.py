"""The values that cgroup files get, in a directory that stands in for the kernel's tree."""

from pathlib import Path

import pytest

from buntime.plan import MB, Limits
from buntime.sandboxes.kernel import cgroup_v1, cgroup_v2
from buntime.sandboxes.kernel.cgroup import GUEST_MEMORY, RUN_PIDS, SOCKET_SHARE, whole_disk
from buntime.sandboxes.kernel.cgroup_tree import OpenFiles, field_of, make_directory
from buntime.sandboxes.kernel.cgroup_v1 import CgroupsV1
from buntime.sandboxes.kernel.cgroup_v2 import CgroupsV2

CPU_FILES = {
    **{"cpu.max": "max 100000\n", "cpu.max.burst": "0\n"},
    **{"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n", "cpu.cfs_burst_us": "0\n"},
}
SMALL = Limits(memory=64, cpu=0.25, timeout=30, disk=64)


class Kernel:
    """Makes the control files in new directories, as the real kernel does."""

    def __init__(self, root: Path, files: dict[str, str]) -> None:
        self.root = root
        self.files = {**CPU_FILES, **files}

    def populate(self) -> None:
        for directory in [self.root, *(p for p in self.root.rglob("*") if p.is_dir())]:
            for name, text in self.files.items():
                if not (directory / name).exists():
                    (directory / name).write_text(text)


@pytest.fixture(autouse=True)
def _groups_have_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new group has these files at once."""

    def make(group: str) -> None:
        make_directory(group)
        for name in ("pids.max", "cgroup.procs"):
            (Path(group) / name).touch()

    for module in (cgroup_v1, cgroup_v2):
        monkeypatch.setattr(module, "make_directory", make)


@pytest.fixture
def v2(tmp_path: Path) -> tuple[CgroupsV2, Path]:
    root = tmp_path / "buntime-abcd"
    root.mkdir()
    return CgroupsV2(root), root


def test_v2_limits_the_runs_and_leaves_the_guest_its_own_memory(v2: tuple[CgroupsV2, Path]) -> None:
    cgroups, root = v2
    cgroups.create("sb1", "7:0")
    Kernel(root, {}).populate()
    cgroups.limit("sb1", SMALL)
    assert (root / "sb1/runs/memory.max").read_text() == str(64 * MB)
    assert (root / "sb1/memory.max").read_text() == str(64 * MB + GUEST_MEMORY)
    assert (root / "sb1/runs/pids.max").read_text() == str(RUN_PIDS)


def test_v2_gives_a_session_its_share_of_a_core_and_as_much_again_in_a_burst(v2: tuple[CgroupsV2, Path]) -> None:
    cgroups, root = v2
    cgroups.create("sb1", None)
    Kernel(root, {}).populate()
    cgroups.limit("sb1", SMALL)
    assert (root / "sb1/runs/cpu.max").read_text() == "25000 100000"
    assert (root / "sb1/runs/cpu.max.burst").read_text() == "25000"


def test_v2_limits_the_disk_of_the_whole_sandbox(v2: tuple[CgroupsV2, Path]) -> None:
    cgroups, root = v2
    cgroups.create("sb1", "7:3")
    assert (root / "sb1/io.max").read_text().startswith("7:3 rbps=")
    assert "+io" in (root / "sb1/cgroup.subtree_control").read_text()


def test_disk_limits_are_set_on_the_disk_of_a_partition(tmp_path: Path) -> None:
    disk, devices = tmp_path / "devices/vdb", tmp_path / "dev/block"
    (disk / "vdb1").mkdir(parents=True)
    (disk / "dev").write_text("254:16\n")
    (disk / "vdb1/partition").write_text("1\n")
    devices.mkdir(parents=True)
    (devices / "254:16").symlink_to(disk)
    (devices / "254:17").symlink_to(disk / "vdb1")
    assert whole_disk("254:17", devices) == "254:16"
    assert whole_disk("254:16", devices) == "254:16"


def test_v2_reads_a_runs_usage_from_its_own_group(v2: tuple[CgroupsV2, Path]) -> None:
    cgroups, root = v2
    cgroups.create("sb1", None)
    cgroups.add_run("sb1", "r1")
    run = root / "sb1/runs/r1"
    (run / "cpu.stat").write_text("usage_usec 42000\nuser_usec 1\n")
    (run / "memory.peak").write_text("1234\n")
    (run / "memory.events.local").write_text("low 0\noom 3\noom_kill 2\n")
    usage = cgroups.usage("sb1", "r1")
    assert (usage.cpu_ms, usage.peak_memory, usage.memory_kills) == (42, 1234, 2)


def test_an_open_file_tells_what_it_has_now_until_it_is_closed(tmp_path: Path) -> None:
    file, files = tmp_path / "pids.events", OpenFiles()
    file.write_text("max 1\n")
    assert field_of(file, "max", files.text_of) == 1
    file.write_text("max 22\n")
    assert field_of(file, "max", files.text_of) == 22
    files.close()
    file.unlink()
    with pytest.raises(FileNotFoundError):
        files.text_of(str(file))


def test_v2_kills_a_run_with_cgroup_kill(v2: tuple[CgroupsV2, Path]) -> None:
    cgroups, root = v2
    cgroups.create("sb1", None)
    cgroups.add_run("sb1", "r1")
    (root / "sb1/runs/r1/cgroup.kill").touch()
    assert cgroups.kill_run("sb1", "r1")
    assert (root / "sb1/runs/r1/cgroup.kill").read_text() == "1"


def test_v1_grows_the_parent_first_and_shrinks_it_last(tmp_path: Path) -> None:
    cgroups = CgroupsV1(tmp_path, "buntime-abcd")
    kernel = Kernel(tmp_path, {"memory.limit_in_bytes": "9223372036854771712"})
    cgroups.create("sb1", None)
    kernel.populate()
    for memory in (64, 4096, 64):
        cgroups.limit("sb1", Limits(memory=memory, cpu=1, timeout=1, disk=1))
        top = tmp_path / "memory/buntime-abcd/sb1"
        assert (top / "memory.limit_in_bytes").read_text() == str(memory * MB + GUEST_MEMORY)
        assert (top / "runs/memory.limit_in_bytes").read_text() == str(memory * MB)


@pytest.mark.parametrize("version", [1, 2])
def test_limits_of_cpu_time_that_hold_already_are_not_written_again(tmp_path: Path, version: int) -> None:
    cgroups = CgroupsV1(tmp_path, "buntime-abcd") if version == 1 else CgroupsV2(tmp_path / "buntime-abcd")
    (tmp_path / "buntime-abcd").mkdir()
    kernel = Kernel(tmp_path, {"memory.limit_in_bytes": "9223372036854771712"})
    cgroups.create("sb1", None)
    kernel.populate()
    cgroups.limit("sb1", SMALL)
    written = [file for file in tmp_path.rglob("cpu.*") if file.read_text()[-1] != "\n"]
    assert len(written) == 4, "of the sandbox and of its runs, the quota and the burst"
    for file in written:
        file.write_text(f"{file.read_text()}\n")  # as the kernel shows it
    cgroups.limit("sb1", SMALL)
    assert all(file.read_text()[-1] == "\n" for file in written)
    for cpu, shares in ((1, {"100000", "110000"}), (0.1, {"10000", "20000"})):
        cgroups.limit("sb1", Limits(memory=64, cpu=cpu, timeout=30, disk=64))
        assert {file.read_text().split()[0] for file in written} == shares


def test_v1_limits_a_group_that_a_killed_server_left_without_a_limit(tmp_path: Path) -> None:
    cgroups = CgroupsV1(tmp_path, "buntime-abcd")
    kernel = Kernel(tmp_path, {"memory.limit_in_bytes": "9223372036854771712"})
    cgroups.create("sb1", None)
    kernel.populate()
    cgroups.limit("sb1", SMALL)
    quota = tmp_path / "cpu/buntime-abcd/sb1/cpu.cfs_quota_us"
    before = quota.read_text()
    quota.write_text("-1\n")
    cgroups.limit("sb1", SMALL)
    assert quota.read_text() == before


def test_v1_limits_memory_and_swap_together_where_the_kernel_counts_swap(tmp_path: Path) -> None:
    cgroups = CgroupsV1(tmp_path, "buntime-abcd")
    unlimited = "9223372036854771712"
    kernel = Kernel(tmp_path, {"memory.limit_in_bytes": unlimited, "memory.memsw.limit_in_bytes": unlimited})
    cgroups.create("sb1", None)
    kernel.populate()
    for memory in (64, 4096, 64):
        cgroups.limit("sb1", Limits(memory=memory, cpu=1, timeout=1, disk=1))
        top = tmp_path / "memory/buntime-abcd/sb1"
        assert (top / "memory.memsw.limit_in_bytes").read_text() == str(memory * MB + GUEST_MEMORY)
        assert (top / "runs/memory.memsw.limit_in_bytes").read_text() == str(memory * MB)
        assert (top / "runs/memory.limit_in_bytes").read_text() == str(memory * MB)


SOCKETS, SOCKETS_HELD = "memory.kmem.tcp.limit_in_bytes", "memory.kmem.tcp.usage_in_bytes"


def test_v1_counts_sockets_memory_in_each_run_and_limits_it_for_all(tmp_path: Path) -> None:
    cgroups = CgroupsV1(tmp_path, "buntime-abcd")
    kernel = Kernel(tmp_path, {"memory.limit_in_bytes": "0", SOCKETS: "0", SOCKETS_HELD: "0\n"})
    cgroups.create("sb1", None)
    kernel.populate()
    cgroups.limit("sb1", SMALL)
    runs = tmp_path / "memory/buntime-abcd/sb1/runs"
    assert (runs / SOCKETS).read_text() == str(64 * MB // SOCKET_SHARE)
    for name, held in (("r1", 0), ("r2", 20 * MB)):
        for _ in range(2):
            cgroups.add_run("sb1", name)
            cgroups.count_memory("sb1", name, 7)
            kernel.populate()
        assert (runs / name / SOCKETS).read_text() == "-1"
        (runs / name / SOCKETS_HELD).write_text(f"{held}\n")
    for held, ended in ((10, []), (20, ["r2"])):
        (runs / SOCKETS_HELD).write_text(f"{held * MB}\n")
        assert cgroups.hoarders("sb1") == ended


def _swapping(root: Path, out: int) -> CgroupsV2:
    """Cgroups of a session with 64 MB, of which `out` bytes are in swap."""
    cgroups = CgroupsV2(root)
    cgroups.create("sb1", None)
    Kernel(root, {}).populate()
    for group in (root / "sb1", root / "sb1/runs"):
        (group / "memory.swap.max").touch()
        (group / "memory.swap.current").write_text(f"{out}\n")
    cgroups.limit("sb1", SMALL)
    return cgroups


@pytest.mark.parametrize("out", [0, 5 * MB, 32 * MB])
def test_v2_lowers_the_memory_of_a_session_by_what_it_has_in_swap(v2: tuple[CgroupsV2, Path], out: int) -> None:
    root = v2[1]
    cgroups = _swapping(root, 0)
    runs = root / "sb1/runs"
    assert [(runs / name).read_text() for name in ("memory.max", "memory.swap.max")] == [str(64 * MB), "0"]
    assert cgroups.lend_swap("sb1")
    assert (runs / "memory.swap.max").read_text().startswith(str(32 * MB))
    (runs / "memory.swap.current").write_text(f"{out}\n")
    (runs / "memory.swap.max").write_text("")
    assert cgroups.settle_swap("sb1") == out
    assert [(runs / name).read_text() for name in ("memory.max", "memory.swap.max")] == [str(64 * MB - out), str(out)]
    assert (root / "sb1/memory.max").read_text() == str(64 * MB + GUEST_MEMORY)


def test_v2_lends_no_swap_where_the_kernel_does_not_count_it(v2: tuple[CgroupsV2, Path]) -> None:
    cgroups, root = v2
    cgroups.create("sb1", None)
    Kernel(root, {}).populate()
    cgroups.limit("sb1", SMALL)
    assert not cgroups.lend_swap("sb1")


def test_v1_lends_swap_only_where_the_kernel_counts_it(tmp_path: Path) -> None:
    cgroups = CgroupsV1(tmp_path, "buntime-abcd")
    cgroups.create("sb1", None)
    assert not cgroups.lend_swap("sb1")
    Kernel(tmp_path, {"memory.memsw.limit_in_bytes": ""}).populate()
    assert cgroups.lend_swap("sb1")


def test_v1_makes_a_runs_memory_group_when_its_memory_is_counted(tmp_path: Path) -> None:
    cgroups = CgroupsV1(tmp_path, "buntime-abcd")
    cgroups.create("sb1", None)
    cgroups.add_run("sb1", "r1")
    group = tmp_path / "memory/buntime-abcd/sb1/runs/r1"
    assert not group.exists()
    cgroups.count_memory("sb1", "r1", 7)
    assert (group / "cgroup.procs").read_text() == "7"


HOLDS_LITTLE = {
    "memory.usage_in_bytes": "4096\n",
    "memory.memsw.usage_in_bytes": "4096\n",
    CgroupsV1.SOCKETS_HELD: "0\n",
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n",
}


def _ended(cgroups: CgroupsV1, root: Path, holds: dict[str, str]) -> Path:
    """Removes a run whose memory group has these files. Returns the place of all memory groups."""
    cgroups.create("sb1", None)
    runs = root / "memory/buntime-abcd/sb1/runs"
    (runs / "r1").mkdir()
    for name, text in holds.items():
        (runs / "r1" / name).write_text(text)
    cgroups.remove_run("sb1", "r1", keep=True)
    return runs


def test_v1_gives_the_memory_group_of_an_ended_run_to_the_next_one(tmp_path: Path) -> None:
    cgroups = CgroupsV1(tmp_path, "buntime-abcd")
    runs = _ended(cgroups, tmp_path, HOLDS_LITTLE | {"memory.max_usage_in_bytes": "50000000\n", "cgroup.procs": ""})
    (runs / "kept" / CgroupsV1.SOCKETS).touch()
    cgroups.count_memory("sb1", "r2", 7)
    assert [group.name for group in runs.iterdir()] == ["r2"]
    assert (runs / "r2/memory.max_usage_in_bytes").read_text().startswith("0")
    assert (runs / "r2/cgroup.procs").read_text() == "7"


@pytest.mark.parametrize(
    "holds",
    [
        {"memory.usage_in_bytes": f"{64 * MB}\n", "memory.memsw.usage_in_bytes": f"{64 * MB}\n"},
        {"memory.memsw.usage_in_bytes": f"{64 * MB}\n"},
        {CgroupsV1.SOCKETS_HELD: "4096\n"},
        {"memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"},
    ],
    ids=["memory", "swap", "sockets", "kills"],
)
def test_v1_keeps_no_memory_group_that_the_next_run_would_suffer_from(tmp_path: Path, holds: dict[str, str]) -> None:
    runs = _ended(CgroupsV1(tmp_path, "buntime-abcd"), tmp_path, HOLDS_LITTLE | holds)
    assert not (runs / "kept").exists()


def test_v1_names_no_kept_group_as_a_hoarder(tmp_path: Path) -> None:
    cgroups = CgroupsV1(tmp_path, "buntime-abcd")
    cgroups.create("sb1", None)
    runs = tmp_path / "memory/buntime-abcd/sb1/runs"
    for group in (runs, runs / "kept", runs / "r2"):
        group.mkdir(exist_ok=True)
        (group / CgroupsV1.SOCKETS).write_text("100\n")
        (group / CgroupsV1.SOCKETS_HELD).write_text("300\n")
    assert cgroups.hoarders("sb1") == ["r2"]


def test_v1_has_two_memory_groups_for_a_sandbox_without_runs(tmp_path: Path) -> None:
    cgroups = CgroupsV1(tmp_path, "buntime-abcd")
    cgroups.create("sb1", None)
    (tmp_path / "memory").joinpath(cgroups.oci_path("sb1")[1:]).mkdir(parents=True, exist_ok=True)  # the runtime does
    groups = (tmp_path / "memory/buntime-abcd").rglob("*")
    assert sorted(str(group.relative_to(tmp_path)) for group in groups) == [
        "memory/buntime-abcd/sb1",
        "memory/buntime-abcd/sb1/runs",
    ]


@pytest.mark.parametrize("place", ["", "guest"])
def test_v1_finds_the_guest_of_this_and_of_earlier_versions(tmp_path: Path, place: str) -> None:
    cgroups = CgroupsV1(tmp_path, "buntime-abcd")
    cgroups.create("sb1", None)
    group = tmp_path / "pids/buntime-abcd/sb1" / place
    group.mkdir(exist_ok=True)
    (group / "cgroup.procs").write_text("7\n8\n")
    assert cgroups.guest_processes("sb1") == [7, 8]


def test_v2_counts_the_memory_of_each_run_from_the_first_one_on(v2: tuple[CgroupsV2, Path]) -> None:
    cgroups, root = v2
    cgroups.create("sb1", None)
    control = root / "sb1/runs/cgroup.subtree_control"
    assert "memory" not in control.read_text()
    assert "+memory" in (root / "sb1/cgroup.subtree_control").read_text(), "the session's own limit"
    cgroups.add_run("sb1", "r1")
    cgroups.count_memory("sb1", "r1", 7)
    assert control.read_text() == "+memory"
    control.write_text("")
    cgroups.add_run("sb1", "r2")
    (root / "sb1/runs/r2/memory.peak").write_text("0\n")  # the kernel makes it
    cgroups.count_memory("sb1", "r2", 8)
    assert control.read_text() == "", "it is on already"


def test_a_missing_run_counts_as_killed_and_removed(tmp_path: Path) -> None:
    cgroups = CgroupsV1(tmp_path, "buntime-abcd")
    cgroups.create("sb1", None)
    assert cgroups.kill_run("sb1", "r7")
    assert cgroups.remove_run("sb1", "r7")


def test_v2_counts_what_all_runs_used(v2: tuple[CgroupsV2, Path]) -> None:
    cgroups, root = v2
    cgroups.create("sb1", None)
    (root / "sb1/runs/cpu.stat").write_text("usage_usec 1234567\nuser_usec 1000000\nsystem_usec 234567\n")
    (root / "sb1/runs/memory.current").write_text("4096\n")
    assert cgroups.totals("sb1") == (1_234_567, 4096)


def test_v1_counts_what_all_runs_used(tmp_path: Path) -> None:
    cgroups = CgroupsV1(tmp_path, "buntime-abcd")
    cgroups.create("sb1", None)
    (tmp_path / "cpuacct/buntime-abcd/sb1/runs/cpuacct.usage").write_text("1234567891\n")
    (tmp_path / "memory/buntime-abcd/sb1/runs/memory.usage_in_bytes").write_text("4096\n")
    assert cgroups.totals("sb1") == (1_234_567, 4096)


def test_v1_hands_its_processors_down_to_the_groups_that_the_runtime_makes(tmp_path: Path) -> None:
    top = tmp_path / "cpuset"
    top.mkdir()
    (top / "cpuset.cpus").write_text("0-3\n")
    (top / "cpuset.mems").write_text("0\n")
    ours = top / "buntime-abcd"
    ours.mkdir()
    Kernel(ours, {"cpuset.cpus": "\n", "cpuset.mems": "\n", "cgroup.clone_children": "0\n"}).populate()
    CgroupsV1(tmp_path, "buntime-abcd").create("sb1", None)
    found = [(ours / name).read_text().strip() for name in ("cpuset.cpus", "cpuset.mems", "cgroup.clone_children")]
    assert found == ["0-3", "0", "1"]
