"""A copy of the checkout with an environment of its own. Mutants are applied here, never to the checkout itself."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.mutation.mutant import Edit
from tests.mutation.tree import GUEST, images_dir

SHARED = (".venv", ".tools", "guest/node_modules", "sdk/typescript/node_modules")  # not in git; never written by tests
DISK = Path("/var/tmp")  # a disk: the tests put file systems into files here
MEMORY = Path("/dev/shm")  # for tests without sandboxes, which wait for the disk most of the time
EARLIER = 1_000_000  # seconds: Python takes a compiled file for current by the source's time and size alone


class Scratch:
    def __init__(self, checkout: Path) -> None:
        self.checkout = checkout
        self.home = Path(tempfile.mkdtemp(prefix="buntime-mutants-", dir=DISK))
        self.memory = Path(tempfile.mkdtemp(prefix="buntime-mutants-", dir=MEMORY if MEMORY.is_dir() else DISK))
        self.home.chmod(0o755)  # nginx's workers are another user
        self.memory.chmod(0o755)
        self.root = self.home / "checkout"
        self._applied = 0
        self._copy()

    def _copy(self) -> None:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=self.checkout,
            capture_output=True,
            check=True,
        )
        for name in filter(None, os.fsdecode(listed.stdout).split("\0")):
            source, target = self.checkout / name, self.root / name
            if source.is_symlink() or source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target, follow_symlinks=False)
        for name in SHARED:
            if (self.checkout / name).exists():
                (self.root / name).symlink_to((self.checkout / name).resolve())

    @property
    def images(self) -> Path:
        """A directory of images for this copy alone: a mutant may do anything to it."""
        path = self.home / "images"
        if not path.exists():
            subprocess.run(["cp", "-a", "--reflink=auto", str(images_dir()), str(path)], check=True)
        return path

    @property
    def environment(self) -> dict[str, str]:
        """For programs of this copy: its sources come before those that .venv was installed from."""
        own = {name: value for name, value in os.environ.items() if not name.startswith(("BUNTIME_", "MUTANTS_"))}
        sources = f"{self.root / 'src'}:{self.root / 'sdk/python/src'}"
        return {**own, "PYTHONPATH": sources, "BUNTIME_IMAGES_DIR": str(self.images)}

    @property
    def python(self) -> str:
        """Its neighbours are the programs that tests start, such as `buntime`."""
        return str(self.root / ".venv/bin" / Path(sys.executable).name)

    @contextmanager
    def applied(self, edit: Edit) -> Iterator[None]:
        path = self.root / edit.mutant.file
        source, status = path.read_bytes(), path.stat()
        self._applied += 1
        then = status.st_mtime - EARLIER - self._applied
        images = set(self.images.glob("img-*"))
        try:
            path.write_bytes(edit.applied(source))
            os.utime(path, (then, then))
            yield
        finally:
            path.write_bytes(source)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            if edit.mutant.file.startswith(GUEST):
                for image in set(self.images.glob("img-*")) - images:
                    shutil.rmtree(image)

    def remove(self) -> None:
        for path in (self.home, self.memory):
            with suppress(FileNotFoundError):
                shutil.rmtree(path)
