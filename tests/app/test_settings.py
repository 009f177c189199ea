"""app/settings.py: every mistake in the file is named with its place, and no secret with it."""

import importlib
import json
import string
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from app import settings
from app.demo import run as demo
from app.errors import SettingsError
from app.fields import Secret
from app.settings import DEFAULT_RULES, EventRule, Settings, load, parse, secrets_missing
from sinks import BUILT_IN, SINKS

ROOT = Path(__file__).parent.parent.parent
SITE = """
[sites.shop]
write_key = "wk_12345678"
secret_key = { env = "SHOP_KEY" }
"""
META = """
[destinations.ads]
sink = "meta"
dataset_id = "1234567890"
access_token = { env = "META_TOKEN" }
browser_tag = "none"
"""
GA4 = """
[destinations.stats]
sink = "ga4"
measurement_id = "G-ABC123XYZ"
api_secret = { file = "/run/secrets/ga4" }
browser_tag = { purchase = "same_id", default = "none" }
"""


def least(kind: str) -> str:
    """A destination with the settings of the sink's own test file."""
    found = {**importlib.import_module(f"tests.sinks.test_{kind}").SETTINGS, "browser_tag": "none"}
    return f"[destinations.{kind}]\n" + "".join(f"{name} = {toml(value)}\n" for name, value in found.items())


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {toml(one)}" for name, one in value.items()) + " }"
    return json.dumps(value)  # of texts, numbers, booleans and lists of them TOML's is the same


DESTINATIONS = {kind: least(kind) for kind in BUILT_IN} | {"meta": META, "ga4": GA4}
ONE_OF = f"one of {', '.join(sorted(SINKS))}"
SOURCE = """
[sources.orders]
topic = "shop.orders"
site = "shop"
"""
FULL = SITE + SOURCE + META + GA4
SAMPLES = {
    "full": FULL,
    "empty": "",
    "documented": (ROOT / "docs" / "capistream.toml").read_text(),
    "demo": string.Template(Path(demo.__file__).with_name("demo.toml").read_text()).substitute(
        brokers="127.0.0.1:9092",
        replication=1,
        prefix="capistream",
        topic="shop.orders",
        write_key="wk_0123456789abcdef",
        sandbox="http://127.0.0.1:8090",
        collector_port=8080,
        view_port=6066,
        data_dir="/tmp/state",
    ),
}


def mistakes(text: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        parse(text)
    assert str(caught.value) == "\n".join(caught.value.mistakes)
    return [line.removeprefix("capistream.toml: ") for line in caught.value.mistakes]


def changed(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


# what is right


@pytest.mark.parametrize("text", SAMPLES.values(), ids=SAMPLES)
def test_a_sample_is_right(text):
    parse(text)


def test_defaults():
    config = parse("")

    assert config.kafka.brokers == "127.0.0.1:9092"
    assert (config.kafka.prefix, config.kafka.partitions, config.kafka.replication) == ("capistream", 12, 3)
    assert config.kafka.session_timeout == 10
    assert (config.collector.host, config.view.host) == ("127.0.0.1", "127.0.0.1")
    assert config.worker.max_lag_wait == 300
    assert (config.sites, config.sources, config.destinations) == ({}, {}, {})


def test_a_destination_has_the_settings_of_its_sink_and_the_common_ones():
    config = parse(FULL)

    ads, stats = config.destinations["ads"], config.destinations["stats"]
    assert isinstance(ads, SINKS["meta"].Settings)
    assert isinstance(stats, SINKS["ga4"].Settings)
    assert (ads.mode, ads.concurrency, ads.endpoint) == ("live", 8, "https://graph.facebook.com")
    assert (ads.consent.needs, ads.consent.absent) == (None, "require")


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ('"500ms"', 0.5),
        ('"10s"', 10),
        ('" 1.5 s "', 1.5),
        ('"2m"', 120),
        ('"2min"', 120),
        ('"1h"', 3600),
        ("7", 7),
        ("0", 0),
        ("0.25", 0.25),
    ],
)
def test_a_duration_is_a_number_of_seconds_or_a_text_with_its_unit(written, seconds):
    assert parse(f"[events.x]\nmerge_window = {written}").rule("x").merge_window == seconds


def test_a_duration_may_be_in_days():
    assert parse('[events.x]\nhorizon = "30d"').rule("x").horizon == 30 * 86_400


@pytest.mark.parametrize(
    ("given", "kept"), [("https://a.example/", "https://a.example"), ("http://x:1/m", "http://x:1/m")]
)
def test_the_address_of_a_platform_has_no_slash_at_its_end(given, kept):
    assert parse(f'{META}endpoint = "{given}"').destinations["ads"].endpoint == kept


# mistakes


@pytest.mark.parametrize(
    ("text", "place", "what"),
    [
        # unknown
        ("colector = 1", "colector", "unknown setting"),
        ("[kafka]\nbroker = 'x'", "kafka.broker", "unknown setting"),
        (SITE + "kontry = 'DE'", "sites.shop.kontry", "unknown setting"),
        (META + "pixel_id = '1'", "destinations.ads.pixel_id", "unknown setting"),
        (META + "consent = { need = [] }", "destinations.ads.consent.need", "unknown setting"),
        ("[events.purchase]\nwindow = 1", "events.purchase.window", "unknown setting"),
        # missing
        ("[sites.shop]\nwrite_key = 'wk_12345678'", "sites.shop.secret_key", "missing"),
        (SITE + "[sources.a]\ntopic = 't'", "sources.a.site", "missing"),
        (changed(META, 'dataset_id = "1234567890"', ""), "destinations.ads.dataset_id", "missing"),
        (changed(META, 'browser_tag = "none"', ""), "destinations.ads.browser_tag", "missing: say none, or same_id"),
        (changed(META, 'sink = "meta"', ""), "destinations.ads.sink", ONE_OF),
        # of the wrong type
        ("kafka = 1", "kafka", "must be a table"),
        ("destinations = 1", "destinations", "valid dictionary"),
        ("[destinations]\nads = 'x'", "destinations.ads.sink", ONE_OF),
        ("[events]\npurchase = 5", "events.purchase", "must be a table"),
        ("[kafka]\nbrokers = 1", "kafka.brokers", "valid string"),
        ("[kafka]\npartitions = 'many'", "kafka.partitions", "valid integer"),
        ("[kafka]\npartitions = 1.5", "kafka.partitions", "valid integer"),
        ("[collector]\norigins = 'x'", "collector.origins", "valid list"),
        (META + "concurrency = []", "destinations.ads.concurrency", "valid integer"),
        # out of range
        ("[kafka]\npartitions = 0", "kafka.partitions", "greater than or equal to 1"),
        ("[kafka]\nprefix = 'a b'", "kafka.prefix", "pattern"),
        ("[kafka]\nsession_timeout = '5s'", "kafka.session_timeout", "between 6 and 1800 seconds"),
        ("[collector]\nport = 65536", "collector.port", "less than or equal to 65535"),
        ("[view]\nport = -1", "view.port", "greater than or equal to 0"),
        (META + "concurrency = 0", "destinations.ads.concurrency", "greater than or equal to 1"),
        ("[sites.shop]\nwrite_key = 'short'\nsecret_key = { env = 'X' }", "sites.shop.write_key", "at least 8"),
        (SITE + "country = 'de'", "sites.shop.country", "pattern"),
        (changed(META, "1234567890", "12x"), "destinations.ads.dataset_id", "pattern"),
        # of a few
        (META + "mode = 'dry'", "destinations.ads.mode", "'off', 'shadow' or 'live'"),
        (changed(META, '"none"', '"sameid"'), "destinations.ads.browser_tag", "'none' or 'same_id'"),
        (changed(META, '"none"', "true"), "destinations.ads.browser_tag", "'none' or 'same_id'"),
        (changed(META, '"meta"', '"tiktak"'), "destinations.ads.sink", ONE_OF),
        (changed(META, '"meta"', "3"), "destinations.ads.sink", ONE_OF),
        (changed(META, '"meta"', '["meta"]'), "destinations.ads.sink", ONE_OF),
        (
            META + "events = { purchase = true }",
            "destinations.ads.events.purchase",
            "a name, a list of names, or false",
        ),
        (
            META + "events = { purchase = [''] }",
            "destinations.ads.events.purchase",
            "a name, a list of names, or false",
        ),
        (META + "map = { 'a.b' = 'x[[' }", "destinations.ads.map.a.b", "not a JMESPath expression"),
        (META + "value = 'nett'", "destinations.ads.value", "gross, net, items, or an expression"),
        (META + "live_from = 2026-01-01T00:00:00", "destinations.ads.live_from", "timezone"),
        (
            META + "live_from = 2026-01-02T00:00:00Z\nlive_until = 2026-01-02T00:00:00Z",
            "destinations.ads",
            "live_until must be later than live_from",
        ),
        (META + "consent = { absent = 'maybe' }", "destinations.ads.consent.absent", "'require' or 'assume'"),
        (META + "consent = { needs = ['ads'] }", "destinations.ads.consent.needs.0", "'ad_storage'"),
        ("[events.purchase]\nexpect = ['pixl']", "events.purchase.expect.0", "'pixel', 'server'"),
        (SITE + SOURCE + "format = 'xml'", "sources.orders.format", "'capistream'"),
        (SITE + SOURCE + "start = 'first'", "sources.orders.start", "'latest' or 'earliest'"),
        (SITE + SOURCE + "start = '2026-01-01'", "sources.orders.start", "a time with zone"),
        (SITE + SOURCE + "start = 2026-01-01T00:00:00", "sources.orders.start", "a time with zone"),
        (SITE + SOURCE + "start = 5", "sources.orders.start", "a time with zone"),
        (SITE + SOURCE + "filter = 'a ==='", "sources.orders.filter", "not a JMESPath expression"),
        (SITE + SOURCE + "map = { 'event_id' = 'x[[' }", "sources.orders.map.event_id", "not a JMESPath expression"),
        (SITE + SOURCE + "map = { 'user.mail' = 'x' }", "sources.orders.map.user.mail", "user has email"),
        (
            SITE + SOURCE + "map = { 'commerce.items[].item_id' = 'x' }",
            "sources.orders.map",
            '"commerce.items[]" is missing',
        ),
        (SITE + SOURCE + "encoding = 'registry'", "sources.orders.encoding", "needs a part [registry]"),
        ("[registry]\nurl = 'registry:8081'", "registry.url", "pattern"),
        ("[registry]\nurl = 'https://me:secret@registry'", "registry.url", "pattern"),
        (SITE + SOURCE + "format = 'map'\nmap = { event_id = 'id' }", "sources.orders.map", "event_name is missing"),
        # names
        (changed(SITE, "sites.shop", 'sites."My Shop"'), "sites.My Shop", "pattern"),
        (changed(META, "destinations.ads", 'destinations."a.b"'), "destinations.a.b", "pattern"),
        # addresses, topics, zones
        (META + "endpoint = 'graph.facebook.com'", "destinations.ads.endpoint", "begins with https://"),
        (META + "endpoint = 'https://'", "destinations.ads.endpoint", "begins with https://"),
        ("[collector]\ntrusted_proxies = ['10.0.0.0/8', 'x']", "collector.trusted_proxies.1", "IPv4 or IPv6"),
        ("[collector]\ntrusted_proxies = ['10.0.0.1/8']", "collector.trusted_proxies.0", "host bits"),
        (SITE + changed(SOURCE, "shop.orders", ""), "sources.orders.topic", "pattern"),
        (SITE + changed(SOURCE, "shop.orders", "my orders"), "sources.orders.topic", "pattern"),
        (SITE + SOURCE + "time_zone = 'Mars/Olympus'", "sources.orders.time_zone", "no time zone is called so"),
        (SITE + SOURCE + "time_zone = ''", "sources.orders.time_zone", "no time zone is called so"),
        (SITE + SOURCE + "time_zone = '../../etc/passwd'", "sources.orders.time_zone", "no time zone is called so"),
        (SITE + SOURCE + "time_zone = 'Europe'", "sources.orders.time_zone", "no time zone is called so"),
        # durations
        ("[events.x]\nmerge_window = '10'", "events.x.merge_window", "for example 10s"),
        ("[events.x]\nmerge_window = '10 parsecs'", "events.x.merge_window", "for example 10s"),
        ("[events.x]\nmerge_window = '-5s'", "events.x.merge_window", "for example 10s"),
        ("[events.x]\nmerge_window = '٣s'", "events.x.merge_window", "for example 10s"),
        ("[events.x]\nmerge_window = true", "events.x.merge_window", "for example 10s"),
        ("[events.x]\nmerge_window = []", "events.x.merge_window", "valid number"),
        ("[events.x]\nmerge_window = -1", "events.x.merge_window", "greater than or equal to 0"),
        ("[events.x]\nmerge_window = '2h'", "events.x.merge_window", "between 0 and 3600 seconds"),
        ("[events.x]\nhorizon = inf", "events.x.horizon", "finite"),
        ("[events.x]\nhorizon = nan", "events.x.horizon", "finite"),
        ("[events.x]\nhorizon = '5s'", "events.x", "horizon must not be shorter than merge_window"),
        ("[events.purchase]\nhorizon = '5s'", "events.purchase", "horizon must not be shorter than merge_window"),
        ("[worker]\nmax_lag_wait = inf", "worker.max_lag_wait", "finite"),
        # one thing and another
        (SITE + changed(SOURCE, '"shop"', '"shp"'), "sources.orders.site", "no site is called so; sites are shop"),
        (SOURCE, "sources.orders.site", "no site is called so; sites are none"),
        (SITE + SOURCE + changed(SOURCE, "orders]", "again]"), "sources.again.topic", "already read by sources.orders"),
        (SITE + changed(SOURCE, "shop.orders", "capistream.events"), "sources.orders.topic", "our own"),
        (SITE + changed(SOURCE, "shop.orders", "capistream.to.ads"), "sources.orders.topic", "our own"),
        (SITE + changed(SOURCE, "shop.orders", "capistream-seen-changelog"), "sources.orders.topic", "our own"),
        (
            SITE + changed(SOURCE, "shop.orders", "a+b.events").replace("a+b", "a.b") + "[kafka]\nprefix = 'a.b'",
            "sources.orders.topic",
            "our own",
        ),
        (SITE + changed(SITE, "sites.shop", "sites.b"), "sites.b.write_key", "the same as of sites.shop"),
    ],
)
def test_a_mistake_is_named_with_its_place(text, place, what):
    (line,) = mistakes(text)

    assert line.startswith(f"{place}: "), line
    assert what in line


def test_a_mistake_about_one_event_name_is_named_with_it():
    lines = mistakes(changed(META, '"none"', '{ purchase = "no", default = "none" }'))

    assert any(
        one.startswith("destinations.ads.browser_tag.purchase: Input should be 'none' or 'same_id'") for one in lines
    )


@pytest.mark.parametrize("topic", ["capistream", "capistream-orders", "xcapistream.events", "orders.capistream.events"])
def test_topics_that_only_look_like_ours_may_be_read(topic):
    parse(SITE + changed(SOURCE, "shop.orders", topic))
    parse(SITE + changed(SOURCE, "shop.orders", "axb.events") + "[kafka]\nprefix = 'a.b'")


@pytest.mark.parametrize(
    ("start", "since"),
    [
        ("'latest'", None),
        ("'earliest'", None),
        ("'2026-01-01T00:00:00Z'", 1_767_225_600_000),
        ("'2026-01-01T01:00:00+01:00'", 1_767_225_600_000),
        ("2026-01-01T00:00:00.5Z", 1_767_225_600_500),  # TOML's own
    ],
)
def test_a_source_starts_at_its_end_its_beginning_or_a_time(start, since):
    assert parse(SITE + SOURCE + f"start = {start}").sources["orders"].start_time == since


def test_a_source_with_a_registry_needs_packages_that_not_everybody_has(monkeypatch):
    text = SITE + SOURCE + "encoding = 'registry'\n[registry]\nurl = 'http://127.0.0.1:8081'"
    parse(text)
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "fastavro", raising=False)

    (line,) = mistakes(text)

    assert line.startswith("sources.orders.encoding: needs `pip install 'capistream[registry]'`; not found: fastavro")


def test_the_registrys_password_is_a_secret_like_all():
    config = parse("[registry]\nurl = 'http://r'\nuser = 'me'\npassword = { env = 'NOBODY_SETS_THIS' }")

    assert secrets_missing(config) == ["registry.password: environment variable NOBODY_SETS_THIS is not set or empty"]


SCRAM = '[kafka.sasl]\nmechanism = "SCRAM-SHA-512"\nuser = "me"\npassword = { env = "NOBODY_SETS_THIS" }\n'
OAUTH = """
[kafka.tls]
[kafka.sasl]
mechanism = "OAUTHBEARER"
[kafka.sasl.token]
provider = "oauth"
url = "https://login.example/token"
client_id = "capistream"
client_secret = { env = "NOBODY_SETS_THIS" }
"""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (changed(SCRAM, 'user = "me"', ""), "kafka.sasl.user: missing: SCRAM-SHA-512 needs it"),
        (changed(SCRAM, "password =", "#"), "kafka.sasl.password: missing: SCRAM-SHA-512 needs it"),
        (changed(SCRAM, '"SCRAM-SHA-512"', '"GSSAPI"'), "kafka.sasl.mechanism: Input should be 'PLAIN', "),
        (
            changed(SCRAM, '{ env = "NOBODY_SETS_THIS" }', '"in clear"'),
            "kafka.sasl.password: a secret is never in this file",
        ),
        (changed(OAUTH, 'client_id = "capistream"', ""), "kafka.sasl.token.client_id: missing"),
        (changed(OAUTH, '"oauth"', '"vault"'), "kafka.sasl.token.provider: one of msk_iam, oauth"),
        (changed(OAUTH, "[kafka.sasl]", '[kafka.sasl]\nuser = "me"'), "kafka.sasl.user: not for OAUTHBEARER"),
        ('[kafka.sasl]\nmechanism = "OAUTHBEARER"', "kafka.sasl.token: missing: OAUTHBEARER needs it"),
        (
            changed(SCRAM, "SCRAM-SHA-512", "PLAIN").replace(
                "[kafka.sasl]", '[kafka]\nbrokers = "kafka:9092"\n[kafka.sasl]'
            ),
            "kafka.sasl.mechanism: PLAIN without [kafka.tls] would show everybody on the way our secret",
        ),
        ('[kafka.tls]\nkey = "/key"', "kafka.tls.certificate: missing: tls.key is of no use without it"),
        (
            '[kafka.tls]\nkey_password = { env = "A" }',
            "kafka.tls.certificate: missing: tls.key_password is of no use without it",
        ),
    ],
)
def test_a_contradiction_in_how_to_reach_kafka_is_named(text, line):
    (said,) = mistakes(text)

    assert said.startswith(line)


@pytest.mark.parametrize(("text", "place"), [(SCRAM, "kafka.sasl.password"), (OAUTH, "kafka.sasl.token.client_secret")])
def test_what_lets_us_in_is_a_secret_like_all(text, place):
    assert secrets_missing(parse(text)) == [f"{place}: environment variable NOBODY_SETS_THIS is not set or empty"]


def test_a_password_may_go_to_this_machine_without_tls(schema):
    text = changed(SCRAM, "SCRAM-SHA-512", "PLAIN")
    for brokers in ("127.0.0.1:9092,[::1]:9093", "localhost"):
        parse(f'[kafka]\nbrokers = "{brokers}"\n{text}')
    schema.validate(tomllib.loads(OAUTH))
    assert not schema.is_valid(tomllib.loads(changed(OAUTH, "client_id", "klient_id")))


def test_a_destination_that_is_off_need_not_say_who_else_sends():
    parse(changed(META, 'browser_tag = "none"', 'mode = "off"'))


def test_all_mistakes_are_reported_at_once():
    text = """
    nonsense = 1
    [kafka]
    partitions = 0
    [sites.shop]
    write_key = "short"
    secret_key = "sk_in_clear"
    [events.purchase]
    merge_window = "soon"
    [destinations.ads]
    sink = "meta"
    dataset_id = "x"
    browser_tag = "maybe"
    [destinations.other]
    sink = "none_such"
    """

    assert [line.split(": ")[0] for line in mistakes(text)] == [
        "kafka.partitions",
        "sites.shop.write_key",
        "sites.shop.secret_key",
        "events.purchase.merge_window",
        "destinations.ads.browser_tag",
        "destinations.ads.dataset_id",
        "destinations.ads.access_token",
        "destinations.other.sink",
        "nonsense",
    ]


def test_all_that_does_not_fit_together_is_reported_at_once():
    text = changed(META, 'browser_tag = "none"', "") + SOURCE + SITE + changed(SITE, "sites.shop", "sites.b")
    text += '[sources.b]\ntopic = "capistream.events"\nsite = "c"\n'

    assert [line.split(": ")[0] for line in mistakes(text)] == [
        "destinations.ads.browser_tag",
        "sources.b.site",
        "sources.b.topic",
        "sites.b.write_key",
    ]


def test_a_file_that_is_no_toml_is_named_with_the_line():
    (line,) = mistakes("[kafka]\nbrokers = = 1")

    assert "not TOML" in line
    assert "line 2" in line


# secrets


@pytest.mark.parametrize(
    "written",
    [
        '"EAABsecret"',
        "'''EAABsecret'''",
        '["EAABsecret"]',
        '{ value = "EAABsecret" }',
        '{ env = "A", file = "EAABsecret" }',
        '{ env = ["EAABsecret"] }',
        '{ secret = { EAABsecret = "EAABsecret" } }',
        "EAABsecret",
        "7",
    ],
)
def test_a_secret_in_clear_is_refused_and_not_repeated(written):
    for text, old in ((SITE, '{ env = "SHOP_KEY" }'), (META, '{ env = "META_TOKEN" }')):
        lines = mistakes(changed(text, old, written))

        assert lines
        assert "EAAB" not in "\n".join(lines)


@pytest.mark.parametrize("written", ['"EAAB"', "5", "true", '["x"]'])
def test_where_a_secret_is_wanted_the_message_says_how_to_write_it(written):
    (line,) = mistakes(changed(META, '{ env = "META_TOKEN" }', written))

    assert line == (
        'destinations.ads.access_token: a secret is never in this file: write { env = "NAME" } or { file = "/path" }'
    )


@pytest.mark.parametrize("written", ["{}", '{ env = "A", file = "/b" }'])
def test_a_secret_has_exactly_one_place(written):
    (line,) = mistakes(changed(META, '{ env = "META_TOKEN" }', written))

    assert line == "destinations.ads.access_token: give either env or file"


def test_a_secret_is_read_from_the_environment_without_white_space_around(monkeypatch):
    monkeypatch.setenv("TOKEN", " abc\n")

    assert Secret(env="TOKEN").read() == "abc"


@pytest.mark.parametrize("value", [None, "", " \n"])
def test_an_environment_variable_without_content_is_missing(monkeypatch, value):
    monkeypatch.delenv("TOKEN", raising=False)
    if value is not None:
        monkeypatch.setenv("TOKEN", value)

    with pytest.raises(SettingsError, match="environment variable TOKEN is not set or empty"):
        Secret(env="TOKEN").read()


def test_a_secret_file_is_read_again_each_time(tmp_path):
    path = tmp_path / "token"
    secret = Secret(file=path)
    path.write_text("first\n")
    first = secret.read()
    path.write_text("  second ")

    assert (first, secret.read()) == ("first", "second")


@pytest.mark.parametrize(
    ("content", "what"),
    [(None, "No such file"), (b"", "is empty"), (b" \n", "is empty"), (b"\xff\xfe\x00secret", "is not text in UTF-8")],
)
def test_a_secret_file_without_a_secret_is_named_and_its_content_is_not(tmp_path, content, what):
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(SettingsError) as caught:
        Secret(file=path).read()

    assert str(caught.value).startswith(f"secret file {path}")
    assert what in str(caught.value)
    assert caught.value.__cause__ is None or isinstance(caught.value.__cause__, OSError)


def test_missing_secrets_are_named_with_their_places(monkeypatch):
    monkeypatch.delenv("SHOP_KEY", raising=False)
    monkeypatch.setenv("META_TOKEN", "abc")

    assert secrets_missing(parse(FULL)) == [
        "sites.shop.secret_key: environment variable SHOP_KEY is not set or empty",
        "destinations.stats.api_secret: secret file /run/secrets/ga4: No such file or directory",
    ]


def test_nothing_printed_of_the_settings_holds_a_secret(monkeypatch):
    monkeypatch.setenv("META_TOKEN", "the-very-secret")
    config = parse(META)
    assert secrets_missing(config) == []

    assert "the-very-secret" not in repr(config) + config.model_dump_json() + config.hash


# rules of event names


def test_names_have_the_rules_of_the_file_on_top_of_the_defaults():
    config = parse('[events.purchase]\nmerge_window = "3s"\n[events.sign_up]\nexpect = []\n')

    assert config.rule("purchase") == EventRule(expect=["pixel", "server"], merge_window=3, horizon=30 * 86_400)
    assert config.rule("sign_up") == EventRule()
    assert config.rule("generate_lead") == DEFAULT_RULES["generate_lead"]


def test_names_without_a_rule_are_sent_at_once():
    assert parse("").rule("page_view") == EventRule(expect=[], horizon=48 * 3_600)


def test_the_default_rule_is_for_names_that_have_none_and_only_these():
    config = parse('[events.default]\nexpect = ["server"]\nmerge_window = "1m"\n')

    assert config.rule("my_event") == EventRule(expect=["server"], merge_window=60)
    assert config.rule("purchase") == DEFAULT_RULES["purchase"]


# names at the platform


@pytest.mark.parametrize(
    ("event_name", "events", "custom_events", "expected"),
    [
        ("purchase", "{}", "false", ["Purchase"]),
        ("purchase", "{ purchase = 'Order' }", "false", ["Order"]),
        ("purchase", "{ purchase = false }", "true", []),
        ("my_event", "{}", "false", []),
        ("my_event", "{}", "true", ["my_event"]),
        ("my_event", "{ my_event = 'Lead' }", "false", ["Lead"]),
        ("purchase", "{ purchase = ['Order', 'VIP', 'Order'] }", "false", ["Order", "VIP"]),
    ],
)
def test_the_platforms_name_of_an_event(event_name, events, custom_events, expected):
    destination = parse(f"{META}events = {events}\ncustom_events = {custom_events}").destinations["ads"]

    assert destination.platform_names({"purchase": "Purchase"}, event_name) == expected


@pytest.mark.parametrize(
    ("browser_tag", "purchase", "other"),
    [
        ('"none"', "none", "none"),
        ('"same_id"', "same_id", "same_id"),
        ('{ purchase = "same_id" }', "same_id", "none"),
        ('{ purchase = "none", default = "same_id" }', "none", "same_id"),
    ],
)
def test_the_browsers_own_tag_is_told_for_all_events_or_by_name(browser_tag, purchase, other):
    destination = parse(changed(META, '"none"', browser_tag)).destinations["ads"]

    assert (destination.tag_for("purchase"), destination.tag_for("page_view")) == (purchase, other)


# the environment, the file


def test_the_environment_names_the_brokers(monkeypatch):
    config = parse("[kafka]\nbrokers = 'a:1'")
    before = config.brokers

    monkeypatch.setenv("CAPISTREAM_BROKER", "b:2")

    assert (before, config.brokers) == ("a:1", "b:2")


def test_an_empty_variable_names_no_brokers(monkeypatch):
    monkeypatch.setenv("CAPISTREAM_BROKER", "")

    assert parse("").brokers == "127.0.0.1:9092"


def test_a_file_is_loaded_by_path_by_variable_or_from_here(tmp_path, monkeypatch):
    for name in ("given", "named", "capistream"):
        (tmp_path / f"{name}.toml").write_text(f"[kafka]\nprefix = '{name}'")
    monkeypatch.chdir(tmp_path)

    def prefixes(variable: str) -> tuple[str, str]:
        monkeypatch.setenv("CAPISTREAM_CONFIG", variable)
        return load(tmp_path / "given.toml").kafka.prefix, load().kafka.prefix

    assert prefixes(str(tmp_path / "named.toml")) == ("given", "named")
    assert prefixes("") == ("given", "capistream")


def test_mistakes_name_the_file(tmp_path):
    path = tmp_path / "my.toml"
    path.write_text("x = 1")

    with pytest.raises(SettingsError) as caught:
        load(path)

    assert caught.value.mistakes == [f"{path}: x: unknown setting; docs/settings.md has those that there are"]


@pytest.mark.parametrize(
    ("content", "what"), [(None, "No such file"), (b"[kafka]\nprefix = '\xff'", "not text in UTF-8")]
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, content, what):
    path = tmp_path / "my.toml"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(SettingsError) as caught:
        load(path)

    (line,) = caught.value.mistakes
    assert line.startswith(f"{path}: ")
    assert what in line


# the hash


def test_the_hash_is_of_what_the_file_says_and_not_of_how():
    one = parse(SITE + META + GA4 + '[events.x]\nmerge_window = "1m"')
    two = parse("# a comment\n[events.x]\nmerge_window = 60\n" + GA4 + META + SITE)

    assert one.hash == two.hash
    assert len(one.hash) == 12


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("1234567890", "1234567891"),
        ("META_TOKEN", "OTHER_TOKEN"),
        ('browser_tag = "none"', 'browser_tag = "same_id"'),
        ('sink = "meta"', 'sink = "meta"\nlimited_data_use = true'),
        ('sink = "meta"', 'sink = "meta"\nconsent = { absent = "assume" }'),
        ("[sites.shop]", "[events.purchase]\nmerge_window = 9\n[sites.shop]"),
    ],
)
def test_another_content_has_another_hash(old, new):
    text = SITE + META

    assert parse(changed(text, old, new)).hash != parse(text).hash


def test_the_hash_does_not_depend_on_the_secrets(monkeypatch):
    hashes = set()
    for value in ("one", "two"):
        monkeypatch.setenv("META_TOKEN", value)
        hashes.add(parse(META).hash)

    assert len(hashes) == 1


# the JSON schema


@pytest.fixture(scope="module")
def schema():
    found = settings.json_schema()
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


@pytest.mark.parametrize("text", [*SAMPLES.values(), *DESTINATIONS.values()], ids=[*SAMPLES, *DESTINATIONS])
def test_the_schema_takes_what_is_right(schema, text):
    schema.validate(tomllib.loads(text))


@pytest.mark.parametrize(
    "text",
    [
        "colector = 1",
        "[kafka]\nbroker = 'x'",
        "[events.purchase]\nwindow = 1",
        "[events.purchase]\nmerge_window = 'soon'",
        "[events.purchase]\nmerge_window = -1",
        "[kafka]\nsession_timeout = true",
        changed(SITE, "sites.shop", 'sites."My Shop"'),
        SITE + "kontry = 'DE'",
        changed(SITE, '{ env = "SHOP_KEY" }', '"sk_in_clear"'),
        changed(SITE, '{ env = "SHOP_KEY" }', "{}"),
        changed(SITE, '{ env = "SHOP_KEY" }', '{ env = "A", file = "/b" }'),
        META + "pixel_id = '1'",
        META + "measurement_id = 'G-ABC123XYZ'",
        GA4 + "dataset_id = '1234567890'",
        META + "mode = 'dry'",
        META + "consent = { need = [] }",
        changed(META, 'sink = "meta"', 'sink = "tiktak"'),
        changed(META, 'sink = "meta"', 'sink = "ga4"'),
        changed(META, 'sink = "meta"', ""),
        changed(META, "destinations.ads", 'destinations."a b"'),
        "[collector]\nport = 65536",
        SITE + SOURCE + "format = 'xml'",
    ],
)
def test_the_schema_refuses_what_is_wrong(schema, text):
    assert not schema.is_valid(tomllib.loads(text))
    with pytest.raises(SettingsError):
        parse(text)


def test_the_schema_explains_every_setting(schema):
    def explained(part: Any, place: str = "") -> list[str]:
        found = []
        for name, one in part.get("properties", {}).items():
            if "description" not in one and "$ref" not in one:
                found.append(f"{place}.{name}")
        return found

    parts = schema.schema["$defs"].items()
    assert [place for name, part in parts for place in explained(part, name)] == []


def test_the_schema_has_every_setting_of_every_part(schema):
    for kind, sink in SINKS.items():
        assert set(schema.schema["$defs"][f"destination_{kind}"]["properties"]) == set(sink.Settings.model_fields)
    assert set(schema.schema["properties"]) == set(Settings.model_fields)


# privacy


def test_a_key_before_that_cannot_be_read_is_named_with_its_place():
    config = parse('[privacy]\nkey = { env = "KEY" }\nprevious_keys = [{ env = "OLD" }]\n')

    assert secrets_missing(config) == [
        "privacy.key: environment variable KEY is not set or empty",
        "privacy.previous_keys.0: environment variable OLD is not set or empty",
    ]


def test_the_key_of_fingerprints_decides_nothing_about_events():
    assert parse('[privacy]\nkey = { env = "KEY" }\n').hash == parse("").hash
