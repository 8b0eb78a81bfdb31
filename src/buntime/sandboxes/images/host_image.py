"""The image that a host of a fleet makes itself, under the name of its content.

img-<digest of the sources>            what was made
img-<digest of the sources>.content    a digest of its files
root-<digest of its files>             hard links of it, on the shelf
"""

import subprocess
from pathlib import Path

from buntime.config import Config
from buntime.sandboxes.images.carrying import CarriedImages
from buntime.sandboxes.images.cleaning import digest
from buntime.sandboxes.images.noted import note_default
from buntime.sandboxes.images.shelf import Shelf
from buntime.sandboxes.images.sources import Say
from buntime.sandboxes.kernel.durable import write_durably
from buntime.sandboxes.kernel.image import ensure_image, find_image, image_id, sources


class HostImage:
    """Implements `lifecycle.default_image.HostImage`."""

    def __init__(self, config: Config, say: Say) -> None:
        self.config = config
        self._say = say
        self._sources = sources()
        self._shelf = Shelf(config.images, config.instance)
        self.recipe = image_id(self._sources)
        self.roots = CarriedImages(config.images, config.instance)

    def is_made(self) -> bool:
        return find_image(self.config.images, self.recipe) is not None

    async def prepare(self) -> None:
        await ensure_image(self.config.images, self._say, self._sources)

    def name(self) -> str:
        made = self.config.images / self.recipe
        with self._shelf.locked(self._say), self._shelf.work() as work:
            content, root = _digest(made), work / "root"
            image = f"root-{content}"
            self.note(image)
            if (self.config.images / image).is_dir():
                self._shelf.mark(image)
                return image
            subprocess.run(["cp", "-al", str(made), str(root)], check=True)
            return self._shelf.put(root, content, {})

    def note(self, image: str) -> None:
        note_default(self.config.data_dir, image)


def _digest(made: Path) -> str:
    """Reads all files once: nothing writes to the image, so a file beside it keeps the answer. To be called with the
    lock."""
    kept, status = made.with_suffix(".content"), made.stat()
    same = f"{status.st_ino} {status.st_mtime_ns}"  # an operator may have it made anew
    if kept.exists() and kept.read_text().startswith(f"{same} "):
        return kept.read_text().split()[-1]
    content = digest(made, {})
    write_durably(kept, f"{same} {content}\n")
    return content
