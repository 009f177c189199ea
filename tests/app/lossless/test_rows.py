"""Tables: rows of strangers in a changelog, damaged and outdated local state, expiry, a full disk."""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import NewTopic
from aiokafka.admin.records_to_delete import RecordsToDelete
from rocksdict import Options, Rdict

from app.bus import Bus
from app.lossless import App, Rows
from app.lossless.store import DAMAGED, IN_STEP
from app.settings import Kafka
from tests.app.lossless.test_ledger import VALUES, Bench, ended, finished, until

NEVER = "600"
SAID = "rows.foreign"  # what the owner logs when it has overwritten rows
ANEW = "is built anew"  # what a worker logs when it throws a database away


@pytest.fixture
async def bench(kafka, prefix, tmp_path):
    async with Bench(kafka.brokers, prefix, tmp_path) as one:
        yield one


@pytest.fixture
def nobody_looks(monkeypatch):
    monkeypatch.setenv("LOOK_EVERY", NEVER)


def changelog(bench, partition=0):
    return TopicPartition(f"{bench.prefix}-count-changelog", partition)


async def strange(bench, rows, partition=0):
    """Rows that are not the owner's."""
    async with AIOKafkaProducer(bootstrap_servers=bench.broker, acks="all") as producer:
        for key, value in rows:
            await producer.send_and_wait(changelog(bench).topic, value, key=key, partition=partition)


async def end(bench, partition=0):
    async with AIOKafkaConsumer(bootstrap_servers=bench.broker) as consumer:
        tp = changelog(bench, partition)
        return (await consumer.end_offsets([tp]))[tp]


async def told(bench, partition=0):
    """What a recovery would make of the changelog."""
    rows, tp = {}, changelog(bench, partition)
    async with AIOKafkaConsumer(bootstrap_servers=bench.broker, auto_offset_reset="earliest") as consumer:
        consumer.assign([tp])
        last = (await consumer.end_offsets([tp]))[tp]
        await consumer.seek_to_beginning(tp)
        while await consumer.position(tp) < last:
            for record in (await consumer.getmany(timeout_ms=500)).get(tp, ()):
                rows[record.key] = record.value
    return {key: value for key, value in rows.items() if value is not None}


def database(bench, number, partition=0):
    (path,) = (bench.folder / f"w{number}").rglob(f"count-{partition}.db")
    return path


def stored(bench, number, partition=0):
    """(offset, rows) of a worker that has ended."""
    db = Rdict(str(database(bench, number, partition)), Options(raw_mode=True))
    rows = dict(db.items())
    db.close()
    return int(rows.pop(b"__faust\0offset__")), rows


async def stop(worker):
    worker.send_signal(signal.SIGTERM)
    assert await ended(worker) == 0


async def ready(bench, number, times=1):
    async def enough():
        return bench.log(number).count("READY") >= times

    await until(enough)


def counts(values, times=1):
    return dict.fromkeys(values, b"%d" % times)


# -- rows of strangers


@pytest.mark.fault
async def test_a_strange_row_is_overwritten_with_the_owners_next_write(bench, nobody_looks):
    worker = bench.start(1)
    await bench.fill(VALUES[:20])
    await finished(bench, 20)

    await strange(bench, [(VALUES[3], b"999"), (b"stranger", b"1"), (VALUES[25], b"999"), (VALUES[3], b"998")])
    await bench.fill(VALUES[20:30])
    await finished(bench, 30)

    assert await told(bench) == counts(VALUES[:30])
    assert SAID in bench.log(1)
    last = await end(bench)
    await stop(worker)
    assert stored(bench, 1) == (last - 1, counts(VALUES[:30]))


@pytest.mark.fault
async def test_an_idle_owner_overwrites_a_strange_row_soon(bench, monkeypatch):
    monkeypatch.setenv("LOOK_EVERY", "0.5")
    bench.start(1)
    await bench.fill(VALUES[:20])
    await finished(bench, 20)

    await strange(bench, [(VALUES[3], b"999"), (b"stranger", b"1")])

    async def said():
        return SAID in bench.log(1)

    await until(said)
    assert await told(bench) == counts(VALUES[:20])
    last = await end(bench)
    await asyncio.sleep(2)  # several looks later
    assert await end(bench) == last
    assert bench.log(1).count(SAID) == 1


@pytest.mark.fault
async def test_who_gives_a_partition_up_overwrites_strange_rows_before(bench, nobody_looks):
    bench.start(1)
    await bench.fill(VALUES[:20])
    await finished(bench, 20)
    await strange(bench, [(VALUES[3], b"999")])

    bench.start(2)
    await ready(bench, 2)
    await ready(bench, 1, times=2)

    assert await told(bench) == counts(VALUES[:20])
    await bench.fill(VALUES[:20])
    await finished(bench, 40)
    assert await told(bench) == counts(VALUES[:20], 2)


@pytest.mark.fault
async def test_who_stops_overwrites_strange_rows_before(bench, nobody_looks):
    worker = bench.start(1)
    await bench.fill(VALUES[:20])
    await finished(bench, 20)
    await strange(bench, [(VALUES[3], b"999")])

    await stop(worker)

    assert await told(bench) == counts(VALUES[:20])


@pytest.mark.fault
async def test_strange_rows_in_between_all_the_time(bench, monkeypatch):
    monkeypatch.setenv("LOOK_EVERY", "0.3")
    worker = bench.start(1)
    await bench.fill(VALUES[:1])
    await finished(bench, 1)
    over = False

    async def disturb():
        async with AIOKafkaProducer(bootstrap_servers=bench.broker, acks="all") as producer:
            while not over:
                await producer.send_and_wait(changelog(bench).topic, b"999", key=random.choice(VALUES), partition=0)
                await asyncio.sleep(0.02)  # else the worker does nothing but answer these

    disturbing = asyncio.create_task(disturb())
    await bench.fill(VALUES[1:])
    await finished(bench, len(VALUES))
    over = True
    await disturbing
    await stop(worker)

    last = await end(bench)
    assert await told(bench) == counts(VALUES)
    assert stored(bench, 1) == (last - 1, counts(VALUES))
    assert bench.log(1).count(SAID) > 1


@pytest.mark.fault
async def test_an_owner_that_never_learns_where_its_rows_are(bench, nobody_looks):
    worker = bench.start(1, "unsure")
    await bench.fill(VALUES[:30])
    await finished(bench, 30)

    await strange(bench, [(VALUES[3], b"999")])
    await bench.fill(VALUES[:1])
    await finished(bench, 31)

    assert await told(bench) == counts(VALUES[:30]) | counts(VALUES[:1], 2)
    await stop(worker)
    bench.start(2)
    await bench.fill(VALUES[:30])
    await finished(bench, 61)
    assert await told(bench) == counts(VALUES[:30], 2) | counts(VALUES[:1], 3)


@pytest.mark.parametrize("every", [NEVER, "0.5"])
@pytest.mark.fault
async def test_a_worker_that_wakes_in_the_middle_of_a_write_changes_nothing(bench, monkeypatch, every):
    monkeypatch.setenv("LOOK_EVERY", every)
    await bench.fill(VALUES)
    sleeper = bench.start(1, "sleep-before-state", "v055")

    async def asleep():
        return "State:\tT" in Path(f"/proc/{sleeper.pid}/status").read_text()

    await until(asleep)
    owner = bench.start(2)
    try:
        await finished(bench, len(VALUES))
        await bench.fill(VALUES)
        await finished(bench, 2 * len(VALUES))
        # what was finished and not committed when it fell asleep was done once more
        before, last = await told(bench), await end(bench)
    finally:
        os.kill(sleeper.pid, signal.SIGCONT)
    await ready(bench, 1, times=2)

    async def late():
        return SAID in bench.log(2)

    await until(late)
    assert await end(bench) > last
    assert await told(bench) == before
    for worker in (sleeper, owner):
        await stop(worker)
    for number in (1, 2):
        offset, rows = stored(bench, number)
        assert offset < await end(bench)
        assert offset + 1 < await end(bench) or rows == before
    # with what each of them has left, and with nothing
    for turn, number in enumerate((1, 2, 3), 3):
        worker = bench.start(number)
        await bench.fill(VALUES)
        await finished(bench, turn * len(VALUES))
        assert await told(bench) == {key: b"%d" % (int(value) + turn - 2) for key, value in before.items()}
        await stop(worker)


# -- state that cannot be believed


class Local:
    """A table's database without a worker around it."""

    def __init__(self, folder):
        self.app = App(
            "local", Bus(Kafka(), "127.0.0.1:1"), store="rocksdb://", datadir=str(folder), topic_partitions=1
        )
        self.rows = Rows(self.app, "count", "")
        self.store = self.rows._table.data

    def open(self):
        self.store._db_for_partition(0)
        return self

    @property
    def path(self):
        return self.store.partition_path(0)

    def put(self, rows, end):
        self.rows._store(0, rows, end)

    def close(self):
        self.store._dbs.pop(0).close()

    def all(self):
        return dict(self.rows.items(0))

    def size(self):
        return sum(file.stat().st_size for file in self.path.glob("*.sst"))


def row(n):
    return b"%016x" % (n * 0x9E3779B97F4A7C15 % 2**64), random.randbytes(40)


@pytest.fixture
def local(tmp_path):
    """What a killed worker leaves: rows in files, later ones in the log, and an offset of 2,999. Not open."""
    live = Local(tmp_path / "live").open()
    for start in range(0, 3000, 100):
        live.put([row(n) for n in range(start, start + 100)], start + 100)
        if start == 1900:
            live.store._dbs[0].flush()
    live.rows.in_step(0, time.time())
    shutil.copytree(tmp_path / "live", tmp_path / "left")
    live.close()
    one = Local(tmp_path / "left")
    yield one
    if one.rows.has(0):
        one.close()


def only(path, pattern):
    (found,) = path.glob(pattern)
    return found


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def garble(path, where=0.3, length=500):
    with path.open("r+b") as file:
        file.seek(int(path.stat().st_size * where))
        file.write(random.randbytes(length))


FATAL = {
    "manifest cut": lambda path: cut(only(path, "MANIFEST-*")),
    "manifest garbled": lambda path: garble(only(path, "MANIFEST-*"), length=50),
    "manifest gone": lambda path: only(path, "MANIFEST-*").unlink(),
    "current cut": lambda path: cut(path / "CURRENT"),
    "current garbled": lambda path: garble(path / "CURRENT", 0, 10),
    "current gone": lambda path: (path / "CURRENT").unlink(),
    "sst cut": lambda path: cut(only(path, "*.sst")),
    "sst garbled at its end": lambda path: garble(only(path, "*.sst"), 0.995, 100),
    "sst gone": lambda path: only(path, "*.sst").unlink(),
    "everything empty": lambda path: [file.write_bytes(b"") for file in path.iterdir()],
    "noticed before": lambda path: (path / DAMAGED).write_text("Corruption: of some kind"),
    "of unknown age": lambda path: (path / IN_STEP).unlink(),
    "age garbled": lambda path: garble(path / IN_STEP, 0, 5),
}


@pytest.mark.parametrize("damage", FATAL)
def test_a_database_that_cannot_be_believed_is_replaced_by_an_empty_one(local, damage):
    FATAL[damage](local.path)
    local.open()

    assert local.all() == {}
    assert local.rows._end(0) == 0
    local.put([(b"a", b"1")], 1)
    local.close()
    assert local.open().all() == {b"a": b"1"}


@pytest.mark.parametrize("harm", ["cut", "garbled", "gone"])
def test_a_damaged_log_of_the_database_leaves_an_older_state_that_knows_its_age(local, harm):
    path = max(local.path.glob("*.log"))
    {"cut": cut, "garbled": garble, "gone": Path.unlink}[harm](path)
    local.open()

    end = local.rows._end(0)
    assert 2000 <= end < 3000
    assert set(local.all()) == {row(n)[0] for n in range(end)}


def test_what_is_left_of_a_replaced_database_is_deleted(local):
    cut(local.path / "CURRENT")
    left = local.path.with_name(f"{local.path.name}.gone.1")
    left.mkdir()
    (left / "000001.sst").write_bytes(b"x")

    local.open()

    end = time.monotonic() + 10
    while list(local.path.parent.glob("*.gone.*")):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_database_in_use_elsewhere_is_left_alone(local):
    local.open()
    again = Local(local.path.parents[2])
    assert again.path == local.path

    with pytest.raises(Exception, match="/LOCK:"):
        again.open()

    assert len(local.all()) == 3000


@pytest.mark.fault
async def test_damage_noticed_at_work_ends_the_worker_and_the_next_builds_anew(bench):
    await bench.fill(VALUES)
    for times in (1, 2):  # the second opening writes the log of the first to a file
        worker = bench.start(1)
        await ready(bench, 1, times)
        await finished(bench, len(VALUES))
        await stop(worker)
    (file,) = database(bench, 1).glob("*.sst")
    garble(file, 0, 300)

    await bench.fill(VALUES)
    worker = bench.start(1)
    assert await ended(worker) == 70

    assert "local state is damaged" in bench.log(1)
    assert await bench.committed() == len(VALUES)
    bench.start(1)
    await finished(bench, 2 * len(VALUES))
    assert "damage was noticed: Corruption: block checksum mismatch" in bench.log(1)
    assert await told(bench) == counts(VALUES, 2)


async def filled(bench, values=VALUES):
    """A worker's folder with these values, and the worker stopped."""
    policy = {"cleanup.policy": "compact,delete"}
    await bench.admin.create_topics([NewTopic(changelog(bench).topic, 2, 1, topic_configs=policy)])
    await bench.fill(values)
    worker = bench.start(1)
    await finished(bench, len(values))
    await stop(worker)


async def renew(bench):
    """The changelog, deleted and created anew."""
    topic = changelog(bench).topic
    await bench.admin.delete_topics([topic])

    async def created():
        answer = await bench.admin.create_topics([NewTopic(topic, 2, 1, topic_configs={"cleanup.policy": "compact"})])
        return answer.topic_errors[0][1] == 0

    await until(created)


@pytest.mark.fault
async def test_a_changelog_that_ends_before_the_local_offset(bench):
    await filled(bench)
    await renew(bench)
    await strange(bench, [(VALUES[0], b"7")])

    bench.start(1)
    await bench.fill(VALUES)
    await finished(bench, 2 * len(VALUES))

    assert "another one of the same name" in bench.log(1)
    assert await told(bench) == counts(VALUES) | {VALUES[0]: b"8"}


@pytest.mark.fault
async def test_another_changelog_that_has_grown_beyond_the_local_offset(bench):
    await filled(bench)
    await renew(bench)
    await strange(bench, [(VALUES[n % 10], b"%d" % n) for n in range(120)])

    worker = bench.start(1)
    assert await ended(worker) == 70
    bench.start(1)
    await bench.fill(VALUES[:20])
    await finished(bench, len(VALUES) + 20)

    assert "the changelog has another record at offset 99" in bench.log(1)
    assert await told(bench) == {VALUES[n]: b"%d" % (111 + n) for n in range(10)} | counts(VALUES[10:20])


@pytest.mark.fault
async def test_a_changelog_that_begins_after_the_local_offset(bench):
    await filled(bench)
    await strange(bench, [(VALUES[n % 10], b"%d" % n) for n in range(50)])
    await bench.admin.delete_records({changelog(bench): RecordsToDelete(145)})

    bench.start(1)
    await bench.fill(VALUES[:20])
    await finished(bench, len(VALUES) + 20)

    assert "and the changelog begins at 145" in bench.log(1)
    # the rows that are left: 45 to 49
    assert await told(bench) == counts(VALUES[:5] + VALUES[10:20]) | {VALUES[n]: b"%d" % (41 + n) for n in range(5, 10)}


@pytest.mark.fault
async def test_an_emptied_changelog_is_no_reason_to_throw_state_away(bench):
    await filled(bench)
    await bench.admin.delete_records({changelog(bench): RecordsToDelete(100)})

    bench.start(1)
    await bench.fill(VALUES)
    await finished(bench, 2 * len(VALUES))

    assert ANEW not in bench.log(1)
    assert SAID not in bench.log(1)
    assert await told(bench) == counts(VALUES, 2)


@pytest.mark.fault
async def test_a_worker_with_nothing_begins_with_an_emptied_changelog(bench):
    await filled(bench)
    await bench.admin.delete_records({changelog(bench): RecordsToDelete(100)})

    bench.start(2)
    await bench.fill(VALUES)
    await finished(bench, 2 * len(VALUES))

    assert SAID not in bench.log(2)
    assert await told(bench) == counts(VALUES)


@pytest.mark.fault
async def test_state_older_than_deletions_are_kept_is_used_only_if_the_changelog_has_not_moved(bench, monkeypatch):
    await filled(bench)
    monkeypatch.setenv("DELETIONS_KEPT", "2")
    await asyncio.sleep(2)

    worker = bench.start(1)  # nothing has moved
    await bench.fill(VALUES)
    await finished(bench, 2 * len(VALUES))
    await stop(worker)
    assert ANEW not in bench.log(1)

    await strange(bench, [(VALUES[0], None)])
    await asyncio.sleep(2)
    bench.start(1)
    await bench.fill(VALUES)
    await finished(bench, 3 * len(VALUES))

    assert "the changelog may have dropped deletions" in bench.log(1)
    assert await told(bench) == counts(VALUES, 3) | counts(VALUES[:1])


@pytest.mark.fault
async def test_state_that_is_younger_is_kept(bench, monkeypatch):
    monkeypatch.setenv("LOOK_EVERY", "0.5")
    monkeypatch.setenv("DELETIONS_KEPT", "30")
    await filled(bench)
    await strange(bench, [(VALUES[0], None)])

    bench.start(1)
    await bench.fill(VALUES)
    await finished(bench, 2 * len(VALUES))

    assert ANEW not in bench.log(1)
    assert await told(bench) == counts(VALUES, 2) | counts(VALUES[:1])


@pytest.mark.fault
async def test_a_worker_that_works_stays_in_step(bench, monkeypatch):
    monkeypatch.setenv("LOOK_EVERY", "0.5")
    bench.start(1)
    await ready(bench, 1)
    path = database(bench, 1) / IN_STEP
    first = path.read_text()

    async def later():
        return path.read_text() != first

    await until(later)


# -- expiry


def test_a_sweep_looks_at_each_row_once_and_begins_anew(local):
    local.open()
    seen = []

    def look(key, value):
        seen.append(key)
        return key.startswith(b"0")

    found = [local.rows.sweep(0, 700, look) for _ in range(5)]

    assert len(set(seen)) == len(seen) == 3000
    assert [key for keys in found for key in keys] == sorted(key for key in seen if key.startswith(b"0"))
    assert local.rows.sweep(0, 700, look) == found[0]


def test_a_sweep_of_an_empty_table(tmp_path):
    local = Local(tmp_path / "state").open()

    assert local.rows.sweep(0, 10, lambda key, value: True) == []

    local.close()


def test_the_place_of_a_sweep_is_forgotten_with_the_partition(local):
    local.open().rows.sweep(0, 700, lambda key, value: False)
    assert local.store.cursors

    local.store.revoke_partitions(local.rows._table, {TopicPartition(local.rows.changelog, 0)})

    assert not local.store.cursors


@pytest.mark.fault
async def test_expired_rows_go_from_store_and_changelog_and_stay_away(bench):
    worker = bench.start(1, "forget", "v00")
    await bench.fill(VALUES)
    rest, done = VALUES[10:], len(VALUES)

    async def forgotten():
        nonlocal done
        await bench.fill(rest[:10])  # rows are swept by batches
        done += 10
        await finished(bench, done)
        return not any(key.startswith(b"v00") for key in await told(bench))

    await until(forgotten)
    await stop(worker)

    assert set(stored(bench, 1)[1]) == set(rest)
    assert set(await told(bench)) == set(rest)
    for number in (1, 2):  # with the same folder, and with an empty one
        worker = bench.start(number)
        await bench.fill(VALUES[:1])
        await finished(bench, done + number)
        await stop(worker)
        assert set(stored(bench, number)[1]) == {*rest, VALUES[0]}


def test_the_disk_space_of_expired_rows_is_free_again(tmp_path):
    local = Local(tmp_path / "state").open()
    for start in range(0, 300_000, 1000):
        local.put([row(n) for n in range(start, start + 1000)], start + 1000)
    local.store._dbs[0].flush()
    full, end = local.size(), 300_000

    for _ in range(301):
        gone = local.rows.sweep(0, 1000, lambda key, value: key[:1] != b"0")
        local.put([(key, None) for key in gone], end := end + len(gone))

    local.store._dbs[0].flush()
    patience = time.monotonic() + 30
    while local.size() > full / 8:
        assert time.monotonic() < patience, (full, local.size())
        time.sleep(0.1)
    assert len(local.all()) == sum(row(n)[0][:1] == b"0" for n in range(300_000))
    local.close()


# -- a full disk


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "w1"
    folder.mkdir()
    mount = shutil.which("mount")
    if not mount or subprocess.run([mount, "-t", "tmpfs", "-o", "size=96m", "tmpfs", folder], check=False).returncode:
        pytest.skip("may not mount a tmpfs here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.fault
async def test_a_full_disk_ends_the_worker_and_nothing_is_lost_or_doubled(bench, small_disk):
    small, large = VALUES[:50], [random.randbytes(200_000) for _ in range(60)]
    worker = bench.start(1, "once")
    await bench.fill(small)
    await finished(bench, len(small))
    with contextlib.suppress(OSError), (small_disk / "ballast").open("wb", buffering=0) as ballast:
        while ballast.write(bytes(1 << 12)):
            pass

    await bench.fill(large)
    assert await ended(worker) == 70
    assert "the disk is full" in bench.log(1)
    assert await ended(bench.start(1, "once")) == 70  # and again, as long as it is
    committed = await bench.committed()
    assert committed < len(small) + len(large)
    assert set((small + large)[:committed]) <= set(await told(bench)) < set(small + large)

    (small_disk / "ballast").unlink()
    bench.start(1, "once")
    await finished(bench, len(small) + len(large))

    assert dict(await bench.out()) == dict.fromkeys(small + large, 1)
    assert await told(bench) == counts(small + large)
