"""What a bench says: tables for people, one JSON object for programs, and with --write its section of docs/performance.md."""

import argparse
import datetime as dt
import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson

from app import kafka

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "performance.md"
LIBRARIES = ("faust-streaming", "rocksdict", "aiokafka", "aiohttp", "orjson", "msgspec")


def parser(doc: str | None, quick: str) -> argparse.ArgumentParser:
    """With the options of every bench. `quick`: what its short form does. A bench that is told to end leaves nothing behind."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help=quick)
    made.add_argument("--json", action="store_true", help="only the JSON line")
    made.add_argument("--write", action="store_true", help=f"put the result into {PAGE.relative_to(ROOT)}, too")
    return made


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """As Markdown, in columns that a terminal shows well, too."""
    cells = [list(map(str, head)), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[n]) for row in cells) for n in range(len(head))]

    def line(row: Sequence[str]) -> str:
        first, *others = (
            cell.ljust(w) if n == 0 else cell.rjust(w) for n, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        return f"| {' | '.join([first, *others])} |"

    rule = "| " + " | ".join("-" * w if n == 0 else "-" * (w - 1) + ":" for n, w in enumerate(widths)) + " |"
    return "\n".join([line(cells[0]), rule, *map(line, cells[1:])])


def goal(reached: bool, said: str) -> str:
    return f"{said}: {'reached' if reached else 'missed'}"


def finish(options: argparse.Namespace, text: str, result: Mapping[str, Any], load: float) -> None:
    """The end of a bench. `text`: Markdown; `load`: of the machine, before the bench began."""
    if not options.json:
        print(text)
    if options.write:
        name = Path(sys.argv[0]).stem
        command = " ".join(["python", f"bench/{name}.py", *(one for one in sys.argv[1:] if one != "--write")])
        write(
            name,
            f"`{command}`, {dt.datetime.now().astimezone().date()}, commit {commit()}, load before it {load:.1f}\n\n{text}",
        )
    print(orjson.dumps(result).decode())


def load() -> float:
    return os.getloadavg()[0]


def commit() -> str:
    """Short; with a + when the code has changes that are not committed."""
    command = ["git", "describe", "--always", "--abbrev=10", "--dirty=+", "--exclude=*"]
    said = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    return said.stdout.strip() or "unknown"


def write(name: str, text: str) -> None:
    """A section's text anew, and with it the machine's description."""
    page = PAGE.read_text()
    for part, its in (("machine", machine()), (name, text)):
        begin, end = f"<!-- {part} -->\n", "<!-- end -->"
        before, found, rest = page.partition(begin)
        if not found:
            raise SystemExit(f"{PAGE} has no place for {part}: put {begin.strip()} and {end} where it belongs")
        page = f"{before}{begin}{its.strip()}\n{end}{rest.partition(end)[2]}"
    PAGE.write_text(page)


def machine() -> str:
    cpu = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = int(re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())[1])  # type: ignore[index]
    return ", ".join(
        [
            f"{cpu[1] if cpu else platform.machine()} with {os.cpu_count()} cores and {memory / 2**20:.0f} GiB",
            f"{platform.system()} {platform.release().split('-')[0]}",
            f"Python {platform.python_version()}",
            f"Apache Kafka {kafka.VERSION} embedded on the same machine",
            *(f"{name} {version(name)}" for name in LIBRARIES),
        ]
    )
