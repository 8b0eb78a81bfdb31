"""The fence closes over real sandboxes of a server, and they go on afterwards."""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from buntime.daemon.listening import listening
from buntime.sandboxes.fencing import HostFence
from buntime.sandboxes.kernel.freezing import find_freezer
from tests.acceptance.conftest import fresh_server
from tests.waiting import until

pytestmark = pytest.mark.sandbox

TICKING = "while :; do date +%s.%N >> /workspace/ticks; sleep 0.02; done"
CLOSED = 0.5  # seconds
LONG = 60.0
IMPATIENT = """
import os
from buntime.sandboxes.inside import launcher
from buntime.sandboxes.kernel import cgroup
launcher.ANSWER_SECONDS = cgroup.KILL_SECONDS = 0.5
from buntime import main
from buntime.config import from_environment
main.serve(from_environment(os.environ))
"""  # a server whose guests have less time to answer
LIMIT = 1  # seconds, of a run
FROZEN = 3.0  # seconds: the limit and what an impatient server waits after it, and more
MARGIN = 0.05  # seconds, by which a tick's time may be before it is written


def test_a_fenced_host_is_silent_and_goes_on_when_it_is_lifted() -> None:
    with fresh_server(pool_size=2) as server:
        server.start()
        session = server.new_client().open()
        start = {"sessionId": session.id, "command": TICKING}
        session.client.call("POST", "/processes/start", json_body=start).done()
        until(lambda: session.read("ticks").status == 200, "the process to run")
        fence = HostFence(server.config.instance, listening(server.config))
        try:
            fence.prepare()
            fence.close()
            closed = time.time()
            assert find_freezer(server.config.instance).is_frozen()
            with pytest.raises((ConnectionRefusedError, ConnectionResetError)):
                session.code("console.log(1)")
            time.sleep(CLOSED)
            fence.extend(LONG)
            lifted = time.time()
            fence.thaw()
            assert session.code("console.log(1)")["stdout"] == "1\n"
            until(lambda: float(session.text("ticks").split()[-1]) > lifted, "the process to go on")
        finally:
            fence.remove()
        ticks = [float(tick) for tick in session.text("ticks").split()]
        assert ticks[0] < closed
        assert [tick for tick in ticks if closed < tick < lifted - MARGIN] == []


def test_a_sandbox_that_the_fence_froze_is_not_ended_for_its_silence() -> None:
    with fresh_server(pool_size=1) as server, ThreadPoolExecutor(2) as others:
        server.start([sys.executable, "-c", IMPATIENT])
        session = server.new_client().open()
        start = {"sessionId": session.id, "command": TICKING}
        session.client.call("POST", "/processes/start", json_body=start).done()
        until(lambda: session.read("ticks").status == 200, "the process to run")
        running = others.submit(session.command, "touch /workspace/runs; sleep 99", timeout=LIMIT)
        until(lambda: running.done() or session.read("runs").status == 200, "the run to begin")
        freezer = find_freezer(server.config.instance)
        freezer.freeze()
        try:
            asked = others.submit(session.client.call, "GET", f"/processes/list?sessionId={session.id}")
            time.sleep(FROZEN)
            assert not running.done()
            thawed = time.time()
        finally:
            freezer.thaw()
        assert running.result()["timedOut"]
        asked.result()
        until(lambda: float(session.text("ticks").split()[-1]) > thawed, "the process to go on")
