"""Several collectors on one port: a parent that starts them, starts again what ends by itself, and ends them all.

Each is a process like a single one, with connections, spool and limits of its own. The kernel spreads connections over those that
listen (SO_REUSEPORT). `/metrics` of any of them tells the sum of all: they keep their numbers in files of one folder
(prometheus_client's multiprocess mode); those of a process that ended still count.
"""

import asyncio
import socket
import subprocess
import tempfile
from collections.abc import Sequence

import structlog
from prometheus_client.multiprocess import mark_process_dead

from app import processes
from app.errors import SettingsError
from app.settings import Collector

log = structlog.get_logger()

PAUSE = 1.0  # seconds before one is started again
STOP = 20.0  # seconds for one to end; a single collector takes 10
LOOK = 0.1  # seconds between looks whether it lives


async def serve(collector: Collector, command: Sequence[str], count: int) -> None:
    """Run until cancelled. `command` starts one. Raises SettingsError for a port that cannot be shared."""
    _must_be_free(collector)
    with tempfile.TemporaryDirectory(prefix="capistream-metrics-") as folder:
        async with asyncio.TaskGroup() as all_of_them:
            for _ in range(count):
                all_of_them.create_task(_keep(command, folder))


async def _keep(command: Sequence[str], folder: str) -> None:
    """One of them, for ever."""
    while True:
        child = processes.spawn(command, None, {"PROMETHEUS_MULTIPROC_DIR": folder})
        try:
            await _ended(child)
        except asyncio.CancelledError:
            await _end(child)
            raise
        mark_process_dead(child.pid, folder)  # type: ignore[no-untyped-call]
        log.warning("collector.process_ended", status=child.returncode)
        await asyncio.sleep(PAUSE)


async def _ended(child: "subprocess.Popen[bytes]") -> None:
    while child.poll() is None:  # noqa: ASYNC110 (of the end of a process no Event tells)
        await asyncio.sleep(LOOK)


async def _end(child: "subprocess.Popen[bytes]") -> None:
    child.terminate()
    try:
        await asyncio.wait_for(_ended(child), STOP)
    except TimeoutError:
        child.kill()
        child.wait()


def _must_be_free(collector: Collector) -> None:
    """Processes that share a port would share it with a stranger, too, and nobody would notice."""
    if collector.port == 0:
        raise SettingsError(["collector.port: several processes cannot share a port that nobody names"])
    family = socket.AF_INET6 if ":" in collector.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((collector.host, collector.port))
        except OSError as exc:
            raise SettingsError(
                [f"collector.port: cannot listen on {collector.host} port {collector.port}: {exc.strerror}"]
            ) from exc
