"""What the operator reads at /metrics: every number of docs/metrics.md, with these labels, and no other."""

import re
from collections.abc import Mapping, Sequence

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from buntime.fleet.hosts import Standing
from buntime.operations.previews import Reason
from buntime.ports import NoRoom, Peer
from buntime.session import State
from buntime.web.metrics import DEPTHS, LOSSES, OUTCOMES, Metrics
from buntime.web.readings import WHY_OFF
from buntime.webhook import DeliveryState
from tests.app.serving import Api
from tests.metrics_page import METRICS, PAGE, Documented

ABSENT = -1.0


async def families(api: Api) -> Mapping[str, Metric]:
    """By the name that a query uses, without a histogram's suffixes."""
    found = text_string_to_metric_families((await api.metrics()).body.decode())
    return {family.name + "_total" * (family.type == "counter"): family for family in found}


async def value(api: Api, name: str, **labels: str) -> float:
    """The sample of that name with these labels, or ABSENT."""
    found = text_string_to_metric_families((await api.metrics()).body.decode())
    samples = [sample for family in found for sample in family.samples if sample.name == name]
    return next((sample.value for sample in samples if sample.labels == labels), ABSENT)


async def sleep(api: Api, session: str, depth: str) -> None:
    assert (await api.call("POST", f"/sessions/{session}/sleep", {"depth": depth})).json["state"] == depth


async def wake(api: Api, session: str) -> None:
    assert (await api.call("POST", f"/sessions/{session}/wake")).status == 200


async def test_the_page_names_every_metric_with_its_type_and_labels_and_no_other(api: Api) -> None:
    session = await api.session()
    await sleep(api, session, "idle")
    await wake(api, session)
    await api.ask("nobody.localhost")
    await api.call("GET", "/nowhere")
    api.owners.elsewhere[session] = Peer("hst_other", "192.0.2.7:8443")
    await api.call("POST", "/execute", {"sessionId": session, "code": "1"})
    api.checks["volumes"] = True
    shown = [Documented(name, family.type, _labels(family)) for name, family in (await families(api)).items()]
    assert sorted(shown, key=str) == sorted(METRICS, key=str)


def _labels(family: Metric) -> list[str]:
    return sorted({label for sample in family.samples for label in sample.labels} - {"le"})


@pytest.mark.parametrize(
    ("label", "values"),
    [
        ("`state`", list(State)),
        ("`hosts`'s `state`", list(Standing)),
        ("`no_room`'s `reason`", list(NoRoom)),
        ("`what`", list(LOSSES)),
        ("`depth`", list(DEPTHS)),
        ("`outcome`", list(OUTCOMES.values())),
        ("`webhooks_off`'s `reason`", list(WHY_OFF)),
    ],
)
def test_the_page_lists_every_value_of_a_label(label: str, values: Sequence[str]) -> None:
    (row,) = (line for line in PAGE.splitlines() if line.startswith(f"| {label} |"))
    listed = re.findall(r"`([\w-]+)`", row.removeprefix(f"| {label} |"))
    assert set(listed) == set(map(str, values))


def test_the_page_explains_every_reason_of_a_refused_preview() -> None:
    table = PAGE.partition("| `reason` | meaning |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE) == [
        reason.value for reason in Reason if reason is not Reason.SENT_ON
    ]


async def test_every_metric_has_a_help_text_that_is_a_sentence(api: Api) -> None:
    texts = {name: family.documentation for name, family in (await families(api)).items()}
    assert [name for name, text in texts.items() if not re.fullmatch(r"[A-Z].*\.", text)] == []


async def test_sessions_are_counted_by_state(api: Api) -> None:
    for state in ("active", "idle", "deep-sleep", "deleting"):
        assert await value(api, "buntime_sessions", state=state) == 0
    first, second = await api.session(), await api.session()
    await sleep(api, first, "idle")
    await sleep(api, second, "deep-sleep")
    await api.session()
    assert await value(api, "buntime_sessions", state="active") == 1
    assert await value(api, "buntime_sessions", state="idle") == 1
    assert await value(api, "buntime_sessions", state="deep-sleep") == 1
    await api.call("DELETE", f"/sessions/{first}")
    assert await value(api, "buntime_sessions", state="idle") == 0


async def test_refusals_are_counted_by_the_code_that_the_client_got(api: Api) -> None:
    await api.call("GET", "/sessions/ses_" + "a" * 18)
    await api.call("GET", "/sessions/ses_" + "b" * 18)
    await api.call("POST", "/sessions/create", {"ttl": 1})
    route = "/sessions/{sessionId}"
    assert await value(api, "buntime_refusals_total", code="session_not_found", route=route) == 2
    assert await value(api, "buntime_refusals_total", code="invalid_request", route="/sessions/create") == 1
    assert not re.search(r"\bses_", (await api.metrics()).body.decode())


async def test_a_create_that_finds_no_room_is_counted(api: Api) -> None:
    api.sandboxes.capacity = 0
    assert (await api.call("POST", "/sessions/create", {})).status == 503
    assert await value(api, "buntime_refusals_total", code="unavailable", route="/sessions/create") == 1
    assert await value(api, "buntime_no_room_total", reason="memory") == 1
    assert await value(api, "buntime_no_room_total", reason="disk") == 0


async def test_webhooks_are_counted_by_what_came_of_their_deliveries(api: Api) -> None:
    made = [await api.call("POST", "/webhooks/create", {"url": "https://example.com"}) for _ in range(2)]
    await api.session()
    pending = await value(api, "buntime_webhook_deliveries_pending")
    await api.call("PATCH", f"/webhooks/{made[1].json['webhookId']}", {"enabled": False})
    assert 0 < await value(api, "buntime_webhook_deliveries_pending") < pending
    assert await value(api, "buntime_webhooks_off", reason="asked") == 1
    assert await value(api, "buntime_webhooks_off", reason="gone") == 0
    for outcome in OUTCOMES.values():
        assert await value(api, "buntime_webhook_deliveries_total", outcome=outcome) == 0


async def test_an_attempt_is_counted_by_what_the_delivery_is_after_it() -> None:
    metrics = Metrics()
    for state in (DeliveryState.PENDING, DeliveryState.FAILED, DeliveryState.PENDING):
        metrics.attempted(state)
    shown = re.findall(
        r'^buntime_webhook_deliveries_total\{outcome="(.*)"\} (.*)$', (await metrics.render()).decode(), re.M
    )
    assert dict(shown) == {"delivered": "0.0", "retry": "2.0", "given-up": "1.0"}


async def test_a_success_is_no_refusal(api: Api) -> None:
    await api.session()
    assert "buntime_refusals_total{" not in (await api.metrics()).body.decode()


async def test_refused_previews_are_counted_by_reason(api: Api) -> None:
    await api.ask("nobody.localhost")
    assert await value(api, "buntime_preview_refusals_total", reason="unknown") == 1


@pytest.mark.parametrize("depth", ["idle", "deep-sleep"])
async def test_a_wake_is_counted_once_under_the_depth_that_it_came_from(api: Api, depth: str) -> None:
    other = {"idle": "deep-sleep", "deep-sleep": "idle"}[depth]
    session = await api.session()
    await wake(api, session)  # it is awake already
    await sleep(api, session, depth)
    await wake(api, session)
    await wake(api, session)
    assert await value(api, "buntime_wake_seconds_count", depth=depth) == 1
    assert await value(api, "buntime_wake_seconds_bucket", depth=depth, le="+Inf") == 1
    assert await value(api, "buntime_wake_seconds_sum", depth=depth) > 0
    assert await value(api, "buntime_wake_seconds_count", depth=other) == 0


async def test_a_sandbox_that_ended_by_itself_is_counted_as_lost(api: Api) -> None:
    session = await api.session()
    assert await value(api, "buntime_lost_total", what="sandbox") == 0
    await api.sandboxes.kill(api.store.sessions[session].sandbox)
    body = {"sessionId": session, "command": "echo again"}
    assert (await api.call("POST", "/execute", body)).status == 200
    assert await value(api, "buntime_lost_total", what="sandbox") == 1
    assert await value(api, "buntime_wake_seconds_count", depth="deep-sleep") == 0


async def test_a_volume_that_is_gone_is_counted_as_lost(api: Api) -> None:
    session = await api.session()
    await api.sandboxes.destroy(api.store.sessions[session])
    body = {"sessionId": session, "command": "echo again"}
    assert (await api.call("POST", "/execute", body)).refusal == (409, "invalid_state")
    assert await value(api, "buntime_lost_total", what="volume") == 1


async def test_budgets_show_what_is_used_kept_free_and_there(api: Api) -> None:
    numbers = api.sandboxes.numbers()
    for name, budget in {"memory": numbers.memory, "host": numbers.host_disk, "volumes": numbers.volumes_disk}.items():
        kind, labels = ("memory", {}) if name == "memory" else ("disk", {"file_system": name})
        assert await value(api, f"buntime_{kind}_total_bytes", **labels) == budget.total
        assert await value(api, f"buntime_{kind}_used_bytes", **labels) == budget.used
        assert await value(api, f"buntime_{kind}_reserved_bytes", **labels) == budget.reserved


async def test_claims_of_the_pool_and_its_misses_are_counted(api: Api) -> None:
    api.sandboxes.parked, api.sandboxes.wanted, api.sandboxes.prepared = 1, 2, 1
    await api.session()
    await api.session()
    assert await value(api, "buntime_pool_parked") == 0
    assert await value(api, "buntime_pool_wanted") == 2
    assert await value(api, "buntime_pool_prepared") == 1
    assert await value(api, "buntime_pool_claims_total") == 2
    assert await value(api, "buntime_pool_misses_total") == 1


async def test_readiness_is_shown_by_part(api: Api) -> None:
    api.checks.update(volumes=True, room=False)
    assert await value(api, "buntime_ready", part="volumes") == 1
    assert await value(api, "buntime_ready", part="room") == 0
