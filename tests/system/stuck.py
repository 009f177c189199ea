"""A worker that gets stuck when it is told to: POST /break/<how>. Its limits are short.

python stuck.py [--restart] --config FILE --web-port PORT
"""

import argparse
import asyncio
import time
from pathlib import Path
from typing import Any

import faust
import uvloop
from aiohttp import web

from app import health, log, settings
from app.main import Pipeline

STALL_AFTER = 6.0
health.LOOPS_MAX = 9.0

parser = argparse.ArgumentParser()
parser.add_argument("--config", type=Path, required=True)
parser.add_argument("--web-port", type=int, required=True)
parser.add_argument("--backfill", action="store_true")
parser.add_argument("--restart", action="store_true")
options = parser.parse_args()

config = settings.load(options.config)
config = config.model_copy(
    update={
        "view": config.view.model_copy(update={"port": options.web_port}),
        # shorter than a file may say
        "worker": config.worker.model_copy(update={"stall_after": STALL_AFTER, "restart_when_stuck": options.restart}),
    }
)


async def never(*_: Any, **__: Any) -> None:
    await asyncio.Event().wait()


def swallow(batch: Any, work: Any, beat: float = 0.0) -> None:
    pass


async def break_it(request: web.Request) -> web.Response:
    app = pipeline.app
    match request.match_info["how"]:
        case "fetch":  # the loop ends, and nobody is told
            for future in list(app._fetcher._futures):
                future.cancel()
        case "lane":  # batches are taken and never begun
            app.lanes.submit = swallow  # type: ignore[method-assign]
        case "client":  # Kafka's answers do not reach us
            app.consumer._thread._highwaters = never
        case "clock":
            pipeline.clock._round = never  # type: ignore[method-assign]
        case "loop":
            asyncio.get_running_loop().call_later(0.5, time.sleep, 1000)
    return web.Response()


if __name__ == "__main__":
    log.setup()
    uvloop.install()
    pipeline = Pipeline(config, backfill=options.backfill)
    pipeline.app.on_web.append(lambda site: site.add_routes([web.post("/break/{how}", break_it)]))
    faust.Worker(pipeline.app, override_logging=False, loglevel="INFO").execute_from_commandline()
