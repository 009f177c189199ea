"""sinks/_installed.py: sinks of other packages are found, and a package with a mistake is named."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from app.cli import main
from app.errors import SettingsError
from app.settings import parse
from sinks import BUILT_IN, SINKS
from sinks._installed import WithInstalled

ROOT = Path(__file__).parent.parent.parent
THEIRS = """
from sinks.webhook import Webhook

class Theirs(Webhook):
    kind = "theirs"
"""
HALF = """
from sinks._base import Sink
from sinks.webhook import Settings

class Half(Sink):
    kind = "theirs"
    title = "Half"
    purpose = "other"
    Settings = Settings

class Nameless(Half):
    def encode(self, event, name): ...
    def request(self, batch, secrets): ...
    def verdict(self, batch, response): ...

class Purposeless(Nameless):
    purpose = "fun"

class Unset(Nameless):
    Settings = dict

class Anonymous(Sink):
    encode = request = verdict = None
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a package with one module, as pip leaves it: on the path, its entry points beside it."""
    monkeypatch.syspath_prepend(tmp_path)

    def run(name: str, source: str, **points: str) -> None:
        (tmp_path / f"{name}.py").write_text(source)
        folder = tmp_path / f"{name}-1.2.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        lines = [f"{kind} = {name}:{what}" for kind, what in points.items()]
        (folder / "entry_points.txt").write_text("\n".join(["[capistream.sinks]", *lines]))
        monkeypatch.delitem(sys.modules, name, raising=False)

    return run


def mistakes(sinks: Any) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        len(sinks)
    return caught.value.mistakes


def test_a_sink_of_an_installed_package_stands_beside_ours(install):
    install("their_module", THEIRS, theirs="Theirs")

    sinks = WithInstalled(BUILT_IN)

    assert sorted(sinks) == sorted([*BUILT_IN, "theirs"])
    assert sinks["theirs"].__module__ == "their_module"
    assert {kind: sinks[kind] for kind in BUILT_IN} == BUILT_IN


def test_a_package_is_loaded_when_somebody_asks_and_only_once(install):
    install("their_module", THEIRS, theirs="Theirs")

    sinks = WithInstalled(BUILT_IN)

    assert "their_module" not in sys.modules
    assert sinks["theirs"] is sinks["theirs"]


def test_a_package_may_be_imported_before_ours(install, tmp_path):
    install("their_module", THEIRS, theirs="Theirs")
    program = "import their_module; from sinks import SINKS; print(SINKS['theirs'] is their_module.Theirs)"
    path = os.pathsep.join([str(tmp_path), str(ROOT)])

    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.stdout, done.stderr) == ("True\n", "")


@pytest.mark.parametrize(
    ("source", "points", "said"),
    [
        (THEIRS, {"meta": "Theirs"}, ['sink "meta" (pkg:Theirs): that sink is already in capistream itself']),
        (THEIRS, {"theirs": "Other"}, ['sink "theirs" (pkg:Other): cannot be loaded: AttributeError: module ']),
        (
            "import nothing_like_it",
            {"theirs": "Theirs"},
            ['sink "theirs" (pkg:Theirs): cannot be loaded: ModuleNotFoundError: '],
        ),
        ("1 = 2", {"theirs": "Theirs"}, ['sink "theirs" (pkg:Theirs): cannot be loaded: SyntaxError: ']),
        ("raise KeyError(7)", {"theirs": "Theirs"}, ['sink "theirs" (pkg:Theirs): cannot be loaded: KeyError: 7']),
        (
            "Theirs = 7",
            {"theirs": "Theirs"},
            ['sink "theirs" (pkg:Theirs): not a class that derives from sinks._base.Sink'],
        ),
        (THEIRS, {"other": "Theirs"}, ['sink "other" (pkg:Theirs): Theirs.kind is another word']),
        (
            THEIRS.replace("theirs", "Theirs-2"),
            {"Theirs-2": "Theirs"},
            ['sink "Theirs-2" (pkg:Theirs): a kind is small letters, digits and _'],
        ),
        (HALF, {"theirs": "Half"}, ['sink "theirs" (pkg:Half): Half does not say how to encode, request, verdict']),
        (
            HALF,
            {"theirs": "Anonymous"},
            ['sink "theirs" (pkg:Anonymous): Anonymous has no kind, title, purpose, Settings'],
        ),
        (
            HALF,
            {"theirs": "Purposeless"},
            ['sink "theirs" (pkg:Purposeless): Purposeless.purpose must be one of advertising, analytics, other'],
        ),
        (
            HALF,
            {"theirs": "Unset"},
            ['sink "theirs" (pkg:Unset): Unset.Settings does not derive from app.destination.Destination'],
        ),
        (
            THEIRS,
            {"ga4": "Theirs", "meta": "Theirs"},
            [
                'sink "ga4" (pkg:Theirs): that sink is already in capistream itself',
                'sink "meta" (pkg:Theirs): that sink is already in capistream itself',
            ],
        ),
    ],
)
def test_a_package_with_a_mistake_is_named_with_it(install, source, points, said):
    install("pkg", source, **points)

    found = mistakes(WithInstalled(BUILT_IN))

    assert len(found) == len(said)
    for one, begin in zip(found, said, strict=True):
        assert one.startswith(f"package pkg 1.2: {begin}")
        assert "\n" not in one


def test_of_two_packages_with_one_sink_both_are_named(install):
    install("their_module", THEIRS, theirs="Theirs")
    install("another", THEIRS, theirs="Theirs")

    (said,) = mistakes(WithInstalled(BUILT_IN))

    assert said == 'package their_module 1.2: sink "theirs" (their_module:Theirs): that sink is already in another 1.2'


def test_a_configuration_may_name_an_installed_sink(install, monkeypatch):
    install("their_module", THEIRS, theirs="Theirs")
    monkeypatch.setattr("sinks.SINKS", WithInstalled(BUILT_IN))
    text = '[destinations.a]\nsink = "theirs"\nendpoint = "https://a.example"\nsecret = { env = "A" }\nbrowser_tag = "none"\n'

    assert parse(text).destinations["a"].sink == "theirs"


def test_a_configuration_is_refused_while_a_package_is_broken(install, monkeypatch):
    install("pkg", "1 = 2", theirs="Theirs")
    monkeypatch.setattr("sinks.SINKS", WithInstalled(BUILT_IN))

    with pytest.raises(SettingsError, match=r"package pkg 1\.2"):
        parse('[destinations.a]\nsink = "meta"\n')


def test_commands_tell_it_in_a_line(install, monkeypatch, tmp_path):
    install("pkg", "1 = 2", theirs="Theirs")
    monkeypatch.setattr("sinks.SINKS", WithInstalled(BUILT_IN))
    (tmp_path / "c.toml").write_text('[destinations.a]\nsink = "theirs"\n')

    result = CliRunner().invoke(main, ["config", "check", "--config", str(tmp_path / "c.toml")])

    assert result.exit_code == 1
    assert result.stderr.startswith('package pkg 1.2: sink "theirs" (pkg:Theirs): cannot be loaded: SyntaxError: ')
    assert len(result.stderr.splitlines()) == 1


def test_the_sinks_that_programs_see_are_ours_and_those():
    assert SINKS.keys() >= BUILT_IN.keys()
