"""`buntime keys …` on a server's host. Like `buntime accounts`, these change the store itself. buntime_cli merges them
with its own `keys`, which are those of an account.
"""

import json
import os
import time
from typing import Annotated

import typer

from buntime.account import HINT_LENGTH, Key, hash_key, new_account, new_key
from buntime.admin.accounts import plan_named, require_account
from buntime.admin.printing import AsJson, print_table, say, shown_time
from buntime.admin.refusals import CommandRefused, ServerCommand
from buntime.admin.store import open_store
from buntime.cause import OPERATOR
from buntime.config import from_environment
from buntime.errors import InvalidRequest
from buntime.event import EventType, of_account, of_new_key, of_revoked_key
from buntime.plan import FIRST_PLAN
from buntime.requests import LONGEST_KEY, check_key_name
from buntime.scope import ACCOUNT_SCOPES, Scope, in_order

OF_SCOPES = ("name", "scopes", "expiresAt")  # what `create` tells beside the key, its id and its account
keys = typer.Typer(help="API keys of accounts.", no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@keys.command("create", cls=ServerCommand)
def create_key(
    account_id: Annotated[
        str | None, typer.Option("--account", metavar="ID", help="The account. Default: a new one.")
    ] = None,
    plan: Annotated[
        str | None, typer.Option(metavar="PLAN", help="Plan of the new account. Default: paid.", show_default=False)
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="What the key is for.")] = None,
    scope: Annotated[
        list[str] | None, typer.Option(metavar="SCOPE", help="What it may do. Repeatable. Default: all but operator.")
    ] = None,
    expires: Annotated[int | None, typer.Option(min=1, metavar="SECONDS", help="Default: never.")] = None,
    as_json: AsJson = False,
) -> None:
    """Create a key and print it. The key is shown only once.

    Example: buntime keys create --account acc_… --scope operator
    """
    if account_id is not None and plan is not None:
        raise typer.BadParameter("--plan is for a new account; it does not go with --account.")
    scopes = _scopes(scope) if scope else ACCOUNT_SCOPES
    _check(name, expires)
    config, now = from_environment(os.environ), int(time.time())
    account = None if account_id is not None else new_account(plan_named(config, plan or FIRST_PLAN).name, now)
    owner = account_id or (account.id if account else "")
    end = None if expires is None else now + expires
    key, secret = new_key(owner, now, name=name, scopes=scopes, expires_at=end)
    with open_store(config) as store:
        if account is not None:
            store.add_account(account)
            store.add_events([of_account(account, EventType.ACCOUNT_CREATED, now, OPERATOR)])
        else:
            require_account(store, owner)
        store.add_key(key)
        store.add_events([of_new_key(key, OPERATOR)])
    told = _told_key(key)
    say(secret, {"key": secret} | {field: told[field] for field in ("id", "account", *OF_SCOPES)}, as_json)
    typer.echo(f"{key.id} of account {owner}. Keep the key: it is not shown again.", err=True)


@keys.command("list", cls=ServerCommand)
def list_keys(
    account_id: Annotated[
        str | None, typer.Option("--account", metavar="ID", help="Only keys of this account.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List keys by their first characters: id, account, creation, revocation, end, maker, scopes, name. Never shows a
    key. The maker is the key that made it by the API; none: this command line.

    Example: buntime keys list
    """
    with open_store(from_environment(os.environ)) as store:
        if account_id is not None and store.get_account(account_id) is None:
            raise CommandRefused(f"There is no account {account_id}.")
        found = store.list_keys(account_id)
    if as_json:
        typer.echo(json.dumps([_told_key(key) for key in found]))
        return
    rows = [
        (
            key.hint + "…",
            key.id,
            key.account,
            shown_time(key.created_at),
            "" if key.revoked_at is None else shown_time(key.revoked_at),
            "" if key.expires_at is None else shown_time(key.expires_at),
            key.maker or "",
            _shown_scopes(key),
            key.name or "",
        )
        for key in found
    ]
    print_table(("KEY", "ID", "ACCOUNT", "CREATED", "REVOKED", "EXPIRES", "MAKER", "SCOPES", "NAME"), rows)


@keys.command("revoke", cls=ServerCommand)
def revoke_key(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The id (key_…), or the key itself.")],
    as_json: AsJson = False,
) -> None:
    """Revoke a key: its calls are refused from now on.

    Example: buntime keys revoke key_…
    """
    with open_store(from_environment(os.environ)) as store:
        wanted, now = hash_key(key) if key.startswith("btk_") else key, int(time.time())
        known = store.list_keys()
        found = next((one for one in known if wanted in (one.id, one.hash) and one.revoked_at is None), None)
        if found is None:
            shown = key[:HINT_LENGTH] + "…" if key.startswith("btk_") else key
            raise CommandRefused(f"There is no key {shown} that is not revoked yet.")
        store.revoke_key(found.id, now)
        store.add_events([of_revoked_key(found, now, OPERATOR)])
    say(f"{found.id} is revoked. Its calls are refused from now on.", {"id": found.id, "revoked": True}, as_json)


def _shown_scopes(key: Key) -> str:
    """`all` for those that a key has by default."""
    return "all" if key.scopes == ACCOUNT_SCOPES else ",".join(in_order(key.scopes))


def _scopes(words: list[str]) -> frozenset[Scope]:
    for word in words:
        if word not in set(Scope):
            raise CommandRefused(f"There is no scope {word!r}. Scopes: {', '.join(Scope)}.")
    return frozenset(map(Scope, words))


def _check(name: str | None, expires: int | None) -> None:
    if expires is not None and expires > LONGEST_KEY:
        raise CommandRefused(f"--expires must be at most {LONGEST_KEY} seconds, which are 100 years.")
    try:
        check_key_name(name)
    except InvalidRequest as wrong:
        raise CommandRefused(wrong.message) from None


def _told_key(key: Key) -> dict[str, object]:
    revoked = None if key.revoked_at is None else shown_time(key.revoked_at)
    return {
        **{"hint": key.hint, "id": key.id, "account": key.account},
        **{"createdAt": shown_time(key.created_at), "revokedAt": revoked},
        **{"name": key.name, "scopes": in_order(key.scopes)},
        **{"expiresAt": None if key.expires_at is None else shown_time(key.expires_at), "maker": key.maker},
    }
