"""Ten thousand sessions in deep sleep in the store, compared with ten. What do they cost the others?

The rows are put into the store before the server starts. They are archived and have no volume on the host. The keeper
is timed in this process with its own store of the same size and fake sandboxes and archive. One change happens between
two ticks, as on a server in use.
"""

import asyncio
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial

import msgspec

from bench.context import Context, beside, sessions, stopwatch
from bench.report import Baseline, Row, ratio
from bench.statistics import summarise
from buntime.account import Account
from buntime.config import Config
from buntime.daemon.tasks import Tasks
from buntime.fleet.sole_owner import SoleOwner
from buntime.ids import new_sandbox_id, new_session_id, new_volume_id
from buntime.lifecycle.assembly import assemble_lifecycle
from buntime.lifecycle.keeper import Keeper, Pace
from buntime.lifecycle.master_key import load_master_key
from buntime.lifecycle.saving import Saving
from buntime.lifecycle.sealing import KEY_BYTES, Vault
from buntime.plan import Limits
from buntime.session import SavedVolume, Session, State
from buntime.stores import store_file
from buntime.stores.sqlite.store import SqliteStore
from buntime.testing.archive import FakeArchive
from buntime.testing.history import FakeHistory
from buntime.testing.sandboxes import FakeSandboxes

MOST = 1.5
FEW = 10
POOL_SIZE = 40
PAGE = "10"
DAY = 86_400
LIMITS = Limits(memory=1024, cpu=0.25, timeout=30, disk=2048)
ADDED_AT_ONCE = 1000


async def measure(context: Context) -> list[Row]:
    many = context.scale.many_asleep
    async with (
        beside(context, POOL_SIZE, fill=partial(_fill, FEW)) as small,
        beside(context, POOL_SIZE, fill=partial(_fill, many)) as large,
    ):
        both = {FEW: small, many: large}
        times = {
            "create": await _creates(both),
            "get": await _by_turns(both, context.scale.many_calls, _get),
            "list": await _by_turns(both, context.scale.many_calls, _list),
        }
    times["keeper tick"] = ticks = {count: await _ticks(context, count) for count in both}
    started = "; ".join(f"{count}: ready after {server.server.start_seconds:.1f} s" for count, server in both.items())
    first = "; ".join(f"{count}: {passed[0]:.1f} ms" for count, passed in ticks.items())
    return [
        *(_row(what, passed[many], passed[FEW], many) for what, passed in times.items()),
        Row(figure="many-asleep", what="start of the server, first tick of the keeper", note=f"{started}; {first}"),
    ]


def _row(what: str, large: list[float], small: list[float], many: int) -> Row:
    measured, baseline = summarise(large), summarise(small)
    return Row(
        figure="many-asleep",
        what=f"{what} with {many} sessions in deep sleep",
        measured=measured,
        baselines=(Baseline(f"with {FEW}", baseline),),
        checks=(ratio("p50", measured.p50, baseline.p50, MOST),),
    )


# --- over HTTP ---


async def _creates(both: dict[int, Context]) -> dict[int, list[float]]:
    """Creates as many as are parked, in rounds."""
    times: dict[int, list[float]] = {count: [] for count in both}
    for _ in range(next(iter(both.values())).scale.rounds):
        for count, context in both.items():
            async with sessions(context) as made:
                times[count] += [await made.create() for _ in range(context.server.pool_size * 3 // 4)]
    return times


async def _by_turns(
    both: dict[int, Context], calls: int, call: Callable[[Context, Sequence[str]], Awaitable[object]]
) -> dict[int, list[float]]:
    times: dict[int, list[float]] = {count: [] for count in both}
    ids = {count: await _ids(context) for count, context in both.items()}
    for _ in range(calls):
        for count, context in both.items():
            times[count].append(await stopwatch(call(context, ids[count])))
    return times


async def _ids(context: Context) -> Sequence[str]:
    """Returns some ids from the middle of the list."""
    total = msgspec.json.decode(await context.client.get("/sessions", {"limit": PAGE}))["total"]
    page = await context.client.get("/sessions", {"limit": PAGE, "offset": str((total - int(PAGE)) // 2)})
    return [session["sessionId"] for session in msgspec.json.decode(page)["sessions"]]


async def _get(context: Context, ids: Sequence[str]) -> None:
    await context.client.get(f"/sessions/{random.choice(ids)}")


async def _list(context: Context, _: Sequence[str]) -> None:
    await context.client.get("/sessions", {"limit": PAGE})


# --- the store ---


def _fill(count: int, config: Config) -> None:
    """Blocking."""
    vault = Vault(load_master_key(config.data_dir / "master.key", may_create=True))

    async def work() -> None:
        store = await SqliteStore.open(store_file(config))
        try:
            (account,) = await store.list_accounts()
            await _add(store, account.id, count, vault)
        finally:
            await store.close()

    asyncio.run(work())


async def _add(store: SqliteStore, account: str, count: int, vault: Vault) -> None:
    for begin in range(0, count, ADDED_AT_ONCE):
        fresh = [_asleep(account, vault) for _ in range(begin, min(begin + ADDED_AT_ONCE, count))]
        await asyncio.gather(*(store.add_session(session, None, count + 1) for session in fresh))


def _asleep(account: str, vault: Vault) -> Session:
    now = int(time.time()) - secrets.randbelow(DAY)
    name = new_session_id()
    return Session(
        id=name,
        account=account,
        created_at=now,
        expires_at=now + 30 * DAY,
        last_active=now,
        limits=LIMITS,
        sandbox=new_sandbox_id(),
        volume=new_volume_id(),
        image="img-of-then",
        state=State.DEEP_SLEEP,
        metadata={"purpose": "bench"},
        key=vault.new_key(name),
        saved=SavedVolume(f"{name}/{now:010d}-{secrets.token_hex(6)}", 1 << 20, now),
        archived=True,
    )


# --- the keeper ---


async def _ticks(context: Context, count: int) -> list[float]:
    """Returns the milliseconds of each tick, including the first, which sees every session."""
    home = context.server.scratch / f"keeper-{count}"
    home.mkdir()
    vault = Vault(secrets.token_bytes(KEY_BYTES))
    store = await SqliteStore.open(home / "store.db")
    try:
        account = Account("acc_bench", "enterprise", int(time.time()))
        await store.add_account(account)
        await _add(store, account.id, count, vault)
        async with Tasks() as tasks:
            keeper = _keeper(store, vault, tasks)
            changing, *_ = await store.all_sessions()
            times = []
            for number in range(context.scale.many_calls):
                times.append(await stopwatch(keeper.tick()))
                changing = await store.change_session(changing, replace(changing, metadata={"number": number}))
            return times
    finally:
        await store.close()


def _keeper(store: SqliteStore, vault: Vault, tasks: Tasks) -> Keeper:
    sandboxes = FakeSandboxes()
    saving = Saving(FakeArchive(), vault, sandboxes.volumes, time.time)
    lifecycle = assemble_lifecycle(store, sandboxes, saving, SoleOwner(), FakeHistory(), {}, tasks, time.time)
    return Keeper(store, sandboxes, lifecycle, SoleOwner(), tasks, time.time, Pace())
