"""The keeper goes on, whatever a session does to its own part of it."""

from buntime.session import Session
from buntime.testing_sandboxes import FakeSandbox
from tests.app.serving import Api


async def test_a_session_that_makes_its_suspension_fail_does_not_end_the_keeper(api: Api) -> None:
    bad, good = await api.session(), await api.session()
    broken = await _sandbox(api, bad)

    async def freeze() -> bool:
        raise OverflowError("Python int too large to convert to SQLite INTEGER")

    broken.freeze = freeze  # type: ignore[method-assign]
    api.clock.now += 300
    await api.keep(api.keeper(idle_after=300))
    assert (await api.call("GET", f"/sessions/{good}")).json["state"] == "idle"
    assert (await api.call("GET", f"/sessions/{bad}")).json["state"] == "active"


async def _sandbox(api: Api, session_id: str) -> FakeSandbox:
    session = await api.store.get_session(session_id)
    assert isinstance(session, Session)
    return api.sandboxes.running[session.sandbox]
