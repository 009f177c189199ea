"""The image, as far as it can be known without a container engine."""

import fnmatch
import http.server
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def lock(name):
    """Requirement, with its marker -> hashes."""
    found = {}
    for entry in re.split(r"\n(?=\S)", (ROOT / name).read_text().strip()):
        requirement, *hashes = entry.split(" \\\n")
        found[requirement] = {one.strip() for one in hashes}
    return found


def versions(name):
    return dict(requirement.partition(" ;")[0].split("==") for requirement in lock(name))


def test_the_image_installs_the_versions_and_hashes_that_the_tests_ran_with():
    ours, all_of_them = lock("requirements.runtime.lock"), lock("requirements.lock")
    hashes = {requirement.partition(" ;")[0]: found for requirement, found in all_of_them.items()}

    assert versions("requirements.runtime.lock").items() <= versions("requirements.lock").items(), "run: make lock"
    assert {name for name, found in ours.items() if found != hashes[name.partition(" ;")[0]]} == set()
    assert all(ours.values())


def test_the_image_installs_what_we_depend_on_and_nothing_that_only_tests_need():
    text = (ROOT / "pyproject.toml").read_text()
    parts = dict(re.findall(r"^(dependencies|demo|dev) = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL))
    named = {part: set(re.findall(r'^\s*"([a-zA-Z0-9_-]+)', lines, re.MULTILINE)) for part, lines in parts.items()}
    installed = set(versions("requirements.runtime.lock"))

    assert named["dependencies"] <= installed
    assert installed & (named["demo"] | named["dev"]) == set()


def test_no_lock_names_a_registry():
    for name in ("requirements.lock", "requirements.runtime.lock"):
        assert "://" not in (ROOT / name).read_text()


def test_the_image_runs_as_nobody_who_could_change_it():
    stage = DOCKERFILE.rpartition("\nFROM ")[2]

    assert re.search(r"^USER 10001:10001$", stage, re.MULTILINE)
    assert "--chown" not in DOCKERFILE
    assert re.findall(r"install -d -o capistream -g capistream (\S+)", stage) == ["/var/lib/capistream"]


def test_both_stages_start_from_one_pinned_image():
    assert len(set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE))) == 1
    assert re.search(r"^FROM python:\d+\.\d+\.\d+-slim-\w+ ", DOCKERFILE, re.MULTILINE)


def test_what_is_copied_into_the_image_is_let_through_to_it_and_exists():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    let_through = {line[1:] for line in ignored if line.startswith("!")}
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    }

    assert copied == let_through
    assert all((ROOT / path).exists() for path in copied)
    assert "*" in ignored
    assert not any(fnmatch.fnmatch(".env", path) for path in let_through)


@pytest.fixture
def server():
    """Answers 200 under /livez, 503 under /readyz."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response({"/livez": 200, "/readyz": 503}.get(self.path, 404))
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("paths", "status"),
    [(["/livez"], 0), (["/readyz"], 1), (["/readyz", "/livez"], 0), (["/elsewhere"], 1), ([], 1)],
)
def test_the_health_check_passes_when_one_address_answers_200(server, paths, status):
    command = [sys.executable, ROOT / "deploy/docker/healthy.py", *(server + path for path in paths)]

    assert subprocess.run(command, check=False).returncode == status


def test_the_health_check_fails_where_nobody_listens(server):
    nobody = "http://127.0.0.1:1/livez"
    command = [sys.executable, str(ROOT / "deploy/docker/healthy.py")]

    assert subprocess.run([*command, nobody], check=False, capture_output=True).returncode == 1
    assert subprocess.run([*command, nobody, f"{server}/livez"], check=False).returncode == 0
