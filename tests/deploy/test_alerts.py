"""Alerts, their runbook, and their tests belong together. test_prometheus.py has promtool run the tests."""

import re
from pathlib import Path

import click
import pytest
import yaml

from tests.deploy.page import every

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/prometheus"
RULES = [rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
ALERTS = [rule for rule in RULES if "alert" in rule]
NAMES = sorted({rule["alert"] for rule in ALERTS})
RUNBOOK = (ROOT / "docs/runbook.md").read_text()


def ids(rule):
    return f"{rule['alert']}-{rule['labels']['severity']}"


def section(name):
    return re.split(r"^## ", RUNBOOK.split(f"\n## {name}\n")[1], flags=re.MULTILINE)[0]


@pytest.mark.parametrize("rule", ALERTS, ids=ids)
def test_an_alert_says_how_bad_it_is_what_it_is_and_where_to_read_on(rule):
    assert rule["labels"] in ({"severity": "critical"}, {"severity": "warning"})
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"


@pytest.mark.parametrize("name", NAMES)
def test_the_runbook_tells_of_each_alert_what_it_means_what_to_do_and_when_to_wake_someone(name):
    said = re.findall(r"^\*\*(.+?)\*\*", section(name), re.MULTILINE)

    assert said == ["Meaning.", "First.", "Safe.", "Wake someone."]


def test_the_runbook_has_no_entry_for_an_alert_that_is_gone():
    assert sorted(re.findall(r"^## (Capistream\w+)$", RUNBOOK, re.MULTILINE)) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_commands_of_the_runbook_are_commands_that_we_have(name):
    from app.cli import main

    for command in re.findall(r"`capistream ([a-z ]+)", section(name)):
        found: click.Command = main
        for word in command.split():
            if not isinstance(found, click.Group):
                break
            found = found.commands[word]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_an_alert_asks_for_metrics_and_labels_that_there_are(rule):
    labels = {one._name: set(one._labelnames) for one in every()} | {"capistream:pair_share:1h": {"event"}}
    labels["capistream_destination"] |= {"capistream_destination"}
    for name, matchers in re.findall(r"(capistream[_:][a-z_:0-9]+)(\{[^}]*\})?", rule["expr"]):
        known = labels.get(name.removesuffix("_total"), None)

        assert known is not None, name
        assert set(re.findall(r"(\w+)[!=~]+\"", matchers)) <= known | {"job"}


@pytest.mark.parametrize("rule", ALERTS, ids=ids)
def test_each_alert_is_shown_firing(rule):
    tests = "".join(path.read_text() for path in sorted(FOLDER.glob("*.test.yml")))
    fires = f'alertname="{rule["alert"]}", alertstate="firing", severity="{rule["labels"]["severity"]}"'

    assert fires in tests


@pytest.mark.parametrize("page", every(), ids=lambda one: one._name)
def test_no_metric_is_left_out_of_the_board(page):
    from tests.deploy.test_board import QUERIES

    assert any(page._name in query for query in QUERIES.values())
