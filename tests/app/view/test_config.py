"""What runs, as a page shows it: every setting, no secret, and in what workers differ."""

from pathlib import Path
from typing import Any

import pytest

from app import settings
from app.view import config
from tests.app.view.test_templates import EVIL, checked, render

SAMPLE = (Path(__file__).parents[3] / "docs" / "capistream.toml").read_text()


def by_path(text: str = SAMPLE) -> dict[str, Any]:
    return {row["setting"]: row for row in config.rows(settings.parse(text))}


def test_every_setting_is_there_with_its_value_and_whether_it_is_given():
    said = by_path()

    assert said["destinations.meta.mode"] == {"setting": "destinations.meta.mode", "value": "live", "given": True}
    assert said["destinations.ga4.concurrency"]["given"] is False
    assert said["events.purchase.expect"]["value"] == '["pixel","server"]'
    assert said["worker.data_dir"]["value"] == "/var/lib/capistream"


def test_of_event_rules_those_of_the_file_are_told_from_those_that_are_in_effect_anyway():
    said = by_path('[events.purchase]\nmerge_window = "3s"\n[events.search]\nexpect = ["pixel"]')

    given = {path for path, row in said.items() if path.startswith("events.") and row["given"]}
    assert given == {"events.purchase.merge_window", "events.search.expect"}
    assert said["events.sign_up.expect"]["value"] == '["pixel","server"]', "it stands in no file"


def test_of_a_secret_only_the_place_is_told(monkeypatch):
    monkeypatch.setenv("CAPISTREAM_SHOP_SECRET_KEY", "the-secret-itself")
    said = by_path()

    assert said["sites.shop.secret_key"]["value"] == "MASKED, from the environment variable CAPISTREAM_SHOP_SECRET_KEY"
    assert said["destinations.meta.access_token"]["value"] == "MASKED, from the file /run/secrets/meta_access_token"
    assert "the-secret-itself" not in str(said)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (
            "https://user:pass@hooks.example/x?token=abc&b=1#c",
            "https://MASKED@hooks.example/x?token=MASKED&b=MASKED#MASKED",
        ),
        ("https://hooks.example/x?abc", "https://hooks.example/x?MASKED"),
        (["https://a:b@x.example"], '["https://MASKED@x.example"]'),
        ("http://[::1", "MASKED"),
        ("kafka-1:9092", "kafka-1:9092"),
        (None, ""),
        (False, "false"),
    ],
)
def test_what_may_be_secret_in_an_address_is_masked(given, shown):
    assert config.shown(given) == shown


def told(text: str, version: str = "1.0") -> Any:
    return {"version": version, "prints": config.prints(settings.parse(text))}


def test_workers_that_differ_are_told_apart_by_the_part_in_which_they_do():
    other = SAMPLE.replace('dataset_id = "1234567890"', 'dataset_id = "1234567891"')
    assert other != SAMPLE

    assert config.differences({"a": told(SAMPLE), "b": told(SAMPLE)}) == []
    assert config.differences({"a": told(SAMPLE), "b": told(other)}) == ["destinations.meta"]
    assert config.differences({"a": told(SAMPLE), "b": told(SAMPLE, "1.1")}) == ["the version of capistream"]


def test_a_worker_s_own_port_and_folder_are_no_difference():
    other = SAMPLE.replace("port = 6066", "port = 6067").replace(
        'data_dir = "/var/lib/capistream"', 'data_dir = "/var/lib/other"'
    )
    assert other != SAMPLE

    assert config.whole(told(SAMPLE)["prints"]) == config.whole(told(other)["prints"])


def test_nothing_of_settings_or_answers_becomes_a_part_of_the_page():
    worker = {
        "worker": EVIL,
        "version": "1",
        "python": "3",
        "since": "2026-11-23T12:00:00Z",
        "configuration": "a",
        "fingerprint": "b",
    }
    said: Any = {
        "workers": [worker, worker],
        "worker": "x",
        "destinations": [EVIL],
        "workers_asked": 2,
        "workers_silent": 1,
    }
    rows = [
        {"setting": f"destinations.{EVIL}", "value": EVIL, "given": True},
        {"setting": "a.b", "value": "", "given": False},
    ]
    request = {"method": "POST", "url": EVIL, "headers": {EVIL: EVIL}, "body": {"a": EVIL}}
    trial: Any = {"destination": EVIL, "platform": EVIL, "announcement": EVIL, "counts": True, "request": request}
    answer = {
        "ok": False,
        "outcome": "rejected",
        "reason": EVIL,
        "detail": EVIL,
        "status": 400,
        "answer": EVIL,
        "seconds": 1.0,
    }

    for text in (
        render("config.html", **said, differ=[EVIL], settings=rows),
        render("config.html", **said | {"destinations": []}, differ=[], settings=[]),
        render("trial.html", **trial),
        render("trial.html", **trial, answer=answer),
        render(
            "trial.html", **trial | {"counts": False}, answer={"ok": False, "outcome": "no_answer", "seconds": 10.0}
        ),
    ):
        assert "img" not in checked(text).seen
        assert text.count("<script") == 1
