"""A sandbox as an OCI runtime sees it: the spec, and the runtime's verbs by its command line. Blocking.

Mounts are made in a mount namespace of their own, which the container inherits: the host's mount
table stays as it was and nothing can be left in it.
"""

import json
import os
import resource
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from buntime.config import SHARED_RUN_DIR
from buntime.sandboxes.cgroup import is_hybrid
from buntime.sandboxes.commands import HostCommandFailed, call, call_detached
from buntime.sandboxes.host import UIDS

GUEST_PORT = 49  # below 1024: previews cannot name it
CAPABILITIES = [
    f"CAP_{name}"
    for name in [
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "SETGID",
        "SETUID",
        "SETPCAP",
        "NET_BIND_SERVICE",
        "SYS_CHROOT",
        "SETFCAP",
    ]
]
START_SECONDS = 30.0
OPEN_FILES = 65536
INOTIFY_INSTANCES, INOTIFY_WATCHES = 128, 65536  # of one sandbox
MASKED = "acpi asound kcore keys latency_stats timer_list timer_stats sched_debug scsi interrupts sysrq-trigger"
READ_ONLY = "bus fs irq sys"


# Mount points, the same for all: each start uses them in a mount namespace of its own. The container's root, who is
# nobody on the host, must be able to walk there, which it cannot in the data directory.
MOUNTS = SHARED_RUN_DIR / "mounts"


@dataclass(frozen=True, slots=True)
class Place:
    """Where one sandbox is."""

    name: str  # of the container: buntime-<instance>-<sandbox>
    bundle: Path  # also holds the pid file and the runtime's log
    image: Path
    volume: Path
    resolv_conf: Path
    netns: str  # path
    cgroup: str  # path for the runtime
    address: str
    secret: str
    first_uid: int

    @property
    def pid_file(self) -> Path:
        return self.bundle / "pid"

    @property
    def runtime_log(self) -> Path:
        return self.bundle / "runtime.log"


def spec(place: Place, seccomp: Mapping[str, Any]) -> dict[str, Any]:
    ids = [{"containerID": 0, "hostID": place.first_uid, "size": UIDS}]
    namespaces = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "cgroup", "user")]
    return {
        "ociVersion": "1.0.2",
        "hostname": "session",
        "root": {"path": str(MOUNTS / "root")},
        "process": {
            "user": {"uid": 0, "gid": 0},
            "cwd": "/",
            "noNewPrivileges": True,
            "oomScoreAdj": 300,  # when the host itself runs out, sessions go before what serves them
            "args": ["/run/guest/init", "--", *_guest("bun", "--smol", "/run/guest/guest.js")],
            "env": [
                f"GUEST_ADDRESS={place.address}",
                f"GUEST_PORT={GUEST_PORT}",
                f"GUEST_SECRET={place.secret}",
                f"GUEST_SHELL={json.dumps(_guest('sh'))}",
                "PATH=/usr/local/bin:/usr/bin:/bin",
                "HOME=/root",
            ],
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES),
            "rlimits": [
                {"type": "RLIMIT_NOFILE", "soft": 4096, "hard": _most_files()},
                {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
            ],
        },
        "mounts": _mounts(),
        "linux": {
            "namespaces": [*namespaces, {"type": "network", "path": place.netns}],
            "uidMappings": ids,
            "gidMappings": ids,
            "cgroupsPath": place.cgroup,
            "seccomp": seccomp,
            "maskedPaths": [f"/proc/{name}" for name in MASKED.split()],
            "readonlyPaths": [f"/proc/{name}" for name in READ_ONLY.split()],
        },
    }


def _most_files() -> int:
    """Raising it beyond the server's own takes a capability that the container's user namespace does not have."""
    return min(OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def _guest(program: str, *arguments: str) -> list[str]:
    """A program of the guest's own directory, run by the loader and libraries there."""
    return ["/run/guest/ld.so", "--library-path", "/run/guest/lib", f"/run/guest/{program}", *arguments]


def _mounts() -> list[dict[str, Any]]:
    def tmpfs(to: str, *options: str) -> dict[str, Any]:
        return {"destination": to, "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", *options]}

    def bind(to: str, source: Path) -> dict[str, Any]:
        options = ["rbind", "ro", "nosuid", "nodev"]
        return {"destination": to, "type": "bind", "source": str(source), "options": options}

    pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "max=64"]
    return [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "nodev", "noexec"]},
        tmpfs("/dev", "noexec", "strictatime", "mode=755", "size=64k"),
        tmpfs("/dev/shm", "noexec", "mode=1777", "size=64m"),
        tmpfs("/run", "mode=755", "size=16m"),
        tmpfs("/sys", "ro", "size=4k"),  # crun would bind the host's otherwise
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": pts},
        bind("/run/guest", MOUNTS / "image/usr/lib/buntime"),
        bind("/etc/resolv.conf", MOUNTS / "resolv.conf"),
    ]


class Runtime:
    """crun, or what takes the same verbs."""

    def __init__(self, program: str, state: Path) -> None:
        self._verb = [program, "--root", str(state)]
        if Path(program).name == "crun":
            self._verb.append("--cgroup-manager=cgroupfs")
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._state = state
        for name in ("", "root", "image", "volume"):
            (MOUNTS / name).mkdir(mode=0o711, parents=True, exist_ok=True)
        (MOUNTS / "resolv.conf").touch(mode=0o644)

    def run(self, place: Place, seccomp: Mapping[str, Any]) -> int:
        """Starts the container; the host's pid of its init. Raises HostCommandFailed."""
        (place.bundle / "config.json").write_text(json.dumps(spec(place, seccomp)))
        self._private(_start_script(place, self._verb), place.runtime_log)
        return int(place.pid_file.read_text())

    def delete(self, name: str, log: Path) -> None:
        """Kills it if it runs and forgets it. Idempotent."""
        if (self._state / name).exists():
            self._private(f"exec {shlex.join([*self._verb, 'delete', '-f', name])}", log)

    def known(self) -> set[str]:
        """The names of containers that the runtime has a state of."""
        return {entry.name for entry in os.scandir(self._state)}

    def version(self) -> str:
        return call([self._verb[0], "--version"]).splitlines()[0]

    def _private(self, script: str, log: Path) -> None:
        """Runs the script in a mount namespace of its own, without a pipe: a container would inherit it."""
        if is_hybrid():
            script = "! mountpoint -q /sys/fs/cgroup/unified || umount /sys/fs/cgroup/unified\n" + script
        try:
            call_detached(["unshare", "-m", "sh", "-ec", script], log, START_SECONDS)
        except HostCommandFailed as failed:
            raise HostCommandFailed(f"{self._verb[0]}: {failed}") from failed


def _start_script(place: Place, verb: list[str]) -> str:
    """The idmapped layers, the overlay and the container. The volume's map has a spare id for the host's root,
    without which overlay cannot make its work directory and silently turns read-only."""
    uid = place.first_uid
    image_map = f"X-mount.idmap=b:0:{uid}:{UIDS}"
    volume_map = f"{image_map} b:{UIDS}:0:1"
    overlay = (
        f"lowerdir={MOUNTS}/image,upperdir={MOUNTS}/volume/upper,workdir={MOUNTS}/volume/work,"
        "metacopy=off,index=off,redirect_dir=nofollow,nosuid,nodev"
    )
    lines = [
        ["mount", "--bind", "-o", image_map, str(place.image), f"{MOUNTS}/image"],
        ["mount", "--bind", "-o", volume_map, str(place.volume), f"{MOUNTS}/volume"],
        ["mount", "-t", "overlay", "overlay", "-o", overlay, f"{MOUNTS}/root"],
        ["mount", "--bind", str(place.resolv_conf), f"{MOUNTS}/resolv.conf"],
        [*verb, "run", "-d", "-b", str(place.bundle), "--pid-file", str(place.pid_file), place.name],
    ]
    limits = (
        f"echo {INOTIFY_INSTANCES} >/proc/sys/user/max_inotify_instances; "
        f"echo {INOTIFY_WATCHES} >/proc/sys/user/max_inotify_watches"
    )
    script = "\n".join(shlex.join(line) for line in lines)
    pid = f"$(cat {shlex.quote(str(place.pid_file))})"
    return f"{script}\nexec nsenter -U -t {pid} sh -c {shlex.quote(limits)}"
