"""Every sink of ours keeps the promises of sinks/conformance.py, and has all that belongs to one.

A sink's own test file names its settings: SETTINGS, the least that works.
"""

import importlib
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from pydantic import TypeAdapter

from app import sandbox
from app.destination import Destination
from app.events import Event, Json
from sinks import BUILT_IN
from sinks.conformance import Conformance
from tests.factories import events

ROOT = Path(__file__).parent.parent.parent

each_sink = pytest.mark.parametrize("kind", sorted(BUILT_IN))


def sink_settings(kind: str) -> Json:
    return dict(importlib.import_module(f"tests.sinks.test_{kind}").SETTINGS)


def has_tests(kind: str) -> bool:
    return (Path(__file__).parent / f"test_{kind}.py").is_file()


for _kind in filter(has_tests, BUILT_IN):  # one without them fails below, by name
    _sink = BUILT_IN[_kind]
    _name = f"Test{_sink.__name__}"
    globals()[_name] = type(_name, (Conformance,), {"sink": _sink, "settings": sink_settings(_kind)})


@each_sink
def test_it_has_a_test_file_of_its_own_with_its_settings(kind):
    assert has_tests(kind)
    assert sink_settings(kind)["sink"] == kind


@each_sink
def test_it_has_an_emulator_with_a_test_file_of_its_own(kind):
    assert kind in sandbox.PLATFORMS
    assert (ROOT / "tests" / "app" / "sandbox" / f"test_{kind}.py").is_file()


@each_sink
def test_its_settings_are_in_the_docs(kind):
    page = (ROOT / "docs" / "settings.md").read_text()

    assert f'\n### sink = "{kind}": {BUILT_IN[kind].title}\n' in page, "run: make docs"


@each_sink
def test_the_complete_configuration_has_all_its_settings(kind):
    sample = tomllib.loads((ROOT / "docs" / "capistream.toml").read_text())["destinations"].values()
    own = BUILT_IN[kind].Settings.model_fields.keys() - Destination.model_fields.keys() - {"test_event_code"}

    assert own | {"sink"} <= {name for one in sample if one["sink"] == kind for name in one}


@each_sink
def test_it_says_on_which_terms_it_takes_data_of_people(kind):
    sink = BUILT_IN[kind]

    assert sink.purpose == "other" or re.match(r"https://\S+$", sink.terms)


@each_sink
def test_it_has_its_row_in_the_readme(kind):
    readme = (ROOT / "README.md").read_text()

    assert re.search(rf"^\| \[?{re.escape(BUILT_IN[kind].title)}.*`{kind}`", readme, re.MULTILINE)


@given(event=events())
@settings(max_examples=50)
def test_the_events_made_up_here_fit_the_schema(event):
    TypeAdapter(Event).validate_python(event, strict=True)
