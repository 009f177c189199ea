"""app/mistakes.py: what is wrong with a setting ends with what to do about it. Each mistake's own words: test_settings.py."""

import pytest

from app.errors import SettingsError
from app.settings import parse

SITE = '[sites.shop]\nwrite_key = "wk_12345678"\nsecret_key = { env = "X" }\n'
SOURCE = SITE + '[sources.orders]\ntopic = "orders"\nsite = "shop"\n'
META = '[destinations.ads]\nsink = "meta"\naccess_token = { env = "X" }\nbrowser_tag = "none"\n'
BEARER = '[kafka.tls]\n[kafka.sasl]\nmechanism = "OAUTHBEARER"\n[kafka.sasl.token]\nprovider = "oauth"\n'


def said(text: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        parse(text, "c.toml")
    return [line.removeprefix("c.toml: ") for line in caught.value.mistakes]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[source.a]\n", "source: unknown setting; is sources meant?"),
        (SOURCE + 'timezone = "UTC"', "sources.orders.timezone: unknown setting; is time_zone meant?"),
        (META + 'dataset_id = "12345"\nshared = 1', "destinations.ads.shared: unknown setting; is share meant?"),
        ("[events.x]\nmergewindow = 1", "events.x.mergewindow: unknown setting; is merge_window meant?"),
        ("[kafka]\nxyz = 1", "kafka.xyz: unknown setting; docs/settings.md has those that there are"),
    ],
)
def test_a_setting_that_there_is_not_leads_to_the_one_that_is_meant(text, line):
    assert said(text) == [line]


@pytest.mark.parametrize(
    ("text", "begins", "ends"),
    [
        (META, "destinations.ads.dataset_id: missing", ". Id of the dataset; the id of a pixel is one."),
        (SOURCE + 'encoding = "avro"', "sources.orders.encoding: Input should be 'json' or", "or JSON Schema."),
        ("[kafka]\npartitions = 0", "kafka.partitions: Input should be", ": the most workers that can share the work."),
        (SITE + 'categories = { c = ["x"] }', "sites.shop.categories.c.0: Input", "to the signals that they grant or deny: "),
        (BEARER, "kafka.sasl.token.url: missing", ". Address of the token endpoint."),
    ],
)  # fmt: skip
def test_what_pydantic_finds_is_told_with_what_the_setting_is_for(text, begins, ends):
    line = said(text)[0]

    assert line.startswith(begins)
    assert ends in line


def test_what_is_none_of_several_kinds_is_told_once():
    line, *more = said(META.replace('"none"', "5") + 'dataset_id = "12345"')

    assert line.count("Does the platform's own tag also report this event") == 1
    assert "'none' or 'same_id' or Input should be a valid dictionary." in line
    assert more == []


def test_what_we_found_ourselves_says_what_to_do_already():
    assert said(SOURCE + 'time_zone = "Mars"') == [
        "sources.orders.time_zone: no time zone is called so; an IANA name is, for example, Europe/Berlin"
    ]


def test_a_name_is_told_in_words():
    assert said('[destinations."Meta EU"]\nsink = "x"')[0].startswith("destinations.Meta EU")
    (line,) = said(SITE.replace("sites.shop", 'sites."My Shop"'))
    assert line.endswith(": small letters, digits, - and _, at most 40")


@pytest.mark.parametrize("brokers", ["", "kafka://a:9092", "a:9092 b:9092", "a:9092,", "a:x", "a:9092/b"])
def test_addresses_of_brokers_that_are_none_are_told(brokers):
    (line, *_) = said(f'[kafka]\nbrokers = "{brokers}"')

    assert line.startswith("kafka.brokers: ")
    assert line.endswith("is no address: write host:port, and commas between several")


@pytest.mark.parametrize("brokers", ["a", "a:9092", "a:9092, b.example:1", "127.0.0.1:9092", "[::1]:9092"])
def test_addresses_of_brokers(brokers):
    parse(f'[kafka]\nbrokers = "{brokers}"')


def test_an_address_that_the_environment_gives_is_told_as_such(monkeypatch):
    monkeypatch.setenv("CAPISTREAM_BROKER", "http://a")

    assert said("")[0].startswith("kafka.brokers: 'http://a' (so says CAPISTREAM_BROKER) is no address")
