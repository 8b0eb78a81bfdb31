"""Deep sleep of a session with a PostgreSQL server, after a change of a small part of its rows.

The server runs with its own defaults. It has the change in memory and in its log; SIGTERM makes it write the tables.
"""

from bench import archived
from bench.archived import CHANGED_MB, Sleep
from bench.client import Client, Refused
from bench.context import Context, sessions
from bench.report import Check, Row
from bench.statistics import summarise
from tests.acceptance import postgres

MOST_MS, MOST_MB = 1000.0, 20.0
ROWS_PER_MB = 1024
INSTALL_SECONDS, SQL_SECONDS = 100, 110
CONTENT = "(SELECT string_agg(md5(random()::text || n || part), '') FROM generate_series(1, 30) part)"  # 960 bytes
# `VACUUM` writes to all rows once, as autovacuum would soon. Then a change writes only what it changes.
FILL = f"""
await sql`CREATE TABLE entries (n int PRIMARY KEY, content text)`;
await sql.unsafe("INSERT INTO entries SELECT n, {CONTENT} FROM generate_series(0, ROWS - 1) n");
await sql`VACUUM (FREEZE, ANALYZE) entries`;
await sql`CHECKPOINT`;
console.log((await sql`SELECT pg_database_size('postgres')::int AS size`)[0].size);
"""
CHANGE = f'await sql.unsafe("UPDATE entries SET content = {CONTENT} WHERE n >= FROM AND n < FROM + ROWS");'
COUNT = "console.log((await sql`SELECT count(*)::int AS found FROM entries`)[0].found);"


async def measure(context: Context) -> list[Row]:
    client, scale = context.client, context.scale
    sleeps = list[Sleep]()
    rows, changed = scale.database_mb * ROWS_PER_MB, CHANGED_MB * ROWS_PER_MB
    async with sessions(context) as made:
        await made.create(resourceLimits=archived.LIMITS, onWake=postgres.SERVE)
        session = made.ids[0]
        try:
            await _install(client, session)
        except Refused as refused:
            return [Row(figure="database-sleep", what="database-sleep", skipped=f"no PostgreSQL from npm: {refused}")]
        size = await _sql(client, session, FILL.replace("ROWS", str(rows)))
        first = await archived.deep_sleep(client, session)
        for turn in range(scale.database_sleeps):
            change = CHANGE.replace("FROM AND", f"{turn * changed} AND").replace("FROM +", f"{turn * changed} +")
            await _sql(client, session, change.replace("ROWS", str(changed)))
            await context.pool_filled()
            sleeps.append(await archived.deep_sleep(client, session))
        found = await _sql(client, session, COUNT)
    if int(found) != rows:
        raise RuntimeError(f"the database has {found} rows, not {rows}")
    return _rows(f"a PostgreSQL of {int(size) / 1e6:.0f} MB, {CHANGED_MB} MB of rows changed", first, sleeps)


def _rows(what: str, first: Sleep, sleeps: list[Sleep]) -> list[Row]:
    answered, kept = summarise([s.answered for s in sleeps]), summarise([s.archived for s in sleeps])
    sizes = summarise([sleep.size / 1e6 for sleep in sleeps])
    fulls = sum(sleep.full for sleep in sleeps)
    return [
        Row(
            figure="database-sleep",
            what=f"deep sleep of {what}, until it is archived",
            measured=kept,
            checks=(Check("p50", kept.p50, MOST_MS, " ms"),),
            note=f"until the answer: p50 {answered.p50:.0f} ms; the first sleep, of all: {first.archived:.0f} ms",
        ),
        Row(
            figure="database-sleep",
            what=f"bytes archived by a sleep of {what}",
            measured=sizes,
            unit="MB",
            checks=(Check("p50", sizes.p50, MOST_MB, " MB"),),
            note=f"the first object: {first.size / 1e6:.0f} MB; full objects among the others: {fulls}",
        ),
    ]


async def _install(client: Client, session: str) -> None:
    await client.execute(session, command=postgres.ADD, timeout=INSTALL_SECONDS)
    await client.execute(session, command=postgres.MAKE, timeout=INSTALL_SECONDS)
    await client.ask("/processes/start", sessionId=session, command=postgres.SERVE)


async def _sql(client: Client, session: str, statements: str) -> str:
    """Runs statements and returns what they print."""
    ran = await client.execute(session, code=postgres.program(statements), timeout=SQL_SECONDS)
    return str(ran["stdout"]).strip()
