"""What is told of a conversion, from tables and topics."""

from typing import Any

import pytest

from app import settings
from app.routing import Route
from app.view import journey
from app.view.payloads import Found
from tests.app.view.journeys import attempt, conversion, found, make_copy, mark, record

CONFIG = settings.parse("""
[destinations.ads]
sink = "meta"
dataset_id = "1234567890"
access_token = { env = "X" }
browser_tag = { purchase = "same_id", default = "none" }

[destinations.stats]
sink = "ga4"
measurement_id = "G-ABC123XYZ"
api_secret = { env = "X" }
browser_tag = "none"
""")
OF_PIXEL: dict[str, Any] = {
    "user": None,
    "commerce": {"value": 59.98},
    "ids": {"gclid": "Cj0"},
    "tags": {"meta": {"ran": True, "event_id": "order-1001"}, "ga4": None},
}
PIXEL = make_copy("pixel", **OF_PIXEL)
SERVER = make_copy("server", 3.2, ids=None, context=None, commerce={"value": 61.5}, tags=None)


def told(one, read, **destinations):
    return journey.told({**one, "destinations": destinations}, read, CONFIG, mark)


def fields(said):
    return {row["field"]: row for row in said["fields"]}


# copies


def test_copies_stand_side_by_side_with_when_each_arrived_and_how_much_later():
    said = told(conversion([PIXEL, SERVER]), found([PIXEL, SERVER], record([PIXEL, SERVER])))

    assert [(one["source"], one["part"], one["gap"]) for one in said["copies"]] == [
        ("pixel", "merged", 0.0),
        ("server", "merged", 3.2),
    ]
    assert said["copies"][1]["arrived"] == "2026-11-23T08:00:03.205Z"


def test_what_a_copy_told_in_vain_is_shown_with_the_reason():
    vague: Any = make_copy("server", unusable={"user.phone": "no_country_code"})
    said = told(conversion([PIXEL, vague]), found([PIXEL, vague], record([PIXEL, vague])))

    assert "unusable" not in said["copies"][0]
    assert said["copies"][1]["unusable"] == [{"field": "user.phone", "reason": "no_country_code"}]


@pytest.mark.parametrize(("state", "verdict"), [("delivered", "allowed"), ("held_back", "denied")])
def test_of_an_old_conversion_receipts_tell_the_consent(state, verdict):
    said = told(
        conversion([PIXEL]), Found(bases={"ads": "ad_storage told"}), ads={"state": state}, stats={"state": state}
    )

    assert said["destinations"]["ads"]["consent"] == {"verdict": verdict, "basis": "ad_storage told"}
    assert "consent" not in said["destinations"]["stats"]


def test_a_copy_that_repeats_a_merged_one_is_told_from_one_that_came_late():
    again, late = make_copy("pixel", 8.0, **OF_PIXEL), make_copy("pixel", 9.0, **OF_PIXEL, labels=["test"])
    copies = [PIXEL, SERVER, again, late]

    said = told(conversion(copies), found(copies, record([PIXEL, SERVER])))

    assert [one["part"] for one in said["copies"]] == ["merged", "merged", "repeat", "late"]


def test_of_what_is_no_longer_retained_nobody_says_what_part_it_had():
    said = told(conversion([PIXEL, SERVER]), Found())

    assert [one["part"] for one in said["copies"]] == ["", ""]
    assert "arrived" not in said["copies"][0]
    assert said["fields"] == []
    assert not said["preview"]


# fields


def test_each_field_of_the_merged_event_names_the_copy_that_it_is_from():
    rows = fields(told(conversion([PIXEL, SERVER]), found([PIXEL, SERVER], record([PIXEL, SERVER]))))

    assert rows["commerce.value"] == {
        "field": "commerce.value", "copies": ["59.98", "61.5"], "differ": True, "merged": "61.5", "taken_from": [2],
    }  # fmt: skip
    assert rows["ids.gclid"] == {
        "field": "ids.gclid", "copies": ["Cj0", None], "differ": False, "merged": "Cj0", "taken_from": [1],
    }  # fmt: skip
    assert rows["consent.ad_storage"]["taken_from"] == [1, 2]
    assert rows["commerce.items[0]"]["taken_from"] == [2]


def test_a_late_copy_gives_nothing_to_the_merged_event():
    late = make_copy("server", 60.0, ids={"fbp": "late"}, user={"city": "X"})
    rows = fields(told(conversion([PIXEL, late]), found([PIXEL, late], record([PIXEL]))))

    assert rows["user.country"]["copies"][1] is not None
    assert "merged" not in rows["user.country"]
    assert rows["commerce.value"]["taken_from"] == [1]


def test_where_a_copy_was_not_read_nothing_is_said_to_be_from_another():
    read = found([PIXEL, SERVER], record([PIXEL, SERVER]))
    del read.copies[1]

    rows = fields(told(conversion([PIXEL, SERVER]), read))

    assert rows["commerce.value"]["merged"] == "61.5"
    assert rows["commerce.value"]["taken_from"] == []
    assert rows["ids.gclid"]["taken_from"] == [1]


def test_what_is_held_is_shown_as_it_would_be_merged_by_now():
    held = conversion([PIXEL], state="held", records=[], decision=None, seconds_left=4.0)

    said = told(held, found([PIXEL]))

    assert said["preview"]
    assert [one["part"] for one in said["copies"]] == ["held"]
    assert fields(said)["commerce.value"]["merged"] == "59.98"


def test_after_a_revision_the_event_is_shown_as_it_was_sent_last():
    revised = record([PIXEL, SERVER])

    rows = fields(told(conversion([PIXEL, SERVER]), found([PIXEL, SERVER], record([PIXEL]), revised)))

    assert rows["commerce.value"]["merged"] == "61.5"


def test_no_event_is_so_large_that_its_page_is_without_end():
    huge = make_copy(
        "server",
        custom={f"k{n}": "v" * 5000 for n in range(3000)},
        commerce={"items": [{"item_id": str(n)} for n in range(500)]},
    )

    said = told(conversion([huge] * 8), found([huge] * 8, record([huge])))

    assert len(said["fields"]) < journey.MOST_FIELDS
    assert max(len(value) for row in said["fields"] for value in row["copies"]) < 350


# destinations


def test_the_consent_that_it_was_judged_by_and_the_route_stand_beside_the_outcome():
    routes = {
        "ads": Route("held_back", "consent_denied", "ad_storage denied"),
        "stats": Route("queued", "", "analytics_storage granted"),
    }
    read = found([PIXEL], record([PIXEL], **routes))

    said = told(
        conversion([PIXEL]), read, ads={"state": "held_back", "reason": "consent_denied"}, stats={"state": "queued"}
    )["destinations"]

    assert said["ads"]["consent"] == {"verdict": "denied", "basis": "ad_storage denied"}
    assert said["ads"]["route"] == {"state": "held_back", "reason": "consent_denied"}
    assert said["stats"]["consent"] == {"verdict": "allowed", "basis": "analytics_storage granted"}


def test_what_was_filtered_before_that_was_not_asked_for_consent():
    read = found([PIXEL], record([PIXEL], ads=Route("filtered", "label_bot")))

    there = told(conversion([PIXEL]), read, ads={"state": "filtered", "reason": "label_bot"})["destinations"]["ads"]

    assert there["consent"] == {"verdict": "not asked", "basis": ""}


def test_attempts_are_told_with_request_and_answer():
    rows = {7: attempt(status=503, outcome="retry", reason="away", answer="try later"), 9: attempt(attempt=2)}
    there = {"state": "delivered", "attempts": 2, "traces": [7, 8, 9]}

    said = told(conversion([PIXEL]), found([PIXEL], record([PIXEL]), traces=rows), ads=there)["destinations"]["ads"]

    first, second = said["attempts_kept"]
    assert (first["status"], first["outcome"], first["reason"], first["answer"]) == (503, "retry", "away", "try later")
    assert (second["attempt"], second["status"], second["seconds"]) == (2, 200, 0.25)
    assert second["request"] == {
        "method": "POST", "url": "https://ads.example/events?token=MASKED", "cut": False,
        "body": '{\n  "data": [\n    {\n      "a": 1\n    }\n  ]\n}',
    }  # fmt: skip
    assert "traces" not in said


def test_a_strangers_row_in_the_topic_of_traces_does_no_harm():
    rows = {1: {"time": "x", "body": 7, "outcome": ["a"], "answer": None}, 2: {}}

    said = told(
        conversion([PIXEL]), found([PIXEL], record([PIXEL]), traces=rows), ads={"state": "queued", "traces": [1, 2]}
    )

    assert said["destinations"]["ads"]["attempts_kept"] == [{"at": ""}, {"at": ""}]


@pytest.mark.parametrize(
    ("tag", "verdict"),
    [
        ({"ran": True, "event_id": "order-1001"}, "same id"),
        ({"ran": True, "event_id": "x"}, "another id"),
        ({"ran": True}, "id not reported"),
        ({"ran": False}, "did not run"),
        (None, "not reported"),
    ],
)
def test_the_platforms_own_tag_is_the_third_sender(tag, verdict):
    copy = make_copy("pixel", tags=None)
    if tag is not None:
        copy["tags"] = {"meta": tag}
    there = {"state": "delivered"}

    said = told(conversion([copy]), found([copy], record([copy])), ads=there, stats=there)["destinations"]

    assert (said["ads"]["browser_tag"]["verdict"], said["ads"]["browser_tag"]["expected"]) == (verdict, "same_id")
    assert said["stats"]["browser_tag"] == {"verdict": "not reported", "expected": "none"}


@pytest.mark.parametrize(
    ("there", "replay"),
    [
        ({"state": "rejected", "reason": "a parameter is invalid"}, True),
        ({"state": "rejected", "reason": "too_old"}, False),
        ({"state": "delivered"}, False),
        ({"state": "held_back", "reason": "consent_denied"}, False),
        ({"state": "queued"}, False),
    ],
)
def test_only_what_a_replay_can_help_can_be_replayed(there, replay):
    said = told(conversion([PIXEL]), found([PIXEL], record([PIXEL])), ads=there)

    assert said["destinations"]["ads"]["replay"] is replay


def test_a_destination_that_is_no_longer_configured_is_told_all_the_same():
    said = told(conversion([PIXEL]), found([PIXEL], record([PIXEL])), old={"state": "delivered"})

    assert said["destinations"]["old"]["state"] == "delivered"


def test_of_several_conversions_one_line_each_is_told():
    one = conversion([PIXEL], destinations={"a": {"state": "delivered"}, "b": {"state": "rejected"}})

    assert journey.summary([one]) == [
        {
            "id": "1001", "site": "shop", "event_name": "purchase", "apart": "", "state": "closed", "received": 1,
            "done": 1, "of": 2,
        }
    ]  # fmt: skip
