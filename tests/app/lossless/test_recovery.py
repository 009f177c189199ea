"""A recovery is over when the tables have every row of their changelogs, and not before."""

import asyncio

import pytest
from faust.tables.recovery import RebalanceAgain, ServiceStopped

from app.bus import Bus
from app.lossless import App
from app.settings import Kafka


@pytest.fixture
def app(tmp_path):
    return App("recovery", Bus(Kafka(), "127.0.0.1:1"), store="rocksdb://", datadir=str(tmp_path), web_enabled=False)


async def test_the_end_of_one_recovery_is_not_taken_for_the_end_of_the_next(app):
    recovery = app.tables.recovery
    recovery._set_recovery_started()
    recovery._set_recovery_ended()
    recovery.signal_recovery_end.set()

    recovery._set_recovery_started()

    assert not recovery.signal_recovery_end.is_set()


async def test_a_recovery_that_gets_no_answer_begins_again(app):
    recovery = app.tables.recovery

    with pytest.raises(RebalanceAgain):
        await recovery._wait(asyncio.sleep(60), timeout=0.01)

    assert recovery.signal_recovery_start.is_set()


async def test_a_recovery_that_is_stopped_ends(app):
    recovery = app.tables.recovery
    recovery._stopped.set()

    with pytest.raises(ServiceStopped):
        await recovery._wait(asyncio.sleep(60), timeout=5)

    assert not recovery.signal_recovery_start.is_set()
