"""What the page Reconcile keeps of a list, and shows of it."""

import re
from dataclasses import replace
from typing import Any

import jsonschema
import pytest

from app import settings
from app.errors import CapistreamError
from app.exports import Sent
from app.orders import Order, Orders
from app.reconcile import CLASSES, GROUPS, YOUNG, Judged, Report
from app.view import api, looks
from app.view.looks import Asked, Look, Looks, told
from tests.app.view.test_templates import EVIL, checked, render

NOW = 1_795_500_000_000
CONFIG = settings.parse(
    """
[kafka]
brokers = "127.0.0.1:1"
[destinations.ads]
sink = "meta"
dataset_id = "1234567890"
access_token = { env = "ADS_TOKEN" }
browser_tag = "none"
"""
)
ASKED = Asked("ads", "UTC", 90.0, {}, "ada")
DOCUMENT = api.document()


def judged(number: int, kind: str = "delivered", day: str = "2026-11-23", **more: Any) -> list[Judged]:
    return [
        Judged(Order(f"{kind}-{n}", n + 2, NOW, day, 10.0, "EUR"), kind, **{"sources": ("pixel",), **more})
        for n in range(number)
    ]


def look(*some: Judged, **listed: Any) -> Look:
    orders = Orders("UTC", columns={"order_id": "order"}, **listed)
    return Look(ASKED, len(some), report=Report("ads", "Meta", orders, some, NOW))


def valid(answer: Any) -> Any:
    jsonschema.validate(answer, {"$ref": "#/components/schemas/Look", "components": DOCUMENT["components"]})
    return answer


def page(said: Any) -> str:
    return render("look.html", **said, classes=CLASSES, groups=GROUPS)


def test_what_the_platform_has_of_what_it_should_have_are_lists_too():
    one = look(*judged(3), *judged(2, "differs"), *judged(4, "rejected"), *judged(5, "left_out"), *judged(1, "pending"))
    assert one.report

    said = valid(told(one, "due"))
    assert (told(one, "has")["total"], said["total"]) == (5, 9)
    assert (said["report"]["delivered"], said["report"]["due"]) == (5, 9), "what is on its way since now is not missed"
    assert "that the platform should have" in page(said)
    assert told(replace(one, report=replace(one.report, now=NOW + YOUNG)), "due")["total"] == 10


def test_a_page_of_orders_is_of_a_class_and_a_day_and_fits_the_document():
    one = look(*judged(3), *judged(450, "pending"), *judged(2, "pending", ""))

    said = valid(told(one, "pending", "2026-11-23", 3))
    assert (said["total"], said["page"], said["pages"], len(said["orders"])) == (450, 3, 3, 50)
    assert told(one, "pending", looks.NO_DAY)["total"] == 2
    assert told(one, "", "2026-11-23")["total"] == 453
    assert told(one, "pending", "", 99)["page"] == 3
    assert told(one, "nonsense")["total"] == 0
    assert told(one)["orders"] == []


def test_every_number_leads_to_the_orders_that_it_counts():
    one = look(*judged(3), *judged(450, "pending", "2026-11-24"), *judged(2, "rejected", "", reason="x"))
    text = page(told(one))

    checked(text)
    links = re.findall(r'href="\?(?:class=(\w+))?(?:&amp;)?(?:day=([\w-]+))?#orders">([\d\u202f]+)<', text)
    assert len(links) >= 3 + 3 + 2
    for kind, day, number in links:
        assert told(one, kind, day)["total"] == int(number.replace("\u202f", ""))
    assert '<a href="?class=rejected&amp;reason=x#orders">2</a>: x' in text
    assert (told(one, "rejected", reason="x")["total"], told(one, reason="y")["total"]) == (2, 0)


def test_a_list_of_thousands_is_a_page_of_two_hundred():
    text = page(valid(told(look(*judged(10_000)), "delivered")))

    checked(text)
    assert text.count("/events/delivered-") == 200
    assert "Page 1 of 50" in text


def test_a_look_under_way_and_one_that_failed_say_so():
    for one in (Look(ASKED, 5, read=3000), Look(ASKED, 5, failed="Kafka does not answer")):
        checked(text := page(valid(told(one))))
        assert ("3\u202f000 records" in text) != ("Kafka does not answer" in text)


def test_nothing_of_a_list_becomes_a_part_of_the_page():
    evil = Order(EVIL, 2, NOW, "2026-11-23", 10.0, EVIL)
    some = Judged(evil, "differs", EVIL, Sent(EVIL, value=1.0, currency=EVIL), (EVIL,))
    one = look(some)
    assert one.report is not None
    one.report.listed.columns = {"order_id": EVIL, "time": EVIL}

    text = page(told(one, "differs"))

    assert "img" not in checked(text).seen
    assert text.count("<script") == 1


def test_an_order_number_that_looks_like_a_person_is_not_shown():
    one = look(Judged(Order("ada@example.com", 2), "never_received"))

    assert "ada@example.com" not in str(told(one, "never_received"))
    assert "looks like a person" in page(told(one, "never_received"))


def test_the_form_names_destinations_and_the_looks_that_there_are():
    common: Any = {"threshold": 90.0, "columns": ["time"]}
    text = render("reconcile.html", looks=[look(*judged(2)).as_json()], destinations=["ads", EVIL], **common)

    assert "img" not in checked(text).seen
    assert "2 orders at ads" in text
    checked(render("reconcile.html", looks=[], destinations=[], **common))


async def test_a_list_without_an_order_is_refused_with_the_reason():
    with pytest.raises(CapistreamError, match="there is no order in this list; line 2: total is no number"):
        await Looks(CONFIG, lambda _: None).list_of(b"order,total\n1,x\n", ASKED)


async def test_looks_are_few_and_one_is_made_at_a_time(monkeypatch):
    monkeypatch.setattr(looks, "AT_ONCE", 0.0)
    running: list[Any] = []
    all_ = Looks(CONFIG, running.append)
    listed = Orders("UTC", {"1": Order("1", 2)})

    first = await all_.begin(listed, ASKED)
    with pytest.raises(CapistreamError, match="another list is being looked at"):
        await all_.begin(listed, ASKED)
    await running.pop()
    assert "127.0.0.1:1" in first.failed, "and what fails is told"
    for _ in range(looks.LOOKS + 1):
        await all_.begin(listed, ASKED)
        await running.pop()

    assert len(all_.all()) == looks.LOOKS
    assert all_.get(first.id) is None


async def test_a_look_is_gone_after_an_hour():
    all_ = Looks(CONFIG, lambda _: None)
    one = look(*judged(1))
    all_._known[one.id] = one
    assert all_.get(one.id) is one

    one.at -= int(looks.KEPT * 1000) + 1

    assert all_.get(one.id) is None
