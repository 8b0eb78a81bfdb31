"""The client commands, run as a user runs them: as processes, with pipes, terminals and signals."""

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.sync.client import connect

from tests.acceptance.client import Client
from tests.acceptance.server import BUNTIME, Server
from tests.clients.relay import Relay
from tests.clients.user import PATIENCE, Terminal, User
from tests.waiting import until

pytestmark = pytest.mark.sandbox

PAGE = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text()
# without the line that sets the server's address, which is different here; test_install_lines.py installs
BLOCKS = [block for block in re.findall(r"```sh\n(.*?)```", PAGE, re.S) if "pip install" not in block]
DOCUMENTED = [re.sub(r"^export .*\n", "", block) for block in BLOCKS]


@pytest.fixture(scope="module")
def user(server: Server) -> User:
    return User(f"http://127.0.0.1:{server.config.port}", server.cli("keys", "create", "--plan", "enterprise"))


@pytest.fixture(scope="module")
def client(server: Server, user: User) -> Client:
    """A client that uses the API directly, with the same account."""
    return server.client(user.key)


@pytest.fixture(scope="module")
def session(user: User) -> Iterator[str]:
    """The name of a session that tests share."""
    user.gets("create", "--name", "shared", "--cpu", "1")
    yield "shared"
    user.gets("rm", "shared")


def ids(client: Client) -> set[str]:
    return {session["sessionId"] for session in client.call("GET", "/sessions").done()["sessions"]}


# --- sessions ---


def test_a_session_lives_from_create_to_rm(user: User) -> None:
    done = user.runs(
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
    listed = user.gets("ls", "--metadata", "team=a").splitlines()
    assert listed[0].split() == ["SESSION", "NAME", "STATE", "PROCS", "FILES", "ACTIVE", "ENDS"]
    assert re.match(rf"{session}  life  active ", listed[1])
    assert user.gets("ls", "--quiet", "--metadata", "team=a") == session
    assert user.gets("exec", "life", "console.log(Bun.env.GREETING)") == "hello"
    assert user.gets("sleep", "life") == f"{session} is suspended."
    assert user.gets("ls", "--state", "idle", "-q") == session
    assert re.fullmatch(rf"{session} was idle and is awake after \d+ ms\.", user.gets("wake", session[:10]))
    assert "is in deep sleep" in user.gets("sleep", "--deep", session)
    assert user.gets("rm", "life") == session
    assert user.gets("ls", "-q", "--metadata", "team=a") == ""


def test_a_name_belongs_to_one_session(user: User, session: str) -> None:
    whole = user.gets("ls", "-q", "--name", session)
    assert f"The session {whole} has the name 'shared'. Use another name" in user.is_refused(
        "create", "--name", session
    )
    assert "name must have 1 to 63 characters" in user.is_refused("create", "--name", "ses_x")


def test_a_name_is_written_with_or_without_its_prefix(user: User, session: str, tmp_path: Path) -> None:
    assert user.gets("exec", f"name:{session}", "console.log(1)") == "1"
    (tmp_path / "of-name.txt").write_text("named")
    user.gets("cp", str(tmp_path / "of-name.txt"), f"name:{session}:")
    user.gets("cp", f"name:{session}:of-name.txt", str(tmp_path / "back.txt"))
    assert (tmp_path / "back.txt").read_text() == "named"
    assert "There is no session name:shraed" in user.is_refused("inspect", "name:shraed")


def test_rm_with_one_mistyped_name_deletes_nothing(user: User, session: str) -> None:
    assert "There is no session shraed" in user.is_refused("rm", session, "shraed")
    assert "No session with this id" in user.is_refused("rm", session, "ses_mistyped0mistyped0")
    assert user.gets("exec", session, "console.log(1)") == "1"


def test_a_table_on_a_small_terminal_is_cut_after_the_ids(user: User, session: str) -> None:
    whole = user.gets("ls", "-q", "--name", session)
    with user.opens_terminal("ls", cols=48) as terminal:
        assert terminal.ends() == 0
    lines = re.sub(rb"\x1b\[[0-9;]*m", b"", terminal.seen).decode().splitlines()
    assert f"{whole}  {session}" in terminal.seen.decode()
    assert max(map(len, lines)) == 48
    assert lines[0].endswith("…")


# --- exec ---


def test_output_arrives_as_it_is_written_and_on_its_own_stream(user: User, session: str) -> None:
    running = user.begins("exec", session, "console.log('one'); console.error('two'); await Bun.sleep(60_000)")
    assert running.stdout is not None
    assert running.stderr is not None
    assert running.stdout.readline() == b"one\n"
    assert running.stderr.readline() == b"two\n"
    assert running.poll() is None
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=PATIENCE)
    assert (running.returncode, out, err) == (130, b"", b"")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_the_run_in_the_session_too(user: User, session: str, number: int, status: int) -> None:
    running = user.begins("exec", session, "--", f"echo ready; exec sleep 10{number}")
    assert running.stdout is not None
    assert running.stdout.readline() == b"ready\n"
    running.send_signal(number)
    assert running.wait(PATIENCE) == status
    running.communicate()
    until(
        lambda: user.runs("exec", session, "--", "pgrep", "-f", f"sleep 10{number}").returncode == 1, "the run to end"
    )


def test_an_ignored_hangup_ends_nothing(user: User, session: str) -> None:
    running = subprocess.Popen(
        ["nohup", BUNTIME, "exec", session, "--", "echo ready; sleep 2; echo done"],
        env=user.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert running.stdout is not None
    assert running.stdout.readline() == b"ready\n"
    running.send_signal(signal.SIGHUP)
    out, _ = running.communicate(timeout=PATIENCE)
    assert (running.returncode, out) == (0, b"done\n")


def test_the_exit_status_is_the_programs(user: User, session: str) -> None:
    assert user.runs("exec", session, "process.exit(7)").returncode == 7
    assert user.runs("exec", session, "--", "kill -9 $$").returncode == 137
    done = user.runs("exec", session, "--timeout", "1", "--", "echo before; sleep 30")
    assert (done.returncode, done.stdout) == (124, b"before\n")
    assert done.stderr == b"buntime: The run timed out. Give it more time with: --timeout 5m\n"


def test_several_words_after_the_dashes_are_a_program_and_one_word_is_a_shell_line(user: User, session: str) -> None:
    assert user.gets("exec", session, "--", "printf", "[%s]", "a b", "$HOME", "--json") == "[a b][$HOME][--json]"
    assert user.gets("exec", session, "--", "echo $HOME | tr a-z A-Z") == "/ROOT"
    assert user.gets("exec", session, "-e", "A=1 2", "-w", "/tmp", "--", 'echo "$A" $PWD') == "1 2 /tmp"


def test_piped_input_is_the_input_of_a_command(user: User, session: str) -> None:
    assert user.gets("exec", session, "--", "wc -c", typed=b"x" * 300_000) == "300000"
    assert user.gets("exec", session, "--no-stdin", "--", "wc", "-c", typed=b"ignored") == "0"


def test_code_comes_from_a_file_or_from_stdin(user: User, session: str, tmp_path: Path) -> None:
    (tmp_path / "f.ts").write_text("const x: number = 6; console.log(x * 7)")
    assert user.gets("exec", session, "--file", str(tmp_path / "f.ts")) == "42"
    assert user.gets("exec", session, "-", typed=b"console.log('piped')") == "piped"


def test_a_closed_pipe_ends_the_run(user: User, session: str) -> None:
    shell = f"{BUNTIME} exec {session} -- yes | head -n 1"
    done = subprocess.run(
        shell, shell=True, env=user.environment, capture_output=True, stdin=subprocess.DEVNULL, timeout=PATIENCE
    )
    assert (done.stdout, done.stderr) == (b"y\n", b"")
    until(lambda: user.runs("exec", session, "--", "pgrep", "-x", "yes").returncode == 1, "the run to end")


def test_a_connection_that_breaks_during_a_run_is_reported(server: Server, user: User, session: str) -> None:
    with Relay(server.config.port) as relay:
        running = User(f"http://127.0.0.1:{relay.port}", user.key).begins("exec", session, "--", "echo a; sleep 99")
        assert running.stdout is not None
        assert running.stdout.readline() == b"a\n"
        relay.cut()
        out, err = running.communicate(timeout=PATIENCE)
    assert (running.returncode, out) == (1, b"")
    assert re.fullmatch(rb"buntime: The connection broke.*\n", err)


# --- run ---


def test_a_file_runs_in_its_own_session(user: User, client: Client, tmp_path: Path) -> None:
    before = ids(client)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "twice.ts").write_text("export const twice = (text: string) => text + text")
    (tmp_path / "main.ts").write_text(
        "import { twice } from './lib/twice'; console.log(twice(process.argv[2]), process.argv[3]);"
        "console.error(await Bun.stdin.text()); process.exit(3)"
    )
    done = user.runs("run", "--with", str(tmp_path / "lib"), str(tmp_path / "main.ts"), "a b", "--json", typed=b"in")
    assert (done.stdout, done.stderr, done.returncode) == (b"a ba b --json\n", b"in\n", 3)
    assert ids(client) == before


def test_an_interrupted_run_leaves_no_session(user: User, client: Client, tmp_path: Path) -> None:
    before = ids(client)
    (tmp_path / "slow.py").write_text("import time; print('ready', flush=True); time.sleep(600)")
    running = user.begins("run", str(tmp_path / "slow.py"))
    assert running.stdout is not None
    assert running.stdout.readline() == b"ready\n"
    assert len(ids(client)) == len(before) + 1
    running.send_signal(signal.SIGINT)
    assert running.wait(PATIENCE) == 130
    running.communicate()
    assert ids(client) == before


def test_a_kept_session_is_named(user: User, tmp_path: Path) -> None:
    (tmp_path / "a.sh").write_text("echo kept > made; exit 1")
    done = user.runs("run", "--keep", str(tmp_path / "a.sh"))
    assert done.returncode == 1
    session = done.stderr.decode().strip()
    assert user.gets("exec", session, "--", "cat", "made") == "kept"
    user.gets("rm", session)


# --- cp ---


def test_a_folder_is_unchanged_after_a_copy_in_and_out(user: User, session: str, tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "deep" / "er").mkdir(parents=True)
    (site / "empty").mkdir()
    (site / "deep" / "er" / "bytes").write_bytes(os.urandom(100_000))
    (site / "run.sh").write_text("echo hi")
    (site / "run.sh").chmod(0o755)
    (site / "ünï.txt").write_text("x")
    user.gets("cp", str(site), f"{session}:trip")
    assert user.gets("exec", session, "--", "sh trip/run.sh; stat -c %a trip/run.sh; ls trip") == (
        "hi\n755\ndeep\nempty\nrun.sh\nünï.txt"
    )
    user.gets("cp", f"{session}:trip", str(tmp_path / "back"))
    assert _tree(tmp_path / "back") == _tree(site)
    user.gets("cp", f"{session}:trip", str(tmp_path / "back"))
    assert _tree(tmp_path / "back" / "trip") == _tree(site)


def _tree(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def test_a_copied_file_gets_the_requested_name_or_keeps_its_own(user: User, session: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    user.gets("cp", str(tmp_path / "a.txt"), f"{session}:")
    user.gets("cp", str(tmp_path / "a.txt"), f"{session}:new/b.txt")
    user.gets("cp", str(tmp_path / "a.txt"), f"{session}:other/")
    assert user.gets("exec", session, "--", "cat a.txt new/b.txt other/a.txt") == "oneoneone"
    (tmp_path / "here").mkdir()
    user.gets("cp", f"{session}:/workspace/a.txt", str(tmp_path / "here"))
    user.gets("cp", f"{session}:a.txt", str(tmp_path / "c.txt"))
    assert (tmp_path / "here" / "a.txt").read_text() == (tmp_path / "c.txt").read_text() == "one"


def test_the_contents_of_a_folder_are_copied_without_its_name(user: User, session: str, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_text("x")
    user.gets("exec", session, "--", "mkdir -p into")
    user.gets("cp", f"{tmp_path}/d/.", f"{session}:into")
    assert user.gets("exec", session, "--", "cat into/f") == "x"
    user.gets("cp", f"{session}:into/.", str(tmp_path))
    assert (tmp_path / "f").read_text() == "x"


def test_a_named_link_is_followed(user: User, session: str, tmp_path: Path) -> None:
    user.gets("exec", session, "--", "mkdir -p real && echo x > real/f && ln -sfn real folder && ln -sf real/f file")
    (tmp_path / "g").write_text("y")
    user.gets("cp", str(tmp_path / "g"), f"{session}:folder")
    assert user.gets("exec", session, "--", "cat real/g") == "y"
    user.gets("cp", f"{session}:folder", str(tmp_path / "out"))
    assert _tree(tmp_path / "out") == {"f": b"x\n", "g": b"y"}
    user.gets("cp", f"{session}:file", str(tmp_path / "one"))
    assert (tmp_path / "one").read_text() == "x\n"


def test_a_link_that_leads_out_of_its_folder_is_not_copied_out_of_the_session(
    user: User, session: str, tmp_path: Path
) -> None:
    for number, target in enumerate(("/etc/passwd", "../../..")):
        user.gets("exec", session, "--", f"mkdir -p sly && ln -sfn {target} sly/link")
        out = tmp_path / str(number)
        assert "sly was only partly copied: " in user.is_refused("cp", f"{session}:sly", str(out))
        assert not list(out.iterdir())


def test_a_hard_link_to_a_link_that_leads_out_is_not_copied_out(user: User, session: str, tmp_path: Path) -> None:
    secret = tmp_path / ".ssh/id"
    secret.parent.mkdir()
    secret.write_text("mine")
    secret.chmod(0o600)
    made = "mkdir -p trap/a trap/.ssh && cd trap && echo decoy > .ssh/id && ln -s ../.ssh/id a/up && ln -P a/up notes"
    user.gets("exec", session, "--", made)
    assert "trap was only partly copied: " in user.is_refused("cp", f"{session}:trap", str(tmp_path / "out"))
    assert not (tmp_path / "out/notes").is_symlink()
    assert secret.stat().st_mode & 0o777 == 0o600


def test_a_local_device_is_written_to(user: User, session: str, tmp_path: Path) -> None:
    user.gets("exec", session, "--", "printf shown > file")
    assert user.gets("cp", "-q", f"{session}:file", "/dev/stdout").startswith("shown")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        user.gets("cp", f"{session}:file", str(fifo))
        assert os.read(reader, 9) == b"shown"
        assert fifo.is_fifo()
    finally:
        os.close(reader)


def test_a_dash_is_the_standard_input_or_output(user: User, session: str) -> None:
    content = os.urandom(3_000_000)
    assert user.runs("cp", "-", f"{session}:piped", typed=content).returncode == 0
    done = user.runs("cp", f"{session}:piped", "-")
    assert (done.returncode, done.stdout == content, done.stderr) == (0, True, b"")
    assert "is a folder" in user.is_refused("cp", "-", f"{session}:")


def test_a_missing_file_is_not_copied(user: User, session: str, tmp_path: Path) -> None:
    assert "There is no local file or folder" in user.is_refused("cp", str(tmp_path / "none"), f"{session}:x")
    assert "There is no file or directory at 'none'" in user.is_refused("cp", f"{session}:none", str(tmp_path / "x"))
    assert not (tmp_path / "x").exists()


def test_a_person_sees_the_progress_of_a_copy(user: User, session: str, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(os.urandom(20 << 20))
    with user.opens_terminal("cp", str(tmp_path / "big"), f"{session}:big") as terminal:
        assert terminal.ends() == 0
        assert b"21.0/21.0 MB" in terminal.seen
    with user.opens_terminal("cp", f"{session}:big", str(tmp_path / "back")) as terminal:
        assert terminal.ends() == 0
        assert b"21.0/21.0 MB" in terminal.seen
    assert (tmp_path / "back").read_bytes() == (tmp_path / "big").read_bytes()


# --- processes ---


def test_a_process_is_started_followed_and_stopped(user: User, session: str) -> None:
    command = "echo up; echo warn >&2; exec python3 -um http.server 8123"
    process = user.gets("start", session, "--name", "web", "--wait-port", "8123", "--", command)
    assert re.fullmatch(r"proc_[a-z0-9]+", process)
    head, row = user.gets("ps", session).splitlines()[:2]
    assert head.split() == ["PROCESS", "NAME", "STATE", "STARTED", "COMMAND"]
    assert re.match(rf"{process} +web +running +\d+ s ago +{re.escape(command)}", row)
    done = user.runs("logs", session, "web")
    assert done.stdout.startswith(b"up\n")
    assert done.stderr.startswith(b"warn\n")
    following = user.begins("logs", session, process, "--follow", "--json")
    assert following.stdout is not None
    first = json.loads(following.stdout.readline())
    assert (first["stream"], first["data"]) == ("stdout", "up\n")
    assert user.gets("stop", session, "web") == process
    following.communicate(timeout=PATIENCE)
    assert following.returncode == 0
    assert re.search(rf"{process} +web +exited 143", user.gets("ps", session))


def test_logs_end_even_if_the_process_keeps_writing(user: User, session: str) -> None:
    process = user.gets("start", session, "--", "echo first; while :; do echo more; sleep 0.001; done")
    for _ in range(2):
        assert user.runs("logs", session, process).stdout.startswith(b"first\nmore\n")
    user.gets("stop", session, process)


def test_a_process_that_ends_before_it_is_ready_is_an_error(user: User, session: str) -> None:
    done = user.runs("start", session, "--wait-port", "8124", "--", "echo no >&2; exit 3")
    assert done.returncode == 1
    assert re.fullmatch(rb"proc_[a-z0-9]+\n", done.stdout)
    assert b"The process is not ready: exited 3. See: buntime logs" in done.stderr
    assert b"no\n" in user.runs("logs", session).stderr


def test_a_start_says_that_the_port_was_in_use_before(user: User, session: str) -> None:
    serve = ("start", session, "--wait-port", "8125", "--", "python3 -m http.server 8125")
    first = user.gets(*serve)
    done = user.runs(*serve)
    assert done.returncode == 1
    assert b"The process is not ready: exited 1. Port 8125 was already in use before it started. See:" in done.stderr
    user.gets("stop", session, first)


def test_logs_continue_after_a_broken_connection(server: Server, user: User, session: str) -> None:
    count = "echo 1; until [ -e on ]; do sleep 0.05; done; for i in $(seq 2 50); do echo $i; sleep 0.02; done; exit 9"
    user.gets("start", session, "--name", "count", "--", count)
    with Relay(server.config.port) as relay:
        following = User(f"http://127.0.0.1:{relay.port}", user.key).begins("logs", session, "count", "-f")
        assert following.stdout is not None
        seen = following.stdout.readline()
        relay.cut()
        user.gets("exec", session, "--", "touch on")
        out, err = following.communicate(timeout=PATIENCE)
        assert relay.connections > 1
    assert (following.returncode, err) == (0, b"")
    assert (seen + out).split() == [str(number).encode() for number in range(1, 51)]


# --- previews ---


def test_a_preview_is_opened_in_the_browser(user: User, session: str, tmp_path: Path) -> None:
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    browser.chmod(0o755)
    sitting = User(user.url, user.key, {"BROWSER": str(browser)})
    with sitting.opens_terminal("open", session) as terminal:
        assert terminal.ends() == 0
        url = terminal.seen.decode().strip()
    until((tmp_path / "opened").exists, "the browser to open")
    assert (tmp_path / "opened").read_text().strip() == url
    assert user.gets("open", session) == url


def test_the_url_of_a_port_that_is_not_public_has_a_token(user: User, session: str) -> None:
    assert "token" not in user.gets("open", session)
    for words in (("--port", "8125"), ("--private",)):
        told = json.loads(user.gets("open", session, "--json", *words))
        assert told["token"] is True
        assert "token=" in told["url"] or "preview" in told["url"]
    revoked = [json.loads(user.gets("open", session, "--revoke", "--json"))["revoked"] for _ in range(2)]
    assert revoked[0] >= 2  # other tests share the session
    assert revoked[1] == 0


# --- shell ---


def test_a_shell_takes_keys_and_resizes_and_ends_with_its_exit_status(user: User, session: str) -> None:
    with user.opens_terminal("shell", session, cols=100, rows=30) as terminal:
        terminal.sees("# ")
        assert not terminal.is_as_before
        terminal.types("stty size\r")
        terminal.sees("30 100\r\n")
        terminal.resize(72, 20)
        until(lambda: _asks(terminal, "stty size", b"20 72"), "the new size to arrive")
        terminal.types("sh -c 'echo be''gun; exec cat'\r")
        terminal.sees("begun\r\n")  # until then, Ctrl-C may reach the shell
        terminal.types(b"\x03")
        terminal.sees("^C")
        terminal.sees("# ")  # until then, what is typed is lost with cat
        terminal.types("exit 5\r")
        assert terminal.ends() == 5
        assert terminal.is_as_before


def _asks(terminal: Terminal, command: str, answer: bytes) -> bool:
    terminal.types(f"{command}; echo as''ked\r")
    return answer in terminal.sees("asked\r\n")


def test_a_shell_continues_where_it_was_after_a_lost_connection(server: Server, user: User, session: str) -> None:
    with Relay(server.config.port) as relay:
        away = User(f"http://127.0.0.1:{relay.port}", user.key)
        with away.opens_terminal("shell", session) as terminal:
            terminal.sees("# ")
            terminal.types("kept=$((40 + 2)); echo as''ked\r")
            terminal.sees("asked\r\n")
            relay.cut()
            terminal.sees("The connection is lost. Retrying;")
            until(lambda: _asks(terminal, "echo $kept", b"42\r\n"), "the shell to be back")
            assert relay.connections > 1
            terminal.types("exit\r")
            assert terminal.ends() == 0
            assert terminal.is_as_before


def test_a_person_can_stop_retrying_a_lost_connection(server: Server, user: User, session: str) -> None:
    with Relay(server.config.port) as relay:
        away = User(f"http://127.0.0.1:{relay.port}", user.key)
        with away.opens_terminal("shell", session) as terminal:
            terminal.sees("# ")
            relay.__exit__()
            terminal.sees("press Ctrl-C to stop.")
            terminal.types(b"\x03")
            assert terminal.ends() == 130
            assert terminal.is_as_before


def test_a_left_shell_can_be_reopened_and_its_previous_client_is_told(user: User, session: str) -> None:
    with user.opens_terminal("shell", session) as terminal:
        terminal.sees("# ")
        terminal.types("kept=$((40 + 2))\r")
        terminal.types("~.")
        assert terminal.ends() == 0
        assert terminal.is_as_before
        found = re.search(rb"buntime shell ses_\w+ --terminal (term_\w+)", terminal.seen)
        assert found is not None
    again = ("shell", session, "--terminal", found[1].decode())
    with user.opens_terminal(*again) as first:
        assert _asks(first, "echo $kept", b"42\r\n")
        with user.opens_terminal(*again) as second:
            assert _asks(second, "echo $kept", b"42\r\n")
            assert first.ends() == 1
            assert b"buntime: Another client took over this terminal." in first.seen
            assert first.is_as_before
            second.types("exit\r")
            assert second.ends() == 0


def test_a_closed_window_restores_the_terminal(user: User, session: str) -> None:
    with user.opens_terminal("shell", session) as terminal:
        terminal.sees("# ")
        terminal.hangs_up()
        assert terminal.ends() == 129
        assert terminal.is_as_before


def test_a_shell_whose_session_is_deleted_says_so(user: User) -> None:
    made = user.gets("create")
    with user.opens_terminal("shell", made) as terminal:
        terminal.sees("# ")
        user.gets("rm", made)
        assert terminal.ends() == 1
        assert b"buntime: " in terminal.seen
        assert b"Traceback" not in terminal.seen
        assert terminal.is_as_before


def test_a_shell_needs_a_terminal(user: User, session: str) -> None:
    assert "A shell needs a terminal. Without one, use: buntime exec" in user.is_refused("shell", session)


# --- refusals ---


def test_an_error_is_one_line_with_the_remedy(user: User, session: str) -> None:
    without = User(user.url, "")
    assert "Set BUNTIME_API_KEY, or" in User(user.url, "ü").is_refused("ls")
    assert "must begin with http://" in User("localhost:8000", user.key).is_refused("ls")
    assert "Set BUNTIME_API_KEY, or use: buntime login." in without.is_refused("ls")
    assert "Set BUNTIME_API_KEY to a valid key" in User(user.url, "btk_" + "x" * 38).is_refused("ls")
    assert (
        "Nothing listens at http://127.0.0.1:9: the connection was refused. Start a server with scripts/serve"
        in User("http://127.0.0.1:9", user.key).is_refused("ls")
    )
    assert "List sessions with: buntime ls" in user.is_refused("exec", "ses_" + "a" * 18, "1")
    assert "List sessions with: buntime ls" in user.is_refused("exec", "ses_aaaa", "1")
    assert "Write its id, at least 4 characters" in user.is_refused("exec", "ses_a", "1")
    assert "has no process nothing. List processes with: buntime ps ses_" in user.is_refused("logs", session, "nothing")
    assert "List processes with: buntime ps" in user.is_refused("logs", session, "proc_" + "a" * 18)
    assert "ttl" in user.is_refused("create", "--ttl", "1s")
    assert "buntime rm --all --yes" in user.is_refused("rm", "--all")


def test_an_error_for_programs_is_the_error_of_the_api(user: User) -> None:
    done = user.runs("wake", "ses_" + "a" * 18, "--json")
    assert (done.returncode, done.stdout) == (1, b"")
    error = json.loads(done.stderr)["error"]
    assert set(error) == {"code", "message", "retryable", "details", "requestId"}
    assert (error["code"], error["retryable"]) == ("session_not_found", False)
    assert error["requestId"]


def test_a_run_that_hits_a_limit_is_an_error_after_its_output(user: User) -> None:
    made = user.gets("create", "--memory", "64")
    done = user.runs("exec", made, "--", "echo before; tail /dev/zero")
    user.gets("rm", made)
    assert done.stdout == b"before\n"
    assert done.returncode == 1
    assert re.search(rb"buntime: .*memory.* buntime create --memory MB\n$", done.stderr)


@pytest.mark.parametrize(
    "words",
    [
        ("exec", "shared"),
        ("exec", "shared", "--"),
        ("exec", "shared", "1", "--", "ls"),
        ("exec", "shared", "--timeout", "soon", "1"),
        ("exec", "shared", "-e", "A", "1"),
        ("create", "--egress", "some"),
        ("run", "/nowhere.ts"),
        ("cp", "here", "there"),
        ("cp", "shared:a", "shared:b"),
        ("start", "shared"),
        ("rm",),
        ("rm", "shared", "--all"),
        ("ls", "--state", "awake"),
    ],
)
def test_wrong_usage_is_status_2_and_sends_no_request(user: User, words: tuple[str, ...]) -> None:
    nowhere = User("http://127.0.0.1:9", user.key)
    done = nowhere.runs(*words)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"Usage: buntime" in done.stderr


# --- for programs ---


def test_every_result_is_json_as_in_the_api(user: User, client: Client, session: str, tmp_path: Path) -> None:
    def told(*words: str) -> Any:
        return json.loads(user.gets(*words, "--json"))

    made = told("create", "--name", "told", "--metadata", "my_key=x")
    shown = client.call("GET", f"/sessions/{made['sessionId']}").done()
    [listed] = told("ls", "--name", "told")
    assert made.items() <= shown.items()
    assert listed == shown
    assert (shown["name"], shown["metadata"]) == ("told", {"my_key": "x"})
    assert told("exec", "told", "console.log(1)").items() >= {"stdout": "1\n", "exitCode": 0, "timedOut": False}.items()
    (tmp_path / "f.ts").write_text("console.error('e'); process.exit(2)")
    ran = user.runs("run", "--json", str(tmp_path / "f.ts"))
    assert (ran.returncode, json.loads(ran.stdout)["stderr"]) == (2, "e\n")
    assert told("cp", str(tmp_path / "f.ts"), "told:") == {"path": "/workspace/f.ts"}
    started = told("start", "told", "sleep 100", "--name", "s")
    [seen] = told("ps", "told")
    process = client.call("GET", f"/processes/list?sessionId={made['sessionId']}").done()["processes"][0]
    assert started == seen == process
    assert told("stop", "told", "s", "--signal", "SIGKILL")["processId"] == started["processId"]
    assert told("open", "told") == {"url": shown["previewUrl"], "port": 8080, "token": False}
    assert told("sleep", "told")["state"] == "idle"
    woken = told("wake", "told")
    assert (woken["state"], woken["wokeFrom"]) == ("active", "idle")
    usage = told("usage", "--now")
    assert usage["sessions"]["all"]["sessions"] >= 2
    assert set(usage["rateLimit"]) == {"limit", "remaining", "reset"}
    used = told("usage", "--session", "told", "--by", "session")
    assert [group["sessionId"] for group in used["groups"]] == [made["sessionId"]]
    assert used["total"]["executions"] >= 1
    assert told("rm", "told") == {"deleted": [made["sessionId"]]}


# --- settings ---


def test_a_session_is_changed_and_inspected(user: User) -> None:
    user.gets("create", "--name", "before", "--metadata", "team=a", "--env", "A=1")
    try:
        user.gets("update", "before", "--name", "after", "--ttl", "2h", "--private", "--egress", "none")
        told = json.loads(user.gets("inspect", "after", "--json"))
        assert (told["name"], told["metadata"]) == ("after", {"team": "a"})
        assert (told["preview"], told["network"]["egress"]) == ({"visibility": "private", "ports": [8080]}, "none")
        assert re.search(r" ends in (1 h|59 min)\.", user.gets("extend", "after", "1h"))
        assert "There is no session before" in user.is_refused("inspect", "before")
    finally:
        user.gets("rm", "after")


# --- login ---


def test_a_login_replaces_the_environment_until_its_logout(user: User, session: str, tmp_path: Path) -> None:
    kept = {"XDG_CONFIG_HOME": str(tmp_path), "BUNTIME_URL": "", "BUNTIME_API_KEY": ""}
    home = User(user.url, user.key, kept)
    assert "There is no API key" in home.is_refused("ls")
    assert home.runs("login", "here", "--url", user.url, typed=b"btk_wrong\n").returncode == 1
    done = home.runs("login", "here", "--url", user.url, typed=user.key.encode() + b"\n")
    assert done.returncode == 0, done.stderr
    assert user.key.encode() not in done.stdout + done.stderr
    assert session in home.gets("ls")
    assert session in home.gets("--server", "here", "ls")
    assert "There is no server there" in home.is_refused("--server", "there", "ls")
    assert "wins over --server here" in User(user.url, user.key, {"XDG_CONFIG_HOME": str(tmp_path)}).is_refused(
        "--server", "here", "ls"
    )
    home.gets("logout", "here")
    assert "There is no API key" in home.is_refused("ls")


def test_a_key_is_asked_for_without_showing_it(user: User, tmp_path: Path) -> None:
    kept = {"XDG_CONFIG_HOME": str(tmp_path), "BUNTIME_URL": "", "BUNTIME_API_KEY": ""}
    with User(user.url, user.key, kept).opens_terminal("login", "--url", user.url) as terminal:
        terminal.sees("API key: ")
        terminal.types(f"{user.key}\r")
        assert terminal.ends() == 0
    assert b"Logged in" in terminal.seen
    assert user.key.encode() not in terminal.seen


# --- forward ---

SERVER = """
Bun.serve({ port: 9000, hostname: "127.0.0.1", fetch(request, server) {
  if (server.upgrade(request)) return;
  const seen = [request.method, new URL(request.url).pathname, String(request.headers.get("x-preview-token"))];
  return new Response(seen.join(" "));
}, websocket: { message(socket, text) { socket.send("got " + text); } } });
"""


def test_a_local_port_carries_http_and_websocket_to_a_private_preview_and_wakes_it(user: User, tmp_path: Path) -> None:
    (tmp_path / "server.ts").write_text(SERVER)
    user.gets("create", "--name", "forwarded", "--private")
    running = None
    try:
        user.gets("cp", str(tmp_path / "server.ts"), "forwarded:server.ts")
        user.gets("start", "forwarded", "--wait-port", "9000", "--", "bun", "server.ts")
        running = user.begins("forward", "forwarded", "9000:0", "--json")
        assert running.stdout is not None
        url = json.loads(running.stdout.readline())["url"]
        with httpx2.Client(base_url=url, timeout=PATIENCE) as browser:
            assert browser.get("/a").text == "GET /a null"
            user.gets("sleep", "forwarded")
            assert browser.post("/b", content=b"x" * 100_000).text == "POST /b null"
            assert browser.get("/", headers={"Host": "evil.example"}).status_code == 421
        with connect(url.replace("http", "ws")) as talk:
            talk.send("hello")
            assert talk.recv(PATIENCE) == "got hello"
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=PATIENCE)
        assert (running.returncode, out, err) == (130, b"", b"")
    finally:
        if running is not None and running.poll() is None:
            running.kill()
            running.communicate()
        user.gets("rm", "forwarded")


def test_a_local_port_that_is_in_use_is_refused(user: User, session: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        said = user.is_refused("forward", session, f"8080:{port}")
    assert f"Cannot listen on port {port} of this machine: " in said


# --- completion and start ---


def completed(user: User, line: str) -> list[str]:
    """What bash offers after the line."""
    script = user.gets("completion", "bash")
    asked = f"COMP_LINE='buntime {line}'; COMP_POINT=${{#COMP_LINE}}; _buntime_completion {BUNTIME}"
    done = subprocess.run(
        ["bash", "-c", f'{script}\n{asked}; printf "%s\\n" "${{COMPREPLY[@]}}"'],
        env=user.environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize("begun", ["ses_", "ses_{}", "shar"])
def test_bash_completes_sessions(user: User, session: str, begun: str) -> None:
    whole = user.gets("ls", "-q", "--name", session)
    assert (session if begun == "shar" else whole) in completed(user, f"exec {begun.format(whole[4:8])}")


def test_bash_completes_paths_in_a_session(user: User, session: str) -> None:
    user.gets("exec", session, "--", "mkdir -p tree/deep && touch tree/one.ts tree/two.ts 'tree/$(reboot)'")
    assert completed(user, f"cp {session}:tre") == ["tree/"]
    assert sorted(completed(user, f"cp {session}:tree/")) == ["tree/deep/", "tree/one.ts", "tree/two.ts"]
    assert completed(user, "cp shar") == [f"{session}:"]


def test_zsh_and_fish_get_the_state_of_each_session(user: User, session: str) -> None:
    asked = {"_BUNTIME_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "buntime exec shar"}
    said = User(user.url, user.key, asked).gets()
    assert re.search(r'"shared":"\w+, ends in \d+ [dh]"', said)
    asked = {"_BUNTIME_COMPLETE": "complete_fish", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    said = User(user.url, user.key, {**asked, "_TYPER_COMPLETE_ARGS": "buntime rm shar"}).gets()
    assert re.fullmatch(r"shared\t\w+, ends in \d+ [dh]", said)


def test_completion_is_silent_if_no_server_answers(user: User) -> None:
    asked = {"_BUNTIME_COMPLETE": "complete_bash", "COMP_WORDS": "buntime exec s", "COMP_CWORD": "2"}
    for url, key in (("http://127.0.0.1:9", user.key), (user.url, "btk_no"), (user.url, ""), (user.url, "ü")):
        done = User(url, key, asked).runs()
        assert (done.stdout.strip(), done.stderr) == (b"", b"")


@pytest.mark.parametrize(("shell", "begins"), [("bash", "_buntime"), ("zsh", "#compdef buntime"), ("fish", "complete")])
def test_each_shell_has_its_script(user: User, shell: str, begins: str) -> None:
    script = user.gets("completion", shell)
    assert script.startswith(begins)
    assert f"_BUNTIME_COMPLETE=complete_{shell}" in script


def test_a_command_imports_nothing_of_the_server_and_no_unused_libraries(user: User) -> None:
    traced = {"PYTHONPROFILEIMPORTTIME": "1"}
    said = User(user.url, user.key, traced).runs("ls").stderr.decode()
    loaded = {line.rpartition("|")[2].strip() for line in said.splitlines() if line.startswith("import time:")}
    assert {name.split(".")[0] for name in loaded} & {"buntime", "buntime_cli"} == {"buntime_cli"}
    assert {name for name in loaded if name.startswith("buntime_cli.mcp.")} == {"buntime_cli.mcp.command"}
    assert not {"rich", "sqlite3", "uvicorn", "aiohttp", "websockets", "mcp"} & loaded
    said = User(user.url, user.key, traced).runs("--help").stderr.decode()
    loaded = {line.rpartition("|")[2].strip() for line in said.splitlines() if line.startswith("import time:")}
    assert not {"buntime_sdk", "httpx2", "rich", "ssl", "asyncio", "pydantic"} & loaded


# --- documentation ---


def test_all_documented_commands_are_run() -> None:
    assert len(DOCUMENTED) == 6


@pytest.mark.parametrize("number", range(6))
def test_the_documented_commands_work(user: User, client: Client, tmp_path: Path, number: int) -> None:
    before = ids(client)
    script = DOCUMENTED[number]
    (tmp_path / "hello.ts").write_text("console.log('Hello')")
    beside = f"{BUNTIME.parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env={**user.environment, "PATH": beside},
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shown = [
        *(["Hello you\n", "\n42\n"], ["  ci"], ["  job   active "], ["\none\n", "  first\n", "  before-restore\n"]),
        *(["\n2\n", "Hello you\n", '"exitCode": 1', "exit status 1\n"], []),
    ]
    for said in shown[number]:
        assert said in done.stdout
    assert ids(client) == before


def test_every_command_is_in_the_documentation(user: User) -> None:
    commands = re.findall(r"^  (\w+)  ", user.gets("--help").partition("Commands:")[2], re.M)
    assert len(commands) > 15
    assert not [command for command in commands if not re.search(rf"`(buntime )?{command}\b|buntime {command}\b", PAGE)]
