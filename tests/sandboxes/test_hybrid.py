"""A host with cgroups v1 and an empty v2 hierarchy beside them, which is hidden from the runtime."""

import subprocess

import pytest

from buntime.sandboxes.kernel.cgroup_version import is_hybrid
from buntime.sandboxes.kernel.oci import HYBRID_CGROUP
from tests.contracts.test_sandboxes import LIMITS, REAL, LocalHost

pytestmark = REAL
ONLY_THERE = pytest.mark.skipif(not is_hybrid(), reason="this host has cgroups of one version")


def _below() -> list[str]:
    """What is in the directory that the hierarchy is mounted on."""
    command = ["unshare", "--mount", "sh", "-ec", f"umount {HYBRID_CGROUP}; ls {HYBRID_CGROUP}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


@ONLY_THERE
async def test_a_sandbox_leaves_nothing_below_the_hidden_hierarchy(host: LocalHost) -> None:
    claimed = await host.sandboxes.claim("ses_abc123def456ghi789", LIMITS)
    assert host.sandboxes.is_running(claimed.sandbox.id)
    assert f"buntime-{host.instance}" not in _below()


@ONLY_THERE
async def test_nor_where_the_runtime_sees_a_directory_in_its_place(host: LocalHost) -> None:
    await host.sandboxes.claim("ses_abc123def456ghi789", LIMITS)
    threads = host.sandboxes._containers._runtime._mounts._threads  # type: ignore[attr-defined]
    found = [path for path in threads.submit(lambda: list(HYBRID_CGROUP.rglob("*"))).result() if path.is_file()]
    assert found == []
