import json
from typing import cast

import pytest

from app import keys
from app.dead_letter import DeadLetter, Filed
from app.demo.balance import Books
from app.events import Event
from tests.faults import strangers

KINDS = ("events", "conversions", "receipts", "dead")


@pytest.fixture
def books():
    """Of one conversion, all of it well."""
    books, event = Books(("meta",)), strangers.event("a")
    key = keys.key(cast(Event, event))
    books.enter("events", None, b'{"clock": 1795420800000}')
    books.enter("events", key, json.dumps(event).encode())
    books.enter("conversions", key, json.dumps({"received": 1}).encode())
    books.enter("receipts", key, json.dumps({"destination": "meta", "outcome": "delivered"}).encode())
    return books


def test_a_conversion_that_is_merged_and_has_its_outcome_balances(books):
    assert books.balanced()
    assert books.report()["received"] == {"server": 1}
    assert books.strangers == 0


@pytest.mark.parametrize("value", strangers.GARBAGE)
@pytest.mark.parametrize("key", [None, b"", b"\xff", b"a\x1fshop\x1fpurchase"])
@pytest.mark.parametrize("kind", KINDS)
def test_records_of_strangers_are_counted_and_change_nothing(books, kind, key, value):
    before = books.report()

    books.enter(kind, key, value)

    assert books.report() == before | {"strangers": 1}


def test_a_stranger_with_a_key_of_ours_is_no_copy(books):
    event = strangers.event("a") | {"consent": "yes"}

    books.enter("events", keys.key(cast(Event, event)), json.dumps(event).encode())

    assert books.balanced()
    assert books.strangers == 1


@pytest.mark.parametrize("before", ["parked", "rejected", "filtered", "held_back"])
def test_what_was_not_sent_may_be_delivered_later(before):
    books = Books(("meta",))

    for outcome in (before, "delivered", before):
        books.enter(
            "receipts", b"a\x1fshop\x1fpurchase", json.dumps({"destination": "meta", "outcome": outcome}).encode()
        )

    assert set(books.outcomes["meta"].values()) == {"delivered"}


def test_a_letter_that_was_replayed_is_a_letter_still(books):
    letter = DeadLetter("normalize", "not_json", {"topic": "orders", "partition": 0, "offset": 1})
    for row in (letter.row(1.0), Filed("normalize", "not_json", letter.origin, state="replayed").row(2.0)):
        books.enter("dead", row[0], row[1])

    assert (books.report()["dead_letters"], books.strangers) == ({"not_json": 1}, 0)
