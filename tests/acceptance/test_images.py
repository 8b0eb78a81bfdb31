"""Sessions on images that the operator has added: one like Debian, one like Alpine, and one without a shell."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from buntime.sandboxes.kernel.image import image_id, sources
from tests import rootfs
from tests.acceptance import traces
from tests.acceptance.client import Client, Session
from tests.acceptance.conftest import Servers
from tests.acceptance.server import IMAGES, Server
from tests.acceptance.sleeping import deep_sleep, state
from tests.acceptance.test_terminals import refused, terminal_user
from tests.waiting import until

pytestmark = pytest.mark.sandbox

WITH_SHELL = ("deb", "musl")
ALL = (*WITH_SHELL, "bare")
NO_SHELL = "buntime: this needs a shell, and the session's image has neither bash nor /bin/sh\n"


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Has a root file system of each name in ALL."""
    directory, image = tmp_path_factory.mktemp("roots"), IMAGES / image_id(sources())
    rootfs.debian_like(directory / "deb", image)
    rootfs.musl_like(directory / "musl")
    rootfs.shell_less(directory / "bare", image)
    return directory


@pytest.fixture(scope="module")
def client(server: Server, roots: Path) -> Iterator[Client]:
    """On a server that has all images."""
    for name in ALL:
        server.cli("images", "add", name, str(roots / name))
    yield server.new_client("enterprise")
    for name in ALL:
        server.cli("images", "remove", name)


@pytest.fixture(params=ALL)
def session(client: Client, request: pytest.FixtureRequest) -> Iterator[Session]:
    session = client.open(image=request.param)
    yield session
    session.delete().done()


@pytest.fixture(params=WITH_SHELL)
def with_shell(client: Client, request: pytest.FixtureRequest) -> Iterator[Session]:
    session = client.open(image=request.param)
    yield session
    session.delete().done()


@pytest.fixture
def bare(client: Client) -> Iterator[Session]:
    session = client.open(image="bare")
    yield session
    session.delete().done()


def image_of(session: Session) -> str:
    return str(session.look().done()["image"])


# --- in every image ---


def test_code_runs_by_bun_which_can_start_itself(session: Session) -> None:
    code = """const { execFileSync } = require("node:child_process");
        console.log(execFileSync(process.execPath, ["-e", "console.log(6 * 7)"]).toString().trim());
        console.log(execFileSync("bun", ["--version"]).toString().trim() === Bun.version, process.cwd())"""
    assert session.code(code)["stdout"] == "42\ntrue /workspace\n"


def test_code_runs_again_and_again_with_files_and_its_directory(session: Session) -> None:
    session.write("a/b.ts", "export const b: number = 7").done()
    for n in range(3):
        ran = session.code(f"import {{ b }} from './b.ts'; console.log(b + {n}, process.cwd())", workingDir="a")
        assert ran["stdout"] == f"{7 + n} /workspace/a\n", ran
        time.sleep(0.1)  # so that a process is prepared for the next one
    assert session.text("a/b.ts").startswith("export")
    session.delete_file("a", recursive=True).done()
    assert session.list().done()["total"] == 0


def test_a_context_keeps_its_variables(session: Session) -> None:
    made = session.client.call("POST", "/contexts/create", json_body={"sessionId": session.id, "workingDir": "/etc"})
    context = made.done()["contextId"]
    session.code("let n = 41; const where = process.cwd()", contextId=context)
    assert session.code("[n + 1, where]", contextId=context)["result"]["json"] == [42, "/etc"]


def test_a_server_in_the_session_is_at_the_preview_url(session: Session) -> None:
    serve = "Bun.serve({ port: 8080, hostname: 'localhost', fetch: () => new Response('from ' + process.platform) })"
    body = {"sessionId": session.id, "code": serve}
    session.client.call("POST", "/processes/start", json_body=body).done()
    host = f"{session.id.replace('_', '-')}.localhost:{session.client.port}"
    until(lambda: session.client.call("GET", "/", headers={"Host": host}).body == b"from linux", "the preview")


def test_files_and_image_are_the_same_after_deep_sleep(session: Session) -> None:
    session.write("kept", "kept").done()
    before = session.code("console.log(require('fs').readdirSync('/').join())")["stdout"]
    deep_sleep(session)
    after = session.code("console.log(require('fs').readdirSync('/').join())")["stdout"]
    assert (session.text("kept"), after) == ("kept", before)


def test_a_session_sees_its_limits_and_hosts_and_owns_its_root(session: Session) -> None:
    code = """const fs = require("fs"), os = require("os");
        console.log(fs.readFileSync("/etc/hosts", "utf8").trim(), os.hostname());
        console.log(fs.readFileSync("/proc/meminfo", "utf8").split("\\n")[0].split(" ").at(-2));
        console.log(fs.statSync("/").uid, fs.statSync("/tmp").mode & 0o7777, fs.statSync("/run/guest/bun").uid);
        fs.writeFileSync("/own", "1"); fs.renameSync("/own", "/usr/own"); console.log(process.getuid())"""
    assert session.code(code)["stdout"] == "127.0.0.1 localhost session session\n1048576\n0 1023 0\n0\n"


# --- with a shell ---


def test_commands_run_by_the_images_shell(with_shell: Session) -> None:
    ran = with_shell.output("cat; pwd; echo $0 ${BASH_VERSION:-none}", stdin="in\n", workingDir="/etc")
    shell, version = ran.splitlines()[2].split()
    assert ran.startswith("in\n/etc\n")
    assert (shell, version == "none") == {"deb": ("/usr/bin/bash", False), "musl": ("/bin/sh", True)}[
        image_of(with_shell)
    ]


def test_a_command_that_is_too_long_for_an_argument_runs(with_shell: Session) -> None:
    assert with_shell.output(f': {"a" * 150_000}; echo "it\'s $((6 * 7))"') == "it's 42\n"


def test_a_process_runs_in_the_background_and_its_output_is_kept(with_shell: Session) -> None:
    client, body = with_shell.client, {"sessionId": with_shell.id, "command": "read line; echo got $line; exit 3"}
    process = client.call("POST", "/processes/start", json_body=body).done()["processId"]
    query = {"sessionId": with_shell.id, "processId": process}
    client.call("POST", "/processes/input", json_body={**query, "data": "it\n"}).done()
    until(lambda: client.call("GET", "/processes/get", query=query).done()["exitCode"] == 3, "the process to end")
    assert client.call("GET", "/processes/logs", query=query).done()["entries"][0]["data"] == "got it\n"


def test_a_terminal_is_interactive(with_shell: Session) -> None:
    with terminal_user(with_shell) as terminal:
        terminal.type("echo $((6 * 7)) $TERM\n")
        terminal.sees("42 xterm-256color")
        terminal.type("sleep 1000\n")
        time.sleep(0.3)
        terminal.type(b"\x03")
        terminal.type("echo ended: $?\n")
        terminal.sees("ended: 130")
        terminal.type("exit 5\n")
        assert terminal.end()[0]["exitCode"] == 5


# --- without a shell ---


def test_a_command_without_a_shell_ends_with_127_and_says_why(bare: Session) -> None:
    for fields in ({}, {"stdin": "x"}, {"workingDir": "/etc"}, {"env": {"A": "1"}}):
        ran = bare.command("echo hello", **fields)
        assert (ran["exitCode"], ran["stdout"], ran["stderr"]) == (127, "", NO_SHELL)
    assert bare.command(f": {'a' * 150_000}")["stderr"] == NO_SHELL
    assert bare.code("console.log(1)")["stdout"] == "1\n"


def test_a_process_without_a_shell_ends_with_127_and_a_terminal_is_refused(bare: Session) -> None:
    body = {"sessionId": bare.id, "command": "sleep 100"}
    process = bare.client.call("POST", "/processes/start", json_body=body).done()["processId"]
    query = {"sessionId": bare.id, "processId": process}
    until(lambda: bare.client.call("GET", "/processes/get", query=query).done()["exitCode"] == 127, "its end")
    assert refused(bare) == (409, "invalid_state")


def test_what_needs_a_program_of_the_image_is_refused_with_its_name(bare: Session) -> None:
    for path, program in (("/files/archive?path=.", "tar"), ("/files/search?glob=*", "rg")):
        answer = bare.client.call("GET", f"{path}&sessionId={bare.id}")
        answer.refused(409, "invalid_state")
        assert f"This needs {program} " in answer.error["message"]


# --- names ---


def test_a_running_server_sees_an_image_at_once_and_no_more_when_it_is_removed(servers: Servers, roots: Path) -> None:
    server = servers.start(pool_size=1)
    client = server.new_client()
    client.create(image="one").refused(404, "image_not_found")
    server.cli("images", "add", "one", str(roots / "bare"))
    (shown,) = client.call("GET", "/images").done()["images"]
    assert (shown["name"], shown["sizeBytes"]) == ("one", (roots / "bare/program").stat().st_size)
    session = client.open(image="one")
    assert server.cli("images", "list").splitlines()[1].split()[:2] == ["one", shown["imageId"]]
    server.cli("images", "remove", "one")
    assert client.call("GET", "/images").done() == {"images": [], "total": 0}
    client.create(image="one").refused(404, "image_not_found")
    session.write("kept", "kept").done()
    deep_sleep(session)
    assert (session.text("kept"), image_of(session), state(session)) == ("kept", "one", "active")
    server.stop()
    server.start()
    assert session.code("console.log(await Bun.file('kept').text())")["stdout"] == "kept\n"
    assert (IMAGES / shown["imageId"]).is_dir()
    session.delete().done()
    traces.wait_until_whole(server.config, 0, server.parked)
    server.stop()
    server.start()
    marks = IMAGES / "uses" / shown["imageId"] / server.config.instance
    assert not marks.exists()


def test_images_can_be_added_while_no_server_runs_and_two_names_can_share_one(servers: Servers, roots: Path) -> None:
    server = servers.start(pool_size=0)
    server.stop()
    for name in ("a", "b"):
        server.cli("images", "add", name, str(roots / "musl"))
    server.start()
    client = server.new_client()
    first, second = client.call("GET", "/images").done()["images"]
    assert first["imageId"] == second["imageId"]
    session = client.open(image="b")  # no sandbox is parked: it is started from nothing
    assert session.output("echo $((6 * 7))") == "42\n"
    server.cli("images", "remove", "a")
    assert session.code("console.log(1)")["stdout"] == "1\n"


def test_a_name_that_is_given_to_another_image_changes_new_sessions_alone(server: Server, roots: Path) -> None:
    client = server.new_client()
    server.cli("images", "add", "moving", str(roots / "musl"))
    old = client.open(image="moving")
    server.cli("images", "add", "moving", str(roots / "deb"))
    new = client.open(image="moving")
    deep_sleep(old)
    ids = [each.output("cat /etc/os-release") for each in (old, new)]
    assert ids == ["ID=alpine\n", "ID=debian\n"]
    server.cli("images", "remove", "moving")


def test_what_a_command_cannot_do_it_says_in_one_line(server: Server, tmp_path: Path) -> None:
    for words, why in (
        (("add", "default", str(tmp_path)), "is the name of the host's own image"),
        (("add", "Upper", str(tmp_path)), "1 to 63 characters"),
        (("add", "none", "/none/such"), "There is no directory or archive /none/such"),
        (("remove", "none"), "There is no image none"),
    ):
        done = server.run_cli("images", *words)
        assert done.returncode == 1
        assert done.stderr.startswith("buntime: ")
        assert why in done.stderr


def test_sessions_on_one_image_do_not_share_what_they_write(client: Client) -> None:
    one, other = client.open(image="musl"), client.open(image="musl")
    one.output("echo changed > /etc/os-release; rm /bin/tar")
    assert other.output("cat /etc/os-release; ls /bin/tar") == "ID=alpine\n/bin/tar\n"
    for session in (one, other):
        session.delete().done()
