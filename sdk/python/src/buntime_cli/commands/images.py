"""`buntime images`: the account's images, and on a server's host those that its operator adds."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from buntime_cli.commands.beside import ELSEWHERE, SERVER_HEAD, server_command, write_section
from buntime_cli.commands.connection import connected, errors_shown, has_key
from buntime_cli.commands.errors import CommandError
from buntime_cli.commands.finding_snapshots import find_snapshot
from buntime_cli.commands.help_pages import PlainContext, plainly_helped
from buntime_cli.commands.naming import find
from buntime_cli.commands.options import AsJson, Variables
from buntime_cli.commands.showing import print_json, print_table, size
from buntime_cli.commands.values import pairs
from buntime_cli.servers import access_to, server_of

if TYPE_CHECKING:
    from buntime_sdk import Image

OPERATORS = ("add", "remove")  # the server's subcommands


class ImageCommands(TyperGroup):
    """Adds what the operator of a server that is installed beside can do."""

    context_class = PlainContext

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found = super().get_command(ctx, cmd_name)
        if found is not None:
            return plainly_helped(found)
        servers = server_command(ctx, "images")
        if cmd_name in OPERATORS and servers is None:
            raise typer.BadParameter(_elsewhere(cmd_name), ctx, param_hint="COMMAND")
        return None if servers is None else servers.get_command(ctx, cmd_name)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        write_section(formatter, "Commands", [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)])
        servers = server_command(ctx, "images")
        if servers is not None:
            write_section(formatter, SERVER_HEAD, [(name, servers.get_command(ctx, name)) for name in OPERATORS])


def _elsewhere(name: str) -> str:
    yours = " An image of your account goes with: buntime images delete NAME" if name == "remove" else ""
    return ELSEWHERE.format(f"images {name}") + yours


images = typer.Typer(
    cls=ImageCommands,
    help="Images: what sessions can stand on.\n\nAn account makes its own of a session or a snapshot. On a server's "
    "host, its operator adds images for all accounts.\n\nExample: buntime images create app --session demo",
    no_args_is_help=True,
    rich_markup_mode=None,
)
image_commands = typer.Typer()
image_commands.add_typer(images, name="images")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The image's name.")]


@images.command("create")
def create_command(
    context: typer.Context,
    name: Name,
    session: Annotated[
        str | None, typer.Option(metavar="SESSION", help="The session whose files it has: its id or name.")
    ] = None,
    snapshot: Annotated[
        str | None, typer.Option(metavar="SNAPSHOT", help="The snapshot whose files it has: its id or name.")
    ] = None,
    env: Annotated[
        Variables, typer.Option("--env", "-e", metavar="NAME=VALUE", help="For everything in sessions on the image.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create an image of your account. If it has one of that name, the new image takes the name over.

    Example: buntime images create app --session demo --env PORT=8080
    """
    if (session is None) == (snapshot is None):
        raise typer.BadParameter("Name what the image is made of: --session or --snapshot.")
    variables = pairs(env) or None
    with connected(context, as_json) as client:
        begin = (
            {"session_id": find(client, session).id}
            if session is not None
            else {"snapshot_id": find_snapshot(client, snapshot or "")}
        )
        made = client.images.create(name, env=variables, **begin)
    if as_json:
        print_json(made)
        return
    print(made.image_id, flush=True)
    print(f"{size(made.size_bytes)}. Use it: buntime create --image {made.name}", file=sys.stderr)


@images.command("list")
def list_command(
    context: typer.Context,
    added: Annotated[
        bool, typer.Option("--added", help="List those that the operator added on this host, even if there is a key.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List images: name, id, size, time.

    With an API key or a login, these are the images that your account can use, the operator's too. Without one, on a
    server's host, they are those that its operator added.

    Example: buntime images list
    """
    servers = server_command(context, "images")
    if added or (servers is not None and context.obj is None and not _has_key(context, as_json)):
        if servers is None:
            raise typer.BadParameter(ELSEWHERE.format("images list --added"), context, param_hint="--added")
        _list_added(context, servers, as_json)
        return
    with connected(context, as_json) as client:
        found = list(client.images.list(page_size=100))
    if as_json:
        print_json(found)
    else:
        rows = [_row(image) for image in found]
        print_table(("NAME", "ID", "SIZE", "CREATED"), rows)


@images.command("delete")
def delete_command(
    context: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Names of images of your account.")],
    as_json: AsJson = False,
) -> None:
    """Delete images of your account. Sessions on them stay.

    Example: buntime images delete app
    """
    with connected(context, as_json) as client:
        if len(names) > 1:  # a mistyped name deletes nothing
            known = {image.name for image in client.images.list(page_size=100)}
            for name in names:
                if name not in known:
                    raise CommandError(f"There is no image {name}. List them with: buntime images list")
        for name in dict.fromkeys(names):
            client.images.delete(name)
            if not as_json:
                print(name, flush=True)
        if as_json:
            print_json({"deleted": list(dict.fromkeys(names))})


def _has_key(context: typer.Context, as_json: bool) -> bool:
    with errors_shown("", as_json):
        return has_key(access_to(server_of(context)))


def _list_added(context: typer.Context, servers: Any, as_json: bool) -> None:
    listing = servers.get_command(context, "list")
    with listing.make_context("list", ["--json"] if as_json else [], parent=context.parent) as inner:
        listing.invoke(inner)


def _row(image: "Image") -> tuple[str, ...]:
    return image.name, image.image_id, size(image.size_bytes), f"{image.created_at:%Y-%m-%dT%H:%M:%SZ}"
