"""A worker for the tests of app.lossless: copies each record of `<prefix>.in` to `<prefix>.out`, and remembers it in a table.

Started as a process of its own: python worker.py BROKER PREFIX FOLDER [FAULT], where FAULT is one of

    fail-on VALUE, die-before-state VALUE       an exception, an end, at the batch with that value
    sleep-before-state VALUE                    SIGSTOP between the last look at ownership and the write to the changelog
    unsure                                      Kafka never says at which offset rows of the table are
    slow SECONDS, lose-fetches                  each batch takes so long; each third fetch is lost
    once                                        values that the table knows are not copied again
    forget TEXT                                 rows whose key begins so are expired
    from-end, from-time MILLISECONDS            where partitions begin of which nothing was committed yet

LOOK_EVERY and DELETIONS_KEPT in the environment replace two constants of App, in seconds.
"""

import asyncio
import itertools
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import faust

from app import log
from app.bus import Bus
from app.lossless import App, Batch, Rows
from app.lossless.app import Transport
from app.lossless.consumer import Consumer
from app.lossless.lanes import agent
from app.lossless.producer import Producer, Row
from app.settings import Kafka

broker, prefix, folder, *fault = sys.argv[1:]
Path(folder).mkdir(parents=True, exist_ok=True)
app = App(
    prefix,
    Bus(Kafka(), broker),
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
app.watch.every = float(os.environ.get("LOOK_EVERY", app.watch.every))
app.deletions_kept = float(os.environ.get("DELETIONS_KEPT", app.deletions_kept))
count = Rows(app, "count", "How often each value was finished")
IN, OUT = f"{prefix}.in", f"{prefix}.out"


async def copy(batch: Batch) -> None:
    p = batch.tp.partition
    await app.consumer.own(batch.generation)
    values = [record.value for record in batch.records if record.value is not None]
    if fault[:1] == ["fail-on"] and fault[1].encode() in values:
        raise ValueError("told to fail")
    if fault[:1] == ["slow"]:
        await asyncio.sleep(float(fault[1]))
    if fault == ["once"]:
        known = dict(zip(values, count.get(p, values), strict=True))
        values = [value for value in dict.fromkeys(values) if known[value] is None]
    await app.consumer.own(batch.generation)
    now = int(time.time() * 1000)
    await app.producer.write(OUT, p, [(None, value, now) for value in values])  # retention deletes what is old
    if fault[:1] == ["die-before-state"] and fault[1].encode() in values:
        os._exit(9)
    known = dict(zip(values, count.get(p, values), strict=True))
    rows: dict[bytes, bytes | None] = {value: b"%d" % (int(known[value] or 0) + 1) for value in values}
    if fault[:1] == ["forget"]:
        rows |= dict.fromkeys(count.sweep(p, 7, lambda key, _: key.startswith(fault[1].encode())))
    await count.write(p, rows, batch.generation)


if fault == ["lose-fetches"]:  # each third is lost on its way, as when the one who waits for it is cancelled
    getmany, losing = Consumer._getmany, itertools.cycle((True, False, False))

    async def lossy(self, *args, **options):
        runs = await getmany(self, *args, **options)
        return {} if any(run.records for run in runs.values()) and next(losing) else runs

    Consumer._getmany = lossy


class FaultyProducer(Producer):
    async def write(self, topic: str, partition: int, rows: Iterable[Row]) -> tuple[int, int]:
        rows = list(rows)
        if topic != OUT and fault[:1] == ["sleep-before-state"] and fault[1].encode() in [key for key, _, _ in rows]:
            fault.clear()
            os.kill(os.getpid(), signal.SIGSTOP)
        where = await super().write(topic, partition, rows)
        return (-1, -1) if topic != OUT and fault == ["unsure"] else where


Transport.Producer = FaultyProducer

if fault == ["from-end"]:
    app.from_end.add(IN)
elif fault[:1] == ["from-time"]:
    app.from_time[IN] = int(fault[1])
topic = app.topic(IN, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw", partitions=2)
agent(app, topic, copy, "copy")
app.on_ready.append(lambda generation: print(f"READY {generation}", flush=True))


async def tell() -> None:
    consumer = app.consumer
    kept = sum(len(offsets) for of in (consumer._acked, consumer._acked_index) for offsets in of.values())
    print(f"KEPT {kept} {len(consumer._unacked_messages)}", flush=True)


app.on_closing.append(tell)

if __name__ == "__main__":
    log.setup()
    faust.Worker(app, override_logging=False, loglevel="INFO").execute_from_commandline()
