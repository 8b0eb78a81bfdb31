"""Programs that people run in sessions: test suites of packages, servers and databases.

Needs the npm registry.
"""

import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.acceptance import postgres
from tests.acceptance.client import Client, Reply, Session
from tests.acceptance.conftest import fresh_server
from tests.acceptance.postgres import added
from tests.acceptance.server import IMAGES, Server
from tests.acceptance.sleeping import EVICTING, ask_to_sleep, evict, state, wake

pytestmark = pytest.mark.sandbox

INSIDE = Path(__file__).with_name("inside")
SECONDS = 120  # for one run; a guard against a hang


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Starts a server that evicts volumes, so that a session in deep sleep is restored from the archive."""
    with fresh_server(pool_size=2) as server:
        server.settings |= EVICTING
        server.start()
        yield server
        assert server.stop() == 0


# --- test suites of packages -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Suite:
    """A package that is published with its tests.

    The tests run beside `node_modules`, so that `bun test` takes them for the project's own.
    """

    package: str
    beside: tuple[str, ...]  # packages that its tests import and that it does not depend on
    directory: str  # of the tests
    options: str  # --isolate if test files affect each other, since their order depends on the file system
    tests: int  # the least number of tests that must pass


SUITES = [
    # TypeScript for Vitest, which `bun test` replaces. Saving have another format, so some tests fail everywhere
    Suite("zod@4.6.7", (), "src", "--isolate", 2_500),
    # the router of Fastify: JavaScript, node:test, real HTTP and HTTP/2 on its own ports
    Suite("find-my-way@9.10.1", ("proxyquire@2.1.3", "rfdc@1.4.1"), ".", "--isolate", 550),
    # code generation: makes functions from text and calls them
    Suite("fast-json-stringify@7.3.6", (), ".", "", 636),
]
REPORT = "report.xml"


def _set_up(suite: Suite) -> str:
    name = suite.package.partition("@")[0]
    installed = " ".join((suite.package, *suite.beside))
    return f"echo '{{}}' > package.json; {added(installed)}; cp -r node_modules/{name} tested"


def _run(suite: Suite) -> str:
    report = f"{suite.options} --timeout=60000 --reporter=junit --reporter-outfile=$OLDPWD/{REPORT}"
    return f"cd tested/{suite.directory} && bun test {report}"


def _outcomes(report: str) -> Counter[tuple[str, ...]]:
    """Counts test cases by file, class, name and outcome."""
    return Counter(
        (case.get("file", ""), case.get("classname", ""), case.get("name", ""), *(child.tag for child in case))
        for case in ElementTree.fromstring(report).iter("testcase")
    )


def _events(reply: Reply) -> list[tuple[str, dict[str, Any]]]:
    """Returns the events of a stream in order."""
    assert reply.status == 200, reply.shown()
    blocks = (block.partition("\ndata: ") for block in reply.body.decode().split("\n\n"))
    return [(name.removeprefix("event: "), json.loads(data)) for name, _, data in blocks if name.startswith("event: ")]


def _outside(suite: Suite, directory: Path) -> Counter[tuple[str, ...]]:
    """Runs the same tests with the same Bun on the host."""
    environment = {"PATH": f"{_bun_of_an_image().parent}:/usr/bin:/bin", "HOME": str(directory)}
    for name in ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"):
        if name in os.environ:
            environment[name] = os.environ[name]
    for script in (_set_up(suite), _run(suite)):
        done = subprocess.run(
            ["bash", "-c", script], cwd=directory, env=environment, capture_output=True, text=True, timeout=SECONDS
        )
        assert done.returncode in (0, 1), done.stdout
    return _outcomes((directory / REPORT).read_text())


def _bun_of_an_image() -> Path:
    return next(IMAGES.glob("img-*/usr/local/bin/bun"))


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.package)
def test_the_tests_of_a_package_come_to_the_same_as_outside(session: Session, suite: Suite, tmp_path: Path) -> None:
    assert session.output("bun --version") == subprocess.check_output([_bun_of_an_image(), "--version"], text=True)
    session.output(_set_up(suite), timeout=SECONDS)
    events = _events(session.execute(command=_run(suite), stream=True, timeout=SECONDS))
    told = "".join(data["data"] for name, data in events if name == "stderr")
    inside = _outcomes(session.text(REPORT))
    passed = sum(count for outcome, count in inside.items() if len(outcome) == 3)
    assert passed >= suite.tests, told[-3000:]
    assert f"\n {passed} pass\n" in told, told[-3000:]
    assert len(events) > 10, "output must arrive while the tests run"
    assert [(name, data["timedOut"]) for name, data in events if "timedOut" in data] == [("result", False)]
    outside = _outside(suite, tmp_path)
    assert (inside - outside, outside - inside) == (Counter(), Counter())


# --- servers ---------------------------------------------------------------------------------


def _start(session: Session, command: str, **wait_for: object) -> str:
    """Starts a process and waits until it is ready. Returns its id."""
    fields = {"sessionId": session.id, "command": command, "waitFor": wait_for}
    started = session.client.call("POST", "/processes/start", json_body=fields).done()
    assert (started["status"], started["ready"]) == ("running", True), _logged(session, started["processId"])
    return str(started["processId"])


def _process(session: Session, process_id: str, what: str = "get") -> dict[str, Any]:
    query = {"sessionId": session.id, "processId": process_id}
    return dict(session.client.call("GET", f"/processes/{what}", query=query).done())


def _ended(session: Session, process_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + SECONDS
    while (process := _process(session, process_id))["status"] == "running":
        assert time.monotonic() < deadline, process
        time.sleep(0.05)
    return process


def _logged(session: Session, process_id: str) -> str:
    return "".join(entry["data"] for entry in _process(session, process_id, "logs")["entries"])


def _signal(session: Session, process_id: str, name: str) -> None:
    fields = {"sessionId": session.id, "processId": process_id, "signal": name}
    session.client.call("POST", "/processes/signal", json_body=fields).done()


def _visit(session: Session, method: str, path: str, **fields: Any) -> Reply:
    """Visits the preview URL without a key."""
    client = session.client
    host = f"{session.id.replace('_', '-')}.localhost:{client.port}"
    return Client(client.port, None).call(method, path, headers={"Host": host}, **fields)


def test_a_hono_server_is_used_by_visitors_and_by_later_runs_over_an_idle_sleep(session: Session) -> None:
    session.write("tsconfig.json", '{"compilerOptions": {"jsx": "react-jsx", "jsxImportSource": "hono/jsx"}}').done()
    session.write("app.tsx", (INSIDE / "hono_app.tsx").read_text()).done()
    session.output(added("hono@4.13.19"), timeout=SECONDS)
    server = _start(session, "exec bun app.tsx", output="^listening$")

    made = _visit(session, "POST", "/notes", json_body={"text": "from <outside>"})
    assert (made.status, made.headers["location"]) == (201, "/notes/1")
    assert _visit(session, "POST", "/notes", json_body={"text": 5}).status == 422
    inside = """
        const made = await fetch("http://localhost:8080/notes", {
          method: "POST", headers: { "Content-Type": "application/json" }, body: '{ "text": "from inside" }',
        });
        console.log(made.status, await (await fetch("http://localhost:8080/notes/2")).text());
    """
    assert session.code(inside)["stdout"] == '201 {"id":2,"text":"from inside"}\n'

    assert ask_to_sleep(session, "idle").done()["state"] == "idle"
    notes = [{"id": 1, "text": "from <outside>"}, {"id": 2, "text": "from inside"}]
    assert _visit(session, "GET", "/notes").done() == notes
    assert state(session) == "active"
    page = (
        '<!doctype html><html lang="en"><body><ul><li>from &lt;outside&gt;</li><li>from inside</li></ul></body></html>'
    )
    assert _visit(session, "GET", "/").body.decode() == page
    events = "event: note\ndata: from <outside>\nid: 1\n\nevent: note\ndata: from inside\nid: 2\n\n"
    assert _visit(session, "GET", "/events").body.decode() == events
    missing = _visit(session, "GET", "/notes/3")
    assert (missing.status, missing.json()) == (404, {"error": "no such note"})

    _signal(session, server, "SIGTERM")
    assert (_ended(session, server)["status"], _process(session, server)["exitCode"]) == ("exited", 7)
    logged = _logged(session, server)
    assert [line in logged for line in ("listening", "--> GET /notes/2", "404", "kept 2 notes")] == [True] * 4
    assert _visit(session, "GET", "/notes").status == 502


# --- databases -------------------------------------------------------------------------------

TABLE = """
    import { Database } from "bun:sqlite";
    const db = new Database("books.sqlite", { create: true, strict: true });
    db.run("PRAGMA journal_mode = WAL; PRAGMA busy_timeout = 30000");
    db.run("CREATE TABLE entries (id INTEGER PRIMARY KEY, account TEXT NOT NULL, cents INTEGER NOT NULL)");
    db.run("CREATE VIRTUAL TABLE words USING fts5(text)");
    const insert = db.prepare("INSERT INTO entries (account, cents) VALUES ($account, $cents)");
    db.transaction(() => {
      for (let n = 0; n < 10_000; n++) insert.run({ account: `account ${n % 10}`, cents: n });
    })();
    db.run("INSERT INTO words VALUES ('the quick brown fox'), ('a lazy dog')");
"""
DEPOSIT = """
    import { Database } from "bun:sqlite";
    const db = new Database("books.sqlite");
    db.run("PRAGMA busy_timeout = 30000");
    for (let n = 0; n < 50; n++) db.transaction(() => {
      const { id } = db.query("SELECT max(id) + 1 AS id FROM entries").get();
      db.run("INSERT INTO entries VALUES (?, 'deposits', 1)", [id]);
    }).immediate();
"""
BOOKS = """
    import { Database } from "bun:sqlite";
    const db = new Database("books.sqlite");
    const one = (sql) => Object.values(db.query(sql).get())[0];
    console.log(
      one("PRAGMA integrity_check"), one("SELECT sum(cents) FROM entries WHERE account LIKE 'account %'"),
      one("SELECT count(*) FROM entries WHERE account = 'deposits'"),
      one("SELECT text FROM words WHERE words MATCH 'dog'"),
      one("SELECT count(*) FROM entries WHERE account = 'unfinished'"),
    );
"""
# holds the database's lock in a transaction that never ends
UNFINISHED = """
    import { Database } from "bun:sqlite";
    const db = new Database("books.sqlite");
    db.run("PRAGMA busy_timeout = 30000; PRAGMA cache_size = 1; BEGIN IMMEDIATE");
    for (let n = 0; n < 5000; n++) db.run("INSERT INTO entries (account, cents) VALUES ('unfinished', 1)");
    require("node:fs").writeFileSync("holding", "");
    setInterval(() => {}, 1000);
"""


def test_a_sqlite_database_is_used_by_many_runs_and_whole_after_every_sleep(server: Server, session: Session) -> None:
    def said(code: str) -> str:
        result = session.code(code, timeout=60)
        assert (result["exitCode"], result["stderr"]) == (0, "")
        return str(result["stdout"])

    said(TABLE)
    books = f"ok {sum(range(10_000))} {{deposits}} a lazy dog 0\n"
    assert said(BOOKS) == books.format(deposits=0)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(said, [DEPOSIT] * 4))
    assert said(BOOKS) == books.format(deposits=200)
    ask_to_sleep(session, "idle").done()
    assert said(BOOKS) == books.format(deposits=200)

    session.write("unfinished.ts", UNFINISHED).done()
    session.output("bun unfinished.ts & until [ -e holding ]; do sleep 0.05; done")
    ask_to_sleep(session, "idle").done()
    assert said(BOOKS) == books.format(deposits=200)
    evict(server, session)
    assert said(BOOKS) == books.format(deposits=200), "an unfinished transaction must be rolled back"
    said(DEPOSIT)
    assert said(BOOKS) == books.format(deposits=250)


BY_PG = f"""
    import pg from "pg";
    const client = new pg.Client("{postgres.URL}");
    await client.connect();
    try {{
      await client.query("INSERT INTO entries VALUES (1, 'again', '{{}}')");
    }} catch (error) {{
      console.log(error.code, error.constraint);
    }}
    const sum = await client.query("SELECT count(*)::int AS n, sum((more->>'cents')::int)::int AS cents FROM entries");
    console.log(JSON.stringify(sum.rows[0]));
    await client.end();
"""


def _sql(session: Session, statements: str) -> str:
    """Runs statements with Bun's client. Returns its output."""
    result = session.code(postgres.program(statements), timeout=60)
    assert result["exitCode"] == 0, result
    return str(result["stdout"])


def test_a_postgresql_server_is_used_across_calls_and_its_data_outlive_every_sleep(
    server: Server, paid: Client
) -> None:
    session = paid.open(onWake=postgres.SERVE)
    session.write("package.json", "{}").done()
    session.output(added(f"--trust pg@8.23.1 {postgres.PACKAGE}"), timeout=SECONDS)
    session.output(postgres.MAKE, timeout=60)
    process = _start(session, postgres.SERVE, port=5432)

    _sql(session, "await sql`CREATE TABLE entries (id int PRIMARY KEY, account text, more jsonb)`")
    filled = "FROM generate_series(1, 10000) n"
    _sql(session, f"await sql`INSERT INTO entries SELECT n, 'a', jsonb_build_object('cents', n) {filled}`")
    with ThreadPoolExecutor(4) as pool:
        inserts = (
            "for (let n = 0; n < 25; n++) await sql`INSERT INTO entries VALUES (${START + n}, 'b', '{\"cents\": 0}')`"
        )
        list(pool.map(lambda n: _sql(session, inserts.replace("START", str(20_000 + 100 * n))), range(4)))
    books = f'23505 entries_pkey\n{{"n":10100,"cents":{sum(range(10_001))}}}\n'
    assert session.code(BY_PG)["stdout"] == books

    context = session.client.call("POST", "/contexts/create", json_body={"sessionId": session.id}).done()["contextId"]
    session.code(f'import {{ SQL }} from "bun"; const sql = new SQL("{postgres.URL}", {{ max: 1 }})', contextId=context)
    sums = "await sql`SELECT account, count(*)::int AS entries FROM entries GROUP BY account ORDER BY account`"
    table = {"columns": ["account", "entries"], "rows": [["a", 10_000], ["b", 100]]}
    assert session.code(f"const sums = {sums}; [...sums]", contextId=context)["result"]["table"] == table
    connection = {"code": "(await sql`SELECT pg_backend_pid() AS pid`)[0].pid", "contextId": context}
    backend = session.code(**connection)["result"]["json"]

    started = "console.log((await sql`SELECT pg_postmaster_start_time()::text AS at`)[0].at)"
    before = _sql(session, started)
    ask_to_sleep(session, "idle").done()
    server.kill()
    server.start()
    assert _sql(session, started) == before, "the database must survive sleep and the server's restart"
    assert _process(session, process)["status"] == "running"
    assert session.code(**connection)["result"]["json"] == backend, "a context must keep its connection"

    evict(server, session)
    session.execute(**connection).refused(409, "context_lost")
    wake(session).done()
    assert _sql(session, started) != before
    assert session.code(BY_PG)["stdout"] == books
    assert "ready to accept connections" in session.text("/var/log/on-wake.log")
    shown = _process(session, process)
    assert (shown["status"] in ("exited", "lost"), shown["reason"]) == (True, "deep_sleep")
    session.delete().done()
