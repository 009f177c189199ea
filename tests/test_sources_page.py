"""docs/sources.md: its order and its configuration become the event that they promise."""

import re
from pathlib import Path

import orjson
from click.testing import CliRunner

from app.cli import main

PAGE = (Path(__file__).parent.parent / "docs" / "sources.md").read_text()
SITE = """
[sites.shop]
write_key = "wk_12345678"
secret_key = { env = "NOBODY_SETS_THIS" }
"""


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found
    return found[1]


def test_the_order_of_the_page_becomes_an_event_of_which_nothing_is_unread(tmp_path):
    (tmp_path / "capistream.toml").write_text(SITE + block("toml"))
    (tmp_path / "orders.jsonl").write_text(block("json"))
    command = ["map", "try", str(tmp_path / "orders.jsonl"), "--config", str(tmp_path / "capistream.toml"), "--json"]
    command += ["--source", "orders", "--key", "1001", "--now", "2026-11-23T12:00:00Z"]

    result = CliRunner().invoke(main, command)

    assert result.exit_code == 0, result.output
    (told,) = map(orjson.loads, result.stdout.splitlines())
    assert told["unread"] == ["number"]  # the tag's id is there, and the key
    assert told["dropped"] == []
    event = told["event"]
    assert (event["event_name"], event["event_id"], event["time"]) == ("purchase", "7b0a3f5e", 1_795_428_000_000)
    assert event["user"].keys() == {"email", "user_id", "country"}
    assert event["commerce"] == {
        "value": 59.98,
        "currency": "EUR",
        "transaction_id": "1001",
        "items": [{"item_id": "A", "price": 29.99}, {"item_id": "B", "price": 29.99}],
    }
    assert event["consent"] == {"ad_storage": "granted", "ad_user_data": "granted"}


def test_no_line_of_the_page_is_too_long_to_read():
    assert [line for line in PAGE.splitlines() if len(line) > 132] == []
