"""The promises that every registered sink keeps.

A sink's own test file names its settings: SETTINGS, the least that works.
"""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from app.events import Event, Json
from app.identity import RULES
from app.settings import Secret, SecretRef
from sinks import SINKS
from sinks._base import Delivered, Halt, Payload, Purpose, Rejected, Request, Response, Retry, Sink, Skip
from tests.factories import events, make_event

TOKEN = "t0ken/with+odd=chars"
PERSONAL = "ada@example.com"
OUTCOMES = (Delivered, Retry, Rejected, Halt)

each_sink = pytest.mark.parametrize("kind", sorted(SINKS))


def sink_settings(kind: str) -> Json:
    return dict(importlib.import_module(f"tests.sinks.test_{kind}").SETTINGS)


def make_sink(kind: str, **more: Any) -> Sink:
    return SINKS[kind](SINKS[kind].Settings.model_validate(sink_settings(kind) | more))


def payloads(kind: str) -> list[Payload]:
    sink = make_sink(kind, custom_events=True)
    found = [sink.encode(make_event(event_id=f"id-{number}")) for number in range(3)]
    return [payload for payload in found if isinstance(payload, Payload)]


@each_sink
def test_it_has_a_test_file_of_its_own_with_its_settings(kind):
    assert (Path(__file__).parent / f"test_{kind}.py").is_file()
    assert sink_settings(kind)["sink"] == kind


@each_sink
def test_it_says_who_it_is(kind):
    sink = SINKS[kind]

    assert sink.kind == kind
    assert sink.title
    assert sink.purpose in get_args(Purpose)
    assert sink.Settings.model_fields["endpoint"].default.startswith("https://")


@each_sink
def test_its_docstring_names_the_public_reference(kind):
    doc = importlib.import_module(SINKS[kind].__module__).__doc__ or ""

    assert re.search(r"https://\S+", doc)


@each_sink
def test_every_setting_has_its_help(kind):
    for name, field in SINKS[kind].Settings.model_fields.items():
        assert field.description, name


@each_sink
def test_it_has_one_secret(kind):
    fields = SINKS[kind].Settings.model_fields.values()

    assert [field.annotation for field in fields].count(Secret) == 1
    assert get_args(SecretRef)[0] is Secret


@each_sink
def test_its_hash_variants_exist(kind):
    for identifier in SINKS[kind].variants:
        assert identifier in RULES


@each_sink
def test_its_limits_are_sensible(kind):
    limits = make_sink(kind).limits

    assert limits.events >= 1
    assert limits.bytes >= 10_000
    assert limits.max_age > 0
    assert 0 < limits.timeout <= 30


@each_sink
def test_it_takes_a_complete_purchase(kind):
    assert len(payloads(kind)) == 3


@given(event=events())
@settings(max_examples=50)
def test_the_events_made_up_here_fit_the_schema(event):
    TypeAdapter(Event).validate_python(event, strict=True)


def assert_well_encoded(sink: Sink, event: Event) -> None:
    before = orjson.dumps(event)

    result = sink.encode(event)

    assert isinstance(result, Payload | Skip)
    assert orjson.dumps(event) == before, "encode changes its event"
    assert sink.encode(orjson.loads(before)) == result, "encode is not a function of the event"
    if isinstance(result, Skip):
        assert result.reason
        return
    assert result.event_id == event["event_id"]
    assert all(isinstance(part, str) for part in result.group)
    assert None not in values(result.body), "null"
    body = orjson.loads(sink.request([result], TOKEN).body)
    assert orjson.loads(orjson.dumps(body)) == body


def values(value: Any) -> Iterator[Any]:
    yield value
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from values(inner)


@each_sink
@given(event=events(), custom_events=st.booleans(), browser_tag=st.sampled_from(("none", "same_id")))
@settings(deadline=None)
def test_encode_answers_for_any_event(kind, event, custom_events, browser_tag):
    assert_well_encoded(make_sink(kind, custom_events=custom_events, browser_tag=browser_tag), event)


@each_sink
@given(cut=st.data())
@settings(deadline=None)
def test_encode_answers_for_any_part_of_a_complete_event(kind, cut):
    event: Any = make_event()
    for part in ("user", "context", "ids", "commerce", "consent", "tags"):
        keep = cut.draw(st.sets(st.sampled_from(sorted(event[part]))))
        event[part] = {name: value for name, value in event[part].items() if name in keep}

    assert_well_encoded(make_sink(kind), event)


@each_sink
def test_a_skip_says_nothing_about_the_person(kind):
    event = make_event(event_name=PERSONAL, ids=None, user=None)

    result = make_sink(kind).encode(event)

    assert isinstance(result, Skip)
    assert PERSONAL not in result.reason


@each_sink
def test_the_token_is_in_the_request_and_nowhere_else(kind):
    batch = payloads(kind)

    request = make_sink(kind).request(batch, TOKEN)

    assert request != make_sink(kind).request(batch, "another")
    assert without_token(request) == without_token(make_sink(kind).request(batch, "another"), "another")
    assert TOKEN not in repr(batch)
    assert TOKEN not in repr(payloads(kind))


def without_token(request: Request, token: str = TOKEN) -> str:
    from urllib.parse import quote_plus

    return repr(request).replace(token, "").replace(quote_plus(token), "")


@each_sink
def test_a_request_is_a_post_of_json_to_the_endpoint(kind):
    sink = make_sink(kind, endpoint="http://127.0.0.1:8/base/")

    request = sink.request(payloads(kind), TOKEN)

    assert request.method == "POST"
    assert request.url.startswith("http://127.0.0.1:8/base/")
    assert request.headers["Content-Type"] == "application/json"
    assert orjson.loads(request.body)
    assert request == sink.request(payloads(kind), TOKEN)


ODD_BODIES = [
    b"",
    b"null",
    b"[]",
    b"7",
    b'"text"',
    b"{}",
    b"<html><body>Sorry, something went wrong</body></html>",
    b'{"error": {"code": 1',
    b'{"error": null}',
    b'{"error": "text"}',
    b'{"error": {"code": {}, "error_subcode": [], "message": null, "fbtrace_id": 7}}',
    b'{"events_received": null, "messages": {}}',
    b'{"validationMessages": {}}',
    b"\xff\xfe\x00",
    b'{"error": {"message": "%b %b", "error_user_msg": "%b", "fbtrace_id": "%b", "code": 100}}'
    % (PERSONAL.encode(), TOKEN.encode(), PERSONAL.encode(), PERSONAL.encode()),
    b'{"events_received": 3, "messages": ["%b"], "fbtrace_id": "%b"}' % (PERSONAL.encode(), TOKEN.encode()),
    b'{"validationMessages": [{"description": "%b", "validationCode": "%b"}]}' % (PERSONAL.encode(), TOKEN.encode()),
]
STATUSES = [200, 204, 302, 400, 401, 403, 404, 408, 413, 429, 500, 503, 520]


@each_sink
@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("body", ODD_BODIES)
@pytest.mark.parametrize("size", [1, 3])
def test_every_answer_gets_one_outcome_per_event_that_quotes_nobody(kind, status, body, size):
    batch = payloads(kind)[:size]

    outcomes = make_sink(kind).verdict(batch, Response(status, {"Retry-After": "7", "X-Usage": PERSONAL}, body))

    assert len(outcomes) == size
    for outcome in outcomes:
        assert isinstance(outcome, OUTCOMES)
        assert PERSONAL not in repr(outcome)
        assert TOKEN not in repr(outcome)
        assert isinstance(outcome, Delivered) or outcome.reason


@each_sink
@given(status=st.integers(100, 599), body=st.binary(max_size=200))
@settings(deadline=None)
def test_verdict_never_raises(kind, status, body):
    batch = payloads(kind)[:1]

    (outcome,) = make_sink(kind).verdict(batch, Response(status, {}, body))

    assert isinstance(outcome, OUTCOMES)


@each_sink
@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("body", ODD_BODIES)
def test_an_overloaded_platform_is_tried_again(kind, status, body):
    outcomes = make_sink(kind).verdict(payloads(kind), Response(status, {}, body))

    assert all(isinstance(outcome, Retry) for outcome in outcomes)


@each_sink
@pytest.mark.parametrize(
    ("header", "after"),
    [("7", 7.0), ("0.5", 0.5), ("-3", 0.0), ("", None), ("soon", None), ("nan", None), ("inf", None)],
)
def test_retry_after_is_honoured_when_it_is_a_number(kind, header, after):
    for outcome in make_sink(kind).verdict(payloads(kind), Response(503, {"Retry-After": header}, b"")):
        assert isinstance(outcome, Retry)
        assert outcome.after == after


@each_sink
@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_cost_no_event(kind, status):
    for outcome in make_sink(kind).verdict(payloads(kind), Response(status, {}, b"")):
        assert isinstance(outcome, Retry | Halt)
