"""The images that accounts have made: each is a layer on top of another image, which may be a made one too.

made/<image id>.json    its base, layer and environment
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog

from buntime.errors import Unavailable
from buntime.sandboxes.images.shelf import ADDED, env_of
from buntime.sandboxes.kernel.durable import write_durably
from buntime.sandboxes.kernel.image import find_image
from buntime.snapshot import MOST_LAYERS, MadeImage

log = structlog.get_logger()

SUFFIX = ".json"


@dataclass(frozen=True, slots=True)
class Ground:
    """What a session has below its own files."""

    layers: tuple[str, ...]  # ids, the uppermost first
    image: Path  # below them
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Made:
    base: str
    layer: str
    env: Mapping[str, str]


class MadeImages:
    """Blocking, but only for small files. One thread changes it; others may read."""

    def __init__(self, directory: Path, images: Path) -> None:
        """`images`: the directory of all others."""
        self._directory = directory
        self._images = images
        directory.mkdir(mode=0o700, exist_ok=True)
        self._made = {file.stem: made for file in directory.glob(f"*{SUFFIX}") if (made := _read(file)) is not None}

    def know(self, image: MadeImage) -> bool:
        """Durable when it returns. Returns whether it is new here. Raises ValueError when it has too many layers."""
        made = _Made(image.base, image.layer, dict(image.env))
        if self._made.get(image.id) == made:
            return False
        if len(self.layers(image.base)) >= MOST_LAYERS:
            raise ValueError(f"an image has at most {MOST_LAYERS} layers")
        write_durably(self._directory / (image.id + SUFFIX), json.dumps(asdict(made)))
        self._made[image.id] = made
        return True

    def forget(self, image_id: str) -> None:
        """Idempotent."""
        (self._directory / (image_id + SUFFIX)).unlink(missing_ok=True)
        self._made.pop(image_id, None)

    def keep(self, image_ids: Collection[str]) -> None:
        """Forgets all others."""
        for image_id in self._made.keys() - set(image_ids):
            self.forget(image_id)

    def added(self) -> Collection[str]:
        """Ids of the images that operators have added."""
        return [file.name for file in self._images.iterdir() if ADDED.fullmatch(file.name)]

    def whole(self, has_layer: Callable[[str], bool]) -> Collection[str]:
        """Ids of the made images of which all layers are there."""
        return [image for image in self._made if all(map(has_layer, self.layers(image)))]

    def layers(self, image_id: str) -> tuple[str, ...]:
        """The layers of the image, the uppermost first; none of one that is not made, or not known."""
        return tuple(made.layer for made in self._chain(image_id))

    def ground(self, image_id: str) -> Ground:
        """Raises Unavailable when the image, or one below it, is not on this host. Does not look for layers."""
        chain = self._chain(image_id)
        lowest = chain[-1].base if chain else image_id
        found = find_image(self._images, lowest)
        if found is None:
            raise Unavailable(f"This host does not have the image {image_id} that the session stands on.", 60)
        return Ground(tuple(made.layer for made in chain), found.path, self.env(image_id))

    def env(self, image_id: str) -> Mapping[str, str]:
        """What the image sets for every run: its own variables over those of its base."""
        chain = self._chain(image_id)
        env = dict(env_of(self._images, chain[-1].base if chain else image_id))
        for made in reversed(chain):
            env |= made.env
        return env

    def _chain(self, image_id: str) -> list[_Made]:
        chain = list[_Made]()
        while image_id in self._made and len(chain) < MOST_LAYERS:
            chain.append(self._made[image_id])
            image_id = chain[-1].base
        return chain


def _read(file: Path) -> _Made | None:
    try:
        return _Made(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError) as failed:
        log.warning("made_image_not_read", file=str(file), reason=str(failed))
        return None
