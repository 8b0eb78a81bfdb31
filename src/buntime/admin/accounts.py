"""`buntime accounts …`: these change the store itself, beside a running server or a stopped one."""

import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Annotated

import typer

from buntime.account import Account, AccountStatus, new_account
from buntime.admin import plan_settings
from buntime.admin.printing import AsJson, print_table, say, shown_time
from buntime.admin.refusals import CommandRefused, ServerGroup
from buntime.admin.store import open_store
from buntime.cause import OPERATOR
from buntime.config import Config, from_environment
from buntime.event import EventType, of_account
from buntime.plan import Plan, load_plans
from buntime.stores.command_store import CommandStore

ASLEEP = "Its sessions go to deep sleep, which ends their processes and keeps their files."
_TOLD = {
    AccountStatus.ACTIVE: EventType.ACCOUNT_RESUMED,
    AccountStatus.SUSPENDED: EventType.ACCOUNT_SUSPENDED,
    AccountStatus.DELETED: EventType.ACCOUNT_DELETED,
}
accounts = typer.Typer(
    cls=ServerGroup,
    help="Accounts: who may use the server, and how much.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
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
        overrides = plan_settings.parse(plan_named(config, plan), settings or [])
    except ValueError as wrong:
        raise CommandRefused(f"{wrong}.") from None
    account = new_account(plan, int(time.time()), overrides)
    with open_store(config) as store:
        store.add_account(account)
        store.add_events([of_account(account, EventType.ACCOUNT_CREATED, account.created_at, OPERATOR)])
    say(account.id, _told_account(account), as_json)


@accounts.command("list")
def list_accounts(
    every: Annotated[bool, typer.Option("--all", help="Show deleted accounts too.")] = False, as_json: AsJson = False
) -> None:
    """List accounts: id, plan, status, creation, own settings.

    Example: buntime accounts list --all
    """
    with open_store(from_environment(os.environ)) as store:
        known = store.list_accounts()
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
    with open_store(from_environment(os.environ)) as store:  # ends before the question: it holds up the server
        require_account(store, account_id)
        sessions = store.count_sessions(account_id)
    if not yes:
        _confirm(account_id, sessions)
    _set_status(account_id, AccountStatus.DELETED)
    told = {"id": account_id, "status": "deleted", "sessions": sessions}
    say(f"{account_id} is deleted, with {_count(sessions, 'session')}.", told, as_json)


def plan_named(config: Config, name: str) -> Plan:
    """Raises CommandRefused."""
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
    with open_store(from_environment(os.environ)) as store:
        account = require_account(store, account_id)
        store.set_account_status(account_id, status)
        if account.status is not status:
            store.add_events([of_account(account, _TOLD[status], time.time(), OPERATOR)])
        if status is AccountStatus.DELETED:
            store.remove_webhooks_of(account_id)


def require_account(store: CommandStore, account_id: str) -> Account:
    """The account. Raises CommandRefused for an unknown and for a deleted account."""
    account = store.get_account(account_id)
    if account is None:
        raise CommandRefused(f"There is no account {account_id}.")
    if account.status is AccountStatus.DELETED:
        raise CommandRefused(f"The account {account_id} is deleted, which is final.")
    return account


def _told_account(account: Account) -> dict[str, object]:
    return {
        **{"id": account.id, "plan": account.plan, "status": account.status.value},
        **{"createdAt": shown_time(account.created_at), "settings": account.overrides},
    }


def _words(overrides: Mapping[str, object], prefix: str = "") -> str:
    """As `--set` takes them."""
    return " ".join(
        _words(value, f"{key}.") if isinstance(value, Mapping) else f"{prefix}{key}={value}"
        for key, value in overrides.items()
    )
