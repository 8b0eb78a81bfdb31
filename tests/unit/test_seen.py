"""The texts that programs in a sandbox read about its limits."""

import os
from pathlib import Path

import pytest

from buntime.plan import Limits
from buntime.sandboxes.kernel.cgroup_v1 import CgroupsV1
from buntime.sandboxes.kernel.cgroup_v2 import CgroupsV2
from buntime.sandboxes.kernel.seen import CPU, make_mount_points, texts, write_seen

CPUINFO = "".join(f"processor\t: {number}\nmodel name\t: X\n\n" for number in range(8))


def limits(cpu: float = 0.25, memory: int = 1024) -> Limits:
    return Limits(memory=memory, cpu=cpu, timeout=30, disk=1024)


@pytest.mark.parametrize(("cpu", "online", "count"), [(0.25, "0", 1), (1, "0", 1), (1.5, "0-1", 2), (64, "0-7", 8)])
def test_a_part_of_a_core_counts_as_one_and_no_session_has_more_than_the_host(
    cpu: float, online: str, count: int
) -> None:
    told = texts(limits(cpu), CPUINFO, 8)
    assert told[f"{CPU}/online"] == f"{online}\n"
    assert told["cpuinfo"].count("processor\t:") == count
    assert told["cpuinfo"].endswith("\n\n")


def test_all_memory_is_free_for_want_of_a_number_that_moves() -> None:
    lines = dict(line.split(":") for line in texts(limits(memory=512), CPUINFO, 8)["meminfo"].splitlines())
    assert {lines[name].strip() for name in ("MemTotal", "MemFree", "MemAvailable")} == {"524288 kB"}
    assert lines["SwapTotal"].strip() == "0 kB"


def test_other_limits_change_the_same_files_because_mounts_keep_them(tmp_path: Path) -> None:
    write_seen(tmp_path, limits())
    file = tmp_path / "meminfo"
    before = file.stat().st_ino
    write_seen(tmp_path, limits(memory=2048))
    assert file.stat().st_ino == before
    assert "2097152 kB" in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o444


def test_a_session_sees_its_own_cgroups_where_programs_of_each_version_look(tmp_path: Path) -> None:
    v1, v2 = CgroupsV1(tmp_path, "buntime-abcd"), CgroupsV2(tmp_path / "buntime-abcd")
    assert v1.seen("sb1") == {name: tmp_path / name / "buntime-abcd/sb1/runs" for name in ("memory", "cpu")}
    assert v2.seen("sb1") == {"": tmp_path / "buntime-abcd/sb1/runs"}


def test_a_session_can_read_the_files_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_seen(tmp_path / "seen", limits())
        make_mount_points(tmp_path / "seen", {"memory": tmp_path})
    finally:
        os.umask(before)
    for path in (tmp_path / "seen", *(tmp_path / "seen").rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o444)
