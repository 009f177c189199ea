"""`capistream collect --processes N`: one port, one page of metrics, and nobody who stays dead."""

import os
import signal
import socket
from pathlib import Path

import pytest

from app.collector import several
from app.errors import SettingsError
from app.settings import Collector
from tests.app.collector.running import names, running, wait_for


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.fault
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads Linux' /proc")
async def test_several_share_a_port_and_come_back(kafka, prefix, tmp_path):
    async with running(kafka, prefix, tmp_path, f'spool = "{tmp_path}/spool"', ("--processes", "2")) as one:
        assert one.process is not None
        parent = one.process.pid
        await wait_for(lambda: two(parent))
        first, second = children(parent)

        os.kill(first, signal.SIGKILL)
        await wait_for(lambda: gone(first), pause=0.01)
        for n in range(10):  # each on a connection of its own
            assert await one.send(names(f"while-{n}", 10)) == [200] * 10
        await wait_for(lambda: two(parent))
        assert second in children(parent)
        assert first not in children(parent)
        await wait_for(one.ready)
        assert set(await one.send(names("after", 40))) == {200}

        # both tell of both, and of the dead
        assert {await one.metric("capistream_copies_total") for _ in range(10)} == {140.0}
        assert set(one.answered) == set(await one.arrived())

        both = children(parent)
        one.signal(signal.SIGTERM)
        assert one.process.returncode == 0
        assert not any(Path(f"/proc/{child}").exists() for child in both)


async def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


async def two(parent: int) -> bool:
    return len(children(parent)) == 2


def test_a_port_that_somebody_has_is_not_shared_with_them():
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        with pytest.raises(SettingsError, match=r"collector\.port: cannot listen"):
            several._must_be_free(Collector(port=stranger.getsockname()[1]))


def test_a_port_that_nobody_names_is_not_shared():
    with pytest.raises(SettingsError, match=r"collector\.port"):
        several._must_be_free(Collector(port=0))
