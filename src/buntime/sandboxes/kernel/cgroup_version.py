"""Which version of cgroups this host has."""

from pathlib import Path

from buntime.sandboxes.kernel.cgroup import Cgroups
from buntime.sandboxes.kernel.cgroup_v1 import CgroupsV1
from buntime.sandboxes.kernel.cgroup_v2 import CgroupsV2

ROOT = Path("/sys/fs/cgroup")


def find_cgroups(instance: str) -> Cgroups:
    name = f"buntime-{instance}"
    return CgroupsV2(ROOT / name) if (ROOT / "cgroup.controllers").exists() else CgroupsV1(ROOT, name)


def is_hybrid() -> bool:
    """v1 with an empty v2 hierarchy beside it. crun refuses such a host unless the v2 hierarchy is hidden."""
    return (ROOT / "unified").is_dir() and (ROOT / "memory").is_dir()
