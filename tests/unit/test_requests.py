"""A client's requests are checked against its plan."""

from dataclasses import replace

import pytest

from buntime.errors import Forbidden, InvalidRequest, PayloadTooLarge
from buntime.plan import MB, Limits, load_plans
from buntime.requests import (
    Execute,
    NewSession,
    Patch,
    apply_patch,
    check_execute,
    check_file_count,
    check_file_size,
    check_new,
)
from buntime.session import Network, Preview, Session

FREE, PAID = load_plans(None)["free"], load_plans(None)["paid"]
SESSION = Session("ses_" + "a" * 18, "acc", 100, 400, 100, FREE.default, "sb", "vol", "image", metadata={"a": 1})


def test_defaults_are_those_of_the_plan() -> None:
    assert check_new(NewSession(), FREE) == (86400, Limits(1024, 0.25, 30, 1024))


def test_a_plan_with_a_shorter_longest_ttl_has_it_as_default() -> None:
    assert check_new(NewSession(), replace(FREE, longest_ttl=600))[0] == 600


def test_limits_that_are_not_named_keep_the_default() -> None:
    _, limits = check_new(NewSession(limits={"memory": 2048}), PAID)
    assert limits == Limits(2048, 0.25, 30, 1024)


def test_setting_limits_is_forbidden_when_the_plan_says_so() -> None:
    with pytest.raises(Forbidden) as refused:
        check_new(NewSession(limits={}), FREE)
    assert refused.value.details == {"plan": "free", "limit": "resourceLimits"}


@pytest.mark.parametrize(
    ("new", "field"),
    [
        (NewSession(ttl=299), "ttl"),
        (NewSession(ttl=604801), "ttl"),
        (NewSession(limits={"cpu": 1.5}), "resourceLimits.cpu"),
        (NewSession(limits={"disk": 1}), "resourceLimits.disk"),
        (NewSession(metadata={"a": "x" * 16384}), "metadata"),
        (NewSession(env={"A B": ""}), "env"),
        (NewSession(env={"A": "\0"}), "env.A"),
        (NewSession(on_wake=""), "onWake"),
        (NewSession(name="a_b"), "name"),
        (NewSession(or_existing=True), "onConflict"),
        (NewSession(preview=Preview(ports=(1023,))), "preview.ports"),
        (NewSession(preview=Preview(ports=(8080, 8080))), "preview.ports"),
        (NewSession(network=Network(deny=("10.0.0.1/8",))), "network.deny"),
        (NewSession(network=Network(allow=("example.com", "http://example.com"))), "network.allow"),
        (NewSession(network=Network(allow=tuple(f"a{i}.example" for i in range(101)))), "network.allow"),
    ],
)
def test_the_first_bad_field_is_named(new: NewSession, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_new(new, PAID)
    assert refused.value.details["field"] == field


def test_metadata_is_counted_as_compact_utf8() -> None:
    room = 16384 - len('{"a":""}')
    check_new(NewSession(metadata={"a": "x" * room}), PAID)
    check_new(NewSession(metadata={"a": "é" * (room // 2)}), PAID)


def test_a_patch_of_nothing_changes_nothing() -> None:
    assert apply_patch(SESSION, Patch(), FREE, now=500) == SESSION


def test_a_patched_ttl_counts_from_now() -> None:
    assert apply_patch(SESSION, Patch(ttl=300), FREE, now=500).expires_at == 800
    assert apply_patch(SESSION, Patch(ttl=None), FREE, now=500).expires_at == 500 + 86400


def test_null_in_a_patch_is_the_default() -> None:
    session = replace(SESSION, preview=Preview("private"), on_wake="x", env={"A": "1"})
    patched = apply_patch(session, Patch(metadata=None, preview=None, on_wake=None, env=None), FREE, now=500)
    assert (patched.metadata, patched.preview, patched.on_wake, patched.env) == ({}, Preview(), None, {})


def test_a_run_has_exactly_one_of_code_and_command() -> None:
    for request in (Execute("s"), Execute("s", code="1", command="x")):
        with pytest.raises(InvalidRequest, match="exactly one"):
            check_execute(request, FREE)


def test_a_timeout_is_bounded_by_the_plan() -> None:
    check_execute(Execute("s", code="1", timeout=30), FREE)
    with pytest.raises(InvalidRequest) as refused:
        check_execute(Execute("s", code="1", timeout=31), FREE)
    assert refused.value.details == {"field": "timeout", "plan": "free", "limit": 30}


def test_files_are_bounded_in_number_and_size() -> None:
    check_file_count(100, FREE)
    check_file_size("/a", 10 * MB, FREE)
    with pytest.raises(InvalidRequest):
        check_file_count(101, FREE)
    with pytest.raises(PayloadTooLarge):
        check_file_size("/a", 10 * MB + 1, FREE)


def test_the_size_of_a_sessions_env_is_bounded() -> None:
    largest = {f"A{number}": "x" * 65536 for number in range(3)}
    check_new(NewSession(env=largest), PAID)
    for refused in ({**largest, "B": "x" * 65536}, {f"A{number}": "ä" * 32768 for number in range(5)}):
        with pytest.raises(InvalidRequest) as creating:
            check_new(NewSession(env=refused), PAID)
        with pytest.raises(InvalidRequest) as patching:
            apply_patch(SESSION, Patch(env=refused), PAID, now=500)
        assert creating.value.details["field"] == patching.value.details["field"] == "env"
    check_execute(Execute("ses", command="true", env={**largest, "B": "x" * 65536}), PAID)
