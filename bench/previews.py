"""A web server in sessions, and two ways to it: through the edge, and directly to the session's address."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from bench.client import Client
from bench.context import Context, Sessions

PORT = 8080
MB = 1 << 20
CORES = 2.0  # for a session that its CPU quota must not limit
START = "bun /workspace/server.ts"
PROGRAM = """
let body: Uint8Array | undefined; // as many MB as the first request asks for
Bun.serve({
  port: PORT,
  idleTimeout: 0,
  maxRequestBodySize: 1 << 30,
  async fetch(request, server) {
    const { pathname, search } = new URL(request.url);
    if (pathname === "/download") return new Response((body ??= new Uint8Array(Number(search.slice(1)) << 20)));
    if (pathname === "/upload") {
      let bytes = 0;
      for await (const part of request.body!) bytes += part.length;
      return new Response(String(bytes));
    }
    if (pathname === "/echo" && server.upgrade(request)) return;
    return new Response("hello");
  },
  websocket: { perMessageDeflate: false, message(socket, message) { socket.send(message); } },
});
""".replace("PORT", str(PORT))
WAIT = f"until (exec 3<>/dev/tcp/127.0.0.1/{PORT}) 2>/dev/null; do sleep 0.05; done"
ADDRESS = """
const all = Object.values(require("os").networkInterfaces()).flat();
console.log(all.find((one) => !one.internal && one.family === "IPv4").address);
"""


@dataclass(frozen=True, slots=True)
class Way:
    """An address to connect to, and the Host to ask for there."""

    name: str
    address: str
    port: int
    host: str
    fields: str = ""  # further header lines

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class Preview:
    session: str
    edge: Way
    direct: Way


async def serve(context: Context, made: Sessions, **fields: Any) -> Preview:
    """Creates a session with the program listening in it. `fields`: for the create."""
    client = context.client
    answer = await client.create_with(fields)
    session = str(answer["sessionId"])
    made.ids.append(session)
    files = [{"path": "server.ts", "content": PROGRAM}]
    command = f"setsid {START} >/dev/null 2>&1 </dev/null & {WAIT}"
    await client.execute(session, command=command, files=files, timeout=30)
    address = await address_of(client, session)
    return Preview(session, _edge(context, answer), Way("direct", address, PORT, f"{address}:{PORT}"))


async def address_of(client: Client, session: str) -> str:
    """Returns the address at which root reaches what listens in the session."""
    return str((await client.execute(session, code=ADDRESS))["stdout"]).strip()


async def serve_unhindered(context: Context, made: Sessions) -> Preview:
    """Like `serve`, with so much CPU that the quota limits nothing."""
    return await serve(context, made, resourceLimits={"cpu": CORES})


def _edge(context: Context, created: Mapping[str, Any]) -> Way:
    """Connects by address and sends the name as Host, since a resolver may not know `*.localhost`."""
    return Way("edge", "127.0.0.1", context.server.config.port, urlsplit(str(created["previewUrl"])).netloc)
