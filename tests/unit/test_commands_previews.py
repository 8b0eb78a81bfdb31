"""`buntime open` with the SDK's fake server."""

import json

from buntime_sdk.testing import FakeBuntime

from tests.unit.test_commands_snapshots import is_refused, prints


def test_all_preview_tokens_of_a_session_are_revoked_and_counted() -> None:
    fake = FakeBuntime()
    session = fake.sessions.create(name="demo")
    other = fake.sessions.create(name="other")
    for words in (("demo", "--private"), ("demo", "--port", "3000"), ("other", "--private")):
        assert "token=" in prints(fake, "open", *words)
    assert prints(fake, "open", "demo", "--revoke") == f"Revoked 2 preview tokens of {session.id}."
    assert json.loads(prints(fake, "open", "demo", "--revoke", "--json")) == {"revoked": 0}
    assert prints(fake, "open", other.id, "--revoke") == f"Revoked 1 preview token of {other.id}."


def test_options_of_one_token_do_not_go_with_the_revocation_of_all() -> None:
    fake = FakeBuntime()
    told = is_refused(fake, "open", "demo", "--revoke", "--port", "8080", "--private", status=2)
    assert "revokes the tokens of all ports. Leave out --port and --private." in told
    assert fake.requests == ()
