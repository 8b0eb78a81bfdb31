"""The images that operators have added, in the directory that may be shared by the servers of a host.

    root-<digest>                    one image: its root file system
    root-<digest>.env                the environment that it sets, as JSON, if it sets any
    uses/root-<digest>/<instance>    marks that the server with this instance id has the image

An image goes with its last mark. Whoever changes any of it holds the lock, which `kernel/image.py` holds too.
"""

import errno
import fcntl
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from buntime.daemon.steps import reached
from buntime.sandboxes.images.sources import Say
from buntime.sandboxes.kernel.durable import sync
from buntime.sandboxes.kernel.image import UNFINISHED

ADDED = re.compile(r"root-[0-9a-f]{32}")
USES = "uses"
LOCK = ".lock"


class Shelf:
    def __init__(self, directory: Path, instance: str) -> None:
        """`instance`: of the data directory whose marks these are."""
        self._directory = directory
        self._instance = instance

    @contextmanager
    def locked(self, say: Say | None = None) -> Iterator[bool]:
        """Holds the lock, and waits for it. Without `say` it does not wait, and yields False if another has it."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self._directory / LOCK).open("w") as file:
            yield _lock(file.fileno(), say)

    @contextmanager
    def work(self) -> Iterator[Path]:
        """A directory to work in, which is removed afterwards. To be called with the lock."""
        work = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=self._directory))
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def put(self, root: Path, digest: str, env: Mapping[str, str]) -> str:
        """Keeps the root under the name of its content, marked as used, and durably. Returns the image's id. To be
        called with the lock."""
        image = f"root-{digest}"
        subprocess.run(["sync", "-f", str(root)], check=True)
        reached("image: written")
        self.mark(image)
        reached("image: marked")
        if not (self._directory / image).exists():
            if env:
                (self._directory / f"{image}.env").write_text(json.dumps(env, sort_keys=True))
            root.rename(self._directory / image)
        sync(self._directory)
        reached("image: put")
        return image

    def prune(self, used: Collection[str]) -> list[str]:
        """Marks the images that are `used`, and no others. Removes images without marks, and what a killed process left
        unfinished. Returns the ids of the removed images. To be called with the lock."""
        for mark in (self._directory / USES).glob(f"root-*/{self._instance}"):
            if mark.parent.name not in used:
                mark.unlink()
        for image in used:  # a data directory that was moved has another instance id
            if ADDED.fullmatch(image) and (self._directory / image).is_dir():
                self.mark(image)
        for left_over in self._directory.glob(UNFINISHED + "*"):
            shutil.rmtree(left_over, ignore_errors=True)
        unused = [path for path in self._directory.glob("root-*") if ADDED.fullmatch(path.name)]
        removed = [path.name for path in unused if self._remove_unmarked(path)]
        for env in self._directory.glob("root-*.env"):
            if not env.with_suffix("").exists():
                env.unlink()
        return removed

    def _remove_unmarked(self, image: Path) -> bool:
        marks = self._marks(image.name)
        try:
            marks.rmdir()
        except FileNotFoundError:
            pass
        except OSError as failed:
            if failed.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            raise
        gone = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=self._directory))
        image.rename(gone / "root")  # at once: half an image must not have its name
        shutil.rmtree(gone, ignore_errors=True)
        return True

    def mark(self, image: str) -> None:
        """This server has the image. To be called with the lock."""
        marks = self._marks(image)
        marks.mkdir(mode=0o700, parents=True, exist_ok=True)
        (marks / self._instance).touch()

    def _marks(self, image: str) -> Path:
        return self._directory / USES / image


def env_of(images: Path, image: str) -> Mapping[str, str]:
    """The environment variables that an added image sets."""
    if not ADDED.fullmatch(image):
        return {}
    try:
        return dict(json.loads((images / f"{image}.env").read_text()))
    except FileNotFoundError:
        return {}


def _lock(file: int, say: Say | None) -> bool:
    waiting = False
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if say is None:
                return False
            if not waiting:
                say("Another process makes or removes an image; waiting for it.")
            waiting = True
            time.sleep(0.2)
        else:
            return True
