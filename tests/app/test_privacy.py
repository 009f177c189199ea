"""app/privacy.py: the tables tell what the code does, and no more than the configuration lets it."""

import re
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from app import cli, dedup, keys, outcome_rows, preview, privacy, receipts, routing, topics
from app.dead_letter import DeadLetter
from app.delivery import Job
from app.events import Event
from app.prepare import Final
from app.settings import parse
from sinks._base import Payload
from sinks.samples import make_event
from tests.sinks.test_all import each_sink, sink_settings

ROOT = Path(__file__).parent.parent.parent
SAMPLE = parse((ROOT / "docs" / "capistream.toml").read_text())
MINIMAL = """
[sites.shop]
write_key = "wk_12345678"
secret_key = { env = "KEY" }
[destinations.ads]
sink = "meta"
dataset_id = "1234567890"
access_token = { env = "TOKEN" }
browser_tag = "none"
"""


def recipient(more: str = "", name: str = "ads") -> privacy.Recipient:
    return privacy.recipient(parse(MINIMAL + more), name)


def sent(one: privacy.Recipient) -> dict[str, tuple[str, set[str]]]:
    return {row.field: (row.form, set(row.sent_as)) for row in one.sent}


def test_each_field_is_told_with_its_place_in_the_request_and_its_form():
    found = sent(recipient())

    assert found["user.email"] == ("hashed", {"data[].user_data.em[]"})
    assert found["user.city"] == ("hashed", {"data[].user_data.ct[]"})
    assert found["context.ip"] == ("clear", {"data[].user_data.client_ip_address"})
    assert found["commerce.items.price"] == ("clear", {"data[].custom_data.contents[].item_price"})
    assert "data[].event_id" in found[""][1]
    assert not {"user.street", "ids.ttclid", "commerce.tax"} & set(found)


def test_what_is_sent_only_where_something_else_is_missing_is_told_too():
    assert sent(recipient())["ids.fbclid"] == ("clear", {"data[].user_data.fbc"})


def test_what_settings_change_changes_the_table():
    assert sent(recipient('external_id = "raw"'))["user.user_id"] == ("clear", {"data[].user_data.external_id[]"})
    assert "user.user_id" not in sent(recipient('external_id = "omit"'))
    assert sent(recipient('map = { "custom_data.status" = "user.city" }'))["user.city"] == (
        "hashed and clear",
        {"data[].user_data.ct[]", "data[].custom_data.status"},
    )
    assert sent(recipient('custom_data = ["plan"]'))["custom.plan"] == ("clear", {"data[].custom_data.plan"})


def test_what_fields_leave_out_is_not_in_the_table():
    one = recipient('fields = ["user.email", "commerce"]')
    found = sent(one)

    assert one.limited_to == ("user.email", "commerce")
    assert {field.split(".")[0] for field in found} == {"user", "commerce", ""}
    assert [field for field in found if field.startswith("user")] == ["user.email"]


def test_a_destination_that_is_off_or_in_shadow_or_starts_later_is_told_with_what_it_would_get():
    found = sent(recipient())

    for more in (
        'mode = "off"',
        'mode = "shadow"',
        "live_from = 2099-01-01T00:00:00Z",
        "live_until = 2000-01-01T00:00:00Z",
        "share = 0.0",
    ):
        assert sent(recipient(more)) == found


def test_consent_is_told_as_it_is_asked_for():
    one = recipient("""
        [destinations.ads.consent]
        needs = ["ad_user_data"]
        partial = "flag"
        [destinations.ads.consent.regions.US]
        absent = "assume"
    """)

    assert one.needs == ("ad_user_data",)
    assert one.partial == "flag"
    assert one.places == {"US": {"absent": "assume"}}
    assert recipient().needs == ("ad_storage", "ad_user_data")
    assert "data[].data_processing_options[]" in sent(one)[""][1], "what an opt-out adds"


@each_sink
def test_of_every_sink_it_is_told_what_is_sent_and_no_hash_is_called_clear(kind):
    told = "".join(f"{k} = {_toml(v)}\n" for k, v in sink_settings(kind).items())
    head, _, _ = MINIMAL.partition("[destinations")
    one = privacy.recipient(parse(f'{head}[destinations.it]\nbrowser_tag = "none"\n{told}'), "it")

    assert one.sent
    for row in one.sent:
        if re.match(r"user\.(email|phone|first_name|last_name|birth_date|gender|street)$", row.field):
            assert row.form == "hashed", row


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f'"{k}" = {_toml(v)}' for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)


def test_what_the_collector_hands_on_to_google_is_told():
    streams = """
[collector.ga4.G-ABC1234567]
site = "shop"
visitor_ip = false
cookieless = true
consent = { absent = "assume" }

[collector.ga4.G-OFF1234567]
site = "shop"
relay = false
"""
    found = parse(MINIMAL + streams)

    assert privacy.as_json(found)["relayed"] == [
        {
            "measurement_id": "G-ABC1234567",
            "host": "www.google-analytics.com",
            "needs": ["analytics_storage"],
            "absent": "assume",
            "cookieless": True,
            "visitor_ip": False,
        }
    ]
    assert "| G-ABC1234567 | `www.google-analytics.com` |" in privacy.page(found)
    assert "not its IP address" in privacy.page(found)
    assert "hits that wait for GA4 up to 5 min" in privacy.page(found)
    assert "GA4" not in privacy.page(parse(MINIMAL))


def test_every_topic_of_the_plan_is_in_the_table_with_its_form():
    found = {one.place: one for one in privacy.places(SAMPLE)}

    for topic in topics.plan(SAMPLE):
        one = found[f"topic `{topic.name}`"]
        assert one.form
        assert one.kept
    for source in SAMPLE.sources.values():
        assert "clear" in found[f"topic `{source.topic}`"].form


def test_a_topic_that_is_not_described_is_an_error_and_no_empty_cell():
    with pytest.raises(KeyError):
        privacy._holding("capistream.unheard_of", topics.names(SAMPLE))


def test_ip_address_and_user_agent_are_in_no_outcome_receipt_letter_or_question():
    event = make_event(context={"ip": "198.51.100.231", "user_agent": "PlantedAgent/7.7"})
    job = Job(b"k\x1dPurchase", 0, event, "Purchase", "", Payload("1", {}), 0, 0, 0)
    final = Final("delivered", "", "")

    kept = [
        receipts.row(event, "ads", "delivered", now=1, config="x")[1],
        outcome_rows.outcome(job, final, 1),
        *(row for _, row in outcome_rows.asked("ref", [job], 1.0, 1)),
        DeadLetter("deliver", "too_old", {"topic": "t"}, destination="ads", event_id=event["event_id"]).row(1.0)[1],
        *(row for row in seen_rows(event) if row),
    ]

    assert len(kept) >= 5
    for row in kept:
        assert b"198.51.100.231" not in row
        assert b"PlantedAgent" not in row


def seen_rows(event: Event) -> list[bytes | None]:
    copy: Any = {**event, "origin": {"topic": "t", "partition": 0, "offset": 0}}
    partition = dedup.Partition(SAMPLE.rule, lambda one: routing.routes(one, SAMPLE), since=0)
    record = preview._Record(keys.key(copy), orjson.dumps(copy), 0, copy["received"])
    return list(partition.run([record], preview._nothing, preview._nothing).seen.values())


def test_the_answer_does_not_depend_on_when_it_is_asked():
    assert privacy.page(SAMPLE) == privacy.page(SAMPLE)
    assert privacy.as_json(SAMPLE) == privacy.as_json(SAMPLE)


def test_the_page_calls_nothing_anonymous_and_names_no_secret():
    page = privacy.page(SAMPLE).lower()

    assert "anonym" not in page
    assert "pseudonym" not in page
    assert "/run/secrets" not in page
    assert "capistream_ga4_secret" not in page


@pytest.mark.parametrize("as_json", [True, False])
def test_the_command_needs_neither_kafka_nor_a_secret(as_json, tmp_path):
    path = tmp_path / "capistream.toml"
    path.write_text(MINIMAL)

    result = CliRunner().invoke(
        cli.main, ["config", "privacy", "--config", str(path), *(["--json"] if as_json else [])]
    )

    assert result.exit_code == 0, result.output
    assert "graph.facebook.com" in result.output
    assert result.output.startswith("{" if as_json else "Of configuration")
