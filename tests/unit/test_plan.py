import math
from dataclasses import fields, replace
from importlib import resources
from pathlib import Path

import pytest

import buntime.plan
from buntime.admin import plan_settings
from buntime.plan import Limits, Plan, load_plans, parse_plans, with_overrides

PLANS = load_plans(None)
PAID = PLANS["paid"]


@pytest.mark.parametrize(
    ("name", "sessions", "longest_ttl", "may_set_limits", "requests", "file_mb", "files", "body_mb"),
    [("free", 10, 86400, False, 100, 10, 100, 32), ("paid", 100, 604800, True, 1000, 50, 1000, 256)],
)
def test_the_shipped_plans_have_the_numbers_of_the_contract(
    name: str,
    sessions: int,
    longest_ttl: int,
    may_set_limits: bool,
    requests: int,
    file_mb: int,
    files: int,
    body_mb: int,
) -> None:
    plan = PLANS[name]
    assert (plan.name, plan.sessions, plan.longest_ttl, plan.shortest_ttl) == (name, sessions, longest_ttl, 300)
    assert (plan.may_set_limits, plan.requests_per_minute) == (may_set_limits, requests)
    assert (plan.file_mb, plan.files_per_request, plan.body_mb) == (file_mb, files, body_mb)
    assert plan.default == Limits(memory=1024, cpu=0.25, timeout=30, disk=1024)


def test_each_plan_has_its_own_most_for_a_session() -> None:
    assert PLANS["free"].most == Limits(memory=1024, cpu=0.25, timeout=30, disk=1024)
    assert PLANS["paid"].most == Limits(memory=4096, cpu=1.0, timeout=300, disk=5120)


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_no_shipped_default_is_over_its_most(plan: Plan) -> None:
    for limit in fields(Limits):
        assert getattr(plan.default, limit.name) <= getattr(plan.most, limit.name)


def test_an_operators_file_adds_and_replaces_plans(tmp_path: Path) -> None:
    file = tmp_path / "plans.toml"
    shipped = (Path(buntime.plan.__file__).with_name("plans.toml")).read_text()
    file.write_text(shipped.replace("[free]", "[team]").replace("sessions = 100\n", "sessions = 7\n"))
    plans = load_plans(file)
    assert list(plans) == ["free", "paid", "enterprise", "team"]
    assert plans["free"] == PLANS["free"]
    assert plans["team"] == replace(PLANS["free"], name="team")
    assert plans["paid"] == replace(PAID, sessions=7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[odd]\nsessions = 1\n", "plan 'odd'"),
        ("[odd]\ndefault = 1\nmost = 2\n", "plan 'odd'"),
        ("[odd]\ndefault = { memory = 1 }\nmost = { memory = 1 }\n", "plan 'odd'"),
        ("odd = 1\n", "plan 'odd'"),
        ("[odd\n", "line 1"),
    ],
)
def test_an_invalid_plan_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_plans(text)


def test_overrides_replace_single_numbers() -> None:
    plan = with_overrides(PAID, {"sessions": 500, "most": {"memory": 8192}})
    assert plan == replace(PAID, sessions=500, most=replace(PAID.most, memory=8192))
    assert with_overrides(PAID, {}) == PAID


@pytest.mark.parametrize(
    "overrides", [{"sesions": 1}, {"name": "x"}, {"most": 1}, {"most": {"ram": 1}}, {"default": {"": 1}}]
)
def test_an_unknown_number_is_refused(overrides: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"unknown plan number|table of limits|unexpected keyword"):
        with_overrides(PAID, overrides)


def test_settings_become_overrides() -> None:
    settings = ["sessions=500", "most.memory=8192", "most.cpu=2.5", "may_set_limits=false"]
    overrides = plan_settings.parse(PAID, settings)
    assert overrides == {"sessions": 500, "most": {"memory": 8192, "cpu": 2.5}, "may_set_limits": False}
    assert with_overrides(PAID, overrides).most == replace(PAID.most, memory=8192, cpu=2.5)


def test_a_whole_number_of_cores_is_accepted() -> None:
    assert plan_settings.parse(PAID, ["most.cpu=2"]) == {"most": {"cpu": 2}}


@pytest.mark.parametrize("seconds", [0, 5, 86400])
def test_checkpoints_have_a_number_of_seconds_or_0_for_never(seconds: int) -> None:
    assert plan_settings.parse(PAID, [f"checkpoint_every={seconds}"]) == {"checkpoint_every": seconds}


@pytest.mark.parametrize("name", ["longest_ttl", "idle_after_most", "deep_sleep_after_most"])
def test_some_settings_may_be_never(name: str) -> None:
    overrides = plan_settings.parse(PAID, [f"{name}=never"])
    assert overrides == {name: "never"}
    assert getattr(with_overrides(PAID, overrides), name) == math.inf
    assert plan_settings.parse(with_overrides(PAID, overrides), [f"{name}=600"]) == {name: 600}


def test_a_file_of_plans_may_say_never() -> None:
    limits = "{ memory = 1, cpu = 1.0, timeout = 1, disk = 1 }"
    numbers = "sessions = 1\nshortest_ttl = 1\nmay_set_limits = true\nrequests_per_minute = 1\n"
    text = f"[a]\n{numbers}file_mb = 1\nfiles_per_request = 1\nbody_mb = 1\ndefault = {limits}\nmost = {limits}\n"
    plan = parse_plans(text + 'longest_ttl = "never"\nidle_after_most = 60\n')["a"]
    assert (plan.longest_ttl, plan.idle_after_most) == (math.inf, 60)
    assert (plan.deep_sleep_after_most, plan.may_await_processes) == (86400, False), "the defaults of older files"
    for wrong in ('"ever"', "0", "-1", "1.5", "true"):
        with pytest.raises(ValueError, match="plan 'a': longest_ttl must be a whole number of seconds"):
            parse_plans(text + f"longest_ttl = {wrong}\n")


@pytest.mark.parametrize("name", ["rate_active", "rate_idle", "rate_deep_sleep"])
@pytest.mark.parametrize("wrong", ["nan", "inf", "-inf", '"1"', "-0.1", "true", "[]", "9" * 400])
def test_a_file_of_plans_with_a_rate_that_is_no_number_is_refused(name: str, wrong: str) -> None:
    text = resources.files("buntime").joinpath("plans.toml").read_text().replace("[paid]", f"[paid]\n{name} = {wrong}")
    with pytest.raises(ValueError, match=f"plan 'paid': {name} must be a finite number, at least 0, not "):
        parse_plans(text)


def test_a_file_of_plans_may_count_seconds_for_nothing() -> None:
    text = resources.files("buntime").joinpath("plans.toml").read_text().replace("[paid]", "[paid]\nrate_idle = 0")
    assert parse_plans(text)["paid"].rate_idle == 0


def test_seconds_in_a_state_may_count_nothing() -> None:
    assert plan_settings.parse(PAID, ["rate_idle=0", "rate_deep_sleep=0.5"]) == {"rate_idle": 0, "rate_deep_sleep": 0.5}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["rate_idle=-1"], "rate_idle must be more than 0"),
        (["sessions"], "key=value"),
        (["sessions=many"], "sessions must be a number"),
        (["sessions=true"], "sessions must be a number"),
        (["sessions=1.5"], "sessions must be a whole number"),
        (["sessions=0"], "sessions must be more than 0"),
        (["sessions=-3"], "sessions must be more than 0"),
        (["sessions.x=1"], "sessions must be a number"),
        (["most.cpu=nan"], r"most\.cpu must be more than 0"),
        (["most.cpu=inf"], r"most\.cpu must be more than 0"),
        (["may_set_limits=1"], "may_set_limits must be true or false, not 1"),
        (["checkpoint_every=4"], "checkpoint_every must be 5 to 86400, or 0 for never, not 4"),
        (["checkpoint_every=86401"], "checkpoint_every must be 5 to 86400"),
        (["checkpoint_every=-1"], "checkpoint_every must be more than 0"),
        (["idle_after_most=0"], "idle_after_most must be a whole number of seconds, more than 0, or never, not 0"),
        (["deep_sleep_after_most=1.5"], "deep_sleep_after_most must be a whole number of seconds"),
        (["longest_ttl=true"], "longest_ttl must be a whole number of seconds"),
        (["longest_ttl=ever"], "longest_ttl must be a number, true, false or never, not 'ever'"),
        (["sessions=never"], "sessions must be a number, true or false, not 'never'"),
        (["may_await_processes=1"], "may_await_processes must be true or false, not 1"),
        (["most=1"], "table of limits"),
        (["most=1", "most.cpu=1"], "both whole and in part"),
        (["most.ram=1"], "ram"),
        (["name=x"], "name must be a number"),
        (["most.memory=512"], r"default\.memory \(1024\) is over most\.memory \(512\)"),
        (["longest_ttl=100"], r"shortest_ttl \(300\) is over longest_ttl \(100\)"),
    ],
)
def test_an_invalid_setting_is_refused(settings: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_settings.parse(PAID, settings)
