"""Dead letters on pages."""

import asyncio

import pytest

from app import letters
from app.dead_letter import Filed
from app.errors import CapistreamError
from app.events import Json
from app.view import dead
from app.view.dead import Desk, Work


def letter(n: int, **more) -> Filed:
    said: Json = {"stage": "deliver", "reason": "bad", "destination": "ads", "event_id": f"e{n}", "time": 1_000 * n}
    return Filed(**(said | {"origin": {"topic": "capistream.to.ads", "partition": 0, "offset": n}} | more))


def known(*some: Filed) -> letters.Letters:
    return {one.id: one for one in some}


def test_letters_are_counted_by_reason_and_place_and_the_newest_come_first():
    refused = letter(
        4,
        stage="normalize",
        reason="not_json",
        destination="",
        event_id="",
        origin={"topic": "shop", "partition": 0, "offset": 4},
    )

    said = dead.overview(known(letter(1), letter(3), letter(2, reason="worse"), refused), dead.wanted({}))

    assert said["total"] == 4
    assert said["groups"][0] == {"reason": "bad", "place": "ads", "destination": "ads", "letters": 2}
    assert {"reason": "not_json", "place": "shop", "destination": "", "letters": 1} in said["groups"]
    assert [one.get("event_id") for one in said["letters"]] == [None, "e3", "e2", "e1"]


def test_a_filter_leaves_out_what_does_not_fit_and_what_is_settled():
    some = known(
        letter(1), letter(2, reason="worse"), letter(3, destination="stats"), letter(4, state="dropped", at=5, by="ada")
    )

    def total(**query):
        return dead.overview(some, dead.wanted(query))["total"]

    assert total() == 3
    assert total(reason="bad") == 2
    assert total(reason="bad", destination="ads") == 1
    assert total(event_id="e2") == 1
    assert total(state="all") == 4
    assert total(reason="none") == 0


def test_a_settled_letter_says_who_settled_it():
    said = dead.as_json(letter(1, state="replayed", at=5_000, by="ada"))

    assert (said["state"], said["at"], said["by"]) == ("replayed", "1970-01-01T00:00:05.000Z", "ada")
    assert "state" not in dead.as_json(letter(1))


def test_a_page_shows_the_newest_of_many():
    said = dead.overview(known(*(letter(n) for n in range(1000))), dead.wanted({}))

    assert (said["total"], len(said["letters"])) == (1000, dead.MOST)
    assert said["letters"][0]["event_id"] == "e999"


def test_an_id_that_means_no_letter_is_an_error():
    with pytest.raises(CapistreamError, match="no letters have an id"):
        dead.overview(known(letter(1)), dead.wanted({}, ["ffffffff"]))


def test_work_tells_how_far_it_is():
    work = Work("replay", 1)
    work.note(letters.Told(letter(1)))
    work.note(letters.Told(letter(2), "its record is no longer retained"))

    said = work.as_json()

    assert (said["done"], said["total"], said["finished"]) == (2, 2, False)
    assert said["not_done"] == [{"why": "its record is no longer retained", "letters": 1}]


# with a Kafka


@pytest.mark.fault
def test_letters_are_dropped_and_what_cannot_be_replayed_is_told(place):
    for one in (letter(1, time=0), letter(2, time=0)):
        place.write(f"{place.prefix}.dead", [one.row(1.0)], one.partition(2))

    async def run():
        tasks = []
        desk = Desk(place.config, lambda work: tasks.append(asyncio.ensure_future(work)))
        before, _ = await desk.newest()
        dropped = await desk.begin("drop", [before[letter(1).id]], before, "ada")
        left, _ = await desk.newest()
        replayed = await desk.begin("replay", [left[letter(2).id]], left, "ada")
        await asyncio.gather(*tasks)
        return dropped.as_json(), {one.id: one.state for one in left.values()}, replayed.as_json()

    dropped, left, replayed = asyncio.run(run())

    assert (dropped["done"], dropped["finished"], dropped["failed"]) == (1, True, "")
    assert left == {letter(1).id: "dropped", letter(2).id: ""}
    assert (replayed["finished"], len(replayed["not_done"])) == (True, 1)


@pytest.mark.fault
def test_of_many_records_the_newest_are_read_and_the_page_says_so(place, monkeypatch):
    some = [letter(n, time=n) for n in range(20)]
    for one in some:
        place.write(f"{place.prefix}.dead", [one.row(1.0)], one.partition(2))

    async def told(*ids):
        return await Desk(place.config, lambda _work: None).overview(dead.wanted({}, ids))

    everything = asyncio.run(told())
    monkeypatch.setattr(dead, "READ", 6)
    newest = asyncio.run(told())

    assert (everything["total"], everything["whole"]) == (20, True)
    assert (newest["total"], newest["whole"]) == (6, False), "three of each partition"
    old = everything["letters"][-1]["id"]
    assert old not in [one["id"] for one in newest["letters"]]
    assert [one["id"] for one in asyncio.run(told(old))["letters"]] == [old], "one that is named is found all the same"
