"""What is done to the workers' folders of state while no worker has them: gone, exchanged, or as they once were."""

import contextlib
import fcntl
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

LOCK = "lock"


class States:
    """`folder` holds worker-1, worker-2, ... as `app.main.claim_folder` makes them. Each method returns whether it could."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._old = folder.parent / "old-state"

    @contextlib.contextmanager
    def _free(self) -> Iterator[list[Path]]:
        """The folders with a state that no worker has; none takes them meanwhile."""
        with contextlib.ExitStack() as stack:
            found = []
            for one in sorted(self.folder.glob("worker-*")):
                handle = stack.enter_context((one / LOCK).open("a"))
                with contextlib.suppress(OSError):
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    found.append(one)
            yield [one for one in found if _entries(one)]

    def wipe(self) -> bool:
        """As if the disks were new: all comes back from the changelogs, or is gone."""
        with self._free() as free:
            for one in free:
                _empty(one)
            if any(_entries(one) for one in free):
                raise RuntimeError(f"could not wipe {free}")
            return bool(free)

    def swap(self) -> bool:
        """Two workers get each other's disks."""
        with self._free() as free:
            if len(free) < 2:
                return False
            between = self.folder.parent / "between"
            _move(free[0], between)
            _move(free[1], free[0])
            _move(between, free[1])
            return True

    def set_aside(self) -> bool:
        """A backup of one, for `put_back`."""
        with self._free() as free:
            if free:
                shutil.rmtree(self._old, ignore_errors=True)
                shutil.copytree(free[0], self._old, ignore=shutil.ignore_patterns(LOCK))
            return bool(free)

    def put_back(self) -> bool:
        """A worker gets the disk that some worker had once."""
        with self._free() as free:
            if not free or not self._old.exists():
                return False
            _empty(free[-1])
            shutil.copytree(self._old, free[-1], dirs_exist_ok=True)
            return True

    def disturb(self, rnd: random.Random) -> str:
        """Something of that, or nothing; what was done."""
        kind = rnd.choice(("", "", "wiped", "wiped", "swapped", "old"))
        does = {"wiped": self.wipe, "swapped": self.swap, "old": self.put_back}
        if kind and does[kind]():
            return kind
        self.set_aside()
        return ""


def _entries(folder: Path) -> list[Path]:
    return [entry for entry in folder.iterdir() if entry.name != LOCK]


def _empty(folder: Path) -> None:
    for entry in _entries(folder):
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _move(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for entry in _entries(source):
        entry.rename(target / entry.name)
