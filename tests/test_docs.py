"""Docs that can drift are generated or checked."""

import importlib.util
import json
import re
import tomllib
from functools import cache
from pathlib import Path

import jsonschema
import pytest
from pydantic import TypeAdapter

from app import settings
from app.destination import Destination
from app.events import Event
from app.normalize import MAX_BYTES
from sinks import SINKS

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
    for part in ("kafka", "collector", "cookies", "view", "worker"):
        assert missing(getattr(sample, part), raw[part]) == set()
    assert missing(sample.sites["shop"], raw["sites"]["shop"]) == set()
    assert missing(sample.sources["orders"], raw["sources"]["orders"]) == set()
    assert missing(sample.events["purchase"], raw["events"]["purchase"], {"wait_for"}) == set()
    assert missing(sample.destinations["meta"], raw["destinations"]["meta"], {"test_event_code"}) == set()
    assert {one.sink for one in sample.destinations.values()} == set(SINKS)
    for name, one in sample.destinations.items():
        assert missing(one, raw["destinations"][name], set(Destination.model_fields) | {"test_event_code"}) == set(), (
            name
        )


@pytest.mark.parametrize(
    "page", sorted(path.name for path in [*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
)
def test_links_between_pages_lead_somewhere(page):
    path = DOCS / page if (DOCS / page).exists() else ROOT / page
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", path.read_text()):
        there = path.parent / target if target else path
        assert there.exists(), target
        assert not anchor or there.suffix != ".md" or anchor in anchors(there), f"{target}#{anchor}"


def test_pages_that_programs_name_are_there():
    for path in (*(ROOT / "app").rglob("*.py"), *(ROOT / "deploy").rglob("*.yml")):
        for page, anchor in re.findall(r"docs/([a-z-]+\.md)#([a-z-]+)", path.read_text()):
            assert anchor in anchors(DOCS / page), f"{path}: {page}#{anchor}"


@cache
def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", one) for one in re.findall(r"^#+ (.+)$", text, re.MULTILINE))
    return {re.sub(r"[^\w\- ]", "", one).lower().replace(" ", "-") for one in titles}


def test_no_dependency_is_without_its_reason():
    text = (ROOT / "pyproject.toml").read_text()
    parts = re.findall(r"(?:^dependencies|^demo|^dev) = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)

    assert len(parts) == 3
    obvious = ("pytest>", "mypy", "types-", "ruff", "pre-commit")
    for line in "".join(parts).splitlines():
        name = line.strip().strip('",').split('"')[0]
        assert "#" in line or name.startswith(obvious), line
