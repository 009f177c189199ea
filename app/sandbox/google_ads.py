"""Google Ads conversions, emulated: the Data Manager API for accounts of Google Ads, and the older Google Ads API.

Source of facts: Google's reference of the Data Manager API v1 (see _google.py), and of the Google Ads API v26:
`uploadClickConversions`, its errors and what it takes of a person.

A conversion is known again by its transaction id (older: order id) and conversion action: an adjustment, or a repetition.
What lies too far back, was denied consent, or is told to fail by the switch `partial`, is taken and fails in processing.

POST {prefix}/{version}/customers/{customer}:uploadClickConversions   can take some conversions and refuse others, in a 200
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from app.sandbox import _checks as must
from app.sandbox import _google as google
from app.sandbox._base import (
    Answer,
    Call,
    Checked,
    Platform,
    Problem,
    Route,
    Ruling,
    as_id,
    json_answer,
    part,
)
from app.sandbox._checks import Check, Problems, step

DAY = 86_400
MAX_AGE = 90 * DAY  # not documented; no click counts for longer
LONGEST_ID = 512
MOST_ITEMS = 200
VERSIONS = range(23, 27)

SOURCES = ("WEB", "APP", "IN_STORE", "PHONE", "MESSAGE", "OTHER")
CLICKS = ("gclid", "gbraid", "wbraid")

account = must.like("[0-9]{10}", "ten digits without dashes")
action = must.coded(must.like("[1-9][0-9]*", "the number of a conversion action"), google.NUMBER)
currency = must.coded(must.upper_currency, google.CURRENCY)
click = must.like(r"\S+", "a click id without white space")


# --- events:ingest --------------------------------------------------------------------------------


def transaction_id(value: Any, path: str) -> Problems:
    yield from must.text(value, path)
    if isinstance(value, str) and len(value) > LONGEST_ID:
        yield Problem(path, f"is longer than {LONGEST_ID} characters", "FIELD_VALUE_TOO_LONG")


_variable = must.record(
    {"variable": must.text, "value": must.text, "destinationReferences": must.each(must.text, least=0)},
    required=("variable", "value"),
)

AD_IDENTIFIERS = must.record(
    {
        **dict.fromkeys(CLICKS, click),
        **dict.fromkeys(("sessionAttributes", "mobileDeviceId", "dclid", "impressionId", "matchId"), must.text),
        "landingPageDeviceInfo": google.DEVICE,
    }
)

ITEM = must.record(
    {
        "merchantProductId": must.text,
        "quantity": google.int64,
        "unitPrice": must.number,
        "itemId": must.text,
        "conversionValue": must.number,
        "merchantId": must.text,
        "merchantFeedLabel": must.text,
        "merchantFeedLanguageCode": must.text,
        "customVariables": must.each(_variable),
    }
)

CART = must.record(
    {
        "merchantId": must.coded(must.like("[0-9]+", "the number of a Merchant Center account"), "INVALID_MERCHANT_ID"),
        "merchantFeedLabel": must.like("[A-Z0-9_-]{1,20}", "a label of up to 20 capitals, digits, - and _"),
        "merchantFeedLanguageCode": must.coded(
            must.like("[a-z]{2}", "an ISO 639-1 code"), "INVALID_MERCHANT_FEED_LANGUAGE_CODE"
        ),
        "transactionDiscount": must.number,
        "couponCodes": must.each(must.text),
        "items": must.each(ITEM, most=MOST_ITEMS),
    }
)

EVENT = must.record(
    {
        "destinationReferences": must.each(must.text, least=0),
        "transactionId": transaction_id,
        "eventTimestamp": google.time,
        "lastUpdatedTimestamp": google.time,
        "eventSource": must.coded(must.one_of(*SOURCES), google.ENUM),
        "conversionValue": must.number,
        "conversionCount": must.number,
        "currency": currency,
        "userData": must.anything,  # with the encoding of the request
        "adIdentifiers": AD_IDENTIFIERS,
        "consent": google.CONSENT,
        "cartData": CART,
        "eventDeviceInfo": google.DEVICE,
        "customVariables": must.each(_variable),
        "userProperties": must.record(
            {
                "customerType": must.one_of("NEW", "RETURNING", "REENGAGED"),
                "customerValueBucket": must.one_of("LOW", "MEDIUM", "HIGH"),
            }
        ),
    },
    required=("transactionId", "eventTimestamp", "eventSource"),
)


def rules(event: dict[str, Any], path: str, _now: float) -> Iterator[Problem]:
    identifiers = part(event, "adIdentifiers")
    if "gbraid" in identifiers and "wbraid" in identifiers:
        yield Problem(step(path, "adIdentifiers"), "has both gbraid and wbraid", "INVALID_ARGUMENT")
    by_click = identifiers.keys() & {*CLICKS, "sessionAttributes", "landingPageDeviceInfo", "mobileDeviceId", "dclid"}
    if not by_click and not part(event, "userData").get("userIdentifiers"):
        yield Problem(path, "has nothing to match it by", google.NOBODY)


def later(event: dict[str, Any], path: str, now: float) -> Iterator[Problem]:
    happened = google.parse_time(event.get("eventTimestamp"))
    if happened is not None and happened < now - MAX_AGE:
        yield Problem(step(path, "eventTimestamp"), "is older than 90 days", f"{google.LATER}EVENT_TOO_OLD")
    if part(event, "consent").get("adUserData") == "CONSENT_DENIED" and "userData" in event:
        yield Problem(step(path, "consent"), "is denied, and there is user data", f"{google.LATER}DENIED_CONSENT")


def warnings(event: dict[str, Any], path: str) -> Iterator[Problem]:
    """With a code: told in the answer."""
    if re.fullmatch("[0-9]+", str(event.get("transactionId"))):
        yield Problem(step(path, "transactionId"), "is digits only, which has been seen refused for imports")
    identifiers = part(event, "adIdentifiers")
    if len(identifiers.keys() & {*CLICKS}) > 1:
        yield Problem(step(path, "adIdentifiers"), "has more than one click id")
    if "adUserData" not in part(event, "consent"):
        yield Problem(step(path, "consent"), "is not told: not counted for people in Europe")
    if "cartData" in event and identifiers.keys() & {"gbraid", "wbraid"}:
        code = "WARNING_REASON_CART_DATA_NOT_SUPPORTED_WITH_GBRAID_OR_WBRAID"
        yield Problem(step(path, "cartData"), "is not used with gbraid or wbraid", code)
    yield from _warn_items(part(event, "cartData"), step(path, "cartData"))


def _warn_items(cart: dict[str, Any], path: str) -> Problems:
    for index, item in enumerate(cart.get("items", ())):
        for key, code in (("merchantProductId", "MERCHANT_PRODUCT_ID_MISSING"), ("unitPrice", "UNIT_PRICE_MISSING")):
            if key not in item:
                yield Problem(f"{path}.items[{index}].{key}", "is missing", f"WARNING_REASON_CART_DATA_ITEM_{code}")


def known_by(event: dict[str, Any], destination: str) -> tuple[str, ...] | None:
    number = as_id(event.get("transactionId"))
    return (destination, number) if number else None


ADS = google.Product(
    account_type="GOOGLE_ADS",
    account=account,
    destination=action,
    event=EVENT,
    rules=rules,
    later=later,
    warnings=warnings,
    key=known_by,
    name=lambda _event, destination: destination,
)


# --- uploadClickConversions -----------------------------------------------------------------------

_hash = must.coded(must.sha256, "INVALID_USER_IDENTIFIER")


def identifier(value: Any, path: str) -> Problems:
    known = {"hashedEmail": _hash, "hashedPhoneNumber": _hash, "userIdentifierSource": must.one_of("FIRST_PARTY")}
    yield from must.coded(must.record(known), "UNSUPPORTED_USER_IDENTIFIER")(value, path)
    if isinstance(value, dict) and len(value.keys() & {"hashedEmail", "hashedPhoneNumber"}) != 1:
        yield Problem(path, "must have exactly one of hashedEmail and hashedPhoneNumber", "INVALID_USER_IDENTIFIER")


OLDER_CART = must.record(
    {
        "merchantId": google.int64,
        "feedCountryCode": must.like("[A-Z]{2}", "an ISO 3166-1 alpha-2 code"),
        "feedLanguageCode": must.like("[a-z]{2}", "an ISO 639-1 code"),
        "localTransactionCost": must.number,
        "items": must.each(
            must.record(
                {"productId": must.text, "quantity": must.whole(1), "unitPrice": must.number},
                required=("productId", "quantity"),
            )
        ),
    },
    required=("merchantId",),
)

_status = must.one_of("GRANTED", "DENIED")
_moment = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d"


def _unparseable(kind: str) -> Check:
    return must.coded(click, f"UNPARSEABLE_{kind.upper()}")


CONVERSION = must.record(
    {
        "conversionAction": must.coded(
            must.like("customers/[0-9]{10}/conversionActions/[1-9][0-9]*", "the resource name of a conversion action"),
            "NO_CONVERSION_ACTION_FOUND",
        ),
        "conversionDateTime": must.like(_moment, "a time like 2026-11-23 10:15:30+00:00"),
        "conversionValue": must.number,
        "currencyCode": currency,
        "orderId": must.text,
        **{name: _unparseable(name) for name in CLICKS},
        "userIdentifiers": must.each(identifier, most=5),
        "consent": must.record({"adUserData": _status, "adPersonalization": _status}),
        "cartData": OLDER_CART,
        "customVariables": must.each(must.record({"conversionCustomVariable": must.text, "value": must.text})),
        "customerType": must.one_of("NEW", "RETURNING"),
    },
    required=("conversionAction", "conversionDateTime"),
)

REQUEST = must.record(
    {
        "conversions": must.each(must.anything, most=2000),
        "partialFailure": must.one_of(True),
        "validateOnly": must.flag,
        "jobId": must.whole(0),
    },
    required=("conversions", "partialFailure"),
)


def check_conversion(conversion: Any, path: str, now: float) -> Iterator[Problem]:
    """Everything wrong with one of `conversions`."""
    yield from CONVERSION(conversion, path)
    if not isinstance(conversion, dict):
        return
    if "gbraid" in conversion and "wbraid" in conversion:
        yield Problem(path, "has both gbraid and wbraid", "GBRAID_WBRAID_BOTH_SET")
    if not conversion.keys() & {*CLICKS} and not conversion.get("userIdentifiers"):
        yield Problem(path, "has nothing to match it by", "UNPARSEABLE_GCLID")
    if "conversionValue" in conversion and "currencyCode" not in conversion:
        yield Problem(step(path, "currencyCode"), "is missing beside the value", "REQUIRED_FIELD_MISSING")
    happened = google.parse_time(str(conversion.get("conversionDateTime")).replace(" ", "T"))
    place = step(path, "conversionDateTime")
    if happened is not None and happened > now + google.MAX_AHEAD:
        yield Problem(place, "is in the future", "FUTURE_CONVERSION_DATE_TIME")
    elif happened is not None and happened < now - MAX_AGE:
        yield Problem(place, "is older than 90 days", "EXPIRED_EVENT")
    yield from must.clear_data(conversion, path)


def upload(call: Call) -> Ruling:
    """POST /{version}/customers/{customer}:uploadClickConversions."""
    customer = call.path["customer"]
    if (refusal := google.bearer(call, customer, "a")) is not None:
        told = Problem("Authorization", "no good access token", "UNAUTHENTICATED")
        return Ruling(customer, refusal, problems=(told,))
    body, problems = google.read_body(call)
    problems = [*_address(call), *(problems or REQUEST(body, ""))]
    if problems:
        return Ruling(customer, _failure(400, problems), problems=tuple(problems))
    envelope = {key: body[key] for key in body if key != "conversions"}
    events = tuple(_checked(one, f"conversions[{i}]", call, customer) for i, one in enumerate(body["conversions"]))
    events = _once_each(events)
    bad = [problem for event in events for problem in event.problems]
    answer: dict[str, Any] = {"results": [_result(event) for event in events], "jobId": "1"}
    if bad:
        answer["partialFailureError"] = _status_of(bad)
    if body.get("validateOnly"):
        answer = {key: value for key, value in answer.items() if key == "partialFailureError"}
    return Ruling(
        customer, json_answer(200, answer), events=events, envelope=envelope, dry_run=bool(body.get("validateOnly"))
    )


def _address(call: Call) -> Problems:
    if int(call.path["version"][1:]) not in VERSIONS:
        yield Problem("version", "has ended, or does not exist yet", "UNSUPPORTED_VERSION")
    if not re.fullmatch("[0-9]{10}", call.path["customer"]):
        yield Problem("customer", "must be ten digits without dashes", "INVALID_CUSTOMER_ID")
    if not re.fullmatch("[0-9]{10}", call.headers.get("login-customer-id", "0" * 10)):
        yield Problem("login-customer-id", "must be ten digits without dashes", "INVALID_LOGIN_CUSTOMER_ID")


def _checked(conversion: Any, path: str, call: Call, customer: str) -> Checked:
    problems = tuple(
        problem if problem.code else replace(problem, code="INVALID_ARGUMENT")
        for problem in check_conversion(conversion, path, call.now)
    )
    fields = conversion if isinstance(conversion, dict) else {}
    name, number = str(fields.get("conversionAction")).rpartition("/")[2], as_id(fields.get("orderId"))
    if not problems and call.spoils(customer):
        problems = (Problem(step(path, "gclid"), "fails, as it was told to", "UNPARSEABLE_GCLID"),)
    clicks = [str(fields[one]) for one in CLICKS if one in fields]
    key = (name, number) if number else (name, *clicks, str(fields.get("conversionDateTime"))) if clicks else None
    return Checked(conversion, name, number, key, problems)


def _once_each(events: tuple[Checked, ...]) -> tuple[Checked, ...]:
    """A conversion that is in the request twice is taken once."""
    seen: set[tuple[str, ...]] = set()
    found = []
    for index, event in enumerate(events):
        if event.dedup_key in seen and not event.problems:
            code = "DUPLICATE_CLICK_CONVERSION_IN_REQUEST"
            found.append(replace(event, problems=(Problem(f"conversions[{index}]", "is in the request twice", code),)))
        else:
            found.append(event)
            seen |= {event.dedup_key} if event.dedup_key else set()
    return tuple(found)


def _result(event: Checked) -> dict[str, Any]:
    """What was taken is repeated; of the rest there is an empty place."""
    if event.problems:
        return {}
    return {key: event.body[key] for key in ("gclid", "conversionAction", "conversionDateTime") if key in event.body}


def _failure(status: int, problems: list[Problem]) -> Answer:
    return json_answer(status, {"error": {**_status_of(problems), "code": status, "status": "INVALID_ARGUMENT"}})


def _status_of(problems: list[Problem]) -> dict[str, Any]:
    """A google.rpc.Status with a GoogleAdsFailure."""
    errors = [
        {
            "errorCode": {_kind(problem.code): problem.code or "INVALID_ARGUMENT"},
            "message": problem.reason,
            "location": {"fieldPathElements": _elements(problem.field)},
        }
        for problem in problems
    ]
    failure = {
        "@type": "type.googleapis.com/google.ads.googleads.v26.errors.GoogleAdsFailure",
        "errors": errors,
        "requestId": "sandbox",
    }
    return {"code": 3, "message": "Multiple errors in 'details'.", "details": [failure]}


def _kind(code: str) -> str:
    return "requestError" if code in ("", "INVALID_ARGUMENT", "UNSUPPORTED_VERSION") else "conversionUploadError"


def _elements(path: str) -> list[dict[str, Any]]:
    found = re.findall(r"([A-Za-z-]+)(?:\[(\d+)\])?", path)
    return [{"fieldName": name, **({"index": int(index)} if index else {})} for name, index in found]


def platform() -> Platform:
    return Platform(
        name="google_ads",
        title="Google Ads",
        routes=(
            *google.routes(ADS),
            Route(r"/{version:v\d+}/customers/{customer}:uploadClickConversions", upload),
        ),
        failures={
            "status_429": google.failed(429, "RESOURCE_EXHAUSTED"),
            "status_500": google.failed(500, "INTERNAL"),
        },
        partial=True,
        queues=True,
        personal=frozenset(
            {
                *("emailAddress", "phoneNumber", "givenName", "familyName", "addressLine"),
                *("hashedEmail", "hashedPhoneNumber"),
            }
        ),
    )
