"""The OpenAPI document, and made-up answers against it; real ones in tests/system/test_view.py."""

import jsonschema
import pytest

from app.routing import Route
from app.view import answers, api, dead, journey, on_dedup
from app.view.dead import Work
from app.view.lookup import iso
from app.view.payloads import Found
from tests.app.view.journeys import START, attempt, conversion, found, make_copy, mark, record
from tests.app.view.test_dead import known, letter
from tests.app.view.test_journey import CONFIG, PIXEL, SERVER
from tests.app.view.test_templates import STANDS

DOCUMENT = api.document()


def valid(answer, name):
    """Does it fit the type of this name?"""
    jsonschema.validate(answer, {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]})


def answer(*conversions):
    return {"id": "1001", "conversions": list(conversions), "workers_asked": 1, "workers_silent": 0}


def test_every_schema_is_one_and_every_reference_leads_somewhere():
    schemas = DOCUMENT["components"]["schemas"]
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    text = str(DOCUMENT)
    for name in {part.split("'")[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in schemas


def test_every_path_says_who_may_and_what_comes():
    assert {
        "/index.json",
        "/events/{id}.json",
        "/dead.json",
        "/destinations.json",
        "/audit.json",
        "/reconcile.json",
    } < set(DOCUMENT["paths"])
    for path in DOCUMENT["paths"].values():
        for one in path.values():
            assert {"200", "401", "403", "503"} <= set(one["responses"])


def test_what_is_told_of_a_conversion_fits():
    destinations = {
        "ads": {
            "state": "delivered",
            "name": "Purchase",
            "at": iso(START),
            "attempts": 2,
            "traces": [1, 2],
            "detail": "ok",
        },
        "stats": {
            "state": "queued",
            "names": [{"state": "queued", "name": "x", "attempts": 1, "next_try": iso(START), "set_aside": True}],
        },
        "gone": {"state": "held_back", "reason": "consent_denied"},
    }
    rows = {1: attempt(status=503, outcome="retry", reason="away"), 2: attempt()}
    routes = {"ads": Route("queued", "", "basis"), "gone": Route("held_back", "consent_denied", "basis")}
    one = conversion([PIXEL, SERVER], destinations=destinations)

    valid(
        answer(journey.told(one, found([PIXEL, SERVER], record([PIXEL, SERVER], **routes), traces=rows), CONFIG, mark)),
        "Journey",
    )
    valid(answer(journey.told(one, Found(why_not="away"), CONFIG, mark)), "Journey")
    valid(answer(one), "Journey")


def test_what_is_told_of_a_held_conversion_fits():
    copy = make_copy("pixel")
    one = conversion([copy], state="held", records=[], waits_for="copies", held_until=iso(START), seconds_left=1.5)
    del one["decision"]

    valid(answer(journey.told(one, found([copy]), CONFIG, mark)) | {"since": iso(START)}, "Journey")


def test_what_is_no_answer_does_not_fit():
    with pytest.raises(jsonschema.ValidationError):
        valid(answer(conversion([PIXEL]) | {"secret": 1}), "Journey")
    with pytest.raises(jsonschema.ValidationError):
        valid({"id": "1"}, "Journey")


def test_letters_work_and_destinations_fit():
    some = known(letter(1, field="x", detail="y"), letter(2, state="dropped", at=5, by="ada"))
    valid(dead.overview(some, dead.wanted({"state": "all"})), "DeadLetters")
    valid({"letter": dead.as_json(letter(1)), "why_not": ""}, "OneLetter")
    valid(Work("replay", 3).as_json(), "Work")
    valid(
        {"destinations": {"ads": STANDS | {"since": iso(START), "by": "ada"}}, "workers_asked": 1, "workers_silent": 0},
        "Destinations",
    )


def test_match_quality_fits():
    row = {"event": "purchase", "events": 2, "skipped": {"x": 1}, "carried": {"phone": 1}, "given": {"phone": 2}}
    window = {"conversions": 2, "copies": 4, "since": iso(START), "until": iso(START)}
    valid(
        {
            "destination": "ads",
            "platform": "Meta",
            "window": window,
            "keys": ["phone"],
            "events": [row],
            "lint": [{"event": "purchase", "key": "phone", "text": "never there"}],
            "event": "purchase",
            "without": "phone",
            "skipped": "",
            "total": 1,
            "ids": ["1"],
        },
        "MatchQuality",
    )


def test_lists_behind_numbers_fit():
    said = {"time": START, "destination": "ads", "status": 503, "attempt": 2, "outcome": "retry", "reason": "away"}
    some = [one for one in (answers.read(b"1\x1fshop\x1fpurchase", said),) if one]
    asked = {"workers_asked": 1, "workers_silent": 0}

    valid(answers.told(some, "ads", 503, slowest=True), "Answers")
    valid(answers.told([], "ads", None, slowest=False), "Answers")
    valid(
        {"partition": None, "total": 1, "holds": [on_dedup._hold(START, b"1\x1fshop\x1fpurchase", 2)], **asked},
        "HeldList",
    )


def test_problems_audits_and_replays_fit():
    valid({"error": "x"}, "Problem")
    valid({"topic": "t", "records": [{"time": 1, "who": "ada", "what": "looked", "found": 1}]}, "Audited")
    valid({"destination": "ads", "replayed": 1, "not_replayed": []}, "Replayed")
    valid({"destinations": {"ads": {"platform": "Meta", "mode": "live", "halted": ""}}}, "Index")
