"""Reading in Kafka what a journey is told from."""

import asyncio
import time
from types import SimpleNamespace

import orjson
import pytest

from app import keys, receipts, settings, topics
from app.erasure import Forgotten, read
from app.view import payloads
from app.view.lookup import iso
from app.view.payloads import _Log
from tests.app.view.journeys import START, attempt, conversion, make_copy, record

NAMES = topics.Names("capistream")
PIXEL, SERVER = make_copy("pixel"), make_copy("server", 1.0)
KEY = keys.key(PIXEL)


def log_of(*entries):
    """(topic, offset, key, value) -> what was read."""
    found = {
        (topic, 0, offset): SimpleNamespace(key=key, value=orjson.dumps(value), timestamp=START + offset)
        for topic, offset, key, value in entries
    }
    return _Log(found, NAMES, 0)


ALL = [
    (NAMES.events, 10, KEY, PIXEL),
    (NAMES.events, 11, KEY, SERVER),
    (NAMES.conversions, 5, KEY, record([PIXEL, SERVER])),
    (NAMES.trace, 3, KEY, attempt()),
]
ONE = conversion([PIXEL, SERVER], destinations={"ads": {"state": "delivered", "traces": [3]}})


def taken(*entries, one=ONE, forgotten=None):
    return payloads._sorted(one, payloads._offsets(one, [one]), log_of(*entries), forgotten or Forgotten())


def test_each_record_goes_where_it_belongs():
    found = taken(*ALL)

    assert [found.copies[n].event["source"] for n in (0, 1)] == ["pixel", "server"]
    assert found.copies[1].arrived == START + 11
    assert found.conversions[0]["closed"] == "complete"
    assert found.traces[3]["status"] == 200


def test_what_stands_there_of_another_conversion_is_not_shown():
    other = make_copy("pixel", commerce={"transaction_id": "9"})
    strangers = [(topic, offset, keys.key(other), value) for topic, offset, _, value in ALL]

    found = taken(*strangers)

    assert (found.copies, found.conversions, found.traces) == ({}, [], {})


@pytest.mark.parametrize("value", [None, 1, [], {}, {"event": {}}, {"event": PIXEL, "routes": 1, "copies": []}])
def test_what_is_nothing_of_ours_is_not_shown(value):
    found = taken(*((topic, offset, KEY, value) for topic, offset, _, _ in ALL))

    assert (found.copies, found.conversions) == ({}, [])


def test_nothing_is_shown_of_somebody_who_was_erased():
    forgotten = Forgotten()
    for entry in read({"order": "1001"}).entries(START + 10_000, "ada"):
        key, value, _ = entry.row()
        forgotten.hear(key, value, START + 10_000)

    found = taken(*ALL, forgotten=forgotten)

    assert (found.copies, found.conversions, found.traces) == ({}, [], {})


def test_copies_that_were_set_apart_are_found_by_the_conversion_that_has_the_id():
    main = conversion([PIXEL, SERVER])
    apart = conversion([SERVER], apart="ab12")
    apart["copies"][0]["offset"] = -1

    assert payloads._offsets(apart, [main, apart]) == {0: 11}
    assert payloads._offsets(apart, [apart]) == {}
    assert payloads.key_of(apart) == KEY + b"\x1fab12"


# with a Kafka


def test_what_is_retained_is_read_and_what_is_not_is_left_out(place):
    names = topics.names(place.config)
    p = keys.partition("1001", place.config.kafka.partitions)
    place.write(names.events, [(KEY, orjson.dumps(copy), START) for copy in (PIXEL, SERVER)], p)
    place.write(names.conversions, [(KEY, orjson.dumps(record([PIXEL, SERVER])), START)], p)
    place.write(names.trace, [(KEY, orjson.dumps(attempt()), START)], p)
    one = conversion([PIXEL, SERVER, make_copy("pixel", 5.0)], partition=p, records=[0, 77])
    one["destinations"] = {"ads": {"state": "queued", "names": [{"state": "queued", "traces": [0, 1]}]}}
    for n, copy in enumerate(one["copies"]):
        copy["offset"] = n

    (found,) = asyncio.run(payloads.read(place.config, [one], Forgotten()))

    assert sorted(found.copies) == [0, 1]
    assert len(found.conversions) == 1
    assert list(found.traces) == [0]
    assert found.why_not == ""


def test_the_consent_of_one_that_is_no_longer_retained_is_read_in_its_receipts(place):
    names, p = topics.names(place.config), keys.partition("1001", place.config.kafka.partitions)
    now, other = int(time.time() * 1000), make_copy("pixel", commerce={"transaction_id": "9"})
    rows = [
        receipts.row(event, destination, outcome, now=now, config="c", basis=basis)
        for event, destination, outcome, basis in (
            (PIXEL, "ads", "delivered", "ad_storage granted"),
            (PIXEL, "stats", "held_back", "analytics_storage denied"),
            (other, "ads", "delivered", "of another one"),
        )
    ]
    place.write(names.receipts, [*rows, (KEY, b"no receipt", now)], p)
    there = {"ads": {"state": "delivered", "at": iso(now)}, "stats": {"state": "held_back"}}
    one = conversion(
        [PIXEL], partition=p, records=[77], destinations=there, decision={"how": "complete", "at": iso(now)}
    )
    one["copies"][0]["offset"] = -1

    (found,) = asyncio.run(payloads.read(place.config, [one], Forgotten()))

    assert found.bases == {"ads": "ad_storage granted", "stats": "analytics_storage denied"}
    one["destinations"]["ads"]["at"] = one["decision"]["at"] = iso(now + 3_600_000)
    (found,) = asyncio.run(payloads.read(place.config, [one], Forgotten()))
    assert found.bases == {}, "they are not looked for in the whole topic"


async def test_without_a_kafka_it_says_so(monkeypatch):
    monkeypatch.setattr(payloads, "PATIENCE", 0.2)
    config = settings.parse('[kafka]\nbrokers = "127.0.0.1:1"\n')

    (found,) = await payloads.read(config, [ONE], Forgotten())

    assert "Kafka does not answer" in found.why_not
