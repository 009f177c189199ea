"""The emulated Conversions API takes what Meta's reference allows, and refuses each broken rule by its name."""

import copy
import hashlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.sandbox.meta import check_event, warn_event

NOW = 1_795_420_900
DAY = 86_400
URL = "/meta/v26.0/1234567890/events"
TOKEN = "EAAB-a-planted-token"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
EMAIL_HASH = "b5fc85e55755f9e0d030a10ab4429b6b2944855f9a0d60077fe832becbc41d72"
ABSENT = object()


def sha(text: str) -> Any:
    return hashlib.sha256(text.encode()).hexdigest()


def event(**changes: Any) -> Any:
    """Complete and valid; changes by dotted path, ABSENT takes a field away."""
    body = {
        "event_name": "Purchase",
        "event_time": NOW - 100,
        "event_id": "order-1001",
        "action_source": "website",
        "event_source_url": "https://shop.example.com/thanks?utm_source=mail",
        "referrer_url": "https://www.google.com/",
        "opt_out": False,
        "user_data": {
            "em": [EMAIL_HASH],
            "ph": "90be998a6e4b5bec4f18e14bc56a618ba6dd57100b89276067e3a77ff7140b4a",
            "country": [sha("us")],
            "ge": sha("f"),
            "db": sha("19970216"),
            "external_id": ["customer-17"],
            "client_ip_address": "203.0.113.7",
            "client_user_agent": "Mozilla/5.0 (X11; Linux x86_64)",
            "fbp": "fb.1.1795420000000.1234567890",
            "fbc": "fb.1.1795410000000.AbCdEf",
        },
        "custom_data": {
            "value": 59.98,
            "currency": "USD",
            "order_id": "1001",
            "content_type": "product",
            "content_ids": ["SKU-1", 7],
            "contents": [{"id": "SKU-1", "quantity": 2, "item_price": 29.99, "delivery_category": "home_delivery"}],
            "num_items": 2,
            "colour": "blue",
        },
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


async def post(bench: Any, body: Any, url: str = URL, headers: dict[str, str] = BEARER, **options: Any) -> Any:
    async with bench.client.post(url, json=body, headers=headers, **options) as response:
        return response.status, await response.json()


# --- what is taken ------------------------------------------------------------------------------


async def test_a_valid_request_is_accepted_and_counted(bench: Any) -> None:
    status, answer = await post(bench, {"data": [event(), event(event_id="order-1002")]})
    assert status == 200
    assert answer["events_received"] == 2
    assert answer["messages"] == []
    assert answer["fbtrace_id"].startswith("A")
    first, second = await bench.accepted()
    assert first["event"] == event()
    assert first["destination"] == "meta:1234567890"
    assert (first["platform"], first["account"]) == ("meta", "1234567890")
    assert (first["event_name"], first["event_id"], first["received"]) == ("Purchase", "order-1001", NOW)
    assert (first["duplicate"], first["times"], first["warnings"]) == (False, 1, [])
    assert second["event_id"] == "order-1002"


TAKEN = {
    "a custom event": {"event_name": "Wishlist Shared", "custom_data": ABSENT},
    "a hash with the parameter builder's suffix": {"user_data__em": [f"{EMAIL_HASH}.AQ", f"{EMAIL_HASH}.a1B2c3_-"]},
    "an IP with the suffix": {"user_data__client_ip_address": "203.0.113.7.Bg"},
    "an IPv6": {"user_data__client_ip_address": "2001:db8::7"},
    "an IPv6 with the suffix": {"user_data__client_ip_address": "2001:db8::7.AQ"},
    "five parts in fbp": {"user_data__fbp": "fb.1.1795420000000.1234567890.AQ"},
    "five parts in fbc": {"user_data__fbc": "fb.1.1795410000000.AbCdEf.a1B2c3_-"},
    "a store's event of two months ago": {"action_source": "physical_store", "event_time": NOW - 61 * DAY},
    "the age limit": {"event_time": NOW - 7 * DAY},
    "a clock half a minute ahead": {"event_time": NOW + 30},
    "currency in lower case": {"custom_data__currency": "usd"},
    "no limited data use": {"data_processing_options": []},
    "limited data use by IP": {
        "data_processing_options": ["LDU"],
        "data_processing_options_country": 0,
        "data_processing_options_state": 0,
    },
    "limited data use in California": {
        "data_processing_options": ["LDU"],
        "data_processing_options_country": 1,
        "data_processing_options_state": 1000,
        "user_data__client_ip_address": ABSENT,
    },
    "an app event": {
        "action_source": "app",
        "app_data": {
            "advertiser_tracking_enabled": 1,
            "application_tracking_enabled": True,
            "extinfo": ["a2"] + [""] * 15,
        },
    },
    "a lead": {"event_name": "Lead", "custom_data": ABSENT, "user_data__lead_id": 1234567890123456},
    "an earlier event": {"original_event_data": {"event_name": "Purchase", "event_time": NOW - DAY, "event_id": "x"}},
    "a fediverse page": {"event_source_url": "https://social.example/@ada/1"},
    "an IP and a user agent alone": {"user_data": {"client_ip_address": "203.0.113.7", "client_user_agent": "Mozilla"}},
}


@pytest.mark.parametrize("changes", TAKEN.values(), ids=TAKEN.keys())
async def test_what_the_reference_allows_is_taken(bench: Any, changes: dict[str, Any]) -> None:
    status, answer = await post(bench, {"data": [event(**changes)]})
    assert (status, await bench.refused()) == (200, []), answer


async def test_a_thousand_events_fit_in_one_request(bench: Any) -> None:
    status, answer = await post(bench, {"data": [event(event_id=str(number)) for number in range(1000)]})
    assert (status, answer["events_received"]) == (200, 1000)


@pytest.mark.parametrize("where", ["bearer", "query", "body", "form"])
async def test_the_token_may_come_in_four_ways(bench: Any, where: str) -> None:
    body = {"data": [event()], "test_event_code": "TEST123"}
    if where == "bearer":
        status, _ = await post(bench, body)
    elif where == "query":
        status, _ = await post(bench, body, URL + f"?access_token={TOKEN}", headers={})
    elif where == "body":
        status, _ = await post(bench, {**body, "access_token": TOKEN}, headers={})
    else:
        form = {"access_token": TOKEN, "data": orjson.dumps(body["data"]).decode(), "test_event_code": "TEST123"}
        async with bench.client.post(URL, data=form) as response:
            status = response.status
    assert status == 200
    (taken,) = await bench.accepted()
    assert taken["request"]["envelope"]["test_event_code"] == "TEST123"


async def test_an_old_version_is_upgraded_with_a_warning(bench: Any) -> None:
    async with bench.client.post("/meta/v21.0/1/events", json={"data": [event()]}, headers=BEARER) as response:
        assert response.status == 200
        assert "v25.0" in response.headers["X-Ad-Api-Version-Warning"]


# --- what is refused ----------------------------------------------------------------------------

BROKEN = {
    "no name": ({"event_name": ABSENT}, "event_name", "100"),
    "an empty name": ({"event_name": " "}, "event_name", "100"),
    "no time": ({"event_time": ABSENT}, "event_time", "100"),
    "milliseconds": ({"event_time": NOW * 1000}, "event_time", "100/2804004"),
    "the future": ({"event_time": NOW + 120}, "event_time", "100/2804004"),
    "eight days old": ({"event_time": NOW - 8 * DAY}, "event_time", "100/2804003"),
    "a store's event of 63 days ago": (
        {"action_source": "physical_store", "event_time": NOW - 63 * DAY},
        "event_time",
        "100/2804003",
    ),
    "time as a string": ({"event_time": str(NOW)}, "event_time", "100"),
    "time as a fraction": ({"event_time": NOW - 0.5}, "event_time", "100"),
    "an id that is a number": ({"event_id": 17}, "event_id", "100"),
    "an empty id": ({"event_id": ""}, "event_id", "100"),
    "an e-mail as id": ({"event_id": "ada@example.com"}, "event_id", "100"),
    "no action source": ({"action_source": ABSENT}, "action_source", "100"),
    "an unknown action source": ({"action_source": "Website"}, "action_source", "100"),
    "no URL": ({"event_source_url": ABSENT}, "event_source_url", "100"),
    "a URL without scheme": ({"event_source_url": "shop.example.com/thanks"}, "event_source_url", "100"),
    "an e-mail in the URL": ({"event_source_url": "https://s.example/?m=ada@example.com"}, "event_source_url", "100"),
    "an encoded e-mail": ({"event_source_url": "https://s.example/?m=ada%2540example.com"}, "event_source_url", "100"),
    "an e-mail in the referrer": ({"referrer_url": "https://s.example/?m=ada%40example.com"}, "referrer_url", "100"),
    "an unknown field": ({"time": NOW}, "time", "100"),
    "null": ({"opt_out": None}, "opt_out", "100"),
    "opt_out as a string": ({"opt_out": "true"}, "opt_out", "100"),
    "no user data": ({"user_data": ABSENT}, "user_data", "100"),
    "user data that is a list": ({"user_data": []}, "user_data", "100"),
    "no user agent": ({"user_data__client_user_agent": ABSENT}, "user_data.client_user_agent", "100"),
    "a clear e-mail": ({"user_data__em": "ada@example.com"}, "user_data.em", "100/2804016"),
    "a clear e-mail in a list": ({"user_data__em": [EMAIL_HASH, "a@b.co"]}, "user_data.em[1]", "100/2804016"),
    "a hash in upper case": ({"user_data__em": EMAIL_HASH.upper()}, "user_data.em", "100/2804016"),
    "a hash in base64": ({"user_data__ph": "kL6ZimbktOxPGOFLxWph"}, "user_data.ph", "100/2804016"),
    "a malformed suffix": ({"user_data__em": EMAIL_HASH + ".!"}, "user_data.em", "100/2804016"),
    "the hash of nothing": ({"user_data__fn": sha("")}, "user_data.fn", "100/2804016"),
    "an empty list": ({"user_data__em": []}, "user_data.em", "100"),
    "an e-mail as external id": ({"user_data__external_id": "ada@example.com"}, "user_data.external_id", "100"),
    "a hashed IP": ({"user_data__client_ip_address": sha("203.0.113.7")}, "user_data.client_ip_address", "100"),
    "no IP": ({"user_data__client_ip_address": "203.0.113"}, "user_data.client_ip_address", "100"),
    "two IPs": ({"user_data__client_ip_address": "203.0.113.7, 10.0.0.1"}, "user_data.client_ip_address", "100"),
    "a hashed user agent": ({"user_data__client_user_agent": sha("M")}, "user_data.client_user_agent", "100"),
    "a hashed fbp": ({"user_data__fbp": sha("fb.1.1.1")}, "user_data.fbp", "100"),
    "a malformed fbp": ({"user_data__fbp": "1234567890"}, "user_data.fbp", "100"),
    "seconds in fbc": ({"user_data__fbc": "fb.1.1795410000.AbCdEf"}, "user_data.fbc", "100"),
    "a bare fbclid": ({"user_data__fbc": "AbCdEf"}, "user_data.fbc", "100"),
    "an unknown key": ({"user_data__email": [EMAIL_HASH]}, "user_data.email", "100"),
    "a hashed lead id": ({"user_data__lead_id": sha("1")}, "user_data.lead_id", "100"),
    "a hashed madid": ({"user_data__madid": sha("1")}, "user_data.madid", "100"),
    "nothing to match by": ({"user_data": {}}, "user_data", "100/2804050"),
    "a user agent alone": ({"user_data": {"client_user_agent": "M"}}, "user_data", "100/2804050"),
    "a place alone": (
        {"user_data": {"ct": sha("berlin"), "country": sha("de"), "client_user_agent": "M"}},
        "user_data",
        "100/2804050",
    ),
    "a first name alone": (
        {"action_source": "other", "user_data": {"fn": sha("ada"), "ge": sha("f")}},
        "user_data",
        "100/2804050",
    ),
    "a purchase without custom data": ({"custom_data": ABSENT}, "custom_data.value", "100/2804009"),
    "a purchase without value": ({"custom_data__value": ABSENT}, "custom_data.value", "100/2804009"),
    "a purchase without currency": ({"custom_data__currency": ABSENT}, "custom_data.currency", "100/2804023"),
    "a value without currency": (
        {"event_name": "Lead", "custom_data__currency": ABSENT},
        "custom_data.currency",
        "100/2804023",
    ),
    "value as a string": ({"custom_data__value": "59.98"}, "custom_data.value", "100"),
    "a currency sign": ({"custom_data__currency": "$"}, "custom_data.currency", "100"),
    "no such currency": ({"custom_data__currency": "EUX"}, "custom_data.currency", "100"),
    "an item without id": ({"custom_data__contents": [{"quantity": 1}]}, "custom_data.contents[0].id", "100/2804008"),
    "an item with an empty id": ({"custom_data__contents": [{"id": ""}]}, "custom_data.contents[0].id", "100/2804008"),
    "half a piece": ({"custom_data__contents__0__quantity": 0.5}, "custom_data.contents[0].quantity", "100"),
    "a price as a string": ({"custom_data__contents__0__item_price": "9"}, "custom_data.contents[0].item_price", "100"),
    "a foreign item key": ({"custom_data__contents__0__price": 9}, "custom_data.contents[0].price", "100"),
    "an unknown content type": ({"custom_data__content_type": "products"}, "custom_data.content_type", "100"),
    "ids as a string": ({"custom_data__content_ids": "SKU-1"}, "custom_data.content_ids", "100"),
    "an order id that is a number": ({"custom_data__order_id": 1001}, "custom_data.order_id", "100"),
    "an object of one's own": ({"custom_data__extra": {"a": 1}}, "custom_data.extra", "100"),
    "an e-mail in custom data": ({"custom_data__note": "write to ada@example.com"}, "custom_data.note", "100"),
    "a phone in custom data": ({"custom_data__note": "+1 555 010 0199"}, "custom_data.note", "100"),
    "an e-mail as a key": ({"custom_data__ada@example.com": 1}, "custom_data.(unnamed)", "100"),
    "LDU without country": ({"data_processing_options": ["LDU"]}, "data_processing_options_country", "100"),
    "a country without state": (
        {"data_processing_options": ["LDU"], "data_processing_options_country": 1},
        "data_processing_options_state",
        "100",
    ),
    "an unknown state": ({"data_processing_options_state": 1004 + 500}, "data_processing_options_state", "100"),
    "LDU that nobody can locate": (
        {
            "data_processing_options": ["LDU"],
            "data_processing_options_country": 0,
            "data_processing_options_state": 0,
            "user_data__client_ip_address": ABSENT,
        },
        "data_processing_options_state",
        "100",
    ),
    "an unknown processing option": ({"data_processing_options": ["ldu"]}, "data_processing_options[0]", "100"),
    "an app event without app data": ({"action_source": "app"}, "app_data", "100"),
    "app data without system": (
        {
            "app_data": {
                "advertiser_tracking_enabled": 1,
                "application_tracking_enabled": 1,
                "extinfo": [""] * 16,
            }
        },
        "app_data.extinfo[0]",
        "100/2804043",
    ),
    "app data with too little": ({"app_data": {"extinfo": ["a2"]}}, "app_data.extinfo", "100"),
    "a message without channel": ({"action_source": "business_messaging"}, "messaging_channel", "100"),
}


@pytest.mark.parametrize(("changes", "field", "code"), BROKEN.values(), ids=BROKEN.keys())
async def test_each_broken_rule_is_refused_by_its_name(
    bench: Any, changes: dict[str, Any], field: str, code: str
) -> None:
    status, answer = await post(bench, {"data": [event(**changes)]})
    assert status == 400
    assert await bench.accepted() == []
    (refused,) = await bench.refused()
    reasons = {reason["field"]: reason["code"] for reason in refused["reasons"]}
    assert reasons.get(f"data[0].{field}") == code, refused["reasons"]
    error = answer["error"]
    assert error["code"] == 100
    if len(refused["reasons"]) == 1:
        assert error.get("error_subcode") == (int(code.partition("/")[2]) if "/" in code else None)
    assert error["fbtrace_id"]
    assert field not in str(answer), "the answer must not say more than Meta's does"


async def test_one_bad_event_fails_the_request_and_only_it_is_listed(bench: Any) -> None:
    data = [event(event_id=str(number)) for number in range(10)]
    data[6]["event_time"] -= 30 * DAY
    status, answer = await post(bench, {"data": data})
    assert status == 400
    assert answer["error"]["error_subcode"] == 2804003
    (refused,) = await bench.refused()
    assert refused["event_id"] == "6"
    assert refused["reasons"] == [
        {"field": "data[6].event_time", "reason": "is older than 7 days", "code": "100/2804003"}
    ]
    balance = await bench.balance("meta:1234567890")
    assert (balance["accepted"], balance["refused"], balance["collateral"]) == (0, 1, 9)


BAD_BODIES = {
    "no data": ({}, "data"),
    "data that is no array": ({"data": event()}, "data"),
    "no event": ({"data": []}, "data"),
    "too many events": ({"data": [{}] * 1001}, "data"),
    "an unknown field": ({"data": [event()], "pixel_id": "1"}, "pixel_id"),
    "a test code that is a number": ({"data": [event()], "test_event_code": 1}, "test_event_code"),
    "a long agent": ({"data": [event()], "partner_agent": "a" * 23}, "partner_agent"),
    "an agent without letters": ({"data": [event()], "partner_agent": "1.2.3"}, "partner_agent"),
    "an array": ([event()], "body"),
}


@pytest.mark.parametrize(("body", "field"), BAD_BODIES.values(), ids=BAD_BODIES.keys())
async def test_each_bad_body_is_refused_by_its_name(bench: Any, body: Any, field: str) -> None:
    status, answer = await post(bench, body)
    assert (status, answer["error"]["code"]) == (400, 100)
    (refused,) = await bench.refused()
    assert refused["event"] is None
    assert field in {reason["field"] for reason in refused["reasons"]}


@pytest.mark.parametrize(
    ("content_type", "body", "field"),
    [
        ("text/plain", orjson.dumps({"data": [event()]}), "Content-Type"),
        ("application/json", b"{", "body"),
        ("application/json", b"[" * 1000 + b"]" * 1000, "body"),
        ("application/x-www-form-urlencoded", b"data=%7B", "body"),
        ("application/x-www-form-urlencoded", b"\xff", "body"),
        ("", b"", "Content-Type"),
    ],
)
async def test_each_unreadable_body_is_refused(bench: Any, content_type: str, body: Any, field: str) -> None:
    headers = {**BEARER, "Content-Type": content_type}
    async with bench.client.post(URL, data=body, headers=headers) as response:
        assert response.status == 400
        assert (await response.json())["error"]["code"] == 100
    (refused,) = await bench.refused()
    assert refused["reasons"][0]["field"] == field


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer "}, {"Authorization": "Basic abc"}])
async def test_without_token_the_answer_is_401_and_code_190(bench: Any, headers: dict[str, str]) -> None:
    status, answer = await post(bench, {"data": [event()]}, headers=headers)
    assert (status, answer["error"]["code"]) == (401, 190)
    (refused,) = await bench.refused()
    assert refused["reasons"][0]["field"] == "access_token"


async def test_a_token_that_is_not_the_datasets_is_refused(start_bench: Any) -> None:
    bench = await start_bench(tokens={"meta": {"another"}, "meta:7": {TOKEN}})
    assert (await post(bench, {"data": [event()]}))[0] == 401
    assert (await post(bench, {"data": [event()]}, "/meta/v26.0/7/events"))[0] == 200


async def test_a_dataset_that_cannot_exist_is_not_found(bench: Any) -> None:
    _, answer = await post(bench, {"data": [event()]}, "/meta/v26.0/my-pixel/events")
    assert (answer["error"]["code"], answer["error"]["error_subcode"]) == (100, 33)


@pytest.mark.parametrize("url", ["/meta/v27.0/1/events", URL + "?acces_token=x"])
async def test_an_address_that_does_not_exist_is_refused(bench: Any, url: str) -> None:
    assert (await post(bench, {"data": [event()]}, url))[0] == 400


@pytest.mark.parametrize("url", ["/meta/1/events", "/meta/26.0/1/events", "/meta/v26.0/1/event"])
async def test_a_path_without_version_is_no_path(bench: Any, url: str) -> None:
    assert (await post(bench, {"data": [event()]}, url))[0] == 404
    assert (await bench.refused())[0]["reasons"][0]["field"] == "path"


# --- de-duplication -----------------------------------------------------------------------------


async def test_a_repetition_within_48_hours_is_marked(bench: Any) -> None:
    for _ in range(3):
        await post(bench, {"data": [event()]})
    assert [(taken["duplicate"], taken["times"]) for taken in await bench.accepted()] == [
        (False, 3),
        (True, 3),
        (True, 3),
    ]
    balance = await bench.balance("meta:1234567890")
    assert (balance["accepted"], balance["unique"], balance["duplicates"]) == (3, 1, 2)


async def test_the_window_runs_from_the_first_copy(bench: Any) -> None:
    for hours in (0, 47, 49):
        bench.clock.now = NOW + hours * 3600
        await post(bench, {"data": [event(event_time=NOW)]})
    assert [taken["duplicate"] for taken in await bench.accepted()] == [False, True, False]
    assert [taken["times"] for taken in await bench.accepted()] == [2, 2, 1]


@pytest.mark.parametrize(
    ("other", "url"),
    [({"event_name": "Lead"}, URL), ({"event_id": "order-1002"}, URL), ({}, "/meta/v26.0/7/events")],
)
async def test_another_name_id_or_dataset_is_no_repetition(bench: Any, other: dict[str, Any], url: str) -> None:
    await post(bench, {"data": [event()]})
    await post(bench, {"data": [event(**other)]}, url)
    assert [taken["duplicate"] for taken in await bench.accepted()] == [False, False]


async def test_without_event_id_every_copy_counts(bench: Any) -> None:
    for _ in range(2):
        await post(bench, {"data": [event(event_id=ABSENT)]})
    assert [(taken["duplicate"], taken["times"]) for taken in await bench.accepted()] == [(False, 1), (False, 1)]


# --- warnings -----------------------------------------------------------------------------------

WARNED = {
    "no id": ({"event_id": ABSENT}, "event_id"),
    "a standard name in another case": ({"event_name": "purchase"}, "event_name"),
    "a GA4 name": ({"event_name": "add_to_cart"}, "event_name"),
    "a hash of a country in upper case": ({"user_data__country": sha("US")}, "user_data.country"),
    "a hash of a hash": ({"user_data__ge": [sha(sha("f"))]}, "user_data.ge"),
    "a hash of a date with dashes": ({"user_data__db": sha("1997-02-16")}, "user_data.db"),
    "a private address": ({"user_data__client_ip_address": "10.0.0.7"}, "user_data.client_ip_address"),
    "ids of no type": ({"custom_data__content_type": ABSENT}, "custom_data.content_type"),
    "a search for nothing": ({"event_name": "Search"}, "custom_data.search_string"),
}


@pytest.mark.parametrize(("changes", "field"), WARNED.values(), ids=WARNED.keys())
async def test_what_is_taken_and_could_be_better_is_warned_of(bench: Any, changes: dict[str, Any], field: str) -> None:
    assert (await post(bench, {"data": [event(**changes)]}))[0] == 200
    (taken,) = await bench.accepted()
    assert [warning["field"] for warning in taken["warnings"]] == [f"data[0].{field}"]
    assert (await bench.balance("meta:1234567890"))["warned"] == 1


async def test_a_token_in_the_url_is_warned_of(bench: Any) -> None:
    await post(bench, {"data": [event()]}, URL + f"?access_token={TOKEN}", headers={})
    (taken,) = await bench.accepted()
    assert [warning["field"] for warning in taken["warnings"]] == ["query.access_token"]


# --- anything at all ----------------------------------------------------------------------------

json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from(
    [path for path in event() if path not in ("user_data", "custom_data")]
    + [f"user_data__{key}" for key in event()["user_data"]]
    + [f"custom_data__{key}" for key in event()["custom_data"]]
    + ["user_data", "custom_data", "custom_data__contents__0__id", "app_data", "data_processing_options_state"]
)


@given(field=fields, value=json)
def test_no_value_of_any_field_breaks_the_checks(field: str, value: Any) -> None:
    broken = event(**{field: value})
    if not list(check_event(broken, "data[0]", NOW)):
        list(warn_event(broken, "data[0]"))
