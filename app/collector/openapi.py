"""What the collector tells of itself at /openapi.json, in OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.1.html). Pure.

docs/openapi.json is made of it, with the routes as they are by default.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, NotRequired

import orjson
from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from app import erasure
from app.collector import clients, routes
from app.collector.routes import Does
from app.events import Draft, Json
from app.formats import NOT_AN_ID
from app.normalize import MAX_EVENTS
from app.settings import Collector


def _doc(text: str) -> Any:
    return Field(description=text)


def _in_any_case(text: str) -> str:
    """A pattern for it. What escapes and flags there are in patterns differs from language to language."""
    return "".join(
        f"[{sign.upper()}{sign}]" if sign.isalpha() else re.sub(r"[\[\]]", r"\\\g<0>", sign) for sign in text
    )


# answers


class RefusedEvent(TypedDict):
    index: Annotated[int, _doc("Its place in the request")]
    reason: Annotated[str, _doc("A fixed code")]
    field: Annotated[str, _doc("In the sender's own words")]
    detail: Annotated[str, _doc("A sentence; holds no value of the event")]


class Answer(TypedDict):
    """Of a request with events: 200 when one or more were taken, or there was nothing to deliver; 400 when all were refused."""

    success: Annotated[bool, _doc("Was nothing refused?")]
    accepted: Annotated[int, _doc("Events that Kafka has, or the spool")]
    request: Annotated[str, _doc("Our id of the request: the origin of its events")]
    ignored: NotRequired[Annotated[int, _doc("Calls that report nothing to deliver, such as identify")]]
    refused: NotRequired[list[RefusedEvent]]
    code: NotRequired[Annotated[str, _doc("Reason of the first refusal, where all were refused")]]
    message: NotRequired[str]


class Error(TypedDict):
    reason: Annotated[str, _doc("A fixed code")]
    field: NotRequired[str]
    detail: NotRequired[str]


class Problem(TypedDict):
    """Why nothing of a request was taken."""

    success: Literal[False]
    code: str
    message: str
    error: Error


class Forgotten(TypedDict):
    success: Literal[True]
    what: Literal["erase", "withdraw"]
    dry_run: bool
    entries: Annotated[int, _doc("Digests that are looked for from now on")]
    kinds: dict[str, int]
    usually: NotRequired[Annotated[int, _doc("Seconds after which nothing is left, as a rule")]]
    most: NotRequired[Annotated[int, _doc("And where a destination stands still")]]
    remains: NotRequired[list[dict[str, Any]]]


# questions


class Forget(TypedDict, total=False):
    """Who is meant; each identifier one value or a list of them."""

    country: Annotated[str, Field(pattern="^[A-Za-z]{2}$")]
    ids: dict[str, Any]
    withdraw: Annotated[bool, _doc("Consent is withdrawn; what was received stays until it ages out")]
    dry_run: bool


_KEYS: Json = {
    "keyAsUser": {
        "type": "http",
        "scheme": "basic",
        "description": "The key is the user name, as Segment's SDKs send it",
    },
    "keyAsBearer": {"type": "http", "scheme": "bearer"},
    "keyAsHeader": {"type": "apiKey", "in": "header", "name": "X-Write-Key", "description": "Also `<site>:<key>`"},
}
_ANY_KEY: list[Json] = [{name: []} for name in _KEYS]
_IN_BODY: Json = {"writeKey": {"description": "The key, where no header has it"}}
_STATUS = {
    "200": "Kafka, or this machine's disk, has every event that could be taken",
    "204": "As Google answers",
    "400": "Nothing of it could be taken, or it cannot be read",
    "401": "No key, or none that is known",
    "403": "Not with the public key, or not from this page",
    "404": "Nothing is known by this name",
    "408": "The body did not come in time",
    "413": "Larger than `max_body`",
    "429": "Too many events from this address: Retry-After says when to come again",
    "503": "Neither Kafka nor the spool takes it: send it again after Retry-After",
}
_MOST = f"At most {MAX_EVENTS:,}, and no more than `max_body` together"
_TEXT: Json = {"text/plain": {"schema": {"type": "string"}}}
_READING = ("400", "408", "413")  # whatever is asked, its body is read


def document(collector: Collector) -> Json:
    schemas: Json = {}
    for shape in (Answer, Problem, Forgotten, Draft, Forget):
        schema = TypeAdapter(shape).json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {})
        schemas[shape.__name__] = schema
    paths: dict[str, Json] = {}
    for method, path, does in routes.of(collector):
        told = _operation(does, path)
        told["operationId"] = f"{method.lower()}{path.translate(_NO_SIGNS)}"
        if parameters := [_path_part(part) for part in ("key", "version") if f"{{{part}}}" in path]:
            told["parameters"] = [*parameters, *told.get("parameters", [])]
        paths.setdefault(path, {})[method.lower()] = told
    responses = _once(one for path in paths.values() for one in path.values())
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "capistream collector",
            "version": "1",
            "description": "Where browsers (with a site's public write key) and back ends (with its secret key) report events. "
            "More is taken than these schemas say (null for what is missing, numbers for texts), and some of what they allow is "
            "refused for what no schema can say: an id that looks like an e-mail address, a time in the future, a value without "
            "currency.",
        },
        "paths": paths,
        "components": {"schemas": schemas, "responses": responses, "securitySchemes": _KEYS},
    }


def _once(operations: Iterable[Json]) -> Json:
    """Each answer that several operations give, by its name; they refer to it."""
    names: dict[bytes, str] = {}
    for operation in operations:
        for status, answer in operation["responses"].items():
            text = orjson.dumps([status, answer])
            taken = sum(name.startswith(f"answer{status}") for name in names.values())
            name = names.setdefault(text, f"answer{status}{'abcdefgh'[taken]}")
            operation["responses"][status] = {"$ref": f"#/components/responses/{name}"}
    return {name: orjson.loads(text)[1] for text, name in names.items()}


def _operation(does: Does, path: str) -> Json:
    if does == "own":
        return _events("Events in our own JSON", _own())
    if does in ("segment", "servers"):
        call = clients.call_of(path)
        who = " of a server, with the secret key" if does == "servers" else ""
        return _events(f"`{call}` of the Segment spec{who}", _segment(call))
    if does == "gtag":
        return _said("A hit of gtag.js", {"204": None, "400": "Either", **_problems("403", "404", "429", "503")}) | {
            "parameters": [_query("tid", "The measurement id")]
        }
    if does == "measurement_protocol":
        body = {"type": "object", "required": ["events"], "properties": {"events": {"type": "array"}}}
        return _said(
            "GA4's Measurement Protocol", {"204": None, "400": "Either", **_problems("401", "404", "429", "503")}, body
        ) | {"parameters": [_query("measurement_id", ""), _query("api_secret", "Of `[collector.ga4]`")]}
    if does == "forget":
        return _said(
            "Forget a person",
            {"200": "Forgotten", "400": "Problem", **_problems("401", "403", "429", "503")},
            _forget(),
        ) | {"security": _ANY_KEY}
    if does == "segment_settings":
        return _said("Settings for @segment/analytics-next", {"200": {"type": "object"}, **_problems("404")})
    if does == "script":
        script = _said("The pixel", {"304": None})
        script["responses"]["200"] = {
            "description": "Here it is",
            "content": {"text/javascript": {"schema": {"type": "string"}}},
        }
        return script
    told = _said(_PLAIN[does], {"200": {"type": "object"}} if does == "openapi" else {})
    for status in () if does == "openapi" else ("200", "503") if does == "readyz" else ("200",):
        told["responses"][status] = {"description": _PLAIN[does], "content": _TEXT}
    return told


_PLAIN: Mapping[str, str] = {
    "openapi": "This document",
    "healthz": "It lives",
    "readyz": "Can events be taken?",
    "metrics": "For Prometheus",
}


def _events(summary: str, body: Json) -> Json:
    answers = {"200": "Answer", "400": "Either", **_problems("401", "403", "429", "503")}
    # pages send text/plain, which needs no question to the server before (https://fetch.spec.whatwg.org/#cors-safelisted-request-header)
    return _said(summary, answers, body, "text/plain") | {"security": [*_ANY_KEY, {}]}


def _own() -> Json:
    draft = {"$ref": "#/components/schemas/Draft"}
    shared: Json = {
        **_IN_BODY,
        "sent_at": {},
        "decided": {"type": "boolean", "description": "Is the consent a decision?"},
    }
    many = {"type": "array", "items": draft, "minItems": 1, "description": _MOST}
    return {"anyOf": [draft, many, {"type": "object", "required": ["batch"], "properties": {**shared, "batch": many}}]}


def _segment(call: str) -> Json:
    if call == "batch":
        many = {"type": "array", "items": _one_of_a_batch(), "minItems": 1, "description": _MOST}
        return {"type": "object", "required": ["batch"], "properties": {**_IN_BODY, "batch": many}}
    one: Json = {"type": "object", "properties": {**_IN_BODY}}
    if call in ("identify", "group", "alias"):  # they report nothing to deliver, and nobody looks into them
        return one
    one["properties"] |= _CALL
    one["required"] = ["messageId"]
    if call == "track":
        one["properties"] |= _TRACK
        one["required"].append("event")
    return one


#: What app/normalize.py takes for an id: it must be there, and broken clients send words for nothing.
_ID: Json = {
    "type": "string",
    "maxLength": 200,
    "pattern": rf"^(?!\s*({'|'.join(map(_in_any_case, sorted(NOT_AN_ID)))})\s*$)[^\x00-\x1f\x7f]+$",
}
_CALL: Json = {
    "messageId": {**_ID, "description": "Its id, where the properties have none: docs/clients.md"},
    # what programs send for an empty one is one
    "properties": {"anyOf": [{"type": "object"}, {"enum": [None, "", False, 0, []]}]},
}
_TRACK: Json = {"event": {**_ID, "maxLength": 100, "description": "Its name"}}


def _one_of_a_batch() -> Json:
    def one(*kinds: str | None, required: Sequence[str], properties: Json) -> Json:
        return {
            "type": "object",
            "required": [*required],
            "properties": {"type": {"enum": [*kinds]}, **properties},
        }

    return {
        "anyOf": [
            one("track", "", None, required=["event", "messageId"], properties=_CALL | _TRACK),
            one("page", "screen", required=["type", "messageId"], properties=_CALL),
            one("identify", "group", "alias", required=["type"], properties={}),
        ]
    }


def _forget() -> Json:
    value: Json = {"anyOf": [_ID, {"type": "integer", "minimum": 1}]}
    values: Json = {"anyOf": [value, {"type": "array", "items": value}]}
    base = TypeAdapter(Forget).json_schema()["properties"]
    base["ids"] = {"type": "object", "properties": dict.fromkeys(erasure.IDS, values), "additionalProperties": False}
    return {
        "type": "object",
        "properties": {**_IN_BODY, **dict.fromkeys(erasure.NAMES, values), **base},
        "additionalProperties": False,
        "minProperties": 1,
    }


def _problems(*statuses: str) -> dict[str, str]:
    return dict.fromkeys(statuses, "Problem")


def _said(summary: str, answers: Mapping[str, str | Json | None], body: Json | None = None, *more_types: str) -> Json:
    all_answers = {**dict.fromkeys(_READING, "Problem"), **answers}
    said: Json = {
        "summary": summary,
        "responses": {status: _answer(status, what) for status, what in sorted(all_answers.items())},
    }
    if body is not None:
        said["requestBody"] = {
            "required": True,
            "content": {kind: {"schema": body} for kind in ("application/json", *more_types)},
        }
    return said


def _answer(status: str, what: str | Json | None) -> Json:
    said: Json = {"description": _STATUS.get(status, "Not changed since")}
    if what == "Either":
        what = {"anyOf": [{"$ref": "#/components/schemas/Answer"}, {"$ref": "#/components/schemas/Problem"}]}
    elif isinstance(what, str):
        what = {"$ref": f"#/components/schemas/{what}"}
    if what is not None:
        said["content"] = {"application/json": {"schema": what}}
    if status in ("429", "503"):
        seconds = {"type": "integer", "minimum": 1}
        said["headers"] = {"Retry-After": {"description": "Seconds", "schema": seconds, "required": True}}
    return said


def _query(name: str, text: str) -> Json:
    return {"name": name, "in": "query", "required": True, "description": text, "schema": {"type": "string"}}


def _path_part(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


_NO_SIGNS = str.maketrans(dict.fromkeys("/{}.-~", "_"))
