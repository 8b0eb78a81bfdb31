"""Tests the real server through the edge with good and bad requests generated from `/openapi.json`."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from schemathesis.checks import CheckFunction, load_all_checks
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import ignored_auth, missing_required_header, positive_data_acceptance

from buntime.web.app import OPERATIONS, openapi_pages
from buntime.web.openapi import document
from tests.acceptance.client import Client, Session
from tests.acceptance.server import Server
from tests.description import with_known_session

pytestmark = pytest.mark.sandbox

KNOWN = "ses_abc123def456ghi789"  # a placeholder for an existing session
CONFIG = SchemathesisConfig.from_dict(
    {
        "generation": {"max-examples": 12, "deterministic": True, "database": "none"},
        # 429: only for calls without a key, which are limited to 60 a minute; the key's own limit is out of reach
        "checks": {"negative_data_rejection": {"expected-statuses": ["400", "401", "404", "405", "422", "429"]}},
    }
)
# not positive data: the schema cannot express a plan's limits and "exactly one of"; not calls without a key: they are
# rate-limited by address, and tests/app covers them with a fake clock
EXCLUDED: list[CheckFunction] = [positive_data_acceptance, ignored_auth, missing_required_header]


class Known:
    """A session that is replaced when a generated request deletes it."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._session: Session | None = None

    def id(self) -> str:
        if self._session is None or self._session.look().status != 200:
            self.clear()
            self._session = Session(self.client, self.client.create().done()["sessionId"])
        return self._session.id

    def clear(self) -> None:
        for entry in self.client.call("GET", "/sessions", query={"limit": 100}).done()["sessions"]:
            Session(self.client, entry["sessionId"]).delete()


@pytest.fixture(scope="module")
def known(server: Server) -> Iterator[Known]:
    numbers = ("sessions=8", "requests_per_minute=1000000", "default.timeout=2", "most.timeout=3")
    account = server.cli("accounts", "create", "--plan", "paid", *(f"--set={number}" for number in numbers))
    known = Known(server.client(server.cli("keys", "create", "--account", account)))
    yield known
    known.clear()


load_all_checks()
DESCRIPTION = document(OPERATIONS, openapi_pages())
schema = schemathesis.openapi.from_dict(with_known_session(DESCRIPTION, KNOWN), config=CONFIG)


def test_the_server_shows_the_description_that_is_tested_here(server: Server) -> None:
    assert server.client(None).call("GET", "/openapi.json").done() == DESCRIPTION


@schema.parametrize()
def test_the_server_does_what_its_description_says(case: schemathesis.Case[Any], server: Server, known: Known) -> None:
    query = case.query or {}
    if case.path == "/events" and "follow" in query:
        return  # a stream without an end, which tests/app/test_events.py reads
    if any(value in ([], {}, None) for value in query.values()):
        return  # such a value is not sent, so the server cannot refuse it
    for place in (case.path_parameters, case.query, case.body):
        if isinstance(place, dict) and place.get("sessionId") == KNOWN:
            place["sessionId"] = known.id()
    case.call_and_validate(
        base_url=f"http://127.0.0.1:{server.config.port}",
        headers={"Authorization": f"Bearer {known.client.key}"},
        excluded_checks=EXCLUDED,
        timeout=60,
    )
