"""Added images as streams, in which hosts of a fleet give them to each other. A stream is a tarball."""

import subprocess
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from buntime.errors import Unavailable
from buntime.sandboxes.images.cleaning import digest
from buntime.sandboxes.images.refused import ImageRefused
from buntime.sandboxes.images.shelf import ADDED, Shelf, env_of

PIECE = 1 << 20  # bytes
WHOLE = ("--numeric-owner", "--xattrs", "--xattrs-include=user.*")


class CarriedImages:
    """Implements `ports.Roots`."""

    def __init__(self, images: Path, instance: str) -> None:
        """`instance`: see `Shelf`."""
        self._images = images
        self._shelf = Shelf(images, instance)

    def has(self, image_id: str) -> bool:
        return not ADDED.fullmatch(image_id) or (self._images / image_id).is_dir()

    def all(self) -> Collection[str]:
        return [each.name for each in self._images.iterdir() if ADDED.fullmatch(each.name)]

    def send(self, image_id: str) -> Iterator[bytes]:
        env = f"{image_id}.env"
        names = [image_id, *([env] if (self._images / env).exists() else [])]
        command = ["tar", "--create", *WHOLE, "--sort=name", f"--directory={self._images}", *names]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as tar:
            assert tar.stdout is not None
            try:
                while piece := tar.stdout.read(PIECE):
                    yield piece
            except GeneratorExit:
                tar.kill()
                raise
        if tar.returncode:
            raise Unavailable(f"The image {image_id} cannot be read.", 60)

    def receive(self, image_id: str, content: Iterator[bytes]) -> None:
        with self._shelf.locked(_silent), self._shelf.work() as work:
            if self.has(image_id):
                self._shelf.mark(image_id)  # another server of this machine has brought it
                return
            _unpack(content, work)
            env = _env(work / f"{image_id}.env")
            name = _name(work / image_id, env)
            if name != image_id:
                raise ValueError(f"the content of {image_id} is {name}")
            self._shelf.put(work / image_id, name.removeprefix("root-"), env)


def _unpack(content: Iterator[bytes], directory: Path) -> None:
    command = ["tar", "--extract", *WHOLE, "--same-owner", "--same-permissions", f"--directory={directory}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as tar:
        assert tar.stdin is not None
        try:
            for piece in content:
                tar.stdin.write(piece)
            tar.stdin.close()
        except BrokenPipeError:  # its end says why
            pass
        except BaseException:
            tar.kill()
            raise
    if tar.returncode:
        raise Unavailable(f"The image cannot be unpacked in {directory}: is its disk full?", 60)


def _env(file: Path) -> Mapping[str, str]:
    return env_of(file.parent, file.stem)


def _name(root: Path, env: Mapping[str, str]) -> str:
    try:
        return f"root-{digest(root, env)}"
    except ImageRefused as wrong:
        raise ValueError(str(wrong)) from wrong


def _silent(_: str) -> None:
    return None
