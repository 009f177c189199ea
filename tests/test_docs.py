"""Docs that can drift are generated or checked."""

import importlib.util
import json
import re
import tomllib
from pathlib import Path

import jsonschema
import pytest
import yaml
from pydantic import TypeAdapter

from app import settings
from app.events import Event
from app.normalize import MAX_BYTES

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"

_spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
assert _spec
assert _spec.loader
generate = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(generate)


@pytest.mark.parametrize("page", generate.PAGES)
def test_a_generated_page_is_up_to_date(page):
    assert (DOCS / page).read_text() == generate.PAGES[page](), "run: make docs"


def test_the_example_event_fits_the_published_schema_and_uses_every_part_of_it():
    example = json.loads((DOCS / "event.example.json").read_text())
    schema = json.loads((DOCS / "event.schema.json").read_text())

    jsonschema.validate(example, schema)
    TypeAdapter(Event).validate_python(example)
    assert set(schema["properties"]) - set(example) == {"pairs", "revision", "apart"}, "those are for the odd cases"
    assert len(json.dumps(example)) < MAX_BYTES


def test_the_sample_configuration_is_valid_and_complete():
    text = (DOCS / "capistream.toml").read_text()
    sample, raw = settings.parse(text), tomllib.loads(text)
    jsonschema.validate(raw, settings.json_schema())

    def missing(part, given, leave_out=()):
        return {name for name in type(part).model_fields if name not in given and name not in leave_out}

    assert missing(sample, raw) == set()
    for part in ("kafka", "collector", "view", "worker"):
        assert missing(getattr(sample, part), raw[part]) == set()
    assert missing(sample.sites["shop"], raw["sites"]["shop"]) == set()
    assert missing(sample.sources["orders"], raw["sources"]["orders"]) == set()
    assert missing(sample.events["purchase"], raw["events"]["purchase"], {"wait_for"}) == set()
    assert missing(sample.destinations["meta"], raw["destinations"]["meta"], {"test_event_code"}) == set()
    common = {"mode", "events", "custom_events", "concurrency", "consent"}
    assert missing(sample.destinations["ga4"], raw["destinations"]["ga4"], common) == set()


def test_every_sink_has_its_row_in_the_readme():
    from sinks import SINKS

    readme = (ROOT / "README.md").read_text()
    for kind, sink in SINKS.items():
        assert re.search(rf"^\| \[?{re.escape(sink.title)}.*`{kind}`", readme, re.MULTILINE), kind


@pytest.mark.parametrize(
    "page", sorted(path.name for path in [*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
)
def test_links_between_pages_lead_somewhere(page):
    path = DOCS / page if (DOCS / page).exists() else ROOT / page
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_every_service_of_the_compose_file_runs_a_command_that_we_have():
    from app.cli import main

    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    ours = {name: one for name, one in services.items() if one.get("image") == "capistream:latest"}

    assert set(ours) == {"collector", "worker", "sandbox"}
    for one in ours.values():
        assert one["command"][0] in main.commands
        assert one["read_only"] is True


def test_no_dependency_is_without_its_reason():
    text = (ROOT / "pyproject.toml").read_text()
    parts = re.findall(r"(?:^dependencies|^demo|^dev) = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)

    assert len(parts) == 3
    obvious = ("pytest>", "mypy", "types-", "ruff", "pre-commit")
    for line in "".join(parts).splitlines():
        name = line.strip().strip('",').split('"')[0]
        assert "#" in line or name.startswith(obvious), line
