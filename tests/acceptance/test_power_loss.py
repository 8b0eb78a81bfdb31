"""What was acknowledged is on disk when the power fails."""

from collections.abc import Iterator

import pytest

from tests.torture.victim import Victim, fresh_victim

pytestmark = pytest.mark.sandbox


@pytest.fixture
def victim() -> Iterator[Victim]:
    with fresh_victim() as victim:
        yield victim


@pytest.mark.parametrize("image", ["default", "made"])
def test_a_session_that_was_just_created_is_still_there(victim: Victim, image: str) -> None:
    victim.ensure_running()
    client = victim.new_client("enterprise")
    fields: dict[str, object] = {}
    if image == "made":
        base = client.open()
        base.write("file", "kept").done()
        client.call("POST", "/images/create", json_body={"name": "made", "sessionId": base.id}).done()
        fields = {"image": "made"}
    session = client.open(**fields)
    victim.cut_power()
    victim.ensure_running()
    assert session.output("echo here") == "here\n"
