"""The main job: two copies in, one merged conversion out, everywhere it may go."""

import asyncio
import gzip
import json
import sys
import time
from typing import Any

import pytest

from app import processes
from tests.system.conftest import eventually

GRANTED = dict.fromkeys(("ad_storage", "analytics_storage", "ad_user_data", "ad_personalization"), "granted")


def pixel(order: str, **more: object) -> dict[str, object]:
    return {
        "event_name": "purchase",
        "event_id": f"ev-{order}",
        "time": int(time.time() * 1000),
        "context": {"url": "https://shop.example/thanks?gclid=Cj0"},
        "ids": {
            "ga_client_id": "1234567890.1699999999",
            "ga_session_id": "1795420000",
            "fbp": "fb.1.1795420000000.12345",
        },
        "commerce": {"transaction_id": order, "value": 59.98, "currency": "EUR"},
        "consent": GRANTED,
        **more,
    }


def server(order: str, **more: object) -> dict[str, object]:
    return {
        "event_name": "purchase",
        "event_id": f"ev-{order}",
        "time": int(time.time() * 1000),
        "user": {"email": "ada.planted@example.com", "phone": "+49 30 23125 001", "first_name": "Ada"},
        "commerce": {
            "transaction_id": order,
            "value": 59.98,
            "currency": "EUR",
            "items": [{"item_id": "SKU-1", "quantity": 2, "price": 29.99}],
        },
        **more,
    }


BROWSER = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64)", "X-Forwarded-For": "203.0.113.9"}


async def test_the_copies_of_collector_and_bus_become_one_conversion_at_each_platform(shared_system):
    status, answer = await shared_system.post(pixel("T-1"), **BROWSER)
    await shared_system.produce(json.dumps(server("T-1", source="server")).encode())

    found = await shared_system.settled("T-1")

    assert (status, answer["accepted"]) == (200, 1)
    (one,) = found["conversions"]
    assert sorted(copy["source"] for copy in one["copies"]) == ["pixel", "server"]
    assert one["decision"]["how"] == "complete"
    assert {name: there["state"] for name, there in one["destinations"].items()} == {
        "meta": "delivered",
        "ga4": "delivered",
    }
    (meta,) = await shared_system.accepted("meta", event_id="ev-T-1")
    assert meta["event"]["user_data"]["client_ip_address"] == "203.0.113.9"
    assert meta["event"]["user_data"]["fbp"] == "fb.1.1795420000000.12345"
    assert meta["event"]["user_data"]["em"], "the server's e-mail is on the pixel's conversion"
    assert meta["event"]["custom_data"]["contents"] == [{"id": "SKU-1", "quantity": 2, "item_price": 29.99}]
    (ga4,) = await shared_system.accepted("ga4", event_id="T-1")
    assert ga4["event"]["params"]["value"] == 59.98


async def test_an_event_is_found_by_its_event_id_and_by_its_order_number_as_json_and_as_a_page(shared_system):
    await shared_system.post(pixel("T-2"), **BROWSER)
    await shared_system.post(server("T-2"), key="secret_key")
    by_order = await shared_system.settled("T-2")

    by_event_id = await shared_system.journey("ev-T-2")
    status, page = await shared_system.get("view", "/events/ev-T-2", Accept="text/html")

    assert by_event_id["conversions"] == by_order["conversions"]
    assert status == 200
    assert "delivered" in page
    assert "T-2" in page


async def test_an_unknown_id_is_404_and_the_page_escapes_it(shared_system):
    found = await shared_system.journey("nobody")
    status, page = await shared_system.get("view", "/events/%3Cscript%3Ealert(1)", Accept="text/html")

    assert (found["status"], found["conversions"]) == (404, [])
    assert status == 404
    assert "<script>" not in page


async def test_repeated_copies_are_delivered_once(shared_system):
    for _ in range(3):
        await shared_system.post(pixel("T-3"), **BROWSER)
        await shared_system.post(server("T-3"), key="secret_key")
    await shared_system.settled("T-3")
    await shared_system.post(pixel("T-3"), **BROWSER)

    async def all_counted() -> bool:
        return bool((await shared_system.journey("T-3"))["conversions"][0]["received"] == 7)

    await eventually(all_counted, "the late copy")
    assert len(await shared_system.accepted("meta", event_id="ev-T-3")) == 1
    assert len(await shared_system.accepted("ga4", event_id="T-3")) == 1


async def test_without_consent_nothing_is_delivered_and_the_reason_is_shown(shared_system):
    await shared_system.post(pixel("T-4", consent=GRANTED), **BROWSER)
    await shared_system.post(server("T-4", consent=dict.fromkeys(GRANTED, "denied")), key="secret_key")

    (one,) = (await shared_system.settled("T-4"))["conversions"]

    assert one["destinations"]["meta"] == {"state": "held_back", "reason": "consent_denied"}
    assert one["destinations"]["ga4"] == {"state": "held_back", "reason": "consent_denied"}
    assert await shared_system.accepted("meta", event_id="ev-T-4") == []


async def test_a_browser_with_global_privacy_control_opts_out_of_ads_and_a_server_cannot_say_so_for_it(shared_system):
    for order in ("T-8", "T-9"):
        await shared_system.post(server(order), key="secret_key", **{"Sec-GPC": "1"})
    await shared_system.post(pixel("T-8"), **BROWSER, **{"Sec-GPC": "1"})
    await shared_system.post(pixel("T-9"), **BROWSER)

    (out,), (fine,) = [(await shared_system.settled(order))["conversions"] for order in ("T-8", "T-9")]

    assert out["destinations"]["meta"] == {"state": "held_back", "reason": "consent_denied"}
    assert out["destinations"]["ga4"]["state"] == "delivered"
    assert fine["destinations"]["meta"]["state"] == "delivered"


async def test_a_pixel_only_purchase_goes_when_its_hold_ends(shared_system):
    await shared_system.post(pixel("T-5"), **BROWSER)

    async def is_held() -> Any:
        found = (await shared_system.journey("T-5"))["conversions"]
        return next(
            (one for one in found if "seconds_left" in one), None
        )  # written just after the row that says "held"

    held = await eventually(is_held, "a hold")
    (one,) = (await shared_system.settled("T-5"))["conversions"]

    assert 0 <= held["seconds_left"] <= 3
    assert one["decision"]["how"] == "hold_ended"


async def test_no_clear_personal_data_is_kept_anywhere(system):
    await system.post(pixel("T-6"), **BROWSER)
    await system.post(server("T-6"), key="secret_key")
    await system.produce(b'{"email": "ada.planted@example.com"')
    await system.settled("T-6")
    await system.books(lambda books: list(books.letters.values()) == ["not_json"])

    planted = (b"ada.planted", b"23125001", b"23125 001")
    ours = [path for path in system.demo.folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".sst" or path.name.endswith(".log") for path in ours), "state and logs are among them"
    for path in ours:
        assert not any(text in path.read_bytes() for text in planted), path


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"\x00\xff not json", "not_json"),
        (b"", "empty"),
        (b'{"event_name": "purchase", "commerce": {"transaction_id": 5, "value": 3}}', "no_currency"),
        (b'{"event_name": "login"}', "missing"),
        (b'{"event_name": "login", "event_id": "x", "time": "9999-12-31T00:00:00Z"}', "time_in_future"),
        (b'{"event_name": {"a": 1}, "event_id": "x"}', "wrong_type"),
        (b'{"event_id": "x"}', "missing"),
        (b"[[[[[[]]]]]]", "wrong_type"),
    ],
)
async def test_bad_input_is_a_4xx_at_the_collector(shared_system, value, reason):
    status, answer = await shared_system.post(value, key="secret_key")

    problem = answer["refused"][0] if "refused" in answer else answer["error"]
    assert status == 400
    assert problem["reason"] == reason


async def test_bad_records_of_the_bus_are_dead_letters_with_reason_field_and_origin(system):
    bad = [
        b"not json",
        b'{"event_name": "purchase", "event_id": "b-1", "commerce": {"value": 3}}',
        b'{"event_name": "login", "event_id": "b-2", "time": "9999-12-31T00:00:00Z"}',
        b'{"event_name": 7, "event_id": "b-3", "commerce": []}',
    ]
    await system.produce(*bad, json.dumps(server("T-8", source="server")).encode())

    books = await system.books(lambda books: len(books.letters) == len(bad))
    await system.settled("T-8")

    assert sorted(books.letters.values()) == ["no_currency", "not_json", "time_in_future", "wrong_type"]


async def test_ten_megabytes_are_413_also_when_they_hide_in_gzip(shared_system):
    large = b'{"event_name": "login", "custom": {"a": "' + b"x" * 10_000_000 + b'"}}'

    plain, _ = await shared_system.post(large, key="secret_key")
    zipped, _ = await shared_system.post(gzip.compress(large), key="secret_key", **{"Content-Encoding": "gzip"})

    assert (plain, zipped) == (413, 413)


async def test_an_unknown_event_name_is_a_custom_event(shared_system):
    status, answer = await shared_system.post({"event_name": "quiz_won", "event_id": "q-1"}, key="secret_key")

    assert (status, answer["accepted"]) == (200, 1)
    (one,) = (await shared_system.settled("q-1"))["conversions"]
    assert one["event_name"] == "quiz_won"


async def test_the_public_key_cannot_claim_to_be_a_server(shared_system):
    status, answer = await shared_system.post({"event_name": "login", "event_id": "s-1", "source": "server"})

    assert status == 400
    assert answer["refused"][0]["reason"] == "source_not_allowed"


async def test_without_a_known_key_it_is_401(shared_system):
    async with shared_system.http.post(shared_system.addresses["collector"] + "/v1/events", json={}) as response:
        assert response.status == 401


async def test_health_readiness_and_metrics_answer(shared_system):
    for where in ("view", "collector"):
        assert (await shared_system.get(where, "/healthz"))[0] == 200
        assert (await shared_system.get(where, "/readyz"))[0] == 200
        assert "capistream_copies_total" in (await shared_system.get(where, "/metrics"))[1]


async def test_a_platform_that_fails_is_tried_again_and_delays_only_itself(system):
    await system.faults("meta", status_500=1.0)
    taken = [await system.post(pixel("T-9"), **BROWSER), await system.post(server("T-9"), key="secret_key")]
    assert [status for status, _ in taken] == [200, 200], taken

    async def ga4_has_it() -> bool:
        return bool(await system.accepted("ga4", event_id="T-9"))

    await eventually(ga4_has_it, "the delivery to GA4")
    (one,) = (await system.journey("T-9"))["conversions"]
    assert one["destinations"]["meta"]["state"] == "queued"
    await system.faults("meta", status_500=0.0)
    (one,) = (await system.settled("T-9"))["conversions"]

    assert one["destinations"]["meta"]["state"] == "delivered"
    assert one["destinations"]["meta"]["attempts"] > 1


async def test_faust_starts_a_worker_as_its_users_expect(shared_system):
    port = processes.free_port()
    faust = [sys.executable, "-m", "faust", "-A", "app", "worker", "-l", "info", "-p", str(port)]
    log = shared_system.demo.folder / "faust.log"
    worker = processes.spawn(faust, log, {"CAPISTREAM_CONFIG": shared_system.addresses["config"]})

    async def ready() -> bool:
        assert worker.poll() is None, log.read_text()
        status, _ = await shared_system.get(f"http://127.0.0.1:{port}", "/readyz")
        return bool(status == 200)

    try:
        await eventually(ready, "the worker that Faust started")
    finally:
        code = await asyncio.to_thread(processes.stop, worker, 15)
    assert code == 0


async def test_the_search_box_leads_to_the_event(shared_system):
    async with shared_system.http.get(
        shared_system.addresses["view"] + "/events?id=a%2Fb", allow_redirects=False
    ) as response:
        assert (response.status, response.headers["Location"]) == (303, "/events/a%2Fb")
