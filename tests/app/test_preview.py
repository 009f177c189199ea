"""app/preview.py and `capistream preview`: exactly what would be sent, and nothing is."""

import orjson
import pytest
from click.testing import CliRunner

from app.cli import main
from app.normalize import Inlet
from app.preview import conversions, read, requests
from app.settings import parse

CONFIG = """
[sites.shop]
write_key = "wk_12345678"
secret_key = { env = "NOBODY_SETS_THIS" }

[sources.orders]
topic = "orders"
format = "segment"
site = "shop"

[destinations.ads]
sink = "meta"
dataset_id = "1234567890"
access_token = { env = "NOBODY_SETS_THIS" }
browser_tag = "none"

[destinations.stats]
sink = "ga4"
measurement_id = "G-ABC123XYZ"
api_secret = { env = "NOBODY_SETS_THIS" }
browser_tag = "none"
"""
NOW = 1_795_420_800_000
AT = "2026-11-23T08:00:00Z"  # the same moment
CONSENT = {"ad_storage": "granted", "ad_user_data": "granted", "analytics_storage": "granted"}
PIXEL = {
    "event_name": "purchase",
    "event_id": "o-1",
    "source": "pixel",
    "context": {"ip": "203.0.113.7", "user_agent": "Mozilla/5.0", "url": "https://shop.example.com/thanks"},
    "ids": {"ga_client_id": "1.2", "fbp": "fb.1.1795420000000.1"},
    "consent": CONSENT,
}
SERVER = {
    "event_name": "purchase",
    "event_id": "o-1",
    "source": "server",
    "user": {"email": "ada@example.com"},
    "commerce": {"value": 10, "currency": "EUR", "transaction_id": "o-1"},
}


def lines(*events):
    return b"\n".join(orjson.dumps(event) for event in events)


@pytest.fixture
def preview(tmp_path):
    def run(text, *arguments, config=CONFIG):
        (tmp_path / "capistream.toml").write_text(config)
        (tmp_path / "events").write_bytes(text)
        command = ["preview", str(tmp_path / "events"), "--config", str(tmp_path / "capistream.toml"), "--now", AT]
        return CliRunner().invoke(main, [*command, *arguments])

    return run


def told(result):
    return [orjson.loads(line) for line in result.stdout.splitlines()]


def test_both_copies_become_one_request_for_each_destination(preview):
    result = preview(lines(PIXEL, SERVER), "--json")

    assert result.exit_code == 0
    ads, stats = told(result)
    assert (ads["destination"], ads["method"]) == ("ads", "POST")
    (event,) = ads["body"]["data"]
    assert event["user_data"]["fbp"] == "fb.1.1795420000000.1"
    assert event["custom_data"] == {"value": 10.0, "currency": "EUR", "order_id": "o-1"}
    assert stats["body"]["events"][0]["params"]["transaction_id"] == "o-1"


def test_the_same_question_has_the_same_answer(preview):
    text = lines(PIXEL, SERVER, {**SERVER, "event_id": "o-2", "consent": CONSENT})

    assert preview(text, "--json").stdout == preview(text, "--json").stdout


def test_secrets_are_masked_and_not_needed_and_no_address_is_in_clear(preview):
    text = preview(lines(PIXEL, SERVER)).stdout

    assert "Authorization: Bearer MASKED" in text
    assert "api_secret=MASKED" in text
    assert "ada@example.com" not in text


def test_a_signature_is_masked_and_its_time_is_the_moment_of_the_preview(preview):
    hook = """
[destinations.hook]
sink = "webhook"
endpoint = "https://hooks.example.com"
secret = { env = "NOBODY_SETS_THIS" }
browser_tag = "none"
"""

    (one,) = told(preview(lines(PIXEL), "--to", "hook", "--json", config=CONFIG + hook))

    assert one["headers"]["webhook-signature"] == "MASKED"
    assert one["headers"]["webhook-timestamp"] == str(NOW // 1000)
    assert one["headers"]["webhook-id"].startswith("msg_")


def test_why_nothing_is_sent_is_told(preview):
    result = preview(lines(SERVER), "--to", "ads", "--json")

    assert told(result) == [
        {
            "destination": "ads",
            "event_name": "purchase",
            "event_id": "o-1",
            "transaction_id": "o-1",
            "outcome": "held_back",
            "reason": "consent_absent",
            "basis": "ad_storage absent, ad_user_data absent",
        }
    ]


def test_what_is_never_confirmed_is_parked(preview):
    rule = '\n[events.purchase]\nwait_for = "server"\n'

    result = preview(lines(PIXEL), "--to", "ads", "--json", config=CONFIG + rule)

    assert [(one["outcome"], one["reason"]) for one in told(result)] == [("parked", "unconfirmed")]
    confirmed = preview(lines(PIXEL, SERVER), "--to", "ads", "--json", config=CONFIG + rule)
    assert "url" in told(confirmed)[0]


def test_a_refused_event_is_named_by_its_line_and_the_others_go_on(preview):
    result = preview(lines(PIXEL) + b'\n\nnonsense\n{"event_name": "login"}\n', "--json", "--to", "ads")

    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "line 3: not_json: not JSON, at character 0",
        "line 4: missing: event_id is missing",
    ]
    assert len(told(result)) == 1


def test_events_without_an_id_get_the_one_that_is_named(preview):
    login = {"event_name": "login", "consent": CONSENT}

    result = preview(lines(login, login), "--id", "made-up", "--to", "ads", "--json")

    assert [one["event_id"] for one in told(result)] == ["made-up", "made-up-2"]


def test_any_accepted_format_is_read_and_a_document_may_span_lines(preview):
    call = {
        "type": "track",
        "messageId": "m-1",
        "userId": "u-1",
        "event": "Order Completed",
        "properties": {"order_id": "o-9", "revenue": 5, "currency": "EUR"},
    }
    text = orjson.dumps(call, option=orjson.OPT_INDENT_2)

    by_source = preview(text, "--source", "orders", "--json")
    by_format = preview(text, "--format", "segment", "--json")

    assert [one["event_name"] for one in told(by_source)] == ["purchase", "purchase"]
    assert by_source.stdout == by_format.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--to", "nobody"], "--to: no destination is called nobody; there are ads, stats"),
        (["--source", "nobody"], "--source: no source is called nobody; there are orders"),
        (["--format", "xml"], "--format: one of capistream, segment, meta, ga4, gtag, map"),
        (["--now", "yesterday"], "--now: ISO 8601 with a zone, for example 2026-01-31T12:00:00Z"),
        (["--now", "2026-01-31T12:00:00"], "--now: ISO 8601 with a zone, for example 2026-01-31T12:00:00Z"),
    ],
)
def test_a_wrong_option_is_named(preview, arguments, complaint):
    result = preview(lines(PIXEL), *arguments)

    assert (result.exit_code, result.stderr.strip()) == (1, complaint)


def test_too_old_for_the_platform(preview):
    event = {**SERVER, "time": "2026-11-01T00:00:00Z", "consent": CONSENT}

    (one,) = told(preview(lines(event), "--to", "ads", "--json"))

    assert (one["outcome"], one["reason"]) == ("rejected", "too_old")


def test_requests_are_the_ones_that_the_sink_would_make():
    settings = parse(CONFIG)
    inlet = Inlet("preview", "capistream", "shop", "server")
    copies, refused = read(lines(PIXEL, SERVER), inlet, NOW)

    (closed,) = conversions(copies, settings, NOW)

    assert refused == []
    assert closed.how == "complete"
    assert [one["destination"] for one in requests([closed], settings, NOW, ["stats"])] == ["stats"]
