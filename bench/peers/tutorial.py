"""De-duplication as Faust's tutorial would have it: a table, an agent that takes event by event, a send for each that is new.

Environment: BROKER, SOURCE, OUTPUT, FOLDER
"""

import logging
import os

import faust
import orjson

app = faust.App(
    f"tutorial-{os.environ['SOURCE']}",
    broker=f"aiokafka://{os.environ['BROKER']}",
    store="rocksdb://",
    datadir=os.environ["FOLDER"],
    topic_partitions=4,
    topic_replication_factor=1,
    consumer_auto_offset_reset="earliest",
    web_enabled=False,
    worker_redirect_stdouts=False,
)
raw = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
source, output = app.topic(os.environ["SOURCE"], **raw), app.topic(os.environ["OUTPUT"], **raw)
seen = app.Table("seen", default=int, partitions=4, options={"driver": "rocksdict"})


@app.agent(source)
async def dedup(stream: faust.StreamT[bytes]) -> None:
    async for value in stream:
        event_id = orjson.loads(value)["event_id"]
        if not seen[event_id]:
            seen[event_id] = 1
            await output.send(key=event_id.encode(), value=value)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    faust.Worker(app, override_logging=False, loglevel="INFO").execute_from_commandline()
