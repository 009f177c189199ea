"""The newest conversions, of a running pipe with two workers and a login: by page, by JSON and as they come."""

import asyncio
import json
from contextlib import asynccontextmanager

import jsonschema
import pytest
import pytest_asyncio

from app.view import on_live
from tests.app.view.test_templates import checked
from tests.system.conftest import eventually, running
from tests.system.test_main_job import BROWSER, pixel, server
from tests.system.test_view import ADA, DOCUMENT, LOGIN, VIC, ask, workers

pytestmark = [pytest.mark.fault, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(kafka, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIEW_ADA", ADA)
        patch.setenv("VIEW_VIC", VIC)
        async with running(kafka, tmp_path_factory.mktemp("live") / "system", patch, workers=2, more=LOGIN) as one:
            yield one


async def live(pair, where, query=""):
    """Held against the OpenAPI document."""
    status, said = await ask(pair, where, f"/live.json{query}")
    jsonschema.validate(said, {"$ref": "#/components/schemas/LiveNow", "components": DOCUMENT["components"]})
    assert status == 200
    return said


@asynccontextmanager
async def stream(pair, where, query="", headers=None):
    """A function that waits for the next event of this name that says this, and returns it; None at the end of the stream."""
    headers = headers or {"Authorization": f"Bearer {VIC}"}
    async with pair.http.get(f"{where}/live/stream{query}", headers=headers) as response:

        async def heard(name, what=""):
            async with asyncio.timeout(30):
                while line := await response.content.readline():
                    if line.strip() == f"event: {name}".encode():
                        said = json.loads((await response.content.readline()).removeprefix(b"data: "))
                        if what in str(said):
                            return said
            return None

        yield response, heard


async def test_both_workers_show_all_of_it_and_its_numbers_add_up(pair):
    for n in range(8):  # in all partitions, so of both workers
        await pair.post(pixel(f"N-{n}"), **BROWSER)
        await pair.post(server(f"N-{n}"), key="secret_key")

    async def same():
        both = [await live(pair, where, "?event=purchase") for where in workers(pair)]
        (one, other) = ({one["id"]: one["destinations"] for one in some["conversions"]} for some in both)
        done = all(there["state"] == "delivered" for said in one.values() for there in said.values())
        return one == other and len(one) == 8 and done and both[0]

    found = await eventually(same, "eight orders at both")
    funnel = found["funnel"]
    meta = next(one for one in funnel["destinations"] if one["destination"] == "meta")

    assert (funnel["copies"], funnel["joined"], funnel["unique"]) == (16, 8, 8)
    assert (meta["consented"], meta["queued"], meta["delivered"], meta["lost"]) == (8, 8, 8, [])
    assert sum(minute["conversions"] for minute in found["minutes"]) >= 8
    assert found["followed"] == found["partitions"]


async def test_a_loss_is_told_with_its_reason_and_leads_to_what_it_counts(pair):
    denied = dict.fromkeys(("ad_storage", "analytics_storage", "ad_user_data", "ad_personalization"), "denied")
    await pair.post(pixel("N-20", event_name="login", event_id="N-20", consent=denied), **BROWSER)

    async def lost():
        found = await live(pair, workers(pair)[1], "?destination=meta")
        return [one for of in found["funnel"]["destinations"] for one in of["lost"]]

    (one,) = await eventually(lost, "a loss")
    leads_to = await live(pair, workers(pair)[0], f"?destination=meta&outcome={one['state']}&reason={one['reason']}")

    assert (one["step"], one["reason"], one["conversions"]) == ("consented", "consent_denied", 1)
    assert [one["id"] for one in leads_to["conversions"]] == ["N-20"]


async def test_the_page_is_whole_without_any_script(pair):
    headers = {"Authorization": f"Bearer {VIC}", "Accept": "text/html"}
    async with pair.http.get(workers(pair)[1] + "/live?source=server", headers=headers) as response:
        text = await response.text()

    checked(text)
    assert "N-7" in text
    assert "N-20" not in text
    assert "not read" not in text, "all of it was read"


async def test_what_comes_streams_to_those_who_look_at_any_worker(pair):
    await pair.post({"event_name": "search", "event_id": "N-29"}, **BROWSER)
    async with (
        stream(pair, workers(pair)[0]) as (_, one),
        stream(pair, workers(pair)[1], "?event=search") as (_, other),
    ):
        assert await one("rows", "N-29")
        assert "What became of" in (await one("sums"))["html"]
        await pair.post({"event_name": "search", "event_id": "N-30"}, **BROWSER)

        assert await one("rows", "N-30")
        assert await other("rows", "N-30")


async def test_there_is_a_limit_and_whoever_leaves_makes_room(pair):
    where = workers(pair)[0]
    opened = [stream(pair, where) for _ in range(on_live.MOST)]
    for one in opened:
        await one.__aenter__()
    status, _ = await ask(pair, where, "/live/stream")
    for one in opened:
        await one.__aexit__(None, None, None)

    async def room():
        async with stream(pair, where) as (response, _):
            return response.status == 200

    assert status == 503
    await eventually(room, "room for another one")


async def test_a_stream_ends_with_its_session_and_others_go_on(pair):
    where = workers(pair)[0]

    async def begin(token):
        async with pair.http.post(f"{where}/login", data={"token": token}, allow_redirects=False) as response:
            return {"Cookie": f"capistream={response.cookies['capistream'].value}"}

    ada, vic = await begin(ADA), await begin(VIC)
    async with pair.http.get(f"{where}/live", headers=ada | {"Accept": "text/html"}) as page:
        form_token = (await page.text()).split('name="form_token" value="')[1].split('"')[0]
    async with stream(pair, where, headers=ada) as (_, hers), stream(pair, where, headers=vic) as (_, his):
        assert await hers("sums")
        assert await his("sums")
        out = {"form_token": form_token}
        async with pair.http.post(f"{where}/logout", data=out, headers=ada, allow_redirects=False) as response:
            assert response.status == 303

        assert await hers("never") is None, "it has ended"
        await pair.post({"event_name": "search", "event_id": "N-40"}, **BROWSER)
        assert await his("rows", "N-40")


async def test_nobody_streams_without_a_token(pair):
    async with pair.http.get(f"{workers(pair)[0]}/live/stream") as response:
        assert response.status == 401


async def test_a_worker_ends_although_somebody_looks(pair):
    process = pair.child("worker-2").process
    async with stream(pair, workers(pair)[1]) as (_, heard):
        assert await heard("sums")
        process.terminate()
        await asyncio.wait_for(asyncio.to_thread(process.wait), 30)
        assert await heard("never") is None
