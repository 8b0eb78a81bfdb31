"""What a server says when it is ready: where it is, and the first API key."""

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from buntime.account import new_account, new_key
from buntime.plan import FIRST_PLAN
from buntime.ports import Store


async def first_key(store: Store) -> str | None:
    """Makes an account with a key if there is no account yet, and returns the key's secret."""
    if await store.list_accounts():
        return None
    now = int(time.time())
    account = new_account(FIRST_PLAN, now)
    key, secret = new_key(account.id, now)
    await store.add_account(account)
    await store.add_key(key)
    return secret


def welcome(url: str, first_key: str | None, install: Sequence[str]) -> str:
    """What a person needs to go on. The first key is shown this once; later, the shown command makes a key.

    `install`: lines that install the clients.
    """
    create_key = f"{_command()} keys create"
    key = first_key or f"${{BUNTIME_API_KEY:-$({create_key})}}"
    lines = ["", f"buntime serves on {url}"]
    lines.append(f"First API key (shown this once): {first_key}" if first_key else f"Create an API key: {create_key}")
    lines += ["Create a session:", f'  curl -sS -X POST {url}/sessions/create -H "Authorization: Bearer {key}"']
    if install:
        lines += [f"Install the command line or an SDK (more: {url}/clients/):"]
        lines += [f"  {line}" for line in install]
    return "\n".join(lines) + "\n"


def _command() -> str:
    """`buntime` if that is this server's command, else its path."""
    ours = Path(sys.executable).with_name("buntime")
    found = shutil.which("buntime")
    return "buntime" if found and Path(found).resolve() == ours.resolve() else str(ours)
