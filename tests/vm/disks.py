"""The machine's three disks, made without a mount and kept between runs where they are the same again.

root         Debian with what scripts/setup and scripts/tools install      new when one of these changes
environment  .venv, .tools and the sessions' image of the host             new when one of these changes
checkout     this checkout                                                 new for each run
"""

import asyncio
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from buntime.sandboxes.kernel import image

CHECKOUT = Path(__file__).resolve().parents[2]
MAKE_ROOT = Path(__file__).with_name("make_root")
SUITE = "trixie"
PACKAGES = "systemd,systemd-sysv,udev,kmod,linux-image-cloud-amd64"
NOT_COPIED = {".git", ".venv", ".tools", ".mypy_cache", ".ruff_cache", ".hypothesis", ".pytest_cache", "__pycache__"}
ROOT_GB, SPARE_GB = 60, 4  # of files that are sparse on the host; the tests' servers make volumes of 20 GB
SHOWN = 3000  # characters of a failed tool's output

Say = Callable[[str], None]


class Failed(Exception):
    """The message says which step failed, and how."""


@dataclass(frozen=True, slots=True)
class Disks:
    kernel: Path
    initrd: Path
    root: Path
    environment: Path
    checkout: Path


def make(cache: Path, run: Path, added: Mapping[str, str], say: Say) -> Disks:
    """`cache` is kept and belongs to this process alone; `run` is removed after the run. `added`: files in the
    machine's checkout, by their names."""
    root, environment = _root(cache, say), _environment(cache, run, say)
    checkout = run / "checkout.ext4"
    ignored = shutil.ignore_patterns(*NOT_COPIED)
    shutil.copytree(CHECKOUT, run / "checkout", symlinks=True, ignore=ignored)
    _compile(run / "checkout", "src", "sdk/python/src")
    for name, text in {"vm-checkout": str(CHECKOUT), **added}.items():
        (run / "checkout" / name).write_text(text)
    _file_system(run / "checkout", checkout, SPARE_GB)
    return Disks(root / "vmlinuz", root / "initrd", root / "root.ext4", environment, checkout)


def _root(cache: Path, say: Say) -> Path:
    """A directory with the root file system, its kernel and its initrd."""
    scripts = [MAKE_ROOT, CHECKOUT / "scripts/setup", CHECKOUT / "scripts/tools"]
    digest = _digest(PACKAGES, *(script.read_text() for script in scripts))
    kept = cache / f"root-{digest}"
    if kept.is_dir():
        return kept
    say("Making the machine's root file system, once: some minutes.")
    work = _fresh(cache / "making-root")
    tree = work / "tree"
    hook = f'{shlex.quote(str(MAKE_ROOT))} "$1" {shlex.quote(str(CHECKOUT))}'
    # The mounts of mmdebstrap live in namespaces of its own: they end with it, even when it is killed.
    alone = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    tool = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--include={PACKAGES}"]
    _run([*alone, *tool, f"--customize-hook={hook}", SUITE, str(tree)], "Making a Debian root")
    for name in ("vmlinuz", "initrd"):
        (found,) = (tree / "boot").glob(f"{name}*")
        shutil.copy(found, work / name)
    _file_system(tree, work / "root.ext4", ROOT_GB)
    _keep(work, kept, cache.glob("root-*"))
    return kept


def _environment(cache: Path, run: Path, say: Say) -> Path:
    made_of = image.sources()
    images = Path(os.environ.get("BUNTIME_IMAGES_DIR", "/var/lib/buntime/images"))
    wanted = asyncio.run(image.ensure_image(images, say, made_of))
    kept = cache / f"environment-{_digest((CHECKOUT / '.venv/installed').read_text(), wanted.id, str(CHECKOUT))}.ext4"
    if kept.is_file():
        return kept
    say("Copying the Python environment and the sessions' image to a disk, once.")
    tree = run / "environment"
    (tree / "images").mkdir(parents=True)
    parts = [CHECKOUT / ".venv", CHECKOUT / ".tools"]
    _run(["cp", "-a", "--reflink=auto", *map(str, parts), str(tree)], "Copying the Python environment")
    shared = [str(images / image.base_id(made_of)), str(wanted.path)]  # in one call: they share files by hard links
    _run(["cp", "-a", "--reflink=auto", *shared, str(tree / "images")], "Copying the sessions' image")
    (tree / "extra-cas.pem").write_text("".join(made_of.extra_cas))
    _compile(tree, ".venv/lib")
    _file_system(tree, run / "environment.ext4", SPARE_GB)
    _keep(run / "environment.ext4", kept, cache.glob("environment-*"))
    return kept


def _compile(tree: Path, *parts: str) -> None:
    """Compiles ahead: an emulated machine takes minutes. Some packages ship files that are not for this Python."""
    options = ["-q", "-j", "0", "-s", str(tree), "-p", str(CHECKOUT)]
    command = [sys.executable, "-m", "compileall", *options, *(str(tree / part) for part in parts)]
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)


def _file_system(tree: Path, disk: Path, gigabytes: int) -> None:
    """Of the files below `tree`, which is removed."""
    with disk.open("wb") as file:
        file.truncate(gigabytes << 30)
    _run(["mke2fs", "-q", "-t", "ext4", "-L", disk.stem, "-d", str(tree), str(disk)], f"Filling {disk.name}")
    shutil.rmtree(tree)


def _fresh(directory: Path) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    return directory


def _keep(made: Path, kept: Path, older: Iterable[Path]) -> None:
    """Only the newest of each kind stays in the cache."""
    for path in list(older):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    made.rename(kept)


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def _run(command: Sequence[str], what: str) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise Failed(f"{what} failed (exit {done.returncode}):\n{done.stdout.strip()[-SHOWN:]}")
