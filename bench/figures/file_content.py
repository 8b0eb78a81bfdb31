"""A large file up and down by /files/content, compared with a Bun server in the session.

The same server through an nginx with a fixed upstream shows what the hop alone costs here.
"""

import asyncio
import secrets

import msgspec

from bench.api import way_of
from bench.context import Context, Sessions, sessions
from bench.exchanges import download, upload
from bench.plain_nginx import plain_nginx
from bench.previews import MB, PORT, WAIT, Way, address_of
from bench.report import Baseline, Row, ratio
from bench.statistics import summarise

LEAST_UP, LEAST_DOWN = 0.8, 0.6
CORES = 1.0
PIECE = secrets.token_bytes(MB)  # random, so that no file system can compress it
SERVER = """
Bun.serve({
  port: PORT,
  idleTimeout: 0,
  maxRequestBodySize: 1 << 30,
  async fetch(request) {
    if (request.method === "GET") return new Response(Bun.file("/workspace/by-bun"));
    return new Response(String(await Bun.write("/workspace/by-bun", await request.arrayBuffer())));
  },
});
""".replace("PORT", str(PORT))
# One turn to warm up, then one that counts, in ms.
LOOPBACK = """
const url = "http://127.0.0.1:PORT/";
const body = crypto.getRandomValues(new Uint8Array(65536));
const whole = Buffer.concat(Array(SIZE / 65536).fill(body));
for (let turn = 0; turn < 2; turn++) {
  const a = performance.now();
  await (await fetch(url, { method: "PUT", body: whole })).text();
  const b = performance.now();
  const read = await (await fetch(url)).arrayBuffer();
  const c = performance.now();
  if (read.byteLength !== SIZE) throw new Error("not all was read");
  if (turn) console.log(JSON.stringify([b - a, c - b]));
}
""".replace("PORT", str(PORT))
SAME = '[ "$(sha256sum <by-api)" = "$(sha256sum <by-bun)" ]'  # the API delivered what the direct way delivered
START = f"setsid bun /workspace/server.ts >/dev/null 2>&1 </dev/null & {WAIT}"


async def measure(context: Context) -> list[Row]:
    size = context.scale.content_mb
    up: list[list[float]] = [[], [], [], []]  # over the API, over loopback, direct, by nginx; in MB/s
    down: list[list[float]] = [[], [], [], []]
    async with sessions(context) as made:
        session, straight = await _served(context, made)
        target = f"/files/content?sessionId={session}&path=by-api"
        with plain_nginx(context.server.scratch / "plain-nginx", straight) as plain:
            ways = ((way_of(context.server), target), (straight, "/"), (plain, "/"))
            for way in ways:
                await _timed(way, size)  # warms up
            for _ in range(context.scale.content_rounds):
                api = await _timed(ways[0], size)
                loopback = await _loopback(context, session, size)
                rest = [await _timed(way, size) for way in ways[1:]]
                for times, rates in zip(zip(api, loopback, *rest, strict=True), (up, down), strict=True):
                    for seconds, rate in zip(times, rates, strict=True):
                        rate.append(size / seconds)
        await context.client.execute(session, command=SAME)
    return [_row(size, "up", up, LEAST_UP), _row(size, "down", down, LEAST_DOWN)]


async def _served(context: Context, made: Sessions) -> tuple[str, Way]:
    """Returns a session with one core and the Bun server in it."""
    session = str((await context.client.create_with({"resourceLimits": {"cpu": CORES}}))["sessionId"])
    made.ids.append(session)
    files = [{"path": "server.ts", "content": SERVER}]
    await context.client.execute(session, command=START, files=files, timeout=30)
    address = await address_of(context.client, session)
    return session, Way("straight to the session", address, PORT, f"{address}:{PORT}")


async def _timed(where: tuple[Way, str], size: int) -> tuple[float, float]:
    """Returns the seconds up and down."""
    way, target = where

    def both() -> tuple[float, float]:
        return upload(way, size, "PUT", target, PIECE), download(way, size, target)

    return await asyncio.to_thread(both)


async def _loopback(context: Context, session: str, size: int) -> tuple[float, float]:
    code = LOOPBACK.replace("SIZE", str(size * MB))
    up, down = msgspec.json.decode((await context.client.execute(session, code=code))["stdout"])
    return up / 1000, down / 1000


def _row(size: int, direction: str, rates: list[list[float]], least: float) -> Row:
    measured, loopback, straight, by_nginx = map(summarise, rates)
    return Row(
        figure="file-content",
        what=f"{size} MB {direction} by /files/content, session with {CORES:g} core",
        measured=measured,
        unit="MB/s",
        baselines=(
            Baseline("a Bun server, over loopback in the session", loopback, "MB/s"),
            Baseline("the same server, directly", straight, "MB/s"),
            Baseline("the same server, by nginx with a fixed upstream", by_nginx, "MB/s"),
        ),
        checks=(ratio("p50", measured.p50, loopback.p50, least, least=True),),
        note=f"of direct: {measured.p50 / straight.p50:.2f}×; "
        f"nginx with a fixed upstream: {by_nginx.p50 / loopback.p50:.2f}× of loopback",
    )
