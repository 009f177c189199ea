"""The emulated receiver takes signed events of the documented form, and refuses each broken rule by its name."""

import base64
import copy
import hashlib
import hmac
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.sandbox.webhook import check_event
from sinks._base import Payload
from sinks.webhook import Settings, Webhook
from tests.factories import make_event

NOW = 1_795_420_900
URL = "/webhook/shop"
KEY = b"24 bytes are the minimum"
SECRET = "whsec_" + base64.b64encode(KEY).decode()
HASH = "b5fc85e55755f9e0d030a10ab4429b6b2944855f9a0d60077fe832becbc41d72"
ABSENT = object()


def event(**changes: Any) -> Any:
    """Complete and valid; changes by path with double underscores, ABSENT takes a field away."""
    whole = copy.deepcopy(
        {
            "event_id": "order-1001",
            "event_name": "purchase",
            "site": "shop",
            "source": "server",
            "time": (NOW - 100) * 1000,
            "received": (NOW - 99) * 1000,
            "user": {"email": {"plain": HASH, "gmail": HASH}, "city": "Berlin", "user_id": "customer-7"},
            "context": {"ip": "203.0.113.7", "url": "https://shop.example/"},
            "ids": {"fbp": "fb.1.1.1"},
            "commerce": {
                "value": 59.98,
                "currency": "EUR",
                "transaction_id": "1001",
                "items": [{"item_id": "SKU-1", "quantity": 2, "price": 29.99}],
            },
            "consent": {"ad_user_data": "granted", "gpc": False, "categories": {"ads": True}},
            "tags": {"meta": {"ran": True, "event_id": "order-1001"}},
            "labels": ["test"],
            "custom": {"plan": "gold", "seats": 3},
        }
    )
    for path, value in changes.items():
        target: Any = whole
        *parents, last = path.split("__")
        for parent in parents:
            target = target[int(parent) if parent.isdigit() else parent]
        if value is ABSENT:
            del target[last]
        else:
            target[last] = value
    return whole


def signed(
    body: bytes, *, key: bytes = KEY, at: Any = NOW, message_id: str = "msg_1", **headers: str
) -> dict[str, str]:
    signature = hmac.new(key, f"{message_id}.{at}.".encode() + body, hashlib.sha256).digest()
    return {
        "Content-Type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(at),
        "webhook-signature": f"v1,{base64.b64encode(signature).decode()}",
        **headers,
    }


async def post(bench: Any, *events: Any, url: str = URL, **options: Any) -> int:
    body = orjson.dumps({"events": list(events)})
    async with bench.client.post(url, data=body, headers=signed(body, **options)) as response:
        return int(response.status)


async def fields(bench: Any) -> list[str]:
    return [reason["field"] for refused in await bench.refused() for reason in refused["reasons"]]


# --- what is taken ------------------------------------------------------------------------------


async def test_signed_events_are_taken(start_bench: Any) -> None:
    bench = await start_bench(tokens={"webhook": {SECRET}})
    assert await post(bench, event(), event(event_id="order-1002")) == 204
    first, second = await bench.accepted()
    assert (first["destination"], first["event_name"], first["event_id"]) == ("webhook:shop", "purchase", "order-1001")
    assert first["event"] == event()
    assert (second["event_id"], first["warnings"], await bench.refused()) == ("order-1002", [], [])


TAKEN = {
    "only what tells which event it is": dict.fromkeys(
        ("user", "context", "ids", "commerce", "consent", "tags", "labels", "custom"), ABSENT
    ),
    "a revision": {"revision": 2},
    "empty parts": {"user": {}, "commerce__items": [], "labels": []},
    "an old event": {"time": (NOW - 90 * 86_400) * 1000},
}


@pytest.mark.parametrize("changes", TAKEN.values(), ids=TAKEN.keys())
async def test_what_the_docs_allow_is_taken(bench: Any, changes: dict[str, Any]) -> None:
    assert await post(bench, event(**changes)) == 204


async def test_a_field_that_no_event_has_is_taken_and_warned_of(bench: Any) -> None:
    assert await post(bench, event(margin=12.5)) == 204
    (taken,) = await bench.accepted()
    assert [warning["field"] for warning in taken["warnings"]] == ["events[0].margin"]


async def test_an_account_in_the_path_is_not_needed(bench: Any) -> None:
    assert await post(bench, event(), url="/webhook") == 204
    assert (await bench.balance("webhook:(none)"))["accepted"] == 1


@pytest.mark.parametrize("at", [NOW - 300, NOW + 300])
async def test_clocks_may_differ_by_five_minutes(bench: Any, at: int) -> None:
    assert await post(bench, event(), at=at) == 204


# --- what is refused ----------------------------------------------------------------------------

BROKEN = {
    "no id": ({"event_id": ABSENT}, "event_id"),
    "an empty name": ({"event_name": ""}, "event_name"),
    "no site": ({"site": ABSENT}, "site"),
    "an unknown source": ({"source": "browser"}, "source"),
    "seconds": ({"time": NOW}, "time"),
    "the future": ({"time": (NOW + 1000) * 1000}, "time"),
    "a time as text": ({"received": "2026-11-23T08:00:00Z"}, "received"),
    "half a revision": ({"revision": 0.5}, "revision"),
    "a clear e-mail": ({"user__email": "ada@example.com"}, "user.email"),
    "a clear e-mail as variant": ({"user__email__plain": "ada@example.com"}, "user.email.plain"),
    "a hash in upper case": ({"user__email__plain": HASH.upper()}, "user.email.plain"),
    "an unknown identifier": ({"user__mail": {}}, "user.mail"),
    "a value as text": ({"commerce__value": "59.98"}, "commerce.value"),
    "a value without currency": ({"commerce__currency": ABSENT}, "commerce.currency"),
    "items that are no list": ({"commerce__items": {}}, "commerce.items"),
    "half a piece": ({"commerce__items__0__quantity": 0.5}, "commerce.items[0].quantity"),
    "a foreign item field": ({"commerce__items__0__sku": "1"}, "commerce.items[0].sku"),
    "a signal in upper case": ({"consent__ad_user_data": "GRANTED"}, "consent.ad_user_data"),
    "null": ({"context__title": None}, "context.title"),
    "an object of one's own": ({"custom__plan": {}}, "custom.plan"),
    "an e-mail in a text": ({"custom__note": "from ada@example.com"}, "custom.note"),
    "a label that is a number": ({"labels": [1]}, "labels[0]"),
}


@pytest.mark.parametrize(("changes", "field"), BROKEN.values(), ids=BROKEN.keys())
async def test_each_broken_rule_is_refused_by_its_name(bench: Any, changes: dict[str, Any], field: str) -> None:
    assert await post(bench, event(**changes)) == 400
    assert await bench.accepted() == []
    assert f"events[0].{field}" in await fields(bench)


async def test_one_bad_event_fails_the_request(bench: Any) -> None:
    assert await post(bench, event(event_id="a"), event(event_id="b", source="x")) == 400
    assert await bench.accepted() == []
    assert [refused["event_id"] for refused in await bench.refused()] == ["b"]
    assert (await bench.balance("webhook:shop"))["collateral"] == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{", "body"),
        (b"[]", ""),
        (b"{}", "events"),
        (b'{"events": []}', "events"),
        (b'{"events": {}}', "events"),
        (b'{"events": [{}], "more": 1}', "more"),
        (orjson.dumps({"events": [{}] * 1001}), "events"),
    ],
)
async def test_each_bad_body_is_refused_by_its_name(bench: Any, body: bytes, field: str) -> None:
    async with bench.client.post(URL, data=body, headers=signed(body)) as response:
        assert response.status == 400
    assert field in await fields(bench)


async def test_the_body_must_say_that_it_is_json(bench: Any) -> None:
    assert await post(bench, event(), **{"Content-Type": "text/plain"}) == 400
    assert await fields(bench) == ["Content-Type"]


# --- the signature ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"webhook-id": ""}, "webhook-id"),
        ({"message_id": "msg.1"}, "webhook-id"),
        ({"webhook-timestamp": ""}, "webhook-timestamp"),
        ({"at": "1795420900.5"}, "webhook-timestamp"),
        ({"at": NOW + 301}, "webhook-timestamp"),
        ({"at": NOW - 301}, "webhook-timestamp"),
        ({"webhook-signature": ""}, "webhook-signature"),
        ({"webhook-signature": "v1," + HASH}, "webhook-signature"),
        ({"webhook-signature": "v1a," + "A" * 43 + "="}, "webhook-signature"),
        ({"key": b"another"}, "webhook-signature"),
        ({"webhook-id": "msg_2"}, "webhook-signature"),
        ({"webhook-timestamp": str(NOW - 1)}, "webhook-signature"),
    ],
)
async def test_what_is_not_signed_with_the_secret_is_answered_401(
    start_bench: Any, options: dict[str, Any], field: str
) -> None:
    bench = await start_bench(tokens={"webhook": {SECRET}})
    assert await post(bench, event(), **options) == 401
    assert await bench.accepted() == []
    assert field in await fields(bench)


async def test_another_body_than_the_signed_one_is_answered_401(start_bench: Any) -> None:
    bench = await start_bench(tokens={"webhook": {SECRET}})
    body = orjson.dumps({"events": [event()]})
    async with bench.client.post(URL, data=body + b" ", headers=signed(body)) as response:
        assert response.status == 401


async def test_one_of_several_signatures_is_enough_as_when_a_secret_is_replaced(start_bench: Any) -> None:
    bench = await start_bench(tokens={"webhook": {SECRET, "an older one"}})
    body = orjson.dumps({"events": [event()]})
    other = signed(body, key=b"not yet known")["webhook-signature"]
    headers = signed(body, key=b"an older one")
    headers["webhook-signature"] = f"{other} {headers['webhook-signature']}"
    async with bench.client.post(URL, data=body, headers=headers) as response:
        assert response.status == 204


@pytest.mark.parametrize(
    ("secret", "key"), [("plain text", b"plain text"), ("whsec_not base64", b"whsec_not base64"), (SECRET, KEY)]
)
async def test_a_secret_is_written_as_text_or_in_base64(start_bench: Any, secret: str, key: bytes) -> None:
    bench = await start_bench(tokens={"webhook:shop": [secret]})
    assert await post(bench, event(), key=key) == 204


async def test_where_no_secret_is_known_the_form_is_enough(bench: Any) -> None:
    assert await post(bench, event(), key=b"anything") == 204


async def test_a_secret_that_is_good_no_more_is_answered_401(bench: Any) -> None:
    await bench.faults(destination="webhook", expired_token=True)
    assert await post(bench, event()) == 401
    await bench.client.delete("/faults")
    assert await post(bench, event()) == 204


async def test_no_signature_is_shown(start_bench: Any) -> None:
    bench = await start_bench(tokens={"webhook": {SECRET}})
    await post(bench, event())
    (taken,) = await bench.accepted()
    assert taken["request"]["headers"]["webhook-signature"] == "***"
    assert SECRET not in str(taken)


async def test_clear_personal_data_is_not_shown_where_it_was_refused(bench: Any) -> None:
    await post(bench, event(user__email__plain="Ada", user__first_name="Ada"))
    (refused,) = await bench.refused()
    assert refused["event"]["user"]["email"] == {"plain": "***", "gmail": HASH}
    assert refused["event"]["user"]["first_name"] == "***"


# --- faults and repetitions ---------------------------------------------------------------------


@pytest.mark.parametrize(("switch", "status"), [("status_429", 429), ("status_500", 500)])
async def test_it_fails_on_request(bench: Any, switch: str, status: int) -> None:
    await bench.faults(destination="webhook", **{switch: 1})
    assert await post(bench, event()) == status
    assert await bench.accepted() == []


async def test_a_repetition_is_recognised_for_ever_by_event_and_revision(bench: Any) -> None:
    await post(bench, event())
    bench.clock.now = NOW + 400 * 86_400
    for changes in ({}, {"revision": 1}, {"event_name": "refund"}, {"site": "other"}):
        await post(bench, event(**changes), at=bench.clock.now)
    assert [taken["duplicate"] for taken in await bench.accepted()] == [False, True, False, False, False]


# --- anything at all ----------------------------------------------------------------------------

json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(field=st.sampled_from(sorted(event())), value=json)
def test_no_value_of_any_field_breaks_the_checks(field: str, value: Any) -> None:
    list(check_event(event(**{field: value}), "events[0]", NOW))


# --- our own sink -------------------------------------------------------------------------------


async def test_what_the_sink_sends_is_taken(start_bench: Any) -> None:
    bench = await start_bench(tokens={"webhook": {SECRET}})
    fields = ["user", "context", "ids", "commerce", "consent", "tags", "labels", "custom"]
    settings = {"sink": "webhook", "endpoint": "https://x.example", "secret": {"env": "X"}, "fields": fields}
    sink = Webhook(Settings.model_validate(settings))
    batch = [sink.encode(make_event(event_id=f"id-{number}"), "purchase") for number in range(3)]
    request = sink.request([one for one in batch if isinstance(one, Payload)], {"secret": SECRET})
    request = sink.signed(request, {"secret": SECRET}, NOW)
    async with bench.client.post(URL, data=request.body, headers=request.headers) as response:
        assert response.status == 204
    assert [taken["warnings"] for taken in await bench.accepted()] == [[], [], []]
