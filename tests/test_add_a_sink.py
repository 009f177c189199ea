"""docs/add-a-sink.md, followed to the letter: every block of it is written, added or run where the page says so."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "add-a-sink.md").read_text()

#: (what is done with it, the block): a comment above each, which readers do not see, says it.
BLOCKS = re.findall(r"^<!-- ([^\n]+) -->\n```\w*\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)

#: The programs of the page, by those of this environment: nothing is installed into it, and lint leaves out mypy, which takes
#: minutes in a fresh clone.
PROGRAMS = {
    "python": 'exec {python} "$@"',
    "pip": 'shift; exec {python} -m pip install -q --no-index --no-deps --no-build-isolation --target {site} "$@"',
    "capistream": 'exec {python} -m app.cli "$@"',
    "make": """
case $1 in
docs) {python} docs/generate.py ;;
lint) {python} -m ruff check . && {python} -m ruff format --check . ;;
esac""",
}


class Newcomer:
    """Somebody with a clone of the repository, who does what a page says."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.clone = home / "capistream"
        programs, site = self.clone / ".venv" / "bin", home / "site"
        programs.mkdir(parents=True)
        for name, text in PROGRAMS.items():
            (programs / name).write_text("#!/bin/sh\n" + text.format(python=sys.executable, site=site))
            (programs / name).chmod(0o755)
        self.env = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": f"{site}:{self.clone}",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def follow(self, what: str, text: str) -> str:
        """Do what a block is for; what a command printed."""
        kind, _, where = what.partition(": ")
        path = (self.home if where.startswith("capistream-acme") else self.clone) / where
        if kind == "run":
            return self.run(text, path)
        if kind == "lines":
            text = self._added(path.read_text(), text)
        if kind == "append":
            text = path.read_text() + text
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return ""

    def run(self, commands: str, folder: Path) -> str:
        done = subprocess.run(
            ["sh", "-ec", commands], cwd=folder, env=self.env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def _added(self, text: str, lines: str) -> str:
        """Each line above its like of GA4."""
        for line in re.findall(r"^\+(.*\n)", lines, re.MULTILINE):
            like = re.sub("Acme Ads.*\n", "Google Analytics 4", line).replace("acme", "ga4").replace("Acme", "Ga4")
            assert text.count(like) == 1, like
            text = text.replace(like, line + like)
        return text


@pytest.fixture
def newcomer(tmp_path):
    someone = Newcomer(tmp_path)
    for name in ("app", "agents", "sinks", "tests", "docs"):
        shutil.copytree(ROOT / name, someone.clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, someone.clone)
    return someone


def outside(what: str) -> bool:
    return "capistream-acme" in what


def the(what: str) -> str:
    (text,) = (text for one, text in BLOCKS if one == what)
    return str(text)


def test_every_block_of_the_page_is_followed_here():
    blocks = len(re.findall(r"^```", PAGE, re.MULTILINE)) // 2

    assert blocks == len(BLOCKS) + 1, "all but the first, which sets up a clone, say what is done with them"
    assert {what.partition(":")[0] for what, _ in BLOCKS} == {"file", "lines", "append", "run", "output"}


@pytest.mark.timeout(300)
def test_the_page_leads_to_a_sink(newcomer):
    printed = ""
    for what, text in BLOCKS:
        if what == "output":
            assert printed == text
        elif not outside(what):
            printed = newcomer.follow(what, text)

    assert re.search(r"^[1-9]\d+ passed", printed, re.MULTILINE), printed


@pytest.mark.timeout(300)
def test_the_page_leads_to_a_package(newcomer):
    newcomer.follow("file: capistream-acme/capistream_acme.py", the("file: sinks/acme.py"))
    printed = [newcomer.follow(what, text) for what, text in BLOCKS if outside(what)]

    assert re.search(r"^[1-9]\d+ passed", printed[-1], re.MULTILINE), printed[-1]
    for name in ("file: acme.toml", "file: acme.jsonl"):
        newcomer.follow(name, the(name))
    (preview,) = (text for what, text in BLOCKS if what == "run" and "preview" in text)
    assert newcomer.follow("run", preview) == the("output")
