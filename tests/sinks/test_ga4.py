"""sinks/ga4.py: requests in full, what GA4 would swallow in silence, and what each answer means."""

from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from app.events import CANONICAL_NAMES, Json
from sinks._base import Delivered, Halt, Payload, Rejected, Response, Retry, Skip
from sinks.ga4 import Ga4, Settings, event_name_allowed, param_name_allowed
from tests.factories import make_event, sha

SETTINGS: Json = {"sink": "ga4", "measurement_id": "G-ABC123XYZ", "api_secret": {"env": "GA4_SECRET"}}

# Hashes of test@example.com, +18005550100 and jane
EMAIL = "973dfe463ec85785f5f95af5ba3906eedb2d931c24e69824a89ea65dba4e813b"
PHONE = "fb4f73a6ec5fdb7077d564cdd22c3554b43ce49168550c3b12c547b78c517b30"
JANE = "81f8f6dde88365f3928796ec7aa53f72820b06db8664f5fe76a7eb13e24546a2"


def make_sink(**settings: Any) -> Ga4:
    return Ga4(Settings.model_validate(SETTINGS | settings))


def encoded(event: Any, **settings: Any) -> Json:
    payload = make_sink(**settings).encode(event)
    assert isinstance(payload, Payload), payload
    return payload.body


def params(event: Any, **settings: Any) -> Json:
    (one,) = encoded(event, **settings)["events"]
    return dict(one["params"])


# encode and request


def test_a_purchase_in_full():
    sink = make_sink()
    payload = sink.encode(make_event())
    assert isinstance(payload, Payload)

    request = sink.request([payload], "s/e+c=ret")

    assert request.method == "POST"
    assert request.url == (
        "https://www.google-analytics.com/mp/collect?measurement_id=G-ABC123XYZ&api_secret=s%2Fe%2Bc%3Dret"
    )
    assert request.headers == {"Content-Type": "application/json"}
    assert orjson.loads(request.body) == {
        "client_id": "1234567890.1699999999",
        "timestamp_micros": 1795420800123000,
        "consent": {"ad_user_data": "GRANTED", "ad_personalization": "GRANTED"},
        "events": [
            {
                "name": "purchase",
                "params": {
                    "session_id": "1795420000",
                    "engagement_time_msec": 1,
                    "currency": "USD",
                    "value": 59.98,
                    "transaction_id": "1001",
                    "tax": 4.5,
                    "shipping": 5.0,
                    "coupon": "WELCOME",
                    "items": [
                        {
                            "item_id": "SKU-1",
                            "item_name": "Shirt",
                            "item_brand": "Acme",
                            "item_category": "Clothing",
                            "item_variant": "red",
                            "quantity": 2,
                            "price": 29.99,
                        }
                    ],
                    "page_location": "https://shop.example.com/thanks",
                    "page_title": "Thank you",
                    "page_referrer": "https://shop.example.com/checkout",
                },
            }
        ],
    }


def test_everything_that_the_settings_can_add_in_full():
    event = make_event(
        event_name="sign_up",
        user={
            "email": {"gmail": EMAIL},
            "phone": {"e164": PHONE},
            "first_name": {"letters": JANE},
            "last_name": {"letters": None, "plain": None, "given": sha("doe")},
            "city": "St. Gallen 9",
            "region": "Sankt-Gallen",
            "postal_code": "90.00~",
            "country": "CH",
        },
        commerce={**dict.fromkeys(make_event()["commerce"]), "method": "Google"},
        context={"referrer": None, "title": None},
        consent={"ad_personalization": "denied"},
        custom={"plan": "gold", "vip": True},
    )

    body = encoded(
        event, user_id=True, user_data=True, device_and_place=True, debug_mode=True, engagement_time_msec=100
    )

    assert body == {
        "client_id": "1234567890.1699999999",
        "timestamp_micros": 1795420800123000,
        "user_id": "customer-7",
        "user_data": {
            "sha256_email_address": [EMAIL],
            "sha256_phone_number": [PHONE],
            "address": [
                {
                    "sha256_first_name": JANE,
                    "sha256_last_name": sha("doe"),
                    "sha256_street": sha("1 main street"),
                    "city": "st gallen",
                    "region": "sanktgallen",
                    "postal_code": "9000",
                    "country": "CH",
                }
            ],
        },
        "user_agent": "Mozilla/5.0 (X11; Linux x86_64)",
        "ip_override": "203.0.113.7",
        "consent": {"ad_user_data": "GRANTED", "ad_personalization": "DENIED"},
        "events": [
            {
                "name": "sign_up",
                "params": {
                    "session_id": "1795420000",
                    "engagement_time_msec": 100,
                    "debug_mode": True,
                    "method": "Google",
                    "page_location": "https://shop.example.com/thanks",
                    "plan": "gold",
                    "vip": True,
                },
            }
        ],
    }


def test_events_of_one_client_and_moment_share_a_request():
    sink = make_sink()
    first, second = sink.encode(make_event()), sink.encode(make_event(event_name="sign_up"))
    assert isinstance(first, Payload)
    assert isinstance(second, Payload)

    body = orjson.loads(sink.request([first, second], "SECRET").body)

    assert first.group == second.group
    assert [one["name"] for one in body["events"]] == ["purchase", "sign_up"]
    assert body["client_id"] == "1234567890.1699999999"


@pytest.mark.parametrize(
    "other",
    [
        {"ids": {"ga_client_id": "2.2"}},
        {"time": 1_795_420_800_124},
        {"user": {"user_id": "customer-8"}},
        {"user": {"email": {"gmail": EMAIL}}},
        {"consent": {"ad_user_data": "denied"}},
        {"context": {"ip": "203.0.113.8"}},
    ],
)
def test_events_that_differ_in_what_a_request_shares_do_not(other):
    sink = make_sink(user_id=True, user_data=True, device_and_place=True)
    first, second = sink.encode(make_event()), sink.encode(make_event(**other))

    assert isinstance(first, Payload)
    assert isinstance(second, Payload)
    assert first.group != second.group


# who


@pytest.mark.parametrize("client_id", [None, "", " ", "GA1.1."])
def test_a_client_id_is_never_made_up(client_id):
    assert make_sink().encode(make_event(ids={"ga_client_id": client_id})) == Skip("no GA4 client id")


def test_a_client_id_loses_the_cookies_prefix():
    assert encoded(make_event(ids={"ga_client_id": "GA1.2.12.34"}))["client_id"] == "12.34"


@pytest.mark.parametrize("session_id", [None, "", "abc", "GS1.1.1795420000", "١٢"])
def test_a_session_id_is_digits_or_absent(session_id):
    assert "session_id" not in params(make_event(ids={"ga_session_id": session_id}))


def test_no_identifier_leaves_without_its_setting():
    body = encoded(make_event())

    assert not {"user_id", "user_data", "user_agent", "ip_override"} & body.keys()


def test_a_user_id_that_is_too_long_is_left_out():
    assert "user_id" not in encoded(make_event(user={"user_id": "x" * 257}), user_id=True)


@pytest.mark.parametrize(
    ("consent", "absent", "sent"),
    [
        ({"ad_user_data": "granted"}, "require", True),
        ({"ad_user_data": "denied"}, "assume", False),
        ({"ad_user_data": None}, "require", False),
        ({"ad_user_data": None}, "assume", True),
        ({"ad_user_data": "granted", "gpc": True}, "require", False),
    ],
)
def test_user_data_needs_consent_of_its_own(consent, absent, sent):
    body = encoded(make_event(consent=consent), user_data=True, consent={"absent": absent})

    assert ("user_data" in body) is sent


def test_a_town_alone_is_no_address():
    user = {**dict.fromkeys(make_event()["user"]), "email": {"gmail": EMAIL}, "city": "Berlin", "country": "DE"}

    assert encoded(make_event(user=user), user_data=True)["user_data"] == {"sha256_email_address": [EMAIL]}


@pytest.mark.parametrize(
    ("consent", "expected"),
    [
        (None, None),
        ({"analytics_storage": "granted"}, None),
        ({"ad_user_data": "granted"}, {"ad_user_data": "GRANTED"}),
        ({"ad_personalization": "denied"}, {"ad_personalization": "DENIED"}),
        ({"ad_user_data": "granted", "gpc": True}, {"ad_user_data": "DENIED", "ad_personalization": "DENIED"}),
        ({"us_privacy": "1YYN"}, {"ad_user_data": "DENIED", "ad_personalization": "DENIED"}),
        ({"us_privacy": "1YNN"}, None),
        ({"ad_user_data": "granted", "tcf": "CP"}, {"ad_user_data": "DENIED", "ad_personalization": "DENIED"}),
    ],
)
def test_consent_is_told_where_it_is_known(consent, expected):
    event = make_event(consent=None) | ({"consent": consent} if consent else {})

    assert encoded(event).get("consent") == expected


# what


@pytest.mark.parametrize("name", CANONICAL_NAMES)
def test_canonical_names_are_ga4s(name):
    assert encoded(make_event(event_name=name))["events"][0]["name"] == name


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("my_event", {}, Skip("no name for GA4; name one in `events`, or set custom_events")),
        (
            "purchase",
            {"events": {"purchase": False}},
            Skip("no name for GA4; name one in `events`, or set custom_events"),
        ),
        ("my_event", {"custom_events": True}, "my_event"),
        ("my event", {"events": {"my event": "my_event"}}, "my_event"),
        *(
            (
                name,
                {"custom_events": True},
                Skip("the event name is reserved by GA4, or is not 1 to 40 letters, digits and _"),
            )
            for name in (
                "session_start",
                "my event",
                "größe",
                "1st",
                "x" * 41,
                "ga_x",
                "firebase_x",
                "_x",
                "app_store_x",
            )
        ),
    ],
)
def test_only_events_that_ga4_has_a_name_for_are_sent(name, settings, expected):
    result = make_sink(**settings).encode(make_event(event_name=name))

    assert (result.body["events"][0]["name"] if isinstance(result, Payload) else result) == expected


@pytest.mark.parametrize("name", ["session_start", "google_x", "Größe", "a-b", "a\n", ""])
def test_a_name_that_ga4_would_swallow_is_refused_in_the_settings(name):
    with pytest.raises(ValidationError, match="events"):
        make_sink(events={"purchase": name})


@pytest.mark.parametrize(
    ("name", "event", "param"),
    [
        ("a", True, True),
        ("A1_" + "x" * 37, True, True),
        ("A1_" + "x" * 38, False, False),
        ("error", False, True),
        ("firebase_conversion", False, False),
        ("gtag.x", False, False),
        ("app_store_x", False, True),
        ("a\n", False, False),
    ],
)
def test_names_follow_ga4s_rules(name, event, param):
    assert (event_name_allowed(name), param_name_allowed(name)) == (event, param)


@pytest.mark.parametrize(
    ("commerce", "missing"),
    [
        ({"currency": None}, {"currency", "value"}),
        ({"currency": "dollar"}, {"currency", "value"}),
        ({"value": None}, {"value"}),
        ({"transaction_id": ""}, {"transaction_id"}),
        ({"coupon": ""}, {"coupon"}),
        ({"items": []}, {"items"}),
        ({"items": [{"price": 1.0}]}, {"items"}),
    ],
)
def test_what_ga4_cannot_use_is_left_out(commerce, missing):
    complete = params(make_event()).keys()

    assert complete - params(make_event(commerce=commerce)).keys() == missing


def test_a_value_of_zero_is_kept():
    assert params(make_event(commerce={"value": 0}))["value"] == 0


@pytest.mark.parametrize(
    ("override", "param", "length"),
    [
        ({"commerce": {"coupon": "x" * 500}}, "coupon", 100),
        ({"context": {"title": "x" * 500}}, "page_title", 300),
        ({"context": {"referrer": "x" * 2000}}, "page_referrer", 420),
        ({"context": {"url": "x" * 2000}}, "page_location", 1000),
        ({"custom": {"note": "x" * 500}}, "note", 100),
    ],
)
def test_texts_are_cut_to_what_ga4_keeps(override, param, length):
    assert len(params(make_event(**override))[param]) == length


def test_an_order_number_is_never_cut():
    event = make_event(commerce={"transaction_id": "x" * 101})

    assert make_sink().encode(event) == Skip("the transaction id is longer than 100 characters")


def test_texts_lose_email_addresses():
    event = make_event(
        context={"url": "https://shop.example.com/thanks?mail=ada%40example.com&n=1", "title": "Hello ada@example.com"},
        custom={"note": "from ada@example.com"},
    )

    sent = params(event)

    assert {"page_location", "page_title", "note"} <= sent.keys()
    assert b"ada" not in orjson.dumps(sent)


def test_at_most_200_items_are_sent():
    items = [{"item_id": str(number)} for number in range(201)]

    assert len(params(make_event(commerce={"items": items}))["items"]) == 200


def test_custom_fields_fill_up_to_25_parameters_by_name():
    custom: Json = {f"c{number:02}": number for number in reversed(range(30))}

    sent = params(make_event(custom=custom))

    assert len(sent) == 25
    assert [name for name in sent if name in custom] == [
        f"c{number:02}" for number in range(25 - len(params(make_event())))
    ]


@pytest.mark.parametrize(
    "name", ["value", "session_id", "page_title", "ga_x", "_x", "with space", "x" * 41, "debug_mode"]
)
def test_a_custom_field_that_would_replace_or_break_one_is_left_out(name):
    assert params(make_event(custom={name: "custom"})) == params(make_event())


# who else reports


@pytest.mark.parametrize(
    ("name", "tags", "commerce", "expected"),
    [
        ("purchase", {"ga4": {"ran": True}}, {}, None),
        ("purchase", None, {}, None),
        (
            "purchase",
            {"ga4": {"ran": True}},
            {"transaction_id": None},
            "gtag already reported it, and without a transaction id both would count",
        ),
        ("purchase", {"ga4": {"ran": False}}, {"transaction_id": None}, None),
        ("sign_up", {"ga4": {"ran": True}}, {}, "gtag already reported it"),
        ("sign_up", {"ga4": {"event_id": "x"}}, {}, "gtag already reported it"),
        ("sign_up", None, {}, "gtag already reported it"),
        ("sign_up", {"ga4": {"ran": False}}, {}, None),
        ("sign_up", {"gtag": {"ran": False}}, {}, None),
        ("sign_up", {"gtag": {"ran": False}, "ga4": {"ran": True}}, {}, "gtag already reported it"),
        ("sign_up", {"meta": {"ran": False}}, {}, "gtag already reported it"),
    ],
)
def test_beside_gtag_only_purchases_and_what_it_missed_are_sent(name, tags, commerce, expected):
    event = make_event(event_name=name, tags=None, commerce=commerce) | ({"tags": tags} if tags else {})

    result = make_sink(browser_tag="same_id").encode(event)

    assert (result.reason if isinstance(result, Skip) else None) == expected


def test_the_browsers_tag_is_judged_per_event_name():
    sink = make_sink(browser_tag={"refund": "none", "default": "same_id"})

    assert isinstance(sink.encode(make_event(event_name="refund")), Payload)
    assert isinstance(sink.encode(make_event(event_name="sign_up")), Skip)


# settings, limits, verdict


@pytest.mark.parametrize(
    "wrong",
    [{"measurement_id": "UA-1234-5"}, {"api_secret": "clear-text"}, {"engagement_time_msec": 0}, {"endpoint": "x"}],
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        make_sink(**wrong)


def test_limits_are_ga4s():
    limits = make_sink().limits

    assert (limits.events, limits.bytes, limits.dedup_window) == (25, 130_000, 0)
    assert limits.age_limit("server") == 72 * 3600


@pytest.mark.parametrize(
    ("status", "body", "headers", "outcome"),
    [
        (204, b"", {}, Delivered("received; GA4 confirms no more than that")),
        (200, b"<html>", {}, Delivered("received; GA4 confirms no more than that")),
        (200, b'{"validationMessages": []}', {}, Delivered("received; GA4 confirms no more than that")),
        (
            200,
            b'{"validationMessages": [{"validationCode": "NAME_INVALID"}, {"validationCode": "ada@x"}, 7]}',
            {},
            Rejected("GA4 would not take it: NAME_INVALID, UNKNOWN", whole=True),
        ),
        (302, b"", {}, Retry("HTTP 302")),
        (408, b"", {}, Retry("HTTP 408")),
        (429, b"", {"Retry-After": "9"}, Retry("HTTP 429", 9.0)),
        (500, b"", {}, Retry("HTTP 500")),
        (503, b"<html>", {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, Retry("HTTP 503")),
        (400, b"", {}, Rejected("HTTP 400", whole=True)),
        (413, b"", {}, Rejected("HTTP 413", whole=True)),
        *(
            (status, b"", {}, Halt(f"HTTP {status}: not what GA4 answers; is the endpoint right?"))
            for status in (401, 403, 404, 405)
        ),
    ],
)
def test_answers_and_what_they_mean(status, body, headers, outcome):
    batch = [Payload("a", {}), Payload("b", {})]

    assert make_sink().verdict(batch, Response(status, headers, body)) == [outcome, outcome]
