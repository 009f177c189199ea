"""Pages of made-up journeys: hostile ones, huge ones, empty ones."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from app import settings
from app.routing import Route
from app.view import api, journey, site, words
from app.view.access import Who
from app.view.lookup import iso
from app.view.on_letters import FILTERS
from app.view.payloads import Found
from tests.app.view.journeys import START, attempt, conversion, found, make_copy, mark, record
from tests.app.view.test_journey import CONFIG

EVIL = "</td><script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}"
OPERATOR, VIEWER = Who("ada", "operator", "session", "form-token"), Who("vic", "viewer", "session", "form-token")
STANDS: dict[str, Any] = {
    "platform": "Meta", "mode": "live", "max_age": 604800, "api_version": "v1", "sunset": "", "rate": 0, "guard": [], "state": "ok",
    "reason": "", "paused": False, "waiting": 0, "in_flight": 0, "parked": 0, "lag": 0, "oldest": 0.0, "spent": 0.0,
    "without_topic": False, "per_second": 2.5, "failure": "", "failed_at": "", "answers": {}, "outcomes": {}, "latency": {},
    "workers": [{"worker": "a", "state": "ok", "reason": ""}],
}  # fmt: skip
VOID = {"meta", "link", "input", "img", "br"}


class Checker(HTMLParser):
    """Every element is closed, and none but ours is there."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.attributes: set[str] = set()
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, (tag, self.getpos())


def render(template: str, who: Who = OPERATOR, **values: Any) -> str:
    common = {
        "who": who,
        "path": "/events/1",
        "twin": "/x.json",
        "nav": [("/", "Events")],
        "no_login": False,
        "form_token": "form-token",
    }
    return site._templates.get_template(template).render(common | values)


def checked(text: str) -> Checker:
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    assert len(checker.ids) == len(set(checker.ids))
    assert not {name for name in checker.attributes if name.startswith("on") or name == "style"}
    return checker


def checked_text(text: str) -> str:
    assert "img" not in checked(text).seen
    return text


def page(one: Any, read: Found, who: Who = OPERATOR, **more: Any) -> str:
    told = journey.told(one, read, CONFIG, mark)
    return render(
        "event.html", who, id=one["id"], conversions=[told], one=told, workers_asked=2, workers_silent=0, **more
    )


def evil(value: Any) -> Any:
    """The same shape with something evil in each text."""
    if isinstance(value, dict):
        return {name: evil(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [evil(inner) for inner in value]
    return EVIL if isinstance(value, str) else value


@pytest.mark.parametrize(
    "name",
    ["user", "context", "ids", "commerce", "consent", "tags", "custom", "labels", "event_id", "site", "event_name"],
)
def test_nothing_that_an_event_says_becomes_a_part_of_the_page(name):
    copy: Any = make_copy("pixel", custom={"x": "y"}, labels=["z"], unusable={EVIL: EVIL})
    copy[name] = {"tcf": EVIL, "region": EVIL} if name == "consent" else evil(copy[name])
    if name in ("custom", "tags"):
        copy[name][EVIL] = copy[name].popitem()[1]
    routes = {"ads": Route("held_back", EVIL, EVIL)}

    checker = checked(
        text := page(
            conversion([copy], destinations={"ads": {"state": "queued"}}), found([copy], record([copy], **routes))
        )
    )

    assert "img" not in checker.seen
    assert text.count("<script") == 1
    assert "{{7*7}}" in text, "it is no template either"
    assert "&lt;script&gt;" in text


def test_nothing_that_a_platform_says_becomes_a_part_of_the_page():
    copy = make_copy("pixel")
    there = evil({"state": "x", "reason": "x", "detail": "x", "name": "x"}) | {
        "state": "rejected",
        "traces": [1],
        "attempts": 2,
        "at": iso(START),
    }
    there["names"] = [evil({"state": "x", "name": "x", "reason": "x"}), {"state": "delivered", "name": "y"}]
    rows = {1: evil(attempt(reason="x")) | {"time": START, "status": 400}}
    one = conversion([copy], destinations={EVIL: there, "ads": there})

    text = page(one, found([copy], record([copy]), traces=rows))

    assert "img" not in checked(text).seen
    assert text.count("<script") == 1


def test_nothing_that_somebody_types_becomes_a_part_of_the_page():
    group = {"reason": EVIL, "place": EVIL, "destination": EVIL, "letters": 1}
    letter = dict.fromkeys(api.Letter.__annotations__, EVIL) | {"attempts": 1, "origin": {EVIL: EVIL}}
    there = dict.fromkeys(api.Destination.__annotations__, EVIL) | {
        **dict.fromkeys(("waiting", "in_flight", "parked", "lag", "oldest", "spent", "rate", "max_age", "per_second"), 1),
        "paused": True, "answers": {EVIL: 1}, "outcomes": {EVIL: 1}, "latency": {EVIL: 1.0}, "guard": [EVIL],
        "workers": [{"worker": EVIL, "state": EVIL, "reason": EVIL}, {"worker": "b", "state": "ok", "reason": ""}],
    }  # fmt: skip
    deed = {"time": 1, EVIL: EVIL, **dict.fromkeys(("who", "what", "object", "from"), EVIL)}
    match = {"received": 1, "done": 0, "of": 2, **dict.fromkeys(("id", "site", "event_name", "apart", "state"), EVIL)}
    waits = dict.fromkeys(api.Waits.__annotations__, EVIL)
    answer = dict.fromkeys(api.Answered.__annotations__, EVIL) | {"seconds": 1.0, "attempt": 1, "events": 2}
    hold = dict.fromkeys(api.Held.__annotations__, EVIL)
    letters: Any = {"total": 1, "groups": [group], "letters": [letter]}
    trace = settings.parse("").trace
    for text in (
        render("waiting.html", destination=EVIL, total=1, which="waiting", events=[waits], workers_asked=2, workers_silent=1),
        render("waiting.html", destination=EVIL, total=1, which="unfinished", events=[waits], workers_asked=0, workers_silent=0),
        render("answers.html", destination=EVIL, status=200, slowest=True, total=1, answers=[answer], trace=trace, read=7),
        render("held.html", partition=1, total=1, holds=[hold], workers_asked=2, workers_silent=1),
        render("unknown.html", id=EVIL, conversions=[], workers_asked=1, workers_silent=1, kept=60.0, since=EVIL),
        render("problem.html", error=EVIL),
        render("login.html", then=EVIL, has_tokens=True, error=EVIL),
        render("audit.html", topic=EVIL, records=[deed]),
        render("replayed.html", destination=EVIL, replayed=1, not_replayed=[EVIL], back=EVIL),
        render("index.html", destinations={EVIL: {"platform": EVIL, "mode": EVIL, "halted": EVIL}}),
        render("dead.html", **letters, query=dict.fromkeys(FILTERS, EVIL), filtered=True, whole=False, read=7),
        render("confirm.html", do="replay", total=1, groups=[group], chosen=[EVIL], filters={EVIL: EVIL}),
        render("letter.html", letter=letter, why_not=EVIL),
        render("work.html", what="drop", total=2, done=1, finished=False, failed=EVIL, not_done=[{"why": EVIL, "letters": 1}]),
        render("destinations.html", destinations={EVIL: there}, workers_asked=1, workers_silent=1, done=EVIL),
        render("matches.html", id=EVIL, matches=[match], most=1, workers_asked=1, workers_silent=0),
    ):  # fmt: skip
        assert "img" not in checked(text).seen
        assert text.count("<script") == 1


def test_every_state_of_a_conversion_has_its_page():
    copy = make_copy("pixel")
    for how, words_ in words.CLOSED.items():
        one = conversion(
            [copy], decision={"how": how, "at": iso(START)}, state="parked" if how == "unconfirmed" else "closed"
        )
        text = page(one, found([copy], record([copy])))
        checked(text)
        assert words_ in text or how in ("unconfirmed", "erased")
    held = conversion([copy], state="held", decision=None, waits_for="copies", held_until=iso(START), seconds_left=3.25)
    assert 'data-seconds-left="3.25"' in page(held, found([copy]))
    unclear = conversion([copy], state="held", decision=None)
    assert "data-seconds-left" not in page(unclear, found([copy]))
    odd = page(
        conversion([copy], people=3, hot=True, apart="ab12", revisions=2), Found(why_not="Kafka does not answer")
    )
    checked(odd)
    assert "3 different people" in odd
    assert "Kafka does not answer." in odd


@pytest.mark.parametrize(
    ("there", "text"),
    [
        ({"state": "queued", "attempts": 3, "next_try": iso(START), "set_aside": True}, "set aside"),
        ({"state": "queued", "attempts": 1, "under_way": True}, "a request with it is under way"),
        ({"state": "halted", "reason": "no access"}, "no access"),
        ({"state": "delivered", "attempts": 1}, "Its requests are not kept"),
        ({"state": "rejected", "reason": "too_old"}, "too old for the platform"),
    ],
)
def test_every_state_of_a_destination_is_told(there, text):
    copy = make_copy("pixel")

    assert text in page(conversion([copy], destinations={"ads": there}), found([copy], record([copy])))


def test_what_became_of_it_is_told_before_everything_else_and_so_is_what_only_a_late_copy_had():
    first, late = make_copy("server", ids=None), make_copy("pixel", 30.0, ids={"ttclid": "E.C.P."})
    there = {"ads": {"state": "delivered"}, "stats": {"state": "skipped", "reason": "no GA4 client id"}}

    text = page(conversion([first, late], destinations=there), found([first, late], record([first])))

    checked(text)
    assert text.index("no GA4 client id") < text.index(">Copies<")
    assert '<a href="#to-2">stats</a> <strong class="quiet">skipped' in text
    assert re.search(r"What it alone tells: ids\.ga_client_id, .*ids\.ttclid.*\. <a ", text)


def test_attempts_that_went_like_the_one_before_are_counted():
    copy = make_copy("pixel")
    there = {"state": "queued", "attempts": 5, "traces": [1]}
    one = conversion([copy], destinations={"ads": there})

    assert "4 attempts after that went the same way" in page(one, found([copy], record([copy]), traces={1: attempt()}))


def test_only_operators_find_a_button_to_send_it_again():
    copy = make_copy("pixel")
    one = conversion([copy], destinations={"ads": {"state": "rejected", "reason": "bad"}})
    read = found([copy], record([copy]))

    assert "Send it again" in page(one, read, OPERATOR)
    assert 'name="form_token" value="form-token"' in page(one, read, OPERATOR)
    assert "Send it again" not in page(one, read, VIEWER)


def test_only_operators_find_what_changes_something():
    row = {"reason": "bad", "place": "ads", "destination": "ads", "letters": 1}
    letter = {"id": "0" * 24, "time": iso(START), "place": "ads", "reason": "bad"}
    for who, there in ((OPERATOR, True), (VIEWER, False)):
        pages = [
            render("dead.html", who, query={}, filtered=False, total=1, groups=[row], letters=[letter], whole=True),
            render("letter.html", who, letter=letter, why_not=""),
            render("destinations.html", who, destinations={"ads": STANDS}, workers_asked=1, workers_silent=0),
        ]
        assert [any(f">{word}<" in text for word in ("Replay", "Pause")) for text in pages] == [there] * 3


def test_a_destination_that_is_paused_can_be_resumed_and_says_who_paused_it():
    paused = STANDS | {"state": "paused", "paused": True, "reason": "a pause", "by": "ada", "since": iso(START)}

    text = render("destinations.html", destinations={"ads": paused}, workers_asked=1, workers_silent=0)

    checked(text)
    assert "by ada since 2026-11-23 08:00:00.000" in text
    assert ">Resume<" in text
    assert ">Pause<" not in text


def test_each_number_of_a_destination_leads_to_what_it_counts():
    there = STANDS | {
        "waiting": 5,
        "in_flight": 2,
        "lag": 7,
        "answers": {"0": 3, "429": 4},
        "latency": {"p50": 0.1},
        "failed_at": iso(START),
    }

    text = render("destinations.html", destinations={"ads": there}, workers_asked=1, workers_silent=0)

    checked(text)
    for where, told in {
        "waiting": "5 events",
        "waiting?which=under_way": "2 requests",
        "waiting?which=unfinished": "7 records",
        "answers?status=0": "3 × none",
        "answers?status=429": "4 × 429",
        "answers?slowest=yes": "p50 100 ms",
        "answers": "<time>2026-11-23 08:00:00.000</time>",
    }.items():
        assert f'<a href="/destinations/ads/{where}">{told}</a>' in text


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        ('requests = "none"', "keeps none"),
        ('requests = "failed"', "only what was not taken"),
        ("share = 0.1", "10 % of what was taken"),
        ("", "for 1 d"),
    ],
)
def test_a_list_of_answers_says_which_are_kept(kept, told):
    trace = settings.parse(f"[trace]\n{kept}").trace

    text = render(
        "answers.html", destination="ads", status=0, slowest=False, total=0, answers=[], trace=trace, read=10_000
    )

    checked(text)
    assert told in text
    assert "There are none among them" in text


def test_a_huge_journey_is_a_page_of_bounded_size():
    huge: Any = make_copy("server", custom={f"k{n}": "v" * 5000 for n in range(3000)})
    rows = {n: attempt(body="x" * 16_000, answer="y" * 2_000) for n in range(5)}
    there = {"state": "delivered", "traces": list(range(5)), "attempts": 5}
    one = conversion([huge] * 8, received=1_000_000, destinations={f"d{n}": there for n in range(20)})

    text = page(one, found([huge] * 8, record([huge]), traces=rows))

    assert len(text) < 4_000_000
    assert "1\u202f000\u202f000 copies received, the first 8 are shown" in text


def test_an_empty_place_says_so():
    copy = make_copy("pixel")

    assert "No destination is configured" in page(conversion([copy]), found([copy], record([copy])))
    assert "no longer retained" in page(conversion([copy]), Found())
    assert "Nobody has done anything yet" in render("audit.html", topic="t", records=[])
    assert "No destination is configured" in render("index.html", destinations={})
    assert "No destination is configured" in render(
        "destinations.html", destinations={}, workers_asked=1, workers_silent=0
    )
    assert "There are none" in render("dead.html", total=0, groups=[], letters=[], query={}, filtered=False, whole=True)
    assert "Nothing is held" in render(
        "held.html", partition=None, total=0, holds=[], workers_asked=1, workers_silent=0
    )
    none: Any = {"destination": "ads", "total": 0, "workers_asked": 1, "workers_silent": 0}
    for which, told in (
        ("waiting", "Nothing waits"),
        ("under_way", "No request is under way"),
        ("unfinished", "All is finished"),
    ):
        assert told in render("waiting.html", events=[], which=which, **none)
    assert "None is chosen" in render("confirm.html", do="drop", total=0, groups=[], chosen=[], filters={})


def test_a_page_is_an_outline_of_headings():
    copy = make_copy("pixel")
    text = page(
        conversion([copy], destinations={"ads": {"state": "delivered", "traces": [1]}}),
        found([copy], record([copy]), traces={1: attempt()}),
    )

    assert re.findall(r"<h(\d)", text) == ["1", "2", "2", "3", "4", "4"]
    assert settings.parse("").view.journey_retention == 30 * 86400


def test_nothing_of_an_event_becomes_a_part_of_the_page_about_match_quality():
    row = {"event": EVIL, "events": 3, "skipped": {EVIL: 1}, "carried": {"phone": 1}, "given": {"phone": 2}}
    none = row | {"event": "search", "events": 0}
    said: Any = {
        "destination": "ads",
        "platform": "Meta",
        "event": EVIL,
        "without": "phone",
        "skipped": "",
        "total": 2,
        "ids": [EVIL],
    }
    said |= {"keys": ["phone"], "lint": [([EVIL], [EVIL], EVIL)], "events": [row, none]}
    window = {"conversions": 3, "copies": 4, "since": iso(START), "until": iso(START)}

    text = render("match.html", **said, window=window, enough=20)

    assert "img" not in checked(text).seen
    assert "33&nbsp;%" in text
    assert "not sent" in checked_text(render("match.html", **said | {"skipped": EVIL}, window=window, enough=20))
    checked(render("match.html", **said | {"events": []}, window={"conversions": 0, "copies": 0}))
    checked(render("match.html", **said | {"keys": []}, window=window))
