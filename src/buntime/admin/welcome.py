"""What a server says when it is ready: where it is, and the first API key."""

import time

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


def welcome(url: str, first_key: str | None) -> str:
    """What a person needs to go on. The first key is shown this once; later, the shown command makes a key."""
    key = first_key or "${BUNTIME_API_KEY:-$(uv run buntime keys create)}"
    lines = ["", f"buntime serves on {url}"]
    if first_key:
        lines.append(f"First API key (shown this once): {first_key}")
    else:
        lines.append("API keys: uv run buntime keys create")
    lines += ["Create a session:", f'  curl -sS -X POST {url}/sessions/create -H "Authorization: Bearer {key}"']
    return "\n".join(lines) + "\n"
