"""A database that is opened again works as one that is new."""

import pytest

from app.lossless.store import FILES, Options

KNOWN = [b"key %05d" % n for n in range(0, 10_000, 2)]
NEW = [b"key %05d" % n for n in range(1, 10_000, 2)]


def write(db, keys):
    for key in keys:
        db[key] = b"row"
    db.flush()


@pytest.mark.parametrize("written", ["before", "after"])
def test_new_keys_are_not_looked_for_on_the_disk_after_a_restart(tmp_path, written):
    options = Options(bloom_filter_size=10)
    db = options.open(tmp_path / "one.db")
    write(db, KNOWN if written == "before" else [])
    db.close()
    db = options.open(tmp_path / "one.db")
    if written == "after":
        write(db, KNOWN)
    # as far as memory tells
    assert all(db.key_may_exist(key) for key in KNOWN)
    assert sum(db.key_may_exist(key) for key in NEW) < len(NEW) / 20
    db.close()


def test_files_of_the_first_level_are_merged_as_seldom_after_a_restart(tmp_path):
    options = Options(write_buffer_size=1 << 20)
    options.open(tmp_path / "one.db").close()
    db = options.open(tmp_path / "one.db")
    for n in range(FILES - 1):
        write(db, [b"%d" % n, b"x"])
    assert db.property_value("rocksdb.num-files-at-level0") == str(FILES - 1)
    db.close()
