"""How copies meet, of a running pipe with two workers: both tell the same, and each number leads to what it counts."""

import jsonschema
import pytest
import pytest_asyncio

from tests.app.view.test_templates import checked
from tests.system.conftest import eventually, running
from tests.system.test_main_job import BROWSER, pixel, server
from tests.system.test_view import ADA, DOCUMENT, LOGIN, VIC, ask, journey, workers

pytestmark = [pytest.mark.fault, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(kafka, tmp_path_factory):
    """Eight pairs, of which one is split by the hold."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIEW_ADA", ADA)
        patch.setenv("VIEW_VIC", VIC)
        async with running(kafka, tmp_path_factory.mktemp("dedup") / "system", patch, workers=2, more=LOGIN) as one:
            await one.post(pixel("D-late"), **BROWSER)
            for n in range(7):
                await one.post(pixel(f"D-{n}"), **BROWSER)
                await one.post(server(f"D-{n}"), key="secret_key")

            async def closed():
                found = (await journey(one, "D-late"))["conversions"]
                return found and found[0]["state"] == "closed"

            await eventually(closed, "the end of the hold")
            await one.post(server("D-late"), key="secret_key")
            yield one


def valid(said, name):
    jsonschema.validate(said, {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]})
    return said


async def health(pair, where, query=""):
    status, said = await ask(pair, where, f"/dedup.json{query}")
    assert status == 200, said
    return valid(said, "DedupHealth")


async def test_both_workers_tell_the_same_of_all_partitions(pair):
    async def both():
        found = [await health(pair, where, "?hold=0.001") for where in workers(pair)]
        told = [next((one for one in some["events"] if one["event"] == "purchase"), {"late": 0}) for some in found]
        counted = [one for some in found for one in some["counted"]["events"] if one["event"] == "purchase"]
        done = [one["duplicates"].get("late") for one in counted] == [1, 1]
        return told[0]["late"] == told[1]["late"] == 1 and done and (found, told)

    (first, second), (one, other) = await eventually(both, "the late copy at both")

    assert one == other
    assert (one["together"], one["late"], one["share"], one["merged"]) == (7, 1, 1.0, 0.875)
    assert one["gaps"]["p99"] > one["hold"] > one["gaps"]["p50"]
    asked = next(row for row in one["holds"] if row["hold"] == 0.001)
    assert asked["together"] + asked["split"] == 8
    assert [some["partition"] for some in first["partitions"]] == [0, 1, 2, 3]
    assert {some["worker"] for some in first["partitions"]} == set(workers(pair))
    assert sum(some["keys"] for some in first["partitions"]) >= 16, "each of the eight has an alias"
    (source,) = {some["source"].rpartition("-")[0] for some in first["clocks"]}
    assert source == next(iter(pair.demo.config.sources.values())).topic
    assert all(some["mark"] and some["worker"] and not some["left_out"] for some in first["clocks"])
    assert first["counted"]["events"] == second["counted"]["events"]
    (counted,) = first["counted"]["events"]
    assert (counted["closed"], counted["hold_ended_share"]) == ({"complete": 7, "hold_ended": 1}, 0.125)


async def test_each_number_leads_to_what_it_counts(pair):
    where = workers(pair)[1]
    _, late = await ask(pair, where, "/dedup/list.json?event=purchase&what=late")
    _, split = await ask(pair, where, "/dedup/list.json?event=purchase&longer=0")
    _, none = await ask(pair, where, "/dedup/list.json?event=refund")

    assert [one["id"] for one in valid(late, "MetList")["conversions"]] == ["D-late"]
    assert late["conversions"][0]["gap"] > 3
    assert valid(split, "MetList")["total"] == 8
    assert valid(none, "MetList")["conversions"] == []


async def test_what_is_held_is_listed_by_both_workers_while_it_is(pair):
    await pair.post(pixel("D-held"), **BROWSER)

    async def both():
        found = [(await ask(pair, where, "/dedup/held.json"))[1] for where in workers(pair)]
        return all("D-held" in [one["id"] for one in some["holds"]] for some in found) and found

    found = await eventually(both, "the hold at both")
    for one in found:
        (hold,) = valid(one, "HeldList")["holds"]
        _, apart = await ask(pair, workers(pair)[0], f"/dedup/held.json?partition={(hold['partition'] + 1) % 4}")
        assert (one["total"], apart["total"]) == (1, 0)


async def test_the_pages_are_whole(pair):
    headers = {"Authorization": f"Bearer {VIC}", "Accept": "text/html"}
    for path, told in (("/dedup?hold=2", "asked for"), ("/dedup/list?event=purchase&what=together", "D-3")):
        async with pair.http.get(workers(pair)[0] + path, headers=headers) as response:
            text = await response.text()

        checked(text)
        assert told in text


async def test_the_clock_is_no_copy_and_nobody_gets_in_without_a_token(pair):
    before = (await health(pair, workers(pair)[0]))["window"]

    assert before["copies"] in (16, 17), "as of a moment ago"
    assert (before["conversions"], before["whole"]) == (before["copies"] - 8, True)
    assert before["read"] == before["partitions"] == 4
    for path in ("/dedup.json", "/dedup/list.json", "/local/dedup.json"):
        async with pair.http.get(workers(pair)[0] + path) as response:
            assert response.status == 401
