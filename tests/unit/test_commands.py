"""Commands with a fake server, for answers that a real server gives only by chance."""

import json
import os
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
import typer
from buntime_cli.app import SERVER_NAMES, app
from buntime_cli.commands import completing
from buntime_cli.commands.beside import server_groups
from buntime_cli.commands.missing_imports import missing_import
from buntime_sdk import Buntime
from typer.core import TyperGroup
from typer.testing import CliRunner, Result

FIRST, SECOND = "ses_abcd11111111111111", "ses_abcd22222222222222"
GONE = {"error": {"code": "session_not_found", "message": "No session.", "retryable": False, "details": {}}}
FULL = {"error": {"code": "unavailable", "message": "No room.", "retryable": True, "details": {"retryAfter": 7}}}
RESULT = {
    **{"exitCode": 3, "executionTime": 1, "memoryUsed": 1, "cpuTime": 1, "timedOut": False, "filesWritten": []},
}

type Answer = tuple[int, Any]


def session(session_id: str, **fields: object) -> dict[str, object]:
    times = {"createdAt": "2024-01-19T10:30:00Z", "expiresAt": "2034-01-20T10:30:00Z"}
    counts = {"lastActive": "2024-01-19T10:30:00Z", "filesCount": 2, "activeProcesses": 1}
    limits = {"memory": 1024, "cpu": 0.25, "timeout": 30, "disk": 1024}
    url = f"http://{session_id.replace('_', '-')}.localhost:8000"
    shown = {"sessionId": session_id, "state": "active", "metadata": {}, "previewUrl": url, "resourceLimits": limits}
    return {**shown, **times, **counts, **fields}


class Server:
    """Answers by method and path. Records requests in `asked`."""

    def __init__(self, answers: Mapping[str, Answer | Callable[[httpx2.Request], Answer]]) -> None:
        self._answers = answers
        self.asked: list[str] = []

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        asked = f"{request.method} {request.url.path}"
        self.asked.append(asked)
        found = self._answers[asked]
        status, body = found(request) if callable(found) else found
        if isinstance(body, str):
            return httpx2.Response(status, text=body, headers={"content-type": "text/event-stream"})
        return httpx2.Response(status, json=body)

    def runs(self, *words: str, typed: str | None = None) -> Result:
        transport = httpx2.MockTransport(self.answer)
        with Buntime("btk_key", "http://test", transport=transport, max_retries=0) as client:
            return CliRunner().invoke(app, words, obj=client, input=typed, prog_name="buntime")


def listed(*sessions: dict[str, object]) -> Answer:
    return 200, {"sessions": list(sessions), "total": len(sessions)}


def test_an_ambiguous_beginning_names_both_sessions_and_deletes_none() -> None:
    server = Server({"GET /sessions": listed(session(FIRST), session(SECOND))})
    done = server.runs("rm", "ses_abcd")
    assert done.exit_code == 1
    assert done.stderr == f"buntime: ses_abcd could be {FIRST} or {SECOND}. Write more of the id.\n"
    assert server.asked == ["GET /sessions"]


@pytest.mark.parametrize("name", ["demo", "name:demo"])
def test_a_name_is_looked_up_by_the_server_and_shown_as_an_id(name: str) -> None:
    server = Server(
        {
            "GET /sessions/name:demo": (200, session(FIRST, name="demo")),
            f"DELETE /sessions/{FIRST}": (200, {"deleted": True, "sessionId": FIRST}),
        }
    )
    assert server.runs("rm", name).stdout == f"{FIRST}\n"
    assert server.asked == ["GET /sessions/name:demo", f"DELETE /sessions/{FIRST}"]


def test_an_unknown_name_is_refused_as_it_was_written() -> None:
    done = Server({"GET /sessions/name:demo": (404, GONE)}).runs("wake", "name:demo")
    assert done.exit_code == 1
    assert done.stderr == "buntime: There is no session name:demo. List sessions with: buntime ls\n"


def test_a_complete_id_needs_no_request() -> None:
    server = Server({f"DELETE /sessions/{FIRST}": (200, {"deleted": True, "sessionId": FIRST})})
    assert server.runs("rm", FIRST).stdout == f"{FIRST}\n"
    assert server.asked == [f"DELETE /sessions/{FIRST}"]


def test_rm_all_ignores_a_session_that_just_expired() -> None:
    server = Server(
        {
            "GET /sessions": listed(session(FIRST), session(SECOND)),
            f"DELETE /sessions/{FIRST}": (404, GONE),
            f"DELETE /sessions/{SECOND}": (200, {"deleted": True, "sessionId": SECOND}),
        }
    )
    done = server.runs("rm", "--all", "--yes", "--json")
    assert (done.exit_code, json.loads(done.stdout)) == (0, {"deleted": [FIRST, SECOND]})


def test_a_named_session_that_is_gone_is_an_error() -> None:
    done = Server({f"DELETE /sessions/{FIRST}": (404, GONE)}).runs("rm", FIRST)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "buntime: No session. List sessions with: buntime ls\n"


def test_an_error_says_when_to_retry() -> None:
    done = Server({"POST /sessions/create": (503, FULL)}).runs("create")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "buntime: No room. Try again in 7 s.\n"


@pytest.mark.parametrize(
    ("deleted", "said"),
    [
        ((200, {"deleted": True, "sessionId": FIRST}), ""),
        ((404, GONE), ""),
        ((503, FULL), f"buntime: {FIRST} could not be deleted and expires within an hour: No room.\n"),
    ],
)
def test_a_run_keeps_its_exit_status_even_if_its_session_is_not_deleted(
    deleted: Answer, said: str, tmp_path: Any
) -> None:
    (tmp_path / "a.ts").write_text("process.exit(3)")
    events = f'event: stdout\ndata: {{"data": "out\\n"}}\n\nevent: result\ndata: {json.dumps(RESULT)}\n\n'
    server = Server(
        {
            "POST /sessions/create": (200, session(FIRST)),
            "PUT /files/content": (200, {"path": "a.ts", "size": 1}),
            "POST /execute": (200, events),
            f"DELETE /sessions/{FIRST}": deleted,
        }
    )
    done = server.runs("run", "--no-stdin", str(tmp_path / "a.ts"))
    assert (done.exit_code, done.stdout, done.stderr) == (3, "out\n", said)
    assert server.asked[-1] == f"DELETE /sessions/{FIRST}"


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_a_run_that_reached_the_process_limit_says_so(arguments: tuple[str, ...], tmp_path: Any) -> None:
    (tmp_path / "a.ts").write_text("")
    server = Server(
        {
            "POST /sessions/create": (200, session(FIRST)),
            "PUT /files/content": (200, {"path": "a.ts", "size": 1}),
            "POST /execute": (200, f"event: result\ndata: {json.dumps({**RESULT, 'processLimitExceeded': True})}\n\n"),
            f"DELETE /sessions/{FIRST}": (200, {"deleted": True, "sessionId": FIRST}),
        }
    )
    done = server.runs("run", "--no-stdin", *arguments, str(tmp_path / "a.ts"))
    assert done.exit_code == 3
    if arguments:
        assert json.loads(done.stdout)["processLimitExceeded"] is True
    else:
        assert done.stderr == "buntime: The run reached the process limit. Everything that it started was killed.\n"


def test_a_session_is_deleted_if_the_upload_of_its_file_fails(tmp_path: Any) -> None:
    (tmp_path / "a.ts").write_text("")
    deleted = (200, {"deleted": True, "sessionId": FIRST})
    server = Server(
        {
            "POST /sessions/create": (200, session(FIRST)),
            "PUT /files/content": (503, FULL),
            f"DELETE /sessions/{FIRST}": deleted,
        }
    )
    done = server.runs("run", str(tmp_path / "a.ts"))
    assert (done.exit_code, done.stderr) == (1, "buntime: No room. Try again in 7 s.\n")
    assert server.asked[-1] == f"DELETE /sessions/{FIRST}"


def test_control_characters_in_names_are_replaced() -> None:
    done = Server({"GET /sessions": listed(session(FIRST, name="\x1b]0;x\x07"))}).runs("ls")
    assert "\x1b" not in done.stdout
    assert f"{FIRST}  �]0;x�" in done.stdout


def test_usage_is_summed_by_state() -> None:
    asleep = session(SECOND, state="deep-sleep", activeProcesses=0)
    done = Server({"GET /sessions": listed(session(FIRST), asleep)}).runs("usage", "--now", "--json")
    told = json.loads(done.stdout)
    one = {"sessions": 1, "memory": 1024, "cpu": 0.25, "disk": 1024, "files": 2}
    assert told["sessions"]["active"] == {**one, "processes": 1}
    assert told["sessions"]["deep-sleep"] == {**one, "processes": 0}
    assert told["sessions"]["all"] == {
        "sessions": 2,
        "memory": 2048,
        "cpu": 0.5,
        "disk": 2048,
        "processes": 1,
        "files": 4,
    }
    assert told["rateLimit"] is None


@pytest.mark.parametrize("line", ["ls -la", "ls", "ls foo", "./build.sh --fast"])
def test_exec_without_dashes_says_where_a_command_goes(line: str) -> None:
    done = Server({}).runs("exec", "demo", *line.split())
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"Error: A command goes after `--`. Write: buntime exec demo -- {line}\n" in done.stderr


def test_an_unknown_option_of_exec_is_named() -> None:
    done = Server({}).runs("exec", "demo", "console.log(1)", "--bogus")
    assert done.exit_code == 2
    assert "--bogus" in done.stderr
    assert "goes after" not in done.stderr


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("create demo", "A session's name is an option. Write: buntime create --name demo"),
        ("create --memory 1tb", "'--memory': '1tb' is not a size in whole megabytes. Write 512, 512m, 2g or 2GiB."),
        ("create --memory=", "'--memory': '' is not a size in whole megabytes. Write 512, 512m, 2g or 2GiB."),
        ("create --cpu lots", "'--cpu': 'lots' is not a number."),
        ("create --port web", "'--port': 'web' is not a whole number."),
        ("create --egress no", "'--egress': 'no' is not one of 'internet', 'none'."),
        (
            "update demo --default x",
            "'x' is not one of 'name', 'metadata', 'preview', 'network', 'env', 'on-wake', 'sleep-policy', 'services'.",
        ),
        ("logs demo --tail -1", "'--tail': must be at least 0, not -1."),
        ("ls --server prod", "--server goes before the command. Write: buntime --server NAME ls"),
        ("ls prod", "buntime ls takes no 'prod'."),
        (
            "update demo --memory 2g",
            "--memory of a session cannot change. Create another session with: buntime create --memory VALUE",
        ),
        ("rm --all demo", "Name the sessions, or use --all, not both."),
        ("delete demo", "There is no command delete. Write: buntime rm"),
        ("version", "There is no command version. Write: buntime --version"),
        ("help", "There is no command help. Write: buntime --help"),
        ("run nowhere.ts", "'FILE': file 'nowhere.ts' does not exist."),
    ],
)
def test_wrong_usage_is_answered_with_what_to_write(line: str, said: str) -> None:
    done = Server({}).runs(*line.split())
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.endswith(f"{said}\n"), done.stderr
    assert "Value error" not in done.stderr


def test_limits_are_sent_in_megabytes() -> None:
    sent = []

    def create(request: httpx2.Request) -> Answer:
        sent.append(json.loads(request.content))
        return 200, session(FIRST)

    done = Server({"POST /sessions/create": create}).runs("create", "--memory", "1gb", "--disk", "5g")
    assert done.exit_code == 0, done.stderr
    assert sent[0]["resourceLimits"] == {"memory": 1024, "disk": 5120}


def test_a_login_with_a_wrong_key_says_where_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    refused = {"error": {"code": "unauthorized", "message": "Bad key.", "retryable": False, "details": {}}}
    done = Server({"GET /sessions": (401, refused)}).runs("login", "--url", "http://test", typed="btk_wrong\n")
    assert done.exit_code == 1
    assert done.stderr == (
        "buntime: http://test does not accept this key, so nothing was kept. Copy the whole key (btk_…), or create one "
        "on the server with: buntime keys create\n"
    )
    assert not list(tmp_path.iterdir())


def test_a_login_keeps_a_key_that_may_not_list_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def login(name: str, **details: str) -> int:
        refused = {"error": {"code": "forbidden", "message": "No.", "retryable": False, "details": details}}
        server = Server({"GET /sessions": (403, refused)})
        return server.runs("login", name, "--url", "http://test", typed=f"btk_{name}\n").exit_code

    assert login("narrow", scope="sessions:read") == 0
    assert login("suspended", plan="paid") == 1
    kept = (tmp_path / "buntime/servers.json").read_text()
    assert ("btk_narrow" in kept, "btk_suspended" in kept) == (True, False)


def test_with_after_the_file_of_a_run_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "main.ts").write_text("")
    done = Server({"POST /sessions/create": (503, FULL)}).runs("run", str(tmp_path / "main.ts"), "--with", "lib")
    assert f"buntime: --with after {tmp_path}/main.ts goes to the program." in done.stderr


@pytest.mark.parametrize("name", ["exec", "cp", "start", "logs"])
def test_examples_in_help_stand_on_one_line_each(name: str) -> None:
    written = dict(commands())[name]
    examples = re.split(r" {4,}", " ".join(re.split(r"Examples?: ", written)[1].split("\n")))
    shown = CliRunner().invoke(app, [name, "--help"], prog_name="buntime", terminal_width=50).stdout
    for example in examples:
        assert f"    {example.strip()}\n" in shown


def test_every_option_and_argument_has_a_help_text() -> None:
    found = typer.main.get_command(app)
    assert isinstance(found, TyperGroup)
    bare = [(name, one.name) for name, command in found.commands.items() for one in command.params if not _help(one)]
    assert not bare


def _help(parameter: object) -> str:
    return getattr(parameter, "help", None) or ""


def test_a_certificate_that_is_not_trusted_is_named_with_the_way_out() -> None:
    def distrusted(request: httpx2.Request) -> httpx2.Response:
        wrong = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED]")
        wrong.verify_message = "self-signed certificate"
        raise httpx2.ConnectError("failed") from wrong

    with Buntime("btk_key", "https://test", transport=httpx2.MockTransport(distrusted), max_retries=0) as client:
        done = CliRunner().invoke(app, ["ls"], obj=client)
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert "does not trust the certificate" in done.stderr
    assert "self-signed certificate. Set SSL_CERT_FILE to" in done.stderr


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is taken and on which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def refusal(monkeypatch: pytest.MonkeyPatch, url: str) -> str:
    """What `buntime ls` says to a person whose BUNTIME_URL is this."""
    monkeypatch.setenv("BUNTIME_URL", url)
    with Buntime("btk_key", url, max_retries=0) as client:
        done = CliRunner().invoke(app, ["ls"], obj=client)
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1), done.stderr
    return done.stderr


def test_a_port_on_which_nothing_listens_is_named(monkeypatch: pytest.MonkeyPatch, closed_port: int) -> None:
    said = refusal(monkeypatch, f"http://127.0.0.1:{closed_port}")
    assert f"Nothing listens at http://127.0.0.1:{closed_port}: the connection was refused. Start a server" in said


def test_a_host_name_that_does_not_exist_is_named_without_a_server_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    said = refusal(monkeypatch, "http://nohost.invalid")
    assert "The host name in http://nohost.invalid was not found" in said
    assert "scripts/serve" not in said


class OtherProgram(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def other_program() -> Iterator[int]:
    """The port of a web server that is not ours."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), OtherProgram)
    thread = threading.Thread(target=server.serve_forever, name="other program")
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_tls_to_a_server_without_it_is_named(monkeypatch: pytest.MonkeyPatch, other_program: int) -> None:
    said = refusal(monkeypatch, f"https://127.0.0.1:{other_program}")
    assert f"The server at https://127.0.0.1:{other_program} does not speak TLS" in said


def test_another_program_is_asked_whether_it_is_a_server(monkeypatch: pytest.MonkeyPatch, other_program: int) -> None:
    said = refusal(monkeypatch, f"http://127.0.0.1:{other_program}")
    asked = f"http://127.0.0.1:{other_program} answered 404 without an error object. Is it a buntime server?"
    assert f"{asked} Set BUNTIME_URL to the server's URL, without a path." in said


@pytest.mark.parametrize(("state", "said"), [("idle", "suspended"), ("deep-sleep", "in deep sleep")])
def test_sleep_names_the_state_that_the_session_has(state: str, said: str) -> None:
    server = Server({f"POST /sessions/{FIRST}/sleep": (200, session(FIRST, state=state))})
    assert server.runs("sleep", FIRST).stdout == f"{FIRST} is {said}.\n"


def test_one_session_is_not_called_sessions() -> None:
    done = Server({"GET /sessions": listed(session(FIRST))}).runs("rm", "--all")
    assert "This would delete 1 session. Confirm with: buntime rm --all --yes" in done.stderr


@pytest.mark.parametrize(
    ("program", "beside", "complaint"),
    [
        ("main.ts", "lib/add.ts", "error: Cannot find module './lib/add' from '/workspace/main.ts'\n"),
        ("main.py", "tools.py", "ModuleNotFoundError: No module named 'tools'\n"),
    ],
)
def test_a_run_that_misses_a_file_beside_the_program_says_how_to_bring_it(
    tmp_path: Path, program: str, beside: str, complaint: str
) -> None:
    for name in (program, beside):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    events = f"event: stderr\ndata: {json.dumps({'data': complaint})}\n\n"
    server = Server(
        {
            "POST /sessions/create": (200, session(FIRST)),
            "PUT /files/content": (200, {"path": program, "size": 0}),
            "POST /execute": (200, f"{events}event: result\ndata: {json.dumps(RESULT)}\n\n"),
            f"DELETE /sessions/{FIRST}": (200, {"deleted": True, "sessionId": FIRST}),
        }
    )
    said = server.runs("run", str(tmp_path / program)).stderr
    assert said.endswith(f"{beside} was not uploaded. Write: buntime run --with {beside} {tmp_path / program}\n")


def test_a_run_that_misses_a_package_gets_no_hint_about_files(tmp_path: Path) -> None:
    assert missing_import(tmp_path, "error: Cannot find module './gone' from '/workspace/main.ts'") is None
    assert missing_import(tmp_path, "error: Cannot find package 'zod' from '/workspace/main.ts'") is None


def test_exec_with_code_says_that_it_did_not_read_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.write(write, b"hi\n")
    before = os.dup(0)
    os.dup2(read, 0)
    try:
        answer = (200, f"event: result\ndata: {json.dumps(RESULT)}\n\n")
        done = Server({"POST /execute": answer}).runs("exec", FIRST, "console.log(1)")
        silent = Server({"POST /execute": answer}).runs("exec", FIRST, "--no-stdin", "console.log(1)")
    finally:
        os.dup2(before, 0)
        for one in (read, write, before):
            os.close(one)
    assert "buntime: exec with CODE does not read its input." in done.stderr
    assert silent.stderr == ""


def commands() -> list[tuple[str, str]]:
    found = typer.main.get_command(app)
    assert isinstance(found, TyperGroup)
    return [(name, found.commands[name].help or "") for name in found.commands]


@pytest.mark.parametrize(("name", "text"), commands(), ids=lambda one: one.split("\n")[0])
def test_the_help_of_each_command_has_an_example(name: str, text: str) -> None:
    assert re.search(rf"Examples?: .*\bbuntime (--server \w+ )?{name}\b|Example: .*-- buntime {name}", text), text


def test_execute_is_the_word_of_exec_and_run_has_a_session_of_its_own() -> None:
    words = dict(commands())
    assert "run" not in words["exec"].lower().replace("runtime", "").split()
    assert words["run"].startswith("Run a file in a session of its own.")


def test_cp_reads_stdin_and_writes_stdout() -> None:
    missing = {"error": {"code": "file_not_found", "message": "No file.", "retryable": False, "details": {}}}
    sent: list[bytes] = []

    def put(request: httpx2.Request) -> Answer:
        sent.append(request.read())
        return 200, {"path": "a.txt", "size": 5}

    server = Server(
        {
            "GET /files/stat": (404, missing),
            "PUT /files/content": put,
            "GET /files/content": (200, "bytes out"),
        }
    )
    assert server.runs("cp", "-", f"{FIRST}:a.txt", typed="typed").exit_code == 0
    assert sent == [b"typed"]
    done = server.runs("cp", f"{FIRST}:a.txt", "-")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "bytes out", "")
    assert server.runs("cp", "-", f"{FIRST}:into/", typed="x").stderr == (
        "buntime: into/ is a folder in the session. Name the file in it.\n"
    )


def test_completion_offers_paths_of_a_session_that_is_awake_and_wakes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = [("src", "directory"), ("a.ts", "file"), ("$(reboot)", "file")]
    entries = [{"path": path, "type": kind, "size": 1, "modified": "2024-01-19T10:30:00Z"} for path, kind in folder]
    offered = {}
    for state in ("active", "deep-sleep"):
        server = Server(
            {
                f"GET /sessions/{FIRST}": (200, session(FIRST, state=state)),
                "GET /files/list": (200, {"files": entries, "total": len(entries)}),
            }
        )
        with Buntime("btk_key", "http://test", transport=httpx2.MockTransport(server.answer)) as client:
            monkeypatch.setattr(completing, "at_once", lambda _, client=client: nullcontext(client))
            offered[state] = [word for word, _ in completing.complete_side(cast(Any, None), f"{FIRST}:")]
    assert offered == {"active": [f"{FIRST}:src/", f"{FIRST}:a.ts"], "deep-sleep": []}


def test_a_client_alone_knows_the_names_of_all_commands_of_the_server() -> None:
    named = {name for group in server_groups() for name in group.list_commands(typer.Context(group))}
    assert named == {*SERVER_NAMES, "images", "keys", "webhooks"}  # these three are the client's, too
