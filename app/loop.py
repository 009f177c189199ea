"""How our processes run: a server until it is asked to stop, and how often they look for garbage."""

import asyncio
import contextlib
import gc
import signal
from collections.abc import Coroutine
from typing import Any


def collect_garbage_less() -> None:
    """Called when everything is imported: that is for ever, and need not be looked at again. Else garbage is collected less often.

    What we make of events are dictionaries without cycles, many at once; stock looks through them all every 700.
    """
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


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
