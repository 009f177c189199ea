"""The promises that every sink keeps, as tests: derive from `Conformance` in a test file, name the sink, and run pytest.

    from sinks.conformance import Conformance

    class TestAcme(Conformance):
        sink = Acme
        settings = {"sink": "acme", "account_id": "7", "token": {"env": "ACME_TOKEN"}}

Our own are in tests/sinks/test_all.py. Only tests import this module: it needs pytest and hypothesis. A failure shows the values
that differ if a conftest.py says `pytest.register_assert_rewrite("sinks.conformance")`.
"""

import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, get_args
from urllib.parse import quote_plus

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from app import exports
from app.events import Event, Json
from app.fields import Secret, SecretRef
from app.identity import RULES
from app.prepare import Masked, shown
from sinks import SINKS
from sinks._base import Delivered, Halt, Outcome, Payload, Purpose, Rejected, Request, Response, Retry, Sink, Skip
from sinks._kinds import misfit
from sinks.samples import encode, events, make_event

TOKEN = "t0ken/with+odd=chars"  # noqa: S105 (planted)
PERSONAL = "ada@example.com"

#: What platforms, and what stands before them, might answer.
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
    b'{"code": 0, "message": "%b", "request_id": "%b", "data": {"%b": 1}}'
    % (PERSONAL.encode(), TOKEN.encode(), PERSONAL.encode()),
    b'{"code": {}, "message": [], "request_id": null}',
    b'{"validationMessages": [{"fieldPath": "%b", "description": "%b", "validationCode": "%b"}, {}, null]}'
    % (PERSONAL.encode(), PERSONAL.encode(), TOKEN.encode()),
]
STATUSES = [200, 204, 302, 400, 401, 403, 404, 408, 413, 429, 500, 503, 520]

#: One method runs for many sinks, and Hypothesis warns that an example of one is no example of another. Here it is.
_property = settings(deadline=None, suppress_health_check=[HealthCheck.differing_executors])


class Conformance:
    """Tests of one sink. `settings` is the least that works; `event` changes the complete purchase, where that is too little."""

    sink: ClassVar[type[Sink]]
    settings: ClassVar[Json]
    event: ClassVar[Mapping[str, Any]] = {}

    def make(self, **more: Any) -> Sink:
        return self.sink(self.sink.Settings.model_validate(self.settings | more))

    def generous(self, **more: Any) -> Sink:
        """One that sends any event, if its platform has names for events at all."""
        try:
            return self.make(custom_events=True, **more)
        except ValidationError:
            return self.make(**more)

    def payloads(self) -> list[Payload]:
        sink = self.generous()
        found = [encode(sink, make_event(**self.event, event_id=f"id-{number}")) for number in range(3)]
        return [payload for payload in found if isinstance(payload, Payload)]

    # what it says of itself

    def test_it_is_registered_under_its_kind(self) -> None:
        assert SINKS[self.sink.kind] is self.sink
        assert self.settings["sink"] == self.sink.kind

    def test_it_says_who_it_is(self) -> None:
        assert self.sink.title
        assert self.sink.purpose in get_args(Purpose)

    def test_its_endpoint_is_https_unless_its_user_says_otherwise(self) -> None:
        endpoint = self.sink.Settings.model_fields["endpoint"]

        assert endpoint.is_required() or endpoint.default.startswith("https://")

    def test_its_docstring_names_the_public_reference(self) -> None:
        doc = importlib.import_module(self.sink.__module__).__doc__ or ""

        assert re.search(r"https://\S+", doc)

    def test_every_setting_has_its_help(self) -> None:
        for name, field in self.sink.Settings.model_fields.items():
            assert field.description, name

    def test_it_has_a_secret_that_is_no_text_of_the_configuration(self) -> None:
        assert secrets(self.make())
        assert get_args(SecretRef)[0] is Secret

    def test_its_hash_variants_exist(self) -> None:
        for identifier in self.sink.variants:
            assert identifier in RULES

    def test_its_limits_are_sensible(self) -> None:
        limits = self.make().limits

        assert limits.events >= 1
        assert limits.bytes >= 10_000
        assert limits.max_age > 0
        assert 0 < limits.timeout <= 12, "a rebalance waits for requests, and not longer than 15 s"

    # what it makes of an event

    def test_it_takes_a_complete_purchase(self) -> None:
        assert len(self.payloads()) == 3

    @given(event=events(), custom_events=st.booleans(), browser_tag=st.sampled_from(("none", "same_id")))
    @_property
    def test_encode_answers_for_any_event(self, event: Event, custom_events: bool, browser_tag: str) -> None:
        make = self.generous if custom_events else self.make
        assert_well_encoded(make(browser_tag=browser_tag), event)

    @given(cut=st.data())
    @_property
    def test_encode_answers_for_any_part_of_a_complete_event(self, cut: st.DataObject) -> None:
        event: Any = make_event(**self.event)
        for part in ("user", "context", "ids", "commerce", "consent", "tags"):
            keep = cut.draw(st.sets(st.sampled_from(sorted(event[part]))))
            event[part] = {name: value for name, value in event[part].items() if name in keep}

        assert_well_encoded(self.make(), event)

    def test_a_skip_says_nothing_about_the_person(self) -> None:
        event = make_event(event_name=PERSONAL, ids=None, user=None)

        result = encode(self.make(), event)

        assert isinstance(result, Skip)
        assert PERSONAL not in result.reason

    # what it sends

    def test_the_secret_is_in_the_request_or_signs_it_and_is_nowhere_else(self) -> None:
        batch = self.payloads()

        sink = self.make()
        request, other = sent(sink, batch), sent(sink, batch, "another")

        assert request != other
        assert without_secret(request, TOKEN) == without_secret(other, "another")
        assert TOKEN not in repr(batch)
        assert TOKEN not in repr(self.payloads())

    def test_a_request_is_a_post_of_json_to_the_endpoint(self) -> None:
        sink = self.make(endpoint="http://127.0.0.1:8/base/")

        request = sink.request(self.payloads(), secrets(sink))

        assert request.method == "POST"
        assert request.url.startswith("http://127.0.0.1:8/base/")
        assert request.headers["Content-Type"] == "application/json"
        assert orjson.loads(request.body)
        assert request == sink.request(self.payloads(), secrets(sink))

    def test_a_request_lists_its_events_if_it_says_so(self) -> None:
        sink, batch = self.make(), self.payloads()
        if not sink.lists_events or len({payload.group for payload in batch}) > 1:
            return

        request, (before, after) = sink.request(batch, secrets(sink)), frame(sink, batch[0])

        assert request.body == before + b",".join(payload.json for payload in batch) + after
        assert all(frame(sink, payload) == [before, after] for payload in batch)

    def test_a_request_is_shown_without_any_secret_and_no_signature_of_one(self) -> None:
        sink, batch = self.make(), self.payloads()

        request = shown(sink, sink.request(batch, Masked()), 1_795_420_900.5)

        assert request.headers.keys() == sent(sink, batch).headers.keys()
        assert "MASKED" in repr(request)

    @given(now=st.floats(0, 4e9))
    @_property
    def test_a_signature_only_adds_headers_and_depends_on_its_moment_alone(self, now: float) -> None:
        sink, batch = self.make(), self.payloads()[:1]
        request = sink.request(batch, secrets(sink))

        signed = sink.signed(request, secrets(sink), now)

        assert signed == sink.signed(request, secrets(sink), now)
        assert signed == replace(request, headers=signed.headers)
        assert request.headers.items() <= signed.headers.items()

    def test_what_is_checked_goes_to_the_same_endpoint(self) -> None:
        sink = self.make(endpoint="http://127.0.0.1:8/base/")

        request = sink.check(self.payloads(), secrets(sink))

        assert 0 <= sink.check_share <= 1
        assert request is None or request.url.startswith("http://127.0.0.1:8/base/")

    def test_an_event_with_the_label_test_goes_alone_where_the_platform_is_told_that_it_is_one(self) -> None:
        coded = {"test_event_code": "TEST123"} if "test_event_code" in self.sink.Settings.model_fields else {}
        sink = self.make(**coded)
        if not self.sink.marks_tests(sink.settings):
            return
        test, sale = (encode(sink, make_event(**self.event, labels=labels)) for labels in (["test"], []))
        assert isinstance(test, Payload)
        assert isinstance(sale, Payload)

        assert test.group != sale.group
        assert sink.request([test], secrets(sink)).body != sink.request([sale], secrets(sink)).body

    def test_its_requests_say_what_where_it_tells(self) -> None:
        """Where it has `places`, `capistream compare` reads its requests by them."""
        sink, event = self.make(), make_event(**self.event)
        if sink.places is None:
            return
        payload = encode(sink, event)
        assert isinstance(payload, Payload)

        (found,) = exports.events_of(orjson.loads(sink.request([payload], secrets(sink)).body), sink.places)
        told = exports.of_event(found, sink.places)

        assert {told.event_id, told.order_id[-4:]} & {event["event_id"], event["commerce"]["transaction_id"]}
        assert (told.value, told.currency) == (event["commerce"]["value"], event["commerce"]["currency"])
        assert told.name
        assert told.time is None or abs(told.time - event["time"]) < 1000

    # what it makes of an answer

    @pytest.mark.parametrize("status", STATUSES)
    @pytest.mark.parametrize("size", [1, 3])
    def test_every_answer_gets_one_outcome_per_event_that_quotes_nobody(self, status: int, size: int) -> None:
        sink, batch = self.make(), self.payloads()[:size]

        for body in ODD_BODIES:
            outcomes = sink.verdict(batch, Response(status, {"Retry-After": "7", "X-Usage": PERSONAL}, body))

            assert len(outcomes) == size, body
            for outcome in outcomes:
                assert isinstance(outcome, get_args(Outcome)), body
                assert PERSONAL not in repr(outcome), body
                assert TOKEN not in repr(outcome), body
                assert not isinstance(outcome, Retry | Rejected | Halt) or outcome.reason, body

    @given(status=st.integers(100, 599), body=st.binary(max_size=200))
    @_property
    def test_verdict_never_raises(self, status: int, body: bytes) -> None:
        batch = self.payloads()[:1]

        (outcome,) = self.make().verdict(batch, Response(status, {}, body))

        assert isinstance(outcome, get_args(Outcome))

    @pytest.mark.parametrize("status", STATUSES)
    def test_complaints_are_short_texts_that_quote_nobody(self, status: int) -> None:
        sink = self.make()

        for body in ODD_BODIES:
            for complaint in sink.complaints(Response(status, {"X-Usage": PERSONAL}, body)):
                assert 0 < len(complaint) <= 150, body
                assert PERSONAL not in complaint, body
                assert TOKEN not in complaint, body

    @pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
    def test_an_overloaded_platform_is_tried_again(self, status: int) -> None:
        sink, batch = self.make(), self.payloads()

        for body in ODD_BODIES:
            assert all(isinstance(one, Retry) for one in sink.verdict(batch, Response(status, {}, body))), body

    @pytest.mark.parametrize("status", [408, 425])
    @pytest.mark.parametrize("body", [b"", b"<html><body>Sorry, something went wrong</body></html>"])
    def test_a_request_that_was_not_looked_at_is_made_again(self, status: int, body: bytes) -> None:
        for outcome in self.make().verdict(self.payloads(), Response(status, {}, body)):
            assert isinstance(outcome, Retry)

    @pytest.mark.parametrize(
        ("header", "after"),
        [
            *(("7", 7.0), ("0.5", 0.5), ("-3", 0.0), ("", None), ("soon", None), ("nan", None), ("inf", None)),
            *(
                ("Mon, 23 Nov 2026 08:02:00 GMT", 120.0),
                ("Mon, 23 Nov 2026 07:00:00 GMT", 0.0),
                ("Mon, 31 Feb 2026", None),
            ),
        ],
    )
    def test_retry_after_is_honoured_as_a_number_and_as_a_date(self, header: str, after: float | None) -> None:
        headers = {"Date": "Mon, 23 Nov 2026 08:00:00 GMT", "Retry-After": header}
        for outcome in self.make().verdict(self.payloads(), Response(503, headers, b"")):
            assert isinstance(outcome, Retry)
            assert outcome.after == after

    @pytest.mark.parametrize("status", [200, 204, 500, 502, 504, 520])
    @pytest.mark.parametrize("body", [b"", b"<html><body>Sorry, something went wrong</body></html>"])
    def test_an_answer_that_says_nothing_of_the_events_leaves_open_whether_they_were_taken(
        self, status: int, body: bytes
    ) -> None:
        for outcome in self.make().verdict(self.payloads(), Response(status, {}, body)):
            says_no_more_when_it_takes_them = status < 300 and isinstance(outcome, Delivered)
            assert says_no_more_when_it_takes_them or (isinstance(outcome, Retry) and outcome.unclear)

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 413, 429, 503])
    def test_a_refusal_leaves_nothing_open(self, status: int) -> None:
        sink, batch = self.make(), self.payloads()

        for body in ODD_BODIES:
            outcomes = sink.verdict(batch, Response(status, {}, body))
            assert not any(isinstance(one, Retry) and one.unclear for one in outcomes), body

    @pytest.mark.parametrize("status", [401, 403])
    def test_refused_credentials_cost_no_event(self, status: int) -> None:
        for outcome in self.make().verdict(self.payloads(), Response(status, {}, b"")):
            assert isinstance(outcome, Retry | Halt)


def secrets(sink: Sink, token: str = TOKEN) -> dict[str, str]:
    """What the engine reads for a request."""
    return {name: token for name, one in sink.settings if isinstance(one, Secret)}


def frame(sink: Sink, payload: Payload) -> list[bytes]:
    """What stands around this event in a request."""
    return sink.request([payload], secrets(sink)).body.split(payload.json)


def sent(sink: Sink, batch: Sequence[Payload], token: str = TOKEN) -> Request:
    """As it is sent at some moment."""
    return sink.signed(sink.request(batch, secrets(sink, token)), secrets(sink, token), 1_795_420_900.5)


def assert_well_encoded(sink: Sink, event: Event) -> None:
    before = orjson.dumps(event)

    result = encode(sink, event)

    assert isinstance(result, Payload | Skip)
    assert orjson.dumps(event) == before, "encode changes its event"
    assert encode(sink, orjson.loads(before)) == result, "encode is not a function of the event"
    if isinstance(result, Skip):
        assert result.reason
        return
    assert result.event_id == event["event_id"]
    assert all(isinstance(part, str) for part in result.group)
    assert None not in values(result.body), "null"
    assert misfit(result.body, sink.fields) == ""
    if sink.fields and event["event_id"].strip() and event["event_name"].strip():  # no event is without them
        assert not any(map(is_nothing, values(result.body))), "an empty text, list or object"
    request = sink.request([result], secrets(sink))
    assert len(request.body) <= result.overhead + len(orjson.dumps(result.body)), "more around its events than it says"
    body = orjson.loads(request.body)
    assert orjson.loads(orjson.dumps(body)) == body


def values(value: Any) -> Iterator[Any]:
    yield value
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from values(inner)


def is_nothing(value: Any) -> bool:
    return value in ([], {}) or (isinstance(value, str) and not value.strip())


def without_secret(request: Request, token: str) -> str:
    """What is left when the secret, and a signature made with it, are taken away."""
    headers = {name: text for name, text in request.headers.items() if not name.lower().endswith("signature")}
    return repr(replace(request, headers=headers)).replace(token, "").replace(quote_plus(token), "")
