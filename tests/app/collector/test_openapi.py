"""app/collector/openapi.py: tells of every route, in a form that programs can read."""

import jsonschema
import pytest

from app.collector import openapi, routes
from app.settings import parse

COLLECTOR = parse(
    """
[sites.shop]
write_key = "wk_12345678"
secret_key = { env = "SHOP_SECRET_KEY" }

[collector]
routes = { own = "/e" }

[collector.ga4.G-ABC1234567]
site = "shop"
"""
).collector
DOCUMENT = openapi.document(COLLECTOR)


def test_every_route_is_in_it_and_no_other():
    told = {(method.upper(), path) for path, one in DOCUMENT["paths"].items() for method in one}

    assert told == {(method, path) for method, path, _ in routes.of(COLLECTOR)}


def test_each_operation_has_a_name_of_its_own():
    names = [one["operationId"] for path in DOCUMENT["paths"].values() for one in path.values()]

    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "body",
    [
        {"event_name": "view_item", "event_id": "1"},
        [{"event_name": "view_item", "event_id": "1"}],
        {"writeKey": "wk", "sent_at": 1, "batch": [{"event_name": "view_item", "event_id": "1"}]},
    ],
)
def test_what_is_taken_fits_the_schema(body):
    schema = DOCUMENT["paths"]["/e"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    validator = jsonschema.Draft202012Validator({**schema, "components": DOCUMENT["components"]})

    validator.validate(body)
    with pytest.raises(jsonschema.ValidationError):
        validator.validate([{"event_id": "1"}])


def _takes(path: str, body: object) -> bool:
    schema = DOCUMENT["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    return jsonschema.Draft202012Validator({**schema, "components": DOCUMENT["components"]}).is_valid(body)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/track", {"event": "Order Completed", "messageId": "m-1", "properties": {"order_id": "1001"}}),
        ("/v1/track", {"event": "x", "messageId": "00", "properties": []}),
        ("/v1/page", {"messageId": "nullable"}),
        ("/v1/identify", {"userId": "customer-7"}),
        ("/v1/batch", {"batch": [{"event": "x", "messageId": "1"}, {"type": "page", "messageId": "2"}, {"type": "alias"}]}),
        ("/v1/forget", {"order": ["1001", 1002]}),
    ],
)  # fmt: skip
def test_calls_that_are_taken_fit_the_schema(path, body):
    assert _takes(path, body)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/track", {"messageId": "1"}),
        ("/v1/track", {"event": "x", "messageId": "undefined"}),
        ("/v1/track", {"event": " Null ", "messageId": "1"}),
        ("/v1/track", {"event": "x", "messageId": "[object Object]"}),
        ("/v1/track", {"event": "x", "messageId": "a\nb"}),
        ("/v1/track", {"event": "x" * 101, "messageId": "1"}),
        ("/v1/page", {"messageId": "1", "properties": "text"}),
        ("/v1/batch", {"batch": [{"type": "track", "messageId": "1"}]}),
        ("/v1/batch", {"batch": []}),
        ("/v1/forget", {"order": 0}),
        ("/e", {"event_name": "purchase", "event_id": "1", "commerce": {"value": 5}}),
    ],
)  # fmt: skip
def test_calls_that_are_refused_do_not_fit_the_schema(path, body):
    assert not _takes(path, body)
