"""app/receipts.py: what became of an event at a destination, for analysts and data-protection officers."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import keys, receipts
from app.events import Event, Json
from tests.factories import events, make_event


def written(event: Event, **fields: Any) -> Json:
    given_fields: Json = {"now": 1_795_420_805_000, "config": "0123456789ab"} | fields
    _, value, _ = receipts.row(event, "meta", given_fields.pop("outcome", "delivered"), **given_fields)
    return dict(orjson.loads(value))


def test_a_receipt_in_full():
    key, value, timestamp = receipts.row(
        make_event(),
        "meta",
        "rejected",
        now=1_795_420_805_000,
        config="0123456789ab",
        reason="bad_request",
        basis="ad_storage granted",
        detail="trace A1",
        attempts=3,
    )

    assert key == b"1001\x1fshop\x1fpurchase"
    assert timestamp == 1_795_420_805_000
    assert orjson.loads(value) == {
        "v": 1,
        "time": 1_795_420_805_000,
        "destination": "meta",
        "outcome": "rejected",
        "reason": "bad_request",
        "site": "shop",
        "event_name": "purchase",
        "event_id": "order-1001",
        "event_time": 1_795_420_800_123,
        "transaction_id": "1001",
        "value": 59.98,
        "currency": "USD",
        "consent_basis": "ad_storage granted",
        "detail": "trace A1",
        "attempts": 3,
        "config": "0123456789ab",
    }


def test_what_is_not_known_is_absent():
    receipt = written(make_event(event_name="page_view", commerce=None))

    assert receipt.keys() == {
        *("v", "time", "destination", "outcome", "site", "event_name", "event_id", "event_time", "attempts", "config")
    }


@pytest.mark.parametrize("value", [0, 0.0])
def test_a_value_of_zero_is_a_value(value):
    assert written(make_event(commerce={"value": value}))["value"] == 0


def test_the_key_is_that_of_the_conversion():
    event = make_event(event_name="refund", commerce={"refund_id": "R1"})

    assert (
        receipts.row(event, "meta", "delivered", now=1, config="x")[0]
        == keys.key(event)
        == b"1001:R1\x1fshop\x1frefund"
    )


def test_no_receipt_holds_anything_of_the_person():
    event = make_event(custom={"note": "told-in-custom"})
    told = [*_leaves(event["user"]), *_leaves(event["context"]), *_leaves(event["ids"]), "told-in-custom"]
    assert len(told) > 30

    _, value, _ = receipts.row(event, "meta", "delivered", now=1, config="x", basis="b", detail="d", reason="r")

    assert [text for text in told if f'"{text}"'.encode() in value] == []


def _leaves(part: Any) -> list[str]:
    return [leaf for one in part.values() for leaf in _leaves(one)] if isinstance(part, dict) else [str(part)]


@settings(max_examples=30, deadline=None)
@given(events(), st.sampled_from(receipts.OUTCOMES))
def test_every_event_has_a_receipt_without_nulls(event, outcome):
    receipt = written(event, outcome=outcome)

    assert receipt["outcome"] == outcome
    assert not {None, ""} & {value for value in receipt.values() if not isinstance(value, float)}
