"""The control: de-duplication as Faust's tutorial would have it, in the place of our worker. The harness must see it lose.

python -m tests.faults.stock --config FILE --web-port PORT
"""

import argparse
import logging
from pathlib import Path

import aiohttp
import faust
import orjson
from aiohttp import web

from app import settings, topics
from app.events import Event
from sinks._base import Payload
from sinks.meta import Meta

parser = argparse.ArgumentParser()
parser.add_argument("--config", type=Path, required=True)
parser.add_argument("--web-port", type=int, required=True)
parser.add_argument("--backfill", action="store_true")
options = parser.parse_args()

config = settings.load(options.config)
(destination,) = (one for one in config.destinations.values() if one.sink == "meta")
sink, names = Meta(destination), topics.names(config)

app = faust.App(
    f"{config.kafka.prefix}-stock",
    broker=f"aiokafka://{config.brokers}",
    store="rocksdb://",
    datadir=str(config.worker.data_dir.parent / f"stock-{options.web_port}"),
    topic_partitions=config.kafka.partitions,
    topic_replication_factor=1,
    consumer_auto_offset_reset="earliest",
    broker_session_timeout=10,
    web_port=options.web_port,
    web_host="127.0.0.1",
    web_bind="127.0.0.1",
    worker_redirect_stdouts=False,
)
events = app.topic(names.events, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
seen = app.Table("seen", default=int, partitions=config.kafka.partitions, options={"driver": "rocksdict"})


@app.page("/readyz")
async def readyz(_page: object, _request: object) -> web.Response:
    return web.Response(text="ready\n")


async def post(event: Event) -> None:
    names = destination.platform_names(sink.names, event["event_name"])
    payload = sink.encode(event, names[0]) if names else None
    if not isinstance(payload, Payload):
        return
    request = sink.request([payload], {"access_token": destination.access_token.read()})  # type: ignore[attr-defined]
    async with (
        aiohttp.ClientSession() as http,
        http.request(request.method, request.url, headers=dict(request.headers), data=request.body) as response,
    ):
        await response.read()


@app.agent(events)
async def dedup(stream: faust.StreamT[bytes]) -> None:
    async for key, value in stream.items():
        if key is None:
            continue  # the log's clock
        if seen[key.decode()]:
            continue
        seen[key.decode()] = 1
        await post(orjson.loads(value))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    config.worker.data_dir.parent.mkdir(parents=True, exist_ok=True)
    faust.Worker(app, override_logging=False, loglevel="INFO").execute_from_commandline()
