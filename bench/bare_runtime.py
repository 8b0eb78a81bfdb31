"""`crun run` with the same spec as sandboxes: no start can be cheaper.

The spec, the layers and the mounts are the product's own. Only the runtime's command is timed. A cold start also pays
for the mounts before it, the volume, the network and the wait for the guest.
"""

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from bench import machine
from bench.server import Server
from buntime.plan import Limits
from buntime.sandboxes.kernel import seccomp
from buntime.sandboxes.kernel.host import BLOCK, BLOCKS, FIRST_UID, UIDS
from buntime.sandboxes.kernel.oci import Place, Runtime
from buntime.sandboxes.kernel.seen import make_mount_points, write_seen

NAME = "bench"
FREE_UID = FIRST_UID + BLOCKS * BLOCK * UIDS  # above the user ids of every installation
# Replaces the runtime and writes how long each `run` took, in microseconds.
STOPWATCH = """#!/bin/bash
start=${{EPOCHREALTIME/[.,]/}}
{runtime} "$@"
status=$?
case " $* " in *" run "*) echo $((${{EPOCHREALTIME/[.,]/}} - start)) >>{times} ;; esac
exit $status
"""


def crun_runs(server: Server, count: int) -> list[float]:
    """Returns the seconds that each of `count` starts took, one after the other."""
    bundle = server.scratch / "bundle"
    bundle.mkdir()
    volumes = machine.volumes_of(server.config)
    try:
        with _network() as netns:
            runtime, times = _stopwatch(server)
            for number in range(count):
                name = f"{NAME}{number}"
                volumes.create(name, 64)
                try:
                    _start_and_end(runtime, _place(server, bundle, volumes.path(name), netns))
                finally:
                    volumes.destroy(name)
        return [int(line) / 1e6 for line in times.read_text().split()]
    finally:
        shutil.rmtree(bundle)


def _start_and_end(runtime: Runtime, place: Place) -> None:
    try:
        runtime.run(place, seccomp.profile(seccomp.PROFILE.read_text()))
    finally:
        runtime.delete(place.name)


def _stopwatch(server: Server) -> tuple[Runtime, Path]:
    """Returns the runtime behind a stopwatch, and the file with the times. It keeps its name, which
    decides on options.
    """
    times = server.scratch / "runtime-times"
    program = server.scratch / Path(server.config.runtime).name
    real = shutil.which(server.config.runtime) or server.config.runtime
    program.write_text(STOPWATCH.format(runtime=shlex.quote(real), times=shlex.quote(str(times))))
    program.chmod(0o700)
    return Runtime(str(program), server.scratch / "runtime"), times


def _place(server: Server, bundle: Path, volume: Path, netns: str) -> Place:
    return Place(
        name=f"buntime-{server.config.instance}-{NAME}",
        bundle=bundle,
        image=server.image.path,
        packed=[],
        guest=server.image.guest,
        volume=volume,
        resolv_conf=server.config.data_dir / "resolv.conf",
        seen=_seen(server),
        quota=Path("/sys/fs/btrfs"),
        controllers={},
        netns=netns,
        cgroup=f"/buntime-bench-{server.config.instance}",
        address="127.0.0.1",
        secret="0" * 32,
        first_uid=FREE_UID,
    )


def _seen(server: Server) -> Path:
    seen = server.scratch / "seen"
    write_seen(seen, Limits(memory=1024, cpu=0.25, timeout=30, disk=1024))
    make_mount_points(seen, {})
    return seen


@contextmanager
def _network() -> Iterator[str]:
    """Yields a network namespace with nothing but `lo`, on which the guest can listen. It ends with its last user."""

    def make() -> int:
        os.unshare(os.CLONE_NEWNET)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    with ThreadPoolExecutor(1) as thread:  # a separate thread, because it leaves the host's network
        handle = thread.submit(make).result()
    try:
        yield f"/proc/{os.getpid()}/fd/{handle}"
    finally:
        os.close(handle)
