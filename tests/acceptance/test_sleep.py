"""The kernel freezes quiet sessions, and clients do not notice."""

import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from buntime.sandboxes.kernel.reclaim import host_swaps
from tests.acceptance import traces
from tests.acceptance.client import Client, Session
from tests.acceptance.conftest import Servers

pytestmark = pytest.mark.sandbox

# Writes the time ten times a second, so that a suspension shows as a gap.
TICKER = "while :; do date +%s.%N >> /tmp/ticks; sleep 0.1; done"
GAPS = "awk 'NR > 1 && $1 - before > 1 { print $1 - before } { before = $1 }' /tmp/ticks"


def _until(seen: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 30
    while not seen():
        assert time.monotonic() < deadline, f"timed out waiting for: {what}"
        time.sleep(0.05)


def _state(session: Session) -> str:
    return str(session.look().done()["state"])


def test_a_quiet_session_is_suspended_with_its_processes_and_goes_on_with_the_next_request(servers: Servers) -> None:
    server = servers.start(BUNTIME_IDLE_AFTER="1", BUNTIME_TICK_MS="50")
    session = server.new_client().open()
    session.write("kept", "kept").done()
    session.output(f"({TICKER}) &")
    pid = session.output("pgrep -f 'while :' | head -1")
    _until(lambda: _state(session) == "idle", "the session to be suspended")
    shown = session.look().done()
    assert (shown["filesCount"], shown["activeProcesses"] >= 1) == (1, True)
    time.sleep(1.5)
    assert _state(session) == "idle", "reading the session's state must not count as activity"
    assert session.text("kept") == "kept"
    assert _state(session) == "active"
    assert session.output("pgrep -f 'while :' | head -1") == pid
    _until(lambda: session.output(GAPS), "its processes to run again after a gap")
    assert float(session.output(GAPS).splitlines()[0]) > 1, "its processes must not run meanwhile"


def test_where_the_host_swaps_a_suspended_session_has_no_process_that_only_waits(servers: Servers) -> None:
    server = servers.start()
    client = server.new_client()
    session = client.open()
    session.output("true")
    sandbox = traces.sandbox_of(server.config, session.id)
    _until(lambda: len(traces.all_processes(server.config, sandbox)) > 1, "a process that waits for the next run")
    client.call("POST", f"/sessions/{session.id}/sleep", json_body={}).done()
    least = 1  # its guest
    assert len(traces.all_processes(server.config, sandbox)) == (least if host_swaps() else least + 1)
    assert session.output("echo on") == "on\n"


def test_a_request_in_flight_is_never_suspended(servers: Servers) -> None:
    server = servers.start(BUNTIME_IDLE_AFTER="1", BUNTIME_TICK_MS="50")
    session = server.new_client().open()
    assert session.output(f"({TICKER}) & sleep 3; {GAPS}") == ""


def test_a_burst_of_requests_finds_a_suspended_session_awake(servers: Servers) -> None:
    server = servers.start()
    client = server.new_client()
    session = client.open()
    for _ in range(5):
        assert client.call("POST", f"/sessions/{session.id}/sleep", json_body={}).done()["state"] == "idle"
        with ThreadPoolExecutor(8) as pool:
            said = list(pool.map(lambda n: session.output(f"echo {n}"), range(8)))
        assert said == [f"{n}\n" for n in range(8)]
    woken = client.call("POST", f"/sessions/{session.id}/wake").done()
    assert (woken["wokeFrom"], woken["state"]) == ("active", "active")


def test_a_suspended_session_stays_suspended_over_a_restart_and_can_be_deleted(servers: Servers) -> None:
    server = servers.start()
    client = server.new_client()
    kept, gone = client.open(), client.open()
    kept.write("kept", "kept").done()
    for session in (kept, gone):
        client.call("POST", f"/sessions/{session.id}/sleep", json_body={}).done()
    server.kill()
    server.start()
    assert _state(kept) == "idle"
    gone.delete().done()
    assert kept.text("kept") == "kept"
    client.call("POST", f"/sessions/{kept.id}/sleep", json_body={}).done()


def _deep(client: Client, session: Session) -> None:
    slept = client.call("POST", f"/sessions/{session.id}/sleep", json_body={"depth": "deep-sleep"}).done()
    assert slept["state"] == "deep-sleep"


def test_deep_sleep_gives_all_but_the_files_back_and_a_wake_finds_them(servers: Servers) -> None:
    server = servers.start(pool_size=0)
    client = server.new_client()
    session = client.open()
    session.output(
        "mkdir -m 700 d && echo deep > d/f && ln -s d/f link && rm /etc/motd && echo x > /root/own && { sleep 99999 & }"
    )
    before = session.output("stat -c '%n %a %u %s %Y' d d/f link /root/own; ls /etc")
    assert session.look().done()["activeProcesses"] == 1
    _deep(client, session)
    assert (session.look().done()["filesCount"], session.look().done()["activeProcesses"]) == (1, 1)
    traces.wait_until_given_back(server.config, session.id)
    # the kernel removes a network namespace asynchronously
    gateway = [f"buntime{server.config.instance}gw"]
    _until(lambda: traces.interfaces(server.config) == gateway, "its network to vanish")
    assert session.output("stat -c '%n %a %u %s %Y' d d/f link /root/own; ls /etc") == before
    assert session.command("pgrep -x sleep")["exitCode"] == 1, "its processes must end"
    for _ in range(5):
        _deep(client, session)
        assert session.text("link") == "deep\n"


def test_processes_are_asked_to_end_before_they_are_ended(servers: Servers) -> None:
    server = servers.start()
    client = server.new_client()
    session = client.open()
    session.output("(trap 'echo bye > /workspace/said; exit' TERM; while :; do sleep 0.1; done) &")
    _deep(client, session)
    assert session.text("said") == "bye\n"


def test_a_woke_from_deep_sleep_runs_the_sessions_own_command(servers: Servers) -> None:
    server = servers.start()
    client = server.new_client()
    session = client.open(onWake='echo "up with $A"; sleep 88888', env={"A": "env"})
    _deep(client, session)
    woken = client.call("POST", f"/sessions/{session.id}/wake").done()
    assert woken["wokeFrom"] == "deep-sleep"
    _until(lambda: session.command("pgrep -x sleep")["exitCode"] == 0, "the process to start")
    assert session.output("cat /var/log/on-wake.log") == "up with env\n"


def test_quiet_sessions_go_down_by_themselves_and_sleep_over_a_restart(servers: Servers) -> None:
    server = servers.start(BUNTIME_IDLE_AFTER="1", BUNTIME_DEEP_SLEEP_AFTER="2", BUNTIME_TICK_MS="50")
    client = server.new_client()
    session = client.open()
    session.write("kept", "kept").done()
    _until(lambda: _state(session) == "deep-sleep", "deep sleep")
    server.kill()
    server.start()
    assert _state(session) == "deep-sleep"
    assert session.text("kept") == "kept"
    _until(lambda: _state(session) == "deep-sleep", "deep sleep again")
    session.delete().done()
    traces.wait_until_whole(server.config, 0, server.parked)


def test_a_suspended_accounts_sessions_sleep(servers: Servers) -> None:
    server = servers.start()
    client = server.new_client()
    session = client.open()
    accounts = {word for word in server.cli("accounts", "list").split() if word.startswith("acc_")}
    for account in accounts:
        server.cli("accounts", "suspend", account)
    traces.wait_until_given_back(server.config, session.id)
    for account in accounts:
        server.cli("accounts", "resume", account)
    assert _state(session) == "deep-sleep"
    assert session.output("echo on") == "on\n"


@pytest.mark.parametrize("end", [None, signal.SIGKILL])
def test_a_session_that_is_kept_suspended_is_archived_with_its_processes_alive(
    servers: Servers, end: signal.Signals | None
) -> None:
    short = {"BUNTIME_IDLE_AFTER": "1", "BUNTIME_DEEP_SLEEP_AFTER": "2", "BUNTIME_TICK_MS": "50"}
    server = servers.start(pool_size=0, BUNTIME_KEEP_SUSPENDED="1", **short)
    session = server.new_client().open()
    pid = session.output("echo kept > f; sleep 99999 & echo $!")
    _until(lambda: traces.objects(server.config.data_dir / "archive", session.id), "the session to be archived")
    if end is not None:
        server.stop(end)
        server.start()
    time.sleep(1)
    assert _state(session) == "idle"
    woken = session.client.call("POST", f"/sessions/{session.id}/wake", json_body={}).done()
    assert woken["wokeFrom"] == "idle"
    assert session.output("cat f; pgrep -x sleep") == f"kept\n{pid}"
    _deep(session.client, session)
    assert session.text("f") == "kept\n"
