"""What a server says when it is ready: where it is, and the first API key."""

import os
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from buntime.account import new_account, new_key
from buntime.cause import SERVER
from buntime.event import EventType, of_account, of_new_key
from buntime.plan import FIRST_PLAN
from buntime.ports import Store

AUTHORIZATION = '-H "Authorization: Bearer $BUNTIME_API_KEY"'


async def first_key(store: Store) -> str | None:
    """Makes an account with a key if there is no account yet, and returns the key's secret."""
    if await store.list_accounts():
        return None
    now = int(time.time())
    account = new_account(FIRST_PLAN, now)
    key, secret = new_key(account.id, now)
    await store.add_account(account)
    created = of_account(account, EventType.ACCOUNT_CREATED, now, SERVER)
    await store.add_key(key, events=(created, of_new_key(key, SERVER)))
    return secret


def welcome(url: str, first_key: str | None, install: Sequence[str]) -> str:
    """What a person needs to go on. The first key is shown this once; later, the shown command makes a key.

    `install`: lines that install the clients.
    """
    lines = ["", f"buntime serves on {url}"]
    if first_key:
        lines.append(f"First API key (shown this once): {first_key}")
    key = first_key or f"$({_command()} keys create)"
    lines += ["Tell clients where and who:", f"  export BUNTIME_URL={url} BUNTIME_API_KEY={key}"]
    lines += ["Create a session:", f"  curl -sS -X POST {url}/sessions/create {AUTHORIZATION}"]
    if install:
        lines += [f"Install the command line or an SDK (more: {url}/clients/):"]
        lines += [f"  {line}" for line in install]
    return "\n".join(lines) + "\n"


def _command() -> str:
    """`buntime` if that is this server's command, else its path. With the data directory, if that is another."""
    ours = Path(sys.executable).with_name("buntime")
    found = shutil.which("buntime")
    name = "buntime" if found and Path(found).resolve() == ours.resolve() else str(ours)
    chosen = os.environ.get("BUNTIME_DATA_DIR")
    return f"BUNTIME_DATA_DIR={shlex.quote(chosen)} {name}" if chosen else name
