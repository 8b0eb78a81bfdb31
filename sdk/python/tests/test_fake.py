"""The fake, as users' tests use it."""

import io
import re
import tarfile
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from buntime_sdk import (
    ConnectionFailed,
    ContextLost,
    DiskFull,
    ExecutionResult,
    FileChange,
    FileConflict,
    FileNotFound,
    Forbidden,
    Forms,
    ImageNotFound,
    InvalidRequest,
    InvalidState,
    LogEntry,
    ProcessExit,
    ProcessStarted,
    RangeNotSatisfiable,
    Result,
    Session,
    SessionNotFound,
    SleepPolicy,
    Stderr,
    Stdout,
    TerminalNotFound,
    Watching,
)
from buntime_sdk.testing import FakeBuntime, FakeResult, FakeRun

PATIENCE = 10.0  # seconds; a guard against a hang


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2024, 1, 19, 10, 30, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def some_session(fake: FakeBuntime) -> Session:
    return fake.sessions.create()


@pytest.mark.parametrize(
    "answer",
    [
        "2\n",
        FakeResult("2\n"),
        ExecutionResult(0, 1, 1 << 20, 1, timed_out=False, files_written=(), stdout="2\n"),
        lambda run: f"{len(run.program) - 3}\n",
    ],
    ids=["text", "fake result", "execution result", "function"],
)
def test_a_run_returns_its_scripted_result(answer: object) -> None:
    fake = FakeBuntime().on_execute("1 + 1", answer)  # type: ignore[arg-type]
    result = some_session(fake).execute("1 + 1")
    assert (result.stdout, result.stderr, result.exit_code, result.memory_used) == ("2\n", "", 0, 1 << 20)


def test_a_run_that_reached_the_process_limit_says_so() -> None:
    fake = FakeBuntime().on_execute("bomb", FakeResult(process_limit_exceeded=True)).on_execute("calm", "")
    session = some_session(fake)
    assert [session.execute_command(command).process_limit_exceeded for command in ("bomb", "calm")] == [True, False]


def test_the_newest_matching_script_wins() -> None:
    fake = FakeBuntime().on_execute(re.compile("ls"), "old").on_execute(re.compile("^ls -l"), "new")
    session = some_session(fake)
    commands = ("ls -la", "ls", "false; ls -l")
    assert [session.execute_command(command).stdout for command in commands] == ["new", "old", "old"]


def test_a_script_sees_the_whole_run() -> None:
    seen: list[FakeRun] = []

    def see(run: FakeRun) -> str:
        seen.append(run)
        return ""

    fake = FakeBuntime().on_execute("x", see)
    session = fake.sessions.create(env={"A": "1", "B": "1"})
    session.execute("x", files={"a.bin": b"\xff"}, env={"B": "2"}, stdin="in", timeout=7, working_dir="app")
    (run,) = seen
    assert (run.kind, run.session_id, run.code, run.command) == ("execute", session.id, "x", None)
    assert (run.env, run.files, run.stdin) == ({"A": "1", "B": "2"}, {"a.bin": b"\xff"}, "in")
    assert (run.timeout, run.working_dir) == (7, "app")
    assert session.files.read_bytes("a.bin") == b"\xff"


def test_a_run_without_a_script_raises_an_error_that_says_so() -> None:
    with pytest.raises(InvalidRequest, match="Nothing is scripted for 'ls': call on_execute first") as told:
        some_session(FakeBuntime()).execute_command("ls")
    assert told.value.details == {"field": "command"}


def test_a_scripted_error_is_raised_as_if_the_server_sent_it() -> None:
    full = DiskFull("No room.", code="disk_full", details={"limit": 16})
    session = some_session(FakeBuntime().on_execute("dd", full))
    with pytest.raises(DiskFull, match="No room") as told:
        session.stream_command("dd").result()
    assert told.value.details == {"limit": 16}
    with pytest.raises(DiskFull, match="No room") as answered:
        session.execute_command("dd")
    assert answered.value.details == {"limit": 16}
    assert (answered.value.status, answered.value.retryable, answered.value.request_id) == (507, False, "fake")


def test_an_exception_in_a_script_reaches_the_test() -> None:
    def broken(run: FakeRun) -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        some_session(FakeBuntime().on_execute("x", broken)).execute("x")


def test_a_run_writes_its_scripted_files() -> None:
    session = some_session(FakeBuntime().on_execute("build", FakeResult(files={"dist/a.js": "1", "/tmp/x": b"2"})))
    assert session.execute_command("build", files={"a.ts": "1"}).files_written == ("/tmp/x", "a.ts", "dist/a.js")
    assert (session.files.read("dist/a.js"), session.files.read("/tmp/x")) == ("1", "2")
    assert session.refresh().files_count == 2


def test_a_stream_yields_output_line_by_line() -> None:
    session = some_session(FakeBuntime().on_execute("x", FakeResult("one\ntwo", "bad\n", exit_code=3)))
    with session.stream("x") as stream:
        *output, last = stream
    assert output == [Stdout("one\n"), Stdout("two"), Stderr("bad\n")]
    assert isinstance(last, Result)
    assert last.result.exit_code == 3


def test_a_detached_stream_starts_with_its_process() -> None:
    session = some_session(FakeBuntime().on_start("serve", "up\n"))
    started, line, _ = session.stream_command("serve", detach=True)
    assert isinstance(started, ProcessStarted)
    assert line == Stdout("up\n")
    assert session.processes.get(started.process_id).exit_code == 0


def test_sessions_are_listed_by_page_state_and_metadata() -> None:
    fake = FakeBuntime()
    sessions = [fake.sessions.create(metadata={"n": n, "even": n % 2 == 0}) for n in range(5)]
    sessions[0].sleep()
    assert [one.metadata["n"] for one in fake.sessions.list(page_size=2)] == [4, 3, 2, 1, 0]
    assert [one.id for one in fake.sessions.list(state="idle")] == [sessions[0].id]
    assert [one.metadata["n"] for one in fake.sessions.list(metadata={"even": True}, state="active")] == [4, 2]


def test_a_session_can_be_updated_put_to_sleep_woken_and_deleted() -> None:
    fake = FakeBuntime().on_execute("x", "")
    with fake.sessions.create(ttl=300) as session:
        assert (session.refresh().sleep_policy, session.checkpointed_at) == (SleepPolicy(300, 1800, "never"), None)
        session.update(metadata={"a": 1}, on_wake="serve", env={"B": "2", "A": "1"}, sleep_policy={"idle_after": 60})
        assert session.sleep_policy == SleepPolicy(60, 1800, "never")
        assert (session.metadata, session.on_wake, session.env_names) == ({"a": 1}, "serve", ("A", "B"))
        session.sleep("deep-sleep")
        assert fake.sessions.get(session.id).state == "deep-sleep"
        assert session.wake().woke_from == "deep-sleep"
        session.sleep()
        session.execute("x")
        assert session.refresh().state == "active"
    with pytest.raises(SessionNotFound):
        session.refresh()


def test_a_session_expires_by_the_clock() -> None:
    clock = Clock()
    fake = FakeBuntime(clock=clock)
    session = fake.sessions.create(ttl=300)
    assert session.expires_at == clock.now + timedelta(seconds=300)
    clock.now += timedelta(seconds=299)
    session.extend(600)
    clock.now += timedelta(seconds=599)
    assert [one.id for one in fake.sessions.list()] == [session.id]
    clock.now += timedelta(seconds=1)
    assert list(fake.sessions.list()) == []
    with pytest.raises(SessionNotFound):
        session.files.read("a")


def test_files_can_be_written_listed_moved_and_deleted() -> None:
    files = some_session(FakeBuntime()).files
    assert files.write("src/a.ts", "one").size == 3
    assert files.write("src/a.ts", " two", append=True, mode="755").size == 7
    files.write("/tmp/b.bin", b"\xff")
    assert (files.read("src/a.ts"), files.read_bytes("/tmp/b.bin"), files.stat("src/a.ts").mode) == (
        "one two",
        b"\xff",
        "755",
    )
    assert (files.mkdir("src/deep"), files.mkdir("src/deep"), files.exists("none")) == (True, False, False)
    assert [one.path for one in files.list()] == ["src"]
    assert [one.path for one in files.list(recursive=True, page_size=1)] == ["src", "src/a.ts", "src/deep"]
    assert files.move("src", "lib") == "lib"
    assert files.read("lib/a.ts") == "one two"
    with pytest.raises(FileConflict):
        files.delete("lib")
    files.delete("lib", recursive=True)
    for refused in (lambda: files.read("lib/a.ts"), lambda: files.delete("lib"), lambda: files.move("lib", "x")):
        with pytest.raises(FileNotFound):
            refused()


def test_a_directory_cannot_be_moved_into_itself() -> None:
    files = some_session(FakeBuntime()).files
    files.write("a/b", "kept")
    with pytest.raises(FileConflict):
        files.move("a", "a/c")
    assert files.read("a/b") == "kept"


def test_files_can_be_searched() -> None:
    files = some_session(FakeBuntime()).files
    for path, content in {"a.ts": "let x\nlet Y y", "src/b.ts": "y", "c.txt": "y"}.items():
        files.write(path, content)
    assert [one.path for one in files.search(glob="*.ts").matches] == ["a.ts", "src/b.ts"]
    assert [one.path for one in files.search(glob="/*.ts").matches] == ["a.ts"]
    assert [one.path for one in files.search(glob="!*.ts").matches] == ["c.txt"]
    found = files.search("y", glob="**/*.ts", ignore_case=True)
    assert [(one.path, one.line, one.ranges) for one in found.matches] == [
        ("a.ts", 2, ((4, 5), (6, 7))),
        ("src/b.ts", 1, ((0, 1),)),
    ]
    assert files.search("y", limit=1).truncated
    with pytest.raises(InvalidRequest, match="regular expression"):
        files.search("(")


def test_content_is_uploaded_and_downloaded_in_parts(tmp_path: Path) -> None:
    files = some_session(FakeBuntime()).files
    assert files.upload(io.BytesIO(b"0123456789"), "big", mode="600").size == 10
    assert b"".join(files.chunks("big", start=2, end=5)) == b"234"
    assert b"".join(files.chunks("big", start=8)) == b"89"
    moved: list[tuple[int, int | None]] = []
    files.download("big", tmp_path / "big", progress=lambda *both: moved.append(both))
    assert ((tmp_path / "big").read_bytes(), moved[-1]) == (b"0123456789", (10, 10))
    with pytest.raises(RangeNotSatisfiable):
        list(files.chunks("big", start=10))


def test_folders_are_uploaded_and_downloaded(tmp_path: Path) -> None:
    (tmp_path / "here/deep/empty").mkdir(parents=True)
    (tmp_path / "here/deep/run.sh").write_text("ls")
    (tmp_path / "here/deep/run.sh").chmod(0o755)
    files = some_session(FakeBuntime()).files
    assert files.upload_archive(tmp_path / "here", "app") == 3
    files.download_archive("app", tmp_path / "back")
    assert sorted(str(one.relative_to(tmp_path / "back")) for one in (tmp_path / "back").rglob("*")) == [
        "deep",
        "deep/empty",
        "deep/run.sh",
    ]
    assert (tmp_path / "back/deep/run.sh").stat().st_mode & 0o777 == 0o755
    with pytest.raises(FileConflict):
        files.download_archive("app/deep/run.sh", tmp_path / "none")


def test_a_body_that_is_not_an_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("buntime_sdk.archives.pack", lambda directory, file: file.write(b"no tar"))
    with pytest.raises(InvalidRequest, match="not a tar archive"):
        some_session(FakeBuntime()).files.upload_archive(tmp_path, "app")
    assert not tarfile.is_tarfile(io.BytesIO(b"no tar"))


def test_a_watch_reports_file_changes() -> None:
    files = some_session(FakeBuntime()).files
    files.mkdir("src")
    with files.watch("src", recursive=True) as changes:
        files.write("src/a/b", "1")
        files.write("other", "1")
        files.move("src/a/b", "src/c")
        files.delete("src/c")
        told = [next(changes) for _ in range(4)]
    assert told == [
        Watching(),
        FileChange("created", "src/a/b", "file"),
        FileChange("renamed", "src/c", "file", "src/a/b"),
        FileChange("deleted", "src/c"),
    ]


def test_a_process_runs_until_its_signal() -> None:
    fake = FakeBuntime().on_start(re.compile("serve"), FakeResult("up\n", running=True))
    session = some_session(fake)
    process = session.processes.start("serve", wait_for_output="up", name="web")
    assert (process.status, process.ready, process.name) == ("running", True, "web")
    process.input("one\n").input(b"\xff", close=True)
    assert fake.input_of(session.id, process.id) == b"one\n\xff"
    with pytest.raises(InvalidState):
        process.input("more")
    timer = threading.Timer(0.05, process.kill)
    timer.start()
    *output, last = process.follow()
    timer.join(PATIENCE)
    assert [entry.data for entry in output if isinstance(entry, LogEntry)] == ["up\n"]
    assert last == ProcessExit("exited", 137, None)
    assert process.wait().exit_code == 137


@pytest.mark.parametrize("name", ["SIGSTOP", "SIGTSTP", "SIGCONT", "SIGWINCH"])
def test_a_signal_that_ends_no_process_leaves_it_running(name: str) -> None:
    process = some_session(FakeBuntime()).processes.start("serve")
    assert process.signal(name).status == "running"
    assert process.signal("SIGUSR1").exit_code == 138  # with Linux's number, wherever the fake runs
    with pytest.raises(InvalidState):
        process.signal(name)


@pytest.mark.parametrize("name", ["SIGPIPE", "SIGSEGV", "TERM", "sigterm", "15", ""])
def test_a_signal_that_the_api_does_not_name_is_refused(name: str) -> None:
    process = some_session(FakeBuntime()).processes.start("serve")
    with pytest.raises(InvalidRequest) as told:
        process.signal(name)
    assert (told.value.status, told.value.details["field"]) == (400, "signal")
    assert process.refresh().status == "running"


def test_a_process_whose_port_is_taken_is_not_ready_and_says_why() -> None:
    fake = FakeBuntime().on_start("other", FakeResult("listening elsewhere\n", running=True))
    session = some_session(fake)
    first = session.processes.start("serve", wait_for_port=8080)
    assert (first.ready, first.port_was_in_use) == (True, False)
    second = session.processes.start("serve", wait_for_port=8080)
    assert (second.ready, second.status, second.exit_code, second.port_was_in_use) == (False, "exited", 1, True)
    assert "EADDRINUSE" in second.logs().entries[0].data
    other = session.processes.start("other", wait_for_port=8080)
    assert (other.ready, other.status, other.port_was_in_use) == (False, "running", True)
    assert session.processes.start("serve", wait_for_port=3000).ready
    first.kill()
    assert session.processes.start("serve", wait_for_port=8080).ready


def test_a_process_that_ends_is_not_ready_on_a_port() -> None:
    session = some_session(FakeBuntime().on_start("make", FakeResult("done\n")))
    made = session.processes.start("make", wait_for_port=8080)
    assert (made.ready, made.status, made.port_was_in_use) == (False, "exited", False)


def test_a_process_without_a_script_is_silent_and_a_scripted_one_ends() -> None:
    session = some_session(FakeBuntime().on_execute("make", FakeResult("a\nb\n", exit_code=2)))
    silent, made = session.processes.start("serve"), session.processes.start("make")
    assert (silent.status, made.status, made.exit_code) == ("running", "exited", 2)
    assert [one.id for one in session.processes.list()] == [made.id, silent.id]
    first = made.logs(limit=1)
    assert ([one.data for one in first.entries], first.cursor) == (["a\n"], 2)
    assert [one.data for one in made.logs(cursor=first.cursor).entries] == ["b\n"]
    session.sleep("deep-sleep")
    assert (silent.refresh().status, silent.reason) == ("exited", "deep_sleep")


def test_a_context_returns_values_until_its_session_goes_to_deep_sleep() -> None:
    fake = FakeBuntime().on_execute("a", FakeResult("1\n", result=Forms("2", json=2), displayed=[Forms("x")]))
    session = some_session(fake)
    context = session.contexts.create()
    value = context.execute("a")
    assert (value.stdout, value.result, value.displayed) == ("1\n", Forms("2", json=2), (Forms("x"),))
    assert [one.runs for one in session.contexts.list()] == [1]
    session.sleep("deep-sleep")
    with pytest.raises(ContextLost):
        context.execute("a")


def test_a_terminal_echoes_runs_scripts_and_exits() -> None:
    session = some_session(FakeBuntime().on_execute("ls", "a\nb\n"))
    with session.terminal() as terminal:
        terminal.resize(100, 30)
        terminal.write("ls\nwhat\nexit 3\n")
        shown = b"".join(terminal).decode()
    assert shown.startswith("$ ls\r\na\r\nb\r\n$ what\r\nNothing is scripted for 'what'")
    assert terminal.end is not None
    assert (terminal.end.type, terminal.end.exit_code) == ("exit", 3)
    with pytest.raises(TerminalNotFound):
        session.terminal(terminal_id=terminal.id)


def test_a_client_can_reconnect_to_a_terminal() -> None:
    session = some_session(FakeBuntime())
    with session.terminal() as left:
        pass
    with session.terminal(terminal_id=left.id) as again:
        assert (again.id, again.resumed) == (left.id, True)


def test_deleting_a_session_ends_its_watches_and_terminals() -> None:
    session = some_session(FakeBuntime())
    process, terminal = session.processes.start("serve"), session.terminal()
    with session.files.watch() as changes:
        follow = process.follow(cursor=0)
        timer = threading.Timer(0.05, session.delete)
        timer.start()
        assert [type(event) for event in follow] == [ProcessExit]
        assert next(changes) == Watching()
        with pytest.raises(ConnectionFailed):
            next(changes)
    timer.join(PATIENCE)
    assert list(terminal) == [b"$ "]
    with pytest.raises(ConnectionFailed):
        terminal.write("ls\n")


def test_preview_tokens_are_created_and_revoked() -> None:
    session = some_session(FakeBuntime())
    one, other = session.preview_token(port=3000), session.preview_token()
    assert one.url.startswith(session.preview_url(3000))
    assert other.url.startswith(session.preview_url())
    assert (session.revoke_preview_tokens(one.token), session.revoke_preview_tokens()) == (1, 1)


def test_a_session_stands_on_an_image_that_was_added() -> None:
    with FakeBuntime().add_image("python", size_bytes=5) as client:
        assert [(image.name, image.size_bytes) for image in client.images.list()] == [("python", 5)]
        with client.sessions.create(image="python") as session:
            assert session.image == session.refresh().image == "python"
        with client.sessions.create() as session:
            assert session.refresh().image == "default"
        with pytest.raises(ImageNotFound, match="none"):
            client.sessions.create(image="none")
        with pytest.raises(Forbidden):
            client.images.delete("python")


def test_a_session_of_the_fake_need_not_end() -> None:
    now = datetime(2024, 1, 19, 10, 30, tzinfo=UTC)
    fake = FakeBuntime(clock=lambda: now)
    endless, other = fake.sessions.create(ttl="never"), fake.sessions.create()
    assert endless.expires_at is None
    now += timedelta(days=10_000)
    assert endless.refresh().expires_at is None
    with pytest.raises(SessionNotFound):
        other.refresh()
    assert endless.extend(300).expires_at == now + timedelta(seconds=300)
    assert endless.extend("never").expires_at is None


def test_the_sleep_policy_of_the_fake_has_defaults_and_bounds() -> None:
    session = FakeBuntime().sessions.create(sleep_policy={"awake_while": "processes"})
    with pytest.raises(LookupError):
        _ = session.sleep_policy
    usual = SleepPolicy(300, 1800, "never")
    assert session.refresh().sleep_policy == SleepPolicy(300, 1800, "never", "processes")
    assert session.update(sleep_policy={"idle_after": "never"}).sleep_policy == SleepPolicy("never", 1800, "never")
    assert session.update(sleep_policy=None).sleep_policy == usual
    with pytest.raises(InvalidRequest) as refused:
        session.update(sleep_policy={"deep_sleep_after": 4})
    assert refused.value.details["field"] == "sleepPolicy.deepSleepAfter"
