"""`crun run` of the very spec that sandboxes have: what starting one cannot be cheaper than.

The spec, the layers and the mounts are the product's own. Timed is the runtime's command alone – not the mounts
before it, nor the volume, the network and the waiting for the guest, which a cold start pays as well.
"""

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from bench.server import Server
from buntime.sandboxes.kernel import seccomp
from buntime.sandboxes.kernel.host import BLOCK, BLOCKS, FIRST_UID, UIDS
from buntime.sandboxes.kernel.oci import Place, Runtime
from buntime.sandboxes.kernel.volume import Volumes

NAME = "bench"
FREE_UID = FIRST_UID + BLOCKS * BLOCK * UIDS  # above those of every installation
# Stands in the runtime's place and writes how long each `run` took, in microseconds.
STOPWATCH = """#!/bin/bash
start=${{EPOCHREALTIME/[.,]/}}
{runtime} "$@"
status=$?
case " $* " in *" run "*) echo $((${{EPOCHREALTIME/[.,]/}} - start)) >>{times} ;; esac
exit $status
"""


def crun_runs(server: Server, count: int) -> list[float]:
    """Seconds of each of so many starts, one after the other."""
    bundle = server.scratch / "bundle"
    bundle.mkdir()
    volumes = Volumes(server.config)
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
    """The runtime behind a stopwatch, under its own name (it decides on options), and the file with the times."""
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
        volume=volume,
        resolv_conf=server.config.data_dir / "resolv.conf",
        netns=netns,
        cgroup=f"/buntime-bench-{server.config.instance}",
        address="127.0.0.1",
        secret="0" * 32,
        first_uid=FREE_UID,
    )


@contextmanager
def _network() -> Iterator[str]:
    """A network namespace with nothing but `lo`, which the guest can listen on; it ends with its last user."""

    def make() -> int:
        os.unshare(os.CLONE_NEWNET)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    with ThreadPoolExecutor(1) as thread:  # one of its own, which ends: it has left the host's network
        handle = thread.submit(make).result()
    try:
        yield f"/proc/{os.getpid()}/fd/{handle}"
    finally:
        os.close(handle)
