"""The real worker with two things added from outside: its requests carry its process id, so that each delivery has a sender;
and it can be made to stop itself at the worst moment, between the proof of ownership and the write.

python -m tests.faults.worker TRIGGERS --config FILE --web-port PORT

A file TRIGGERS/<pid> with the text "<site> <n>" stops it at the n-th such moment from then on. Sites: `outputs` (before it
produces to topics), `rows` (before it writes a table's changelog), `send` (before it sends to a platform).
A file TRIGGERS/<pid>.tasks makes it print where its tasks and threads stand.
"""

import asyncio
import faulthandler
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from app import cli
from app.lossless import consumer
from app.main import Pipeline

SITES = {("main.py", "write"): "outputs", ("rows.py", "write"): "rows", ("deliver.py", "_may_go"): "send"}

_own = consumer.Consumer.own
_http = Pipeline.http


class Trigger:
    def __init__(self, folder: Path) -> None:
        self.path = folder / str(os.getpid())
        self.site, self.left = "", 0

    def pull(self, site: str | None) -> None:
        """Stop here if that is asked for: everything stands still until SIGCONT."""
        if not self.left and self.path.exists():
            self.site, _, left = self.path.read_text().partition(" ")
            self.left = int(left or 1)
            self.path.unlink()
        if self.left and site == self.site:
            self.left -= 1
            if not self.left:
                os.kill(os.getpid(), signal.SIGSTOP)


def tell_on(path: Path) -> None:
    """For whoever finds it stuck."""
    while True:
        time.sleep(1)
        if path.exists():
            path.unlink()
            faulthandler.dump_traceback(all_threads=True)
            for task in list(asyncio.tasks._all_tasks):  # type: ignore[attr-defined]
                print(task.get_name(), " <- ".join(_frames(task.get_coro())), file=sys.stderr, flush=True)


def _frames(coroutine: Any) -> list[str]:
    """Where it waits, outermost first."""
    found = []
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        found.append(f"{frame.f_code.co_qualname} {Path(frame.f_code.co_filename).name}:{frame.f_lineno}")
        coroutine = coroutine.cr_await
    return found


def main() -> None:
    folder = Path(sys.argv[1])
    trigger = Trigger(folder)
    threading.Thread(target=tell_on, args=[folder / f"{os.getpid()}.tasks"], daemon=True).start()

    async def own(self: Any, generation: int) -> None:
        await _own(self, generation)
        caller = sys._getframe(1).f_code
        trigger.pull(SITES.get((Path(caller.co_filename).name, caller.co_name)))

    async def http(self: Any) -> Any:
        session = await _http(self)
        session.headers["X-Worker"] = str(os.getpid())
        return session

    consumer.Consumer.own = own  # type: ignore[method-assign]
    Pipeline.http = http  # type: ignore[method-assign]
    sys.argv[1:] = ["worker", *sys.argv[2:]]
    cli.main()


if __name__ == "__main__":
    main()
