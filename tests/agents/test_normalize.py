"""agents/normalize.py: what becomes of one record, whatever it is."""

from dataclasses import replace
from typing import Any

import orjson
import pytest
from aiokafka import ConsumerRecord

from agents.normalize import results_of
from app import reading
from app.events import Json, Origin
from app.normalize import Inlet, Normalized, Refused
from app.reading import rules

RECEIVED = 1_795_428_000_000
ORIGIN: Origin = {"topic": "orders", "partition": 0, "offset": 7}
INLET = Inlet("orders", "capistream", "shop", "server")
EVENT: Json = {"event_name": "login", "event_id": "ev-1"}


def record(value: Any = EVENT, key: bytes | None = b"k", **headers: bytes) -> Any:
    return ConsumerRecord("orders", 0, 7, RECEIVED, 0, key, orjson.dumps(value), None, 0, 0, tuple(headers.items()))


def test_a_record_is_normalised_with_its_headers():
    (result,) = results_of(record(traceparent=b"00-1"), INLET, RECEIVED, ORIGIN, {})

    assert isinstance(result, Normalized)
    assert result.event["origin"] == {**ORIGIN, "headers": {"traceparent": "00-1"}}


@pytest.mark.parametrize("expression", ["_key", "to_string(_timestamp)"])
def test_a_map_may_ask_for_what_a_record_carries(expression):
    inlet = replace(INLET, rules=rules({"custom.x": expression}, None))

    (result,) = results_of(record(), inlet, RECEIVED, ORIGIN, {})

    assert isinstance(result, Normalized)
    assert result.event["custom"] == {"x": {"_key": "k"}.get(expression, str(RECEIVED))}


def test_a_mistake_of_ours_is_a_refusal_and_tells_nothing_of_the_event():
    there_is_none = replace(INLET, format="no such format", rules=reading.AS_IT_IS)

    found = results_of(record({"email": "ada@example.com"}), there_is_none, RECEIVED, ORIGIN, {})

    assert found == [Refused("failed", "", "an error of ours; it is in the log")]
