"""The contract of `ports.Store`, for the fake and the real one alike."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from buntime.account import AccountStatus
from buntime.errors import (
    IdempotencyInProgress,
    ImageNotFound,
    NameTaken,
    ResourceLimitExceeded,
    SessionLimitExceeded,
    SessionNotFound,
    StaleSession,
    TooManyTokens,
)
from buntime.image import NamedImage
from buntime.ports import Store
from buntime.scope import Scope
from buntime.session import Event, Session, State
from tests.contracts.examples import FULL, NOW, account, answer, key, session, token

# accounts and keys


async def test_an_account_is_found_as_it_was_added(store: Store) -> None:
    added = replace(account(), overrides={"sessions": 500, "most": {"memory": 8192, "cpu": 2.5}})
    await store.add_account(added)
    assert await store.get_account(added.id) == added


async def test_an_unknown_account_is_none(store: Store) -> None:
    assert await store.get_account("acc_none") is None


async def test_a_taken_account_id_is_refused_and_changes_nothing(store: Store) -> None:
    await store.add_account(account())
    with pytest.raises(ValueError, match="acc_one"):
        await store.add_account(replace(account(), plan="free"))
    assert await store.list_accounts() == [account()]


async def test_accounts_are_listed_oldest_first_in_whatever_status(store: Store) -> None:
    for name, created_at in (("acc_c", NOW + 1), ("acc_b", NOW), ("acc_a", NOW)):
        await store.add_account(account(name, created_at))
    await store.set_account_status("acc_a", AccountStatus.DELETED)
    assert [found.id for found in await store.list_accounts()] == ["acc_a", "acc_b", "acc_c"]


async def test_inactive_accounts_are_listed_oldest_first(store: Store) -> None:
    for name, created_at in (("acc_d", NOW), ("acc_c", NOW + 1), ("acc_b", NOW), ("acc_a", NOW)):
        await store.add_account(account(name, created_at))
    assert await store.inactive_accounts() == []
    for name, status in (("acc_c", AccountStatus.SUSPENDED), ("acc_b", AccountStatus.DELETED), ("acc_a", "suspended")):
        await store.set_account_status(name, AccountStatus(status))
    assert [found.id for found in await store.inactive_accounts()] == ["acc_a", "acc_b", "acc_c"]
    await store.set_account_status("acc_a", AccountStatus.ACTIVE)
    assert [found.id for found in await store.inactive_accounts()] == ["acc_b", "acc_c"]


async def test_an_account_can_be_suspended_and_resumed(store: Store) -> None:
    await store.add_account(account())
    assert await store.set_account_status("acc_one", AccountStatus.SUSPENDED)
    assert await store.get_account("acc_one") == replace(account(), status=AccountStatus.SUSPENDED)
    assert await store.set_account_status("acc_one", AccountStatus.ACTIVE)
    assert await store.get_account("acc_one") == account()


async def test_the_status_of_an_unknown_account_cannot_be_set(store: Store) -> None:
    assert not await store.set_account_status("acc_none", AccountStatus.SUSPENDED)


@pytest.mark.parametrize("status", list(AccountStatus))
async def test_a_deleted_account_stays_deleted(store: Store, status: AccountStatus) -> None:
    await store.add_account(account())
    assert await store.set_account_status("acc_one", AccountStatus.DELETED)
    assert not await store.set_account_status("acc_one", status)
    assert await store.get_account("acc_one") == replace(account(), status=AccountStatus.DELETED)


async def test_a_key_is_found_by_its_hash_with_its_account(store: Store) -> None:
    await store.add_account(account())
    await store.add_key(key())
    assert await store.find_key(key().hash) == (key(), account())


async def test_an_unknown_hash_is_none(store: Store) -> None:
    assert await store.find_key("no such hash") is None


@pytest.mark.parametrize("status", [AccountStatus.SUSPENDED, AccountStatus.DELETED])
async def test_a_key_is_found_whatever_the_status_of_its_account(store: Store, status: AccountStatus) -> None:
    await store.add_account(account())
    await store.add_key(key())
    assert await store.find_key(key().hash) == (key(), account())
    await store.set_account_status("acc_one", status)
    assert await store.find_key(key().hash) == (key(), replace(account(), status=status))


async def test_a_key_of_no_account_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="acc_one"):
        await store.add_key(key())
    assert await store.list_keys() == []


async def test_a_taken_key_id_or_hash_is_refused(store: Store) -> None:
    await store.add_account(account())
    await store.add_key(key())
    for taken in (replace(key(), hash="another"), replace(key(), id="key_two")):
        with pytest.raises(ValueError, match="taken"):
            await store.add_key(taken)
    assert await store.list_keys() == [key()]


async def test_a_revoked_key_is_not_found_any_more(store: Store) -> None:
    await store.add_account(account())
    await store.add_key(key())
    assert await store.find_key(key().hash) is not None
    assert await store.revoke_key("key_one", NOW + 9)
    assert await store.find_key(key().hash) is None
    assert await store.list_keys() == [replace(key(), revoked_at=NOW + 9)]


async def test_a_second_revoke_is_false_and_keeps_the_first_time(store: Store) -> None:
    await store.add_account(account())
    await store.add_key(key())
    await store.revoke_key("key_one", NOW + 9)
    assert not await store.revoke_key("key_one", NOW + 10)
    assert not await store.revoke_key("key_none", NOW)
    assert await store.list_keys() == [replace(key(), revoked_at=NOW + 9)]


async def test_a_key_keeps_its_name_its_scopes_and_its_end(store: Store) -> None:
    await store.add_account(account())
    scopes = frozenset({Scope.SESSIONS_READ, Scope.OPERATOR})
    full = replace(key(), name="ci \u2713", scopes=scopes, expires_at=NOW + 60, maker="key_0")
    await store.add_key(full)
    assert await store.list_keys() == [full]
    assert await store.find_key(full.hash) == (full, account())


async def test_an_expired_key_is_found(store: Store) -> None:
    await store.add_account(account())
    ended = replace(key(), expires_at=1)
    await store.add_key(ended)
    assert await store.find_key(ended.hash) == (ended, account())


async def test_a_key_beyond_the_limit_of_valid_ones_is_refused(store: Store) -> None:
    for name in ("acc_one", "acc_two"):
        await store.add_account(account(name))
    await store.add_key(replace(key("key_a"), expires_at=NOW + 5))
    await store.add_key(key("key_b"), None, 2)
    with pytest.raises(ResourceLimitExceeded) as refused:
        await store.add_key(key("key_c", created_at=NOW + 4), answer(), 2)
    assert refused.value.details == {"resource": "keys", "limit": 2, "scope": "account", "plan": ""}
    assert await store.find_answer("acc_one", "k") is None
    await store.add_key(key("key_d", "acc_two"), None, 1)
    await store.add_key(key("key_e", created_at=NOW + 5), None, 2)
    await store.add_key(key("key_f", created_at=NOW + 5))
    assert [found.id for found in await store.list_keys("acc_one")] == ["key_a", "key_b", "key_e", "key_f"]


async def test_a_key_with_a_limit_forgets_old_keys_that_the_account_made_and_that_are_not_valid(store: Store) -> None:
    for name in ("acc_one", "acc_two"):
        await store.add_account(account(name))
    for number, ended in enumerate(("key_a", "key_b", "key_c")):
        await store.add_key(replace(key(ended, created_at=NOW + number), maker="key_0"))
        await store.revoke_key(ended, NOW + 9)
    await store.add_key(replace(key("key_d", created_at=NOW), expires_at=NOW + 1, maker="key_0"))
    await store.add_key(replace(key("key_e", "acc_two"), maker="key_0"))
    await store.revoke_key("key_e", NOW)
    await store.add_key(key("key_f", created_at=NOW + 9), None, 2)
    assert [found.id for found in await store.list_keys("acc_one")] == ["key_b", "key_c", "key_f"]
    assert len(await store.list_keys("acc_two")) == 1


async def test_a_key_that_the_command_line_made_is_never_forgotten(store: Store) -> None:
    await store.add_account(account())
    for name, maker in (("key_a", None), ("key_b", "key_a"), ("key_c", "key_b")):
        await store.add_key(replace(key(name), maker=maker), None, 1)
        await store.revoke_key(name, NOW)
    await store.add_key(replace(key("key_d"), maker="key_c"), None, 1)
    assert [(found.id, found.maker) for found in await store.list_keys()] == [
        ("key_a", None), ("key_b", "key_a"), ("key_d", "key_c"),
    ]  # fmt: skip


async def test_a_key_is_stored_with_its_answer_or_not_at_all(store: Store) -> None:
    await store.add_account(account())
    await store.add_key(key("key_a"), answer(), 9)
    assert await store.find_answer("acc_one", "k") == answer()
    with pytest.raises(IdempotencyInProgress):
        await store.add_key(key("key_b"), answer(), 9)
    assert [found.id for found in await store.list_keys()] == ["key_a"]


async def test_keys_are_listed_by_account_or_all_oldest_first(store: Store) -> None:
    await store.add_account(account())
    await store.add_account(account("acc_two"))
    for name, owner, created_at in (("key_c", "acc_one", 3), ("key_b", "acc_two", 1), ("key_a", "acc_one", 1)):
        await store.add_key(key(name, owner, created_at))
    assert [found.id for found in await store.list_keys()] == ["key_a", "key_b", "key_c"]
    assert [found.id for found in await store.list_keys("acc_one")] == ["key_a", "key_c"]
    assert await store.list_keys("acc_none") == []


# sessions


@pytest.mark.parametrize("added", [session(), FULL])
async def test_a_session_is_found_as_it_was_added(store: Store, added: Session) -> None:
    await store.add_session(added, None, 10)
    assert await store.get_session(added.id) == added
    assert await store.all_sessions() == [added]


async def test_an_unknown_session_is_none(store: Store) -> None:
    assert await store.get_session("ses_none") is None


async def test_a_session_over_the_limit_is_refused_with_the_numbers(store: Store) -> None:
    await store.add_session(session("ses_a"), None, 2)
    await store.add_session(session("ses_b"), None, 2)
    with pytest.raises(SessionLimitExceeded) as refused:
        await store.add_session(session("ses_c"), answer(), 2)
    assert refused.value.details == {"plan": "", "limit": 2, "active": 2}
    assert await store.get_session("ses_c") is None
    assert await store.find_answer("acc_one", "k") is None


async def test_the_limit_is_per_account_and_leaves_out_sessions_being_deleted(store: Store) -> None:
    await store.add_session(session("ses_a"), None, 1)
    await store.add_session(session("ses_b", account="acc_two"), None, 1)
    await store.change_session(session("ses_a"), session("ses_a").after(Event.DELETE))
    await store.add_session(session("ses_c"), None, 1)
    assert await store.count_sessions("acc_one") == 1


async def test_the_limit_is_exact_for_creates_at_once(store: Store) -> None:
    adds = [store.add_session(session(f"ses_{n:03}"), None, 60) for n in range(100)]
    outcomes = await asyncio.gather(*adds, return_exceptions=True)
    assert [outcome is None for outcome in outcomes].count(True) == 60
    assert all(outcome is None or isinstance(outcome, SessionLimitExceeded) for outcome in outcomes)
    assert await store.count_sessions("acc_one") == 60
    assert len(await store.all_sessions()) == 60


async def test_a_name_belongs_to_one_session_of_the_account(store: Store) -> None:
    first, other = session(called="build"), session("ses_two", called="build")
    await store.add_session(first, None, 9)
    with pytest.raises(NameTaken) as refused:
        await store.add_session(other, answer(), 1)
    assert refused.value.details == {"name": "build", "sessionId": first.id}
    assert [await store.get_session(other.id), await store.find_answer("acc_one", "k")] == [None, None]
    theirs = session("ses_theirs", "acc_two", called="build")
    await store.add_session(theirs, None, 9)
    assert await store.named_session("acc_one", "build") == first
    assert await store.named_session("acc_two", "build") == theirs
    assert await store.named_session("acc_one", "other") is None


async def test_of_creates_of_one_name_at_once_one_wins(store: Store) -> None:
    adds = [store.add_session(session(f"ses_{n}", called="build"), None, 200) for n in range(100)]
    refused = [failed for failed in await asyncio.gather(*adds, return_exceptions=True) if failed is not None]
    (made,) = await store.all_sessions()
    assert [type(failed) for failed in refused] == [NameTaken] * 99
    assert {failed.details["sessionId"] for failed in refused if isinstance(failed, NameTaken)} == {made.id}


async def test_a_name_is_free_when_its_session_is_being_deleted_or_has_lost_it(store: Store) -> None:
    first, second = session(called="build"), session("ses_two", called="build")
    await store.add_session(first, None, 9)
    deleting = await store.change_session(first, first.after(Event.DELETE))
    assert await store.named_session("acc_one", "build") is None
    await store.add_session(second, None, 9)
    await store.change_session(deleting, replace(deleting, files=3))
    await store.remove_session(first.id)
    assert await store.named_session("acc_one", "build") == second
    await store.change_session(second, replace(second, name=None))
    assert await store.named_session("acc_one", "build") is None
    await store.add_session(session("ses_three", called="build"), None, 9)


async def test_a_change_to_a_name_that_is_taken_is_refused_and_changes_nothing(store: Store) -> None:
    first, second = session(called="build"), session("ses_two", called="test")
    for added in (first, second):
        await store.add_session(added, None, 9)
    with pytest.raises(NameTaken) as refused:
        await store.change_session(second, replace(second, name="build", files=3), answer())
    assert refused.value.details["sessionId"] == first.id
    assert await store.get_session(second.id) == second
    assert await store.find_answer("acc_one", "k") is None
    renamed = await store.change_session(second, replace(second, name="other"))
    assert await store.named_session("acc_one", "other") == renamed
    assert await store.named_session("acc_one", "test") is None


async def test_a_list_can_be_of_one_name(store: Store) -> None:
    named = session(called="build", metadata={"a": "1"})
    for added in (named, session("ses_two", called="build-2"), session("ses_three")):
        await store.add_session(added, None, 9)
    assert await store.list_sessions("acc_one", now=NOW, name="build") == ([named], 1)
    assert await store.list_sessions("acc_one", now=NOW, name="build", offset=1) == ([], 1)
    for nothing in (
        store.list_sessions("acc_one", now=NOW, name="b"),
        store.list_sessions("acc_one", now=NOW, name="build", state=State.IDLE),
        store.list_sessions("acc_one", now=NOW, name="build", metadata={"a": "2"}),
        store.list_sessions("acc_one", now=NOW + 300, name="build"),
    ):
        assert await nothing == ([], 0)


async def test_an_answer_keeps_its_headers(store: Store) -> None:
    kept = replace(answer(), headers={"session-existing": "true"})
    await store.add_answer(kept)
    assert await store.find_answer("acc_one", "k") == kept


async def test_a_taken_session_id_is_refused_and_its_neighbours_are_not(store: Store) -> None:
    await store.add_session(session("ses_a"), None, 10)
    adds = [store.add_session(session(name), None, 10) for name in ("ses_b", "ses_a", "ses_c")]
    outcomes = await asyncio.gather(*adds, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), ValueError, type(None)]
    assert sorted(found.id for found in await store.all_sessions()) == ["ses_a", "ses_b", "ses_c"]


async def test_a_session_and_its_answer_are_stored_together(store: Store) -> None:
    await store.add_session(session(), answer(), 1)
    assert await store.find_answer("acc_one", "k") == answer()


async def test_a_session_whose_key_has_an_answer_already_is_not_stored(store: Store) -> None:
    await store.add_answer(answer(body=b"first"))
    with pytest.raises(IdempotencyInProgress):
        await store.add_session(session(), answer(body=b"second"), 1)
    assert await store.get_session("ses_one") is None
    assert await store.find_answer("acc_one", "k") == answer(body=b"first")


async def test_a_taken_session_id_leaves_its_key_free(store: Store) -> None:
    await store.add_session(session(), None, 10)
    with pytest.raises(ValueError, match="ses_one"):
        await store.add_session(session(), answer(), 10)
    assert await store.find_answer("acc_one", "k") is None


async def test_a_change_raises_the_version_and_returns_what_is_stored(store: Store) -> None:
    await store.add_session(FULL, None, 1)
    wanted = replace(session("ses_full"), epoch=FULL.epoch, metadata={"new": 1})
    changed = await store.change_session(FULL, wanted)
    assert changed == replace(wanted, version=FULL.version + 1, last_active=FULL.last_active)
    assert await store.get_session("ses_full") == changed


async def test_a_change_and_its_answer_are_stored_together_or_not_at_all(store: Store) -> None:
    await store.add_session(session(), None, 1)
    with pytest.raises(StaleSession):
        await store.change_session(replace(session(), version=9), session(), answer())
    assert await store.find_answer("acc_one", "k") is None
    changed = await store.change_session(session(), session().after(Event.SUSPEND), answer())
    assert await store.find_answer("acc_one", "k") == answer()
    with pytest.raises(IdempotencyInProgress):
        await store.change_session(changed, changed.after(Event.DELETE), answer(body=b"second"))
    assert await store.get_session("ses_one") == changed


async def test_a_change_of_an_old_version_is_stale(store: Store) -> None:
    await store.add_session(session(), None, 1)
    changed = await store.change_session(session(), session().after(Event.SUSPEND))
    with pytest.raises(StaleSession):
        await store.change_session(session(), session().after(Event.DELETE))
    assert await store.get_session("ses_one") == changed


async def test_of_changes_at_once_one_wins(store: Store) -> None:
    await store.add_session(session(), None, 1)
    changes = [store.change_session(session(), replace(session(), expires_at=NOW + n)) for n in range(20)]
    outcomes = await asyncio.gather(*changes, return_exceptions=True)
    won = [outcome for outcome in outcomes if not isinstance(outcome, StaleSession)]
    assert won == [await store.get_session("ses_one")]


async def test_a_change_of_a_session_that_is_gone_is_stale(store: Store) -> None:
    await store.add_session(session(), None, 1)
    await store.remove_session("ses_one")
    with pytest.raises(StaleSession):
        await store.change_session(session(), session().after(Event.SUSPEND))
    assert await store.get_session("ses_one") is None


@pytest.mark.parametrize("other", [session("ses_two"), session(account="acc_two")])
async def test_a_session_keeps_its_id_and_its_account(store: Store, other: Session) -> None:
    await store.add_session(session(), None, 1)
    with pytest.raises(ValueError, match="cannot change"):
        await store.change_session(session(), other)
    assert await store.all_sessions() == [session()]


async def test_activity_is_seen_at_once_and_is_no_change_of_version(store: Store) -> None:
    await store.add_session(session(), None, 1)
    await store.touch_session("ses_one", NOW + 7)
    assert await store.get_session("ses_one") == replace(session(), last_active=NOW + 7)
    await store.change_session(session(), session().after(Event.SUSPEND))


async def test_activity_never_goes_back(store: Store) -> None:
    await store.add_session(session(), None, 1)
    await store.touch_session("ses_one", NOW + 7)
    await store.touch_session("ses_one", NOW + 3)
    changed = await store.change_session(session(), session().after(Event.SUSPEND))
    assert changed.last_active == NOW + 7
    assert await store.get_session("ses_one") == changed


async def test_activity_of_an_unknown_session_is_ignored(store: Store) -> None:
    await store.touch_session("ses_none", NOW)
    assert await store.all_sessions() == []


async def test_a_removed_session_is_gone_and_removing_again_is_nothing(store: Store) -> None:
    await store.add_session(session(), None, 1)
    await store.remove_session("ses_one")
    await store.remove_session("ses_one")
    assert await store.get_session("ses_one") is None
    assert await store.count_sessions("acc_one") == 0
    await store.add_session(session(), None, 1)


async def test_a_session_being_deleted_is_found_by_id_and_by_the_keeper_alone(store: Store) -> None:
    await store.add_session(session(), None, 1)
    gone = await store.change_session(session(), session().after(Event.DELETE))
    assert await store.get_session("ses_one") == gone
    assert await store.all_sessions() == [gone]
    assert await store.list_sessions("acc_one", now=NOW) == ([], 0)
    assert await store.count_sessions("acc_one") == 0


async def test_every_state_is_counted_over_all_accounts(store: Store) -> None:
    assert await store.count_states() == dict.fromkeys(State, 0)
    await store.add_session(session("ses_a"), None, 10)
    for name in ("ses_b", "ses_c", "ses_d"):
        await store.add_session(session(name, account="acc_two"), None, 10)
    await store.change_session(session("ses_a"), session("ses_a").after(Event.SUSPEND))
    ended = session("ses_b", account="acc_two")
    await store.change_session(ended, ended.after(Event.DELETE))
    expected = {State.ACTIVE: 2, State.IDLE: 1, State.DEEP_SLEEP: 0, State.DELETING: 1}
    assert await store.count_states() == expected
    await store.remove_session("ses_b")
    assert await store.count_states() == expected | {State.DELETING: 0}


async def test_expired_sessions_count_but_are_not_listed(store: Store) -> None:
    await store.add_session(session(expires_at=NOW + 300), None, 1)
    assert (await store.list_sessions("acc_one", now=NOW + 299))[1] == 1
    assert await store.list_sessions("acc_one", now=NOW + 300) == ([], 0)
    assert await store.count_sessions("acc_one") == 1


async def test_sessions_that_never_end_are_listed_with_the_others(store: Store) -> None:
    ends = {"ses_a": None, "ses_b": NOW + 5, "ses_c": None, "ses_d": NOW + 9}
    for n, (name, end) in enumerate(ends.items()):
        await store.add_session(session(name, created_at=n, expires_at=end), None, 10)

    async def page(now: int, limit: int = 50) -> tuple[str, int]:
        found, total = await store.list_sessions("acc_one", now=now, limit=limit)
        return "".join(one.id.removeprefix("ses_") for one in found), total

    assert await page(NOW) == ("dcba", 4)
    assert await page(NOW + 5, limit=2) == ("dc", 3)
    assert await page(NOW + 10**9) == ("ca", 2)
    endless, ending = session("ses_a", created_at=0, expires_at=None), session("ses_a", created_at=0)
    ending = await store.change_session(endless, ending)
    assert await page(NOW + 300) == ("c", 1)
    await store.change_session(ending, replace(ending, expires_at=None))
    assert await page(NOW + 300) == ("ca", 2)


async def test_a_page_is_newest_first_with_the_total(store: Store) -> None:
    for name, created_at in (("ses_d", 1), ("ses_c", 2), ("ses_b", 3), ("ses_a", 2)):
        await store.add_session(session(name, created_at=created_at), None, 10)
    await store.add_session(session("ses_x", account="acc_two"), None, 10)
    found, total = await store.list_sessions("acc_one", now=NOW)
    assert ([one.id for one in found], total) == (["ses_b", "ses_a", "ses_c", "ses_d"], 4)
    found, total = await store.list_sessions("acc_one", now=NOW, limit=2, offset=1)
    assert ([one.id for one in found], total) == (["ses_a", "ses_c"], 4)
    assert await store.list_sessions("acc_one", now=NOW, offset=9) == ([], 4)


async def test_a_list_can_be_of_one_state(store: Store) -> None:
    await store.add_session(session("ses_a"), None, 10)
    await store.add_session(session("ses_b", state=State.IDLE), None, 10)
    found, total = await store.list_sessions("acc_one", now=NOW, state=State.IDLE)
    assert ([one.id for one in found], total) == (["ses_b"], 1)


async def test_a_page_goes_round_those_that_have_expired(store: Store) -> None:
    ends = {"ses_a": 9, "ses_b": 1, "ses_c": 9, "ses_d": 2, "ses_e": 3, "ses_f": 9, "ses_g": 9}
    for n, (name, end) in enumerate(ends.items()):
        state = State.IDLE if name in ("ses_d", "ses_f") else State.ACTIVE
        await store.add_session(session(name, created_at=n, expires_at=NOW + end, state=state), None, 10)

    async def page(limit: int, offset: int, state: State | None = None) -> tuple[str, int]:
        found, total = await store.list_sessions("acc_one", now=NOW + 3, state=state, limit=limit, offset=offset)
        return "".join(one.id.removeprefix("ses_") for one in found), total

    assert [await page(2, offset) for offset in range(5)] == [("gf", 4), ("fc", 4), ("ca", 4), ("a", 4), ("", 4)]
    assert await page(2, 0, State.ACTIVE) == ("gc", 3)
    assert await page(2, 0, State.IDLE) == ("f", 1)


async def test_a_page_follows_changes_of_state_and_end(store: Store) -> None:
    await store.add_session(session("ses_a"), None, 10)
    await store.add_session(session("ses_b"), None, 10)
    idle = await store.change_session(session("ses_a"), session("ses_a").after(Event.SUSPEND))
    later = await store.change_session(session("ses_b"), replace(session("ses_b"), expires_at=NOW + 900))
    assert await store.list_sessions("acc_one", now=NOW, state=State.IDLE) == ([idle], 1)
    assert await store.list_sessions("acc_one", now=NOW, state=State.ACTIVE) == ([later], 1)
    assert await store.list_sessions("acc_one", now=NOW + 300) == ([later], 1)
    await store.remove_session("ses_a")
    assert await store.list_sessions("acc_one", now=NOW) == ([later], 1)


async def test_nothing_is_listed_as_being_deleted(store: Store) -> None:
    await store.add_session(session(), None, 1)
    await store.change_session(session(), session().after(Event.DELETE))
    assert await store.list_sessions("acc_one", now=NOW, state=State.DELETING) == ([], 0)


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        ({"user": "ann"}, True),
        ({"user": "bob"}, False),
        ({"user": "ann", "n": "7"}, True),
        ({"user": "ann", "n": "8"}, False),
        ({"n": "7.0"}, False),
        ({"ratio": "2.5"}, True),
        ({"on": "true"}, True),
        ({"on": "True"}, False),
        ({"on": "1"}, False),
        ({"text": "7"}, True),
        ({"nothing": "null"}, False),
        ({"list": "[]"}, False),
        ({"deep": "{}"}, False),
        ({"missing": ""}, False),
        ({}, True),
    ],
)
async def test_a_list_can_be_of_those_with_metadata(store: Store, wanted: dict[str, str], matches: bool) -> None:
    metadata = {"user": "ann", "n": 7, "ratio": 2.5, "on": True, "text": "7", "nothing": None, "list": [], "deep": {}}
    await store.add_session(session(metadata=metadata), None, 1)
    assert (await store.list_sessions("acc_one", now=NOW, metadata=wanted))[1] == matches


async def test_the_sessions_of_one_account_are_found_in_whatever_state(store: Store) -> None:
    await store.add_session(session("ses_a"), None, 10)
    await store.add_session(session("ses_b", state=State.DEEP_SLEEP, expires_at=NOW), None, 10)
    await store.add_session(session("ses_x", account="acc_two"), None, 10)
    deleting = await store.change_session(session("ses_a"), session("ses_a").after(Event.DELETE))
    found = sorted(await store.account_sessions("acc_one"), key=lambda one: one.id)
    assert found == [deleting, session("ses_b", state=State.DEEP_SLEEP, expires_at=NOW)]
    assert await store.account_sessions("acc_none") == []
    assert await store.account_sandboxes("acc_one") == [deleting.sandbox]
    assert await store.account_sandboxes("acc_none") == []


async def changed(store: Store) -> list[Session]:
    return sorted(await store.changed_sessions(), key=lambda one: one.id)


async def test_the_first_changed_sessions_are_all_and_the_next_are_none(store: Store) -> None:
    await store.add_session(session("ses_a"), None, 10)
    await store.add_session(session("ses_x", account="acc_two", state=State.DELETING), None, 10)
    assert [one.id for one in await changed(store)] == ["ses_a", "ses_x"]
    assert await changed(store) == []


async def test_added_and_changed_sessions_are_told_once_as_they_are_now(store: Store) -> None:
    for name in ("ses_a", "ses_b", "ses_c"):
        await store.add_session(session(name), None, 10)
    await changed(store)
    await store.add_session(session("ses_d"), None, 10)
    idle = await store.change_session(session("ses_b"), session("ses_b").after(Event.SUSPEND))
    active = await store.change_session(idle, idle.after(Event.RESUME))
    await store.touch_session("ses_b", NOW + 7)
    assert await changed(store) == [replace(active, last_active=NOW + 7), session("ses_d")]
    assert await changed(store) == []


async def test_activity_and_refused_changes_are_no_changes(store: Store) -> None:
    await store.add_session(session(), None, 1)
    await changed(store)
    await store.touch_session("ses_one", NOW + 7)
    with pytest.raises(StaleSession):
        await store.change_session(replace(session(), version=9), session())
    with pytest.raises(SessionLimitExceeded):
        await store.add_session(session("ses_two"), None, 1)
    assert await changed(store) == []


async def test_a_removed_session_has_not_changed_but_one_that_takes_its_id_has(store: Store) -> None:
    await store.add_session(session("ses_a"), None, 10)
    await store.add_session(session("ses_b"), None, 10)
    await store.remove_session("ses_a")
    assert await changed(store) == [session("ses_b")]
    await store.change_session(session("ses_b"), session("ses_b").after(Event.DELETE))
    await store.remove_session("ses_b")
    assert await changed(store) == []
    await store.add_session(session("ses_b"), None, 10)
    assert await changed(store) == [session("ses_b")]


# preview tokens


@pytest.mark.parametrize("port", [None, 3000])
async def test_a_token_is_found_as_it_was_added(store: Store, port: int | None) -> None:
    await store.add_session(session(), None, 10)
    await store.add_preview_token(token(port=port), None, 10)
    assert await store.find_preview_token(token().hash) == token(port=port)
    assert await store.find_preview_token("no such hash") is None


async def test_a_token_needs_a_session_that_is_not_being_deleted(store: Store) -> None:
    await store.add_session(session(state=State.DELETING), None, 10)
    for name in ("ses_one", "ses_none"):
        with pytest.raises(SessionNotFound):
            await store.add_preview_token(token(session=name), None, 10)


async def test_a_taken_hash_is_refused(store: Store) -> None:
    await store.add_session(session(), None, 10)
    await store.add_preview_token(token(), None, 10)
    with pytest.raises(ValueError, match="hash"):
        await store.add_preview_token(token(), None, 10)


async def test_only_valid_tokens_of_the_session_count_against_its_limit(store: Store) -> None:
    for name in ("ses_one", "ses_two"):
        await store.add_session(session(name), None, 10)
    await store.add_preview_token(token("old", created_at=NOW - 60), None, 1)
    await store.add_preview_token(token("other", session="ses_two"), None, 1)
    await store.add_preview_token(token("a"), None, 1)
    with pytest.raises(TooManyTokens) as refused:
        await store.add_preview_token(token("b"), None, 1)
    assert refused.value.details == {"limit": 1}
    await store.add_preview_token(token("b", created_at=NOW + 60), None, 1)


async def test_a_token_and_its_answer_are_stored_together_or_not_at_all(store: Store) -> None:
    await store.add_session(session(), None, 10)
    await store.add_preview_token(token("a"), answer(), 10)
    assert await store.find_answer("acc_one", "k") == answer()
    with pytest.raises(IdempotencyInProgress):
        await store.add_preview_token(token("b"), answer(body=b"other"), 10)
    assert await store.find_preview_token(token("b").hash) is None


async def test_one_token_of_a_session_or_all_are_revoked_and_counted(store: Store) -> None:
    for name in ("ses_one", "ses_two"):
        await store.add_session(session(name), None, 10)
    for name in "abc":
        await store.add_preview_token(token(name), None, 10)
    await store.add_preview_token(token("other", session="ses_two"), None, 10)
    assert await store.revoke_preview_tokens("ses_one", token("other").hash) == 0
    assert await store.revoke_preview_tokens("ses_one", token("a").hash) == 1
    assert await store.revoke_preview_tokens("ses_one", token("a").hash) == 0
    assert await store.find_preview_token(token("a").hash) is None
    assert await store.revoke_preview_tokens("ses_one") == 2
    assert await store.find_preview_token(token("other").hash) is not None


async def test_expired_tokens_are_dropped_and_counted(store: Store) -> None:
    await store.add_session(session(), None, 10)
    for name, ttl in (("a", 60), ("b", 61)):
        await store.add_preview_token(token(name, ttl=ttl), None, 10)
    assert await store.drop_preview_tokens(NOW + 60) == 1
    assert [await store.find_preview_token(token(name).hash) for name in "ab"] == [None, token("b", ttl=61)]


async def test_tokens_go_with_their_session(store: Store) -> None:
    await store.add_session(session(), None, 10)
    await store.add_preview_token(token(), None, 10)
    await store.change_session(session(), session().after(Event.SUSPEND))
    assert await store.find_preview_token(token().hash) == token()
    await store.remove_session("ses_one")
    assert await store.find_preview_token(token().hash) is None


# idempotency


@pytest.mark.parametrize("size", [0, 1, 1024, 1025, 3_000_000])
async def test_an_answer_is_given_again_as_it_was(store: Store, size: int) -> None:
    kept = answer(body=bytes(range(256)) * (size // 256) + b"x" * (size % 256))
    await store.add_answer(kept)
    assert await store.find_answer("acc_one", "k") == kept


async def test_the_first_answer_is_kept(store: Store) -> None:
    await store.add_answer(answer(body=b"first"))
    await store.add_answer(answer(body=b"second"))
    assert await store.find_answer("acc_one", "k") == answer(body=b"first")


async def test_the_body_of_an_answer_can_be_replaced(store: Store) -> None:
    await store.add_answer(answer())
    await store.add_answer(answer(account="acc_two"))
    await store.change_answer(answer(body=b"x" * 3000, created_at=NOW + 9))
    assert await store.find_answer("acc_one", "k") == answer(body=b"x" * 3000)
    await store.change_answer(answer(body=b"small"))
    assert await store.find_answer("acc_one", "k") == answer(body=b"small")
    assert await store.find_answer("acc_two", "k") == answer(account="acc_two")
    await store.change_answer(answer("none"))
    assert await store.find_answer("acc_one", "none") is None


async def test_a_key_belongs_to_its_account(store: Store) -> None:
    await store.add_answer(answer())
    await store.add_answer(answer(account="acc_two", body=b"other"))
    assert await store.find_answer("acc_two", "k") == answer(account="acc_two", body=b"other")
    assert await store.find_answer("acc_three", "k") is None


async def test_answers_older_than_a_time_are_dropped_and_counted(store: Store) -> None:
    for n in range(3):
        await store.add_answer(answer(f"k{n}", created_at=n))
    assert await store.drop_answers(2) == 2
    assert await store.drop_answers(2) == 0
    assert await store.find_answer("acc_one", "k1") is None
    assert await store.find_answer("acc_one", "k2") is not None


async def test_many_answers_are_dropped_whole(store: Store) -> None:
    await asyncio.gather(*(store.add_answer(answer(f"k{n}", created_at=n)) for n in range(1203)))
    assert await store.drop_answers(1201) == 1201
    assert await store.find_answer("acc_one", "k1201") is not None


# cancelling and closing


async def test_a_cancelled_caller_leaves_its_change_whole(store: Store) -> None:
    adding = asyncio.create_task(store.add_session(session(), answer(), 1))
    await asyncio.sleep(0)
    adding.cancel()
    await asyncio.gather(adding, return_exceptions=True)
    await store.remove_session("ses_other")  # with SQLite, this runs after the cancelled call
    before = await store.get_session("ses_one")
    while True:
        kept, after = await store.find_answer("acc_one", "k"), await store.get_session("ses_one")
        if (before is None) == (after is None):  # else the change was made in between
            assert (kept is None) == (after is None)
            return
        before = after


async def test_closing_twice_is_nothing(store: Store) -> None:
    await asyncio.gather(store.close(), store.close())
    await store.close()


# images


async def test_a_name_stands_for_the_accounts_own_image_or_else_the_operators(store: Store) -> None:
    ours, mine = NamedImage("deb", "root-1", 5, NOW), NamedImage("deb", "root-2", 6, NOW + 1, "acc_one")
    await store.add_image(ours)
    assert await store.find_image("acc_one", "deb") == ours
    await store.add_image(mine)
    assert [await store.find_image(account, "deb") for account in ("acc_one", "acc_two")] == [mine, ours]
    assert await store.remove_image("acc_one", "deb")
    assert await store.find_image("acc_one", "deb") == ours
    assert not await store.remove_image("acc_one", "deb")
    assert await store.find_image("acc_one", "none") is None


async def test_images_are_listed_by_name_each_once(store: Store) -> None:
    for image in (
        NamedImage("b", "root-1", 1, NOW),
        NamedImage("a", "root-2", 1, NOW),
        NamedImage("b", "root-3", 1, NOW, "acc_one"),
        NamedImage("c", "root-4", 1, NOW, "acc_two"),
    ):
        await store.add_image(image)
    assert [(image.name, image.id) for image in await store.list_images("acc_one")] == [
        ("a", "root-2"),
        ("b", "root-3"),
    ]


async def test_a_name_can_be_given_to_another_image(store: Store) -> None:
    await store.add_image(NamedImage("a", "root-1", 1, NOW))
    await store.add_image(NamedImage("a", "root-2", 2, NOW + 1))
    assert await store.list_images("acc_one") == [NamedImage("a", "root-2", 2, NOW + 1)]


async def test_images_are_used_by_names_and_by_sessions(store: Store) -> None:
    await store.add_image(NamedImage("a", "root-1", 1, NOW))
    await store.add_session(replace(session(), image="root-1", image_name="a"), None, 5)
    await store.add_image(NamedImage("a", "root-2", 1, NOW))
    assert await store.used_images() == {"root-1", "root-2"}
    await store.remove_session("ses_one")
    assert await store.used_images() == {"root-2"}


@pytest.mark.parametrize(
    "names", [[], [NamedImage("a", "root-2", 1, NOW)], [NamedImage("a", "root-1", 1, NOW, "acc_x")]]
)
async def test_no_session_is_added_on_an_image_that_lost_its_name(store: Store, names: Sequence[NamedImage]) -> None:
    for image in names:
        await store.add_image(image)
    with pytest.raises(ImageNotFound):
        await store.add_session(replace(session(), image="root-1", image_name="a"), answer(), 5)
    assert await store.get_session("ses_one") is None
    assert await store.find_answer("acc_one", "k") is None
