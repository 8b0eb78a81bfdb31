"""`buntime events` and `buntime webhooks`."""

import json
import re

import pytest
from buntime_cli.commands import webhooks
from buntime_sdk.testing import FakeBuntime

from tests.unit.test_commands_snapshots import is_refused, prints, runs


def test_events_say_who_deleted_which_session_from_where() -> None:
    fake = FakeBuntime()
    with fake.sessions.create(name="ci") as session:
        pass
    shown = prints(fake, "events", "--type", "session.deleted").splitlines()
    assert shown[0].split() == ["TIME", "TYPE", "SESSION", "KEY", "ADDRESS", "DATA"]
    assert re.search(rf"Z +session.deleted +{session.id} +key_fake +fake +name=ci stateBefore=active$", shown[1])
    assert len(shown) == 2
    (last,) = prints(fake, "events", "-n", "1", "--json").splitlines()
    assert json.loads(last)["type"] == "session.deleted"
    assert "no type" in is_refused(fake, "events", "--type", "everything", status=2)


def test_a_secret_is_printed_alone_and_never_listed() -> None:
    fake = FakeBuntime()
    done = runs(fake, "webhooks", "create", "https://example.com/hook", "--event", "session.deleted")
    secret = done.stdout.rstrip("\n")
    assert re.fullmatch(r"whsec_\S+", secret)
    assert secret not in done.stderr
    shown = prints(fake, "webhooks", "list")
    assert secret not in shown
    assert re.search(r"whk_\w+ +on +session.deleted +https://example.com/hook$", shown, re.M)
    assert "no type" in is_refused(fake, "webhooks", "create", "https://a.example", "--event", "all", status=2)


def test_a_webhook_is_changed_tested_rotated_and_deleted() -> None:
    fake = FakeBuntime()
    made = json.loads(prints(fake, "webhooks", "create", "https://example.com", "--event", "key.created", "--json"))
    name = made["webhookId"]
    event = prints(fake, "webhooks", "test", name).strip()
    shown = prints(fake, "webhooks", "deliveries", name)
    delivery = re.search(r"^(dlv_\w+) .* delivered +1 +200 +webhook.test", shown, re.M)
    assert delivery is not None
    assert json.loads(prints(fake, "webhooks", "deliveries", name, "--json"))[0]["event"]["eventId"] == event
    assert "is sent again" in prints(fake, "webhooks", "redeliver", name, delivery[1])
    assert prints(fake, "webhooks", "rotate", name, "--overlap", "0").startswith("whsec_")
    assert "is off (asked)" in prints(fake, "webhooks", "update", name, "--off", "--event", "all")
    assert fake.webhooks.get(name).events is None
    assert "is on" in prints(fake, "webhooks", "update", name, "--on")
    assert prints(fake, "webhooks", "delete", name).strip() == name
    assert "buntime webhooks list" in is_refused(fake, "webhooks", "delete", name)


def test_the_operators_webhooks_need_the_server_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "server_command", lambda context, name: None)
    told = is_refused(FakeBuntime(), "webhooks", "create", "https://example.com", "--all", status=2)
    assert "command of the server" in told
