"""sinks/webhook.py: requests in full, what is left out unless asked for, the signature, and what each answer means."""

import base64
import hashlib
import hmac
from typing import Any

import orjson
import pytest
from hypothesis import given
from pydantic import ValidationError

from app.destination import Destination
from app.events import CANONICAL_NAMES, Event, Json
from app.mapping import mapped
from app.prepare import NO_NAME
from sinks._base import DAY, Delivered, Halt, Payload, Rejected, Request, Response, Retry, Skip
from sinks.webhook import ALWAYS, Settings, Webhook
from tests import factories
from tests.factories import encode, events, make_event

SETTINGS: Json = {"sink": "webhook", "endpoint": "https://hooks.example.com/conversions", "secret": {"env": "HOOK"}}

KEY = bytes(range(24))
SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"  # the same, as Standard Webhooks writes it


def make_sink(**settings: Any) -> Webhook:
    return Webhook(Settings.model_validate(SETTINGS | settings))


def encoded(event: Event, **settings: Any) -> Json:
    return factories.payload(make_sink(**settings), event).body


def sent(sink: Webhook, *batch: Payload, secret: str = SECRET, at: float = 1_795_420_900.0) -> Request:
    """As it is sent at this moment."""
    return sink.signed(sink.request(batch, {"secret": secret}), {"secret": secret}, at)


# encode and request


# The signature below was computed with the reference library of Standard Webhooks for Python, version 1.1.0.


def test_a_purchase_in_full():
    sink = make_sink()
    payload = encode(sink, make_event())
    assert isinstance(payload, Payload)

    request = sent(sink, payload, at=1_795_420_900.9)

    assert (request.method, request.url) == ("POST", "https://hooks.example.com/conversions")
    assert request.headers == {
        "Content-Type": "application/json",
        "webhook-id": "msg_5ae292b203a8ce67c25da889d1fde21e",
        "webhook-timestamp": "1795420900",
        "webhook-signature": "v1,XZRoUv4a2h3ereynVeClGlTFYQm0n/t25fo/VUW+aKo=",
    }
    assert orjson.loads(request.body) == {
        "events": [
            {
                "event_id": "order-1001",
                "event_name": "purchase",
                "site": "shop",
                "source": "server",
                "time": 1_795_420_800_123,
                "received": 1_795_420_801_456,
                "commerce": {
                    "value": 59.98,
                    "currency": "USD",
                    "tax": 4.5,
                    "shipping": 5.0,
                    "coupon": "WELCOME",
                    "transaction_id": "1001",
                    "items": [
                        {
                            "item_id": "SKU-1",
                            "item_name": "Shirt",
                            "brand": "Acme",
                            "category": "Clothing",
                            "variant": "red",
                            "quantity": 2,
                            "price": 29.99,
                        }
                    ],
                },
                "consent": {
                    "ad_storage": "granted",
                    "analytics_storage": "granted",
                    "ad_user_data": "granted",
                    "ad_personalization": "granted",
                },
            }
        ]
    }


@given(event=events())
def test_nothing_about_a_person_is_sent_unless_it_is_asked_for(event):
    event["event_name"] = "purchase"

    assert encoded(event).keys() <= {*ALWAYS, "commerce", "consent", "labels", "custom"}


def test_the_parts_that_are_asked_for_are_sent_as_they_are():
    event = make_event(custom={"plan": "gold"}, labels=["test"], revision=2)
    fields = ["user", "context", "ids", "commerce", "consent", "tags", "labels", "custom"]

    body = encoded(event, fields=fields)

    assert body == {name: part for name, part in event.items() if name not in ("v", "origin")}


def test_with_no_part_it_is_told_which_event_it_was():
    assert encoded(make_event(), fields=[]).keys() == {*ALWAYS} - {"revision"}


def test_a_refund_is_sent_with_what_tells_it_from_others_of_its_order():
    event = make_event(event_name="refund", commerce={"refund_id": "r-2", "value": 29.99})

    body = encoded(event)

    assert (body["event_name"], body["commerce"]["transaction_id"], body["commerce"]["refund_id"]) == (
        "refund",
        "1001",
        "r-2",
    )


def test_a_later_change_of_an_event_is_sent_with_its_revision():
    assert Webhook.takes_revisions
    assert encoded(make_event(revision=1))["revision"] == 1


@pytest.mark.parametrize("name", CANONICAL_NAMES)
def test_every_canonical_event_is_sent_under_its_own_name(name):
    assert encoded(make_event(event_name=name))["event_name"] == name


@pytest.mark.parametrize(
    ("settings", "name", "sent"),
    [
        ({}, "my_event", None),
        ({"custom_events": True}, "my_event", "my_event"),
        ({"events": {"purchase": "order.paid"}}, "purchase", "order.paid"),
        ({"events": {"page_view": False}}, "page_view", None),
    ],
)
def test_others_are_sent_where_the_settings_say_so(settings, name, sent):
    result = encode(make_sink(**settings), make_event(event_name=name))

    assert (
        result == Skip(NO_NAME) if sent is None else isinstance(result, Payload) and result.body["event_name"] == sent
    )


# the signature


def verified(request: Any, key: bytes) -> bool:
    """As a receiver does it."""
    signed = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.body
    mac = hmac.new(key, signed, hashlib.sha256).digest()
    return bool(request.headers["webhook-signature"] == "v1," + base64.b64encode(mac).decode())


@pytest.mark.parametrize(
    ("secret", "key"),
    [
        (SECRET, KEY),
        ("a text that somebody chose", b"a text that somebody chose"),
        ("schlüssel", "schlüssel".encode()),
        ("whsec_no base64", b"whsec_no base64"),
        ("whsec_Größe", "whsec_Größe".encode()),
    ],
)
def test_the_secret_signs_id_time_and_body(secret, key):
    request = sent(make_sink(), Payload("a", {"event_id": "a"}), Payload("b", {"event_id": "b"}), secret=secret)

    assert verified(request, key)
    assert not verified(request, key + b"x")


def test_the_id_names_the_events_and_not_the_attempt():
    sink, one, other = make_sink(), Payload("a", {"event_id": "a"}), Payload("b", {"event_id": "b"})

    def message_id(*batch: Payload, **more: Any) -> str:
        return sent(sink, *batch, **more).headers["webhook-id"]

    assert message_id(one) == message_id(one, secret="a new one") == message_id(one, at=2.0)
    assert len({message_id(one), message_id(other), message_id(one, other), message_id(other, one)}) == 4


def test_an_attempt_after_an_outage_is_signed_with_its_own_time():
    sink, payload = make_sink(), Payload("a", {"event_id": "a"})

    first, later = sent(sink, payload, at=1_795_420_900.0), sent(sink, payload, at=1_795_507_300.0)

    assert later.headers["webhook-timestamp"] == "1795507300"
    assert first.headers["webhook-signature"] != later.headers["webhook-signature"]
    assert verified(later, KEY)


def test_what_the_setting_map_fills_is_signed_too():
    event = make_event()
    body = mapped(encoded(event), event, {"received": "commerce.coupon", "margin": "commerce.tax"})

    request = sent(make_sink(), Payload("a", body))

    assert orjson.loads(request.body)["events"][0]["margin"] == 4.5
    assert verified(request, KEY)


# settings, limits, verdict


@pytest.mark.parametrize(
    "endpoint",
    ["https://hooks.example.com/a/", "http://127.0.0.1:8090/webhook", "https://hooks.example.com?source=capistream"],
)
def test_the_endpoint_is_called_as_it_is_written(endpoint):
    assert make_sink(endpoint=endpoint).request([Payload("a", {})], {"secret": SECRET}).url == endpoint


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ({"endpoint": "hooks.example.com"}, "endpoint"),
        ({"endpoint": None}, "endpoint"),
        ({"secret": "clear-text"}, "secret"),
        ({"fields": ["users"]}, "fields"),
        ({"most_events": 0}, "most_events"),
        ({"max_age": "1m"}, "max_age"),
    ],
)
def test_wrong_settings_are_refused(wrong, place):
    with pytest.raises(ValidationError, match=place):
        make_sink(**wrong)


def test_limits_are_those_of_the_settings():
    limits = make_sink(most_events=1, max_age="30d").limits

    assert (limits.events, limits.age_limit("crm"), limits.dedup_window) == (1, 30 * DAY, 0)
    assert (make_sink().limits.events, make_sink().limits.max_age) == (100, 7 * DAY)


def test_the_common_settings_are_there():
    assert Settings.model_fields.keys() > Destination.model_fields.keys()


@pytest.mark.parametrize(
    ("status", "headers", "outcome"),
    [
        *((status, {}, Delivered(f"HTTP {status}")) for status in (200, 202, 204)),
        *(
            (status, {}, Halt(f"HTTP {status}: does the endpoint have the same secret and time?"))
            for status in (401, 403)
        ),
        *((status, {}, Halt(f"HTTP {status}: is the address right?")) for status in (301, 308, 404, 405, 410)),
        *((status, {}, Retry(f"HTTP {status}")) for status in (408, 425, 503)),
        *((status, {}, Retry(f"HTTP {status}", unclear=True)) for status in (500, 520)),
        *((status, {}, Retry(f"HTTP {status}", throttled=True, unclear=True)) for status in (502, 504)),
        (429, {}, Retry("HTTP 429", throttled=True)),
        (429, {"Retry-After": "9"}, Retry("HTTP 429", 9.0, throttled=True)),
        *((status, {}, Rejected(f"HTTP {status}", whole=True)) for status in (400, 409, 413, 415, 422)),
    ],
)
def test_answers_and_what_they_mean(status, headers, outcome):
    batch = [Payload("a", {}), Payload("b", {})]

    assert make_sink().verdict(batch, Response(status, headers, b'{"email": "ada@example.com"}')) == [outcome, outcome]
