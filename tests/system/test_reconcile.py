"""A shop's list against a running system: an order of each kind is in its class, by the command and on the page of any worker."""

import asyncio
import json
import sys
import time
from typing import Any

import aiohttp
import jsonschema
import pytest
import pytest_asyncio

from app import processes
from app.view import api
from tests.app.view.test_templates import checked
from tests.system.conftest import System, eventually, running
from tests.system.test_main_job import BROWSER, GRANTED, pixel, server
from tests.system.test_view import ADA, LOGIN, VIC, ask, there, workers

pytestmark = [pytest.mark.fault, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

DOCUMENT = api.document()
OLD = int(time.time() * 1000) - 10 * 86_400_000  # longer ago than Meta takes events
#: Order -> (its class, the amount in the shop's list).
EXPECTED = {
    "R-delivered": ("delivered", "59,98"),
    "R-differs": ("differs", "71,38"),
    "R-denied": ("held_by_consent", "59,98"),
    "R-bot": ("bot_or_test", "59,98"),
    "R-old": ("too_old", "59,98"),
    "R-lost": ("never_received", "59,98"),
    "R-waits": ("pending", "59,98"),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(kafka, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIEW_ADA", ADA)
        patch.setenv("VIEW_VIC", VIC)
        async with running(kafka, tmp_path_factory.mktemp("orders") / "system", patch, workers=2, more=LOGIN) as one:
            await fill(one)
            yield one


async def fill(one: System) -> None:
    denied = dict.fromkeys(GRANTED, "denied")
    more: dict[str, dict[str, Any]] = {
        "R-delivered": {},
        "R-differs": {},
        "R-denied": {"consent": denied},
        "R-bot": {"labels": ["test"]},  # of bots the demo's configuration keeps all
        "R-old": {"time": OLD},
    }
    for order, what in more.items():
        await one.post(pixel(order, **what), **BROWSER)
        await one.post(
            server(order, **{name: value for name, value in what.items() if name != "consent"}), key="secret_key"
        )
    await there(one, "R-delivered", "meta", "delivered")
    await there(one, "R-differs", "meta", "delivered")
    await there(one, "R-old", "meta", "rejected")
    await there(one, "R-denied", "meta", "held_back")
    await there(one, "R-bot", "meta", "filtered")
    await one.faults("meta", status_500=1.0)
    await one.post(pixel("R-waits"), **BROWSER)
    await one.post(server("R-waits"), key="secret_key")
    await there(one, "R-waits", "meta", "queued")


def orders() -> str:
    day = time.strftime("%d.%m.%Y")
    rows = [f"{order};{day} 00:30;{amount};EUR" for order, (_, amount) in EXPECTED.items()]
    return "\n".join(["Order Number;Created at;Total;Currency", *rows, "R-bad;yesterday;1;EUR", ""])


async def test_the_command_finds_each_order_in_its_class(pair):
    path = pair.demo.folder / "orders.csv"
    path.write_text(orders())
    command = ["reconcile", str(path), "--to", "meta", "--tz", "Europe/Berlin", "--json", "--config"]

    done = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app.cli", *command, str(pair.demo.folder / "capistream.toml"),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=processes.__file__.rsplit("/app/", 1)[0],
    )  # fmt: skip
    out, err = await done.communicate()

    numbers, *lines = map(json.loads, out.splitlines())
    assert {one["order_id"]: one["class"] for one in lines} == {order: kind for order, (kind, _) in EXPECTED.items()}
    assert sum(numbers["classes"].values()) == numbers["orders"] == len(EXPECTED)
    assert done.returncode == 1, "less than 90 % of what is due was delivered"
    assert "line 9: Created at is neither ISO 8601 nor a number" in err.decode()


async def upload(pair: System, where: str, token: str = ADA) -> tuple[int, Any]:
    form = aiohttp.FormData({"to": "meta", "tz": "Europe/Berlin"})
    form.add_field("orders", orders(), filename="orders.csv", content_type="text/csv")
    return await ask(pair, where, "/reconcile", token, method="POST", data=form)


async def test_the_page_says_the_same_and_every_worker_has_it(pair):
    status, begun = await upload(pair, workers(pair)[0])
    assert status == 200

    async def finished() -> Any:
        status, said = await ask(pair, workers(pair)[1], f"/reconcile/{begun['look']}.json?class=differs", ADA)
        assert status == 200
        return said if said["finished"] else None

    said = await eventually(finished, "the other worker's answer")
    jsonschema.validate(said, {"$ref": "#/components/schemas/Look", "components": DOCUMENT["components"]})
    assert {kind for kind, number in said["report"]["classes"].items() if number} == {
        kind for kind, _ in EXPECTED.values()
    }
    (one,) = said["orders"]
    assert (one["order_id"], one["value"], one["sent_value"], one["sources"]) == (
        "R-differs",
        71.38,
        59.98,
        ["pixel", "server"],
    )

    headers = {"Authorization": f"Bearer {ADA}", "Accept": "text/html"}
    async with pair.http.get(
        f"{workers(pair)[0]}/reconcile/{begun['look']}?class=pending", headers=headers
    ) as response:
        text = await response.text()
    checked(text)
    assert "/events/R-waits" in text
    assert "queued, in a request" in text
    _, audited = await ask(pair, workers(pair)[0], "/audit.json", ADA)
    assert [(row["object"], row["orders"]) for row in audited["records"] if row["what"] == "reconciled"] == [
        ("meta", 7)
    ]


async def test_viewers_do_not_upload_lists_and_a_look_that_is_none_is_told(pair):
    assert (await upload(pair, workers(pair)[0], VIC))[0] == 403
    assert (await ask(pair, workers(pair)[0], "/reconcile/abcdef012345.json", VIC))[0] == 403
    status, said = await ask(pair, workers(pair)[0], "/reconcile/abcdef012345.json", ADA)
    assert (status, "Upload the list again" in said["error"]) == (404, True)


async def test_match_quality_is_counted_in_the_newest_conversions(pair):
    async def counted() -> Any:
        status, said = await ask(
            pair, workers(pair)[1], "/destinations/meta/match.json?event=purchase&without=click+id+(fbc)"
        )
        assert status == 200, said
        rows = [row for row in said["events"] if row["event"] == "purchase"]
        return said if rows and rows[0]["events"] == 3 else None

    said = await eventually(counted, "the purchases")

    jsonschema.validate(said, {"$ref": "#/components/schemas/MatchQuality", "components": DOCUMENT["components"]})
    (row,) = (row for row in said["events"] if row["event"] == "purchase")
    assert row["carried"]["e-mail"] == row["carried"]["browser id (fbp)"] == row["events"]
    assert row["carried"]["click id (fbc)"] == 0
    assert said["total"] == row["events"]
    assert "ev-R-delivered" in said["ids"]
    assert "ev-R-denied" not in said["ids"], "consent keeps it back, so it is no event of Meta's"
    status, said = await ask(pair, workers(pair)[0], "/destinations/nobody/match.json")
    assert (status, "no destination is called nobody" in said["error"]) == (400, True)


async def test_what_is_running_is_told_and_all_workers_have_the_same(pair):
    status, said = await ask(pair, workers(pair)[0], "/config.json", ADA)

    assert status == 200
    jsonschema.validate(said, {"$ref": "#/components/schemas/Config", "components": DOCUMENT["components"]})
    assert (said["differ"], said["workers_asked"], said["workers_silent"]) == ([], 2, 0)
    assert len({one["fingerprint"] for one in said["workers"]}) == 1
    assert pair.addresses["secret_key"] not in str(said)
    assert (await ask(pair, workers(pair)[0], "/config.json", VIC))[0] == 403


async def test_a_destination_is_tried_from_the_page_by_operators_and_written_down_before(pair):
    await pair.faults("meta")
    _, shown = await ask(pair, workers(pair)[0], "/config/test/ga4.json", ADA)
    status, said = await ask(pair, workers(pair)[0], "/config/test/ga4", ADA, method="POST", json={})

    for one in (shown, said):
        jsonschema.validate(one, {"$ref": "#/components/schemas/Trial", "components": DOCUMENT["components"]})
    assert "answer" not in shown
    assert (status, said["answer"]["ok"], said["counts"]) == (200, True, False)
    assert "api_secret=MASKED" in said["request"]["url"]
    _, audited = await ask(pair, workers(pair)[0], "/audit.json", ADA)
    assert ("tested a destination", "ga4") in [(row["what"], row.get("object")) for row in audited["records"]]
    assert (await ask(pair, workers(pair)[0], "/config/test/ga4", VIC, method="POST", json={}))[0] == 403


async def test_what_the_platform_counts_is_sent_with_a_yes_only(pair):
    _, shown = await ask(pair, workers(pair)[0], "/config/test/meta.json", ADA)
    refused, why = await ask(pair, workers(pair)[0], "/config/test/meta", ADA, method="POST", json={})
    status, said = await ask(pair, workers(pair)[0], "/config/test/meta", ADA, method="POST", json={"counts": "yes"})

    assert shown["counts"] is True
    assert (refused, "counts this event like any other" in why["error"]) == (400, True)
    assert (status, said["answer"]["ok"]) == (200, True)
    assert said["request"]["headers"]["Authorization"] == "Bearer MASKED"
