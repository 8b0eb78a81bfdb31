"""`buntime accounts …` and `buntime keys …`: they change the store itself, beside a running server or a stopped one."""

import json
import os
import sqlite3
import sys
import time
from collections.abc import Mapping
from typing import Annotated

import typer

from buntime.account import HINT_LENGTH, Account, AccountStatus, Key, hash_key, new_account, new_key
from buntime.admin import plan_settings
from buntime.admin.printing import AsJson, print_table, say, shown_time
from buntime.admin.refusals import CommandRefused, ServerGroup
from buntime.admin.store import open_store
from buntime.config import Config, from_environment
from buntime.plan import FIRST_PLAN, Plan, load_plans
from buntime.stores import accounts as sql

ASLEEP = "Its sessions go to deep sleep, which ends their processes and keeps their files."
accounts = typer.Typer(
    cls=ServerGroup,
    help="Accounts: who may use the server, and how much.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
keys = typer.Typer(
    cls=ServerGroup, help="API keys of accounts.", no_args_is_help=True, add_completion=False, rich_markup_mode=None
)

AccountId = Annotated[str, typer.Argument(metavar="ID", help="The account's id, acc_…", show_default=False)]


@accounts.command("create")
def create_account(
    plan: Annotated[str, typer.Option(metavar="PLAN", help="Name of the plan.", show_default=False)],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of its own, such as most.memory=8192."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create an account and print its id.

    Example: buntime accounts create --plan enterprise --set sessions=500
    """
    config = from_environment(os.environ)
    try:
        overrides = plan_settings.parse(_plan(config, plan), settings or [])
    except ValueError as wrong:
        raise CommandRefused(f"{wrong}.") from None
    account = new_account(plan, int(time.time()), overrides)
    with open_store(config) as connection:
        sql.add_account(connection, account)
    say(account.id, _told_account(account), as_json)


@accounts.command("list")
def list_accounts(
    every: Annotated[bool, typer.Option("--all", help="Show deleted accounts too.")] = False, as_json: AsJson = False
) -> None:
    """List accounts: id, plan, status, creation, own settings.

    Example: buntime accounts list --all
    """
    with open_store(from_environment(os.environ)) as connection:
        known = sql.list_accounts(connection)
    found = [account for account in known if every or account.status is not AccountStatus.DELETED]
    if as_json:
        typer.echo(json.dumps([_told_account(account) for account in found]))
        return
    rows = [
        (account.id, account.plan, account.status.value, shown_time(account.created_at), _words(account.overrides))
        for account in found
    ]
    print_table(("ID", "PLAN", "STATUS", "CREATED", "SETTINGS"), rows)
    if hidden := len(known) - len(found):
        typer.echo(
            f"{_count(hidden, 'deleted account')} left out. Show all with: buntime accounts list --all", err=True
        )


@accounts.command("suspend")
def suspend_account(account_id: AccountId, as_json: AsJson = False) -> None:
    """Refuse all calls of an account until you resume it.

    Its sessions go to deep sleep, which ends their processes and keeps their files.

    Example: buntime accounts suspend acc_…
    """
    _set_status(account_id, AccountStatus.SUSPENDED)
    say(
        f"{account_id} is suspended. Its calls are refused until: buntime accounts resume {account_id}\n{ASLEEP}",
        {"id": account_id, "status": "suspended"},
        as_json,
    )


@accounts.command("resume")
def resume_account(account_id: AccountId, as_json: AsJson = False) -> None:
    """Accept calls of a suspended account again.

    Example: buntime accounts resume acc_…
    """
    _set_status(account_id, AccountStatus.ACTIVE)
    say(f"{account_id} is active.", {"id": account_id, "status": "active"}, as_json)


@accounts.command("delete")
def delete_account(
    account_id: AccountId,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete an account and its sessions. This is final.

    Example: buntime accounts delete acc_… --yes
    """
    with open_store(from_environment(os.environ)) as connection:  # ends before the question: it holds up the server
        _require_account(connection, account_id)
        sessions = sql.count_sessions(connection, account_id)
    if not yes:
        _confirm(account_id, sessions)
    _set_status(account_id, AccountStatus.DELETED)
    told = {"id": account_id, "status": "deleted", "sessions": sessions}
    say(f"{account_id} is deleted, with {_count(sessions, 'session')}.", told, as_json)


@keys.command("create")
def create_key(
    account_id: Annotated[
        str | None, typer.Option("--account", metavar="ID", help="The account. Default: a new one.")
    ] = None,
    plan: Annotated[
        str | None, typer.Option(metavar="PLAN", help="Plan of the new account. Default: paid.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create a key and print it. The key is shown only once.

    Example: buntime keys create --account acc_…
    """
    if account_id is not None and plan is not None:
        raise typer.BadParameter("--plan is for a new account; it does not go with --account.")
    config = from_environment(os.environ)
    account = None if account_id is not None else new_account(_plan(config, plan or FIRST_PLAN).name, int(time.time()))
    owner = account_id or (account.id if account else "")
    key, secret = new_key(owner, int(time.time()))
    with open_store(config) as connection:
        if account is not None:
            sql.add_account(connection, account)
        else:
            _require_account(connection, owner)
        sql.add_key(connection, key)
    say(secret, {"key": secret, "id": key.id, "account": owner}, as_json)
    typer.echo(f"{key.id} of account {owner}. Keep the key: it is not shown again.", err=True)


@keys.command("list")
def list_keys(
    account_id: Annotated[
        str | None, typer.Option("--account", metavar="ID", help="Only keys of this account.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List keys by their first characters: id, account, creation and revocation. Never shows a key.

    Example: buntime keys list
    """
    with open_store(from_environment(os.environ)) as connection:
        if account_id is not None and sql.get_account(connection, account_id) is None:
            raise CommandRefused(f"There is no account {account_id}.")
        found = sql.list_keys(connection, account_id)
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
        )
        for key in found
    ]
    print_table(("KEY", "ID", "ACCOUNT", "CREATED", "REVOKED"), rows)


@keys.command("revoke")
def revoke_key(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The id (key_…), or the key itself.")],
    as_json: AsJson = False,
) -> None:
    """Revoke a key: its calls are refused from now on.

    Example: buntime keys revoke key_…
    """
    with open_store(from_environment(os.environ)) as connection:
        key_id: str = key
        if key.startswith("btk_"):
            found = sql.find_key(connection, hash_key(key))
            key_id = found[0].id if found else ""
        if not sql.revoke_key(connection, key_id, int(time.time())):
            shown = key[:HINT_LENGTH] + "…" if key.startswith("btk_") else key
            raise CommandRefused(f"There is no key {shown} that is not revoked yet.")
    say(f"{key_id} is revoked. Its calls are refused from now on.", {"id": key_id, "revoked": True}, as_json)


def _plan(config: Config, name: str) -> Plan:
    try:
        plans = load_plans(config.plans)
    except (OSError, ValueError) as wrong:
        raise CommandRefused(f"The plans cannot be read: {wrong}.") from wrong
    if name not in plans:
        raise CommandRefused(f"There is no plan {name!r}. Plans: {', '.join(plans)}.")
    return plans[name]


def _confirm(account_id: str, sessions: int) -> None:
    """Asks on a terminal. Elsewhere raises CommandRefused."""
    about = f"the account {account_id} and its {_count(sessions, 'session')}"
    if not sys.stdin.isatty():
        confirmed = f"buntime accounts delete {account_id} --yes"
        raise CommandRefused(f"This would delete {about}. Confirm with: {confirmed}")
    typer.confirm(f"Delete {about}? This is final.", abort=True, err=True)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _set_status(account_id: str, status: AccountStatus) -> None:
    with open_store(from_environment(os.environ)) as connection:
        _require_account(connection, account_id)
        sql.set_account_status(connection, account_id, status)


def _require_account(connection: sqlite3.Connection, account_id: str) -> None:
    account = sql.get_account(connection, account_id)
    if account is None:
        raise CommandRefused(f"There is no account {account_id}.")
    if account.status is AccountStatus.DELETED:
        raise CommandRefused(f"The account {account_id} is deleted, which is final.")


def _told_account(account: Account) -> dict[str, object]:
    return {
        **{"id": account.id, "plan": account.plan, "status": account.status.value},
        **{"createdAt": shown_time(account.created_at), "settings": account.overrides},
    }


def _told_key(key: Key) -> dict[str, object]:
    revoked = None if key.revoked_at is None else shown_time(key.revoked_at)
    return {
        **{"hint": key.hint, "id": key.id, "account": key.account},
        **{"createdAt": shown_time(key.created_at), "revokedAt": revoked},
    }


def _words(overrides: Mapping[str, object], prefix: str = "") -> str:
    """As `--set` takes them."""
    return " ".join(
        _words(value, f"{key}.") if isinstance(value, Mapping) else f"{prefix}{key}={value}"
        for key, value in overrides.items()
    )
