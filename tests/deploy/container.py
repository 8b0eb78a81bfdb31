"""The image of deploy/Containerfile, made by buildah, and started by crun as a privileged container.

The image's base is made from Debian's packages, as `debian:trixie-slim` is, since a test fetches nothing from a
registry of images. The container has a network of its own, as a pod has.
"""

import json
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.acceptance.server import IMAGES
from tests.waiting import until

CHECKOUT = Path(__file__).parents[2]
AUTHORITIES = Path("/usr/local/share/ca-certificates")  # that this machine trusts beyond Debian's
TRUSTED = "/etc/ssl/certs/ca-certificates.crt"
# As debian:trixie-slim has them. They stay in the base, so that the packages of the image come faster too.
SLIM = (
    *("--dpkgopt=force-unsafe-io", '--aptopt=Acquire::Languages "none"'),
    *(f"--dpkgopt=path-exclude=/usr/share/{what}/*" for what in ("doc", "info", "locale", "man")),
)
STARTS = 180.0  # seconds
NONE: Mapping[str, str] = MappingProxyType({})
LOOK = '! mountpoint -q /sys/fs/cgroup/unified || umount /sys/fs/cgroup/unified; exec "$@"'  # crun refuses both


def run(*command: str | Path) -> str:
    """Raises AssertionError with what the command said."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {(done.stdout + done.stderr)[-4000:]}"
    return str(done.stdout).strip()


@dataclass(frozen=True, slots=True)
class Image:
    directory: Path  # for what a container of it needs
    root: Path  # of the files, which containers change
    config: Mapping[str, Any]  # as the format of OCI has it


@contextmanager
def image(directory: Path) -> Iterator[Image]:
    """Makes the image, and mounts it. All of it is in the directory, and gone after the block."""
    where = ("--root", directory / "storage", "--runroot", directory / "run")

    def buildah(*arguments: str | Path) -> str:
        return run("buildah", *where, *arguments)

    try:
        base = buildah("from", "scratch")
        buildah("add", "--quiet", base, _debian(directory), "/")
        buildah("commit", "--quiet", base, "localhost/debian")
        options = [f"--ulimit={name}={soft}:{hard}" for name, (soft, hard) in _limits().items()]
        options += [f"--build-arg={name}" for name in ("BASE=localhost/debian", *_arguments())]
        file = CHECKOUT / "deploy/Containerfile"
        buildah("build", "--isolation=chroot", "--network=host", *options, "--file", file, "--tag=buntime", CHECKOUT)
        made = json.loads(buildah("inspect", "--type=image", "localhost/buntime"))
        # an overlay, as engines of containers have it: nothing is copied
        root = buildah("mount", buildah("from", "localhost/buntime"))
        yield Image(directory, Path(root), made["OCIv1"]["config"])
    finally:
        buildah("rm", "--all")
        buildah("rmi", "--all", "--force")
        shutil.rmtree(directory)


def _debian(directory: Path) -> Path:
    tar = directory / "debian.tar"
    trust = (
        f'mkdir -p "$1"{AUTHORITIES} && cp {AUTHORITIES}/*.crt "$1"{AUTHORITIES}/ && chroot "$1" update-ca-certificates'
    )
    hooks = [f"--customize-hook={trust}"] if _arguments() else []
    lists = '--customize-hook=rm -rf "$1"/var/lib/apt/lists/*'
    run("mmdebstrap", "--quiet", "--variant=minbase", "--include=ca-certificates", *SLIM, *hooks, lists, "trixie", tar)
    return tar


def _arguments() -> Sequence[str]:
    """For a network with an authority of its own."""
    return (f"SSL_CERT_FILE={TRUSTED}", f"NODE_EXTRA_CA_CERTS={TRUSTED}") if list(AUTHORITIES.glob("*.crt")) else ()


def _limits() -> Mapping[str, tuple[int, int]]:
    """This process's own. By default buildah wants more, which not every machine allows."""
    return {
        "nofile": resource.getrlimit(resource.RLIMIT_NOFILE),
        "nproc": resource.getrlimit(resource.RLIMIT_NPROC),
    }


class Container:
    """A host whose data directory stays when the container ends. `data` is its path inside, too."""

    def __init__(
        self, image: Image, data: Path, settings: Mapping[str, str] = NONE, shared: Path | None = None
    ) -> None:
        """`shared`: another directory of this machine, which the container has at the same path."""
        self.name = f"buntime-test-{os.getpid()}"
        self.log = image.directory / "log"
        self._image, self._settings = image, {"BUNTIME_DATA_DIR": str(data), **settings}
        self._shared = [data, *([shared] if shared else [])]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when the server is ready."""
        self._launch(self._image.config["Cmd"])
        until(lambda: self._says("readyz"), "a server that is ready", STARTS)

    def stop(self) -> int:
        """As Kubernetes does. Returns the exit code."""
        assert self._process
        if self._process.poll() is None:
            run("crun", "kill", self.name, "TERM")
        return self._process.wait()

    def purge(self) -> None:
        """Removes what the host made, after its end."""
        self._launch(["purge", "--yes"])
        assert self._process
        assert self._process.wait() == 0, self.log.read_text()

    def buntime(self, *arguments: str, key: str = "") -> str:
        variables = [f"BUNTIME_URL=http://127.0.0.1:{PORT}", *([f"BUNTIME_API_KEY={key}"] if key else [])]
        return run("crun", "exec", self.name, "env", *variables, "buntime", *arguments)

    def inside(self, *command: str) -> str:
        return run("crun", "exec", self.name, *command)

    def _says(self, path: str) -> bool:
        code = "import sys, urllib.request as r; r.urlopen(f'http://127.0.0.1:{sys.argv[1]}/{sys.argv[2]}')"
        asked = ["crun", "exec", self.name, "python3", "-c", code, str(PORT), path]
        assert self._process
        assert self._process.poll() is None, self.log.read_text()
        return subprocess.run(asked, capture_output=True, check=False).returncode == 0

    def _launch(self, arguments: Sequence[str]) -> None:
        directory = self._image.directory
        bundle = _privileged(self._image, self._settings, self._shared, arguments)
        (directory / "config.json").write_text(json.dumps(bundle))
        command = ["unshare", "--mount", "--propagation=private", "sh", "-c", LOOK, "sh", "crun",
                   "--cgroup-manager=cgroupfs", "run", "--bundle", str(directory), self.name]  # fmt: skip
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


PORT = 8000


def _privileged(
    image: Image, settings: Mapping[str, str], shared: Sequence[Path], arguments: Sequence[str]
) -> dict[str, Any]:
    """As Kubernetes starts a privileged container with the volumes of deploy/helm."""
    process = {
        "args": [*image.config["Entrypoint"], *arguments],
        "cwd": image.config["WorkingDir"],
        "user": {"uid": 0, "gid": 0},
        "capabilities": {kind: _capabilities() for kind in ("bounding", "effective", "permitted")},
        "env": [
            *image.config["Env"],
            *("HOME=/root", "BUNTIME_IMAGES_DIR=/images", "BUNTIME_POOL_SIZE=1", "BUNTIME_VOLUMES_GB=4"),
            *(f"{name}={value}" for name, value in settings.items()),
        ],
    }
    volumes = {"/dev": "/dev", "/sys/fs/cgroup": "/sys/fs/cgroup", "/images": str(IMAGES)}
    volumes |= {str(path): str(path) for path in shared}
    return {
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": str(image.root)},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev"]},
            *({"destination": inside, "type": "bind", "source": outside, "options": ["rbind", "rslave"]}
              for inside, outside in volumes.items()),
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
            "resources": {"devices": [{"allow": True, "access": "rwm"}]},
        },
    }  # fmt: skip


def _capabilities() -> Sequence[str]:
    """All that this process may have."""
    listed = run("capsh", "--print").partition("Bounding set =")[2].partition("\n")[0]
    return [name.upper() for name in listed.split(",")]
