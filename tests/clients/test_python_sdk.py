"""Uses every class of the Python SDK with a real server, and tests network failures."""

import asyncio
import http.client
import itertools
import tarfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
from buntime_sdk import (
    AsyncBuntime,
    Buntime,
    ConnectionFailed,
    ContextLost,
    ContextNotFound,
    Displayed,
    ExecutionFailed,
    ExecutionResult,
    File,
    FileChange,
    FileConflict,
    FileNotFound,
    IdempotencyKeyReused,
    InvalidRequest,
    LogEntry,
    PreviewSettings,
    ProcessExit,
    ProcessNotFound,
    ProcessStarted,
    Result,
    RunEvent,
    Session,
    SessionNotFound,
    Stderr,
    Stdout,
    Terminal,
    TerminalNotFound,
    Unauthorized,
    Unavailable,
    Watching,
)

from tests.acceptance.server import Server
from tests.clients.relay import Relay

pytestmark = pytest.mark.sandbox

LARGE = 20_000_000
PATIENCE = 30.0  # seconds; a guard against a hang
COUNTING = "for (let n = 1; n <= 60; n++) { console.log(n); await Bun.sleep(30) }"
COUNTED = "".join(f"{number}\n" for number in range(1, 61))


@pytest.fixture(scope="module")
def key(server: Server) -> str:
    key = server.new_client("enterprise").key
    assert key
    return key


@pytest.fixture(scope="module")
def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.config.port}"


@pytest.fixture(scope="module")
def client(key: str, url: str) -> Iterator[Buntime]:
    with Buntime(key, url) as client:
        yield client


@pytest.fixture
def session(client: Buntime) -> Iterator[Session]:
    with client.sessions.create(ttl=600) as session:
        yield session


def seen_at(server: Server, url: str, **headers: str) -> tuple[int, str]:
    """Requests a preview's URL. The host name need not resolve on this machine."""
    connection = http.client.HTTPConnection("127.0.0.1", server.config.port, timeout=PATIENCE)
    try:
        connection.request("GET", "/", headers={"Host": urlsplit(url).netloc, **headers})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


def test_a_session_is_deleted_at_the_end_of_its_block(client: Buntime) -> None:
    with client.sessions.create(ttl=600) as session:
        assert client.sessions.get(session.id).state == "active"
    with pytest.raises(SessionNotFound):
        client.sessions.get(session.id)
    with pytest.raises(SessionNotFound):
        client.sessions.delete(session.id)
    with client.sessions.create() as session:
        session.delete()  # the end of the block accepts that


def test_a_session_is_created_with_all_settings_and_changed(client: Buntime) -> None:
    with client.sessions.create(
        ttl=900,
        metadata={"user": "u1"},
        resource_limits={"memory": 512, "timeout": 45},
        preview=PreviewSettings("private", (3000,)),
        network={"egress": "none"},
        on_wake="echo awake > /workspace/woken",
        env={"GREETING": "hello"},
    ) as session:
        session.refresh()
        assert (session.metadata, session.env_names) == ({"user": "u1"}, ("GREETING",))
        assert (session.resource_limits.memory, session.resource_limits.timeout) == (512, 45)
        assert (session.preview, session.network.egress) == (PreviewSettings("private", (3000,)), "none")
        assert session.execute_command("echo $GREETING").stdout == "hello\n"
        assert session.expires_at is not None
        assert 890 <= (session.expires_at - session.created_at).total_seconds() <= 901
        session.extend(3600)
        assert session.expires_at is not None
        assert 3590 <= (session.expires_at - session.created_at).total_seconds() <= 3700
        session.update(metadata={"user": "u2"}, preview=None, on_wake=None)
        assert (session.metadata, session.preview, session.on_wake) == ({"user": "u2"}, PreviewSettings(), None)


def test_sessions_are_listed_over_several_pages_with_filters(client: Buntime) -> None:
    made = [client.sessions.create(metadata={"suite": "listed", "number": number}) for number in range(3)]
    try:
        listed = list(client.sessions.list(metadata={"suite": "listed"}, page_size=2))
        assert sorted(one.id for one in listed) == sorted(one.id for one in made)
        assert [one.created_at for one in listed] == sorted((one.created_at for one in made), reverse=True)
        assert [one.id for one in client.sessions.list(metadata={"number": 1})] == [made[1].id]
        made[0].sleep("deep-sleep")
        asleep = client.sessions.list(state="deep-sleep", metadata={"suite": "listed"})
        assert [one.id for one in asleep] == [made[0].id]
        assert client.sessions.list(metadata={"suite": "listed"}).page(1)[1] == 3
    finally:
        for one in made:
            one.delete()


class LosesAnAnswer(httpx2.HTTPTransport):
    """Drops the answer of the first call, after the server has done its work."""

    lost = 0

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        response = super().handle_request(request)
        if not self.lost:
            self.lost += 1
            response.read()
            response.close()
            raise httpx2.ReadError("lost", request=request)
        return response


def test_a_create_whose_response_is_lost_creates_one_session(key: str, url: str) -> None:
    transport = LosesAnAnswer()
    client = Buntime(key, url, transport=transport, retry_delay=0.01)
    with client, client.sessions.create(metadata={"suite": "lost"}) as session:
        assert [one.id for one in client.sessions.list(metadata={"suite": "lost"})] == [session.id]
    assert transport.lost == 1


def test_a_run_whose_response_is_lost_runs_once(session: Session, key: str, url: str) -> None:
    count = "echo once >> runs; wc -l < runs"
    with Buntime(key, url, transport=LosesAnAnswer(), retry_delay=0.01) as client, pytest.raises(ConnectionFailed):
        client.sessions.open(session.id).execute_command(count)
    with Buntime(key, url, transport=LosesAnAnswer(), retry_delay=0.01) as client:
        assert client.sessions.open(session.id).execute_command(count, idempotency_key="second").stdout.strip() == "2"
    with pytest.raises(IdempotencyKeyReused):
        session.execute_command("true", idempotency_key="second")


def test_code_and_commands_run_with_all_their_options(session: Session) -> None:
    result = session.execute(
        "import { name } from './name.ts'; console.log(process.env.GREETING, name, await Bun.stdin.text())",
        files=[File("app/name.ts", "export const name = 'Ada'"), File("app/tool", b"#!/bin/sh\necho 42", mode="755")],
        env={"GREETING": "hello"},
        working_dir="app",
        stdin="there",
        timeout=20,
    )
    assert (result.stdout, result.stderr, result.exit_code, result.timed_out) == ("hello Ada there\n", "", 0, False)
    assert sorted(result.files_written) == ["app/name.ts", "app/tool"]
    assert result.execution_time > 0
    assert result.memory_used > 1_000_000
    failed = session.execute_command("app/tool; echo problem >&2; exit 3")
    assert (failed.stdout, failed.stderr, failed.exit_code) == ("42\n", "problem\n", 3)
    late = session.execute_command("echo begun; sleep 60", timeout=1)
    assert (late.stdout, late.exit_code, late.timed_out) == ("begun\n", 124, True)


def test_a_program_can_be_silent_for_longer_than_the_clients_timeout(session: Session, key: str, url: str) -> None:
    with Buntime(key, url, timeout=1, max_retries=0) as client:
        patient = client.sessions.open(session.id)
        assert patient.execute_command("sleep 2.5; echo done", timeout=10).stdout == "done\n"
        events = list(patient.stream_command("sleep 2.5; echo done"))
        assert events[0] == Stdout("done\n")


def result_of(events: list[RunEvent]) -> ExecutionResult:
    last = events[-1]
    assert isinstance(last, Result)
    return last.result


def test_output_arrives_as_it_is_written(session: Session) -> None:
    arrived: list[tuple[RunEvent, float]] = []
    with session.stream("console.log('one'); await Bun.sleep(600); console.error('two'); process.exit(3)") as events:
        arrived += [(event, time.monotonic()) for event in events]
    assert [event for event, _ in arrived[:-1]] == [Stdout("one\n"), Stderr("two\n")]
    assert arrived[1][1] - arrived[0][1] > 0.3
    assert result_of([event for event, _ in arrived]).exit_code == 3
    result = session.stream_command("echo $WORD; cat", env={"WORD": "a"}, stdin="b").result()
    assert (result.stdout, result.exit_code) == ("a\nb", 0)


def test_leaving_a_stream_ends_its_run(session: Session) -> None:
    for _ in session.stream_command("echo $$ > pid; echo begun; sleep 600"):
        break
    deadline = time.monotonic() + PATIENCE
    while session.execute_command('kill -0 "$(cat pid)"').exit_code == 0:
        assert time.monotonic() < deadline, "the run did not end"
        time.sleep(0.05)


def test_a_detached_run_continues_as_a_process(session: Session) -> None:
    with session.stream_command("echo begun; sleep 0.5; echo done", detach=True) as events:
        first = next(iter(events))
    assert isinstance(first, ProcessStarted)
    process = session.processes.get(first.process_id).wait()
    assert "".join(entry.data for entry in process.logs().entries) == "begun\ndone\n"


def test_files_are_written_read_listed_moved_searched_and_deleted(session: Session) -> None:
    files = session.files
    assert files.write("src/index.ts", "export const NAME = 'olá'\n", mode="640").size == 27
    assert files.write("src/index.ts", "// end\n", append=True).size == 34
    files.write("src/pixel.bin", b"\x00\xff\x80")
    assert files.read("src/index.ts") == "export const NAME = 'olá'\n// end\n"
    assert files.read_bytes("src/pixel.bin") == b"\x00\xff\x80"
    with pytest.raises(UnicodeDecodeError):
        files.read("src/pixel.bin")
    assert files.stat("src/index.ts").mode == "640"
    assert [entry.path for entry in files.list(recursive=True, page_size=1)] == ["src", "src/index.ts", "src/pixel.bin"]
    assert (files.mkdir("docs"), files.mkdir("docs")) == (True, False)
    assert files.move("src/pixel.bin", "docs/pixel.bin") == "docs/pixel.bin"
    with pytest.raises(FileConflict) as conflict:
        files.move("src/index.ts", "docs/pixel.bin")
    assert conflict.value.details["reason"] == "EEXIST"
    (match,) = files.search("name = '(.*)'", glob="*.ts", ignore_case=True).matches
    assert (match.path, match.line, match.text) == ("src/index.ts", 1, "export const NAME = 'olá'")
    assert [found.path for found in files.search(glob="*.bin").matches] == ["docs/pixel.bin"]
    with pytest.raises(FileConflict):
        files.delete("docs")
    files.delete("docs", recursive=True)
    assert (files.exists("docs"), files.exists("src"), files.exists("src/index.ts/below")) == (False, True, False)
    with pytest.raises(FileNotFound) as missing:
        files.read("docs/pixel.bin")
    assert missing.value.details["path"] == "docs/pixel.bin"
    assert missing.value.request_id


def test_large_files_are_copied_both_ways_with_progress(session: Session, tmp_path: Path) -> None:
    content = b"".join(number.to_bytes(4) for number in range(LARGE // 4))
    (tmp_path / "local").write_bytes(content)
    up: list[tuple[int, int | None]] = []
    down: list[tuple[int, int | None]] = []
    written = session.files.upload(
        tmp_path / "local", "large", mode="600", progress=lambda moved, size: up.append((moved, size))
    )
    assert written.size == LARGE
    assert session.files.stat("large").mode == "600"
    moved = session.files.download("large", tmp_path / "back", progress=lambda moved, size: down.append((moved, size)))
    assert moved == LARGE
    assert (tmp_path / "back").read_bytes() == content
    for seen in (up, down):
        assert seen == sorted(seen)
        assert len(seen) > 20
        assert seen[-1] == (LARGE, LARGE)
    assert b"".join(session.files.chunks("large", start=4, end=12)) == content[4:12]
    with (tmp_path / "local").open("rb") as file:
        file.seek(LARGE - 8)
        assert session.files.upload(file, "tail").size == 8
    assert session.files.read_bytes("tail") == content[-8:]


def test_directories_are_copied_both_ways_unchanged(session: Session, tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "deep").mkdir(parents=True)
    (site / "deep/olá.txt").write_text("1")
    (site / "run").write_text("#!/bin/sh\necho 42\n")
    (site / "run").chmod(0o755)
    (site / "link").symlink_to("run")
    assert session.files.upload_archive(site, "www") == 4
    assert session.execute_command("www/link").stdout == "42\n"
    session.files.download_archive("www", tmp_path / "copy")
    assert (tmp_path / "copy/deep/olá.txt").read_text() == "1"
    assert (tmp_path / "copy/link").readlink() == Path("run")
    assert (tmp_path / "copy/run").stat().st_mode & 0o100


@pytest.mark.parametrize(
    "link", ["ln -s /etc www/out", "ln -s ../.. www/out", "ln -s out2 www/out; ln -s /tmp www/out2"]
)
def test_an_archive_that_leads_out_of_its_folder_is_refused(session: Session, tmp_path: Path, link: str) -> None:
    session.execute_command(f"mkdir www; {link}; ls -l www")
    with pytest.raises(tarfile.FilterError):
        session.files.download_archive("www", tmp_path / "copy")
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_changes_of_files_are_reported(session: Session) -> None:
    with session.files.watch(recursive=True) as changes:
        assert next(iter(changes)) == Watching()
        session.files.write("notes.txt", "1")
        told = next(change for change in changes if isinstance(change, FileChange))
        assert (told.event, told.path, told.type) == ("created", "notes.txt", "file")
        session.files.move("notes.txt", "kept.txt")
        moved = next(change for change in changes if isinstance(change, FileChange) and change.event == "renamed")
        assert (moved.path, moved.from_path) == ("kept.txt", "notes.txt")


def test_processes_are_started_given_input_signalled_and_awaited(session: Session) -> None:
    echo = session.processes.start("echo ready; while read line; do echo got $line; done", wait_for_output="ready")
    assert (echo.ready, echo.status, echo.exit_code) == (True, "running", None)
    echo.input("one\n").input(b"two\n").input("three\n", close=True)
    assert echo.wait().exit_code == 0
    page = echo.logs()
    assert "".join(entry.data for entry in page.entries) == "ready\ngot one\ngot two\ngot three\n"
    assert echo.logs(cursor=page.cursor).entries == ()
    sleeper = session.processes.start("exec sleep 600", name="sleeper", working_dir="/tmp", env={"A": "1"})
    assert [process.id for process in session.processes.list(page_size=1)] == [sleeper.id, echo.id]
    assert session.processes.get(sleeper.id).name == "sleeper"
    assert sleeper.signal().wait().exit_code == 143
    killed = session.processes.start(code="await Bun.sleep(600_000)")
    assert killed.kill().wait().exit_code == 137
    assert list(killed.follow())[-1] == ProcessExit("exited", 137, None)
    with pytest.raises(ProcessNotFound):
        session.processes.get("proc_000000000000000000")


def test_logs_are_followed_across_cut_connections_without_gaps_or_repeats(
    server: Server, session: Session, key: str
) -> None:
    process = session.processes.start(code=COUNTING)
    with Relay(server.config.port) as relay:
        with Buntime(key, f"http://127.0.0.1:{relay.port}", retry_delay=0.02) as client:
            followed = client.sessions.open(session.id).processes.get(process.id)
            text, cuts = "", 0
            for event in followed.follow():
                if isinstance(event, LogEntry):
                    text += event.data
                    if text.count("\n") >= 15 * (cuts + 1) and cuts < 3:
                        cuts += 1
                        relay.cut()
        assert relay.connections > 3
    assert isinstance(event, ProcessExit)
    assert (cuts, event.exit_code) == (3, 0)
    assert text == COUNTED


ECHO = """
Bun.serve({ port: Number(process.env.PORT), async fetch(request) {
  const { pathname, search } = new URL(request.url);
  return Response.json({ method: request.method, path: pathname + search, body: await request.text(),
    host: request.headers.get("host"), key: request.headers.get("authorization") }, { status: 201 });
} });
"""


def test_a_program_fetches_from_a_server_in_the_session(client: Buntime, session: Session) -> None:
    for port in (8080, 3000):
        session.processes.start(code=ECHO, env={"PORT": str(port)}, wait_for_port=port)
    response = session.fetch("/api?a=1", method="POST", params={"b": 2}, content="olá")
    assert response.status_code == 201
    assert response.json() == {
        "method": "POST",
        "path": "/api?a=1&b=2",
        "body": "olá",
        "host": urlsplit(session.preview_url()).netloc,
        "key": None,
    }
    assert session.fetch(port=3000).json()["host"] == urlsplit(session.preview_url(3000)).netloc  # with a token
    session.update(preview={"visibility": "private"})
    session.revoke_preview_tokens()
    assert client.sessions.open(session.id).fetch().status_code == 201
    session.sleep("idle")
    assert session.fetch(stream=True).read()  # wakes it


def test_a_fetch_waits_for_a_server_that_is_about_to_listen(session: Session) -> None:
    session.processes.start(f"sleep 1; echo '{ECHO}' > server.ts; PORT=8080 bun server.ts")
    assert session.fetch().status_code == 201
    with pytest.raises(Unavailable) as refused:
        session.fetch(port=5000)
    assert (refused.value.code, refused.value.status) == ("unavailable", 502)


def test_a_fetch_wakes_a_session_whose_server_is_started_by_on_wake(session: Session) -> None:
    session.files.write("server.ts", ECHO)
    session.update(on_wake="PORT=8080 bun /workspace/server.ts > log 2>&1 &")
    session.sleep("deep-sleep")
    assert session.fetch().status_code == 201


def test_output_is_heard_while_the_program_runs(session: Session) -> None:
    heard: list[str] = []
    done = session.execute_command("echo one; sleep 0.5; echo two; exit 3", on_stdout=heard.append)
    assert (heard, done.stdout, done.exit_code, done.ok) == (["one\n", "two\n"], "one\ntwo\n", 3, False)
    with pytest.raises(ExecutionFailed, match="exited with code 3"):
        done.check()


def test_several_files_are_written_with_one_call(session: Session) -> None:
    written = session.files.write([File("a.txt", "a"), File("bin/tool", "#!/bin/sh\necho 42\n", mode="755")])
    assert [(one.path, one.size) for one in written] == [("a.txt", 1), ("bin/tool", 18)]
    assert session.execute_command("bin/tool").check().stdout == "42\n"


def test_a_server_is_reachable_at_its_preview_url(server: Server, session: Session) -> None:
    for port in (8080, 3000):
        code = f"Bun.serve({{ port: {port}, fetch: () => new Response('hello from {port}') }})"
        assert session.processes.start(code=code, wait_for_port=port).ready
    assert seen_at(server, session.preview_url()) == (200, "hello from 8080")
    assert seen_at(server, session.preview_url(3000))[0] in (401, 403, 404)
    token = session.preview_token(port=3000, ttl=600)
    shown = {"X-Preview-Token": token.token}
    assert seen_at(server, session.preview_url(3000), **shown) == (200, "hello from 3000")
    assert session.revoke_preview_tokens(token.token) == 1
    deadline = time.monotonic() + PATIENCE  # the edge caches a permission for a second
    while seen_at(server, session.preview_url(3000), **shown)[0] == 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    session.preview_token()
    assert session.revoke_preview_tokens() == 1


def test_a_session_sleeps_and_wakes_with_its_files(session: Session) -> None:
    session.files.write("notes.txt", "kept")
    assert session.sleep().state == "idle"
    woken = session.wake()
    assert (woken.woke_from, session.state) == ("idle", "active")
    process = session.processes.start("sleep 600")
    assert session.sleep("deep-sleep").state == "deep-sleep"
    assert session.files.read("notes.txt") == "kept"  # wakes the session
    assert session.refresh().state == "active"
    assert (process.refresh().status, process.reason) == ("exited", "deep_sleep")


def test_a_context_keeps_its_variables_until_it_is_lost(session: Session) -> None:
    with session.contexts.create(env={"WORD": "a"}, working_dir="/tmp") as context:
        context.execute("const rows = [{ a: 1 }, { a: 2 }]; console.log(process.env.WORD, process.cwd())")
        shown = context.execute("display.html('<b>1</b>'); rows")
        assert shown.result is not None
        assert shown.result.json == [{"a": 1}, {"a": 2}]
        assert shown.result.table is not None
        assert shown.result.table.columns == ("a",)
        assert shown.displayed[0].html == "<b>1</b>"
        thrown = context.execute("console.log('before'); null.field")
        assert thrown.error is not None
        assert (thrown.stdout, thrown.error.name, thrown.exit_code) == ("before\n", "TypeError", 1)
        with context.stream("console.log('one'); display(1); rows.length") as events:
            told = list(events)
        assert told[0] == Stdout("one\n")
        assert isinstance(told[1], Displayed)
        late = context.execute("await Bun.sleep(60_000)", timeout=1)
        assert (late.timed_out, late.context_survived) == (True, True)
        assert [(entry.context_id, entry.status) for entry in session.contexts.list()] == [(context.id, "running")]
        again = session.contexts.open(context.id)
        assert again.execute("process.exit(3)").context_survived is False
        with pytest.raises(ContextLost) as lost:
            context.execute("rows")
        assert lost.value.details["reason"] == "exited"
    with pytest.raises(ContextNotFound):
        context.delete()


def shown_until(terminal: Terminal, wanted: bytes) -> bytes:
    output = b""
    while wanted not in output:
        part = terminal.read()
        assert part is not None, output
        output += part
    return output


def test_a_terminal_takes_keys_and_ends_with_its_shell(session: Session) -> None:
    with session.terminal(cols=100, rows=30, working_dir="/tmp") as terminal:
        assert not terminal.resumed
        terminal.write("pwd; stty size\n")
        assert b"/tmp" in shown_until(terminal, b"30 100")
        terminal.resize(80, 24)
        terminal.write(b"stty size\n")
        shown_until(terminal, b"24 80")
        terminal.write("exit 3\n")
        for _ in terminal:
            pass
        assert terminal.end is not None
        assert (terminal.end.type, terminal.end.exit_code) == ("exit", 3)
    with pytest.raises(TerminalNotFound):
        session.terminal(terminal_id=terminal.id)


def test_a_terminal_reconnects_after_a_cut_connection(server: Server, session: Session, key: str) -> None:
    with Relay(server.config.port) as relay, Buntime(key, f"http://127.0.0.1:{relay.port}") as client:
        far = client.sessions.open(session.id)
        terminal = far.terminal()
        terminal.write("word=kept; echo [$word]\n")
        shown_until(terminal, b"[kept]")
        relay.cut()
        with pytest.raises(ConnectionFailed):
            for _ in terminal:
                pass
        with suppress(ConnectionFailed):
            terminal.close()
        with far.terminal(terminal_id=terminal.id) as again:
            assert (again.id, again.resumed) == (terminal.id, True)
            again.write("echo still:$word\n")
            shown_until(again, b"still:kept")


def test_a_terminal_says_that_another_client_took_over(session: Session) -> None:
    with session.terminal() as first, session.terminal(terminal_id=first.id) as second:
        for _ in first:
            pass
        assert first.end is not None
        assert first.end.type == "detached"
        second.write("echo mine:$((6 * 7))\n")
        shown_until(second, b"mine:42")


def test_failures_are_typed(client: Buntime, session: Session, url: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        session.extend(1)
    assert refused.value.details["field"] == "ttl"
    with Buntime("btk_nonsense", url) as stranger, pytest.raises(Unauthorized):
        stranger.sessions.get(session.id)
    assert client.rate_limit is not None
    assert 0 < client.rate_limit.remaining < client.rate_limit.limit


async def test_the_asyncio_client_has_the_same_classes(key: str, url: str, tmp_path: Path) -> None:
    async with AsyncBuntime(key, url) as client, client.sessions.create(metadata={"suite": "async"}) as session:
        results = await asyncio.gather(*(session.execute_command(f"sleep 0.3; echo {number}") for number in range(4)))
        assert [result.stdout for result in results] == [f"{number}\n" for number in range(4)]
        assert [one.id async for one in client.sessions.list(metadata={"suite": "async"})] == [session.id]

        async with session.stream("console.log('one'); console.error('two')") as events:
            told = [event async for event in events]
        assert {type(event) for event in told} == {Stdout, Stderr, Result}

        await session.files.write("notes.txt", "1")
        assert await session.files.read("notes.txt") == "1"
        assert [entry.path async for entry in session.files.list()] == ["notes.txt"]
        (tmp_path / "local").write_bytes(bytes(3_000_000))
        assert (await session.files.upload(tmp_path / "local", "large")).size == 3_000_000
        assert await session.files.download("large", tmp_path / "back") == 3_000_000
        async with session.files.watch() as changes:
            assert await anext(aiter(changes)) == Watching()

        process = await session.processes.start(code="console.log('up'); process.exit(4)")
        logs = [event async for event in process.follow()]
        assert isinstance(logs[0], LogEntry)
        assert logs[-1] == ProcessExit("exited", 4, None)
        assert (await process.wait()).exit_code == 4

        async with session.contexts.create() as context:
            await context.execute("const a = 6")
            evaluation = await context.execute("a * 7")
            assert evaluation.result is not None
            assert evaluation.result.json == 42

        async with session.terminal() as terminal:
            await terminal.write("exit 3\n")
            assert b"exit" in b"".join([part async for part in terminal])
            assert terminal.end is not None
            assert terminal.end.exit_code == 3

        assert (await session.sleep()).state == "idle"
        assert (await session.wake()).woke_from == "idle"
    async with AsyncBuntime(key, url) as client:
        with pytest.raises(SessionNotFound):
            await client.sessions.get(session.id)


async def test_an_awaited_session_stays(key: str, url: str) -> None:
    async with AsyncBuntime(key, url) as client:
        session = await client.sessions.create()
        assert (await client.sessions.get(session.id)).state == "active"
        async with session:
            pass
        with pytest.raises(SessionNotFound):
            await session.refresh()


async def test_logs_are_followed_across_cut_connections_in_asyncio_too(
    server: Server, session: Session, key: str
) -> None:
    process = session.processes.start(code=COUNTING)
    with Relay(server.config.port) as relay:
        async with AsyncBuntime(key, f"http://127.0.0.1:{relay.port}", retry_delay=0.02) as client:
            followed = await client.sessions.open(session.id).processes.get(process.id)
            text, numbers = "", itertools.count(1)
            async for event in followed.follow():
                if isinstance(event, LogEntry):
                    text += event.data
                    if next(numbers) in (10, 20, 30):
                        relay.cut()
        assert relay.connections > 3
    assert text == COUNTED
