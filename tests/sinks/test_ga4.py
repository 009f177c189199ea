"""sinks/ga4.py: requests in full, what GA4 would swallow in silence, and what each answer means; by both interfaces."""

from typing import Any

import orjson
import pytest
from google.ads.datamanager_v1 import IngestEventsRequest
from google.protobuf.json_format import ParseDict  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.events import CANONICAL_NAMES, Json
from app.identity import redact
from app.prepare import NO_NAME
from app.sandbox._base import Ruling
from app.sandbox._google import ingest
from app.sandbox.ga4 import ANALYTICS
from sinks._base import Accepted, Delivered, Followed, Halt, Payload, Rejected, Request, Response, Retry, Skip
from sinks.ga4 import Ga4, Settings, event_name_allowed, param_name_allowed
from tests import factories
from tests.factories import encode, events, make_event, sha

SETTINGS: Json = {"sink": "ga4", "measurement_id": "G-ABC123XYZ", "api_secret": {"env": "GA4_SECRET"}}

# Hashes of test@example.com, +18005550100 and jane
EMAIL = "973dfe463ec85785f5f95af5ba3906eedb2d931c24e69824a89ea65dba4e813b"
PHONE = "fb4f73a6ec5fdb7077d564cdd22c3554b43ce49168550c3b12c547b78c517b30"
JANE = "81f8f6dde88365f3928796ec7aa53f72820b06db8664f5fe76a7eb13e24546a2"


def make_sink(**settings: Any) -> Ga4:
    return Ga4(Settings.model_validate(SETTINGS | settings))


def encoded(event: Any, **settings: Any) -> Json:
    sink = make_sink(**settings)
    return dict(orjson.loads(sink.request([factories.payload(sink, event)], {"api_secret": "SECRET"}).body))


def params(event: Any, **settings: Any) -> Json:
    (one,) = encoded(event, **settings)["events"]
    return dict(one["params"])


# encode and request


def test_a_purchase_in_full():
    sink = make_sink()
    payload = encode(sink, make_event())
    assert isinstance(payload, Payload)

    request = sink.request([payload], {"api_secret": "s/e+c=ret"})

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
    first, second = encode(sink, make_event()), encode(sink, make_event(event_name="sign_up"))
    assert isinstance(first, Payload)
    assert isinstance(second, Payload)

    body = orjson.loads(sink.request([first, second], {"api_secret": "SECRET"}).body)

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
    first, second = encode(sink, make_event()), encode(sink, make_event(**other))

    assert isinstance(first, Payload)
    assert isinstance(second, Payload)
    assert first.group != second.group


# who


@pytest.mark.parametrize("client_id", [None, "", " ", "GA1.1."])
def test_a_client_id_is_never_made_up(client_id):
    assert encode(make_sink(), make_event(ids={"ga_client_id": client_id})) == Skip("no GA4 client id")


@pytest.mark.parametrize("user_agent", ["", "x" * 1000, "\U0001f600" * 1000, '"' * 1000])
def test_a_request_is_no_larger_than_its_events_and_what_is_told_around_them(user_agent):
    sink = make_sink(gtag="replace", user_id=True, user_data=True)
    event = make_event(context={"user_agent": user_agent}, user={"user_id": "\U0001f600" * 256, "city": "x" * 2000})
    found = factories.payload(sink, event)

    secrets = {"api_secret": "SECRET"}
    for request in (sink.request([found] * 25, secrets), sink.test_request([found] * 25, secrets)):
        assert len(request.body) <= found.overhead + 25 * (len(orjson.dumps(found.body)) + 1)
        assert len(request.body) > found.overhead - 200


def test_an_event_that_alone_is_larger_than_a_request_is_skipped_as_ga4_would_say_nothing():
    event = make_event(ids={"ga_client_id": "1" * 130_000})

    assert encode(make_sink(), event) == Skip("larger than GA4 takes a request")


def test_a_client_id_loses_the_cookies_prefix():
    assert encoded(make_event(ids={"ga_client_id": "GA1.2.12.34"}))["client_id"] == "12.34"


@pytest.mark.parametrize("session_id", [None, "", "abc", "GS1.1.1795420000", "١٢"])
def test_a_session_id_is_digits_or_absent(session_id):
    assert "session_id" not in params(make_event(ids={"ga_session_id": session_id}))


def test_no_identifier_leaves_without_its_setting():
    body = encoded(make_event())

    assert not {"user_id", "user_data", "user_agent", "ip_override"} & body.keys()


@pytest.mark.parametrize("user_id", ["x" * 257, "", " "])
def test_a_user_id_that_is_too_long_or_blank_is_left_out(user_id):
    assert "user_id" not in encoded(make_event(user={"user_id": user_id}), user_id=True)


@pytest.mark.parametrize(
    ("consent", "absent", "sent"),
    [
        ({"ad_user_data": "granted"}, "require", True),
        ({"ad_user_data": "denied"}, "assume", False),
        ({"ad_user_data": None}, "require", False),
        ({"ad_user_data": None}, "assume", True),
    ],
)
def test_user_data_needs_consent_of_its_own(consent, absent, sent):
    body = encoded(make_event(consent=consent), user_data=True, consent={"absent": absent})

    assert ("user_data" in body) is sent


@pytest.mark.parametrize(("country", "sent"), [("US", True), ("DE", False)])
def test_where_the_settings_assume_consent_for_one_place_user_data_goes_there_alone(country, sent):
    event = make_event(consent={"ad_user_data": None}, user={"country": country})

    body = encoded(event, user_data=True, consent={"regions": {"US": {"absent": "assume"}}})

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
        ({"us_privacy": "1YNN"}, None),
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
        ("my_event", {}, Skip(NO_NAME)),
        (
            "purchase",
            {"events": {"purchase": False}},
            Skip(NO_NAME),
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
    result = encode(make_sink(**settings), make_event(event_name=name))

    assert (result.body["name"] if isinstance(result, Payload) else result) == expected


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
        ({"transaction_id": " "}, {"transaction_id"}),
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

    assert encode(make_sink(), event) == Skip("the transaction id is longer than 100 characters")


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


# after the sale


def refund(**commerce: Any) -> Any:
    """Of the order of `make_event`, as a back end reports it: nothing but what was paid back."""
    nothing = dict.fromkeys(make_event()["commerce"])
    paid_back = {**nothing, "transaction_id": "1001", "value": 59.98, "currency": "USD", **commerce}
    return make_event(event_name="refund", event_id="refund-1", commerce=paid_back, context=None, tags=None)


def test_a_full_refund_is_the_transaction_and_no_items():
    assert encoded(refund())["events"] == [
        {
            "name": "refund",
            "params": {
                "session_id": "1795420000",
                "engagement_time_msec": 1,
                "transaction_id": "1001",
                "value": 59.98,
                "currency": "USD",
            },
        }
    ]


def test_a_partial_refund_names_the_items_that_came_back():
    items = [{"item_id": "SKU-1", "quantity": 1, "price": 29.99}]

    sent = params(refund(value=29.99, refund_id="r-1", items=items))

    assert (sent["transaction_id"], sent["value"], sent["items"]) == ("1001", 29.99, items)
    assert "refund_id" not in sent, "GA4 has no such parameter"


@pytest.mark.parametrize("transaction_id", [None, ""])
def test_a_refund_of_no_transaction_is_skipped(transaction_id):
    skip = encode(make_sink(), refund(transaction_id=transaction_id))

    assert skip == Skip("a refund without the transaction id of its purchase")


def test_refunds_of_one_order_are_not_taken_for_repetitions():
    payload = encode(make_sink(), refund(refund_id="r-1"))

    assert isinstance(payload, Payload)
    assert payload.dedup_window == 0


# the test request


@pytest.mark.parametrize("how", ["test_request", "check"])
def test_a_test_and_a_check_go_to_the_validation_server_and_are_judged_strictly(how):
    sink = make_sink(endpoint="https://region1.google-analytics.com")
    batch = [factories.payload(sink, make_event())]

    test, live = (make(batch, {"api_secret": "SECRET"}) for make in (getattr(sink, how), sink.request))

    assert test.url == live.url.replace("/mp/collect", "/debug/mp/collect")
    assert test.url.startswith("https://region1.google-analytics.com/debug/mp/collect?measurement_id=G-ABC123XYZ")
    assert orjson.loads(test.body) == {
        **orjson.loads(live.body),
        "validation_behavior": "ENFORCE_RECOMMENDATIONS",
    }


@pytest.mark.parametrize(
    ("messages", "complaints"),
    [
        ([], []),
        (
            [
                {"fieldPath": "events[7].params.currency", "validationCode": "VALUE_INVALID", "description": "ada@x"},
                {"fieldPath": "events[0].params.currency", "validationCode": "VALUE_INVALID"},
                {"fieldPath": "user_data", "validationCode": "VALUE_REQUIRED"},
            ],
            ["VALUE_INVALID at events[].params.currency", "VALUE_REQUIRED at user_data"],
        ),
        ([{"fieldPath": "events.ada@example.com", "validationCode": "NAME_INVALID"}], ["NAME_INVALID"]),
        ([{"fieldPath": f"events.{sha('ada')}", "validationCode": "+15550100199"}], ["UNKNOWN"]),
        ([{"validationCode": "NAME_INVALID"}, 7], ["NAME_INVALID", "UNKNOWN"]),
    ],
)
def test_a_complaint_is_the_code_and_the_fields_name(messages, complaints):
    answer = Response(200, {}, orjson.dumps({"validationMessages": messages}))

    assert make_sink().complaints(answer) == complaints


def test_an_answer_that_is_no_validation_complains_of_nothing():
    body = b'{"validationMessages": [{"validationCode": "NAME_INVALID"}]}'

    for answer in (Response(500, {}, body), Response(204, {}, b""), Response(200, {}, b"<html>")):
        assert list(make_sink().complaints(answer)) == []


def test_the_data_manager_api_is_not_checked_as_it_tells_by_itself():
    sink = managed()

    assert sink.check([factories.payload(sink, make_event())], {"credentials": "TOKEN"}) is None
    with pytest.raises(ValidationError, match="check_share: data_manager has no use for it"):
        managed(check_share=0.1)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_how_much_is_checked_is_a_setting(share):
    assert make_sink(check_share=share).check_share == share
    assert make_sink().check_share == 0


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

    result = encode(make_sink(browser_tag="same_id"), event)

    assert (result.reason if isinstance(result, Skip) else None) == expected


@pytest.mark.parametrize("name", ["purchase", "sign_up", "page_view"])
@pytest.mark.parametrize("settings", [{}, {"browser_tag": "same_id"}, {"gtag": "replace"}])
def test_what_the_collector_handed_on_of_gtag_is_not_sent_again(name, settings):
    event = make_event(event_name=name, tags={"G-ABC123XYZ": {"relayed": True}})

    assert encode(make_sink(**settings), event) == Skip("gtag's own report was relayed by the collector")


@pytest.mark.parametrize("tags", [{"G-ANOTHER123": {"relayed": True}}, {"G-ABC123XYZ": {"ran": True}}])
def test_what_was_handed_on_to_another_data_stream_is_sent(tags):
    assert isinstance(encode(make_sink(), make_event(event_name="sign_up", tags=tags)), Payload)


def test_the_browsers_tag_is_judged_per_event_name():
    sink = make_sink(browser_tag={"refund": "none", "default": "same_id"})

    assert isinstance(encode(sink, make_event(event_name="refund")), Payload)
    assert isinstance(encode(sink, make_event(event_name="sign_up")), Skip)


# in the place of gtag


def test_in_the_place_of_gtag_device_and_place_are_told():
    body = encoded(make_event(event_name="page_view"), gtag="replace")

    assert body["user_agent"] == "Mozilla/5.0 (X11; Linux x86_64)"
    assert body["ip_override"] == "203.0.113.7"
    assert body["events"][0]["params"].keys() >= {"session_id", "page_location", "page_title", "page_referrer"}


def test_in_the_place_of_gtag_device_and_place_can_be_kept_back():
    assert not {"user_agent", "ip_override"} & encoded(make_event(), gtag="replace", device_and_place=False).keys()


@pytest.mark.parametrize("tags", [None, {"ga4": {"ran": True}}, {"ga4": {"ran": False}}])
@pytest.mark.parametrize("name", ["page_view", "sign_up", "purchase"])
def test_in_the_place_of_gtag_every_event_is_sent(name, tags):
    event = make_event(event_name=name, tags=None) | ({"tags": tags} if tags else {})

    assert isinstance(encode(make_sink(gtag="replace"), event), Payload)


def test_in_the_place_of_gtag_a_client_id_is_not_made_up_either():
    assert encode(make_sink(gtag="replace"), make_event(ids={"ga_client_id": None})) == Skip("no GA4 client id")


@pytest.mark.parametrize("browser_tag", ["same_id", {"purchase": "same_id", "default": "none"}])
def test_a_tag_that_does_not_run_reports_nothing(browser_tag):
    with pytest.raises(ValidationError, match="browser_tag"):
        make_sink(gtag="replace", browser_tag=browser_tag)


@pytest.mark.parametrize(
    ("gtag", "browser_tag", "device_and_place"), [("supplement", None, False), ("replace", "none", True)]
)
def test_what_follows_from_gtag_need_not_be_told(gtag, browser_tag, device_and_place):
    settings = make_sink(gtag=gtag).settings

    assert (settings.browser_tag, settings.device_and_place) == (browser_tag, device_and_place)


# the Data Manager API


def managed(**settings: Any) -> Ga4:
    told = {
        "sink": "ga4",
        "measurement_id": "G-ABC123XYZ",
        "via": "data_manager",
        "property_id": "123456789",
        "credentials": {"env": "GOOGLE_CREDENTIALS"},
    }
    return Ga4(Settings.model_validate(told | settings))


def ingested(event: Any, **settings: Any) -> Json:
    payload = encode(managed(**settings), event)
    assert isinstance(payload, Payload), payload
    return payload.body


def parameters(body: Json) -> dict[str, str]:
    return {one["parameterName"]: one["value"] for one in body["additionalEventParameters"]}


def test_a_purchase_by_the_data_manager_api_in_full():
    sink = managed(quota_project="shop")
    payload = encode(sink, make_event())
    assert isinstance(payload, Payload)

    request = sink.request([payload], {"credentials": "TOKEN"})

    assert payload.group == ()
    assert request.method == "POST"
    assert request.url == "https://datamanager.googleapis.com/v1/events:ingest"
    assert request.headers == {
        "Authorization": "Bearer TOKEN",
        "Content-Type": "application/json",
        "x-goog-user-project": "shop",
    }
    assert orjson.loads(request.body) == {
        "destinations": [
            {
                "operatingAccount": {"accountType": "GOOGLE_ANALYTICS_PROPERTY", "accountId": "123456789"},
                "productDestinationId": "G-ABC123XYZ",
            }
        ],
        "encoding": "HEX",
        "events": [
            {
                "eventName": "purchase",
                "clientId": "1234567890.1699999999",
                "eventTimestamp": "2026-11-23T08:00:00.123Z",
                "eventSource": "WEB",
                "transactionId": "1001",
                "currency": "USD",
                "conversionValue": 59.98,
                "consent": {"adUserData": "CONSENT_GRANTED", "adPersonalization": "CONSENT_GRANTED"},
                "cartData": {
                    "couponCodes": ["WELCOME"],
                    "items": [
                        {
                            "itemId": "SKU-1",
                            "quantity": 2,
                            "unitPrice": 29.99,
                            "additionalItemParameters": [
                                {"parameterName": "item_name", "value": "Shirt"},
                                {"parameterName": "item_brand", "value": "Acme"},
                                {"parameterName": "item_category", "value": "Clothing"},
                                {"parameterName": "item_variant", "value": "red"},
                            ],
                        }
                    ],
                },
                "additionalEventParameters": [
                    {"parameterName": "session_id", "value": "1795420000"},
                    {"parameterName": "engagement_time_msec", "value": "1"},
                    {"parameterName": "tax", "value": "4.5"},
                    {"parameterName": "shipping", "value": "5.0"},
                    {"parameterName": "page_location", "value": "https://shop.example.com/thanks"},
                    {"parameterName": "page_title", "value": "Thank you"},
                    {"parameterName": "page_referrer", "value": "https://shop.example.com/checkout"},
                ],
            }
        ],
    }


def test_everything_about_a_person_by_the_data_manager_api():
    body = ingested(make_event(), user_id=True, user_data=True, device_and_place=True)

    assert body["userId"] == "customer-7"
    assert body["userData"]["userIdentifiers"] == [
        {"emailAddress": sha("ada@example.com")},
        {"phoneNumber": sha("+15550100199")},
        {
            "address": {
                "givenName": sha("ada"),
                "familyName": sha("lovelace"),
                "regionCode": "US",
                "postalCode": "94025-1234",
                "addressLine": sha("1 main street"),
                "city": "menlo park",
                "administrativeArea": "ca",
            }
        },
    ]
    assert body["eventDeviceInfo"] == {"ipAddress": "203.0.113.7", "userAgent": "Mozilla/5.0 (X11; Linux x86_64)"}


def test_by_the_data_manager_api_people_share_a_request():
    sink = managed()
    found = [encode(sink, make_event(ids={"ga_client_id": f"{number}.2"})) for number in (1, 2)]

    assert [payload.group for payload in found if isinstance(payload, Payload)] == [(), ()]


def test_parameters_are_texts():
    event = make_event(event_name="sign_up", custom={"plan": "gold", "vip": True, "level": 7, "share": 0.5})

    told = parameters(ingested(event, debug_mode=True))

    assert {name: told[name] for name in ("plan", "vip", "level", "share", "debug_mode")} == {
        "plan": "gold",
        "vip": "true",
        "level": "7",
        "share": "0.5",
        "debug_mode": "true",
    }


def test_an_event_without_commerce_and_consent_has_neither():
    body = ingested(make_event(event_name="login", commerce=None, consent=None))

    assert body.keys() == {"eventName", "clientId", "eventTimestamp", "eventSource", "additionalEventParameters"}


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ({"ids": None}, "no GA4 client id"),
        ({"event_name": "session_start"}, NO_NAME),
        ({"time": -1}, "the time is no date"),
        ({"commerce": {"transaction_id": "x" * 101}}, "the transaction id is longer than 100 characters"),
    ],
)
def test_what_is_not_sent_by_the_data_manager_api(event, reason):
    assert encode(managed(), make_event(**event)) == Skip(reason)


def test_what_gtag_reported_is_not_sent_by_the_data_manager_api_either():
    event = make_event(event_name="sign_up")

    assert encode(managed(browser_tag="same_id"), event) == Skip("gtag already reported it")


def test_what_the_collector_handed_on_is_not_sent_by_the_data_manager_api_either():
    event = make_event(tags={"G-ABC123XYZ": {"relayed": True}})

    assert encode(managed(), event) == Skip("gtag's own report was relayed by the collector")


def test_a_denial_is_told_by_the_data_manager_api_too():
    denied = {"ad_user_data": "denied", "ad_personalization": "denied"}

    body = ingested(make_event(consent=denied), user_data=True)

    assert body["consent"] == {"adUserData": "CONSENT_DENIED", "adPersonalization": "CONSENT_DENIED"}
    assert "userData" not in body


def test_a_purchase_is_recognised_by_its_transaction_id_for_as_long_as_it_may_be_sent():
    sink = managed()

    purchase, login = encode(sink, make_event()), encode(sink, make_event(event_name="login"))

    assert isinstance(purchase, Payload)
    assert isinstance(login, Payload)
    assert (purchase.dedup_window, login.dedup_window) == (72 * 3600, 0)


def test_the_data_manager_api_looks_at_a_test_only():
    sink = managed()
    payload = encode(sink, make_event())
    assert isinstance(payload, Payload)

    test, live = (make([payload], {"credentials": "TOKEN"}) for make in (sink.test_request, sink.request))

    assert orjson.loads(test.body) == orjson.loads(live.body) | {"validateOnly": True}


def test_the_data_manager_api_answers_for_each_event():
    batch = [Payload("a", {}), Payload("b", {})]
    violation = {"field": "events[1].event_name", "reason": "RESERVED_NAME_USED"}
    refused = {"error": {"code": 400, "details": [{"fieldViolations": [violation]}]}}

    assert managed().verdict(batch, Response(200, {}, b'{"requestId": "abc"}')) == [Accepted("abc")] * 2
    assert managed().verdict(batch, Response(400, {}, orjson.dumps(refused))) == [
        Retry("another event failed the request", after=0.0),
        Rejected("a name is reserved", detail="RESERVED_NAME_USED at event_name"),
    ]


def test_what_became_of_it_is_asked_for_later():
    sink = managed()
    status = {"requestStatus": "SUCCESS", "eventsIngestionStatus": {"recordCount": "2"}}
    answer = orjson.dumps({"requestStatusPerDestination": [status]})

    request = sink.follow_up("abc", {"credentials": "TOKEN"})

    assert request.url == "https://datamanager.googleapis.com/v1/requestStatus:retrieve?requestId=abc"
    assert sink.followed(Response(200, {}, answer)) == Followed("success", 2)


def likely_events() -> st.SearchStrategy[Any]:
    complete: Any = make_event()
    parts = st.sets(st.sampled_from(("user", "context", "commerce", "consent")))
    return st.builds(
        lambda event, name, whole: {
            **event,
            "event_name": name,
            "ids": complete["ids"],
            **{part: complete[part] for part in whole},
        },
        events(),
        st.sampled_from(CANONICAL_NAMES),
        parts,
    )


def request_for(event: Any, *, generous: bool) -> Request | None:
    sink = managed(user_id=generous, user_data=generous, device_and_place=generous, debug_mode=generous)
    payload = encode(sink, event)
    return sink.request([payload], {"credentials": "TOKEN"}) if isinstance(payload, Payload) else None


@given(event=likely_events(), generous=st.booleans())
def test_googles_library_reads_what_is_sent(event, generous):
    if request := request_for(event, generous=generous):
        parsed = ParseDict(orjson.loads(request.body), IngestEventsRequest.pb()())

        (read,) = parsed.events
        assert (read.event_name, read.client_id) == (event["event_name"], "1234567890.1699999999")
        assert len(read.additional_event_parameters) <= 25


@given(event=likely_events(), generous=st.booleans())
def test_the_emulated_platform_takes_what_is_sent(event, generous):
    if request := request_for(event, generous=generous):
        ruling = emulated(request, event["time"] / 1000 + 1)

        # what only whoever sent the event can be blamed for
        allowed = ("clear personal data", "must be an ISO 4217 code", "is the hash of an empty string")
        found = [one for checked in ruling.events for one in checked.problems if not one.reason.startswith(allowed)]
        assert not ruling.problems
        number = event.get("commerce", {}).get("transaction_id", "")
        orderless = event["event_name"] in ("purchase", "refund") and not number.strip()
        assert [one.field for one in found] == (["events[0].transactionId"] if orderless else [])


def emulated(request: Request, now: float) -> Ruling:
    return ingest(factories.call(request, now), ANALYTICS)


# settings, limits, verdict


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        ({"api_secret": None}, "api_secret: missing"),
        ({"via": "data_manager"}, "property_id: missing"),
        ({"via": "data_manager", "property_id": "123456789"}, "credentials: missing"),
    ],
)
def test_each_interface_has_settings_that_it_needs(settings, missing):
    told = {name: value for name, value in (SETTINGS | settings).items() if value is not None}

    with pytest.raises(ValidationError, match=missing):
        Settings.model_validate(told)


def test_each_interface_has_its_scope_and_endpoint():
    assert (make_sink().scopes, managed().scopes) == ((), ("https://www.googleapis.com/auth/datamanager",))
    assert managed().settings.endpoint == "https://datamanager.googleapis.com"
    assert managed(endpoint="http://127.0.0.1:8").settings.endpoint == "http://127.0.0.1:8"


def test_limits_of_the_data_manager_api_are_its_own():
    limits = managed().limits

    assert (limits.events, limits.rate, limits.api_version) == (2000, 5.0, "v1")
    assert limits.age_limit("server") == 72 * 3600


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
        (
            200,
            b'{"validationMessages": []}',
            {},
            Delivered("valid; the secret and the measurement id were not looked at"),
        ),
        (
            200,
            b'{"validationMessages": [{"validationCode": "NAME_INVALID"}, {"validationCode": "ada@x"}, 7]}',
            {},
            Rejected("GA4 would not take it: NAME_INVALID, UNKNOWN", whole=True),
        ),
        (302, b"", {}, Retry("HTTP 302")),
        (408, b"", {}, Retry("HTTP 408")),
        (429, b"", {"Retry-After": "9"}, Retry("HTTP 429", 9.0, throttled=True)),
        *((status, b"", {}, Retry(f"HTTP {status}", unclear=True)) for status in (500, 502, 504, 520)),
        (503, b"<html>", {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, Retry("HTTP 503")),
        (425, b"", {}, Retry("HTTP 425")),
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


SIGNED = st.text('a@1 %0&#64;x\\u+(+).\uff20\ufe6b"-ef', max_size=24)


@given(
    text=SIGNED
    | st.sampled_from(("+49 170 1234567", "(030) 1234567", "a%40b.example", "a&#64;b.example", "ada@example.com"))
)
def test_every_text_is_sent_as_it_is_redacted(text):
    """Also where one look is enough to know that there is nothing to redact."""
    payload = encode(make_sink(), make_event(commerce={"coupon": text}))
    assert isinstance(payload, Payload)

    expected = redact(text)[:100]

    assert payload.body["params"].get("coupon", "") == (expected if expected.strip() else "")


@pytest.mark.parametrize("count", [20, 21, 60])
def test_items_of_any_number_are_sent_as_far_as_they_have_room(count):
    long = "\u0001" * 100  # six bytes each in JSON, the most there is
    names = ("item_id", "item_name", "brand", "category", "variant", "coupon")
    item = {**dict.fromkeys(names, long), "quantity": 2**53, "price": 1234567.123456, "discount": 1234567.123456}
    sink = make_sink()

    payload = encode(sink, make_event(commerce={"items": [item] * count}))

    assert isinstance(payload, Payload)
    sent = payload.body["params"]["items"]
    assert len(orjson.dumps(sent)) <= 100_001
    assert len(sent) == count or len(orjson.dumps([*sent, sent[0]])) > 100_000
