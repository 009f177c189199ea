"""What a real Prometheus makes of our alerts and of the board. Needs `prometheus` and `promtool` (`apt-get install prometheus`):
`pytest -m prometheus`. Without them it fails; .ci/run installs them.
"""

import http.client
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlencode

import pytest
import yaml

from app import processes
from tests.deploy.test_alerts import RULES
from tests.deploy.test_board import BOARD, QUERIES

pytestmark = pytest.mark.prometheus

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FOLDER = ROOT / "deploy/prometheus"
PATIENCE = 60.0  # seconds
SEEN = (
    "min(count_over_time(up[1m])) >= 4 and count(up == 1) == 2",
    'ALERTS{alertname="CapistreamDestinationHalted"}',
    "capistream:pair_share:1h",
)


def promtool(*arguments):
    done = subprocess.run(["promtool", *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_promtool_finds_nothing_wrong_with_the_alerts():
    assert f"{len(RULES)} rules found" in promtool("check", "rules", "alerts.yml")


def test_promtool_finds_nothing_wrong_with_the_configuration():
    promtool("check", "config", "prometheus.yml")


def test_promtool_finds_nothing_wrong_with_the_configuration_for_kubernetes(tmp_path):
    # Debian's Prometheus is built without Kubernetes: pods are named instead of found, the rest is as it is
    text = (FOLDER / "prometheus.kubernetes.yml").read_text()
    named, times = re.subn(r"kubernetes_sd_configs: .*", "static_configs: [{ targets: [pod] }]", text)
    (tmp_path / "prometheus.yml").write_text(named.replace("alerts.yml", str(FOLDER / "alerts.yml")))

    assert times == 2
    promtool("check", "config", str(tmp_path / "prometheus.yml"))


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.test.yml")))
def test_each_alert_fires_when_it_should_and_not_before(name):
    promtool("test", "rules", name)


class Prometheus:
    def __init__(self, port):
        self.port = port

    def ask(self, query):
        """The series found. Raises AssertionError with Prometheus' own words."""
        return self.get(f"query?{urlencode({'query': query})}")["result"]

    def get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", f"/api/v1/{path}")
            answer = json.load(connection.getresponse())
        finally:
            connection.close()
        assert answer["status"] == "success", answer
        return answer["data"]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory):
    """Has scraped a worker and a collector a few times, with our rules loaded."""
    folder = tmp_path_factory.mktemp("prometheus")
    ports = {role: processes.free_port() for role in ("worker", "collector", "prometheus")}
    given = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    for job in given["scrape_configs"]:
        del job["dns_sd_configs"]
        job["static_configs"] = [{"targets": [f"127.0.0.1:{ports[job['job_name'].removeprefix('capistream-')]}"]}]
    given["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    given["rule_files"] = [str(FOLDER / "alerts.yml")]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(given))
    commands = [
        [sys.executable, str(HERE / "page.py"), str(ports["worker"]), "worker"],
        [sys.executable, str(HERE / "page.py"), str(ports["collector"]), "collector"],
        [
            "prometheus",
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{ports['prometheus']}",
        ],
    ]
    log = folder / "log"
    running = [processes.spawn(one, log, {"PYTHONPATH": str(ROOT)}) for one in commands]
    try:
        yield _scraped(Prometheus(ports["prometheus"]), log)
    finally:
        for one in running:
            processes.stop(one, 10)


def _scraped(prometheus, log):
    """Wait until it has seen both, more than once, and evaluated the rules."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            if all(map(prometheus.ask, SEEN)):
                return prometheus
        except (OSError, ValueError):  # not there yet, or not ready, which it says in words
            pass
        assert time.monotonic() < until, log.read_text()[-2000:]
        time.sleep(0.5)


def for_people(query):
    """As Grafana would ask."""
    return query.replace("$__rate_interval", "1m").replace("$destination", ".*")


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_of_the_board_finds_something(prometheus, name):
    found = prometheus.ask(for_people(QUERIES[name]))

    assert found
    assert not any(one["value"][1] == "NaN" for one in found)


def test_a_reader_can_choose_among_the_destinations(prometheus):
    chosen = next(one for one in BOARD["templating"]["list"] if one["name"] == "destination")

    assert chosen["query"]["query"] == "label_values(capistream_destination, destination)"
    assert {one["metric"]["destination"] for one in prometheus.ask("capistream_destination")} == {"meta", "ga4"}


def test_the_worst_state_of_a_destination_is_shown(prometheus):
    found = {one["metric"]["destination"]: one["value"][1] for one in prometheus.ask(for_people(QUERIES["State, A"]))}

    assert found == {"meta": "4", "ga4": "0"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_what_an_alert_looks_at_is_there(prometheus, rule):
    prometheus.ask(rule["expr"])  # understood; that it finds nothing is good news

    for selector in re.findall(r"(?:capistream_[a-z_]+|\bup)(?:\{[^}]*\})?", rule["expr"]):
        assert prometheus.ask(selector), selector


def test_the_rules_are_evaluated_without_a_mistake(prometheus):
    rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]

    assert len(rules) == len(RULES)
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}, [rule.get("lastError") for rule in rules]
