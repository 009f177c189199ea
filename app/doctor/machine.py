"""This machine: the folder of local state, what a process may open and hold, and the versions of Python and of the libraries.

Limits are those of who runs this command: a service may have others, so run it as the service does.
"""

import asyncio
import fcntl
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import Version

from app.doctor.finding import Finding, listed, ok, problem, warning
from app.doctor.place import Place
from app.settings import Settings

MB, GB = 2**20, 2**30
FULL = 256 * MB  # bytes: with less, the next compaction may fill the disk, which ends the worker
LOW = 2 * GB
MEMORY = 1 * GB  # bytes that deploy/kubernetes/worker.yaml gives a worker
NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "lustre", "afs", "fuse.")
IN_MEMORY = ("tmpfs", "ramfs")
LOCKS = 5  # files that a RocksDB has open at least
FILES = 32  # with some data
OWN_FILES = 256  # connections, the log, libraries
GOOD_LIMIT = 65_536  # as deploy/systemd has it
MOST = 200  # databases that are opened

OURS = "capistream"
CGROUP = Path("/sys/fs/cgroup")  # version 2: https://docs.kernel.org/admin-guide/cgroup-v2.html
LOCK_FILE = Path(__file__).parents[2] / "requirements.runtime.lock"


@dataclass(frozen=True)
class Databases:
    """The state of one worker process on this disk."""

    folder: str
    busy: bool  # the worker runs
    tables: Sequence[str] = ()  # names of databases: table and partition
    unreadable: Mapping[str, str] = field(default_factory=dict)  # of those, and why
    forbidden: Sequence[str] = ()  # files that we may not write


@dataclass(frozen=True)
class Folder:
    path: Path
    trouble: str = ""  # why nothing can be stored there
    exists: bool = True
    free: int = 0  # bytes
    files_free: int | None = None  # None: the file system has no such limit
    kind: str = ""  # of file system, where that is known
    workers: Sequence[Databases] = ()


@dataclass(frozen=True)
class Limits:
    files: int
    files_at_most: int  # to which the process could raise it
    memory: int  # bytes that it may have
    available: int  # that are free now
    whose: str = "this machine"


async def check_state(place: Place) -> list[Finding]:
    folder = await asyncio.to_thread(look_at, place.settings.worker.data_dir)
    return list(judge_folder(place.settings, folder))


async def check_limits(place: Place) -> list[Finding]:
    return list(judge_limits(place.settings, await asyncio.to_thread(limits)))


async def check_versions(_place: Place | None = None) -> list[Finding]:
    """Needs no settings."""
    return await asyncio.to_thread(
        lambda: [*judge_python(sys.version_info[:2], _classifiers()), *judge_libraries(*_libraries())]
    )


# -- the folder


def look_at(path: Path) -> Folder:
    there = path
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        return Folder(path, f"{there} is no folder" if there != path else "it is no folder", exists=path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as exc:
        return Folder(
            path,
            f"{there}: {exc.strerror}" if there != path else f"{exc.strerror}",
            exists=path.exists(),
            kind=_kind(there),
        )
    space = os.statvfs(there)
    return Folder(
        path,
        exists=path.exists(),
        free=shutil.disk_usage(there).free,
        files_free=space.f_favail if space.f_files else None,
        kind=_kind(there),
        workers=[_databases(one) for one in sorted(path.glob("worker-*")) if one.is_dir()],
    )


def _databases(folder: Path) -> Databases:
    databases = sorted(folder.glob("v*/tables/*.db"))
    names = [one.name.removesuffix(".db") for one in databases]
    forbidden = [str(one.relative_to(folder)) for one in (folder, *databases) if not os.access(one, os.W_OK | os.X_OK)]
    busy = _busy(folder / "lock")
    if busy or forbidden:
        return Databases(folder.name, busy, names, {}, forbidden)
    unreadable = {
        name: why for name, one in list(zip(names, databases, strict=True))[:MOST] if (why := _unreadable(one))
    }
    return Databases(folder.name, busy, names, unreadable)


def _busy(lock: Path) -> bool:
    """A worker holds it for as long as it lives: `claim_folder` of app/main.py."""
    try:
        with lock.open("rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _unreadable(database: Path) -> str:
    """Opened for reading only: takes no lock, and leaves nothing behind."""
    from rocksdict import AccessType, Options, Rdict

    from app.lossless.store import _unfit  # imports Faust, which takes its time

    if why := _unfit(database):
        return why
    with tempfile.TemporaryDirectory() as logs:
        options = Options(raw_mode=True)
        options.set_db_log_dir(logs)
        try:
            Rdict(str(database), options=options, access_type=AccessType.read_only()).close()
        except Exception as exc:  # noqa: BLE001 (rocksdict raises no other)
            return str(exc).splitlines()[0]
    return ""


def _kind(path: Path) -> str:
    """The file system that a path is on, by Linux' own list; empty elsewhere."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return kind_of(str(path.resolve()), lines)


def kind_of(path: str, mounts: Sequence[str]) -> str:
    """`mounts` are lines of mountinfo: https://docs.kernel.org/filesystems/proc.html"""
    best, kind = "", ""
    for line in mounts:
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:
            continue
        point = re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
        if (path == point or path.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, kind = point, after.split()[0]  # of several at one place the last is seen
    return kind


def judge_folder(settings: Settings, folder: Folder) -> Iterator[Finding]:
    what = "worker.data_dir"
    if folder.trouble:
        yield problem(
            what,
            f"{folder.path}: nothing can be stored there: {folder.trouble}",
            f"make it for the user that runs workers: install -d -o capistream {folder.path}",
        )
        return
    space = f"{_size(folder.free)} free"
    if folder.free < FULL or folder.files_free == 0:
        yield problem(what, f"{folder.path}: {space}: a full disk ends the worker", "make room, or name a larger disk")
    elif folder.free < LOW:
        yield warning(
            what,
            f"{folder.path}: {space}; state is rebuilt beside the old one when it is damaged",
            f"make room: {_size(LOW)} or more",
        )
    if folder.kind.startswith(NETWORK):
        yield warning(
            what,
            f"{folder.path} is on {folder.kind}, a network file system: RocksDB needs its locks, and waits for it with every write",
            "use a local disk: this is a cache, Kafka has the durable copy",
        )
    elif folder.kind in IN_MEMORY:
        yield warning(
            what,
            f"{folder.path} is on {folder.kind}: state takes memory, and is restored from Kafka after each restart of the machine",
            "use a disk; with little state it may be meant",
        )
    yield from _judge_databases(settings, folder)
    made = "" if folder.exists else "; it will be made"
    yield ok(what, f"{folder.path}: writable, {space}{f', {folder.kind}' if folder.kind else ''}{made}")


def _judge_databases(settings: Settings, folder: Folder) -> Iterator[Finding]:
    known = {"seen", "held", *(f"outcomes.{name}" for name in settings.destinations)}
    for one in folder.workers:
        where = f"{folder.path}/{one.folder}"
        if one.forbidden:
            yield problem(
                where,
                f"may not be written by this user: {listed(one.forbidden, 2)}",
                f"chown -R to the user that runs workers, or delete {where} while no worker runs: it is restored from Kafka",
            )
        if one.unreadable:
            name, why = next(iter(one.unreadable.items()))
            yield warning(
                where,
                f"{len(one.unreadable)} of {len(one.tables)} databases cannot be used, {name}: {why}",
                "nothing: the next worker builds them anew from Kafka, 10 to 25 s per million keys",
            )
        tables = {name.rpartition("-")[0] for name in one.tables}
        partitions = max(
            (int(number) for name in one.tables if (number := name.rpartition("-")[2]).isdigit()), default=-1
        )
        if partitions >= settings.kafka.partitions:
            yield warning(
                where,
                f"has state of partition {partitions}, and kafka.partitions is {settings.kafka.partitions}: another installation's",
                "give each installation a worker.data_dir of its own",
            )
        if strange := sorted(tables - known):
            yield warning(
                where,
                f"has state of {listed(strange)}, which this configuration does not have",
                f"of a destination that was taken out: delete {where} while no worker runs, it is restored from Kafka. Of another "
                "installation: give each a worker.data_dir of its own",
            )
    if folder.workers:
        busy = sum(one.busy for one in folder.workers)
        yield ok("local state", f"{len(folder.workers)} workers' folders, {busy} in use")


# -- limits


def limits() -> Limits:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    memory, available, whose = *_memory(), "this machine"
    with suppress(OSError, ValueError, StopIteration):  # another system, or no limit: "max"
        allowed = int((CGROUP / "memory.max").read_text())
        used = int((CGROUP / "memory.current").read_text())
        stat = (line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        idle = next(int(number) for name, number in stat if name == "inactive_file")  # a cache that it would give back
        memory, available, whose = allowed, min(available, allowed - used + idle), "this container"
    return Limits(_or_any(soft), _or_any(hard), memory, available, whose)


def _or_any(limit: int) -> int:
    return sys.maxsize if limit < 0 else limit


def _memory() -> tuple[int, int]:
    """(bytes in all, bytes that a program can have now)"""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return total, total
    told = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    return told.get("MemTotal", total), told.get("MemAvailable", total)


def judge_limits(settings: Settings, found: Limits) -> Iterator[Finding]:
    databases = settings.kafka.partitions * (2 + len(settings.destinations))
    least, good = OWN_FILES + LOCKS * databases, OWN_FILES + FILES * databases
    said = f"{found.files:,} here; one worker that has all partitions has {databases} databases, which want {good:,}"
    remedy = (
        f"ulimit -n {min(found.files_at_most, GOOD_LIMIT)}; where the service is defined: LimitNOFILE={GOOD_LIMIT} of systemd, "
        "ulimits of compose"
    )
    if found.files < least:
        yield problem("open files", said, remedy)
    elif found.files < good:
        yield warning("open files", said, remedy)
    else:
        yield ok("open files", said)
    memory = f"{found.whose} has {_size(found.memory)}, {_size(found.available)} of it free"
    if min(found.memory, found.available) < MEMORY // 2:
        yield warning(
            "memory", f"{memory}; a worker wants {_size(MEMORY)}", "give it more, or expect to be killed by the kernel"
        )
    else:
        yield ok("memory", memory)


def _size(count: int) -> str:
    return f"{count / GB:.1f} GB" if count >= GB else f"{count / MB:.0f} MB"


# -- versions


def _classifiers() -> list[str]:
    try:
        return metadata.metadata(OURS).get_all("Classifier") or []
    except metadata.PackageNotFoundError:  # a checkout that nobody installed
        return []


def _libraries() -> tuple[Mapping[str, str], Sequence[str], str]:
    """(name -> version of what is installed, what we need, the lock file or nothing)"""
    try:
        needed = metadata.requires(OURS) or []
    except metadata.PackageNotFoundError:
        needed = []
    lock = LOCK_FILE.read_text() if LOCK_FILE.exists() else ""
    names = {_name(one) for one in (*needed, *_pins(lock))}
    found = {}
    for name in names - {""}:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found, needed, lock


def judge_python(version: tuple[int, int], classifiers: Sequence[str]) -> Iterator[Finding]:
    found = re.findall(r"Python :: (\d+)\.(\d+)", "\n".join(classifiers))
    tried = sorted((int(major), int(minor)) for major, minor in found)
    said = ".".join(map(str, version))
    if version in tried or not tried:
        yield ok("Python", said)
    else:
        yield warning(
            "Python", f"{said} is not tried", "use one of " + ", ".join(".".join(map(str, one)) for one in tried)
        )


def judge_libraries(installed: Mapping[str, str], needed: Sequence[str], lock: str) -> Iterator[Finding]:
    """Against the ranges that we ask for, which others break; and against the lock file, of what is tested, where there is one."""
    wrong = [
        f"{name} {installed.get(name, 'is missing')}, needed {one.specifier or 'any'}"
        for name, one in _unmet(installed, needed)
    ]
    if wrong:
        yield problem(
            "libraries",
            listed(wrong),
            "install as docs/deploy.md says: pip install --require-hashes -r requirements.runtime.lock",
        )
        return
    other = [
        f"{name} {installed[name]}, tested {one.specifier}"
        for name, one in _unmet(installed, _pins(lock))
        if name in installed
    ]
    if other:
        yield warning(
            "libraries",
            f"{len(other)} are not as tested: {listed(other)}",
            "make setup; or pip install --require-hashes -r requirements.runtime.lock",
        )
    else:
        yield ok(
            "libraries",
            "as in requirements.runtime.lock"
            if lock
            else "within the ranges that we need; no lock file here to compare with",
        )


def _unmet(installed: Mapping[str, str], wanted: Sequence[str]) -> Iterator[tuple[str, Requirement]]:
    for text in wanted:
        one = Requirement(text)
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue
        name = _name(text)
        if name not in installed or not one.specifier.contains(Version(installed[name]), prereleases=True):
            yield name, one


def _pins(lock: str) -> list[str]:
    """`name==version` of its lines, with the markers, without the hashes."""
    return [line.removesuffix("\\").strip() for line in lock.splitlines() if re.match(r"[A-Za-z0-9]", line)]


def _name(requirement: str) -> str:
    try:
        return re.sub(r"[-_.]+", "-", Requirement(requirement).name).lower()
    except InvalidRequirement:
        return ""
