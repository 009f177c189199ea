"""The emulated Conversions API takes what Pinterest's schema allows, and refuses each broken rule by its name."""

import copy
import hashlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.sandbox.pinterest import EVENT, EVENT_NAMES, check_event, warn_event
from sinks._base import Delivered, Halt, Payload, Rejected, Response, Retry
from sinks.pinterest import Pinterest, Settings
from tests.factories import encode, make_event

NOW = 1_795_420_900
HOUR = 3600
DAY = 24 * HOUR
ACCOUNT = "pinterest:549755885175"
URL = "/pinterest/v5/ad_accounts/549755885175/events"
TOKEN = "pina_a-planted-token"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
EMAIL_HASH = "b5fc85e55755f9e0d030a10ab4429b6b2944855f9a0d60077fe832becbc41d72"
ABSENT = object()


def sha(text: str) -> Any:
    return hashlib.sha256(text.encode()).hexdigest()


def event(**changes: Any) -> Any:
    """Complete and valid; changes by dotted path, ABSENT takes a field away."""
    body = {
        "event_name": "checkout",
        "action_source": "web",
        "event_time": NOW - 100,
        "event_id": "order-1001",
        "event_source_url": "https://shop.example.com/thanks?utm_source=mail",
        "partner_name": "ss-capistream",
        "language": "en",
        "opt_out": False,
        "user_data": {
            "em": [EMAIL_HASH, sha("ada@work.example")],
            "ph": [sha("15550100199")],
            "ge": [sha("f")],
            "db": [sha("19970216")],
            "st": [sha("ca")],
            "country": [sha("us")],
            "external_id": [sha("customer-17")],
            "client_ip_address": "203.0.113.7",
            "client_user_agent": "Mozilla/5.0 (X11; Linux x86_64)",
            "click_id": "dj0yJnU9b2JD",
        },
        "custom_data": {
            "value": "59.98",
            "currency": "USD",
            "order_id": "1001",
            "content_ids": ["SKU-1"],
            "contents": [{"id": "SKU-1", "quantity": 2, "item_price": "29.99", "item_brand": "Acme"}],
            "num_items": 2,
            "opt_out_type": "LDP",
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


async def post(bench: Any, body: Any, url: str = URL, headers: dict[str, str] = BEARER) -> Any:
    async with bench.client.post(url, json=body, headers=headers) as response:
        return response.status, await response.json()


# --- what is taken ------------------------------------------------------------------------------


async def test_a_valid_request_is_accepted_and_counted(bench: Any) -> None:
    async with bench.client.post(
        URL, json={"data": [event(), event(event_id="order-1002")]}, headers=BEARER
    ) as response:
        assert response.status == 200
        assert response.headers["X-Pinterest-Rid"].isdecimal()
        answer = await response.json()
    result = {"status": "processed", "error_message": "", "warning_message": ""}
    assert answer == {"num_events_received": 2, "num_events_processed": 2, "events": [result, result]}
    first, second = await bench.accepted()
    assert first["event"] == event()
    assert first["destination"] == ACCOUNT
    assert (first["event_name"], first["event_id"], first["received"]) == ("checkout", "order-1001", NOW)
    assert (first["duplicate"], first["times"], first["warnings"]) == (False, 1, [])
    assert second["event_id"] == "order-1002"


TAKEN = {
    "an IPv6": {"user_data__client_ip_address": "2001:db8::7"},
    "an e-mail alone": {"user_data": {"em": [EMAIL_HASH]}},
    "a device alone": {"user_data": {"hashed_maids": [sha("maid")]}},
    "an IP and a user agent alone": {"user_data": {"client_ip_address": "203.0.113.7", "client_user_agent": "M"}},
    "a store's event": {"action_source": "offline", "event_time": NOW - 30 * DAY, "event_source_url": ABSENT},
    "an app's event": {
        "action_source": "app_ios",
        "app_id": "429047995",
        "app_info": {"app_store": "Apple App Store", "install_time": NOW - DAY, "window_width": 1678},
        "device_info": {"os_family": "ios", "battery_level": 78, "languages": ["en", "lt"], "locale": "en-us"},
        "wifi": True,
    },
    "null where the schema says so": {"partner_name": None, "custom_data__value": None, "user_data__click_id": None},
    "no custom data": {"event_name": "page_visit", "custom_data": ABSENT},
    "a clock half a minute ahead": {"event_time": NOW + 30},
    "several flags": {"custom_data__opt_out_type": "LDP,XYZ"},
    "a negative value": {"custom_data__value": "-5"},
}


@pytest.mark.parametrize("changes", TAKEN.values(), ids=TAKEN.keys())
async def test_what_the_schema_allows_is_taken(bench: Any, changes: dict[str, Any]) -> None:
    status, answer = await post(bench, {"data": [event(**changes)]})
    assert (status, await bench.refused()) == (200, []), answer


@pytest.mark.parametrize("name", sorted(EVENT_NAMES))
async def test_every_documented_event_is_taken_without_a_warning(bench: Any, name: str) -> None:
    assert (await post(bench, {"data": [event(event_name=name)]}))[0] == 200
    assert (await bench.accepted())[0]["warnings"] == []


async def test_a_thousand_events_fit_in_one_request(bench: Any) -> None:
    status, answer = await post(bench, {"data": [event(event_id=str(number)) for number in range(1000)]})
    assert (status, answer["num_events_processed"]) == (200, 1000)


# --- what fails the request ---------------------------------------------------------------------

MALFORMED = {
    **{
        f"no {name}": ({name: ABSENT}, name)
        for name in ("event_name", "action_source", "event_time", "event_id", "user_data")
    },
    "an unknown field": ({"event_type": "checkout"}, "event_type"),
    "an unknown field of the person": ({"user_data__email": [EMAIL_HASH]}, "user_data.email"),
    "an opt-out in the wrong place": ({"user_data__opt_out_type": "LDP"}, "user_data.opt_out_type"),
    "an unknown custom field": ({"custom_data__category_name": "Hats"}, "custom_data.category_name"),
    "an unknown field of an item": ({"custom_data__contents__0__title": "Hat"}, "custom_data.contents[0].title"),
    "an unknown field of the app": ({"app_info": {"name": "Shop"}}, "app_info.name"),
    "a name longer than a hundred": ({"device_info": {"model": "x" * 101}}, "device_info.model"),
    "a battery of more than all": ({"device_info": {"battery_level": 101}}, "device_info.battery_level"),
    "an unknown network": ({"device_info": {"network_type": "5G"}}, "device_info.network_type"),
    "time as a string": ({"event_time": str(NOW)}, "event_time"),
    "time as a fraction": ({"event_time": NOW - 0.5}, "event_time"),
    "a time out of range": ({"event_time": 2**63}, "event_time"),
    "an id that is a number": ({"event_id": 17}, "event_id"),
    "null where it is not allowed": ({"opt_out": None}, "opt_out"),
    "a hash that is no list": ({"user_data__em": EMAIL_HASH}, "user_data.em"),
    "an IP in a list": ({"user_data__client_ip_address": ["203.0.113.7"]}, "user_data.client_ip_address"),
    "nothing to know a person by": ({"user_data": {"ph": [sha("1")], "external_id": [sha("1")]}}, "user_data"),
    "a user agent alone": ({"user_data": {"client_user_agent": "Mozilla"}}, "user_data"),
    "value as a number": ({"custom_data__value": 59.98}, "custom_data.value"),
    "a price as a number": ({"custom_data__contents__0__item_price": 29.99}, "custom_data.contents[0].item_price"),
    "a quantity as a string": ({"custom_data__contents__0__quantity": "2"}, "custom_data.contents[0].quantity"),
    "half a piece": ({"custom_data__num_items": 0.5}, "custom_data.num_items"),
    "a catalogue id that is a number": ({"custom_data__content_ids": [7]}, "custom_data.content_ids[0]"),
    "wifi as a string": ({"wifi": "true"}, "wifi"),
}


@pytest.mark.parametrize(("changes", "field"), MALFORMED.values(), ids=MALFORMED.keys())
async def test_what_breaks_the_schema_fails_the_request(bench: Any, changes: dict[str, Any], field: str) -> None:
    status, answer = await post(bench, {"data": [event(event_id="good"), event(**changes)]})
    assert (status, answer) == (400, {"code": 4196, "message": "The request was invalid."})
    assert await bench.accepted() == []
    (refused,) = await bench.refused()
    assert {"field": f"data[1].{field}", "code": "4196"}.items() <= refused["reasons"][0].items(), refused["reasons"]
    balance = await bench.balance(ACCOUNT)
    assert (balance["accepted"], balance["refused"], balance["collateral"]) == (0, 1, 1)


BAD_BODIES = {
    "no data": ({}, "data"),
    "data that is no array": ({"data": event()}, "data"),
    "no event": ({"data": []}, "data"),
    "too many events": ({"data": [{}] * 1001}, "data"),
    "an unknown field": ({"data": [event()], "test": True}, "test"),
    "an array": ([event()], "body"),
}


@pytest.mark.parametrize(("body", "field"), BAD_BODIES.values(), ids=BAD_BODIES.keys())
async def test_each_bad_body_is_refused_by_its_name(bench: Any, body: Any, field: str) -> None:
    status, answer = await post(bench, body)
    assert (status, answer["code"]) == (400, 4196)
    (refused,) = await bench.refused()
    assert refused["event"] is None
    assert field in {reason["field"] for reason in refused["reasons"]}


@pytest.mark.parametrize(
    ("content_type", "body", "field"),
    [
        ("text/plain", orjson.dumps({"data": [event()]}), "Content-Type"),
        ("application/json", b"{", "body"),
        ("application/json", b"[" * 1000 + b"]" * 1000, "body"),
        ("application/x-www-form-urlencoded", b"data=%7B", "Content-Type"),
        ("", b"", "Content-Type"),
    ],
)
async def test_each_unreadable_body_is_refused(bench: Any, content_type: str, body: Any, field: str) -> None:
    headers = {**BEARER, "Content-Type": content_type}
    async with bench.client.post(URL, data=body, headers=headers) as response:
        assert response.status == 400
        assert (await response.json())["code"] == 4196
    (refused,) = await bench.refused()
    assert refused["reasons"][0]["field"] == field


@pytest.mark.parametrize(
    "url",
    [URL + "?test=1", URL + "?tests=true", "/pinterest/v5/ad_accounts/shop/events", URL.replace("549", "5" * 18)],
)
async def test_an_address_that_does_not_exist_is_refused(bench: Any, url: str) -> None:
    assert (await post(bench, {"data": [event()]}, url))[0] == 400


@pytest.mark.parametrize("url", ["/pinterest/ad_accounts/1/events", "/pinterest/v5/1/events", "/pinterest/v5/events"])
async def test_another_path_is_no_path(bench: Any, url: str) -> None:
    assert (await post(bench, {"data": [event()]}, url))[0] == 404


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer "}, {"Authorization": "Basic abc"}])
async def test_without_token_the_answer_is_401_and_code_2(bench: Any, headers: dict[str, str]) -> None:
    status, answer = await post(bench, {"data": [event()]}, headers=headers)
    assert (status, answer["code"]) == (401, 2)
    (refused,) = await bench.refused()
    assert refused["reasons"][0]["field"] == "Authorization"


async def test_a_token_that_is_not_the_accounts_is_refused(start_bench: Any) -> None:
    bench = await start_bench(tokens={"pinterest": {"another"}, "pinterest:7": {TOKEN}})
    assert (await post(bench, {"data": [event()]}))[0] == 401
    assert (await post(bench, {"data": [event()]}, "/pinterest/v5/ad_accounts/7/events"))[0] == 200


# --- what fails alone ---------------------------------------------------------------------------

FAILING = {
    "an empty name": ({"event_name": ""}, "event_name"),
    "a name of two words": ({"event_name": "two words"}, "event_name"),
    "an unknown action source": ({"action_source": "website"}, "action_source"),
    "an empty id": ({"event_id": ""}, "event_id"),
    "an e-mail as id": ({"event_id": "ada@example.com"}, "event_id"),
    "milliseconds": ({"event_time": NOW * 1000}, "event_time"),
    "the future": ({"event_time": NOW + 120}, "event_time"),
    "the year before last": ({"event_time": NOW - 540 * DAY}, "event_time"),
    "a URL without scheme": ({"event_source_url": "shop.example.com/thanks"}, "event_source_url"),
    "an e-mail in the URL": ({"event_source_url": "https://s.example/?m=ada%40example.com"}, "event_source_url"),
    "a language with a country": ({"language": "en-US"}, "language"),
    "a partner without ss": ({"partner_name": "capistream"}, "partner_name"),
    "a clear e-mail": ({"user_data__em": ["ada@example.com"]}, "user_data.em[0]"),
    "a hash in upper case": ({"user_data__em": [EMAIL_HASH, EMAIL_HASH.upper()]}, "user_data.em[1]"),
    "the hash of nothing": ({"user_data__fn": [sha("")]}, "user_data.fn[0]"),
    "an empty list of hashes": ({"user_data__em": []}, "user_data.em"),
    "a hashed IP": ({"user_data__client_ip_address": sha("203.0.113.7")}, "user_data.client_ip_address"),
    "two IPs": ({"user_data__client_ip_address": "203.0.113.7, 10.0.0.1"}, "user_data.client_ip_address"),
    "a hashed user agent": ({"user_data__client_user_agent": sha("M")}, "user_data.client_user_agent"),
    "a hashed click id": ({"user_data__click_id": sha("epik")}, "user_data.click_id"),
    "a value in words": ({"custom_data__value": "59,98 €"}, "custom_data.value"),
    "a value with an exponent": ({"custom_data__value": "1e3"}, "custom_data.value"),
    "a currency in lower case": ({"custom_data__currency": "usd"}, "custom_data.currency"),
    "no such currency": ({"custom_data__currency": "EUX"}, "custom_data.currency"),
    "an empty order id": ({"custom_data__order_id": ""}, "custom_data.order_id"),
    "no piece": ({"custom_data__contents__0__quantity": 0}, "custom_data.contents[0].quantity"),
    "an e-mail as a search": ({"custom_data__search_string": "ada@example.com"}, "custom_data.search_string"),
    "a phone as a search": ({"custom_data__search_string": "+1 555 010 0199"}, "custom_data.search_string"),
}


@pytest.mark.parametrize(("changes", "field"), FAILING.values(), ids=FAILING.keys())
async def test_each_other_broken_rule_fails_its_event_alone(bench: Any, changes: dict[str, Any], field: str) -> None:
    status, answer = await post(bench, {"data": [event(**changes), event(event_id="good")]})
    assert (status, answer["code"]) == (422, 953)
    details = answer["details"]
    assert (details["num_events_received"], details["num_events_processed"]) == (2, 1)
    assert [result["status"] for result in details["events"]] == ["failed", "processed"]
    assert details["events"][0]["error_message"]
    assert "ada@" not in str(answer)
    assert [taken["event_id"] for taken in await bench.accepted()] == ["good"]
    (refused,) = await bench.refused()
    assert {"field": f"data[0].{field}", "code": "953"} in [
        {"field": reason["field"], "code": reason["code"]} for reason in refused["reasons"]
    ], refused["reasons"]
    balance = await bench.balance(ACCOUNT)
    assert (balance["accepted"], balance["refused"], balance["collateral"]) == (1, 1, 0)


async def test_clear_data_of_a_refused_event_is_masked(bench: Any) -> None:
    await post(bench, {"data": [event(user_data__em=["ada@example.com"])]})
    async with bench.client.get("/refused.json") as response:
        text = await response.text()
    assert "ada@example.com" not in text
    assert TOKEN not in text


# --- test mode ----------------------------------------------------------------------------------


async def test_in_test_mode_the_answer_is_the_same_and_nothing_is_kept(bench: Any) -> None:
    good, bad = event(), event(action_source="website")
    malformed = event(event_time="now")
    for data in ([good], [good, bad], [malformed]):
        test = await post(bench, {"data": data}, URL + "?test=true")
        assert test == await post(bench, {"data": data}, URL + "?test=false")
    await post(bench, {"data": []}, URL + "?test=true")
    await post(bench, {"data": [good]}, URL + "?test=true", headers={})
    balance = await bench.balance(ACCOUNT)
    assert (balance["dry_runs"], balance["accepted"], balance["refused"]) == (5, 2, 2)


# --- de-duplication -----------------------------------------------------------------------------


async def test_a_repetition_within_the_hour_is_marked(bench: Any) -> None:
    for minutes in (0, 59, 61):
        bench.clock.now = NOW + minutes * 60
        await post(bench, {"data": [event()]})
    assert [taken["duplicate"] for taken in await bench.accepted()] == [False, True, False]


@pytest.mark.parametrize(
    ("other", "url"),
    [
        ({"event_name": "lead"}, URL),
        ({"event_id": "order-1002"}, URL),
        ({}, "/pinterest/v5/ad_accounts/7/events"),
        ({"action_source": "offline"}, URL),
    ],
)
async def test_another_name_id_or_account_is_no_repetition(bench: Any, other: dict[str, Any], url: str) -> None:
    await post(bench, {"data": [event()]})
    await post(bench, {"data": [event(**other)]}, url)
    assert [taken["duplicate"] for taken in await bench.accepted()] == [False, False]


async def test_every_copy_of_an_offline_event_counts(bench: Any) -> None:
    for _ in range(2):
        await post(bench, {"data": [event(action_source="offline")]})
    assert [(taken["duplicate"], taken["times"]) for taken in await bench.accepted()] == [(False, 1), (False, 1)]


# --- warnings -----------------------------------------------------------------------------------

WARNED = {
    "an event of one's own": ({"event_name": "purchase"}, "event_name"),
    "a web event of two hours ago": ({"event_time": NOW - 2 * HOUR}, "event_time"),
    "no page": ({"event_source_url": ABSENT}, "event_source_url"),
    "a checkout of no value": ({"custom_data__value": ABSENT}, "custom_data.value"),
    "a value of no currency": ({"custom_data__currency": ABSENT}, "custom_data.currency"),
    "a hash of a state's name": ({"user_data__st": [sha("california")]}, "user_data.st"),
    "a hash of a country in upper case": ({"user_data__country": [sha("US")]}, "user_data.country"),
    "a hash of a hash": ({"user_data__ge": [sha(sha("f"))]}, "user_data.ge"),
    "a hash of a date with dashes": ({"user_data__db": [sha("1997-02-16")]}, "user_data.db"),
}


@pytest.mark.parametrize(("changes", "field"), WARNED.values(), ids=WARNED.keys())
async def test_what_is_taken_and_could_be_better_is_warned_of(bench: Any, changes: dict[str, Any], field: str) -> None:
    status, answer = await post(bench, {"data": [event(**changes)]})
    assert status == 200
    assert answer["events"][0]["status"] == "processed"
    assert answer["events"][0]["warning_message"]
    (taken,) = await bench.accepted()
    assert [warning["field"] for warning in taken["warnings"]] == [f"data[0].{field}"]
    assert (await bench.balance(ACCOUNT))["warned"] == 1


# --- faults -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("switches", "status", "code"),
    [
        ({"status_429": 1}, 429, 8),
        ({"status_500": 1}, 500, 12),
        ({"expired_token": True}, 401, 2),
        ({"partial": 1}, 422, 953),
    ],
)
async def test_each_fault_is_said_as_pinterest_says_it(
    bench: Any, switches: dict[str, Any], status: int, code: int
) -> None:
    await bench.faults(destination="pinterest", **switches)
    found, answer = await post(bench, {"data": [event()]})
    assert (found, answer["code"]) == (status, code)
    assert await bench.accepted() == []


async def test_pinterest_does_not_throttle_with_a_400(bench: Any) -> None:
    assert (await bench.faults(destination="pinterest", throttle_400=1))[0] == 400


async def test_some_good_events_fail_alone_on_request(bench: Any) -> None:
    await bench.faults(destination="pinterest", partial=0.5, seed=3)
    status, answer = await post(bench, {"data": [event(event_id=str(number)) for number in range(40)]})
    assert status == 422
    taken = [result["status"] == "processed" for result in answer["details"]["events"]]
    assert 5 < sum(taken) < 35
    assert [one["event_id"] for one in await bench.accepted()] == [str(n) for n in range(40) if taken[n]]


# --- sink and emulator, each written from Pinterest's rules ---------------------------------------


async def send(bench: Any, *events: Any, test: bool = False, **settings: Any) -> Any:
    """As deliver does it: the outcomes of these events."""
    endpoint = str(bench.client.make_url("/pinterest"))
    chosen = {"sink": "pinterest", "ad_account_id": "549755885175", "access_token": {"env": "X"}, "endpoint": endpoint}
    sink = Pinterest(Settings.model_validate(chosen | settings))
    batch = [encode(sink, event) for event in events]
    assert all(isinstance(payload, Payload) for payload in batch), batch
    request = (sink.test_request if test else sink.request)(batch, {"access_token": TOKEN})  # type: ignore[arg-type]
    async with bench.client.session.post(request.url, data=request.body, headers=request.headers) as response:
        return sink.verdict(batch, Response(response.status, response.headers, await response.read()))  # type: ignore[arg-type]


async def test_each_event_of_our_sink_gets_its_own_outcome(bench: Any) -> None:
    future = (NOW + HOUR) * 1000
    outcomes = await send(bench, make_event(), make_event(event_id="2", time=future), make_event(event_id="3"))
    assert [type(outcome) for outcome in outcomes] == [Delivered, Rejected, Delivered]
    assert outcomes[1].reason == "the event's time is not taken"
    assert outcomes[1].detail == outcomes[0].detail
    assert outcomes[0].detail.startswith("request ")
    assert [(taken["event_id"], taken["warnings"]) for taken in await bench.accepted()] == [
        ("order-1001", []),
        ("3", []),
    ]


async def test_the_test_mode_of_our_sink_leaves_nothing(bench: Any) -> None:
    (outcome,) = await send(bench, make_event(), test=True)
    assert isinstance(outcome, Delivered)
    assert (await bench.balance(ACCOUNT))["dry_runs"] == 1
    assert await bench.accepted() == []


@pytest.mark.parametrize(
    ("switches", "expected"),
    [
        ({"status_429": 1, "retry_after": 7}, Retry("throttled", 7.0, "Pinterest error 8", throttled=True)),
        ({"status_500": 1}, Retry("HTTP 500", None, "Pinterest error 12", unclear=True)),
        ({"html_error": 1}, Retry("HTTP 502", unclear=True)),
        ({"html_error": 1, "html_status": 200}, Retry("HTTP 200 without a receipt that fits", unclear=True)),
    ],
)
async def test_our_sink_understands_each_fault(bench: Any, switches: Any, expected: Any) -> None:
    await bench.faults(destination="pinterest", **switches)
    assert await send(bench, make_event(), make_event(event_id="2")) == [expected] * 2


async def test_our_sink_halts_for_an_expired_token(bench: Any) -> None:
    await bench.faults(destination="pinterest", expired_token=True)
    (outcome,) = await send(bench, make_event())
    assert isinstance(outcome, Halt)
    assert outcome.reason == "the token is invalid or has expired"


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
    + ["user_data", "custom_data", "custom_data__contents__0__id", "app_info", "device_info", "wifi"]
)


@given(field=fields, value=json)
def test_no_value_of_any_field_breaks_the_checks(field: str, value: Any) -> None:
    broken = event(**{field: value})
    if not list(EVENT(broken, "data[0]")) and not list(check_event(broken, "data[0]", NOW)):
        list(warn_event(broken, "data[0]", NOW))
