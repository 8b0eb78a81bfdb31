"""Servers end in every way, and the next start recovers."""

import json
import os
import signal
import sqlite3
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from http.client import HTTPException
from pathlib import Path

import pytest

from buntime.sandboxes.record import GENERATION, NO_SLOT
from buntime.stores import store_file
from tests.acceptance import traces
from tests.acceptance.client import Client, Session
from tests.acceptance.conftest import Servers
from tests.acceptance.hostile import context_of, process_of, stop_the_guest
from tests.acceptance.server import Server
from tests.acceptance.sleeping import deep_sleep, number
from tests.waiting import until

pytestmark = pytest.mark.sandbox

BRIEF_PLAN = """
[brief]
sessions = 5
longest_ttl = 600
shortest_ttl = 1
may_set_limits = true
requests_per_minute = 10000
file_mb = 1
files_per_request = 10
body_mb = 8
default = { memory = 256, cpu = 1.0, timeout = 30, disk = 128 }
most = { memory = 512, cpu = 1.0, timeout = 60, disk = 256 }
"""


def _with_background(client: Client) -> tuple[Session, str]:
    """Returns a session with a file, and the pid of its background process inside the session."""
    session = client.open()
    session.write("kept", "kept").done()
    return session, session.sleeper()


@pytest.mark.parametrize("end", ["SIGTERM", "SIGINT", "SIGKILL"])
def test_sessions_and_their_processes_outlive_the_server(servers: Servers, end: str) -> None:
    server = servers.start()
    session, pid = _with_background(server.new_client())
    session.write("server.ts", "Bun.serve({ port: 8080, fetch: () => new Response('still here') })").done()
    session.command("bun run server.ts > /dev/null 2>&1 &")
    session.output("curl -sS --retry 50 --retry-connrefused --retry-delay 0 localhost:8080")
    assert server.stop(signal.Signals[end]) == (-signal.SIGKILL if end == "SIGKILL" else 0)
    server.start()
    assert session.text("kept") == "kept"
    assert session.output("pgrep -x sleep").strip() == pid
    assert session.output("curl -sS localhost:8080") == "still here"
    assert session.look().done()["activeProcesses"] == 2
    traces.wait_until_whole(server.config, 2)


def test_volumes_that_an_earlier_version_named_after_their_sandboxes_are_taken_over(servers: Servers) -> None:
    server = servers.start(pool_size=0)
    awake, asleep = [server.new_client("enterprise").open() for _ in range(2)]
    for session in (awake, asleep):
        session.write("kept", session.id).done()
    awake.sleeper()
    deep_sleep(asleep)
    server.kill()
    with closing(sqlite3.connect(store_file(server.config))) as store, store:
        for session in (awake, asleep):
            _name_volume_after_sandbox(server, store, session)
    server.start()
    assert awake.output("cat kept; pgrep -x -c sleep") == f"{awake.id}1\n"
    assert asleep.text("kept") == asleep.id
    for session in (awake, asleep):
        deep_sleep(session)
        assert session.text("kept") == session.id
        session.delete().done()
    traces.wait_until_whole(server.config, 0)


def _name_volume_after_sandbox(server: Server, store: sqlite3.Connection, session: Session) -> None:
    data = server.config.data_dir
    asked = "SELECT sandbox, volume, image FROM sessions WHERE id = ?"
    sandbox, volume, image = store.execute(asked, [session.id]).fetchone()
    store.execute("UPDATE sessions SET volume = sandbox WHERE id = ?", [session.id])
    (data / "volumes" / volume).rename(data / "volumes" / sandbox)
    file = data / "sandboxes" / sandbox / "record.json"
    if file.exists():
        record = {name: value for name, value in json.loads(file.read_text()).items() if name != "volume"}
    else:  # that version left a record of a stopped sandbox
        file.parent.mkdir(mode=0o700)
        record = {"sandbox": sandbox, "slot": NO_SLOT, "image": image, "secret": "", "session": session.id}
    file.write_text(json.dumps(record))


def test_a_sandbox_that_an_earlier_version_made_ends_in_order_and_its_session_goes_on(servers: Servers) -> None:
    server = servers.start()
    session = server.new_client().open()
    session.write("kept", "kept").done()
    session.command("(trap 'echo written > /workspace/at-the-end; exit' TERM; while :; do sleep 0.05; done) &")
    home = server.config.data_dir / "sandboxes"
    server.kill()
    for file in home.glob("*/record.json"):  # including the parked sandbox
        as_before = {key: value for key, value in json.loads(file.read_text()).items() if key != "generation"}
        file.write_text(json.dumps(as_before))
    server.start()
    assert (session.text("kept"), session.text("at-the-end")) == ("kept", "written\n")
    assert session.output("pgrep -c sleep; true") == "0\n"
    record = (home / traces.sandbox_of(server.config, session.id) / "record.json").read_text()
    assert json.loads(record)["generation"] == GENERATION
    traces.wait_until_whole(server.config, 2)


def test_a_run_whose_server_was_killed_is_ended_by_the_next_and_the_session_answers(servers: Servers) -> None:
    server = servers.start()
    session, pid = _with_background(server.new_client())
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(session.execute, command="touch begun; sleep 200000")
        until(lambda: session.look().done()["filesCount"] == 2, "the run to begin")
        server.kill()
        with suppress(OSError, HTTPException):
            assert run.result().status >= 500
    server.start()
    assert session.output("pgrep -x sleep").strip() == pid
    assert session.output("echo fine") == "fine\n"


def test_a_stopped_guest_delays_neither_its_delete_after_a_restart_nor_other_sessions_of_its_account(
    servers: Servers,
) -> None:
    server = servers.start(pool_size=0)
    client = server.new_client()
    stopped, beside = client.open(), client.open()
    program = f"sleep 1000{server.config.port}"
    process_of(stopped, program)
    stop_the_guest(stopped)
    server.kill()
    server.start()
    process_of(beside, "sleep 1")
    context_of(beside)
    stopped.patch(network={"egress": "none"}).done()
    assert number(server, "sandboxes_to_adopt") == 1, "it is still being taken over"
    assert _runs(program)
    stopped.delete().done()
    assert not _runs(program)
    traces.wait_until_whole(server.config, 1)


def _runs(command: str) -> bool:
    return subprocess.run(["pgrep", "--full", f"^{command}$"], capture_output=True, check=False).returncode == 0


def test_a_clean_stop_lets_a_run_that_is_under_way_be_answered(servers: Servers) -> None:
    server = servers.start()
    session = server.new_client().open()
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(session.output, "touch begun; sleep 1.5; echo done")
        until(lambda: session.look().done()["filesCount"] == 1, "the run to begin")
        assert server.stop() == 0
        assert run.result() == "done\n"


def test_a_clean_stop_ends_a_run_with_an_idempotency_key_as_one_without(servers: Servers) -> None:
    server = servers.start()
    session = server.new_client().open(resourceLimits={"cpu": 1, "timeout": 300})
    with ThreadPoolExecutor(1) as pool:
        command = "touch begun; sleep 240; touch ended"
        run = pool.submit(session.client.execute, session.id, idempotency_key="once", command=command)
        until(lambda: session.look().done()["filesCount"] == 1, "the run to begin")
        assert server.stop() == 0
        assert run.result().status == 503
    server.start()
    assert session.output("pgrep -x sleep || ls") == "begun\n"


@pytest.mark.parametrize("running", [True, False])
def test_a_session_whose_sandbox_was_killed_is_started_again_with_its_files(servers: Servers, running: bool) -> None:
    server = servers.start()
    sessions = [_with_background(server.new_client())[0] for _ in range(3)]
    if not running:
        server.kill()
    for session in sessions:
        traces.kill_sandbox(server.config, session.id)
    if not running:
        server.start()
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda session: session.text("kept"), sessions)) == ["kept"] * 3
    for session in sessions:
        assert session.output("cat kept; pgrep -x sleep; true") == "kept"
    traces.wait_until_whole(server.config, 4)


def test_an_expired_session_goes_while_the_server_runs_and_while_it_does_not(servers: Servers, tmp_path: Path) -> None:
    plans = tmp_path / "plans.toml"
    plans.write_text(BRIEF_PLAN)
    server = servers.start(pool_size=0, BUNTIME_PLANS=str(plans))
    client = server.new_client("brief")
    brief, long = client.open(ttl=1), client.open(ttl=600)
    until(lambda: brief.look().status == 404, "the session to end")
    brief.execute(command="true").refused(404, "session_not_found")
    traces.wait_until_whole(server.config, 1)
    second = client.open(ttl=1)
    server.kill()
    time.sleep(1.5)
    server.start()
    second.look().refused(404, "session_not_found")
    traces.wait_until_whole(server.config, 1)
    assert long.output("echo fine") == "fine\n"
    long.patch(ttl=1).done()
    until(lambda: long.look().status == 404, "the patched session to end")
    traces.wait_until_whole(server.config, 0)


def test_two_servers_side_by_side_do_not_meet(servers: Servers) -> None:
    one, two = servers.start(), servers.start()
    assert one.config.instance != two.config.instance
    here, there = one.new_client().open(), two.new_client().open()
    two.client(here.client.key).call("GET", "/sessions").refused(401, "unauthorized")
    addresses = [s.output("ip -4 -o addr show dev eth0 | awk '{print $4}'").partition("/")[0] for s in (here, there)]
    assert addresses[0] != addresses[1]
    there.output(
        "nohup python3 -m http.server 8000 > /dev/null 2>&1 & while ! </dev/tcp/localhost/8000; do :; done 2>&1"
    )
    assert here.command(f"timeout 2 bash -c '</dev/tcp/{addresses[1]}/8000'")["exitCode"] != 0
    here.write("kept", "kept").done()
    there.write("kept", "kept").done()
    two.kill()
    assert two.cli("purge", "--yes") == ""
    assert traces.left_behind(two.config) == []
    assert here.output("cat kept; getent hosts localhost").startswith("kept")
    one.kill()
    one.start()
    assert here.text("kept") == "kept"


def test_the_check_after_the_suite_sees_all_that_a_running_server_has(servers: Servers) -> None:
    server = servers.start()
    session = server.new_client().open()
    session.command("exec -a seen-from-the-host sleep 100000 &")
    left = traces.left_behind(server.config)
    assert {line.split()[0] for line in left} == {"process", "interface", "nft", "mount", "loop", "cgroup", "file"}
    for process in ("seen-from-the-host", "/run/guest/guest", "dnsmasq", "nginx", "buntime serve"):
        assert any(process in line for line in left), process


def test_a_second_server_on_the_same_directory_is_refused(servers: Servers) -> None:
    server = servers.start()
    session = server.new_client().open()
    for command in (["serve"], ["purge", "--yes"]):
        refused = server.run_cli(*command)
        assert refused.returncode == 1
        assert f"another server uses {server.config.data_dir}" in refused.stderr
        assert "Traceback" not in refused.stderr
    assert session.output("echo fine") == "fine\n"


def test_a_port_that_is_taken_and_a_setting_that_cannot_be_are_refused_in_a_sentence(servers: Servers) -> None:
    server, other = servers.start(), servers.make()
    for name, value in [
        ("BUNTIME_PORT", str(server.config.port)),
        ("BUNTIME_PORT", "http"),
        ("BUNTIME_PROT", "8000"),
        ("BUNTIME_PLANS", "/no/such/file"),
        ("BUNTIME_RUNTIME", "no-such-runtime"),
        ("BUNTIME_RESOLV_CONF", "/no/such/file"),
    ]:
        other.settings = {name: value}
        refused = other.run_cli("serve")
        assert (refused.returncode, "Traceback" in refused.stderr) == (1, False), refused.stderr
        assert refused.stderr.splitlines()[0].startswith("buntime: ")
        assert value in refused.stderr or name in refused.stderr
    other.settings = {}


@pytest.mark.parametrize("reserve", ["21", "1000000"], ids=["of the volumes", "of the host"])
def test_a_host_without_room_refuses_creates_and_serves_what_there_is(servers: Servers, reserve: str) -> None:
    server = servers.start(pool_size=0)
    session = server.new_client().open()
    server.stop()
    server.settings["BUNTIME_RESERVE_GB"] = reserve
    server.launch()
    until(lambda: _answers(server), "the server to start")
    refused = session.client.create()
    assert refused.refused(503, "unavailable")["retryAfter"] > 0
    assert int(refused.headers["retry-after"]) > 0
    assert server.client(None).call("GET", "/readyz").status == 503
    assert number(server, 'no_room_total{reason="disk"}') > 0
    assert session.output("echo fine") == "fine\n"
    server.kill()
    del server.settings["BUNTIME_RESERVE_GB"]
    server.start()
    Session(session.client, session.client.create().done()["sessionId"]).delete().done()


def test_the_edge_and_the_name_server_come_back_when_they_are_killed(servers: Servers) -> None:
    server = servers.start()
    session = server.new_client().open()
    ask = "getent ahostsv4 localhost; python3 -c 'import socket; socket.gethostbyname(\"a.invalid\")' 2>&1 | tail -n 1"
    assert "Name or service not known" in session.output(ask)
    names = int((server.config.run_dir / "dnsmasq.pid").read_text().split()[0])
    os.kill(names, signal.SIGKILL)
    until(lambda: "Name or service not known" in session.output(ask, timeout=60), "the name server")
    edge = int(next(server.config.run_dir.rglob("nginx.pid")).read_text())
    os.kill(edge, signal.SIGKILL)
    until(lambda: _answers(server), "the edge")
    assert session.output("echo fine") == "fine\n"


def test_the_lines_of_the_welcome_work_when_pasted(servers: Servers) -> None:
    server = servers.start()
    until(lambda: "  curl " in server.said(), "the start-up message")
    said = server.said()
    assert f"http://localhost:{server.config.port}" in said
    lines = [line for line in said.splitlines() if line.startswith(("  export ", "  curl "))]
    pasted = subprocess.run(
        "\n".join([*lines, "echo; echo $BUNTIME_API_KEY"]), shell=True, check=True, capture_output=True, text=True
    )
    created, key = pasted.stdout.split()
    assert Session(server.client(key), json.loads(created)["sessionId"]).output("echo fine") == "fine\n"


def _answers(server: Server) -> bool:
    try:
        return server.client(None).call("GET", "/healthz", timeout=5).status == 200
    except (OSError, HTTPException):
        return False
