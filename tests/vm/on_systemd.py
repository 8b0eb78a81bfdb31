"""The server as a service of systemd on Debian 13. Only scripts/test --vm runs these tests: they change the machine.

The name of this file keeps pytest from collecting it elsewhere.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.acceptance import traces
from tests.acceptance.client import Client, Session
from tests.acceptance.server import BUNTIME
from tests.acceptance.test_terminals import terminal_user
from tests.vm import service as systemd
from tests.vm.service import Service, run

CGROUPS = Path("/sys/fs/cgroup")
PATIENCE = 60.0  # seconds; a guard against a hang
HOG = "const kept = []; for (;;) kept.push(Buffer.alloc(8e6, 1))"
PAGE = "Bun.serve({ port: 8080, fetch: () => new Response('hello') })"


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with systemd.running() as service:
        yield service


@pytest.fixture(scope="module")
def client(service: Service) -> Client:
    return service.new_client("enterprise")


@pytest.fixture
def session(client: Client) -> Iterator[Session]:
    session = client.open()
    yield session
    session.delete().done()


def _until(seen: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not seen():
        assert time.monotonic() < deadline, f"timed out waiting for: {what}"
        time.sleep(0.05)


def _state(session: Session) -> str:
    return str(session.look().done()["state"])


def _sleep(session: Session, depth: str) -> None:
    path = f"/sessions/{session.id}/sleep"
    assert session.client.call("POST", path, json_body={"depth": depth}).done()["state"] == depth


def _output_when_awake(session: Session, command: str) -> str:
    """An emulated machine may take longer to wake a session than a request waits: then the client tries again."""
    deadline = time.monotonic() + PATIENCE
    while (reply := session.execute(command=command)).status == 503:
        assert reply.refused(503, "unavailable")["waking"] is True
        assert time.monotonic() < deadline, "it never wakes"
    return str(reply.done()["stdout"])


def _visit(session: Session) -> bytes:
    host = f"{session.id.replace('_', '-')}.localhost:{session.client.port}"
    return Client(session.client.port, None).call("GET", "/", headers={"Host": host}).body


def _serve_page(session: Session) -> None:
    session.write("page.ts", PAGE).done()
    body = {"sessionId": session.id, "command": "bun page.ts", "waitFor": {"port": 8080, "timeout": 60}}
    session.client.call("POST", "/processes/start", json_body=body).done()


def _background(session: Session) -> str:
    """The pid inside of a process that goes on."""
    return f"{session.sleeper()}\n"


# --- the machine ---


def test_the_machine_has_systemd_debians_kernel_and_nothing_but_cgroup_v2() -> None:
    assert Path("/proc/1/comm").read_text() == "systemd\n"
    assert os.uname().release.startswith("6.12.")
    assert "deb13" in os.uname().release
    mounted = [line.split()[2] for line in Path("/proc/mounts").read_text().splitlines()]
    assert "cgroup2" in mounted
    assert "cgroup" not in mounted


def test_the_service_is_up_and_answers(service: Service) -> None:
    assert run("systemctl", "is-active", "buntime") == "active"
    assert service.client(None).call("GET", "/healthz").done() == {"status": "ok"}
    ready = service.client(None).call("GET", "/readyz").done()
    assert ready["ready"] is True
    assert all(ready["checks"].values())


def test_debians_own_web_server_neither_runs_nor_starts_at_boot(service: Service) -> None:
    assert systemd.ended(["systemctl", "is-active", "nginx"]).stdout == "inactive\n"
    assert systemd.ended(["systemctl", "is-enabled", "nginx"]).stdout == "disabled\n"


def test_doctor_finds_nothing_wrong(service: Service) -> None:
    done = systemd.ended([BUNTIME, "doctor"])
    assert done.returncode == 0, done.stdout + done.stderr


# --- sessions ---


def test_code_and_commands_run(session: Session) -> None:
    assert session.code("console.log(6 * 7)")["stdout"] == "42\n"
    session.write("kept", "kept").done()
    assert session.output("cat kept; id -u") == "kept0\n"


def test_a_run_past_its_memory_is_told(client: Client) -> None:
    session = client.open(resourceLimits={"memory": 128, "cpu": 1})
    session.execute(code=HOG, timeout=60).refused(507, "memory_limit_exceeded")
    assert session.output("echo fine") == "fine\n"
    session.delete().done()


def test_a_fork_bomb_is_ended_and_told(session: Session) -> None:
    result = session.command("bomb() { bomb | bomb & }; bomb; sleep 30", timeout=40)
    assert result["processLimitExceeded"] is True
    assert session.output("echo fine") == "fine\n"


def test_a_full_disk_is_told(client: Client) -> None:
    session = client.open(resourceLimits={"disk": 64, "cpu": 1})
    session.execute(command="head -c 200M /dev/urandom > big; exit $?", timeout=60).refused(507, "disk_full")
    session.delete().done()


def test_a_run_that_is_late_is_ended(session: Session) -> None:
    assert session.command("sleep 60", timeout=1)["timedOut"]


def test_a_suspended_session_keeps_its_processes_and_wakes_with_a_request(session: Session) -> None:
    pid = _background(session)
    _sleep(session, "idle")
    assert _state(session) == "idle"
    assert session.output("pgrep -x sleep") == pid
    assert _state(session) == "active"


def test_a_session_comes_back_from_deep_sleep_with_its_files(service: Service, session: Session) -> None:
    session.write("kept", "kept").done()
    _background(session)
    _sleep(session, "deep-sleep")
    traces.wait_until_given_back(service.config, session.id)
    assert _output_when_awake(session, "cat kept; pgrep -x sleep; true") == "kept"


def test_a_port_of_a_session_is_seen_through_the_edge(session: Session) -> None:
    _serve_page(session)
    assert _visit(session) == b"hello"


def test_a_terminal_echoes_what_is_typed(session: Session) -> None:
    with terminal_user(session) as user:
        user.plain()
        user.type("echo $((6 * 7))\n")
        user.sees("42")


# --- systemd ---


def test_sandboxes_are_outside_of_the_services_cgroup(service: Service, session: Session) -> None:
    _background(session)
    assert Path(f"/proc/{service.main_pid()}/cgroup").read_text() == "0::/system.slice/buntime.service\n"
    processes = traces.all_processes(service.config, traces.sandbox_of(service.config, session.id))
    groups = [Path(f"/proc/{pid}/cgroup").read_text() for pid in processes]
    assert len(groups) >= 2  # the guest, and what runs in the background
    assert all(group.startswith(f"0::/buntime-{service.config.instance}/") for group in groups), groups


def _settled_limits(service: Service, session: Session) -> dict[str, str]:
    """Returns them when the server has set all of those of the process that is parked for the next run."""
    limits = _limits(service, session)
    while True:
        time.sleep(1)
        before, limits = limits, _limits(service, session)
        if before == limits:
            return limits


def _limits(service: Service, session: Session) -> dict[str, str]:
    """Returns the limits of all cgroups of a session's sandbox by file."""
    root = CGROUPS / f"buntime-{service.config.instance}" / traces.sandbox_of(service.config, session.id)
    names = ("memory.max", "memory.high", "pids.max", "cpu.max", "cpu.weight", "io.max", "cgroup.subtree_control")
    return {str(path): path.read_text() for name in names for path in root.rglob(name)}


@pytest.mark.parametrize("command", ["daemon-reload", "daemon-reexec"])
def test_systemd_leaves_sandboxes_and_their_limits_as_they_are(
    service: Service, session: Session, command: str
) -> None:
    pid, before = _background(session), _settled_limits(service, session)
    assert any(name.endswith("memory.max") and limit != "max\n" for name, limit in before.items())
    run("systemctl", command)
    run("systemctl", "restart", "systemd-journald")
    after = _limits(service, session)
    both = before.keys() & after.keys()  # meanwhile, a process prepared for the next run may start or end
    assert {name: after[name] for name in both} == {name: before[name] for name in both}
    assert any(name.endswith("memory.max") and before[name] != "max\n" for name in both)
    assert session.output("pgrep -x sleep") == pid


def test_a_restart_leaves_processes_and_answers_the_run_that_is_under_way(service: Service, session: Session) -> None:
    pid, before = _background(session), service.main_pid()
    _serve_page(session)
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(session.output, "touch begun; sleep 2; echo done")
        _until(lambda: session.read("begun").status == 200, "the run's beginning")
        run("systemctl", "restart", "buntime")
        assert under_way.result() == "done\n"
    service.wait_ready()
    assert service.main_pid() != before
    assert session.output("pgrep -x sleep") == pid
    assert _visit(session) == b"hello"


def test_a_server_that_is_killed_comes_back_by_itself_and_takes_its_sandboxes_over(
    service: Service, session: Session
) -> None:
    pid, before = _background(session), service.main_pid()
    os.kill(before, signal.SIGKILL)
    _until(lambda: service.main_pid() not in (0, before), "systemd starts it again")
    service.wait_ready()
    assert session.output("pgrep -x sleep") == pid
    assert session.output("echo fine") == "fine\n"


def test_after_a_start_there_is_no_trace_of_a_sandbox_that_nobody_has(service: Service, session: Session) -> None:
    run("systemctl", "restart", "buntime")
    service.wait_ready()
    session.output("true")
    _until(lambda: len(set(map(frozenset, traces.sandboxes(service.config).values()))) == 1, "all traces are equal")


def test_the_shipped_units_show_the_numbers_on_a_port(service: Service) -> None:
    for unit in ("buntime-metrics.socket", "buntime-metrics.service"):
        systemd.install(unit)
    run("systemctl", "daemon-reload")
    run("systemctl", "enable", "--now", "buntime-metrics.socket")
    assert "\nbuntime_pool_parked " in run("curl", "-sS", "http://127.0.0.1:9273/metrics")
    run("systemctl", "disable", "--now", "buntime-metrics.socket", "buntime-metrics.service")


def test_a_purge_is_refused_while_the_service_runs_and_leaves_nothing_when_it_is_stopped(
    service: Service, client: Client
) -> None:
    """The last test: the service that it starts again has lost its data."""
    session = client.open()
    _background(session)
    sandbox = traces.sandbox_of(service.config, session.id)
    assert "another server uses" in systemd.ended([BUNTIME, "purge", "--yes"]).stderr
    run("systemctl", "stop", "buntime")
    assert traces.session_processes(service.config, sandbox), "they outlive the service"
    run(BUNTIME, "purge", "--yes")
    assert traces.left_behind(service.config) == []
    run("systemctl", "start", "buntime")
    service.wait_ready()
    assert service.new_client().open().output("echo fine") == "fine\n"
