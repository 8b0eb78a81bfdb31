"""Compares random sequences of create, patch, get, list, files and delete, with and without keys, with a dictionary."""

from typing import Any
from uuid import uuid4

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test

from tests.acceptance.client import Client, Reply, Session

pytestmark = pytest.mark.sandbox

METADATA = st.dictionaries(
    st.text(max_size=8), st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8), max_size=3
)
TTL = st.integers(300, 604800)
CONTENT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
BOUNDS = settings(
    max_examples=12,
    stateful_step_count=30,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


class Account(RuleBasedStateMachine):
    """An account. `expected` maps session ids to expected forms, `answers` maps keys to requests and first answers."""

    sessions = Bundle("sessions")
    keys = Bundle("keys")

    def __init__(self, client: Client) -> None:
        super().__init__()
        self.client = client
        self.expected: dict[str, dict[str, Any]] = {}
        self.files: dict[str, dict[str, str]] = {}
        self.answers: dict[str, tuple[dict[str, Any], Reply]] = {}

    def teardown(self) -> None:
        for name in self.expected:
            Session(self.client, name).delete().done()

    def _made(self, reply: Reply, metadata: dict[str, Any]) -> Session:
        session = Session(self.client, reply.done()["sessionId"])
        assert session.id not in self.expected
        self.expected[session.id] = {**reply.json(), "metadata": metadata, "state": "active", "filesCount": 0}
        self.files[session.id] = {}
        return session

    @rule(target=sessions, metadata=METADATA, ttl=TTL)
    def create(self, metadata: dict[str, Any], ttl: int) -> Session:
        return self._made(self.client.create(metadata=metadata, ttl=ttl), metadata)

    @rule(target=keys, metadata=METADATA)
    def create_with_a_key(self, metadata: dict[str, Any]) -> str:
        key = str(uuid4())
        reply = self.client.create(idempotency_key=key, metadata=metadata)
        self._made(reply, metadata)
        self.answers[key] = ({"metadata": metadata}, reply)
        return key

    @rule(key=keys)
    def repeat(self, key: str) -> None:
        request, first = self.answers[key]
        again = self.client.create(idempotency_key=key, **request)
        assert (again.status, again.body) == (first.status, first.body)
        assert again.headers["idempotent-replayed"] == "true"

    @rule(key=keys, metadata=METADATA)
    def use_a_key_for_another_request(self, key: str, metadata: dict[str, Any]) -> None:
        self.client.create(idempotency_key=key, metadata=metadata, ttl=301).refused(422, "idempotency_key_reused")

    @rule(session=sessions, metadata=METADATA)
    def patch(self, session: Session, metadata: dict[str, Any]) -> None:
        reply = session.patch(metadata=metadata)
        if session.id in self.expected:
            assert reply.done()["metadata"] == metadata
            self.expected[session.id]["metadata"] = metadata
        else:
            reply.refused(404, "session_not_found")

    @rule(session=sessions, name=st.sampled_from(["a", "b/c", "ü"]), content=CONTENT)
    def write(self, session: Session, name: str, content: str) -> None:
        reply = session.write(name, content)
        if session.id in self.expected:
            assert reply.done()["size"] == len(content.encode())
            self.files[session.id][name] = content
            self.expected[session.id]["filesCount"] = len(self.files[session.id])
        else:
            reply.refused(404, "session_not_found")

    @rule(session=sessions)
    def read_all(self, session: Session) -> None:
        if session.id in self.expected:
            assert {name: session.text(name) for name in self.files[session.id]} == self.files[session.id]
        else:
            session.list().refused(404, "session_not_found")

    @rule(session=consumes(sessions))
    def delete(self, session: Session) -> None:
        if self.expected.pop(session.id, None) is None:
            session.delete().refused(404, "session_not_found")
        else:
            session.delete().done()

    @rule(key=keys)
    def delete_what_a_key_made(self, key: str) -> None:
        session = Session(self.client, self.answers[key][1].json()["sessionId"])
        if self.expected.pop(session.id, None) is None:
            session.delete().refused(404, "session_not_found")
        else:
            session.delete().done()

    @invariant()
    def the_list_is_what_was_made_and_not_deleted(self) -> None:
        listed = self.client.call("GET", "/sessions", query={"limit": 100}).done()
        assert listed["total"] == len(self.expected)
        assert {entry["sessionId"] for entry in listed["sessions"]} == set(self.expected)

    @invariant()
    def each_session_looks_as_it_should(self) -> None:
        for name, expected in self.expected.items():
            seen = Session(self.client, name).look().done()
            assert {field: seen[field] for field in expected} == expected


def test_an_account_behaves_like_a_dictionary_of_sessions(enterprise: Client) -> None:
    class OfThisServer(Account):
        def __init__(self) -> None:
            super().__init__(enterprise)

    run_state_machine_as_test(OfThisServer, settings=BOUNDS)
