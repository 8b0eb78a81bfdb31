"""The alert rules and the dashboard of deploy/monitoring, on a real Prometheus that reads a server's metrics."""

import json
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.app.serving import Api, serving
from tests.deploy.prometheus import MONITORING, Prometheus, prometheus
from tests.metrics_page import METRICS, PAGE

RULES = (MONITORING / "alerts.yml").read_text()
ALERTS = re.findall(r"^ +- alert: (\w+)$", RULES, re.MULTILINE)
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())
PANELS = DASHBOARD["panels"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]
SERIES = {"up", *(series for metric in METRICS for series in metric.series)}
WIDTH = 24  # columns of a dashboard


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with serving() as running:
        running.checks.update(volumes=True, rules=True, room=True)
        yield running


@pytest.fixture
async def watched(api: Api, tmp_path: Path) -> AsyncIterator[Prometheus]:
    async with prometheus(tmp_path, urlsplit(api.metrics_url).netloc) as running:
        yield running


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def named(expression: str) -> set[str]:
    """The series in an expression."""
    return set(re.findall(r"\b(?:buntime|process)_\w+|\bup\b", expression))


def boxes() -> Iterator[tuple[int, int]]:
    """The squares that panels cover."""
    for panel in PANELS:
        at = panel["gridPos"]
        yield from ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"]))


def test_promtool_accepts_the_configuration_and_the_rules() -> None:
    assert f"{len(ALERTS)} rules found" in promtool("check", "config", MONITORING / "prometheus.yml")


def test_each_alert_fires_when_it_should_and_none_on_a_healthy_server() -> None:
    tests = Path(__file__).with_name("alerts_test.yml")
    assert "SUCCESS" in promtool("test", "rules", tests)
    text = tests.read_text()
    assert set(re.findall(r"- name: (\w+) fires$", text, re.MULTILINE)) == set(ALERTS)
    healthy = text.partition("a healthy server has no alert")[2]
    assert set(re.findall(r"alertname: (\w+)\n +exp_alerts: \[\]", healthy)) == set(ALERTS)


def test_the_page_says_what_to_do_about_each_alert() -> None:
    rows = re.findall(r"^\| `(Buntime\w+)` \| [^|]+ \| [^|]+ \|$", PAGE, re.MULTILINE)
    assert rows == ALERTS


async def test_prometheus_scrapes_every_metric_of_the_page(api: Api, watched: Prometheus) -> None:
    names = set(await watched.ask("label/__name__/values"))
    assert {metric.name for metric in METRICS if metric.type == "gauge"} <= names
    kinds = await watched.ask("metadata")
    read = {name: kind["type"] for name, (kind,) in kinds.items()}
    assert {metric.name: metric.type for metric in METRICS} == read
    counted = (await watched.query('buntime_sessions{state="active"}'))[0]["value"][1]
    assert counted == "0"


async def test_prometheus_evaluates_every_rule_without_an_alert_on_a_healthy_server(watched: Prometheus) -> None:
    (group,) = (await watched.ask("rules"))["groups"]
    assert [rule["name"] for rule in group["rules"]] == ALERTS
    for rule in group["rules"]:
        await watched.query(rule["query"])
        assert named(rule["query"]) <= SERIES, rule["name"]
    assert (await watched.ask("alerts"))["alerts"] == []


async def test_prometheus_evaluates_every_expression_of_the_dashboard(watched: Prometheus) -> None:
    for expression in EXPRESSIONS:
        await watched.query(expression.replace("$__rate_interval", "1m").replace("$instance", ".*"))
        assert named(expression) <= SERIES, expression


def test_all_but_three_metrics_are_in_the_dashboard_or_in_an_alert() -> None:
    used = named(RULES) | {name for expression in EXPRESSIONS for name in named(expression)}
    unused = [metric.name for metric in METRICS if not used & set(metric.series)]
    assert unused == ["buntime_cached_volumes", "buntime_archive_restored_total", "process_virtual_memory_bytes"]


def test_panels_of_the_dashboard_have_ids_targets_and_places_of_their_own() -> None:
    ids = [panel["id"] for panel in PANELS]
    assert len(ids) == len(set(ids))
    titles = [panel["title"] for panel in PANELS]
    assert len(titles) == len(set(titles))
    covered = list(boxes())
    assert len(covered) == len(set(covered)), "two panels overlap"
    assert max(x for x, _ in covered) < WIDTH
    for panel in PANELS:
        letters = [target["refId"] for target in panel["targets"]]
        assert letters
        assert len(letters) == len(set(letters))


def test_the_dashboard_takes_its_data_source_and_servers_from_variables() -> None:
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    source = {"type": "prometheus", "uid": "${datasource}"}
    places: list[Any] = [variables["instance"], *PANELS, *(target for panel in PANELS for target in panel["targets"])]
    assert all(place["datasource"] == source for place in places)
    assert all('instance=~"$instance"' in expression for expression in EXPRESSIONS)
    assert {name for expression in EXPRESSIONS for name in re.findall(r"\$(\w+)", expression)} == {
        "instance",
        "__rate_interval",
    }
