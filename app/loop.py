"""Runs a server until it is asked to stop."""

import asyncio
import contextlib
import signal
from collections.abc import Coroutine
from typing import Any


def run(server: Coroutine[Any, Any, None]) -> None:
    """Until SIGINT or SIGTERM; the server is cancelled and may clean up. On uvloop where there is one."""
    try:
        import uvloop
    except ImportError:  # Windows
        asyncio.run(_until_signal(server))
    else:
        uvloop.run(_until_signal(server))


async def _until_signal(server: Coroutine[Any, Any, None]) -> None:
    task = asyncio.ensure_future(server)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task
