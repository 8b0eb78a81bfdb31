"""A sandbox as an OCI runtime sees it: the spec, and the runtime's verbs on its command line. Blocking."""

import json
import os
import resource
import shlex
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from buntime.sandboxes.kernel.cgroup_version import is_hybrid
from buntime.sandboxes.kernel.commands import HostCommandFailed, call_detached
from buntime.sandboxes.kernel.mounts import GUEST, ROOT, Layers, MountThreads, OwnFiles
from buntime.sandboxes.kernel.private import DEV, DEVICES, EMPTY, HOSTS, RESOLV_CONF, RUN, SHM
from buntime.sandboxes.kernel.root import Leave, replace_root
from buntime.sandboxes.kernel.seen import CGROUP, PROC_FILES, QUOTA
from buntime.sandboxes.kernel.user_namespaces import NamespaceMaker

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
PTYS = 64  # of one sandbox: the kernel has one limit for the whole host
CORE = 1  # byte: no core file and no core handler of the host, see `seccomp.py`
OPEN_FILES = 16384  # of one process; the session's memory bounds those of all its processes
MASKED = "acpi asound cmdline kcore keys latency_stats timer_list timer_stats sched_debug scsi interrupts sysrq-trigger"
READ_ONLY = "bus fs irq sys"


@dataclass(frozen=True, slots=True)
class Place:
    """The paths, names and ids of one sandbox."""

    name: str  # of the container: buntime-<instance>-<sandbox>
    bundle: Path  # also holds the pid file
    image: Path
    packed: Sequence[Path]  # block devices with the layers above the image
    guest: Path  # its programs
    volume: Path
    resolv_conf: Path
    seen: Path  # see `seen.py`
    quota: Path  # the kernel's numbers of the volume
    controllers: Mapping[str, Path]  # below /sys/fs/cgroup → the session's own cgroup
    netns: str  # path of its network namespace
    cgroup: str  # path, as the runtime takes it
    address: str
    secret: str
    first_uid: int
    huge: Path | None = None  # what lies over the image, see `huge.py`
    guest_huge: Path | None = None  # the same for the image of the guest

    @property
    def pid_file(self) -> Path:
        return self.bundle / "pid"


SHELL = ["/run/guest/ld.so", "--library-path", "/run/guest/lib", "/run/guest/sh"]  # works without a /usr
HYBRID_CGROUP = Path("/sys/fs/cgroup/unified")  # crun refuses a v1 machine with an empty v2 hierarchy beside it


def spec(place: Place, user_namespace: str, seccomp: Mapping[str, Any]) -> dict[str, Any]:
    """`user_namespace`: the path of a namespace that maps the session's ids."""
    namespaces = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "cgroup")]
    joined = [{"type": "user", "path": user_namespace}, {"type": "network", "path": place.netns}]
    return {
        "ociVersion": "1.0.2",
        "hostname": "session",
        "root": {"path": str(ROOT)},
        "process": _process(place),
        "mounts": _mounts(place),
        "linux": {
            "namespaces": [*namespaces, *joined],
            "cgroupsPath": place.cgroup,
            "seccomp": seccomp,
            "maskedPaths": [f"/proc/{name}" for name in MASKED.split() if not _is_directory(name)],
            "readonlyPaths": [f"/proc/{name}" for name in READ_ONLY.split()],
        },
    }


def _process(place: Place) -> dict[str, Any]:
    """The guest, which is init too."""
    return {
        "user": {"uid": 0, "gid": 0},
        "cwd": "/",
        "noNewPrivileges": True,
        "oomScoreAdj": 300,  # when the host runs out of memory, sessions end before what serves them
        "args": ["/run/guest/guest"],
        "env": [
            f"GUEST_ADDRESS={place.address}",
            f"GUEST_PORT={GUEST_PORT}",
            f"GUEST_SECRET={place.secret}",
            f"GUEST_SHELL={json.dumps(SHELL)}",
            "PATH=/usr/local/bin:/usr/bin:/bin",
            "HOME=/root",
        ],
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES),
        "rlimits": [
            {"type": "RLIMIT_NOFILE", "soft": 4096, "hard": _most_files()},
            {"type": "RLIMIT_CORE", "soft": CORE, "hard": CORE},
        ],
    }


def _most_files() -> int:
    """To exceed the server's own limit, the container's user namespace would need a capability that it lacks."""
    return min(OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def _mounts(place: Place) -> list[dict[str, Any]]:
    """A tmpfs that the runtime mounts, and its mask of a directory, would each be a file system more."""
    pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", f"max={PTYS}"]
    return [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "nodev", "noexec"]},
        _bind("/dev", DEV, "nodev", "noexec"),
        _bind("/dev/shm", SHM, "nodev", "noexec"),
        _bind("/run", RUN, "nodev"),
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": pts},
        *(_bind(f"/dev/{name}", HOSTS / name, "noexec") for name in DEVICES),
        *(_bind(f"/proc/{name}", EMPTY, "ro", "nodev", "noexec") for name in MASKED.split() if _is_directory(name)),
        _read_only("/sys", GUEST / "sys"),  # else the runtime would bind the host's
        *(_read_only(f"/proc/{name}", GUEST / name) for name in PROC_FILES),
        *(_read_only(f"/{CGROUP}/{name}".rstrip("/"), group) for name, group in place.controllers.items()),
        _read_only(f"/{QUOTA}", place.quota),
        _read_only("/run/guest", GUEST),
        _read_only("/etc/resolv.conf", RESOLV_CONF),
    ]


def _is_directory(name: str) -> bool:
    return Path("/proc", name).is_dir()


def _bind(to: str, source: Path, *options: str) -> dict[str, Any]:
    """Of one mount, without those below it."""
    return {"destination": to, "type": "bind", "source": str(source), "options": ["bind", "nosuid", *options]}


def _read_only(to: str, source: Path) -> dict[str, Any]:
    options = ["rbind", "ro", "nosuid", "nodev"]
    return {"destination": to, "type": "bind", "source": str(source), "options": options}


class Runtime:
    """crun, or another program with the same verbs."""

    def __init__(self, program: str, state: Path, others_volumes: Sequence[Path] = ()) -> None:
        """`others_volumes`: mounts of this host's other servers, which must be able to unmount them."""
        self._verb = [program, "--root", str(state)]
        if Path(program).name == "crun":
            self._verb.append("--cgroup-manager=cgroupfs")
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._state = state
        self._namespaces = NamespaceMaker()
        self._id_maps: dict[str, int] = {}  # container → the user namespace of its layers, for another root
        self._mounts = MountThreads(others_volumes, [HYBRID_CGROUP] if is_hybrid() else [])

    def run(self, place: Place, seccomp: Mapping[str, Any]) -> int:
        """Starts the container. Returns the host's pid of its init. Raises HostCommandFailed."""
        verb = [*self._verb, "run", "-d", "-b", str(place.bundle), "--pid-file", str(place.pid_file), place.name]
        with self._namespaces.of_sandbox(place.first_uid) as users:
            (place.bundle / "config.json").write_text(json.dumps(spec(place, users.session_path, seccomp)))
            layers = Layers(place.image, place.packed, place.volume, users.mounts, place.huge)
            files = OwnFiles(place.resolv_conf, place.seen, place.guest, place.first_uid, place.guest_huge)
            self._mounts.with_layers(layers, files, lambda: self._start(verb, place))
            self._id_maps[place.name] = os.dup(users.mounts)
        return int(place.pid_file.read_text())

    def _start(self, verb: list[str], place: Place) -> None:
        try:
            self._call(verb)
        finally:
            if is_hybrid():  # crun has made a directory there, as if it were a hierarchy
                shutil.rmtree(f"{HYBRID_CGROUP}{place.cgroup}", ignore_errors=True)

    def replace_root(self, place: Place, init: int, leave: Leave) -> None:
        """Gives the running container the place's image and volume in place of its own. `init`: a pidfd of its init.
        `leave`: see `root.replace_root`.

        Raises NotAttachable, which changes nothing, and HostCommandFailed, after which it must be deleted.
        """
        with ExitStack() as stack:
            mapped = self._id_maps.pop(place.name, None)
            if mapped is None:  # an earlier server started it
                mapped = stack.enter_context(self._namespaces.id_map(place.first_uid))
            else:
                stack.callback(os.close, mapped)
            layers = Layers(place.image, place.packed, place.volume, mapped, place.huge)
            replace_root(self._mounts, init, layers, place.quota, leave)

    def keep_root(self, name: str) -> None:
        """Closes what another root of the container would need. Each open file of the server makes it slower to start a
        process. Idempotent."""
        mapped = self._id_maps.pop(name, None)
        if mapped is not None:
            os.close(mapped)

    def delete(self, name: str) -> None:
        """Kills the container if it runs, and forgets it. Idempotent."""
        self.keep_root(name)
        if not (self._state / name).exists():
            return
        hide = "! mountpoint -q /sys/fs/cgroup/unified || umount /sys/fs/cgroup/unified\n" if is_hybrid() else ""
        script = f"{hide}exec {shlex.join([*self._verb, 'delete', '-f', name])}"
        self._call(["unshare", "-m", "sh", "-ec", script])

    def known(self) -> set[str]:
        """The names of containers that the runtime knows. crun also keeps a `.cache` there."""
        return {entry.name for entry in os.scandir(self._state) if not entry.name.startswith(".")}

    def close(self) -> None:
        self._mounts.close()
        self._namespaces.close()
        while self._id_maps:
            os.close(self._id_maps.popitem()[1])

    def _call(self, argv: list[str]) -> None:
        try:
            call_detached(argv, START_SECONDS)
        except HostCommandFailed as failed:
            raise HostCommandFailed(f"{self._verb[0]}: {failed}") from failed
