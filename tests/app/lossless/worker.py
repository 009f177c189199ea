"""A worker for the tests of app.lossless: copies each record of `<prefix>.in` to `<prefix>.out`, and remembers it in a table.

Started as a process of its own: python worker.py BROKER PREFIX FOLDER [fail-on TEXT | slow SECONDS]
"""

import asyncio
import os
import sys
from pathlib import Path

import faust

from app import log
from app.lossless import App, Batch, Rows
from app.lossless.lanes import agent

broker, prefix, folder, *fault = sys.argv[1:]
Path(folder).mkdir(parents=True, exist_ok=True)
app = App(
    prefix,
    broker=f"aiokafka://{broker}",
    store="rocksdb://",
    datadir=folder,
    topic_partitions=2,
    topic_replication_factor=1,
    topic_disable_leader=True,
    table_standby_replicas=0,
    web_enabled=False,
    worker_redirect_stdouts=False,
    stream_recovery_delay=0.0,
    consumer_auto_offset_reset="earliest",
    broker_session_timeout=6,
    broker_heartbeat_interval=1.0,
    broker_rebalance_timeout=20,
    broker_request_timeout=20,
    broker_commit_interval=0.2,
    broker_max_poll_interval=86400,
    broker_max_poll_records=10,
    producer_linger=0.0,
    producer_max_batch_size=512 * 1024,
)
count = Rows(app, "count", "How often each value was finished")
IN, OUT = f"{prefix}.in", f"{prefix}.out"


async def copy(batch: Batch) -> None:
    p = batch.tp.partition
    await app.consumer.own(batch.generation)
    values = [record.value for record in batch.records]
    if fault[:1] == ["fail-on"] and fault[1].encode() in values:
        raise ValueError("told to fail")
    if fault[:1] == ["slow"]:
        await asyncio.sleep(float(fault[1]))
    await app.consumer.own(batch.generation)
    await app.producer.write(OUT, p, [(None, value, 0) for value in values])
    if fault[:1] == ["die-before-state"] and fault[1].encode() in values:
        os._exit(9)
    known = dict(zip(values, count.get(p, values), strict=True))
    await count.write(p, {value: b"%d" % (int(known[value] or 0) + 1) for value in values}, batch.generation)


topic = app.topic(IN, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw", partitions=2)
agent(app, topic, copy, "copy")
app.on_ready.append(lambda generation: print(f"READY {generation}", flush=True))

if __name__ == "__main__":
    log.setup()
    faust.Worker(app, override_logging=False, loglevel="INFO").execute_from_commandline()
