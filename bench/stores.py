"""`python -m bench.stores [DIRECTORY]`: SQLite and PostgreSQL side by side on this machine, calls of both in turns.

DIRECTORY has both databases. On a tmpfs such as /dev/shm, flushing each commit costs nothing. PostgreSQL is asked by
its socket and by TCP.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import uvloop

from buntime.event import AccountEvent, EventType
from buntime.ports import Store
from buntime.session import Session, State
from buntime.stores.sqlite.store import SqliteStore
from tests.contracts.examples import NOW, account, key, session
from tests.contracts.postgres import JOINED, LOCAL, opened_as, postgres
from tests.ports import free_port

ROUNDS, WARM = 400, 40
AT_ONCE = 32
MOST = 1 << 30


async def measure(directory: Path) -> None:
    with postgres(free_port(), settings=(), directory=directory) as server:
        server.create("bench")
        async with AsyncExitStack() as stack:
            stores: dict[str, Store] = {
                "SQLite": await SqliteStore.open(directory / "buntime.db"),
                "PostgreSQL": await opened_as(LOCAL, server.url("bench")),
                "PostgreSQL, TCP": await opened_as(LOCAL, server.address("bench")),
            }
            server.execute(JOINED.replace("%s, %s", f"'{LOCAL.host}', {LOCAL.incarnation}"), "bench")
            for store in stores.values():
                stack.push_async_callback(store.close)
            await stores["SQLite"].add_account(account())
            await stores["SQLite"].add_key(key())
            await stores["PostgreSQL"].add_account(account())
            await stores["PostgreSQL"].add_key(key())
            for what, call in CALLS.items():
                _show(what, await _in_turns(stores, call))
            for what, calls in (("add_session", 1), ("change_session", 2)):
                await _many(stores, what, calls)


def _told(name: str) -> AccountEvent:
    return AccountEvent(f"evt_{name}", "acc_one", EventType.SESSION_CREATED, NOW, name, {"name": None})


async def _add(store: Store, name: str) -> None:
    await store.add_session(session(name), None, MOST, events=(_told(name),))


async def _change(store: Store, name: str) -> None:
    old = await _stored(store, name)
    state = State.IDLE if old.state is State.ACTIVE else State.ACTIVE
    await store.change_session(old, replace(old, state=state), events=(_told(name),))


async def _stored(store: Store, name: str) -> Session:
    found = await store.get_session(name)
    assert found is not None
    return found


async def _get(store: Store, name: str) -> None:
    await store.get_session(name)


async def _find(store: Store, name: str) -> None:
    await store.find_key(key().hash)


CALLS: Mapping[str, Callable[[Store, str], Awaitable[None]]] = {
    "add_session": _add,
    "get_session": _get,
    "get_session and change_session": _change,
    "find_key": _find,
}


async def _in_turns(
    stores: Mapping[str, Store], call: Callable[[Store, str], Awaitable[None]]
) -> Mapping[str, list[float]]:
    """Seconds of each call."""
    took: dict[str, list[float]] = {name: [] for name in stores}
    for turn in range(ROUNDS + WARM):
        for name, store in stores.items():
            session_id = f"ses_{name.replace(' ', '')}_{turn}"
            began = time.perf_counter()
            await call(store, session_id)
            if turn >= WARM:
                took[name].append(time.perf_counter() - began)
    return took


async def _many(stores: Mapping[str, Store], what: str, turns: int) -> None:
    """Changes of AT_ONCE callers: how many a second."""
    rates = {}
    for name, store in stores.items():

        async def caller(number: int, store: Store = store, name: str = name) -> None:
            for turn in range(ROUNDS // AT_ONCE):
                session_id = f"ses_{name.replace(' ', '')}_many_{number}_{turn}"
                await (_add(store, session_id) if what == "add_session" else _change(store, session_id))

        began = time.perf_counter()
        await asyncio.gather(*(caller(number) for number in range(AT_ONCE)))
        rates[name] = AT_ONCE * (ROUNDS // AT_ONCE) / (time.perf_counter() - began)
    texts = [f"{name} {rate:,.0f}/s (×{rate / rates['SQLite']:.2f})" for name, rate in rates.items()]
    print(f"{what}, {AT_ONCE} at once: " + " · ".join(texts))


def _show(what: str, took: Mapping[str, list[float]]) -> None:
    middle = {name: statistics.median(times) * 1e6 for name, times in took.items()}
    texts = [f"{name} {value:,.0f} µs (×{value / middle['SQLite']:.1f})" for name, value in middle.items()]
    print(f"{what}, p50: " + " · ".join(texts))


def main() -> None:
    parent = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(dir=parent, prefix="buntime-stores-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(measure(directory))


if __name__ == "__main__":
    main()
