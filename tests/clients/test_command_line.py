"""The commands that talk to a server, as a person runs them: processes, pipes, terminals, signals."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.client import Client
from tests.acceptance.server import BUNTIME, Server
from tests.clients.person import PATIENCE, Person

pytestmark = pytest.mark.sandbox


@pytest.fixture(scope="module")
def person(server: Server) -> Person:
    return Person(f"http://127.0.0.1:{server.config.port}", server.cli("keys", "create", "--plan", "enterprise"))


@pytest.fixture(scope="module")
def client(server: Server, person: Person) -> Client:
    """The same account, past the command line."""
    return server.client(person.key)


@pytest.fixture(scope="module")
def session(person: Person) -> Iterator[str]:
    """A session that tests share, by its name."""
    person.gets("create", "--name", "shared", "--cpu", "1")
    yield "shared"
    person.gets("rm", "shared")


def ids(client: Client) -> set[str]:
    return {session["sessionId"] for session in client.call("GET", "/sessions").done()["sessions"]}


def until(seen: object, what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not seen():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"{what}: waited in vain"
        time.sleep(0.05)


# --- sessions ---


def test_a_session_lives_from_create_to_rm(person: Person) -> None:
    done = person.runs(
        *(
            "create",
            "--name",
            "life",
            "--ttl",
            "1h",
            "--metadata",
            "team=a",
            "--env",
            "GREETING=hello",
            "--memory",
            "512",
        )
    )
    assert done.returncode == 0, done.stderr
    session = done.stdout.decode().strip()
    assert re.fullmatch(r"ses_[a-z0-9]{18}", session)
    assert b"ends in 59 min" in done.stderr or b"ends in 1 h" in done.stderr
    listed = person.gets("ls", "--metadata", "team=a").splitlines()
    assert listed[0].split() == ["SESSION", "NAME", "STATE", "PROCESSES", "FILES", "LAST", "ACTIVE", "ENDS"]
    assert re.match(rf"{session}  life  active ", listed[1])
    assert person.gets("ls", "--quiet", "--metadata", "team=a") == session
    assert person.gets("exec", "life", "console.log(Bun.env.GREETING)") == "hello"
    assert person.gets("sleep", "life") == f"{session} is suspended."
    assert person.gets("ls", "--state", "idle", "-q") == session
    assert re.fullmatch(rf"{session} is awake, after \d+ ms; it was idle\.", person.gets("wake", session[:10]))
    assert "is in deep sleep" in person.gets("sleep", "--deep", session)
    assert person.gets("rm", "life") == session
    assert person.gets("ls", "-q", "--metadata", "team=a") == ""


def test_a_name_is_of_one_session(person: Person, session: str) -> None:
    assert "has the name shared. Delete it: buntime rm shared" in person.is_refused("create", "--name", session)
    assert "ses_x is no name" in person.is_refused("create", "--name", "ses_x")


def test_a_mistyped_name_among_those_to_delete_deletes_nothing(person: Person, session: str) -> None:
    assert "There is no session shraed" in person.is_refused("rm", session, "shraed")
    assert person.gets("exec", session, "console.log(1)") == "1"


# --- exec ---


def test_output_comes_as_it_is_written_and_on_its_own_stream(person: Person, session: str) -> None:
    running = person.begins("exec", session, "console.log('one'); console.error('two'); await Bun.sleep(60_000)")
    assert running.stdout is not None
    assert running.stderr is not None
    assert running.stdout.readline() == b"one\n"
    assert running.stderr.readline() == b"two\n"
    assert running.poll() is None
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=PATIENCE)
    assert (running.returncode, out, err) == (130, b"", b"")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_the_run_in_the_session_too(person: Person, session: str, number: int, status: int) -> None:
    running = person.begins("exec", session, "--", f"echo ready; exec sleep 10{number}")
    assert running.stdout is not None
    assert running.stdout.readline() == b"ready\n"
    running.send_signal(number)
    assert running.wait(PATIENCE) == status
    running.communicate()
    until(lambda: person.runs("exec", session, "--", "pgrep", "-f", f"sleep 10{number}").returncode == 1, "it ends")


def test_the_exit_status_is_the_programs(person: Person, session: str) -> None:
    assert person.runs("exec", session, "process.exit(7)").returncode == 7
    assert person.runs("exec", session, "--", "kill -9 $$").returncode == 137
    done = person.runs("exec", session, "--timeout", "1", "--", "echo before; sleep 30")
    assert (done.returncode, done.stdout) == (124, b"before\n")
    assert done.stderr == b"buntime: The time of the run was over. More: --timeout 5m\n"


def test_several_words_after_the_dashes_are_a_program_and_one_is_a_line_for_the_shell(
    person: Person, session: str
) -> None:
    assert person.gets("exec", session, "--", "printf", "[%s]", "a b", "$HOME", "--json") == "[a b][$HOME][--json]"
    assert person.gets("exec", session, "--", "echo $HOME | tr a-z A-Z") == "/ROOT"
    assert person.gets("exec", session, "-e", "A=1 2", "-w", "/tmp", "--", 'echo "$A" $PWD') == "1 2 /tmp"


def test_what_is_piped_in_is_the_input_of_a_command(person: Person, session: str) -> None:
    assert person.gets("exec", session, "--", "wc -c", typed=b"x" * 300_000) == "300000"
    assert person.gets("exec", session, "--no-stdin", "--", "wc", "-c", typed=b"ignored") == "0"


def test_code_comes_from_a_file_or_from_stdin(person: Person, session: str, tmp_path: Path) -> None:
    (tmp_path / "f.ts").write_text("const x: number = 6; console.log(x * 7)")
    assert person.gets("exec", session, "--file", str(tmp_path / "f.ts")) == "42"
    assert person.gets("exec", session, "-", typed=b"console.log('piped')") == "piped"


def test_a_pipe_that_is_closed_ends_the_run(person: Person, session: str) -> None:
    shell = f"{BUNTIME} exec {session} -- yes | head -n 1"
    done = subprocess.run(
        shell, shell=True, env=person.environment, capture_output=True, stdin=subprocess.DEVNULL, timeout=PATIENCE
    )
    assert (done.stdout, done.stderr) == (b"y\n", b"")
    until(lambda: person.runs("exec", session, "--", "pgrep", "-x", "yes").returncode == 1, "it ends")


# --- run ---


def test_a_file_is_run_in_a_session_of_its_own(person: Person, client: Client, tmp_path: Path) -> None:
    before = ids(client)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "twice.ts").write_text("export const twice = (text: string) => text + text")
    (tmp_path / "main.ts").write_text(
        "import { twice } from './lib/twice'; console.log(twice(process.argv[2]), process.argv[3]);"
        "console.error(await Bun.stdin.text()); process.exit(3)"
    )
    done = person.runs("run", "--with", str(tmp_path / "lib"), str(tmp_path / "main.ts"), "a b", "--json", typed=b"in")
    assert (done.stdout, done.stderr, done.returncode) == (b"a ba b --json\n", b"in\n", 3)
    assert ids(client) == before


def test_a_run_that_is_interrupted_leaves_no_session(person: Person, client: Client, tmp_path: Path) -> None:
    before = ids(client)
    (tmp_path / "slow.py").write_text("import time; print('ready', flush=True); time.sleep(600)")
    running = person.begins("run", str(tmp_path / "slow.py"))
    assert running.stdout is not None
    assert running.stdout.readline() == b"ready\n"
    assert len(ids(client)) == len(before) + 1
    running.send_signal(signal.SIGINT)
    assert running.wait(PATIENCE) == 130
    running.communicate()
    assert ids(client) == before


def test_a_session_that_is_kept_is_named(person: Person, tmp_path: Path) -> None:
    (tmp_path / "a.sh").write_text("echo kept > made; exit 1")
    done = person.runs("run", "--keep", str(tmp_path / "a.sh"))
    assert done.returncode == 1
    session = done.stderr.decode().strip()
    assert person.gets("exec", session, "--", "cat", "made") == "kept"
    person.gets("rm", session)


# --- cp ---


def test_a_folder_goes_in_and_comes_out_as_it_was(person: Person, session: str, tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "deep" / "er").mkdir(parents=True)
    (site / "empty").mkdir()
    (site / "deep" / "er" / "bytes").write_bytes(os.urandom(100_000))
    (site / "run.sh").write_text("echo hi")
    (site / "run.sh").chmod(0o755)
    (site / "ünï.txt").write_text("x")
    person.gets("cp", str(site), f"{session}:trip")
    assert person.gets("exec", session, "--", "sh trip/run.sh; stat -c %a trip/run.sh; ls trip") == (
        "hi\n755\ndeep\nempty\nrun.sh\nünï.txt"
    )
    person.gets("cp", f"{session}:trip", str(tmp_path / "back"))
    assert _tree(tmp_path / "back") == _tree(site)
    person.gets("cp", f"{session}:trip", str(tmp_path / "back"))
    assert _tree(tmp_path / "back" / "trip") == _tree(site)


def _tree(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def test_a_file_gets_the_name_that_was_asked_for_or_keeps_its_own(person: Person, session: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    person.gets("cp", str(tmp_path / "a.txt"), f"{session}:")
    person.gets("cp", str(tmp_path / "a.txt"), f"{session}:new/b.txt")
    person.gets("cp", str(tmp_path / "a.txt"), f"{session}:other/")
    assert person.gets("exec", session, "--", "cat a.txt new/b.txt other/a.txt") == "oneoneone"
    (tmp_path / "here").mkdir()
    person.gets("cp", f"{session}:/workspace/a.txt", str(tmp_path / "here"))
    person.gets("cp", f"{session}:a.txt", str(tmp_path / "c.txt"))
    assert (tmp_path / "here" / "a.txt").read_text() == (tmp_path / "c.txt").read_text() == "one"


def test_the_contents_of_a_folder_go_without_its_name(person: Person, session: str, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_text("x")
    person.gets("exec", session, "--", "mkdir -p into")
    person.gets("cp", f"{tmp_path}/d/.", f"{session}:into")
    assert person.gets("exec", session, "--", "cat into/f") == "x"
    person.gets("cp", f"{session}:into/.", str(tmp_path))
    assert (tmp_path / "f").read_text() == "x"


def test_what_is_not_there_is_not_copied(person: Person, session: str, tmp_path: Path) -> None:
    assert "There is no file or folder" in person.is_refused("cp", str(tmp_path / "none"), f"{session}:x")
    assert "There is no file or directory at 'none'" in person.is_refused("cp", f"{session}:none", str(tmp_path / "x"))
    assert not (tmp_path / "x").exists()


def test_a_person_sees_how_far_a_copy_is(person: Person, session: str, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(os.urandom(20 << 20))
    with person.sits_down("cp", str(tmp_path / "big"), f"{session}:big") as terminal:
        assert terminal.ends() == 0
        assert b"21.0/21.0 MB" in terminal.seen
    with person.sits_down("cp", f"{session}:big", str(tmp_path / "back")) as terminal:
        assert terminal.ends() == 0
        assert b"21.0/21.0 MB" in terminal.seen
    assert (tmp_path / "back").read_bytes() == (tmp_path / "big").read_bytes()


# --- processes ---


def test_a_process_is_started_followed_and_stopped(person: Person, session: str) -> None:
    command = "echo up; echo warn >&2; exec python3 -um http.server 8123"
    process = person.gets("start", session, "--name", "web", "--wait-port", "8123", "--", command)
    assert re.fullmatch(r"proc_[a-z0-9]+", process)
    head, row = person.gets("ps", session).splitlines()[:2]
    assert head.split() == ["PROCESS", "NAME", "STATE", "STARTED", "COMMAND"]
    assert re.match(rf"{process} +web +running +\d+ s ago +{re.escape(command)}", row)
    done = person.runs("logs", session, "web")
    assert done.stdout.startswith(b"up\n")
    assert done.stderr.startswith(b"warn\n")
    following = person.begins("logs", session, process, "--follow", "--json")
    assert following.stdout is not None
    first = json.loads(following.stdout.readline())
    assert (first["stream"], first["data"]) == ("stdout", "up\n")
    assert person.gets("stop", session, "web") == process
    following.communicate(timeout=PATIENCE)
    assert following.returncode == 0
    assert re.search(rf"{process} +web +exited 143", person.gets("ps", session))


def test_a_process_that_ends_before_it_is_ready_is_a_refusal(person: Person, session: str) -> None:
    done = person.runs("start", session, "--wait-port", "8124", "--", "echo no >&2; exit 3")
    assert done.returncode == 1
    assert re.fullmatch(rb"proc_[a-z0-9]+\n", done.stdout)
    assert b"It is not ready: exited 3. See: buntime logs" in done.stderr
    assert b"no\n" in person.runs("logs", session).stderr


# --- previews ---


def test_a_preview_is_opened_in_the_browser(person: Person, session: str, tmp_path: Path) -> None:
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    browser.chmod(0o755)
    sitting = Person(person.url, person.key, {"BROWSER": str(browser)})
    with sitting.sits_down("open", session) as terminal:
        assert terminal.ends() == 0
        url = terminal.seen.decode().strip()
    until((tmp_path / "opened").exists, "the browser opens")
    assert (tmp_path / "opened").read_text().strip() == url
    assert person.gets("open", session) == url


def test_a_port_that_is_not_open_to_all_gets_a_token(person: Person, session: str) -> None:
    assert "token" not in person.gets("open", session)
    for words in (("--port", "8125"), ("--private",)):
        told = json.loads(person.gets("open", session, "--json", *words))
        assert told["token"] is True
        assert "token=" in told["url"] or "preview" in told["url"]


# --- shell ---


def test_a_shell_is_typed_in_resized_and_left_with_its_exit_status(person: Person, session: str) -> None:
    with person.sits_down("shell", session, cols=100, rows=30) as terminal:
        terminal.sees("# ")
        assert not terminal.is_as_before
        terminal.types("stty size\r")
        terminal.sees("30 100\r\n")
        terminal.resize(72, 20)
        until(lambda: _asks(terminal, "stty size", b"20 72"), "the new size arrives")
        terminal.types("cat\r")
        terminal.types(b"\x03")
        terminal.sees("^C")
        terminal.types("exit 5\r")
        assert terminal.ends() == 5
        assert terminal.is_as_before


def _asks(terminal: object, command: str, answer: bytes) -> bool:
    terminal.types(f"{command}; echo as''ked\r")  # type: ignore[attr-defined]
    return answer in terminal.sees("asked\r\n")  # type: ignore[attr-defined]
