"""The pages of a running pipe with two workers and a login: one id's journey is complete from either of them."""

import asyncio
import itertools
import json
import os
import signal
from typing import Any

import aiohttp
import jsonschema
import pytest
import pytest_asyncio

from app import topics
from app.view import api
from app.view.site import HEADERS
from tests.app.view.test_templates import checked
from tests.system.conftest import System, eventually, running
from tests.system.test_main_job import BROWSER, pixel, server

pytestmark = [pytest.mark.fault, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

ADA, VIC = "a-token-of-ada-000000", "a-token-of-vic-000000"
LOGIN = """
[view.tokens.ada]
role = "operator"
token = { env = "VIEW_ADA" }
[view.tokens.vic]
token = { env = "VIEW_VIC" }
"""
DOCUMENT = api.document()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(kafka, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIEW_ADA", ADA)
        patch.setenv("VIEW_VIC", VIC)
        async with running(kafka, tmp_path_factory.mktemp("view") / "system", patch, workers=2, more=LOGIN) as one:
            yield one


def workers(pair: System) -> list[str]:
    return [child.ready.removesuffix("/readyz") for child in pair.demo.children if child.name.startswith("worker")]


async def ask(pair: System, where: str, path: str, token: str = VIC, **more: Any) -> tuple[int, Any]:
    method, more = more.pop("method", "GET"), {"headers": {"Authorization": f"Bearer {token}"}, **more}
    async with pair.http.request(method, where + path, **more) as response:
        return response.status, json.loads(await response.read())


async def journey(pair: System, wanted: str, where: str = "") -> Any:
    """The whole of it, once no worker takes over another's state (503); held against the OpenAPI document."""

    async def asked() -> Any:
        status, said = await ask(pair, where or workers(pair)[0], f"/events/{wanted}.json")
        assert status in (200, 404, 503)
        return status != 503 and said

    said = await eventually(asked, f"the journey of {wanted}")
    jsonschema.validate(said, {"$ref": "#/components/schemas/Journey", "components": DOCUMENT["components"]})
    return said


async def there(pair: System, wanted: str, name: str, *states: str) -> Any:
    """What became of it at a destination, once it is in one of these states."""

    async def done() -> Any:
        found = (await journey(pair, wanted))["conversions"]
        return found and found[0]["destinations"][name]["state"] in states and found[0]["destinations"][name]

    return await eventually(done, f"{wanted} {' or '.join(states)} at {name}")


async def test_a_journey_is_complete_from_either_worker(pair):
    await pair.post(pixel("V-1", tags={"meta": {"ran": True, "event_id": "ev-V-1"}}), **BROWSER)
    await pair.post(server("V-1"), key="secret_key")
    await there(pair, "V-1", "meta", "delivered")
    await there(pair, "V-1", "ga4", "delivered")
    await pair.post(pixel("V-1", context={"url": "https://shop.example/thanks?again"}), **BROWSER)

    async def late() -> bool:
        (one,) = (await journey(pair, "V-1"))["conversions"]
        return len(one["copies"]) == 3

    await eventually(late, "the late copy")
    first, second = [await journey(pair, "ev-V-1", where) for where in workers(pair)]

    assert first == second
    (one,) = first["conversions"]
    assert [(copy["source"], copy["part"]) for copy in one["copies"]] == [
        ("pixel", "merged"), ("server", "merged"), ("pixel", "late"),
    ]  # fmt: skip
    assert all(copy["arrived"] and copy["offset"] >= 0 for copy in one["copies"])
    fields = {row["field"]: row for row in one["fields"]}
    assert (fields["commerce.value"]["taken_from"], fields["ids.fbp"]["taken_from"]) == ([2], [1])
    assert fields["context.ip"]["merged"] == "203.0.113.0/24"
    assert "ada.planted" not in str(first)
    meta = one["destinations"]["meta"]
    assert meta["consent"] == {"verdict": "allowed", "basis": "ad_storage granted, ad_user_data granted"}
    assert meta["browser_tag"]["verdict"] == "same id"
    (attempt,) = meta["attempts_kept"]
    assert (attempt["status"], attempt["outcome"]) == (200, "delivered")
    assert '"event_id": "ev-V-1"' in attempt["request"]["body"]
    assert "203.0.113.9" not in attempt["request"]["body"]
    (attempt,) = one["destinations"]["ga4"]["attempts_kept"]
    assert "api_secret=MASKED" in attempt["request"]["url"]


async def test_the_page_is_whole_and_says_the_same(pair):
    await pair.post(pixel("V-2"), **BROWSER)
    await pair.post(server("V-2"), key="secret_key")
    await there(pair, "V-2", "meta", "delivered")

    headers = {"Authorization": f"Bearer {VIC}", "Accept": "text/html"}
    async with pair.http.get(workers(pair)[1] + "/events/V-2", headers=headers) as response:
        text, policy = await response.text(), response.headers["Content-Security-Policy"]

    checked(text)
    assert policy == HEADERS["Content-Security-Policy"]
    for told in ("V-2", "all expected copies were there", "events_received", "Consent", "ad_storage granted", "59.98"):
        assert told in text


async def test_an_id_that_leads_to_several_conversions_lists_them(pair):
    for name in ("login", "search"):
        await pair.post({"event_name": name, "event_id": "V-3"}, **BROWSER)

    async def both() -> bool:
        return len((await journey(pair, "V-3"))["conversions"]) == 2

    await eventually(both, "two conversions")
    headers = {"Authorization": f"Bearer {VIC}", "Accept": "text/html"}
    async with pair.http.get(workers(pair)[0] + "/events/V-3", headers=headers) as response:
        text = await response.text()

    checked(text)
    assert "/events/V-3?site=shop&amp;name=search&amp;apart=" in text
    _, said = await ask(pair, workers(pair)[0], "/events/V-3.json?name=search")
    assert [one["event_name"] for one in said["conversions"]] == ["search"]


async def test_an_event_that_fails_shows_its_attempts_and_the_next_one(pair):
    await pair.faults("meta", status_500=1.0)
    await pair.post(pixel("V-4", event_name="add_to_cart", event_id="V-4"), **BROWSER)

    async def tried() -> Any:
        found = (await journey(pair, "V-4"))["conversions"]
        meta = found and found[0]["destinations"]["meta"]
        return meta and meta.get("attempts", 0) > 1 and "next_try" in meta and meta

    waiting = await eventually(tried, "a second attempt")
    status, answered = await ask(pair, workers(pair)[1], "/destinations/meta/answers.json?status=500")
    jsonschema.validate(answered, {"$ref": "#/components/schemas/Answers", "components": DOCUMENT["components"]})
    await pair.faults("meta")
    done = await there(pair, "V-4", "meta", "delivered", "skipped")

    assert waiting["state"] == "queued"
    assert [(one["status"], one["outcome"]) for one in waiting["attempts_kept"]] == [(500, "retry")]
    assert (status, {one["id"] for one in answered["answers"]}) == (200, {"V-4"})
    assert [one["outcome"] for one in done["attempts_kept"]] == ["retry", "delivered"]
    assert done["attempts_kept"][-1]["attempt"] == done["attempts"]


async def test_an_operator_sends_again_what_was_rejected_and_a_viewer_does_not(pair):
    await pair.faults("meta", html_error=1.0, html_status=413)  # a proxy that finds every request too large
    await pair.post(pixel("V-5"), **BROWSER)
    await pair.post(server("V-5"), key="secret_key")
    rejected = await there(pair, "V-5", "meta", "rejected")
    assert rejected["replay"] is True
    await pair.faults("meta")
    form = {"destination": "meta", "site": "shop", "event_name": "purchase", "apart": ""}
    path, where = "/events/V-5/replay", workers(pair)[1]

    assert (await ask(pair, where, path, VIC, method="POST", json=form))[0] == 403
    status, _ = await ask(pair, where, path, ADA, method="POST", json=form | {"event_name": "refund"})
    assert status == 400
    assert await ask(pair, where, path, ADA, method="POST", json=form) == (
        200,
        {"destination": "meta", "replayed": 1, "not_replayed": []},
    )
    assert (await there(pair, "V-5", "meta", "delivered"))["state"] == "delivered"
    status, said = await ask(pair, where, path, ADA, method="POST", json=form)
    assert (status, said["error"]) == (400, "there is no dead letter of it that can be sent again.")


async def test_a_destination_is_paused_and_resumed_for_all_workers(pair):
    first, second = workers(pair)
    pause, resume = "/destinations/ga4/pause", "/destinations/ga4/resume"

    assert (await ask(pair, first, pause, VIC, method="POST", json={"reason": "x"}))[0] == 403
    assert (await ask(pair, first, pause, ADA, method="POST", json={}))[0] == 400
    assert await ask(pair, first, pause, ADA, method="POST", json={"reason": "a look"}) == (
        200,
        {"destination": "ga4", "paused": True},
    )

    async def standing(where: str, state: str) -> Any:
        _, said = await ask(pair, where, "/destinations.json")
        jsonschema.validate(said, {"$ref": "#/components/schemas/Destinations", "components": DOCUMENT["components"]})
        ga4 = said["destinations"]["ga4"]
        return said["workers_silent"] == 0 and {one["state"] for one in ga4["workers"]} == {state} and ga4

    paused = await eventually(lambda: standing(second, "paused"), "a pause at both workers")
    assert (paused["reason"], paused["by"], paused["paused"], len(paused["workers"])) == ("a look", "ada", True, 2)
    await pair.post(pixel("V-7", event_name="search", event_id="V-7"), **BROWSER)
    assert (await there(pair, "V-7", "ga4", "halted"))["reason"] == "a look"
    for where, which in itertools.product(workers(pair), ("waiting", "unfinished")):

        async def alone(where: str = where, which: str = which) -> bool:
            """In its topic an earlier one is finished when that is committed."""
            _, waiting = await ask(pair, where, f"/destinations/ga4/waiting.json?which={which}")
            jsonschema.validate(waiting, {"$ref": "#/components/schemas/Waiting", "components": DOCUMENT["components"]})
            return (waiting["total"], [one["id"] for one in waiting["events"]]) == (1, ["V-7"])

        await eventually(alone, f"what is {which}")
    assert (await ask(pair, first, "/destinations/ga4/waiting.json?which=under_way"))[1]["total"] == 0
    assert (await ask(pair, first, "/destinations/ga4/answers.json?status=x"))[0] == 400
    assert (await ask(pair, second, "/destinations/nobody/waiting.json"))[0] == 400
    assert (await ask(pair, second, resume, ADA, method="POST", json={}))[0] == 200
    await there(pair, "V-7", "ga4", "delivered")
    assert (await ask(pair, second, "/destinations/ga4/waiting.json"))[1]["total"] == 0
    going = await eventually(lambda: standing(first, "ok"), "both workers go on")
    assert going["paused"] is False
    assert sum(going["answers"].values()) > 0
    assert 0 < going["latency"]["p50"] <= 10


async def test_dead_letters_are_looked_at_replayed_and_dropped_many_at_once(pair):
    where = workers(pair)[0]
    await pair.faults("meta", html_error=1.0, html_status=413)
    for n in range(3):
        await pair.post(pixel(f"V-8{n}", event_name="view_item", event_id=f"V-8{n}"), **BROWSER)
    for n in range(3):
        await there(pair, f"V-8{n}", "meta", "rejected")
    await pair.faults("meta")

    async def listed(count: int, more: str = "") -> Any:
        _, said = await ask(pair, where, f"/dead.json?destination=meta{more}")
        jsonschema.validate(said, {"$ref": "#/components/schemas/DeadLetters", "components": DOCUMENT["components"]})
        return said["total"] == count and said

    found = await eventually(lambda: listed(3), "three letters")
    assert found["groups"] == [
        {"reason": found["letters"][0]["reason"], "place": "meta", "destination": "meta", "letters": 3}
    ]
    status, one = await ask(pair, where, f"/dead/{found['letters'][0]['id']}.json")
    assert (status, one["why_not"], one["letter"]["event_id"]) == (200, "", found["letters"][0]["event_id"])

    dropped, kept = found["letters"][0], found["letters"][1:]
    assert (await ask(pair, where, "/dead/drop", VIC, method="POST", json={"letter": [dropped["id"]]}))[0] == 403
    status, work = await ask(pair, where, "/dead/drop", ADA, method="POST", json={"letter": [dropped["id"]]})
    assert (status, work["done"]) == (200, 1)
    status, work = await ask(pair, where, "/dead/replay", ADA, method="POST", json={"destination": "meta"})
    assert status == 200

    async def over() -> Any:
        _, said = await ask(pair, where, f"/dead/work/{work['work']}.json", ADA)
        jsonschema.validate(said, {"$ref": "#/components/schemas/Work", "components": DOCUMENT["components"]})
        return said["finished"] and said

    done = await eventually(over, "the replays")
    assert (done["done"], done["not_done"], done["failed"]) == (2, [], "")
    for letter in kept:
        await there(pair, letter["event_id"], "meta", "delivered")
    await eventually(lambda: listed(0), "no letter left")
    states = {
        one["id"]: (one["state"], one["by"])
        for one in (await eventually(lambda: listed(4, "&state=all"), "all"))["letters"]
    }
    assert states[dropped["id"]] == ("dropped", "ada")
    assert {states[letter["id"]] for letter in kept} == {("replayed", "ada")}
    assert (await ask(pair, where, "/dead/replay", ADA, method="POST", json={"destination": "meta"}))[0] == 400


async def test_who_looked_at_what_is_written_down_for_operators(pair):
    await journey(pair, "V-1")
    await journey(pair, "ada@example.com")

    status, said = await ask(pair, workers(pair)[0], "/audit.json", ADA)

    jsonschema.validate(said, {"$ref": "#/components/schemas/Audited", "components": DOCUMENT["components"]})
    assert (status, said["topic"]) == (200, topics.names(pair.demo.config).audit)
    newest, before = said["records"][:2]
    assert (newest["who"], newest["what"], newest["found"]) == ("vic", "looked", 0)
    assert "object" not in newest, "nobody knows what that was"
    assert (before["who"], before["object"]) == ("vic", "purchase V-1 shop")
    assert any(one["what"] == "replayed" and one["who"] == "ada" for one in said["records"])
    assert "ada@example.com" not in str(said)


async def test_of_a_person_who_was_erased_nothing_is_shown(pair):
    person = {"email": "gone@example.com"}
    page = {"url": "https://shop.example/gone"}
    login = pixel("V-6", event_name="login", event_id="V-6", user=person, context=page)
    await pair.post(login, key="secret_key")
    await there(pair, "V-6", "ga4", "delivered", "skipped", "rejected")
    assert "shop.example/gone" in str(await journey(pair, "V-6"))

    status, _ = await pair.post(person, key="secret_key", path="/v1/forget")

    async def gone() -> bool:
        return "shop.example/gone" not in str([await journey(pair, "V-6", where) for where in workers(pair)])

    assert status == 200
    await eventually(gone, "nothing shown")
    (one,) = (await journey(pair, "V-6"))["conversions"]
    assert one["fields"] == []


async def test_nobody_gets_in_without_a_token_nor_between_workers(pair):
    for where in workers(pair):
        for path in ("/", "/events/V-1.json", "/audit.json", "/openapi.json", "/local.json?id=V-1"):
            async with pair.http.get(where + path, headers={"Accept": "application/json"}) as response:
                assert response.status == 401, path
        async with pair.http.get(where + "/metrics") as response:
            assert response.status == 200
    status, document = await ask(pair, workers(pair)[0], "/openapi.json")
    assert (status, document) == (200, DOCUMENT)


async def test_a_worker_that_dies_is_missed_until_another_has_its_partitions(pair):
    child = pair.child("worker-2")
    assert child.process
    os.kill(child.process.pid, signal.SIGKILL)
    await asyncio.to_thread(child.process.wait)

    silent = (await journey(pair, "V-1"))["workers_silent"]

    async def complete() -> bool:
        try:
            both = [await journey(pair, wanted) for wanted in ("V-1", "V-2", "V-5")]
        except (AssertionError, aiohttp.ClientError):
            return False  # it takes over
        return all(one["workers_silent"] == 0 and one["conversions"] for one in both)

    assert silent == 1
    await eventually(complete, "all of it at the one that is left")
