"""`buntime images add`, `list`, `remove`: the images that all accounts can use. Like `buntime accounts`, these change
the store itself. buntime_cli merges them with its own `images`, which are those of an account.
"""

import json
import os
import time
from typing import TYPE_CHECKING, Annotated

import typer

from buntime.admin.printing import AsJson, print_table, say, shown_time
from buntime.admin.refusals import CommandRefused, ServerCommand
from buntime.admin.store import open_store
from buntime.config import Config, from_environment
from buntime.image import OPERATOR, NamedImage, wrong_name
from buntime.plan import MB

if TYPE_CHECKING:
    from buntime.sandboxes.images.adding import Added

images = typer.Typer(
    help="Images: what sessions can stand on.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The image's name.", show_default=False)]


@images.command("add", cls=ServerCommand)
def add(
    name: Name,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="oci:DIR[:TAG], oci-archive:FILE, docker-archive:FILE, docker://HOST/NAME:TAG, or a directory or "
            "tarball with a root file system.",
            show_default=False,
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Add an image, or give the name to another one. The running server uses it at once.

    Example: buntime images add python docker://registry.example.com/python:3.13-slim
    """
    if wrong := wrong_name(name):
        raise CommandRefused(f"{name!r} cannot be added: {wrong}.")
    config = from_environment(os.environ)
    with open_store(config):  # refuses before the work
        pass
    from buntime.admin import image_files

    added = image_files.add(config, source, lambda added: _keep(config, name, added))
    image_files.prune(config)
    told = {"name": name, "imageId": added.id, "sizeBytes": added.size}
    say(f"{name} is {added.id}, {_size(added.size)}. Use it: buntime create --image {name}", told, as_json)


def _keep(config: Config, name: str, added: "Added") -> None:
    with open_store(config) as store:
        store.add_image(NamedImage(name, added.id, added.size, int(time.time())))


@images.command("list", cls=ServerCommand)
def list_images(as_json: AsJson = False) -> None:
    """List the images that you added: name, id, size, time.

    Example: buntime images list
    """
    with open_store(from_environment(os.environ)) as store:
        found = store.list_images(OPERATOR)
    if as_json:
        told = [
            {"name": i.name, "imageId": i.id, "sizeBytes": i.size, "createdAt": shown_time(i.created_at)} for i in found
        ]
        typer.echo(json.dumps(told))
        return
    rows = [(image.name, image.id, _size(image.size), shown_time(image.created_at)) for image in found]
    print_table(("NAME", "ID", "SIZE", "ADDED"), rows)


@images.command("remove", cls=ServerCommand)
def remove(name: Name, as_json: AsJson = False) -> None:
    """Remove an image. Sessions on it live on, and the image stays until they are gone.

    Example: buntime images remove python
    """
    config = from_environment(os.environ)
    with open_store(config) as store:
        if not store.remove_image(OPERATOR, name):
            raise CommandRefused(f"There is no image {name}. List them with: buntime images list")
    from buntime.admin import image_files

    image_files.prune(config)
    say(f"{name} is removed. New sessions cannot use it.", {"name": name, "removed": True}, as_json)


def _size(count: int) -> str:
    return f"{-(-count // MB):,} MB"
