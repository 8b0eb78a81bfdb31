"""Contexts on real sandboxes: what an agent does in a notebook, and how failures end."""

import base64
import json
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.client import Client, Reply, Session
from tests.acceptance.conftest import Servers
from tests.acceptance.sleeping import ask_to_sleep, deep_sleep, state
from tests.waiting import until

pytestmark = pytest.mark.sandbox

PATIENCE = 60  # seconds; the timeout of runs that end by themselves, below the plan's maximum
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\nrest").decode()


@dataclass(frozen=True, slots=True)
class Context:
    session: Session
    id: str

    def ask(self, code: str, **fields: Any) -> Reply:
        return self.session.execute(code=code, contextId=self.id, **({"timeout": PATIENCE} | fields))

    def run(self, code: str, **fields: Any) -> dict[str, Any]:
        return dict(self.ask(code, **fields).done())

    def value(self, code: str, **fields: Any) -> Any:
        """Runs code that must succeed. Returns the text of the last expression's value, or None if there is none."""
        result = self.run(code, **fields)
        assert result["exitCode"] == 0, result
        return None if result["result"] is None else result["result"]["text"]

    def delete(self) -> Reply:
        query = {"sessionId": self.session.id, "contextId": self.id}
        return self.session.client.call("DELETE", "/contexts/delete", query=query)


def _create(session: Session, **fields: Any) -> Reply:
    return session.client.call("POST", "/contexts/create", json_body={"sessionId": session.id, **fields})


def _context(session: Session, **fields: Any) -> Context:
    return Context(session, str(_create(session, **fields).done()["contextId"]))


def _listed(session: Session) -> dict[str, str]:
    """Returns the status of each context by id."""
    found = session.client.call("GET", "/contexts/list", query={"sessionId": session.id}).done()["contexts"]
    return {one["contextId"]: one["status"] for one in found}


@pytest.fixture
def context(session: Session) -> Context:
    return _context(session)


def _notebook() -> list[tuple[str, str | None]]:
    """Returns cells and the text of each cell's value."""
    text = (Path(__file__).parent / "inside/notebook.tsx.txt").read_text()
    cells = [cell.partition("\n") for cell in text.split("//// ")[1:]]
    return [(code.removesuffix("\n"), json.loads(value)) for value, _, code in cells]


def test_a_notebook_of_thirty_cells(context: Context) -> None:
    cells = _notebook()
    assert len(cells) == 30
    for code, text in cells:
        assert context.value(code) == text, code


def test_an_answer_has_the_fields_of_a_run_and_its_own(context: Context) -> None:
    result = context.run("console.log('out'); console.error('err'); display({ a: 1 }); 1 + 1")
    assert (result["stdout"], result["stderr"], result["exitCode"]) == ("out\n", "err\n", 0)
    assert result["result"] == {"text": "2", "json": 2}
    assert [shown["json"] for shown in result["displayed"]] == [{"a": 1}]
    assert result["executionTime"] < PATIENCE * 1000
    assert 1 << 20 < result["memoryUsed"] < 1 << 30
    assert set(result) == {
        "stdout", "stderr", "exitCode", "executionTime", "memoryUsed", "cpuTime", "timedOut", "filesWritten",
        "result", "displayed",
    }  # fmt: skip


def test_values_have_rich_forms(context: Context) -> None:
    table = context.run("[{ a: 1, b: '<' }, { a: 2 }]")["result"]
    assert table["table"] == {"columns": ["a", "b"], "rows": [[1, "<"], [2, None]]}
    assert "<td>&lt;</td>" in table["html"]
    assert context.run("({ toHTML: () => '<b>x</b>' })")["result"]["html"] == "<b>x</b>"
    image = context.run(f"Buffer.from('{PNG}', 'base64')")["result"]
    assert image["png"] == PNG
    jupyter = "({ [Symbol.for('Jupyter.display')]: () => ({ 'text/markdown': '**x**', 'image/svg+xml': '<svg/>' }) })"
    assert context.run(jupyter)["result"] | {"text": ""} == {"text": "", "markdown": "**x**", "svg": "<svg/>"}


def test_errors_have_the_lines_of_the_code(context: Context) -> None:
    result = context.run("// why\n\nfunction bad(): never {\n  throw new TypeError('no')\n}\n\nbad()")
    assert (result["exitCode"], result["error"]["name"], result["error"]["message"]) == (1, "TypeError", "no")
    assert "cell-1.tsx:4:" in result["error"]["stack"]
    assert "cell-1.tsx:7:" in result["error"]["stack"]
    assert result["error"]["stack"] in result["stderr"]
    assert "/run/guest" not in result["stderr"]
    syntax = context.run("const a = 1\nconst b = = 2")
    assert syntax["error"]["name"] == "SyntaxError"
    assert "cell-2.tsx:2:" in syntax["error"]["stack"]


@pytest.mark.parametrize(
    "code",
    [
        "for (;;) {}",
        "await 1; for (;;) {}",
        "await (await fetch('data:,x')).text(); for (;;) {}",
        "while (true) await Bun.sleep(1)",
        "await new Promise(() => {})",
        "process.on('SIGINT', () => {}); for (;;) {}",
    ],
)
def test_a_run_that_is_late_is_interrupted_and_variables_stay(context: Context, code: str) -> None:
    context.run("const kept = 'here'; console.log('before')")
    late = context.run(f"console.log('partial'); {code}", timeout=1)
    assert (late["timedOut"], late["exitCode"], late["contextSurvived"]) == (True, 124, True)
    assert late["stdout"] == "partial\n"
    assert context.value("await Bun.sleep(1); kept") == "here"


def test_a_run_that_cannot_be_interrupted_is_killed_and_the_context_says_so(context: Context) -> None:
    late = context.run("console.log('partial'); Bun.sleepSync(1e9)", timeout=1)
    assert (late["timedOut"], late["exitCode"], late["contextSurvived"]) == (True, 124, False)
    assert late["stdout"] == "partial\n"
    assert context.ask("1").refused(409, "context_lost")["reason"] == "timeout"
    assert _listed(context.session) == {context.id: "lost"}


def test_a_client_that_leaves_interrupts_the_run(context: Context) -> None:
    context.run("const kept = 'here'")
    with pytest.raises(TimeoutError):
        context.session.client.call(
            "POST",
            "/execute",
            json_body={"sessionId": context.session.id, "contextId": context.id, "code": "for (;;) {}", "timeout": 300},
            timeout=1,
        )
    assert context.value("kept") == "here"


@pytest.mark.parametrize(("code", "exit_code", "reason"), [
    ("process.exit(3)", 3, "exited"),
    ("process.kill(process.pid, 'SIGKILL'); for (;;) {}", 137, "killed"),
])  # fmt: skip
def test_a_kernel_that_ends_is_told_as_it_was(context: Context, code: str, exit_code: int, reason: str) -> None:
    ended = context.run(f"console.log('bye'); {code}")
    assert (ended["exitCode"], ended["contextSurvived"], ended["stdout"]) == (exit_code, False, "bye\n")
    assert context.ask("1").refused(409, "context_lost")["reason"] == reason
    assert _context(context.session).value("'another'") == "another"


def test_a_kernel_that_is_killed_between_runs_is_lost(context: Context) -> None:
    context.session.output(f"kill -9 {context.value('process.pid')}")
    until(lambda: _listed(context.session) == {context.id: "lost"}, "the guest to notice")
    assert context.ask("1").refused(409, "context_lost")["reason"] == "killed"


def test_a_run_that_uses_too_much_memory_names_the_limit(paid: Client) -> None:
    session = paid.open(resourceLimits={"cpu": 1, "memory": 256})
    context = _context(session)
    details = context.ask("const all = []; for (;;) all.push(new Uint8Array(8e6).fill(1))").refused(
        507, "memory_limit_exceeded"
    )
    assert (details["limit"], details["contextSurvived"]) == (256, False)
    context.ask("1").refused(409, "context_lost")
    assert _context(session).value("1") == "1"
    session.delete()


def test_huge_output_and_huge_values_are_cut(context: Context) -> None:
    result = context.run("const mb = 'x'.repeat(1 << 20); for (let i = 0; i < 30; i++) console.log(mb); mb.repeat(30)")
    assert (len(result["stdout"]), result["truncated"]) == (10 << 20, True)
    assert (len(result["result"]["text"]), result["result"]["cut"]) == (1 << 20, ["text"])
    shown = context.run("for (let i = 0; i < 40; i++) display('é'.repeat(1 << 19))")["displayed"]
    assert 0 < len(shown) < 40
    assert context.value("mb.length") == "1048576"


def test_values_that_resist_do_not_break_the_kernel(context: Context) -> None:
    for code in (
        "new Proxy({}, { get() { throw 1 }, ownKeys() { throw 1 }, getOwnPropertyDescriptor() { throw 1 } })",
        "({ get a() { throw new Error('x') }, toHTML() { throw 1 } })",
        "const ring: any = []; ring.push(ring); ring",
        "'\\ud800'",
        "({ ['\\ud800']: 1e300, n: 2 ** 70 })",
    ):
        assert context.run(code)["exitCode"] == 0
    assert context.run("({ toHTML() { for (;;) {} } })", timeout=1)["contextSurvived"]
    assert context.value("'fine'") == "fine"


def test_a_context_leaves_nothing_on_the_sessions_disk(session: Session) -> None:
    session.output("touch before")
    assert _context(session).value("const one: number = 1; one") == "1"
    assert session.output("find / -xdev -type f -newer before -not -path '/var/lib/buntime*'") == ""


def test_two_contexts_run_at_once_and_share_nothing(session: Session) -> None:
    one, two = _context(session), _context(session, env={"WHO": "two"}, workingDir="sub/..")
    one.run("globalThis.who = 'one'")
    with ThreadPoolExecutor(2) as pool:
        start = time.monotonic()
        waits = [pool.submit(each.value, "await Bun.sleep(2000); process.pid") for each in (one, two)]
        pids = {wait.result() for wait in waits}
    assert len(pids) == 2
    assert time.monotonic() - start < PATIENCE
    assert two.value("[globalThis.who, process.env.WHO].join()") == ",two"


def test_runs_in_one_context_wait_for_each_other(context: Context) -> None:
    context.run("let n = 0")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: context.value("const was = n; await Bun.sleep(20); n = was + 1"), range(8)))
    assert context.value("n") == "8"


def test_files_of_the_request_are_there_and_changed_ones_are_imported_anew(context: Context) -> None:
    for number in (1, 2):
        files = [{"path": "lib/one.ts", "content": f"export const one: number = {number}"}]
        result = context.run("import { one } from './lib/one'; await Bun.write('out', 'x'); one", files=files)
        assert result["result"]["json"] == number
        assert result["filesWritten"] == ["lib/one.ts", "out"]


def test_packages_are_found_or_fetched_as_in_any_run(context: Context) -> None:
    assert context.session.command("bun add left-pad@1.3.0", timeout=PATIENCE)["exitCode"] == 0
    assert context.value("import leftPad from 'left-pad'\nleftPad('x', 3)") == "  x"
    assert context.value("require('is-odd')(3)") == "true"  # beside node_modules
    code = "import { renderToString } from 'react-dom/server'\nrenderToString(<p>hi {1 + 1}</p>)"
    assert "hi" in context.value(code)
    missing = context.run("import 'there-is-no-such-package-of-this-name'")
    assert (missing["exitCode"], context.value("'fine'")) == (1, "fine")
    assert "there-is-no-such-package-of-this-name" in missing["error"]["message"]


def test_a_server_in_a_context_answers_between_and_during_runs(context: Context) -> None:
    context.run(
        "import http from 'node:http'\n"
        "Bun.serve({ port: 8080, fetch: () => new Response('bun') })\n"
        "http.createServer((_, reply) => setImmediate(() => reply.end('node'))).listen(8081)"
    )
    ask = "curl -s localhost:8080; curl -s localhost:8081"
    assert context.session.output(ask) == "bunnode"
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(context.value, "await Bun.sleep(3000); 'done'")
        assert context.session.output(ask) == "bunnode"
        assert running.result() == "done"


def test_output_comes_as_it_happens_and_displayed_values_between(context: Context) -> None:
    body = {"sessionId": context.session.id, "contextId": context.id, "stream": True}
    code = "console.log(1); await Bun.sleep(50); display(2); await Bun.sleep(50); console.log(3); 4"
    text = context.session.client.call("POST", "/execute", json_body={**body, "code": code}).body.decode()
    events = [block.split("\n") for block in text.split("\n\n") if block.startswith("event:")]
    assert [lines[0] for lines in events] == [
        "event: stdout", "event: displayed", "event: stdout", "event: result",
    ]  # fmt: skip
    assert json.loads(events[-1][1].removeprefix("data: "))["result"] == {"text": "4", "json": 4}


def test_errors_between_runs_are_told_by_the_next(context: Context) -> None:
    context.run("const still = 1; setTimeout(() => { throw new Error('behind') }, 50)")
    time.sleep(0.5)
    result = context.run("still")
    assert "behind" in result["stderr"]
    assert result["result"]["json"] == 1


def test_errors_beside_a_run_are_its_stderr_and_do_not_end_it(context: Context) -> None:
    result = context.run("setTimeout(() => { throw new Error('beside') }, 10); await Bun.sleep(200); 'done'")
    assert "beside" in result["stderr"]
    assert (result["exitCode"], result["result"]["text"]) == (0, "done")


def test_a_kernel_that_lies_ends_the_runtime_and_the_next_request_finds_another(context: Context) -> None:
    lie = (
        "import { readdirSync, readlinkSync, writeSync } from 'node:fs'\n"
        "const payload = Buffer.from('{\"value\": 5}'), head = Buffer.alloc(5)\n"
        "head.write('v'); head.writeUInt32BE(payload.length, 1)\n"
        "for (const fd of readdirSync('/proc/self/fd').map(Number)) {\n"
        "  try {\n"
        "    const isSocket = readlinkSync(`/proc/self/fd/${fd}`).startsWith('socket:')\n"
        "    if (isSocket) writeSync(fd, Buffer.concat([head, payload]))\n"
        "  } catch {}\n"
        "}\n"
    )
    reply = context.ask(lie)
    assert reply.status < 500 or reply.error["retryable"], reply.shown()
    assert context.session.output("echo fine") == "fine\n"
    assert _context(context.session).value("1 + 1") == "2"


def test_a_deleted_context_is_gone_with_what_it_started(context: Context) -> None:
    pid = context.value("Bun.spawn(['sleep', '1000']).pid")
    threading.Timer(1.0, context.delete).start()
    ended = context.run("for (;;) {}")
    assert (ended["exitCode"], ended["contextSurvived"]) == (137, False)
    context.ask("1").refused(404, "context_not_found")
    context.delete().refused(404, "context_not_found")
    gone = f"kill -0 {pid} 2>&1 || echo gone"
    until(lambda: context.session.output(gone).endswith("gone\n"), "its processes to end")


def test_what_a_context_cannot_be_made_of_is_refused(session: Session) -> None:
    _create(session, workingDir="nowhere").refused(400, "invalid_request", "workingDir")
    _create(session, env={"A B": "c"}).refused(400, "invalid_request", "env")
    assert _listed(session) == {}


def test_a_context_sleeps_with_its_session_and_ends_with_deep_sleep(session: Session) -> None:
    context = _context(session)
    context.run("const kept = 'here'")
    assert ask_to_sleep(session, "idle").done()["state"] == "idle"
    assert context.value("kept") == "here"
    assert state(session) == "active"
    deep_sleep(session)
    assert context.ask("kept").refused(409, "context_lost")["reason"] == "deep_sleep"
    assert _listed(session) == {context.id: "lost"}
    assert context.delete().done() == {"deleted": True, "contextId": context.id}
    context.ask("kept").refused(404, "context_not_found")


def test_a_context_lives_through_a_restart_of_the_server(servers: Servers) -> None:
    server = servers.start()
    client = server.new_client()
    session = client.open()
    context = _context(session)
    context.run("let n = 1")
    leaving = threading.Thread(target=_left_alone, args=(context,))
    leaving.start()
    time.sleep(1)
    server.kill()
    leaving.join()
    server.start()
    assert context.value("n") == "1"
    result = context.run("n += 1")
    assert (result["result"]["json"], result["memoryUsed"] > 1 << 20) == (2, True)
    server.stop(signal.SIGTERM)
    server.start()
    assert context.value("n") == "2"
    assert context.run("process.exit(0)")["contextSurvived"] is False
    context.ask("n").refused(409, "context_lost")


def _left_alone(context: Context) -> None:
    """Runs code while the server is killed. The edge answers, or is gone too."""
    with suppress(OSError):
        assert context.ask("for (;;) {}").status >= 500
