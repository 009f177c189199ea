"""The manifests of deploy/kubernetes, against Kubernetes' own schemas and against each other."""

import tomllib
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from app import settings
from app.cli import main
from app.collector import routes
from app.settings import Collector, _secrets

FOLDER = Path(__file__).parents[2] / "deploy/kubernetes"
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
TEXTS = {path.name: path.read_text() for path in sorted(FOLDER.glob("*.yaml")) if path.name != "kustomization.yaml"}
MANIFESTS = {
    f"{one['kind']}/{one['metadata']['name']}": one for text in TEXTS.values() for one in yaml.safe_load_all(text)
}
WORKLOADS = {name: one for name, one in MANIFESTS.items() if one["kind"] in ("StatefulSet", "Deployment")}
SETTINGS = settings.parse((FOLDER / "capistream.toml").read_text())
PORTS = {"worker": SETTINGS.view.port, "collector": SETTINGS.collector.port}


def pod(name):
    return WORKLOADS[name]["spec"]["template"]["spec"]


def container(name):
    (one,) = pod(name)["containers"]
    return one


def mounts(name):
    """Path -> the volume behind it."""
    volumes = {one["name"]: one for one in pod(name)["volumes"]}
    volumes |= {one["metadata"]["name"]: one for one in WORKLOADS[name]["spec"].get("volumeClaimTemplates", [])}
    return {one["mountPath"]: volumes[one["name"]] for one in container(name)["volumeMounts"]}


@pytest.mark.parametrize("version", ["1.34", kubernetes_validate.latest_version()])
@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_is_what_kubernetes_takes(name, version):
    kubernetes_validate.validate(MANIFESTS[name], version, strict=True)


def test_the_check_would_find_a_misspelt_key():
    wrong = yaml.safe_load(TEXTS["namespace.yaml"]) | {"metaData": {}}

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.34", strict=True)


def test_every_manifest_is_applied_but_the_one_that_needs_a_host():
    assert set(KUSTOMIZATION["resources"]) | {"ingress.yaml"} == set(TEXTS)
    assert "ingress.yaml" not in KUSTOMIZATION["resources"]


@pytest.mark.parametrize("name", MANIFESTS)
def test_everything_is_in_one_namespace(name):
    one = MANIFESTS[name]

    assert one["kind"] == "Namespace" or one["metadata"]["namespace"] == KUSTOMIZATION["namespace"] == "capistream"


@pytest.mark.parametrize("name", WORKLOADS)
def test_pods_are_restricted_and_write_only_where_they_must(name):
    inside = container(name)["securityContext"]
    writable = {path for path, volume in mounts(name).items() if "emptyDir" in volume or "spec" in volume}

    assert pod(name)["securityContext"]["runAsNonRoot"] is True
    assert pod(name)["securityContext"]["runAsUser"] == 10001
    assert pod(name)["automountServiceAccountToken"] is False
    assert inside["readOnlyRootFilesystem"] is True
    assert inside["allowPrivilegeEscalation"] is False
    assert inside["capabilities"] == {"drop": ["ALL"]}
    assert writable == {"/tmp", str(SETTINGS.worker.data_dir)}


@pytest.mark.parametrize("name", WORKLOADS)
def test_pods_run_a_command_that_we_have_on_the_port_of_the_configuration(name):
    one = container(name)

    assert one["args"][0] in main.commands
    assert one["ports"] == [{"name": "http", "containerPort": PORTS[one["name"]]}]


@pytest.mark.parametrize(
    ("name", "live", "ready"),
    [("StatefulSet/worker", "/livez", "/readyz"), ("Deployment/collector", "/healthz", "/readyz")],
)
def test_probes_ask_what_each_answers(name, live, ready):
    assert container(name)["livenessProbe"]["httpGet"] == {"path": live, "port": "http"}
    assert container(name)["readinessProbe"]["httpGet"] == {"path": ready, "port": "http"}
    assert pod(name)["terminationGracePeriodSeconds"] >= 30


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_configuration_and_its_secrets_are_mounted_where_they_are_read(name):
    (generated,) = KUSTOMIZATION["configMapGenerator"]
    environment = {one["name"]: one["value"] for one in container(name)["env"]}
    folder = str(Path(environment["CAPISTREAM_CONFIG"]).parent)
    files = [secret.file for _, secret in _secrets(SETTINGS, "")]

    assert generated["files"] == [Path(environment["CAPISTREAM_CONFIG"]).name]
    assert mounts(name)[folder]["configMap"]["name"] == generated["name"]
    assert all(file is not None and "secret" in mounts(name)[str(file.parent)] for file in files)
    assert files


def test_the_example_secrets_command_makes_all_that_the_configuration_reads():
    text = (FOLDER.parents[1] / "docs/deploy.md").read_text()
    names = {secret.file.name for _, secret in _secrets(SETTINGS, "") if secret.file}

    assert all(f"--from-file={name}" in text for name in names)


@pytest.mark.parametrize("name", WORKLOADS)
def test_services_budgets_and_policies_mean_these_pods(name):
    labels = WORKLOADS[name]["spec"]["template"]["metadata"]["labels"]
    component = labels["app.kubernetes.io/component"]
    service = MANIFESTS["Service/workers" if component == "worker" else "Service/collector"]

    assert WORKLOADS[name]["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["selector"] == labels
    assert MANIFESTS[f"PodDisruptionBudget/{component}"]["spec"]["selector"]["matchLabels"] == labels
    assert MANIFESTS[f"NetworkPolicy/{component}"]["spec"]["podSelector"]["matchLabels"] == labels


def test_workers_find_each_other_by_names_that_fit():
    worker, service = MANIFESTS["StatefulSet/worker"], MANIFESTS["Service/workers"]
    longest = (
        f"{worker['metadata']['name']}-999.{service['metadata']['name']}.{KUSTOMIZATION['namespace']}.svc.cluster.local"
    )

    assert worker["spec"]["serviceName"] == service["metadata"]["name"]
    assert pod("StatefulSet/worker")["setHostnameAsFQDN"] is True
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert len(longest) <= 64


def test_of_the_collector_all_that_clients_ask_for_is_public_and_nothing_else():
    (rule,) = MANIFESTS["Ingress/collector"]["spec"]["rules"]
    published = tuple(path["path"] for path in rule["http"]["paths"])
    collector = Collector.model_validate({"ga4": {"G-ABC1234567": {"site": "shop"}}})

    inside = {route.path for route in routes.of(collector) if not route.path.startswith(published)}

    assert inside == {"/openapi.json", "/healthz", "/readyz", "/metrics"}


def test_the_image_has_the_version_of_this_program():
    project = tomllib.loads((FOLDER.parents[1] / "pyproject.toml").read_text())["project"]
    (image,) = KUSTOMIZATION["images"]

    assert image["name"] == container("StatefulSet/worker")["image"] == "capistream"
    assert image["newTag"] == project["version"]


def test_prometheus_keeps_the_pods_of_these_labels():
    jobs = yaml.safe_load((FOLDER.parent / "prometheus/prometheus.kubernetes.yml").read_text())["scrape_configs"]
    kept = {job["job_name"]: job["relabel_configs"][0]["regex"] for job in jobs}

    assert kept == {"capistream-worker": "worker;http", "capistream-collector": "collector;http"}
