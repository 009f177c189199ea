"""docker-compose.yml, as far as it can be known without a container engine."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from compose_spec import PyCompose

from app import kafka, settings
from app.cli import main

ROOT = Path(__file__).parents[2]
#: With the defaults of its variables.
COMPOSE = yaml.safe_load(re.sub(r"\$\{\w+:-(.*?)\}", r"\1", (ROOT / "docker-compose.yml").read_text()))
SERVICES = COMPOSE["services"]
OURS = {name: one for name, one in SERVICES.items() if one["image"] == "capistream:latest"}
CONFIGURATION = ROOT / "deploy/compose/capistream.toml"


def mounts(service):
    """Where from -> where to."""
    found = (one.split(":") for one in service.get("volumes", []))
    return {one[0]: one[1] for one in found}


def test_it_keeps_to_the_compose_specification():
    # merged first: that parser takes YAML's `<<` for a key
    PyCompose.from_json(json.dumps(COMPOSE))


def test_the_check_of_the_specification_would_find_a_misspelt_key():
    wrong = {**COMPOSE, "services": {**SERVICES, "worker": {**SERVICES["worker"], "stop_grace": "30s"}}}

    with pytest.raises(ValueError, match="stop_grace"):
        PyCompose.from_json(json.dumps(wrong))


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_is_pinned_or_built_here(name):
    one = SERVICES[name]

    assert re.search(r":v?\d+\.\d+\.\d+$", one["image"]) or (name in OURS and one["build"] == ".")


def test_the_broker_is_the_kafka_that_the_tests_run_with():
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{kafka.VERSION}"


def test_every_service_of_ours_runs_a_command_that_we_have():
    assert set(OURS) == {"collector", "worker", "sandbox"}
    assert {one["command"][0] for one in OURS.values()} <= set(main.commands)


@pytest.mark.parametrize("name", [*OURS, "prometheus", "grafana"])
def test_nothing_but_state_and_tmp_can_be_written(name):
    one = SERVICES[name]
    volumes = [line.split(":") for line in one.get("volumes", [])]
    writable = [line[1] for line in volumes if line[-1] != "ro"]

    assert one["read_only"] is True
    assert writable in ([], ["/var/lib/capistream"], ["/prometheus"], ["/var/lib/grafana"])


@pytest.mark.parametrize("name", OURS)
def test_ours_have_no_capabilities_and_get_none(name):
    assert OURS[name]["cap_drop"] == ["ALL"]
    assert OURS[name]["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_file_that_is_mounted_exists(name):
    for source in mounts(SERVICES[name]):
        assert source in COMPOSE["volumes"] if not source.startswith(".") else (ROOT / source).exists(), source


def test_every_secret_is_a_file_that_the_script_makes_once(tmp_path):
    script = ["sh", ROOT / "deploy/compose/secrets.sh", tmp_path / "secrets"]
    subprocess.run(script, check=True, capture_output=True)
    first = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    again = subprocess.run(script, check=True, capture_output=True)

    assert {one["file"] for one in COMPOSE["secrets"].values()} == {
        f"./deploy/compose/secrets/{name}" for name in first
    }
    assert len(set(first.values())) == len(first)
    assert all(len(value) == 48 for value in first.values())
    assert again.stdout == b""
    assert first == {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}


def test_other_users_of_the_host_cannot_read_the_secrets_and_the_containers_can(tmp_path):
    folder = tmp_path / "secrets"
    subprocess.run(["sh", ROOT / "deploy/compose/secrets.sh", folder], check=True, capture_output=True)

    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o444}


def test_the_secrets_stay_out_of_git():
    assert "deploy/compose/secrets/" in (ROOT / ".gitignore").read_text().splitlines()


def test_a_service_gets_the_secrets_that_the_configuration_reads():
    wanted = set(re.findall(r'file = "/run/secrets/(\w+)"', CONFIGURATION.read_text()))

    assert wanted == set(SERVICES["worker"]["secrets"]) == set(SERVICES["collector"]["secrets"])
    assert "env =" not in CONFIGURATION.read_text()


def test_the_configuration_is_valid_and_fits_the_services():
    given = settings.parse(CONFIGURATION.read_text())

    assert given.kafka.brokers == "kafka:9092"
    assert given.kafka.replication == 1
    assert given.collector.host == given.view.host == "0.0.0.0"
    assert SERVICES["collector"]["ports"] == [f"8080:{given.collector.port}"]
    assert SERVICES["worker"]["ports"] == [f"127.0.0.1::{given.view.port}"]
    assert mounts(SERVICES["worker"])["state"] == str(given.worker.data_dir)
    assert {one.endpoint.rpartition("/")[0] for one in given.destinations.values()} == {"http://sandbox:8090"}


def test_workers_can_be_scaled():
    assert "container_name" not in SERVICES["worker"]
    assert "hostname" not in SERVICES["worker"]
    assert not any(re.search(r"(^|:)\d+:", port) for port in SERVICES["worker"]["ports"])


def test_only_the_collector_is_reached_from_elsewhere():
    open_ports = {name for name, one in SERVICES.items() for port in one.get("ports", []) if "127.0.0.1" not in port}

    assert open_ports == {"collector"}


def test_prometheus_looks_for_the_services_by_name():
    jobs = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    found = {tuple(sd["names"]): sd["port"] for job in jobs for sd in job["dns_sd_configs"]}

    assert found == {("worker",): 6066, ("collector",): 8080}


def test_grafana_finds_board_and_data():
    folder = ROOT / "deploy/grafana/provisioning"
    (source,) = yaml.safe_load((folder / "datasources/prometheus.yml").read_text())["datasources"]
    (boards,) = yaml.safe_load((folder / "dashboards/capistream.yml").read_text())["providers"]

    assert source["url"] == "http://prometheus:9090"
    assert f"{boards['options']['path']}/capistream.json" in mounts(SERVICES["grafana"]).values()
