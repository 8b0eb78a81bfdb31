"""PostgreSQL, a web server, a queue worker and Vite as services. Needs the npm registry."""

from collections.abc import Callable, Iterator

import pytest

from tests.acceptance import postgres
from tests.acceptance.client import Client, Session
from tests.acceptance.conftest import fresh_server
from tests.acceptance.server import Server
from tests.acceptance.sleeping import EVICTING, evict
from tests.acceptance.test_previews import _see
from tests.acceptance.test_services import services_of
from tests.waiting import until

pytestmark = pytest.mark.sandbox

SLEEPS = 20
SECONDS = 120  # for one run; a guard against a hang
SERVER = f"""
import {{ SQL }} from "bun";
const sql = new SQL("{postgres.URL}");
Bun.serve({{
  port: Number(process.env.PORT),
  async fetch(request) {{
    if (request.method === "POST") {{
      const [job] = await sql`INSERT INTO jobs (work) VALUES (${{await request.text()}}) RETURNING id`;
      return Response.json(job);
    }}
    const [counts] = await sql`SELECT count(*)::int AS jobs, count(done)::int AS done FROM jobs`;
    return Response.json(counts);
  }},
}});
"""
WORKER = f"""
import {{ SQL }} from "bun";
const sql = new SQL("{postgres.URL}");
for (;;) {{
  const done = await sql`UPDATE jobs SET done = upper(work) WHERE id IN
    (SELECT id FROM jobs WHERE done IS NULL ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)`;
  if (done.count === 0) await Bun.sleep(50);
}}
"""
WEB, QUEUE = "exec bun server.ts", "exec bun worker.ts"
VITE = "exec bun --bun node_modules/vite/bin/vite.js --host 0.0.0.0 --port 5173 --strictPort"
PAGE = '<!doctype html><script type="module" src="/main.ts"></script>'


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Starts a server that evicts volumes, so that each deep sleep is restored from the archive."""
    with fresh_server(pool_size=2) as server:
        server.settings |= EVICTING
        server.start()
        yield server
        assert server.stop() == 0


def test_a_database_two_web_servers_and_a_queue_worker_live_through_many_deep_sleeps(
    server: Server, paid: Client, rounds: Callable[[int, int], int]
) -> None:
    sleeps = rounds(SLEEPS, 3)
    session = paid.open(preview={"visibility": "public", "ports": [8080, 5173]})
    session.output(postgres.ADD, timeout=SECONDS)
    session.output(postgres.added("vite@7.1.12"), timeout=SECONDS)
    session.output(postgres.MAKE, timeout=60)
    session.write("index.html", PAGE).done()
    session.write("server.ts", SERVER).done()
    session.write("worker.ts", WORKER).done()
    session.patch(services=[{"name": "database", "command": postgres.SERVE, "port": 5432}]).done()
    table = "await sql`CREATE TABLE jobs (id serial PRIMARY KEY, work text, done text)`"
    made = session.code(postgres.program(table), timeout=60)
    assert made["exitCode"] == 0, made
    session.patch(
        services=[
            {"name": "database", "command": postgres.SERVE, "port": 5432},
            {"name": "web", "command": WEB, "port": 8080},
            {"name": "worker", "command": QUEUE, "restart": "always"},
            {"name": "vite", "command": VITE, "port": 5173},
        ]
    ).done()
    for turn in range(sleeps):
        session.write("main.ts", f"const turn: number = {turn};").done()
        assert _modules(paid, session) == f"const turn = {turn};", f"turn {turn}"
        assert _post(paid, session, f"job {turn}") == turn + 1, f"turn {turn}"
        until(lambda: _counts(paid, session) == {"jobs": turn + 1, "done": turn + 1}, f"job {turn}")  # noqa: B023
        evict(server, session)
    found = services_of(session)
    assert {one["state"] for one in found.values()} <= {"running", "restarting"}, found
    until(lambda: _counts(paid, session) == {"jobs": sleeps, "done": sleeps}, "all jobs")
    session.delete().done()


def _modules(client: Client, session: Session) -> str:
    """Returns the first line of what Vite makes of the page's module."""
    page = _see(client, session, port=5173)
    assert page.status == 200, page.shown()
    assert b"/@vite/client" in page.body
    module = _see(client, session, "/main.ts", port=5173)
    assert module.status == 200, module.shown()
    return module.body.decode().splitlines()[0]


def _post(client: Client, session: Session, work: str) -> int:
    host = f"{session.id.replace('_', '-')}.localhost:{client.port}"
    reply = Client(client.port, None).call("POST", "/", body=work.encode(), headers={"Host": host})
    assert reply.status in (200, 500), reply.shown()
    if reply.status == 500:  # the database was not up yet: a program's answer, which is its own to try again
        until(lambda: _see(client, session).status == 200, "the database")
        return _post(client, session, work)
    return int(reply.json()["id"])


def _counts(client: Client, session: Session) -> object:
    reply = _see(client, session)
    return reply.json() if reply.status == 200 else reply.status
