"""The files of images that operators add. Apart from the commands, which must start fast."""

import asyncio
from collections.abc import Callable

import typer

from buntime.admin.refusals import CommandRefused
from buntime.admin.store import open_store
from buntime.config import Config
from buntime.sandboxes.images.adding import Added, add_image
from buntime.sandboxes.images.noted import needed, noted_default
from buntime.sandboxes.images.refused import GB, ImageRefused
from buntime.sandboxes.images.shelf import Shelf
from buntime.sandboxes.kernel.image import DEBIAN_CAS, HOST_CAS, ImageFailed, ensure_image, extra_cas


def add(config: Config, source: str, keep: Callable[[Added], None]) -> Added:
    def tell(line: str) -> None:
        typer.echo(line, err=True)

    try:
        host = noted_default(config) or asyncio.run(ensure_image(config.images, tell))
        shelf, cas = Shelf(config.images, config.instance), extra_cas(HOST_CAS, DEBIAN_CAS)
        return add_image(shelf, source, host, cas, config.image_gb * GB, tell, keep)
    except (ImageRefused, ImageFailed) as refused:
        raise CommandRefused(str(refused)) from refused
    except OSError as failed:
        raise CommandRefused(f"The image cannot be kept in {config.images}: {failed}.") from failed


def prune(config: Config) -> None:
    """Removes images that nothing refers to, unless another process is at work there: then the next prune does it."""
    shelf = Shelf(config.images, config.instance)
    with shelf.locked() as have:
        if have:
            with open_store(config) as store:
                used = store.used_images()
            shelf.prune(used | needed(config.data_dir))
