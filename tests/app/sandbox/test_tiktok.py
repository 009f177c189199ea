"""The emulated Events API takes what TikTok's reference allows, and refuses each broken rule by its place."""

import copy
import hashlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.sandbox.tiktok import check_event, warn_event

NOW = 1_795_420_900
DAY = 86_400
URL = "/tiktok/open_api/v1.3/event/track/"
TOKEN = "a-planted-token-of-tiktok"
HEADERS = {"Access-Token": TOKEN}
ABSENT = object()


def sha(text: str) -> Any:
    return hashlib.sha256(text.encode()).hexdigest()


def event(**changes: Any) -> Any:
    """Complete and valid; changes by dotted path, ABSENT takes a field away."""
    body: Any = {
        "event": "Purchase",
        "event_time": NOW - 100,
        "event_id": "order-1001",
        "user": {
            "email": sha("ada@example.com"),
            "phone": [sha("+15550100199"), sha("+15550100198")],
            "external_id": sha("customer-7"),
            "ttclid": "E.C.P.opaque",
            "ttp": "2F7h37YkS1j57AYSKTI7IHhJPYH",
            "ip": "203.0.113.7",
            "user_agent": "Mozilla/5.0 (X11; Linux x86_64)",
            "locale": "en-US",
            "first_name": sha("ada"),
            "zip_code": sha("94025"),
            "city": "menlopark",
        },
        "page": {"url": "https://shop.example.com/thanks?utm_source=mail", "referrer": "https://www.tiktok.com/"},
        "properties": {
            "value": 59.98,
            "currency": "USD",
            "order_id": "1001",
            "content_ids": ["SKU-1"],
            "content_type": "product",
            "contents": [{"content_id": "SKU-1", "content_type": "product", "quantity": 2, "price": 29.99}],
            "num_items": 2,
            "customer_type": "new",
            "colour": "blue",
        },
        "limited_data_use": False,
    }
    return changed(body, changes)


def changed(body: Any, changes: dict[str, Any]) -> Any:
    body = copy.deepcopy(body)
    for path, value in changes.items():
        target = body
        *parents, last = path.split("__")
        for parent in parents:
            target = target[int(parent) if parent.isdigit() else parent]
        if value is ABSENT:
            del target[last]
        else:
            target[last] = value
    return body


def request(*events: Any, **around: Any) -> Any:
    return {"event_source": "web", "event_source_id": "PIXELCODE", "data": list(events or [event()]), **around}


async def post(bench: Any, body: Any, url: str = URL, headers: dict[str, str] = HEADERS) -> Any:
    async with bench.client.post(url, json=body, headers=headers) as response:
        return response.status, await response.json()


# --- what is taken ------------------------------------------------------------------------------


async def test_a_valid_request_is_accepted_and_counted(bench: Any) -> None:
    status, answer = await post(bench, request(event(), event(event_id="order-1002")))

    assert status == 200
    assert (answer["code"], answer["message"], answer["data"]) == (0, "OK", {})
    assert answer["request_id"].startswith("20261123")
    first, second = await bench.accepted()
    assert first["event"] == event()
    assert first["destination"] == "tiktok:PIXELCODE"
    assert (first["event_name"], first["event_id"], first["received"]) == ("Purchase", "order-1001", NOW)
    assert (first["duplicate"], first["times"], first["warnings"]) == (False, 1, [])
    assert second["event_id"] == "order-1002"


TAKEN = {
    "a custom event": {"event": "review-written_2", "properties": ABSENT},
    "a page view": {"event": "Pageview"},
    "a page view in the other spelling": {"event": "PageView"},
    "no properties": {"properties": ABSENT},
    "an IPv6": {"user__ip": "2001:db8::7"},
    "a long click id": {"user__ttclid": "E.C.P." + "aB-_" * 200},
    "a place in another script": {"user__city": "münchen"},
    "a hashed advertising id": {"user__idfa": sha("idfa")},
    "limited data use": {"limited_data_use": True},
    "the age limit": {"event_time": NOW - 7 * DAY},
    "a clock half a minute ahead": {"event_time": NOW + 30},
    "a value without items": {"properties": {"value": 0, "currency": "EUR"}},
    "attribution that is shared": {"ad": {"callback": "E.C.P.opaque"}},
    "no referrer": {"page__referrer": ABSENT},
}


@pytest.mark.parametrize("changes", TAKEN.values(), ids=TAKEN.keys())
async def test_what_the_reference_allows_is_taken_without_a_warning(bench: Any, changes: dict[str, Any]) -> None:
    _, answer = await post(bench, request(event(**changes)))

    assert answer["code"] == 0, await bench.refused()
    (taken,) = await bench.accepted()
    assert taken["warnings"] == []


@pytest.mark.parametrize(
    ("source", "changes"),
    [
        ("offline", {"page": ABSENT}),
        ("crm", {"page": ABSENT, "lead": {"lead_id": "7123456789012345678", "lead_event_source": "HubSpot"}}),
        ("app", {"page": ABSENT, "app": {"app_id": "1"}}),
    ],
)
async def test_other_sources_need_no_page(bench: Any, source: str, changes: dict[str, Any]) -> None:
    body = request(event(**changes), event_source=source, event_source_id="7000000000000000001")

    _, answer = await post(bench, body)

    assert answer["code"] == 0, await bench.refused()
    (taken,) = await bench.accepted()
    assert (taken["destination"], taken["warnings"]) == ("tiktok:7000000000000000001", [])


async def test_a_test_code_and_a_partner_may_stand_beside_the_events(bench: Any) -> None:
    _, answer = await post(bench, request(test_event_code="TEST12345", partner_name="Somebody"))

    assert answer["code"] == 0


# --- what is refused ----------------------------------------------------------------------------

BROKEN = {
    "no name": ({"event": ABSENT}, "event"),
    "an empty name": ({"event": ""}, "event"),
    "a name with a space": ({"event": "Complete Payment"}, "event"),
    "a name of 51 letters": ({"event": "x" * 51}, "event"),
    "no time": ({"event_time": ABSENT}, "event_time"),
    "milliseconds": ({"event_time": NOW * 1000}, "event_time"),
    "time as a text": ({"event_time": "2026-11-23T08:00:00Z"}, "event_time"),
    "an old event": ({"event_time": NOW - 7 * DAY - 1}, "event_time"),
    "tomorrow": ({"event_time": NOW + DAY}, "event_time"),
    "an id that is a number": ({"event_id": 1001}, "event_id"),
    "a null": ({"event_id": None}, "event_id"),
    "no user": ({"user": ABSENT}, "user"),
    "no page": ({"page": ABSENT}, "page.url"),
    "no page address": ({"page__url": ABSENT}, "page.url"),
    "a path as page": ({"page__url": "/thanks"}, "page.url"),
    "a title of the page": ({"page__title": "Thanks"}, "page.title"),
    "a clear e-mail": ({"user__email": "ada@example.com"}, "user.email"),
    "a clear e-mail in a list": ({"user__email": [sha("a"), "ada@example.com"]}, "user.email[1]"),
    "a hash in upper case": ({"user__email": sha("a").upper()}, "user.email"),
    "the hash of nothing": ({"user__email": sha("")}, "user.email"),
    "an empty list": ({"user__phone": []}, "user.phone"),
    "a clear phone": ({"user__phone": "+15550100199"}, "user.phone"),
    "a phone of the generation before": ({"user__phone_number": sha("1")}, "user.phone_number"),
    "a clear id of a person": ({"user__external_id": "customer-7"}, "user.external_id"),
    "a clear name": ({"user__first_name": "ada"}, "user.first_name"),
    "a list of names": ({"user__first_name": [sha("ada")]}, "user.first_name"),
    "a clear postal code": ({"user__zip_code": "94025"}, "user.zip_code"),
    "a hashed city": ({"user__city": sha("menlopark")}, "user.city"),
    "a city in upper case": ({"user__city": "Menlopark"}, "user.city"),
    "a city with a space": ({"user__city": "menlo park"}, "user.city"),
    "a hashed click id": ({"user__ttclid": sha("E.C.P.")}, "user.ttclid"),
    "a hashed cookie": ({"user__ttp": sha("ttp")}, "user.ttp"),
    "a hashed IP": ({"user__ip": sha("203.0.113.7")}, "user.ip"),
    "no IP": ({"user__ip": "203.0.113"}, "user.ip"),
    "a hashed user agent": ({"user__user_agent": sha("M")}, "user.user_agent"),
    "languages": ({"user__locale": "en-US,en;q=0.9"}, "user.locale"),
    "a gender": ({"user__gender": sha("f")}, "user.gender"),
    "a date of birth": ({"user__dob": sha("19970216")}, "user.dob"),
    "a value without currency": ({"properties__currency": ABSENT}, "properties.currency"),
    "a value as a text": ({"properties__value": "59.98"}, "properties.value"),
    "a currency in lower case": ({"properties__currency": "usd"}, "properties.currency"),
    "no such currency": ({"properties__currency": "USX"}, "properties.currency"),
    "an item id that is a number": ({"properties__contents__0__content_id": 1}, "properties.contents[0].content_id"),
    "a price as a text": ({"properties__contents__0__price": "9"}, "properties.contents[0].price"),
    "half a piece": ({"properties__contents__0__quantity": 0.5}, "properties.contents[0].quantity"),
    "a foreign item key": ({"properties__contents__0__id": "1"}, "properties.contents[0].id"),
    "no items": ({"properties__contents": []}, "properties.contents"),
    "a kind of item of one's own": ({"properties__content_type": "products"}, "properties.content_type"),
    "an item id in a list that is a number": ({"properties__content_ids": [1]}, "properties.content_ids[0]"),
    "an order that is a number": ({"properties__order_id": 1001}, "properties.order_id"),
    "a shop that is a number": ({"properties__shop_id": 7}, "properties.shop_id"),
    "an unknown kind of customer": ({"properties__customer_type": "gold"}, "properties.customer_type"),
    "an object of one's own": ({"properties__extra": {"a": 1}}, "properties.extra"),
    "an e-mail in a property": ({"properties__note": "write to ada@example.com"}, "properties.note"),
    "an e-mail in the address": ({"page__url": "https://shop.example/?m=ada%40example.com"}, "page.url"),
    "limited data use as a number": ({"limited_data_use": 1}, "limited_data_use"),
    "an unknown key": ({"action_source": "web"}, "action_source"),
    "a context of the generation before": ({"context": {}}, "context"),
    "a timestamp of the generation before": ({"timestamp": "2026-11-23T08:00:00Z"}, "timestamp"),
}


@pytest.mark.parametrize(("changes", "field"), BROKEN.values(), ids=BROKEN.keys())
async def test_each_broken_rule_is_refused_by_its_place(bench: Any, changes: dict[str, Any], field: str) -> None:
    status, answer = await post(bench, request(event(**changes)))

    assert (status, answer["code"]) == (200, 40002)
    assert await bench.accepted() == []
    (refused,) = await bench.refused()
    assert f"data[0].{field}" in [reason["field"] for reason in refused["reasons"]], refused["reasons"]
    assert answer["message"].startswith("data.0.")


async def test_one_bad_event_fails_the_request_and_the_message_names_it(bench: Any) -> None:
    data = [event(event_id=str(number)) for number in range(10)]
    data[6]["properties"]["contents"][0]["content_id"] = 7

    status, answer = await post(bench, request(*data))

    assert (status, answer["code"]) == (200, 40002)
    assert answer["message"] == "data.6.properties.contents.0.content_id: must be a string"
    (refused,) = await bench.refused()
    assert refused["event_id"] == "6"
    balance = await bench.balance("tiktok:PIXELCODE")
    assert (balance["accepted"], balance["refused"], balance["collateral"]) == (0, 1, 9)


BAD_BODIES = {
    "an array": ([event()], "body", 40002),
    "no data": ({"event_source": "web", "event_source_id": "PIXELCODE"}, "data", 40002),
    "data that is no array": (request(data=event()), "data", 40002),
    "no event": (request(data=[]), "data", 40002),
    "too many events": (request(data=[{}] * 1001), "data", 40002),
    "an unknown source": (request(event_source="website"), "event_source", 40002),
    "no source": (request(event_source=None), "event_source", 40002),
    "no id of the source": (request(event_source_id=""), "event_source_id", 40002),
    "a pixel that cannot exist": (request(event_source_id="my-pixel"), "event_source_id", 40001),
    "a field of the generation before": (request(pixel_code="PIXELCODE"), "pixel_code", 40002),
    "a test code that is a number": (request(test_event_code=1), "test_event_code", 40002),
}


@pytest.mark.parametrize(("body", "field", "code"), BAD_BODIES.values(), ids=BAD_BODIES.keys())
async def test_each_bad_body_is_refused_by_its_place(bench: Any, body: Any, field: str, code: int) -> None:
    status, answer = await post(bench, body)

    assert (status, answer["code"]) == (200, code)
    (refused,) = await bench.refused()
    assert refused["event"] is None
    assert {reason["field"] for reason in refused["reasons"]} == {field}


@pytest.mark.parametrize(
    ("content_type", "body", "field"),
    [
        ("text/plain", orjson.dumps(request()), "Content-Type"),
        ("", b"", "Content-Type"),
        ("application/json", b"{", "body"),
        ("application/json", b"[" * 1000 + b"]" * 1000, "body"),
    ],
)
async def test_each_unreadable_body_is_refused(bench: Any, content_type: str, body: Any, field: str) -> None:
    headers = {**HEADERS, "Content-Type": content_type}
    async with bench.client.post(URL, data=body, headers=headers) as response:
        assert (response.status, (await response.json())["code"]) == (200, 40002)
    (refused,) = await bench.refused()
    assert refused["reasons"][0]["field"] == field


@pytest.mark.parametrize("headers", [{}, {"Access-Token": " "}, {"Authorization": f"Bearer {TOKEN}"}])
async def test_without_the_header_for_it_there_is_no_token(bench: Any, headers: dict[str, str]) -> None:
    status, answer = await post(bench, request(), headers=headers)

    assert (status, answer["code"]) == (200, 40104)


async def test_a_token_that_is_not_the_pixels_is_refused(start_bench: Any) -> None:
    bench = await start_bench(tokens={"tiktok": {"another"}, "tiktok:OTHERPIXEL": {TOKEN}})

    assert (await post(bench, request()))[1]["code"] == 40105
    assert (await post(bench, request(), headers={"Access-Token": f"Bearer {TOKEN}"}))[1]["code"] == 40105
    assert (await post(bench, request(event_source_id="OTHERPIXEL")))[1]["code"] == 0


@pytest.mark.parametrize(
    "url", [URL.rstrip("/"), "/tiktok/open_api/v1.2/event/track/", "/tiktok/open_api/v1.3/pixel/track/"]
)
async def test_another_address_does_not_exist(bench: Any, url: str) -> None:
    assert (await post(bench, request(), url))[0] == 404


# --- faults and secrets -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("switch", "status", "code"),
    [
        ("status_429", 429, 40100),
        ("throttle_200", 200, 40100),
        ("throttle_401", 401, 40100),
        ("status_500", 500, 50000),
    ],
)
async def test_trouble_comes_with_its_code(bench: Any, switch: str, status: int, code: int) -> None:
    await bench.faults(destination="tiktok", **{switch: 1})

    found, answer = await post(bench, request())

    assert (found, answer["code"]) == (status, code)
    assert await bench.accepted() == []


async def test_an_expired_token_is_told_by_its_code(bench: Any) -> None:
    await bench.faults(destination="tiktok", expired_token=True)

    assert (await post(bench, request()))[1]["code"] == 40105
    await bench.client.delete("/faults")
    assert (await post(bench, request()))[1]["code"] == 0


async def test_a_page_in_html_can_take_the_place_of_an_answer(bench: Any) -> None:
    await bench.faults(destination="tiktok", html_error=1)

    async with bench.client.post(URL, json=request(), headers=HEADERS) as response:
        assert (response.status, response.content_type) == (502, "text/html")


@pytest.mark.parametrize("switch", ["throttle_400", "partial"])
async def test_what_tiktok_does_not_do_cannot_be_switched_on(bench: Any, switch: str) -> None:
    status, answer = await bench.faults(destination="tiktok", **{switch: 0.5})

    assert status == 400
    assert answer["errors"][0]["field"] == switch


async def test_the_token_and_clear_data_of_refused_events_are_never_shown(bench: Any) -> None:
    await post(bench, request())
    await post(
        bench, request(event(user__email="Ada", user__first_name="Ada", properties__note=TOKEN, limited_data_use=7))
    )

    paths = ["/", "/accepted.json", "/refused.json"]
    shown = "".join([await (await bench.client.get(path)).text() for path in paths])
    assert "PIXELCODE" in shown
    assert TOKEN not in shown
    assert "Ada" not in shown


# --- de-duplication -----------------------------------------------------------------------------


async def test_a_repetition_within_48_hours_is_marked(bench: Any) -> None:
    for hours in (0, 47, 49):
        bench.clock.now = NOW + hours * 3600
        await post(bench, request(event(event_time=NOW)))

    assert [taken["duplicate"] for taken in await bench.accepted()] == [False, True, False]
    assert [taken["times"] for taken in await bench.accepted()] == [2, 2, 1]


@pytest.mark.parametrize(
    ("changes", "around"),
    [({"event": "Lead"}, {}), ({"event_id": "order-1002"}, {}), ({}, {"event_source_id": "OTHERPIXEL"})],
)
async def test_another_name_id_or_pixel_is_no_repetition(
    bench: Any, changes: dict[str, Any], around: dict[str, Any]
) -> None:
    await post(bench, request())
    await post(bench, request(event(**changes), **around))

    assert [taken["duplicate"] for taken in await bench.accepted()] == [False, False]


# --- warnings -----------------------------------------------------------------------------------

WARNED = {
    "no id": ({"event_id": ABSENT}, "event_id"),
    "an old name": ({"event": "CompletePayment"}, "event"),
    "a reserved name": ({"event": "StartCheckout"}, "event"),
    "a standard name in another case": ({"event": "purchase"}, "event"),
    "a name of GA4": ({"event": "add_to_cart"}, "event"),
    "nobody": ({"user": {"ip": "203.0.113.7"}}, "user"),
    "another click id": ({"user__ttclid": "Cj0KCQ"}, "user.ttclid"),
    "a click id that is still encoded": ({"user__ttclid": "E.C.P.a%3D"}, "user.ttclid"),
    "a private address": ({"user__ip": "10.0.0.7"}, "user.ip"),
    "a lead on the web": ({"lead": {"lead_id": "7"}}, "lead"),
}


@pytest.mark.parametrize(("changes", "field"), WARNED.values(), ids=WARNED.keys())
async def test_what_is_taken_and_could_be_better_is_warned_of(bench: Any, changes: dict[str, Any], field: str) -> None:
    _, answer = await post(bench, request(event(**changes)))

    assert answer["code"] == 0
    (taken,) = await bench.accepted()
    assert [warning["field"] for warning in taken["warnings"]] == [f"data[0].{field}"]


async def test_limited_data_use_of_what_cannot_be_limited_is_warned_of(bench: Any) -> None:
    await post(bench, request(event(page=ABSENT, limited_data_use=True), event_source="crm", event_source_id="7000001"))

    (taken,) = await bench.accepted()
    assert [warning["field"] for warning in taken["warnings"]] == ["data[0].limited_data_use"]


# --- anything at all ----------------------------------------------------------------------------

json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from(
    list(event())
    + [f"user__{key}" for key in event()["user"]]
    + [f"properties__{key}" for key in event()["properties"]]
    + [f"properties__contents__0__{key}" for key in event()["properties"]["contents"][0]]
    + ["page__url", "lead", "app"]
)


@given(field=fields, value=json, source=st.sampled_from(["web", "crm"]))
def test_no_value_of_any_field_breaks_the_checks(field: str, value: Any, source: str) -> None:
    broken = event(**{field: value})
    if not list(check_event(broken, "data[0]", NOW, source)):
        list(warn_event(broken, "data[0]", source))
