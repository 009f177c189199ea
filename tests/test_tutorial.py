"""docs/tutorial.md, followed to the letter: every file of it is saved, every command entered, in a real shell."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app import processes

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "tutorial.md").read_text()

#: (what is done with it, the block): a comment above each, which readers do not see, says it.
BLOCKS = re.findall(r"^<!-- ([^\n]+) -->\n```\w*\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
PROGRAMS = {"python": 'exec {python} "$@"', "capistream": 'exec {python} -m app.cli "$@"'}
PATIENCE = 90.0


class Terminal:
    """A shell that keeps its folder, its variables and its jobs."""

    def __init__(self, folder: Path, env: dict[str, str], log: Path) -> None:
        self.log = log
        self._shell = subprocess.Popen(
            ["bash", "-m"], cwd=folder, env=env, stdin=subprocess.PIPE, stdout=log.open("wb"), stderr=subprocess.STDOUT
        )
        self._number = 0

    def enter(self, commands: str) -> tuple[int, str]:
        """(exit status of the last command, what was printed meanwhile)."""
        self._number += 1
        begin, mark = self.log.stat().st_size, f"done-{self._number}:"
        assert self._shell.stdin
        self._shell.stdin.write(f"{commands.strip()}\necho {mark}$?\n".encode())
        self._shell.stdin.flush()
        said = self.wait(mark, begin)
        text, _, status = said.partition(mark)
        return int(status.split()[0]), text

    def wait(self, wanted: str, begin: int) -> str:
        until = time.monotonic() + PATIENCE
        while wanted not in (said := self.log.read_bytes()[begin:].decode(errors="replace")) or not said.endswith("\n"):
            assert time.monotonic() < until, f"not within {PATIENCE} s: {wanted}\n{said}"
            time.sleep(0.05)
        return said

    def end(self) -> None:
        assert self._shell.stdin
        self._shell.stdin.write(b"kill $(jobs -p); wait; exit\n")
        self._shell.stdin.close()
        try:
            self._shell.wait(30)
        finally:
            self._shell.kill()


class Newcomer:
    """Somebody with a checkout and two terminals, on a machine where the usual ports may be taken."""

    def __init__(self, home: Path) -> None:
        programs = home / ".venv" / "bin"
        programs.mkdir(parents=True)
        for name, text in PROGRAMS.items():
            (programs / name).write_text("#!/bin/sh\n" + text.format(python=sys.executable))
            (programs / name).chmod(0o755)
        env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        self.home = home
        self.first, self.second = (Terminal(home, env, home / f"{name}.log") for name in ("first", "second"))
        self.ports = {port: str(processes.free_port()) for port in ("9092", "8090", "6066", "8080")}
        self.said = ""

    def follow(self, what: str, text: str) -> None:
        kind, _, more = what.partition(": ")
        text = self._here(text)
        if kind == "file":
            ours = f"\n[collector]\nport = {self.ports['8080']}\n" if more.endswith(".toml") else ""
            (self.home / "tutorial" / more).write_text(text + ours)
        elif kind == "lines":
            self._change(self.home / "tutorial" / more, text)
        elif kind == "says":
            assert text.strip("\n") in self.said, f"{self.said}\ndoes not say\n{text}"
        elif kind == "enter":
            for terminal in (self.first, self.second):
                assert terminal.enter(text)[0] == 0
        elif kind in ("start", "restart"):
            begin = self.first.log.stat().st_size
            assert self.first.enter(text)[0] == 0
            self.first.wait(more, begin)
        elif kind == "until":
            self._until(text, more)
        else:
            assert kind == "run"
            status, self.said = self.second.enter(text)
            assert status == int(more or 0), self.said

    def _until(self, text: str, wanted: str) -> None:
        until = time.monotonic() + PATIENCE
        while wanted not in (said := self.second.enter(text)[1]):
            assert time.monotonic() < until, f"not within {PATIENCE} s: {wanted}\n{said}"
            time.sleep(0.3)

    def _here(self, text: str) -> str:
        for usual, port in self.ports.items():
            text = text.replace(usual, port)
        text = text.replace("capistream sandbox", f"capistream sandbox --port {self.ports['8090']}")
        return text.replace("capistream worker", f"capistream worker --web-port {self.ports['6066']}")

    def _change(self, path: Path, lines: str) -> None:
        signed = re.findall(r"^([ +-])(.*\n)", lines, re.MULTILINE)
        before, after = ("".join(line for sign, line in signed if sign != other) for other in "+-")
        text = path.read_text()
        assert text.count(before) == 1, before
        path.write_text(text.replace(before, after))


def test_every_block_of_the_page_says_what_is_done_with_it():
    assert len(re.findall(r"^```", PAGE, re.MULTILINE)) // 2 == len(BLOCKS)


@pytest.mark.fault
@pytest.mark.timeout(300)
def test_the_page_leads_to_a_sale_at_a_platform(tmp_path):
    newcomer = Newcomer(tmp_path)
    try:
        for what, text in BLOCKS:
            newcomer.follow(what, text)
    finally:
        newcomer.first.end()
        newcomer.second.end()
