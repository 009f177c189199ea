"""`capistream demo` as a person or a program runs it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

LINES = [
    {
        "at": 0.0,
        "via": "pixel",
        "body": {"event_name": "purchase", "event_id": "d-1", "commerce": {"transaction_id": "D1"}},
    },
    {
        "at": 0.2,
        "via": "segment",
        "body": {"event": "Order Completed", "userId": "u", "properties": {"event_id": "d-1", "order_id": "D1"}},
    },
    {"at": 0.3, "via": "bus", "body": {"event_name": "login", "event_id": "d-2"}},
    {"at": 0.4, "via": "bus", "body": "not json"},
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "traffic.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in LINES))
    return path


def demo(kafka, file: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "app.cli", "demo", "--file", str(file), *options],
        env={**os.environ, "CAPISTREAM_BROKER": kafka.brokers},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _ended(process: subprocess.Popen[str]) -> str:
    """Fails with what a demo said that ended before its first line."""
    raise AssertionError(process.communicate(timeout=20)[1])


def test_once_as_json_prints_the_addresses_first_and_the_balance_last(kafka, file):
    process = demo(kafka, file, "--once", "--json")
    out, err = process.communicate(timeout=110)

    assert process.returncode == 0, err
    addresses, balance = (json.loads(line) for line in out.splitlines())
    assert {"broker", "collector", "view", "sandbox", "shop", "write_key", "secret_key"} <= addresses.keys()
    assert balance["received"] == {"pixel": 1, "server": 2}
    assert (balance["unique"], balance["merged"]) == (2, 2)
    assert balance["dead_letters"] == {"not_json": 1}
    assert set(balance["held_back_by_consent"].values()) == {2}
    assert balance["held_back_by_consent"].keys() == {"meta", "ga4", "google_ads", "tiktok", "pinterest"}
    assert balance["balanced"] is True
    assert "playing 4 events" in err


def test_ctrl_c_ends_everything_soon_and_a_taken_port_is_told(kafka, file):
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for _ in range(600):  # another demo that has it would let go of it before ours looks
            try:
                taken.bind(("127.0.0.1", 8080))
            except OSError:
                time.sleep(0.1)
            else:
                taken.listen()
                break
        process = demo(kafka, file, "--json")
        assert process.stdout
        addresses = json.loads(process.stdout.readline() or _ended(process))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)

    assert process.returncode == 0
    assert "port 8080 is taken" in err
    assert addresses["collector"] != "http://127.0.0.1:8080"
    assert [pid for pid in addresses["pids"].values() if Path(f"/proc/{pid}").exists()] == []
    assert not Path(addresses["config"]).exists()
