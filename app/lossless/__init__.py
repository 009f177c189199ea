"""Faust without loss: whole batches to agents, and commits that follow finished work only.

Faust acknowledges an event however the agent's body ended, commits past unfinished events, and commits before its changelog
is safe. So this package takes a few things over and leaves the rest (groups, rebalancing, tables, recovery, web) to Faust:

    membership.py   is this worker still a member of the group, for certain? (`own` before every side effect)
    assignor.py     partitions go to workers with the same topics only: one table, one writer
    fetcher.py      when Kafka is asked for which topics: those with a beat once in each
    runs.py         which offsets a fetch has covered, and where logs end
    consumer.py     a fetched run of records of one partition becomes one `Batch`, those of a topic one event of its stream; a
                    ledger of open batches decides what is committed; a rebalance first lets begun batches end
    producer.py     bytes to the partitions of a topic, in order, acknowledged by all replicas before the call returns
    rows.py         tables read and written in bulk: changelog first and acknowledged, local store after
    foreign.py      rows that a former owner wrote into a changelog, late: found and overwritten
    store.py        the databases under the tables: what cannot be believed is built anew from the changelog
    lanes.py        the loop that every agent runs: the batches of a partition in order, partitions side by side
    app.py          a Faust App that uses them

The order inside one batch, so that a crash can repeat but never swallow: outputs produced and acknowledged; changelogs
produced and acknowledged; local stores written; `finish()`, and only then may the offset be committed.

It works on the insides of faust-streaming 0.15 and aiokafka 0.14 (both pinned); each override says what it replaces and why.
"""

from app.lossless.app import App
from app.lossless.batch import Batch, Lost, die
from app.lossless.lanes import Lanes
from app.lossless.rows import Rows

__all__ = ["App", "Batch", "Lanes", "Lost", "Rows", "die"]
