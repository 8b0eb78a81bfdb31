"""The fake's services, as users' tests use them."""

import pytest
from buntime_sdk import InvalidRequest, ServiceNotFound, ServiceSettings
from buntime_sdk.testing import AsyncFakeBuntime, FakeBuntime

WEB = ServiceSettings(name="web", command="bun server.ts", port=8080, env={"A": "1"})


def test_declared_services_run_and_have_a_process() -> None:
    session = FakeBuntime().sessions.create(services=[WEB, {"name": "worker", "command": "work", "restart": "never"}])
    web, worker = session.services.list()
    assert (web.name, web.state, web.port, web.restarts, web.last_exit) == ("web", "running", 8080, 0, None)
    assert web.process_id is not None
    assert session.processes.get(web.process_id).name == "web"
    assert session.services.get("worker") == worker
    assert [(one.name, one.env_names, one.restart) for one in session.declared_services] == [
        ("web", ("A",), "always"),
        ("worker", (), "never"),
    ]
    assert session.refresh().declared_services[0].working_dir == "/workspace"


def test_a_stop_lasts_until_a_start_or_deep_sleep() -> None:
    session = FakeBuntime().sessions.create(services=[WEB])
    before = session.services.get("web")
    stopped = session.services.stop("web")
    assert (stopped.state, stopped.pid) == ("stopped", None)
    assert stopped.last_exit is not None
    assert session.services.start("web").process_id != before.process_id
    session.services.stop("web")
    session.sleep("deep-sleep")
    assert session.services.get("web").state == "running"
    assert session.services.restart("web").state == "running"


def test_an_update_starts_and_stops_services() -> None:
    session = FakeBuntime().sessions.create(services=[WEB])
    before = session.services.get("web")
    session.update(services=[{"name": "other", "command": "x"}, WEB])
    other, web = session.services.list()
    assert (other.name, web) == ("other", before)
    session.update(services=None)
    assert session.services.list() == []
    assert [process.status for process in session.processes.list()] == ["exited", "exited"]


def test_a_fork_inherits_them() -> None:
    session = FakeBuntime().sessions.create(services=[WEB])
    assert [one.name for one in session.fork().services.list()] == ["web"]
    assert session.fork().declared_services == session.declared_services
    other = session.fork(services=[{"name": "other", "command": "x"}])
    assert [one.name for one in other.declared_services] == ["other"]
    assert session.fork(services=[]).services.list() == []


def test_what_does_not_exist_or_is_too_much_is_refused() -> None:
    session = FakeBuntime().sessions.create(services=[WEB])
    for call in (session.services.get, session.services.start, session.services.stop, session.services.restart):
        with pytest.raises(ServiceNotFound):
            call("missing")
    with pytest.raises(InvalidRequest):
        session.update(services=[WEB, WEB])
    with pytest.raises(InvalidRequest):
        session.services.stop("")


async def test_the_same_for_asyncio() -> None:
    session = await AsyncFakeBuntime().sessions.create(services=[WEB])
    assert [one.state for one in await session.services.list()] == ["running"]
    assert (await session.services.stop("web")).state == "stopped"
