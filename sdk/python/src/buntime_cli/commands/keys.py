"""`buntime keys`: the account's API keys, and on a server's host those of all its accounts."""

import sys
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from buntime_cli.commands.beside import ELSEWHERE, server_command
from buntime_cli.commands.connection import connected, errors_shown, has_key
from buntime_cli.commands.options import AsJson
from buntime_cli.commands.showing import plain, print_json, print_table
from buntime_cli.servers import access_to, server_of
from buntime_cli.time_spans import seconds

if TYPE_CHECKING:
    from buntime_sdk import Key

OPERATOR = "operator"
SECRET = "btk_"  # noqa: S105 - how a key starts

keys = typer.Typer(
    help="API keys.\n\nWith an API key or a login, these are the keys of your account. Without one, on a server's "
    "host, they are those of all its accounts.\n\nExample: buntime keys create --name ci --scope sessions:write",
    no_args_is_help=True,
    rich_markup_mode=None,
)
key_commands = typer.Typer()
key_commands.add_typer(keys, name="keys")

Here = Annotated[
    bool, typer.Option("--here", help="Ask the store of the server on this host, even if there is an API key.")
]


@keys.command("create")
def create_command(
    context: typer.Context,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="What the key is for.")] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(metavar="SCOPE", help="What it may do. Repeatable. Default: what your key may do."),
    ] = None,
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="When it expires: 12h, 90d. Default: never, or with your key.")
    ] = None,
    account: Annotated[
        str | None, typer.Option(metavar="ID", help="On a server's host: the account. Default there: a new one.")
    ] = None,
    plan: Annotated[
        str | None, typer.Option(metavar="PLAN", help="On a server's host: the new account's plan. Default: paid.")
    ] = None,
    here: Here = False,
    as_json: AsJson = False,
) -> None:
    """Create a key and print it. The key is shown only once.

    Scopes: sessions:read, sessions:write, account:read, account:write, secrets:use, secrets:write, and operator, which
    only a server's host gives.

    Example: buntime keys create --name ci --scope sessions:read --scope sessions:write --expires 90d
    """
    scopes, lasts = scope or [], None if expires is None else seconds(expires)
    _check(scopes)
    of_server = here or account is not None or plan is not None or OPERATOR in scopes
    servers = _servers(context, "create", of_server, as_json)
    if servers is not None:
        given = {"--account": account, "--plan": plan, "--name": name, "--expires": lasts}
        named = [word for option, value in given.items() if value is not None for word in (option, str(value))]
        _ask(context, servers, "create", [*named, *(word for one in scopes for word in ("--scope", one))], as_json)
        return
    with connected(context, as_json) as client:
        made = client.keys.create(name=name, scopes=scopes or None, expires_in=lasts)  # type: ignore[arg-type]
    if as_json:
        print_json(made)
        return
    print(made.key, flush=True)
    print(f"{made.key_id}: {', '.join(made.scopes)}. Keep the key: it is not shown again.", file=sys.stderr)


@keys.command("list")
def list_command(
    context: typer.Context,
    account: Annotated[
        str | None, typer.Option(metavar="ID", help="On a server's host: only keys of this account.")
    ] = None,
    here: Here = False,
    as_json: AsJson = False,
) -> None:
    """List keys: first characters, id, time, end, scopes, name. Never shows a key.

    With an API key or a login, these are the valid keys of your account. Without one, on a server's host, they are
    those of all its accounts, the revoked ones too.

    Example: buntime keys list
    """
    servers = _servers(context, "list", here or account is not None, as_json)
    if servers is not None:
        _ask(context, servers, "list", [] if account is None else ["--account", account], as_json)
        return
    with connected(context, as_json) as client:
        found = list(client.keys.list(page_size=100))
    if as_json:
        print_json(found)
    else:
        print_table(("KEY", "ID", "CREATED", "EXPIRES", "SCOPES", "NAME"), [_row(key) for key in found])


@keys.command("revoke")
def revoke_command(
    context: typer.Context,
    key: Annotated[str, typer.Argument(metavar="KEY", help="The id (key_…); on a server's host also the key itself.")],
    here: Here = False,
    as_json: AsJson = False,
) -> None:
    """Revoke a key: its calls are refused from now on.

    Example: buntime keys revoke key_…
    """
    servers = _servers(context, "revoke", here, as_json)
    if servers is not None:
        _ask(context, servers, "revoke", [key], as_json)
        return
    if key.startswith(SECRET):  # it must not get into the path of a request, which servers log
        raise typer.BadParameter("Give the key's id. List the ids with: buntime keys list", context)
    with connected(context, as_json) as client:
        client.keys.delete(key)
    if as_json:
        print_json({"id": key, "revoked": True})
    else:
        print(f"{key} is revoked. Its calls are refused from now on.")


def _check(scopes: list[str]) -> None:
    from buntime_sdk import Scope

    known = get_args(Scope)
    for one in scopes:
        if one not in known:
            raise typer.BadParameter(f"There is no scope {one!r}. Scopes: {', '.join(known)}.", param_hint="--scope")


def _servers(context: typer.Context, name: str, wanted: bool, as_json: bool) -> Any:
    """The server's `keys`, if they are `wanted` or there is no key for the API; else None."""
    servers = server_command(context, "keys") if wanted or context.obj is None else None
    if wanted and servers is None:
        raise typer.BadParameter(ELSEWHERE.format(f"keys {name}"), context)
    return servers if wanted or not _has_key(context, as_json) else None


def _has_key(context: typer.Context, as_json: bool) -> bool:
    if context.obj is not None:
        return True
    with errors_shown("", as_json):
        return has_key(access_to(server_of(context)))


def _ask(context: typer.Context, servers: Any, name: str, words: list[str], as_json: bool) -> None:
    command = servers.get_command(context, name)
    with command.make_context(name, [*words, *(["--json"] if as_json else [])], parent=context.parent) as inner:
        command.invoke(inner)


def _row(key: "Key") -> tuple[str, ...]:
    ends = "" if key.expires_at is None else f"{key.expires_at:%Y-%m-%dT%H:%M:%SZ}"
    created = f"{key.created_at:%Y-%m-%dT%H:%M:%SZ}"
    return f"{key.hint}…", key.key_id, created, ends, ",".join(key.scopes), plain(key.name or "")
