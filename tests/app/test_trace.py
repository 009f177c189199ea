"""What was said to a platform and what it answered: the rows of the topic of traces."""

import json

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app import keys, settings, trace
from app.delivery import Job
from app.prepare import Masked
from app.settings import Trace
from app.trace import Exchange
from sinks import SINKS
from sinks._base import Accepted, Delivered, Halt, Payload, Rejected, Request, Retry, listed
from tests.factories import make_event, payload


def job(event_id: str = "e1", **more) -> Job:
    event = make_event(event_id=event_id, event_name="login", **more)
    return Job(keys.key(event) + b"\x1dLogin", 0, event, "Login", "basis", Payload(event_id, {}), 0)


REQUEST = Request("POST", "https://ads.example/events", {"Authorization": "s3cret"}, b'{"data": []}')


def test_a_row_tells_of_which_event_it_is_and_what_was_said():
    one = job()
    exchange = Exchange(
        [Rejected("no match", detail="d")] * 3, at=5.5, seconds=0.12345, status=400, body=b"ignored here"
    )

    more = trace.exchange_of(one, exchange, exchange.outcomes[0], "bad")
    said = json.loads(trace.row(one, "ads", REQUEST, exchange.at, more))

    assert said == {
        "v": 1, "time": 5500, "destination": "ads", "event_name": "login", "event_id": "e1",
        "transaction_id": one.event["commerce"]["transaction_id"], "name": "Login", "method": "POST",
        "url": "https://ads.example/events", "body": '{"data": []}', "attempt": 1, "events": 3, "seconds": 0.123, "status": 400,
        "answer": "bad", "outcome": "rejected", "reason": "no match",
    }  # fmt: skip


def test_a_request_that_is_too_long_is_cut_and_says_so():
    long = Request("POST", "https://ads.example", {}, b"x" * (trace.LONGEST_BODY + 1))

    said = json.loads(trace.row(job(), "ads", long, 1.0, {}))

    assert (len(said["body"]), said["cut"]) == (trace.LONGEST_BODY, 1)


# which are kept

KEPT = Trace()


@pytest.mark.parametrize("outcome", [Delivered(), Accepted("ref")])
def test_of_what_was_taken_all_is_kept_or_a_share_or_nothing(outcome):
    jobs = [job(f"e{n}") for n in range(1000)]

    def kept(**given):
        return sum(trace.wanted(Trace(**given), one, outcome) for one in jobs)

    assert kept() == 1000
    assert 50 < kept(share=0.1) < 150
    assert kept(share=0) == kept(requests="failed") == kept(requests="none") == 0


@pytest.mark.parametrize("outcome", [Retry("away"), Rejected("bad"), Halt("no access")])
def test_what_was_not_taken_is_kept_whatever_the_share_but_once_in_a_row(outcome):
    one = job()

    assert trace.wanted(Trace(share=0), one, outcome)
    assert not trace.wanted(Trace(share=0), one, outcome)
    assert trace.wanted(Trace(requests="failed"), one, Retry("something else"))
    assert trace.wanted(KEPT, one, Delivered())
    assert not trace.wanted(Trace(requests="none"), job(), outcome)


# what is not kept


def test_an_answer_is_kept_without_secrets_and_what_it_echoes_of_a_person():
    said = trace.answer(
        b'{"error": "token EAAB12345 may not", "about": "ada@example.com", "x": ""}',
        {"access_token": "EAAB12345", "empty": ""},
    )

    assert said == '{"error": "token MASKED may not", "about": "[redacted]", "x": ""}'


def test_an_answer_that_is_too_long_or_no_text_is_kept_as_far_as_it_goes():
    assert trace.answer(b"y" * 5_000_000, {}) == "y" * trace.LONGEST_ANSWER + " …"
    assert trace.answer(b"\xff\xfe", {}) == "\ufffd\ufffd"


PLACES = {"city": "Lisboa", "region": "Estremadura", "postal_code": "1100-148", "country": "PT"}


@pytest.mark.parametrize("kind", sorted(SINKS))
def test_what_platforms_need_in_clear_is_not_kept_whatever_the_sink_makes_of_it(kind):
    text = {
        "meta": 'dataset_id = "1234567890"\naccess_token = { env = "X" }',
        "ga4": 'measurement_id = "G-ABC123XYZ"\napi_secret = { env = "X" }\ndevice_and_place = true\nuser_data = true',
        "google_ads": 'customer_id = "1234567890"\ncredentials = { env = "X" }\nevents = { purchase = "1" }',
        "tiktok": 'pixel_code = "C4ABCDEF1234567890AB"\naccess_token = { env = "X" }',
        "pinterest": 'ad_account_id = "549755885175"\naccess_token = { env = "X" }',
        "webhook": 'endpoint = "https://hooks.example"\nsecret = { env = "X" }',
    }[kind]
    one = settings.parse(f'[destinations.it]\nsink = "{kind}"\nbrowser_tag = "none"\n{text}').destinations["it"]
    sink = SINKS[kind](one)
    address, agent = "2001:DB8:0:1::7", "Planted/1.0 (Agent)"
    event = make_event(context={"ip": address, "user_agent": agent}, user=PLACES)

    made = payload(sink, event)
    kept = sink.request([trace.discreet(made, event)], Masked()).body.decode().lower()

    for text in (address, "2001:db8:0:1::7", agent, *PLACES.values()):
        assert text == "PT" or f'"{text.lower()}"' not in kept
    assert made == payload(sink, event), "what is sent is left as it is"


@pytest.mark.parametrize(
    ("body", "group"),
    [
        (
            {"agent": "Planted/1.0", "deep": [{"towns": ["LISBOA", "Porto"]}]},
            ('{"town":"Lisboa"}', "Lisboa", "{Lisboa"),
        ),
        (
            {"agent": "other", "n": 1, "one": ["Porto"], "deep": [{"towns": ["Porto"]}, 7]},
            ('{"town": "Porto"}', "Porto", "{no JSON"),
        ),
    ],
)
def test_only_what_tells_of_the_person_is_changed(body, group):
    event = make_event(context={"user_agent": "Planted/1.0", "ip": None}, user={"city": "Lisboa"})
    made = Payload("e1", body, group, 7, 9)

    found = trace.discreet(made, event)

    left = json.loads(json.dumps(body).replace("Planted/1.0", trace.LEFT_OUT).replace("LISBOA", trace.LEFT_OUT))
    texts = [one.replace("Lisboa", trace.LEFT_OUT) if one != "{Lisboa" else one for one in group]
    assert found == Payload("e1", left, tuple(texts), 7, 9)


_SIGNS = st.text('aBß",:}\\ Σİ1', min_size=1, max_size=3)
_BODIES = st.recursive(
    _SIGNS | st.integers(0, 9) | st.none(), lambda inner: st.lists(inner) | st.dictionaries(_SIGNS, inner), max_leaves=4
)


@given(body=st.dictionaries(_SIGNS, _BODIES, min_size=1, max_size=3), agent=_SIGNS, city=_SIGNS)
@example(body={"A": "B"}, agent=":", city="1")  # as between two texts
@example(body={"1": ["B", "a"]}, agent='B","a', city="1")
@example(body={"1": 'B"a'}, agent="a", city="1")  # as at the end of a text
def test_what_tells_of_the_person_is_found_in_json_as_in_what_it_says(body, agent, city):
    event = make_event(
        context={"user_agent": agent, "ip": None}, user={"city": city, "region": None, "postal_code": None}
    )
    gone = {agent.lower(), city.lower()}

    def left(value):
        if isinstance(value, dict):
            return {name: left(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [left(inner) for inner in value]
        return trace.LEFT_OUT if isinstance(value, str) and value.lower() in gone else value

    assert trace.discreet(Payload("e1", body), event).body == left(body)


# of a request with many events


def rows(jobs, outcomes, alone, **more):
    exchange = Exchange(outcomes, at=5.0, seconds=0.1, status=200)
    kept = list(zip(jobs, outcomes, strict=True))
    return [json.loads(one) for _, one in trace.rows("ads", kept, exchange, "fine", exchange.at, alone, **more)]


def asked(payloads):
    said = {"of": payloads[0].event_id, "data": [one.body for one in payloads]}
    return Request("POST", "https://ads.example", {}, orjson.dumps(said))


def listing(payloads):
    return Request("POST", "https://ads.example", {}, orjson.dumps({"code": "T1", "data": listed(payloads)}))


def several():
    jobs = [job(f"e{n}", context={"user_agent": f"Planted/{n}"}) for n in range(3)]
    for one in jobs:
        one.payload = Payload(
            one.event["event_id"], {"id": one.event["event_id"], "ua": one.event["context"]["user_agent"]}
        )
    return jobs


@pytest.mark.parametrize(("alone", "lists"), [(asked, False), (listing, False), (listing, True)])
def test_the_row_of_each_event_holds_the_request_as_it_would_be_for_it_alone(alone, lists):
    jobs = several()

    found = rows(jobs, [Delivered()] * 3, alone, lists=lists)

    alone_ = [json.loads(alone([Payload(f"e{n}", {"id": f"e{n}", "ua": trace.LEFT_OUT})]).body) for n in range(3)]
    assert [json.loads(one["body"]) for one in found] == alone_
    assert [one["event_id"] for one in found] == ["e0", "e1", "e2"]


def test_what_became_of_each_event_is_in_its_own_row():
    jobs = several()
    jobs[2].attempts = 4

    found = rows(jobs, [Delivered(), Rejected("bad"), Delivered()], listing, lists=True)

    told = [(one["outcome"], one.get("reason"), one["attempt"], one["events"]) for one in found]
    assert told == [("delivered", None, 1, 3), ("rejected", "bad", 1, 3), ("delivered", None, 5, 3)]


def test_without_a_request_the_row_tells_the_rest():
    jobs = several()

    for one in rows(jobs, [Halt("x")] * 3, lambda _: Halt("the sink made no request")):
        assert (one["outcome"], "body" in one) == ("halt", False)
    (_, never_sent), *_ = trace.rows("ads", [(jobs[0], Halt("x"))], Exchange([Halt("x")]), "", 1.0, listing)
    assert "body" not in json.loads(never_sent)
