"""What one more bare sandbox costs, at a few live ones and at many. No part of buntime is in it.

    sudo .venv/bin/python -m bench.bare_sandboxes [--live 100 4000]

A bare sandbox is what the OCI runtime makes of the least that isolates a program: new namespaces of users, processes,
mounts, networks, IPC and host names, limits of memory, processors and processes, /proc, /dev and /dev/pts, and one
program that sleeps. It has no files of its own, no address, no packet rules, no server and no run. So what one more of
them costs with thousands of others, one more session of anything costs too on this kernel.

Prints the runtime's wall time, and the CPU time of the whole machine for one more, with what the kernel's DAMON takes
of it. Everything is ended and removed afterwards.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.context import MS
from bench.statistics import summarise
from bench.usage import cpu_seconds, watching_seconds
from buntime.config import from_environment
from buntime.plan import MB
from buntime.sandboxes.kernel.cgroup_tree import children_of, pids_of, remove_tree, signal_members
from buntime.sandboxes.kernel.cgroup_version import ROOT as CGROUPS
from buntime.sandboxes.kernel.cgroup_version import is_hybrid
from buntime.sandboxes.kernel.host import BLOCK, BLOCKS, FIRST_UID, UIDS
from buntime.sandboxes.kernel.image import ensure_image
from buntime.sandboxes.kernel.oci import HYBRID_CGROUP

GROUP = "buntime-bare"
SAMPLE = 100  # the newest of so many live ones are measured
AT_ONCE = 4
SETTLE_SECONDS = 2.0


def spec(image: Path, number: int) -> dict[str, Any]:
    ids = [{"containerID": 0, "hostID": FIRST_UID + (BLOCKS * BLOCK + number) * UIDS, "size": UIDS}]
    return {
        "ociVersion": "1.0.2",
        "root": {"path": str(image), "readonly": True},
        "process": {
            "user": {"uid": 0, "gid": 0},
            "cwd": "/",
            "args": ["/bin/sleep", "100000"],
            "noNewPrivileges": True,
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=1m"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance"]},
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("user", "pid", "mount", "network", "ipc", "uts")],
            "uidMappings": ids,
            "gidMappings": ids,
            "cgroupsPath": f"/{GROUP}/{number}",
            "resources": {
                "memory": {"limit": 256 * MB},
                "cpu": {"quota": 25_000, "period": 100_000},
                "pids": {"limit": 100},
            },
        },
    }


class Bare:
    def __init__(self, runtime: str, image: Path, scratch: Path) -> None:
        self._command = [runtime, "--root", str(scratch / "state")]
        self._image = image
        self._scratch = scratch
        self.live = 0

    def fill(self, until: int) -> None:
        with ThreadPoolExecutor(AT_ONCE) as threads:
            list(threads.map(self._start, range(self.live, until)))
        self.live = max(self.live, until)

    def one_more(self) -> float:
        """Returns seconds."""
        begun = time.monotonic()
        self._start(self.live)
        self.live += 1
        return time.monotonic() - begun

    def _start(self, number: int) -> None:
        bundle = self._scratch / str(number)
        bundle.mkdir()
        (bundle / "config.json").write_text(json.dumps(spec(self._image, number)))
        subprocess.run(
            [*self._command, "run", "-d", "-b", str(bundle), f"bare{number}"], stdin=subprocess.DEVNULL, check=True
        )


@contextmanager
def bare(runtime: str, image: Path) -> Iterator[Bare]:
    os.unshare(os.CLONE_NEWNS)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    if is_hybrid():
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(HYBRID_CGROUP)], check=True)
    with tempfile.TemporaryDirectory(prefix="buntime-bare-", dir="/run") as scratch:
        root = Path(scratch, "root")
        root.mkdir()
        root.parent.chmod(0o711)  # the users of sandboxes have no way through the directory of images
        subprocess.run(["mount", "--bind", str(image), str(root)], check=True)
        try:
            yield Bare(runtime, root, Path(scratch))
        finally:
            _remove()
            subprocess.run(["umount", str(root)], check=True)


def _remove() -> None:
    places = {CGROUPS, *CGROUPS.iterdir()} - {HYBRID_CGROUP}
    groups = [place / GROUP for place in places if (place / GROUP).is_dir()]
    for group in groups:
        for each in children_of(group):
            signal_members(group / each, pids_of(group / each), signal.SIGKILL)
    for group in groups:
        while not remove_tree(group):
            time.sleep(0.01)  # a process is still ending


def _measured(some: Bare, live: int) -> str:
    some.fill(live - SAMPLE)
    time.sleep(SETTLE_SECONDS)
    cpu, damon = cpu_seconds(), watching_seconds()
    times = [some.one_more() for _ in range(SAMPLE)]
    cpu, damon = (MS * each / SAMPLE for each in (cpu_seconds() - cpu, watching_seconds() - damon))
    wall = summarise([MS * each for each in times])
    return f"{live:>6} {wall.p50:>12.1f} {cpu:>12.1f} {damon:>12.1f} {cpu - damon:>12.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--live", nargs="+", type=int, default=[SAMPLE, 500, 1000, 2000, 4000])
    asked = parser.parse_args()
    config = from_environment(os.environ)
    image = asyncio.run(ensure_image(config.images, print))
    with bare(config.runtime, image.path) as some:
        print(f"{'live':>6} {'wall, ms':>12} {'CPU, ms':>12} {'DAMON':>12} {'without it':>12}", flush=True)
        for live in asked.live:
            print(_measured(some, live), flush=True)


if __name__ == "__main__":
    main()
