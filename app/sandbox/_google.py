"""What Google's interfaces share, emulated: access tokens, and the Data Manager API's `events:ingest`.

Source of facts: Google's reference of the Data Manager API v1 (events, destinations, error reasons, limits, request status)
and of its OAuth token endpoint (grants `refresh_token` and `jwt-bearer`).

POST {prefix}/v1/events:ingest            one bad event fails the whole request, and the answer names it by its place
GET  {prefix}/v1/requestStatus:retrieve   what became of a request: counts by reason, after the seconds of `queue_s`
POST {prefix}/token                       access tokens; signatures of assertions are not checked, as no key is known

Nothing is remembered here: the id of a request says what has to be told of it later, and a token says how long it is good.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import orjson

from app.sandbox import _checks as must
from app.sandbox._base import Answer, Call, Checked, Problem, Route, Ruling, as_id, json_answer, part, read_json
from app.sandbox._checks import Check, Problems, step

MOST_EVENTS = 2000
MOST_DESTINATIONS = 10
MOST_IDENTIFIERS = 10
MAX_AHEAD = 300

MISSING = "REQUIRED_FIELD_MISSING"
FORMAT = "INVALID_FORMAT"
NUMBER = "INVALID_NUMBER_FORMAT"
ENUM = "INVALID_ENUM_VALUE"
CURRENCY = "INVALID_CURRENCY_CODE"
TIME = "EVENT_TIME_INVALID"
DESTINATION = "INVALID_DESTINATION"
NOBODY = "NO_IDENTIFIERS_PROVIDED"
LATER = "PROCESSING_ERROR_REASON_"  # begins the reasons that are found only after the request was taken

SCOPES = {"d": "https://www.googleapis.com/auth/datamanager", "a": "https://www.googleapis.com/auth/adwords"}
OAUTH = "oauth"  # the token endpoint's account, for fault switches: `expired_token` revokes credentials


# --- access tokens --------------------------------------------------------------------------------

LIFE = 3599
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"


def token(call: Call) -> Ruling:
    """POST /token."""
    refusal, scope = _grant(call)
    if refusal:
        answer = json_answer(401 if refusal == "invalid_client" else 400, {"error": refusal})
    else:
        body = {"access_token": _issue(call.now, scope), "expires_in": LIFE, "scope": scope, "token_type": "Bearer"}
        answer = json_answer(200, body)
    return Ruling(OAUTH, answer, delivers=False)


def _grant(call: Call) -> tuple[str, str]:
    """(why not, scope)."""
    try:
        form = dict(parse_qsl(call.body.decode(), keep_blank_values=True, strict_parsing=True))
    except ValueError:
        return "invalid_request", ""
    if call.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        return "invalid_request", ""
    if form.get("grant_type") == "refresh_token":
        if not form.get("client_id") or not form.get("client_secret"):
            return "invalid_client", ""
        if not form.get("refresh_token") or not call.admits(OAUTH, form["refresh_token"]):
            return "invalid_grant", ""
        return "", form.get("scope", " ".join(SCOPES.values()))
    if form.get("grant_type") == JWT_BEARER:
        claims = _claims(form.get("assertion", ""), call.now)
        return ("", claims["scope"]) if claims and call.admits(OAUTH, claims["iss"]) else ("invalid_grant", "")
    return "unsupported_grant_type" if form.get("grant_type") else "invalid_request", ""


def _claims(assertion: str, now: float) -> dict[str, Any]:
    """What a service account says of itself; empty where it is not said as Google wants it."""
    parts = assertion.split(".")
    try:
        head, claims = (orjson.loads(base64.urlsafe_b64decode(one + "=" * (-len(one) % 4))) for one in parts[:2])
    except ValueError:
        return {}
    if len(parts) != 3 or not parts[2] or not isinstance(head, dict) or head.get("alg") != "RS256":
        return {}
    if not isinstance(claims, dict) or not all(isinstance(claims.get(key), str) for key in ("iss", "scope", "aud")):
        return {}
    begin: Any = claims.get("iat")
    end: Any = claims.get("exp")
    if not must.is_number(begin) or not must.is_number(end) or not claims["scope"] or "@" not in claims["iss"]:
        return {}
    in_time = begin <= now + MAX_AHEAD and end > now and 0 < end - begin <= 3600
    return claims if in_time else {}


def _issue(now: float, scope: str) -> str:
    said = f"{int(now) + LIFE:x}.{''.join(letter for letter, one in SCOPES.items() if one in scope.split())}"
    return f"ya29.{said}.{_seal(said)}"


def _seal(text: str) -> str:
    return hashlib.sha256(f"sandbox {text}".encode()).hexdigest()[:12]


def bearer(call: Call, account: str, scope: str = "d") -> Answer | None:
    """The answer to a token that is not good; None: it is. Tokens from elsewhere are judged by the sandbox's list alone."""
    kind, _, found = call.headers.get("Authorization", "").partition(" ")
    found = found.strip()
    if kind.lower() != "bearer" or not found or not call.admits(account, found):
        return failed(401, "UNAUTHENTICATED", info="ACCESS_TOKEN_EXPIRED" if found else "CREDENTIALS_MISSING")
    ours = re.fullmatch(r"ya29\.(([0-9a-f]+)\.([da]*))\.([0-9a-f]{12})", found)
    if ours and ours[4] == _seal(ours[1]):
        if int(ours[2], 16) <= call.now:
            return failed(401, "UNAUTHENTICATED", info="ACCESS_TOKEN_EXPIRED")
        if scope not in ours[3]:
            return failed(403, "PERMISSION_DENIED", info="ACCESS_TOKEN_SCOPE_INSUFFICIENT")
    return None


def failed(status: int, name: str, violations: Iterable[Problem] = (), info: str = "") -> Answer:
    """Google's error, a google.rpc.Status."""
    details: list[dict[str, Any]] = [
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": info or name,
            "domain": "datamanager.googleapis.com",
        },
        {"@type": "type.googleapis.com/google.rpc.RequestInfo", "requestId": "sandbox"},
    ]
    if violations:
        fields = [
            {"field": _snake(problem.field), "description": problem.reason, "reason": problem.code}
            for problem in violations
        ]
        details.append({"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": fields})
    return json_answer(
        status, {"error": {"code": status, "message": "Request failed.", "status": name, "details": details}}
    )


def _snake(path: str) -> str:
    """Paths are in protobuf's spelling: events[0].userData is events[0].user_data."""
    return re.sub("(?<=[a-z0-9])[A-Z]", lambda letter: f"_{letter[0].lower()}", path)


# --- events:ingest --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Product:
    """What events one of Google's products takes."""

    account_type: str
    account: Check  # of an account's id
    destination: Check  # of `productDestinationId`
    event: Check
    rules: Callable[[dict[str, Any], str, float], Iterator[Problem]]  # those that span fields
    later: Callable[[dict[str, Any], str, float], Iterator[Problem]]  # what lets an event fail after it was taken
    warnings: Callable[[dict[str, Any], str], Iterator[Problem]]  # with a code: told in the answer
    key: Callable[[dict[str, Any], str], tuple[str, ...] | None]  # (event, destination): what it is known again by
    name: Callable[[dict[str, Any], str], str | None]  # (event, destination), for the listings


def routes(product: Product) -> tuple[Route, ...]:
    return (
        Route("/v1/events:ingest", lambda call: ingest(call, product)),
        Route("/v1/requestStatus:retrieve", status, method="GET"),
        Route("/token", token),
    )


def ingest(call: Call, product: Product) -> Ruling:
    body, problems = read_body(call)
    account = str(as_id(_first(body).get("operatingAccount", {}).get("accountId")) or "(none)")
    if (refusal := bearer(call, account)) is not None:
        told = Problem("Authorization", "no good access token", "UNAUTHENTICATED")
        return Ruling(account, refusal, problems=(told,))
    problems = problems or list(_coded(_envelope(product)(body, "")))
    found = body.get("events")
    if not problems and (not isinstance(found, list) or not 1 <= len(found) <= MOST_EVENTS):
        code = "TOO_MANY_EVENTS" if isinstance(found, list) and found else MISSING
        problems = [Problem("events", f"must be an array of 1 to {MOST_EVENTS} events", code)]
    envelope = {key: body[key] for key in body if key != "events"}
    if problems:
        answer = failed(400, "INVALID_ARGUMENT", problems)
        return Ruling(account, answer, problems=tuple(problems), envelope=envelope)
    assert isinstance(found, list)
    return _judge(call, product, account, found, body, envelope)


def _judge(
    call: Call, product: Product, account: str, found: list[Any], body: dict[str, Any], envelope: dict[str, Any]
) -> Ruling:
    references = [one["reference"] for one in body["destinations"] if "reference" in one]
    around = _Around(
        product, call.now, body.get("encoding"), frozenset(references), _first(body)["productDestinationId"]
    )
    events = [_checked(one, f"events[{index}]", around) for index, one in enumerate(found)]
    bad = [problem for event in events for problem in event.problems]
    if bad:
        answer = failed(400, "INVALID_ARGUMENT", bad)
        return Ruling(account, answer, events=tuple(events), envelope=envelope, atomic=True)
    if body.get("validateOnly"):
        return Ruling(account, json_answer(200, {}), events=tuple(events), envelope=envelope, dry_run=True)
    warnings = [
        {"field": _snake(one.field), "description": one.reason, "reason": one.code}
        for event in events
        for one in event.warnings
        if one.code
    ]
    events = [_processed(event, f"events[{index}]", call, product, account) for index, event in enumerate(events)]
    failures = [problem.code for event in events for problem in event.problems[:1]]
    number = _number(account, _first(body)["productDestinationId"], call.now, len(events), failures)
    answer = json_answer(200, {"requestId": number, **({"fieldWarnings": warnings} if warnings else {})})
    return Ruling(account, answer, events=tuple(events), envelope=envelope)


def _processed(event: Checked, path: str, call: Call, product: Product, account: str) -> Checked:
    """What becomes of an event that was taken; nobody learns which one it was."""
    problems = tuple(product.later(event.body, path, call.now))
    if not problems and call.spoils(account):
        problems = (Problem(path, "fails in processing, as it was told to", f"{LATER}INVALID_EVENT"),)
    return replace(event, problems=problems) if problems else event


@dataclass(frozen=True)
class _Around:
    """What the events of a request share."""

    product: Product
    now: float
    encoding: Any
    references: frozenset[str]
    destination: str


def _checked(event: Any, path: str, around: _Around) -> Checked:
    fields = event if isinstance(event, dict) else {}
    problems = tuple(_coded(_event(event, fields, path, around)))
    warnings = () if problems else tuple(around.product.warnings(fields, path))
    return Checked(
        event,
        around.product.name(fields, around.destination),
        as_id(fields.get("transactionId")),
        around.product.key(fields, around.destination),
        problems,
        warnings,
    )


def _event(event: Any, fields: dict[str, Any], path: str, around: _Around) -> Problems:
    yield from around.product.event(event, path)
    yield from _time(fields.get("eventTimestamp"), step(path, "eventTimestamp"), around.now)
    yield from _user_data(fields, path, around.encoding)
    yield from _references(fields, path, around.references)
    if "conversionValue" in fields and "currency" not in fields:
        yield Problem(step(path, "currency"), "is missing beside the value", MISSING)
    yield from around.product.rules(fields, path, around.now)
    yield from must.clear_data({key: fields[key] for key in fields.keys() - {"userData"}}, path)


def _time(value: Any, path: str, now: float) -> Problems:
    moment = parse_time(value)
    if moment is not None and moment > now + MAX_AHEAD:
        yield Problem(path, "is in the future", TIME)


def parse_time(value: Any) -> float | None:
    """Unix seconds of a Timestamp in protobuf's JSON."""
    form = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)"
    if not isinstance(value, str) or not re.fullmatch(form, value, re.ASCII):
        return None
    try:
        whole = re.sub(r"\.\d+", "", value).replace("Z", "+00:00")
        return datetime.fromisoformat(whole).astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        return None


def time(value: Any, path: str) -> Problems:
    if parse_time(value) is None:
        yield Problem(path, "must be a time like 2026-11-23T10:15:30Z", FORMAT)


def _references(fields: dict[str, Any], path: str, known: frozenset[str]) -> Problems:
    named = fields.get("destinationReferences")
    for index, one in enumerate(named if isinstance(named, list) else ()):
        if one not in known:
            yield Problem(
                f"{step(path, 'destinationReferences')}[{index}]", "is no destination of the request", DESTINATION
            )


def _user_data(fields: dict[str, Any], path: str, encoding: Any) -> Problems:
    if "userData" not in fields:
        return
    if encoding is None:
        yield Problem("encoding", "is missing, and there is user data", MISSING)
    digest = DIGESTS.get(encoding) if isinstance(encoding, str) else None
    yield from _USER_DATA(digest or DIGESTS["HEX"])(fields["userData"], step(path, "userData"))


def _digest(form: str, empty: str, code: str, *, fold: bool) -> Check:
    def run(value: Any, path: str) -> Problems:
        if not isinstance(value, str) or not re.fullmatch(form, value, re.ASCII):
            yield Problem(path, "is not a SHA-256 in this encoding", code)
        elif (value.lower() if fold else value) == empty:
            yield Problem(path, "is the hash of an empty string", "INVALID_SHA256_FORMAT")

    return run


_EMPTY = hashlib.sha256(b"")
DIGESTS: Mapping[str, Check] = {
    "HEX": _digest("[0-9a-fA-F]{64}", _EMPTY.hexdigest(), "INVALID_HEX_ENCODING", fold=True),
    "BASE64": _digest(
        "[A-Za-z0-9+/]{43}=", base64.b64encode(_EMPTY.digest()).decode(), "INVALID_BASE64_ENCODING", fold=False
    ),
}


def _USER_DATA(digest: Check) -> Check:  # noqa: N802  as the schemas beside it
    address = must.record(
        {
            "givenName": digest,
            "familyName": digest,
            "regionCode": must.not_hashed(
                must.coded(must.like("[A-Z]{2}", "a country: two capitals"), "INVALID_REGION_CODE")
            ),
            "postalCode": must.not_hashed(
                must.coded(must.like("[A-Za-z0-9][A-Za-z0-9 -]{0,11}", "a postal code"), "INVALID_POSTAL_CODE")
            ),
            "addressLine": digest,
            "city": must.not_hashed(must.text),
            "administrativeArea": must.not_hashed(must.text),
        },
        required=("givenName", "familyName", "regionCode", "postalCode"),
    )
    one = must.record({"emailAddress": digest, "phoneNumber": digest, "address": address})

    def identifier(value: Any, path: str) -> Problems:
        yield from one(value, path)
        if isinstance(value, dict) and len(value) != 1:
            yield Problem(path, "must have exactly one of emailAddress, phoneNumber and address", "INVALID_ARGUMENT")

    return must.record(
        {"userIdentifiers": many(identifier, MOST_IDENTIFIERS, "TOO_MANY_USER_IDENTIFIERS")},
        required=("userIdentifiers",),
    )


def _envelope(product: Product) -> Check:
    account = must.record(
        {
            "accountType": must.coded(must.one_of(product.account_type), "DESTINATION_ACCOUNT_TYPE_MISMATCH"),
            "accountId": must.coded(product.account, NUMBER),
        },
        required=("accountType", "accountId"),
    )
    destination = must.record(
        {
            "reference": must.text,
            "operatingAccount": account,
            "loginAccount": account,
            "linkedAccount": account,
            "productDestinationId": product.destination,
        },
        required=("operatingAccount", "productDestinationId"),
    )
    return must.record(
        {
            "destinations": many(destination, MOST_DESTINATIONS, "TOO_MANY_DESTINATIONS"),
            "events": must.anything,  # event by event, above
            "encoding": must.coded(must.one_of("HEX", "BASE64"), ENUM),
            "consent": CONSENT,
            "validateOnly": must.flag,
        },
        required=("destinations", "events"),
    )


_consent = must.coded(must.one_of("CONSENT_GRANTED", "CONSENT_DENIED", "CONSENT_STATUS_UNSPECIFIED"), ENUM)
CONSENT = must.record({"adUserData": _consent, "adPersonalization": _consent})

_pixels = must.whole(0)
DEVICE = must.record(
    {
        "ipAddress": must.ip,
        "userAgent": must.text,
        **dict.fromkeys(("screenHeight", "screenWidth"), _pixels),
        **dict.fromkeys(
            must.words(
                "category languageCode operatingSystem operatingSystemVersion model brand browser browserVersion"
            ),
            must.text,
        ),
    }
)


def many(check: Check, most: int, code: str) -> Check:
    """An array, with the code for too many."""
    members = must.each(check)

    def run(value: Any, path: str) -> Problems:
        if isinstance(value, list) and len(value) > most:
            yield Problem(path, f"must have at most {most} entries", code)
        else:
            yield from members(value, path)

    return run


def int64(value: Any, path: str) -> Problems:
    """A number or its digits, as protobuf's JSON has both."""
    if not re.fullmatch(r"-?[0-9]{1,19}", str(as_id(value)), re.ASCII):
        yield Problem(path, "must be an integer", NUMBER)


def read_body(call: Call) -> tuple[dict[str, Any], list[Problem]]:
    if call.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
        return {}, [Problem("Content-Type", "must be application/json", "INVALID_ARGUMENT")]
    try:
        body = read_json(call.body)
    except ValueError:
        return {}, [Problem("body", "cannot be read as JSON", "INVALID_ARGUMENT")]
    return (body, []) if isinstance(body, dict) else ({}, [Problem("body", "must be an object", "INVALID_ARGUMENT")])


def _first(body: dict[str, Any]) -> dict[str, Any]:
    destinations = body.get("destinations")
    first = destinations[0] if isinstance(destinations, list) and destinations else None
    if not isinstance(first, dict):
        return {}
    return first | {"operatingAccount": part(first, "operatingAccount")}


def _coded(problems: Problems) -> Problems:
    """The reason follows from what is wrong, where the check knew none."""
    for problem in problems:
        code = MISSING if problem.reason.startswith("is missing") else "INVALID_ARGUMENT"
        yield problem if problem.code else replace(problem, code=code)


# --- requestStatus:retrieve -----------------------------------------------------------------------


def _number(account: str, destination: str, now: float, count: int, failures: list[str]) -> str:
    """The id of a request, which tells later all that there is to tell of it."""
    counts = {reason.removeprefix(LATER): failures.count(reason) for reason in sorted(set(failures))}
    said = [account, destination, round(now, 3), count, counts]
    text = base64.urlsafe_b64encode(orjson.dumps(said)).decode().rstrip("=")
    return f"{text}-{_seal(text)}"


def status(call: Call) -> Ruling:
    """GET /v1/requestStatus:retrieve?requestId=."""
    text, _, seal = call.query.get("requestId", "").rpartition("-")
    if seal != _seal(text) or set(call.query) != {"requestId"}:
        problem = Problem("requestId", "is no id of a request", "INVALID_REQUEST_ID")
        return Ruling("(none)", failed(400, "INVALID_ARGUMENT", [problem]), delivers=False)
    account, destination, taken, count, failures = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    answer = bearer(call, account)
    if answer is None:
        state = "PROCESSING" if call.now < taken + call.queue(account) else _state(count, failures)
        answer = json_answer(200, {"requestStatusPerDestination": [_told(state, destination, count, failures)]})
    return Ruling(account, answer, delivers=False)


def _state(count: int, failures: dict[str, int]) -> str:
    if not failures:
        return "SUCCESS"
    return "FAILED" if sum(failures.values()) == count else "PARTIAL_SUCCESS"


def _told(state: str, destination: str, count: int, failures: dict[str, int]) -> dict[str, Any]:
    told: dict[str, Any] = {"destination": {"productDestinationId": destination}, "requestStatus": state}
    if state == "PROCESSING":
        return told
    if failures:
        counts = [{"recordCount": str(number), "reason": f"{LATER}{reason}"} for reason, number in failures.items()]
        told["errorInfo"] = {"errorCounts": counts}
    return told | {"eventsIngestionStatus": {"recordCount": str(count)}}
