"""app/collector/spool.py: what is answered for is on the disk, and comes out again, whatever ended the process."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.collector import spool
from app.collector.spool import Spool
from app.errors import SettingsError
from app.intake import Rows

ROWS: Rows = {("events", 1): [(b"key", b'{"n":1}', 1_700_000_000_000)], ("people", 0): [(b"who", None, 5)]}
ENTRIES = [("events", 1, ROWS["events", 1][0]), ("people", 0, ROWS["people", 0][0])]
MOST = 1 << 20


async def begun(folder: Path, most: int = MOST) -> Spool:
    one = Spool(folder, most)
    await one.start()
    return one


async def emptied(one: Spool) -> list[spool.Entry]:
    found = []
    while told := await one.oldest():
        segment, entries = told
        found += entries
        await one.done(segment)
    return found


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.rows"))


def rows(n: int) -> Rows:
    return {("events", 0): [(b"k%d" % n, b'{"n":%d}' % n, n)]}


async def test_rows_come_out_as_they_went_in(tmp_path):
    one = await begun(tmp_path)

    assert await one.put(ROWS) is None

    assert (one.rows, one.empty) == (2, False)
    assert await emptied(one) == ENTRIES
    assert (one.rows, one.size, one.empty, files(tmp_path)) == (0, 0, True, [])


async def test_the_next_start_finds_what_a_stop_left(tmp_path):
    one = await begun(tmp_path)
    await one.put(ROWS)
    await one.stop()

    assert await emptied(await begun(tmp_path)) == ENTRIES


async def test_a_stop_with_nothing_in_it_leaves_no_folder(tmp_path):
    await (await begun(tmp_path)).stop()

    assert [place for place in tmp_path.iterdir() if place.is_dir()] == []


async def test_nobody_takes_what_a_living_process_has(tmp_path):
    one = await begun(tmp_path)
    await one.put(ROWS)

    assert (await begun(tmp_path)).empty
    assert await emptied(one) == ENTRIES


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from app.collector.spool import Spool

async def run():
    one = Spool(Path(sys.argv[1]), 1 << 20)
    await one.start()
    assert await one.put({("events", 0): [(b"k", b"{}", 7)]}) is None
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(run())
"""


async def test_what_a_killed_process_had_is_adopted_once(tmp_path):
    killed = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert killed.returncode == -9

    first, second = await begun(tmp_path), await begun(tmp_path)

    assert await emptied(first) == [("events", 0, (b"k", b"{}", 7))]
    assert second.empty
    assert len([place for place in tmp_path.iterdir() if place.is_dir()]) == 2


@given(st.integers(1, 6), st.data())
def test_a_torn_end_costs_nothing_that_was_answered_for(count, data):
    whole = [spool.encode(rows(n))[0] for n in range(count)]
    torn = data.draw(st.integers(0, len(whole[-1]) - 1))
    rest = b"".join(whole[:-1]) + whole[-1][:torn]

    found = [entry for _, _, body in spool.frames(rest) for entry in spool.decode(body)]

    assert found == [("events", 0, (b"k%d" % n, b'{"n":%d}' % n, n)) for n in range(count - 1)]


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_is_no_row(at, change):
    frame = bytearray(spool.encode(rows(1))[0])
    frame[at % len(frame)] ^= change

    assert list(spool.frames(bytes(frame))) == []


async def test_a_torn_file_is_adopted_up_to_its_tear(tmp_path):
    one = await begun(tmp_path)
    await one.put(ROWS)
    await one.stop()
    (file,) = files(tmp_path)
    with file.open("ab") as end:
        end.write(spool.encode(rows(1))[0][:-1])

    two = await begun(tmp_path)

    assert two.rows == 2
    assert await emptied(two) == ENTRIES


async def test_a_full_spool_refuses_and_takes_again_when_it_has_room(tmp_path):
    frame, _ = spool.encode(rows(1))
    one = await begun(tmp_path, most=2 * len(frame))

    assert [await one.put(rows(n)) for n in range(3)] == [None, None, "spool_full"]
    assert one.full

    await emptied(one)
    assert await one.put(rows(4)) is None


async def test_a_disk_that_fails_is_no_answer_and_leaves_nothing_behind(tmp_path, monkeypatch):
    one = await begun(tmp_path)
    await one.put(rows(1))

    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(spool, "_flush", full)
        assert await one.put(rows(2)) == "spool_failed"
    assert await one.put(rows(3)) is None

    assert [row[2] for _, _, row in await emptied(one)] == [1, 3]


async def test_those_who_wait_share_one_flush(tmp_path, monkeypatch):
    one, flushed, flush = await begun(tmp_path), [], spool._flush

    def counted(file: int) -> None:
        flushed.append(file)
        flush(file)

    monkeypatch.setattr(spool, "_flush", counted)

    await asyncio.gather(*(one.put(rows(n)) for n in range(500)))

    assert len(flushed) <= 3
    assert len(await emptied(one)) == 500


async def test_many_files_come_out_in_the_order_in_which_they_went_in(tmp_path, monkeypatch):
    monkeypatch.setattr(spool, "SEGMENT", 200)
    one = await begun(tmp_path)
    for n in range(50):
        await one.put(rows(n))

    assert len(files(tmp_path)) > 5
    assert [row[2] for _, _, row in await emptied(one)] == list(range(50))


async def test_what_comes_while_a_file_is_read_goes_into_another(tmp_path):
    one = await begun(tmp_path)
    await one.put(rows(1))
    found = await one.oldest()
    assert found is not None
    segment, entries = found
    await one.put(rows(2))
    await one.done(segment)

    assert [row[2] for _, _, row in [*entries, *await emptied(one)]] == [1, 2]


async def test_only_its_owner_may_read_it(tmp_path):
    one = await begun(tmp_path / "spool")
    await one.put(ROWS)

    assert {file.stat().st_mode & 0o777 for file in files(tmp_path / "spool")} == {0o600}
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700


async def test_a_folder_that_cannot_be_is_told_as_a_setting(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(SettingsError, match=r"collector\.spool: "):
        await begun(tmp_path / "file" / "spool")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
async def test_a_disk_without_room_is_told(tmp_path, monkeypatch):
    one = await begun(tmp_path)
    real = os.open

    def full(path: Path, *more: int) -> int:
        return real("/dev/full", os.O_WRONLY) if str(path).endswith(".rows") else real(path, *more)

    monkeypatch.setattr(os, "open", full)

    assert await one.put(rows(1)) == "spool_failed"
    assert one.empty
