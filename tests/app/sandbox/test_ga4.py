"""The emulated GA4: by the Measurement Protocol it answers 204 to everything and lists what GA4 would have dropped in silence,
by the Data Manager API it says so.
"""

import copy
from typing import Any

import orjson
import pytest
import yarl
from hypothesis import given
from hypothesis import strategies as st

from app.sandbox import _google as google
from app.sandbox.ga4 import ANALYTICS, check_envelope, check_event

NOW = 1_795_420_900
MICROS = 1_000_000
SECRET = "planted-api-secret"
URL = f"/ga4/mp/collect?measurement_id=G-ABCDEF1234&api_secret={SECRET}"
APP_URL = f"/ga4/mp/collect?firebase_app_id=1:123:android:abc&api_secret={SECRET}"
DEBUG_URL = "/ga4/debug/mp/collect"
HASH = "973dfe463ec85785f5f95af5ba3906eedb2d931c24e69824a89ea65dba4e813b"
ABSENT = object()


def body(**changes: Any) -> Any:
    """Complete and valid; changes by path with double underscores, ABSENT takes a field away."""
    return changed(
        {
            "client_id": "1234567890.1699999999",
            "user_id": "customer-17",
            "timestamp_micros": (NOW - 100) * MICROS,
            "user_properties": {"tier": {"value": "gold"}},
            "user_data": {
                "sha256_email_address": [HASH],
                "sha256_phone_number": HASH,
                "address": [
                    {"sha256_first_name": HASH, "city": "san francisco", "postal_code": "94105", "country": "US"}
                ],
            },
            "consent": {"ad_user_data": "GRANTED", "ad_personalization": "DENIED"},
            "ip_override": "203.0.113.7",
            "user_agent": "Mozilla/5.0 (X11; Linux x86_64)",
            "events": [
                {
                    "name": "purchase",
                    "params": {
                        "session_id": "1795420000",
                        "engagement_time_msec": 1,
                        "transaction_id": "order-1001",
                        "currency": "USD",
                        "value": 59.98,
                        "tax": 4.2,
                        "page_location": "https://shop.example.com/thanks",
                        "items": [{"item_id": "SKU-1", "item_name": "Shirt", "quantity": 2, "price": 29.99}],
                    },
                }
            ],
        },
        changes,
    )


def changed(whole: Any, changes: dict[str, Any]) -> Any:
    whole = copy.deepcopy(whole)
    for path, value in changes.items():
        target = whole
        *parents, last = path.split("__")
        for parent in parents:
            target = target[int(parent) if parent.isdigit() else parent]
        if value is ABSENT:
            del target[last]
        else:
            target[last] = value
    return whole


def app_body(**changes: Any) -> Any:
    return changed(body(client_id=ABSENT, user_agent=ABSENT, app_instance_id="0123456789abcdef" * 2), changes)


def params(**more: Any) -> Any:
    return {f"events__0__params__{key}": value for key, value in more.items()}


async def post(bench: Any, sent: Any, url: str | yarl.URL = URL, **options: Any) -> Any:
    async with bench.client.post(url, json=sent, **options) as response:
        assert (response.status, await response.read()) == (204, b"")


async def reasons(bench: Any) -> Any:
    return {reason["field"]: reason["code"] for refused in await bench.refused() for reason in refused["reasons"]}


# --- what is taken ------------------------------------------------------------------------------


async def test_a_valid_request_is_accepted(bench: Any) -> None:
    await post(bench, body())
    (taken,) = await bench.accepted()
    assert taken["event"] == body()["events"][0]
    assert taken["destination"] == "ga4:G-ABCDEF1234"
    assert (taken["event_name"], taken["event_id"]) == ("purchase", "order-1001")
    assert taken["request"]["envelope"]["client_id"] == "1234567890.1699999999"
    assert (taken["warnings"], await bench.refused()) == ([], [])


TAKEN = {
    "no time": {"timestamp_micros": ABSENT},
    "time as digits": {"timestamp_micros": str((NOW - 100) * MICROS)},
    "time of an event": {"events__0__timestamp_micros": (NOW - 100) * MICROS},
    "the age limit": {"timestamp_micros": (NOW - 72 * 3600) * MICROS},
    "a clock ten minutes ahead": {"timestamp_micros": (NOW + 600) * MICROS},
    "a session as a number": params(session_id=1795420000),
    "a long page address": params(page_location="https://shop.example.com/" + "a" * 900),
    "a parameter of one's own": params(colour="blue", big=True, weight=1.5),
    "debug mode": params(debug_mode=1),
    "a custom event": {"events__0__name": "wishlist_shared"},
    "an event without parameters": {"events": [{"name": "login"}]},
    "where and with what": {
        "user_location": {"city": "Berlin", "region_id": "DE-BE", "country_id": "DE", "continent_id": "150"},
        "device": {"category": "mobile", "language": "de"},
    },
    "strict validation": {"validation_behavior": "ENFORCE_RECOMMENDATIONS"},
    "ten item parameters of one's own": {
        "events__0__params__items": [{"item_id": "1", **{f"own_{n}": n for n in range(10)}}]
    },
    "25 parameters beside the items": {
        "events__0__params": {**{f"p{n}": n for n in range(23)}, "items": [], "transaction_id": "1", "tax": 1}
    },
}


@pytest.mark.parametrize("changes", TAKEN.values(), ids=TAKEN.keys())
async def test_what_the_reference_allows_is_taken(bench: Any, changes: dict[str, Any]) -> None:
    await post(bench, body(**changes))
    assert await bench.refused() == []
    assert len(await bench.accepted()) == 1


async def test_an_app_stream_is_taken(bench: Any) -> None:
    await post(bench, app_body(events__0__name="screen_view"), APP_URL)
    (taken,) = await bench.accepted()
    assert taken["destination"] == "ga4:1:123:android:abc"


# --- what is refused ----------------------------------------------------------------------------

BROKEN = {
    "no client id": ({"client_id": ABSENT}, "client_id", "VALUE_REQUIRED"),
    "a made-up client id": ({"client_id": "0b7e4a4e-8d5c-4a53-9b53-0d3c9d7e5d1f"}, "client_id", "VALUE_INVALID"),
    "an app's id on a web stream": ({"app_instance_id": "0" * 32}, "app_instance_id", "VALUE_INVALID"),
    "a long user id": ({"user_id": "u" * 257}, "user_id", "VALUE_OUT_OF_BOUNDS"),
    "an e-mail as user id": ({"user_id": "ada@example.com"}, "user_id", "VALUE_INVALID"),
    "seconds": ({"timestamp_micros": NOW}, "timestamp_micros", "VALUE_OUT_OF_BOUNDS"),
    "milliseconds": ({"timestamp_micros": NOW * 1000}, "timestamp_micros", "VALUE_OUT_OF_BOUNDS"),
    "the future": ({"timestamp_micros": (NOW + 1000) * MICROS}, "timestamp_micros", "VALUE_OUT_OF_BOUNDS"),
    "four days old": ({"timestamp_micros": (NOW - 96 * 3600) * MICROS}, "timestamp_micros", "VALUE_OUT_OF_BOUNDS"),
    "time as a fraction": ({"timestamp_micros": NOW * 1e6 + 0.5}, "timestamp_micros", "VALUE_INVALID"),
    "an old event": (
        {"events__0__timestamp_micros": (NOW - 96 * 3600) * MICROS},
        "events[0].timestamp_micros",
        "VALUE_OUT_OF_BOUNDS",
    ),
    "an unknown field": ({"event_id": "1"}, "event_id", "VALUE_INVALID"),
    "too many properties": (
        {"user_properties": {f"p{n}": {"value": n} for n in range(26)}},
        "user_properties",
        "EXCEEDED_MAX_ENTITIES",
    ),
    "a long property name": (
        {"user_properties": {"p" * 25: {"value": 1}}},
        f"user_properties.{'p' * 25}",
        "NAME_INVALID",
    ),
    "a long property": (
        {"user_properties__tier__value": "g" * 37},
        "user_properties.tier.value",
        "VALUE_OUT_OF_BOUNDS",
    ),
    "a reserved property": ({"user_properties": {"user_id": {"value": 1}}}, "user_properties.user_id", "NAME_RESERVED"),
    "a bare property": ({"user_properties": {"tier": "gold"}}, "user_properties.tier", "VALUE_INVALID"),
    "a clear e-mail": (
        {"user_data__sha256_email_address": "ada@example.com"},
        "user_data.sha256_email_address",
        "VALUE_INVALID",
    ),
    "a hash in upper case": (
        {"user_data__sha256_email_address": [HASH.upper()]},
        "user_data.sha256_email_address[0]",
        "VALUE_INVALID",
    ),
    "four e-mails": (
        {"user_data__sha256_email_address": [HASH] * 4},
        "user_data.sha256_email_address",
        "VALUE_INVALID",
    ),
    "three addresses": ({"user_data__address": [{}] * 3}, "user_data.address", "VALUE_INVALID"),
    "a clear name": (
        {"user_data__address__0__sha256_first_name": "ada"},
        "user_data.address[0].sha256_first_name",
        "VALUE_INVALID",
    ),
    "a hashed city": ({"user_data__address__0__city": HASH}, "user_data.address[0].city", "VALUE_INVALID"),
    "a city in upper case": ({"user_data__address__0__city": "Berlin"}, "user_data.address[0].city", "VALUE_INVALID"),
    "a country's name": (
        {"user_data__address__0__country": "Germany"},
        "user_data.address[0].country",
        "VALUE_INVALID",
    ),
    "an unknown user field": ({"user_data__email": HASH}, "user_data.email", "VALUE_INVALID"),
    "consent in lower case": ({"consent__ad_user_data": "granted"}, "consent.ad_user_data", "VALUE_INVALID"),
    "consent that does not exist": ({"consent__ad_storage": "GRANTED"}, "consent.ad_storage", "VALUE_INVALID"),
    "no IP": ({"ip_override": "here"}, "ip_override", "VALUE_INVALID"),
    "a country as region": ({"user_location": {"region_id": "BE"}}, "user_location.region_id", "VALUE_INVALID"),
    "an unknown device field": ({"device": {"colour": "red"}}, "device.colour", "VALUE_INVALID"),
    "an unknown behaviour": ({"validation_behavior": "STRICT"}, "validation_behavior", "VALUE_INVALID"),
    "no events": ({"events": ABSENT}, "events", "VALUE_REQUIRED"),
    "an empty list": ({"events": []}, "events", "EXCEEDED_MAX_ENTITIES"),
    "26 events": ({"events": [{"name": "login"}] * 26}, "events", "EXCEEDED_MAX_ENTITIES"),
    "an event that is a string": ({"events": ["login"]}, "events[0]", "VALUE_INVALID"),
    "no name": ({"events__0__name": ABSENT}, "events[0].name", "VALUE_REQUIRED"),
    "a name with a dash": ({"events__0__name": "add-to-cart"}, "events[0].name", "NAME_INVALID"),
    "a long name": ({"events__0__name": "n" * 41}, "events[0].name", "NAME_INVALID"),
    "a reserved name": ({"events__0__name": "session_start"}, "events[0].name", "NAME_RESERVED"),
    "an app's name on a web stream": ({"events__0__name": "screen_view"}, "events[0].name", "NAME_RESERVED"),
    "a reserved prefix": ({"events__0__name": "ga_event"}, "events[0].name", "NAME_RESERVED"),
    "an app store name": ({"events__0__name": "app_store_refund"}, "events[0].name", "NAME_RESERVED"),
    "an unknown event field": ({"events__0__event_id": "1"}, "events[0].event_id", "VALUE_INVALID"),
    "parameters in a list": ({"events__0__params": []}, "events[0].params", "VALUE_INVALID"),
    "26 parameters": (
        {"events__0__params": {f"p{n}": n for n in range(26)}},
        "events[0].params",
        "EXCEEDED_MAX_ENTITIES",
    ),
    "a reserved parameter": (
        params(firebase_conversion=1),
        "events[0].params.firebase_conversion",
        "NAME_RESERVED",
    ),
    "a reserved parameter prefix": (params(google_x=1), "events[0].params.google_x", "NAME_RESERVED"),
    "a malformed parameter": ({"events__0__params__a b": 1}, "events[0].params.(unnamed)", "NAME_INVALID"),
    "null": (params(coupon=None), "events[0].params.coupon", "VALUE_INVALID"),
    "an object": (params(extra={"a": 1}), "events[0].params.extra", "VALUE_INVALID"),
    "an array": (params(extra=[1]), "events[0].params.extra", "VALUE_INVALID"),
    "a long value": (params(colour="b" * 101), "events[0].params.colour", "VALUE_OUT_OF_BOUNDS"),
    "a long title": (params(page_title="t" * 301), "events[0].params.page_title", "VALUE_OUT_OF_BOUNDS"),
    "a session cookie": (params(session_id="GS1.1.1795420000.1"), "events[0].params.session_id", "VALUE_INVALID"),
    "no engagement": (params(engagement_time_msec=0), "events[0].params.engagement_time_msec", "VALUE_OUT_OF_BOUNDS"),
    "a value as a string": (params(value="59.98"), "events[0].params.value", "VALUE_INVALID"),
    "no currency": (params(currency=ABSENT), "events[0].params.currency", "VALUE_REQUIRED"),
    "currency in lower case": (params(currency="usd"), "events[0].params.currency", "VALUE_INVALID"),
    "no transaction": (params(transaction_id=ABSENT), "events[0].params.transaction_id", "VALUE_REQUIRED"),
    "an empty transaction": (params(transaction_id=""), "events[0].params.transaction_id", "VALUE_INVALID"),
    "a transaction as a number": (params(transaction_id=1001), "events[0].params.transaction_id", "VALUE_INVALID"),
    "an e-mail": (params(note="ada@example.com"), "events[0].params.note", "VALUE_INVALID"),
    "an e-mail in the page address": (
        params(page_location="https://s.example/?m=ada%40example.com"),
        "events[0].params.page_location",
        "VALUE_INVALID",
    ),
    "a phone": (params(note="+15550100199"), "events[0].params.note", "VALUE_INVALID"),
    "201 items": (params(items=[{"item_id": "1"}] * 201), "events[0].params.items", "EXCEEDED_MAX_ENTITIES"),
    "an item without id": (params(items=[{"price": 1}]), "events[0].params.items[0]", "VALUE_REQUIRED"),
    "a price as a string": (
        params(items=[{"item_id": "1", "price": "9"}]),
        "events[0].params.items[0].price",
        "VALUE_INVALID",
    ),
    "an item id that is a number": (
        params(items=[{"item_id": 1}]),
        "events[0].params.items[0].item_id",
        "VALUE_INVALID",
    ),
    "an object in an item": (
        params(items=[{"item_id": "1", "x": {}}]),
        "events[0].params.items[0].x",
        "VALUE_INVALID",
    ),
    "11 item parameters of one's own": (
        params(items=[{"item_id": "1", **{f"own_{n}": n for n in range(11)}}]),
        "events[0].params.items[0]",
        "EXCEEDED_MAX_ENTITIES",
    ),
    "a reserved item key": (
        params(items=[{"item_id": "1", "google_x": 1}]),
        "events[0].params.items[0].google_x",
        "NAME_RESERVED",
    ),
}


@pytest.mark.parametrize(("changes", "field", "code"), BROKEN.values(), ids=BROKEN.keys())
async def test_each_broken_rule_is_refused_by_its_name(
    bench: Any, changes: dict[str, Any], field: str, code: str
) -> None:
    await post(bench, body(**changes))
    assert await bench.accepted() == []
    found = await reasons(bench)
    assert found.get(field) == code, found


@pytest.mark.parametrize(("changes", "field", "code"), BROKEN.values(), ids=BROKEN.keys())
async def test_the_validation_server_names_it_too(bench: Any, changes: dict[str, Any], field: str, code: str) -> None:
    url = DEBUG_URL + "?measurement_id=G-ABCDEF1234"
    async with bench.client.post(url, json=body(**changes)) as response:
        assert response.status == 200
        messages = (await response.json())["validationMessages"]
    assert code in {message["validationCode"] for message in messages if message["fieldPath"] == field}
    assert all(message["description"] for message in messages)
    assert (await bench.refused(), await bench.accepted()) == ([], [])


BAD_QUERIES = {
    "no stream": (f"?api_secret={SECRET}", "query"),
    "two streams": (f"?measurement_id=G-ABCDEF1234&firebase_app_id=1:1:ios:a&api_secret={SECRET}", "query"),
    "an old property": (f"?measurement_id=UA-12345-1&api_secret={SECRET}", "query.measurement_id"),
    "no secret": ("?measurement_id=G-ABCDEF1234", "query.api_secret"),
    "an empty secret": ("?measurement_id=G-ABCDEF1234&api_secret=", "query.api_secret"),
    "a misspelt name": (f"?measurement_id=G-ABCDEF1234&api_secret={SECRET}&debug=1", "query.debug"),
}


@pytest.mark.parametrize(("query", "field"), BAD_QUERIES.values(), ids=BAD_QUERIES.keys())
async def test_a_bad_query_is_answered_204_and_listed(bench: Any, query: str, field: str) -> None:
    await post(bench, body(), "/ga4/mp/collect" + query)
    assert await bench.accepted() == []
    assert field in await reasons(bench)
    assert [refused["event_id"] for refused in await bench.refused()] == ["order-1001"]


async def test_colons_of_an_app_id_are_sent_as_they_are(bench: Any) -> None:
    url = yarl.URL(APP_URL.replace("1:123:android:abc", "1%3A123%3Aandroid%3Aabc"), encoded=True)
    await post(bench, app_body(), url)
    assert "query.firebase_app_id" in await reasons(bench)


async def test_a_wrong_secret_is_answered_204_and_listed(start_bench: Any) -> None:
    bench = await start_bench(tokens={"ga4:G-ABCDEF1234": ["another"]})
    await post(bench, body())
    assert await reasons(bench) == {"query.api_secret": "VALUE_INVALID"}


async def test_the_validation_server_looks_at_no_secret(start_bench: Any) -> None:
    bench = await start_bench(tokens={"ga4": []})
    async with bench.client.post(DEBUG_URL, json=body()) as response:
        assert (response.status, await response.json()) == (200, {"validationMessages": []})
    async with bench.client.post(DEBUG_URL, json=app_body(app_instance_id="x")) as response:
        assert [message["fieldPath"] for message in (await response.json())["validationMessages"]] == [
            "app_instance_id"
        ]
    assert (await bench.balance("ga4:(none)"))["dry_runs"] == 2


@pytest.mark.parametrize(
    ("sent", "content_type", "field"),
    [
        (b"{", "application/json", "body"),
        (orjson.dumps(body()), "text/plain", "Content-Type"),
        (orjson.dumps(body(**params(note="x"))) + b" " * 130_000, "application/json", "body"),
        (b"[]", "application/json", ""),
    ],
)
async def test_a_body_that_cannot_be_taken_is_answered_204_and_listed(
    bench: Any, sent: Any, content_type: str, field: str
) -> None:
    async with bench.client.post(URL, data=sent, headers={"Content-Type": content_type}) as response:
        assert response.status == 204
    assert await bench.accepted() == []
    assert field in await reasons(bench)


async def test_a_bad_event_does_not_take_the_others_with_it(bench: Any) -> None:
    events = [{"name": "login"}, {"name": "session_start"}, {"name": "sign_up"}]
    await post(bench, body(events=events))
    assert [taken["event_name"] for taken in await bench.accepted()] == ["login", "sign_up"]
    assert [refused["event_name"] for refused in await bench.refused()] == ["session_start"]


async def test_what_is_wrong_around_the_events_is_wrong_with_each(bench: Any) -> None:
    await post(bench, body(consent={"ad_user_data": "yes"}, events=[{"name": "login"}, {"name": "sign_up"}]))
    assert [refused["event_name"] for refused in await bench.refused()] == ["login", "sign_up"]
    assert (await bench.balance("ga4:G-ABCDEF1234"))["refused"] == 2


# --- de-duplication -----------------------------------------------------------------------------


async def test_a_purchase_is_recognised_by_its_transaction(bench: Any) -> None:
    await post(bench, body())
    bench.clock.now += 60
    await post(bench, body(client_id="1.2"))
    await post(bench, body(**params(transaction_id="order-1002")))
    assert [(taken["event_id"], taken["duplicate"], taken["times"]) for taken in await bench.accepted()] == [
        ("order-1001", False, 2),
        ("order-1001", True, 2),
        ("order-1002", False, 1),
    ]


async def test_nothing_else_is_recognised(bench: Any) -> None:
    for _ in range(2):
        await post(bench, body(events__0__name="refund"))
        await post(bench, app_body(), APP_URL)
    assert [taken["duplicate"] for taken in await bench.accepted()] == [False] * 4


async def test_an_event_is_found_by_name_or_by_its_own_id_parameter(bench: Any) -> None:
    lead = {"name": "generate_lead", "params": {"event_id": "lead-7"}}
    await post(bench, body(events=[lead, {"name": "login"}]))
    assert [taken["event_name"] for taken in await bench.accepted(event_id="lead-7")] == ["generate_lead"]
    assert [taken["event_id"] for taken in await bench.accepted(event_name="login")] == [None]


# --- warnings -----------------------------------------------------------------------------------

WARNED = {
    "no session": (params(session_id=ABSENT), "events[0].params.session_id"),
    "no engagement time": (params(engagement_time_msec=ABSENT), "events[0].params.engagement_time_msec"),
    "no items": (params(items=ABSENT), "events[0].params.items"),
    "a search for nothing": ({"events__0__name": "search"}, "events[0].params.search_term"),
    "a whole cookie": ({"client_id": "GA1.1.1234567890.1699999999"}, "client_id"),
    "an old signal": ({"non_personalized_ads": True}, "non_personalized_ads"),
    "a person without id": ({"user_id": ABSENT}, "user_id"),
}


@pytest.mark.parametrize(("changes", "field"), WARNED.values(), ids=WARNED.keys())
async def test_what_is_taken_and_could_be_better_is_warned_of(bench: Any, changes: dict[str, Any], field: str) -> None:
    await post(bench, body(**changes))
    (taken,) = await bench.accepted()
    assert [warning["field"] for warning in taken["warnings"]] == [field]


# --- the Data Manager API -------------------------------------------------------------------------

INGEST_URL = "/ga4/v1/events:ingest"
BEARER = {"Authorization": "Bearer ya29.a-planted-token"}


def ingested(**changes: Any) -> Any:
    event = {
        "eventName": "purchase",
        "clientId": "1234567890.1699999999",
        "userId": "customer-17",
        "eventTimestamp": "2026-11-23T08:00:00.123Z",
        "eventSource": "WEB",
        "transactionId": "order-1001",
        "currency": "USD",
        "conversionValue": 59.98,
        "userData": {"userIdentifiers": [{"emailAddress": HASH}]},
        "consent": {"adUserData": "CONSENT_GRANTED"},
        "eventDeviceInfo": {"userAgent": "Mozilla/5.0", "ipAddress": "203.0.113.7"},
        "cartData": {
            "couponCodes": ["WELCOME"],
            "items": [
                {
                    "itemId": "SKU-1",
                    "quantity": 2,
                    "unitPrice": 29.99,
                    "additionalItemParameters": [{"parameterName": "item_brand", "value": "Acme"}],
                }
            ],
        },
        "additionalEventParameters": [
            {"parameterName": "session_id", "value": "1795420000"},
            {"parameterName": "engagement_time_msec", "value": "1"},
        ],
    }
    return changed(event, changes)


async def ingest(bench: Any, *events: Any, headers: Any = BEARER, **around: Any) -> Any:
    account = {"accountType": "GOOGLE_ANALYTICS_PROPERTY", "accountId": "123456789"}
    sent = {
        "destinations": [{"operatingAccount": account, "productDestinationId": "G-ABCDEF1234"}],
        "encoding": "HEX",
        "events": list(events or [ingested()]),
    }
    async with bench.client.post(INGEST_URL, json=changed(sent, around), headers=headers) as response:
        return response.status, await response.json()


async def test_an_event_is_queued_under_its_property(bench: Any) -> None:
    status, answer = await ingest(bench)

    assert (status, answer.keys()) == (200, {"requestId"})
    (taken,) = await bench.accepted()
    assert (taken["destination"], taken["event_name"], taken["event_id"]) == ("ga4:123456789", "purchase", "order-1001")
    assert taken["warnings"] == []
    async with bench.client.get(
        "/ga4/v1/requestStatus:retrieve", params={"requestId": answer["requestId"]}, headers=BEARER
    ) as response:
        assert (await response.json())["requestStatusPerDestination"][0]["requestStatus"] == "SUCCESS"


INGESTED_BROKEN: dict[str, tuple[dict[str, Any], str, str]] = {
    "no name": ({"eventName": ABSENT}, "eventName", "REQUIRED_FIELD_MISSING"),
    "a reserved name": ({"eventName": "session_start"}, "eventName", "RESERVED_NAME_USED"),
    "a name with a space": ({"eventName": "my event"}, "eventName", "INVALID_EVENT_NAME"),
    "no client": ({"clientId": ABSENT}, "clientId", "REQUIRED_FIELD_MISSING"),
    "a client made up": ({"clientId": "0b0f1c2e-uuid"}, "clientId", "INVALID_ARGUMENT"),
    "an app beside a client": ({"appInstanceId": "0" * 32}, "appInstanceId", "INVALID_ARGUMENT"),
    "four days old": ({"eventTimestamp": "2026-11-19T08:00:00Z"}, "eventTimestamp", "EVENT_TIME_INVALID"),
    "the future": ({"eventTimestamp": "2026-11-24T08:00:00Z"}, "eventTimestamp", "EVENT_TIME_INVALID"),
    "not on the web": ({"eventSource": "IN_STORE"}, "eventSource", "EVENT_SOURCE_AND_DESTINATION_MISMATCH"),
    "a purchase without its number": ({"transactionId": ABSENT}, "transactionId", "REQUIRED_FIELD_MISSING"),
    "a click id": ({"adIdentifiers": {"gclid": "x"}}, "adIdentifiers", "INVALID_ARGUMENT"),
    "a number as a parameter": (
        {"additionalEventParameters__0__value": 1795420000},
        "additionalEventParameters[0].value",
        "INVALID_ARGUMENT",
    ),
    "a session in words": (
        {"additionalEventParameters__0__value": "today"},
        "additionalEventParameters[0].value",
        "INVALID_ARGUMENT",
    ),
    "a parameter twice": (
        {"additionalEventParameters__1__parameterName": "session_id"},
        "additionalEventParameters[1].parameterName",
        "INVALID_ARGUMENT",
    ),
    "a reserved parameter": (
        {"additionalEventParameters__1__parameterName": "ga_x"},
        "additionalEventParameters[1].parameterName",
        "RESERVED_NAME_USED",
    ),
    "a parameter that has a field": (
        {"additionalEventParameters__1__parameterName": "currency"},
        "additionalEventParameters[1].parameterName",
        "INVALID_ARGUMENT",
    ),
    "a long parameter": (
        {"additionalEventParameters": [{"parameterName": "note", "value": "x" * 101}]},
        "additionalEventParameters[0].value",
        "FIELD_VALUE_TOO_LONG",
    ),
    "too many parameters": (
        {"additionalEventParameters": [{"parameterName": f"p{n}", "value": "x"} for n in range(26)]},
        "additionalEventParameters",
        "TOO_MANY_ELEMENTS",
    ),
    "an item of nothing": ({"cartData__items__0__itemId": ABSENT}, "cartData.items[0]", "INVALID_ARGUMENT"),
    "the other product's id": (
        {"cartData__items__0__merchantProductId": "SKU-1"},
        "cartData.items[0].merchantProductId",
        "INVALID_ARGUMENT",
    ),
}


@pytest.mark.parametrize(("changes", "field", "code"), INGESTED_BROKEN.values(), ids=INGESTED_BROKEN.keys())
async def test_each_broken_rule_is_told(bench: Any, changes: dict[str, Any], field: str, code: str) -> None:
    status, answer = await ingest(bench, ingested(), ingested(**changes))

    assert status == 400
    assert code in str(answer)
    assert (await reasons(bench)).get(f"events[1].{field}") == code
    assert await bench.accepted() == []


@pytest.mark.parametrize(
    ("around", "field"),
    [
        (
            {"destinations__0__operatingAccount__accountType": "GOOGLE_ADS"},
            "destinations[0].operatingAccount.accountType",
        ),
        ({"destinations__0__operatingAccount__accountId": "shop"}, "destinations[0].operatingAccount.accountId"),
        ({"destinations__0__productDestinationId": "111"}, "destinations[0].productDestinationId"),
    ],
)
async def test_a_destination_is_a_stream_of_a_property(bench: Any, around: dict[str, Any], field: str) -> None:
    assert (await ingest(bench, **around))[0] == 400
    assert field in await reasons(bench)


async def test_by_the_data_manager_api_a_token_is_looked_at(bench: Any) -> None:
    assert (await ingest(bench, headers={}))[0] == 401


async def test_by_the_data_manager_api_only_a_purchase_is_recognised(bench: Any) -> None:
    for name in ("purchase", "purchase", "refund", "refund"):
        await ingest(bench, ingested(eventName=name))

    assert [one["duplicate"] for one in await bench.accepted()] == [False, True, False, False]


async def test_an_event_without_session_is_warned_of(bench: Any) -> None:
    await ingest(bench, ingested(additionalEventParameters=ABSENT))

    (taken,) = await bench.accepted()
    assert len(taken["warnings"]) == 2


# --- anything at all ----------------------------------------------------------------------------

json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from(
    [*body(), "events__0__name", *params(**body()["events"][0]["params"]), "device", "user_location"]
)


@given(field=fields, value=json)
def test_no_value_of_any_field_breaks_the_checks(field: str, value: Any) -> None:
    broken = body(**{field: value})
    list(check_envelope(broken, NOW, is_app=False))
    events = broken["events"] if isinstance(broken["events"], list) else [broken["events"]]
    for event in events:
        list(check_event(event, "events[0]", NOW, is_app=False))


@given(
    field=st.sampled_from([*ingested(), "cartData__items", "additionalEventParameters__0__parameterName"]), value=json
)
def test_no_value_of_any_field_breaks_the_other_checks(field: str, value: Any) -> None:
    around = google._Around(ANALYTICS, NOW, "HEX", frozenset(), "G-ABCDEF1234")

    for problem in google._checked(ingested(**{field: value}), "events[0]", around).problems:
        assert problem.reason
