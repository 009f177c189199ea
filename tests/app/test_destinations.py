"""app/destinations.py, `capistream destinations` and `capistream stop`, on the real Kafka and a real HTTP server."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from app import control, destinations, keys, sample
from app.destinations import Past
from app.prepare import prepare
from app.settings import Settings, parse
from sinks import SINKS
from tests.app.conftest import CONFIG, Place
from tests.factories import make_event
from tests.sinks.test_all import each_sink, sink_settings

NOW = 1_795_420_800_000
AT = "2026-11-23T08:00:00Z"  # the same moment


# How they stand


async def _commit(brokers: str, group: str, topic: str, partition: int, offset: int) -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers, group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        tp = TopicPartition(topic, partition)
        consumer.assign([tp])
        await consumer.commit({tp: offset})
    finally:
        await consumer.stop()


def test_list_tells_what_waits_who_paused_and_which_api_version(place):
    topic = f"{place.prefix}.to.ads"
    for partition in (0, 1):
        place.write(topic, [(b"key", b"{}", 0)] * 3, partition)
    asyncio.run(_commit(place.brokers, place.prefix, topic, 1, 2))
    place.run("destinations", "pause", "ads", "--reason", "a trial")

    ads, stats = place.json("destinations", "list")

    assert (ads["waiting"], ads["paused"], ads["reason"], ads["mode"]) == (4, True, "a trial", "live")
    assert ads["api_version"].startswith("v")
    assert ads["by"] == control.who()
    assert (stats["name"], stats["sink"], stats["waiting"], stats["paused"]) == ("stats", "ga4", 0, False)
    text = place.run("destinations", "list").stdout
    assert "a trial" in text.splitlines()[1]
    assert text.splitlines()[2].endswith("on")


def test_list_names_what_waits_for_a_destination_that_is_no_longer_configured(place):
    topic = f"{place.prefix}.to.stats"
    place.write(topic, [(b"key", b"{}", 0)] * 3)
    asyncio.run(_commit(place.brokers, place.prefix, topic, 0, 1))
    text = place.path.read_text()
    place.path.write_text(text[: text.index("[destinations.stats]")])

    ads, stats = place.json("destinations", "list")

    assert (ads["name"], ads["configured"]) == ("ads", True)
    assert (stats["name"], stats["configured"], stats["waiting"]) == ("stats", False, 2)
    last = place.run("destinations", "list").stdout.splitlines()[-1]
    assert last.split()[:4] == ["stats", "-", "-", "2"]
    assert last.endswith("not in the configuration; its topic and its table are still there")


def standing(place) -> dict[str, bool]:
    return {name: one.paused for name, one in asyncio.run(control.standing(place.config)).items()}


def test_pause_and_resume_are_orders(place):
    assert place.run("destinations", "pause", "ads").exit_code == 0
    assert standing(place) == {"ads": True}

    result = place.run("destinations", "resume", "ads", "--accept")

    assert (result.exit_code, result.stdout) == (0, "ads goes on\n")
    order = asyncio.run(control.standing(place.config))["ads"]
    assert (order.paused, order.accept, order.by) == (False, True, control.who())


@pytest.mark.parametrize(
    ("arguments", "paused"),
    [
        (["--all"], {"ads": True, "stats": True}),
        (["stats"], {"stats": True}),
        (["ads", "stats"], {"ads": True, "stats": True}),
    ],
)
def test_stop_pauses_the_named_destinations_or_all(place, arguments, paused):
    assert place.run("stop", *arguments).exit_code == 0
    assert standing(place) == paused


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (["stop"], 2, "name destinations, or give --all"),
        (["stop", "ads", "--all"], 2, "name destinations, or give --all"),
        (["stop", "nobody"], 1, "no destination is called nobody; there are ads, stats"),
        (["destinations", "pause", "nobody"], 1, "no destination is called nobody; there are ads, stats"),
        (["destinations", "test", "nobody"], 1, "no destination is called nobody; there are ads, stats"),
        (["destinations", "backfill", "nobody", "--since", AT], 1, "no destination is called nobody"),
        (["destinations", "backfill", "ads", "--since", "today"], 1, "--since: ISO 8601 with a zone"),
    ],
)
def test_a_wrong_command_is_told_and_orders_nothing(place, command, code, said):
    result = place.run(*command)

    assert result.exit_code == code
    assert said in result.stderr
    assert standing(place) == {}


@pytest.mark.parametrize(
    "command",
    [
        ["dead", "list"],
        ["destinations", "list"],
        ["destinations", "backfill", "ads", "--since", AT],
        ["stop", "--all"],
    ],
)
def test_before_the_first_worker_the_missing_topic_is_named(kafka, prefix, tmp_path, command):
    result = Place(kafka.brokers, prefix, tmp_path).run(*command)

    assert result.exit_code == 1
    assert f"there is no topic {prefix}." in result.stderr
    assert "yet: the first worker makes it" in result.stderr


@pytest.mark.parametrize("command", [["dead", "list"], ["destinations", "list"], ["stop", "--all"]])
def test_a_kafka_that_does_not_answer_is_told_in_a_line(tmp_path, command):
    result = Place("127.0.0.1:1", "t", tmp_path).run(*command)

    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert result.stderr.startswith("Kafka ")


# One event as a test


@each_sink
def test_the_sample_is_an_event_that_the_sink_takes(kind, tmp_path):
    settings = make_settings(kind)
    destination = settings.destinations["it"]

    _, prepared = prepare("it", sample.purchase(settings, NOW), destination, SINKS[kind](destination), NOW / 1000)

    assert all(not hasattr(one.found, "outcome") for one in prepared), prepared


def make_settings(kind: str) -> Settings:
    settings = parse(CONFIG.format(brokers="127.0.0.1:1", prefix="t", endpoint="http://127.0.0.1:1"))
    one = SINKS[kind].Settings.model_validate(sink_settings(kind))
    return settings.model_copy(update={"destinations": {"it": one}})


def test_the_sample_names_nobody_in_clear_and_has_an_id_of_its_own():
    one, other = (sample.purchase(make_settings("meta"), NOW) for _ in range(2))

    assert one["event_id"] != other["event_id"]
    assert b"test@example.com" not in orjson.dumps(one)
    assert one["commerce"]["value"] == 1.0


@dataclass
class Platform:
    """Answers every request alike, and keeps it."""

    status: int = 200
    answer: bytes = b"{}"
    address: str = ""
    requests: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)


@pytest.fixture
def platform() -> Iterator[Platform]:
    one = Platform()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            one.requests.append((self.path, dict(self.headers), orjson.loads(body)))
            self.send_response(one.status)
            self.end_headers()
            self.wfile.write(one.answer)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    one.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield one
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def shop(tmp_path, platform, monkeypatch):
    """Commands without any Kafka."""
    monkeypatch.setenv("ADS_TOKEN", "s3cret-token")
    monkeypatch.setenv("STATS_SECRET", "s3cret-stats")
    one = Place("127.0.0.1:1", "t", tmp_path)
    one.configure(platform.address)
    return one


def test_without_a_test_mode_the_command_says_that_it_would_count_and_sends_nothing(shop, platform):
    result = shop.run("destinations", "test", "ads")

    assert result.exit_code == 1
    assert result.stderr.splitlines()[0] == ("ads has no test mode: the platform counts this event like any other.")
    assert "Give --live" in result.stderr
    assert platform.requests == []


def test_live_sends_one_sample_and_tells_the_answer_and_the_verdict_without_secrets(shop, platform):
    platform.answer = b'{"events_received": 1, "fbtrace_id": "Abc", "echo": "s3cret-token"}'

    result = shop.run("destinations", "test", "ads", "--live", "--yes")

    assert (result.exit_code, len(platform.requests)) == (0, 1)
    _, headers, body = platform.requests[0]
    assert headers["Authorization"] == "Bearer s3cret-token"
    assert body["data"][0]["event_name"] == "Purchase"
    assert "Authorization: Bearer MASKED" in result.stdout
    assert '"echo": "MASKED"' in result.stdout
    assert "delivered: fbtrace_id Abc" in result.stdout
    assert "s3cret" not in result.output


def test_nothing_that_counts_is_sent_without_a_yes(shop, platform):
    result = shop.run("destinations", "test", "ads", "--live", input="n\n")

    assert (result.exit_code, platform.requests) == (1, [])


def test_as_json_it_is_one_object(shop, platform):
    platform.answer = b'{"events_received": 1}'

    (said,) = shop.json("destinations", "test", "ads", "--live", "--yes")

    assert (said["ok"], said["outcome"], said["status"], said["counts"]) == (True, "delivered", 200, True)
    assert said["request"]["body"]["data"][0]["user_data"]["em"]


def test_a_long_answer_is_read_as_a_whole_and_shown_in_part(shop, platform):
    platform.answer = orjson.dumps({"pad": "x" * 40_000, "events_received": 1})

    (said,) = shop.json("destinations", "test", "ads", "--live", "--yes")

    assert (said["outcome"], len(said["answer"])) == ("delivered", destinations.SHOWN)


@pytest.mark.parametrize(
    ("status", "answer", "outcome"),
    [
        (400, b'{"error": {"code": 190, "message": "token s3cret-token"}}', "halt"),
        (400, b'{"error": {"code": 100}}', "rejected"),
        (503, b"", "retry"),
    ],
)
def test_an_answer_that_takes_nothing_is_told_and_the_command_fails(shop, platform, status, answer, outcome):
    platform.status, platform.answer = status, answer

    result = shop.run("destinations", "test", "ads", "--live", "--yes", "--json")

    said = orjson.loads(result.stdout)
    assert (result.exit_code, said["ok"], said["outcome"]) == (1, False, outcome)
    assert "s3cret" not in result.output


def test_a_platform_that_does_not_answer_is_told_without_its_address(shop):
    shop.configure("http://127.0.0.1:1")

    result = shop.run("destinations", "test", "stats", "--live", "--yes")

    assert result.exit_code == 1
    assert "no_answer: no connection: ClientConnectorError" in result.stdout
    assert "s3cret" not in result.output


def test_a_missing_secret_is_named(shop, monkeypatch):
    monkeypatch.delenv("ADS_TOKEN")

    result = shop.run("destinations", "test", "ads", "--live", "--yes")

    assert (result.exit_code, "ADS_TOKEN" in result.stderr) == (1, True)


def test_a_destination_that_has_no_name_for_a_purchase_is_told(shop):
    shop.path.write_text(shop.path.read_text().replace('"1234567890"', '"1234567890"\nevents = { purchase = false }'))

    result = shop.run("destinations", "test", "ads", "--live", "--yes")

    assert (result.exit_code, "filtered: event_off" in result.stderr) == (1, True)


@pytest.mark.parametrize("mode", ["off", "shadow"])
def test_a_destination_can_be_tried_before_it_goes_live(shop, platform, mode):
    platform.answer = b'{"events_received": 1}'
    shop.path.write_text(
        shop.path.read_text().replace(
            '"1234567890"', f'"1234567890"\nmode = "{mode}"\nshare = 0\nlive_until = 2000-01-01T00:00:00Z'
        )
    )

    assert shop.run("destinations", "test", "ads", "--live", "--yes").exit_code == 0


@each_sink
def test_the_request_is_shown_without_any_secret_being_set(kind):
    trial = destinations.trial(make_settings(kind), "it")

    text = destinations.for_people(destinations.as_json(trial.shown(NOW / 1000)))

    assert text.startswith(("POST http", "PUT http"))


@pytest.mark.parametrize(
    ("has_test_mode", "counts", "said"),
    [
        (True, False, "ads takes this event as a test, and does not count it."),
        (True, True, "ads shows this event as a test, and counts it like any other."),
        (False, True, "ads has no test mode: the platform counts this event like any other."),
    ],
)
def test_whether_the_platform_counts_the_event_is_said(has_test_mode, counts, said):
    trial = destinations.trial(make_settings("meta"), "it")

    assert replace(trial, name="ads", has_test_mode=has_test_mode, counts=counts).announcement() == said


# Events of the past


def put_merged(place, *events: Any, partition: int = 0, **said: Any) -> None:
    more = {"closed": "complete", "copies": [], "received": 2, "routes": {}} | said
    rows = [(keys.key(event), orjson.dumps({"v": 1, "event": event, **more}), 0) for event in events]
    place.write(f"{place.prefix}.conversions", rows, partition)


def sale(event_id: str, **more: Any) -> Any:
    return make_event(**{"event_id": event_id, "commerce": {"transaction_id": event_id}, "time": NOW, **more})


def given(place, name: str = "ads") -> list[Any]:
    return [orjson.loads(one.value) for one in place.read(f"{place.prefix}.to.{name}")]


def test_a_backfill_gives_the_merged_events_of_that_time_to_that_destination_alone(place):
    put_merged(place, sale("too-old", time=NOW - 1), sale("first"), partition=0)
    put_merged(place, sale("last", time=NOW + 999), sale("too-new", time=NOW + 1000), partition=1)
    place.write(f"{place.prefix}.conversions", [(b"stranger", b"nonsense", 0)])

    result = place.run("destinations", "backfill", "ads", "--since", AT, "--until", "2026-11-23T08:00:01Z")

    assert (result.exit_code, result.stdout.split(maxsplit=1)) == (0, ["2", "given to ads\n"])
    assert [(one["event"], one["basis"]) for one in given(place)] == [
        (sale("first"), ""),
        (sale("last", time=NOW + 999), ""),
    ]
    assert all(one["replay"] > NOW for one in given(place)), "what was skipped or shadowed before is judged anew"
    records = place.read(f"{place.prefix}.to.ads")
    assert [(one.partition, one.key) for one in records] == [
        (0, keys.key(sale("first"))),
        (1, keys.key(sale("last"))),
    ]
    assert given(place, "stats") == []


def test_only_events_of_the_named_name(place):
    put_merged(place, sale("o-1"), make_event(event_name="login", event_id="l-1", time=NOW))

    (said,) = place.json("destinations", "backfill", "ads", "--since", AT, "--event", "login")

    assert said == {"destination": "ads", "given": 1, "left_out": {}}
    assert [one["event"]["event_name"] for one in given(place)] == ["login"]


def test_a_dry_run_of_a_backfill_counts_and_gives_nothing(place):
    put_merged(place, sale("o-1"))

    result = place.run("destinations", "backfill", "ads", "--since", AT, "--dry-run")

    assert "1 would be given to ads" in result.stdout
    assert given(place) == []


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"consent": None}, "held_back: consent_absent"),
        ({"labels": ["bot"]}, "filtered: label_bot"),
        ({"labels": ["test"]}, "filtered: label_test"),
    ],
)
def test_what_may_not_go_there_is_left_out_and_counted_by_its_reason(place, more, why):
    put_merged(place, sale("o-1", **more))

    (said,) = place.json("destinations", "backfill", "ads", "--since", AT)

    assert said == {"destination": "ads", "given": 0, "left_out": {why: 1}}
    assert given(place) == []


@pytest.mark.parametrize(
    "said",
    [{"closed": "unconfirmed"}, {"routes": {"stats": {"state": "parked", "reason": "beyond_horizon"}}}],
)
def test_what_was_parked_stays_so(place, said):
    put_merged(place, sale("o-1"), **said)

    (told,) = place.json("destinations", "backfill", "ads", "--since", AT)

    assert told["left_out"] == {"parked": 1}


def test_each_conversion_is_given_once_as_it_was_told_last(place):
    put_merged(place, sale("o-1"), closed="unconfirmed")
    put_merged(place, sale("o-1", commerce={"transaction_id": "o-1", "value": 7.0}))

    asyncio.run(destinations.backfill(place.config, "ads", Past(NOW)))

    assert [one["event"]["commerce"]["value"] for one in given(place)] == [7.0]


def test_a_platform_that_cannot_restate_an_event_gets_no_revision(place):
    put_merged(place, sale("o-1", revision=2))

    asyncio.run(destinations.backfill(place.config, "ads", Past(NOW)))

    assert "revision" not in given(place)[0]["event"]
