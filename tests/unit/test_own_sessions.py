"""What a host may read from its memory: never what a row does not have any more."""

from dataclasses import replace

import pytest

from buntime.errors import CommitUnknown, StaleSession
from buntime.fleet.members import Fenced, Membership
from buntime.session import Session
from buntime.stores.postgres.own import OwnSessions
from tests.contracts.examples import NOW, session

ONE = replace(session(), host="hst_me")
TWO = replace(ONE, version=2)


class Host:
    """A host, and what it knows."""

    def __init__(self) -> None:
        self.me: Membership | None = Membership("hst_me", 1)
        self.own = OwnSessions(self.membership)

    def membership(self) -> Membership:
        if self.me is None:
            raise Fenced
        return self.me

    def read(self, found: Session = ONE) -> None:
        with self.own.reading() as read:
            self.own.learn(read, [found])

    def change(self, after: Session | None) -> None:
        with self.own.changing(ONE.id) as change:
            change.after = after


@pytest.fixture
def host() -> Host:
    host = Host()
    host.read()
    assert host.own.get(ONE.id) == ONE
    return host


def test_a_change_is_known_after_it_was_stored_and_nothing_is_known_before(host: Host) -> None:
    with host.own.changing(ONE.id) as change:
        assert host.own.get(ONE.id) is None
        change.after = TWO
    assert host.own.get(ONE.id) == TWO


def test_a_session_of_another_host_is_not_known(host: Host) -> None:
    host.read(replace(ONE, id="ses_theirs", host="hst_other"))
    assert host.own.get("ses_theirs") is None


@pytest.mark.parametrize("after", [None, replace(ONE, host="")], ids=["removed", "nobody's"])
def test_a_session_that_the_host_has_no_more_is_not_known(host: Host, after: Session | None) -> None:
    host.change(after)
    assert host.own.get(ONE.id) is None
    assert len(host.own) == 0


def test_a_host_that_may_not_act_knows_nothing(host: Host) -> None:
    host.me = None
    assert host.own.get(ONE.id) is None


def test_a_host_that_joined_again_has_forgotten_all(host: Host) -> None:
    host.me = Membership("hst_me", 2)
    assert host.own.get(ONE.id) is None
    host.me = Membership("hst_me", 1)
    assert host.own.get(ONE.id) is None


def test_what_an_earlier_member_has_read_or_changed_teaches_nothing(host: Host) -> None:
    with host.own.reading() as read:
        host.me = Membership("hst_me", 2)
        host.own.learn(read, [ONE])
    with host.own.changing(ONE.id) as change:
        host.me = Membership("hst_me", 3)
        change.after = TWO
    assert host.own.get(ONE.id) is None


def test_a_read_that_began_before_the_end_of_a_change_teaches_nothing(host: Host) -> None:
    with host.own.reading() as before:
        with host.own.changing(ONE.id) as change, host.own.reading() as during:
            change.after = None
        for read in (before, during):
            host.own.learn(read, [ONE])
    assert host.own.get(ONE.id) is None
    host.read(TWO)
    assert host.own.get(ONE.id) == TWO


def test_changes_that_overlap_teach_nothing(host: Host) -> None:
    with host.own.changing(ONE.id) as first:
        with host.own.changing(ONE.id) as second:
            second.after = replace(ONE, version=3)
        assert host.own.get(ONE.id) is None
        first.after = TWO
    assert host.own.get(ONE.id) is None


def test_after_a_change_whose_outcome_is_unknown_only_a_later_change_teaches(host: Host) -> None:
    with pytest.raises(CommitUnknown), host.own.changing(ONE.id):
        raise CommitUnknown("")
    host.read()
    assert host.own.get(ONE.id) is None
    host.change(TWO)
    assert host.own.get(ONE.id) == TWO


def test_a_change_that_overlapped_a_failed_one_does_not_make_sure(host: Host) -> None:
    with host.own.changing(ONE.id) as longer:
        with pytest.raises(CommitUnknown), host.own.changing(ONE.id):
            raise CommitUnknown("")
        longer.after = TWO
    host.read(TWO)
    assert host.own.get(ONE.id) is None


def test_activity_that_was_stored_is_known_also_while_a_read_or_a_change_is_under_way(host: Host) -> None:
    host.own.has_touched({ONE.id: NOW + 5, "ses_unknown": NOW})
    found = host.own.get(ONE.id)
    assert found is not None
    assert found.last_active == NOW + 5
    with host.own.changing(ONE.id) as change:
        with host.own.reading() as read:
            host.own.has_touched({ONE.id: NOW + 9})
            host.own.learn(read, [TWO])
        assert host.own.get(ONE.id) is None
        change.after = TWO
    assert host.own.get(ONE.id) == replace(TWO, last_active=NOW + 9)


def test_a_member_asks_once_for_all_and_then_notes_what_it_has_changed(host: Host) -> None:
    host.change(TWO)
    assert host.own.take_changed() is None
    assert host.own.take_changed() == set()
    host.change(replace(ONE, version=3))
    host.change(None)
    with pytest.raises(StaleSession), host.own.changing("ses_stale"):
        raise StaleSession("")
    assert host.own.take_changed() == {ONE.id}
    host.own.put_back({ONE.id})
    assert host.own.take_changed() == {ONE.id}
    host.own.put_back(None)
    assert host.own.take_changed() is None
    host.me = Membership("hst_me", 2)
    assert host.own.take_changed() is None


def test_a_session_whose_change_may_still_come_counts_as_changed_until_that_is_known(host: Host) -> None:
    host.own.take_changed()
    with pytest.raises(CommitUnknown), host.own.changing(ONE.id):
        raise CommitUnknown("")
    assert [host.own.take_changed() for _ in range(3)] == [{ONE.id}] * 3
    host.change(TWO)
    assert [host.own.take_changed() for _ in range(2)] == [{ONE.id}, set()]
