"""The last release, to be upgraded from: its code, unpacked from our history, run with what is installed here.

python -m tests.faults.release FOLDER TRIGGERS --config FILE --web-port PORT

`tests/faults/last_release.txt` names its commit. It is the release's own worker, with the two things that its own
tests/faults/worker.py adds.
"""

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

HERE = Path(__file__).parent
PROGRAM = [sys.executable, "-m", "tests.faults.release"]
NEWER = ("--backfill",)  # flags that the release need not know
NEWER_PARTS = ("traffic",)  # of the configuration


def commit() -> str:
    return (HERE / "last_release.txt").read_text().split()[0]


def missing() -> str:
    """Why it cannot be unpacked, or an empty text."""
    if not shutil.which("git"):
        return "there is no git, which has the last release"
    found = subprocess.run(["git", "cat-file", "-e", f"{commit()}:app"], cwd=HERE, capture_output=True, check=False)
    return f"the history lacks the last release, {commit()}: a shallow clone?" if found.returncode else ""


def unpack(folder: Path) -> None:
    """Raises CalledProcessError when the history lacks it."""
    root = subprocess.run(["git", "rev-parse", "--show-toplevel"], cwd=HERE, capture_output=True, check=True).stdout
    packed = subprocess.run(
        ["git", "archive", commit()], cwd=root.decode().strip(), capture_output=True, check=True
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")


def main() -> None:
    folder, *rest = sys.argv[1:]
    config = Path(rest[rest.index("--config") + 1])
    known = Path(folder) / config.name
    # whoever upgrades adds parts when all workers are new
    parts = re.split(r"(?m)^(?=\[)", config.read_text())
    known.write_text("".join(part for part in parts if not part.startswith(tuple(f"[{name}]" for name in NEWER_PARTS))))
    rest[rest.index("--config") + 1] = str(known)
    # -P: what is in the current folder is of this version
    command = [sys.executable, "-P", "-m", "tests.faults.worker", *(word for word in rest if word not in NEWER)]
    os.execve(sys.executable, command, os.environ | {"PYTHONPATH": folder})  # noqa: S606 (no shell is wanted)


if __name__ == "__main__":
    main()
