"""Google's Data Manager API, `events:ingest`: what its destinations have in common, Google Ads and Google Analytics among them.

Reference, below https://developers.google.com/data-manager/api/:
    reference/rest/v1/events/ingest               the request
    reference/rest/v1/requestStatus/retrieve      what became of it
    reference/rest/v1/ErrorReason                 why one is refused
    devguides/concepts/understand-errors          the answer to a bad request
    devguides/concepts/formatting                 user data: how each value is written before it is hashed
    devguides/limits                              requests a minute, events in a request

Two things shape this file. One bad event fails its whole request, and the answer names it by its place: so that one is
given up and the others are sent again. And 200 means queued: what became of the events is asked for later, and comes in
numbers by reason.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal
from urllib.parse import urlencode

import orjson
import phonenumbers

from app.events import Commerce, Consent, Context, Json, User
from sinks._base import (
    Accepted,
    Delivered,
    Followed,
    Halt,
    MatchKey,
    Outcome,
    Payload,
    Places,
    Rejected,
    Request,
    Response,
    Retry,
    answered,
    currency_code,
    hashed,
    left_open,
    listed,
    one_for_all,
    person_ip,
    retry_after,
)
from sinks._kinds import DIGEST, NUMBER, OBJECT, OBJECTS, TEXT, TEXTS, WHOLE, each, kinds

ENDPOINT = "https://datamanager.googleapis.com"
SCOPE = "https://www.googleapis.com/auth/datamanager"
MOST_EVENTS = 2000
MOST_BYTES = 1_000_000  # nothing is documented
RATE = 5.0  # 300 requests a minute and Cloud project
TIMEOUT = 12.0
_MOST_ITEMS = 200

#: Identifier -> rule of app/identity.py.
VARIANTS: Mapping[str, str] = {
    "email": "gmail",
    "phone": "e164",
    "first_name": "letters",
    "last_name": "letters",
}


#: Of an event, for both products.
FIELDS = {
    **each(
        TEXT, "", "transactionId eventTimestamp lastUpdatedTimestamp eventSource eventName clientId userId currency"
    ),
    **kinds("", conversionValue=NUMBER, adIdentifiers=OBJECT, userData=OBJECT, consent=OBJECT, cartData=OBJECT),
    **kinds("", eventDeviceInfo=OBJECT, additionalEventParameters=OBJECTS),
    **each(TEXT, "adIdentifiers.", "gclid gbraid wbraid sessionAttributes"),
    "userData.userIdentifiers": OBJECTS,
    **each(DIGEST, "userData.userIdentifiers[].", "emailAddress phoneNumber"),
    "userData.userIdentifiers[].address": OBJECT,
    **each(DIGEST, "userData.userIdentifiers[].address.", "givenName familyName addressLine"),
    **each(TEXT, "userData.userIdentifiers[].address.", "regionCode postalCode city administrativeArea"),
    **each(TEXT, "consent.", "adUserData adPersonalization"),
    **each(TEXT, "eventDeviceInfo.", "ipAddress userAgent"),
    **each(TEXT, "cartData.", "merchantId merchantFeedLabel merchantFeedLanguageCode"),
    **kinds("cartData.", transactionDiscount=NUMBER, couponCodes=TEXTS, items=OBJECTS),
    **each(TEXT, "cartData.items[].", "merchantProductId itemId"),
    **kinds("cartData.items[].", quantity=WHOLE, unitPrice=NUMBER, additionalItemParameters=OBJECTS),
    **each(TEXT, "cartData.items[].additionalItemParameters[].", "parameterName value"),
    **each(TEXT, "additionalEventParameters[].", "parameterName value"),
}


MATCH = (
    MatchKey("e-mail", ("userData.userIdentifiers.emailAddress",), ("user.email",)),
    MatchKey("phone", ("userData.userIdentifiers.phoneNumber",), ("user.phone",)),
    MatchKey("name and address", ("userData.userIdentifiers.address",), ("user.last_name",)),
    MatchKey(
        "IP address and user agent",
        ("eventDeviceInfo.ipAddress+eventDeviceInfo.userAgent",),
        ("context.ip", "context.user_agent"),
    ),
)


def places(name: str) -> Places:
    """`name` is the path to what the product calls an event."""
    return Places(
        "events",
        order_id="transactionId",
        name=name,
        time="eventTimestamp",
        value="conversionValue",
        currency="currency",
        shared=("destinations", "consent"),
        counts_once_by="order_id",
    )


# The request


def ingest(
    endpoint: str,
    headers: Mapping[str, str],
    destination: Json,
    batch: Sequence[Payload],
    *,
    validate_only: bool = False,
) -> Request:
    """All events go to the one destination: they name none, which means each of the request."""
    body: Json = {
        "destinations": [destination],
        "events": listed(batch),
        "encoding": "HEX",
        **({"validateOnly": True} if validate_only else {}),
    }
    return Request("POST", f"{endpoint}/v1/events:ingest", headers, orjson.dumps(body))


def headers(token: str, quota_project: str | None) -> dict[str, str]:
    return {
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/json",
        **({"x-goog-user-project": quota_project} if quota_project else {}),
    }


def account(kind: str, number: str) -> Json:
    return {"accountType": kind, "accountId": number}


_LAST_MOMENT = 253_402_300_799_999  # of the year 9999, the end of Google's Timestamp


def timestamp(milliseconds: int) -> str:
    """RFC 3339 in UTC; an empty text for what is no date."""
    if not 0 <= milliseconds <= _LAST_MOMENT:
        return ""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{_second(seconds)}.{rest:03}Z"


@lru_cache(maxsize=1024)  # many events happen in one
def _second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def consent(said: Consent) -> Json:
    """What was said about the two signals that Google asks for; what was not said is left out."""
    told: Json = {}
    if user_data := said.get("ad_user_data"):
        told["adUserData"] = f"CONSENT_{user_data.upper()}"
    if personalization := said.get("ad_personalization"):
        told["adPersonalization"] = f"CONSENT_{personalization.upper()}"
    return told


def money(commerce: Commerce) -> Json:
    """Both or neither: a value is in a currency."""
    currency = currency_code(commerce.get("currency", ""))
    return {"currency": currency, "conversionValue": commerce["value"]} if currency and "value" in commerce else {}


def products(commerce: Commerce, field: Literal["item_id", "variant"], name: str) -> list[Json]:
    """The items that have an id in this field, which Google calls by this name."""
    found: list[Json] = []
    for item in commerce.get("items", ()):
        item_id, quantity = item.get(field, ""), item.get("quantity", 1)
        if item_id.strip() and quantity > 0:
            line: Json = {name: item_id, "quantity": quantity}
            if "price" in item:
                line["unitPrice"] = item["price"]
            found.append(line)
    return found[:_MOST_ITEMS]


def device(context: Context) -> Json:
    found: Json = {}
    if ip := person_ip(context.get("ip", "")):
        found["ipAddress"] = ip
    if agent := context.get("user_agent", "").strip():
        found["userAgent"] = agent
    return found


def user_identifiers(user: User) -> list[Json]:
    found = hashed(user, VARIANTS)
    identifiers: list[Json] = []
    if email := found.get("email"):
        identifiers.append({"emailAddress": email})
    if phone := found.get("phone"):
        identifiers.append({"phoneNumber": phone})
    if address := _address(user, found):
        identifiers.append({"address": address})
    return identifiers


def _address(user: User, found: Mapping[str, str]) -> Json:
    """All four or none, and none that would fail the request: Google requires each, and that the region exists."""
    if "first_name" not in found or "last_name" not in found:
        return {}
    region, postal_code = user.get("country", "").strip().upper(), user.get("postal_code", "").strip()
    if region not in phonenumbers.SUPPORTED_REGIONS or not _POSTAL_CODE.fullmatch(postal_code):
        return {}
    return {
        "givenName": found["first_name"],
        "familyName": found["last_name"],
        "regionCode": region,
        "postalCode": postal_code,
    }


_POSTAL_CODE = re.compile("[A-Za-z0-9](?:[A-Za-z0-9 -]{0,10}[A-Za-z0-9])?")


# The answer. Its texts can quote values, so none of them is passed on: reasons, fields, and words of ours.

_LATER = 6 * 3600.0  # seconds; a new conversion action is known everywhere after some hours
#: About the destination, unless an event is named: no event can be delivered until somebody acts.
_ACCOUNT = {
    "TERMS_AND_CONDITIONS_NOT_SIGNED": "the customer data terms are not accepted in the account",
    "DESTINATION_ACCOUNT_ENHANCED_CONVERSIONS_TERMS_NOT_SIGNED": "the customer data terms are not accepted in the account",
    "DESTINATION_ACCOUNT_NOT_ENABLED_ENHANCED_CONVERSIONS_FOR_LEADS": "enhanced conversions for leads are off in the account",
    "DESTINATION_ACCOUNT_DATA_POLICY_PROHIBITS_ENHANCED_CONVERSIONS": "the account may not use enhanced conversions",
    "EU_POLITICAL_ADVERTISING_DECLARATION_REQUIRED": "the account lacks its declaration about EU political advertising",
    "NOT_ALLOWLISTED": "Google has not opened this feature to the account",
    "INVALID_DESTINATION": "there is no such destination",
    "INVALID_CONVERSION_ACTION_ID": "there is no such conversion action in the account",
    "INVALID_CONVERSION_ACTION_TYPE": "the conversion action is of another type",
    "EVENT_SOURCE_AND_DESTINATION_MISMATCH": "the conversion action takes conversions of another source",
    "DESTINATION_ACCOUNT_TYPE_MISMATCH": "the account is of another type",
    "OPERATING_ACCOUNT_LOGIN_ACCOUNT_MISMATCH": "the login account does not manage the account",
    "INVALID_MERCHANT_ID": "there is no such Merchant Center account",
    "INVALID_MERCHANT_FEED_LANGUAGE_CODE": "the language of the Merchant Center feed is none",
    "INVALID_PROPERTY_TYPE": "the property is of another type",
    "INVALID_STREAM_TYPE": "the data stream is of another type",
    "GOOGLE_ANALYTICS_SUBPROPERTY_OR_ROLLUP_PROPERTY_NOT_ALLOWED": "the property is a subproperty or a roll-up",
    "PERMISSION_DENIED": "the identity may not use the account",
    "NOT_FOUND": "there is no such account or destination",
}
_TROUBLE = {"INTERNAL_ERROR", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"}
_BAD_EVENT = {
    "REQUIRED_FIELD_MISSING": "a required field is missing",
    "INVALID_CURRENCY_CODE": "the currency is none that Google knows",
    "EVENT_TIME_INVALID": "the time is not acceptable: too old, or in the future",
    "NO_IDENTIFIERS_PROVIDED": "nothing to match a person by",
    "TOO_MANY_USER_IDENTIFIERS": "too many identifiers",
    "INVALID_SHA256_FORMAT": "a personal field is not hashed",
    "INVALID_HEX_ENCODING": "a personal field is not hashed",
    "INVALID_POSTAL_CODE": "the postal code is none",
    "INVALID_REGION_CODE": "the country is none that Google knows",
    "INVALID_COUNTRY_CODE": "the country is none that Google knows",
    "INVALID_AD_IDENTIFIER_FOR_ACCOUNT": "the click belongs to another account",
    "FIELD_VALUE_TOO_LONG": "a field is too long",
    "RESERVED_NAME_USED": "a name is reserved",
    "INVALID_EVENT_NAME": "the event name is not supported",
}
_FORBIDDEN = {
    "SERVICE_DISABLED": "the Data Manager API is not switched on in the Cloud project",
    "ACCESS_TOKEN_SCOPE_INSUFFICIENT": "the credential lacks the scope of the Data Manager API",
}


def verdict(batch: Sequence[Payload], response: Response) -> list[Outcome]:
    status = response.status
    if status == 200:
        return _taken(batch, response)
    answer = answered(response.body)
    error = answer.get("error")
    details = _details(error if isinstance(error, dict) else {})
    codes = [_code(detail.get("reason")) for detail in details]
    where = _where(f"HTTP {status}", codes, details)
    after = retry_after(response)
    if status == 429 or "RATE_LIMIT_EXCEEDED" in codes:
        return one_for_all(batch, Retry("throttled", after, where, throttled=True))
    if status in (408, 409) or status >= 500 or status < 400:
        return one_for_all(batch, Retry(f"HTTP {status}", after, unclear=left_open(response)))
    if status == 401:
        return one_for_all(batch, Halt("Google does not take the access token", where))
    if status in (403, 404):
        known = next((_FORBIDDEN[code] for code in codes if code in _FORBIDDEN), "")
        missing = "there is no such account or destination, or the endpoint is wrong"
        return one_for_all(batch, Halt(known or (missing if status == 404 else "the identity may not do this"), where))
    if status == 413:
        return one_for_all(batch, Rejected("HTTP 413: the request is too large", whole=True))
    if isinstance(error, dict):
        return _failure(batch, details, where)
    if response.body.lstrip().startswith(b"{"):  # more violations than are read of an answer
        return one_for_all(batch, Rejected("the answer cannot be read to its end", whole=True, detail=where))
    return one_for_all(batch, Retry(f"HTTP {status} without a word of Google's", after))


def _taken(batch: Sequence[Payload], response: Response) -> list[Outcome]:
    answer = answered(response.body)
    if not answer and response.body.strip() == b"{}":
        return one_for_all(batch, Delivered("valid; Google kept no record of the request"))  # as to `validateOnly`
    # with many warnings the answer is longer than what is read of it
    cut = re.match(rb'\s*\{\s*"requestId":\s*"([^"\\]*)"', response.body) if not answer else None
    reference = cut[1].decode(errors="replace") if cut else answer.get("requestId")
    if not isinstance(reference, str) or not re.fullmatch(r"[A-Za-z0-9_.:/+=-]{1,500}", reference):
        return one_for_all(batch, Retry("HTTP 200 without a receipt", retry_after(response), unclear=True))
    warnings: dict[int, list[str]] = {}
    for warning in _objects(answer.get("fieldWarnings")):
        warnings.setdefault(_index(warning), []).append(_code(warning.get("reason"), "WARNING_REASON_"))
    if not warnings:
        return one_for_all(batch, Accepted(reference))
    return [Accepted(reference, _warned([*warnings.get(i, ()), *warnings.get(-1, ())])) for i in range(len(batch))]


def _warned(codes: Sequence[str]) -> str:
    return f"warnings: {len(codes)} ({', '.join(sorted(set(codes)))})" if codes else ""


def _failure(batch: Sequence[Payload], details: Sequence[Json], where: str) -> list[Outcome]:
    """What a bad request was bad for: the destination, some events, or nobody knows what.

    The same reason can be about the destination or about one event, as of a source that the conversion action does not take.
    The field tells. A detail without one gives the reason of the request, which may be that of its one bad event.
    """
    violations = [one for detail in details for one in _objects(detail.get("fieldViolations"))]
    codes = [_code(one.get("reason")) for one in (*violations, *details)]
    of_events = {code for code, one in _coded(violations) if _index(one) >= 0}
    of_all = {code for code, one in _coded(violations) if _index(one) < 0}
    of_all |= {_code(detail.get("reason")) for detail in details} - of_events
    if wrong := next((code for code in codes if code in _ACCOUNT and code in of_all), ""):
        return one_for_all(batch, Halt(_ACCOUNT[wrong], where))
    if any(
        code == "INVALID_NUMBER_FORMAT" and _field(one).startswith("destinations") for code, one in _coded(violations)
    ):
        return one_for_all(batch, Halt("the id of the account or the conversion action is no number", where))
    if "CONVERSION_ACTION_TOO_RECENTLY_CREATED" in codes:
        return one_for_all(batch, Retry("the conversion action is too new", _LATER, where))
    if any(code in _TROUBLE for code in codes):
        return one_for_all(batch, Retry("trouble at Google", detail=where))
    bad: dict[int, Outcome] = {}
    for code, one in _coded(violations):
        if 0 <= _index(one) < len(batch):
            reason = _BAD_EVENT.get(code) or _ACCOUNT.get(code, "a field is invalid")
            bad.setdefault(_index(one), Rejected(reason, detail=_place(code, one)))
    if not bad:
        return one_for_all(batch, Rejected("Google refuses the request", whole=True, detail=where))
    return [bad.get(i, Retry("another event failed the request", after=0.0)) for i in range(len(batch))]


def _coded(violations: Sequence[Json]) -> list[tuple[str, Json]]:
    return [(_code(one.get("reason")), one) for one in violations]


def _place(code: str, violation: Json) -> str:
    """The reason and the field below the event, without anything that could be of the event."""
    field = re.sub(r"^.*?\bevents\[\d+\]\.?", "", _field(violation))
    return f"{code} at {field}" if re.fullmatch(r"[A-Za-z_.]{1,80}(\[\d{1,4}\][A-Za-z_.]{0,80}){0,3}", field) else code


def _where(start: str, codes: Sequence[str], details: Sequence[Json]) -> str:
    violations = [_code(one.get("reason")) for detail in details for one in _objects(detail.get("fieldViolations"))]
    told = sorted({code for code in (*codes, *violations) if code != "UNKNOWN"})[:5]
    number = next((detail["requestId"] for detail in details if isinstance(detail.get("requestId"), str)), "")
    request = [f"request {number}"] if re.fullmatch(r"[A-Za-z0-9_-]{1,100}", number) else []
    return ", ".join([start, *told, *request])


def _details(error: Json) -> list[Json]:
    return _objects(error.get("details"))


def _objects(value: Any) -> list[Json]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _field(violation: Json) -> str:
    field = violation.get("field")
    return field if isinstance(field, str) else ""


def _index(violation: Json) -> int:
    """Which event of the request it is about; -1 for none."""
    found = re.search(r"\bevents\[(\d{1,5})\]", _field(violation), re.ASCII)
    return int(found[1]) if found else -1


def _code(value: Any, prefix: str = "") -> str:
    return (
        value.removeprefix(prefix)
        if isinstance(value, str) and re.fullmatch("[A-Z][A-Z0-9_]{0,90}", value)
        else "UNKNOWN"
    )


# What became of it: known after half an hour to a day, and kept for about 50 days.


def follow_up(endpoint: str, headers: Mapping[str, str], reference: str) -> Request:
    query = urlencode({"requestId": reference})
    return Request("GET", f"{endpoint}/v1/requestStatus:retrieve?{query}", headers, b"")


def followed(response: Response) -> Followed | None:
    if response.status != 200:
        return None
    statuses = _objects(answered(response.body).get("requestStatusPerDestination"))
    if not statuses or any(
        one.get("requestStatus") not in ("SUCCESS", "PARTIAL_SUCCESS", "FAILED") for one in statuses
    ):
        return None
    said = {one["requestStatus"] for one in statuses}
    failed: dict[str, int] = {}
    for status in statuses:
        for count in _objects(_part(status, "errorInfo").get("errorCounts")):
            reason = _code(count.get("reason"), "PROCESSING_ERROR_REASON_")
            failed[reason] = failed.get(reason, 0) + _number(count.get("recordCount"))
    events = sum(_number(_part(one, "eventsIngestionStatus").get("recordCount")) for one in statuses)
    if said == {"FAILED"}:
        return Followed("failed", events, failed)
    return Followed("success" if said == {"SUCCESS"} and not failed else "partial", events, failed)


def _part(value: Json, name: str) -> Json:
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def _number(value: Any) -> int:
    """An int64 of protobuf's JSON is a string of digits; clients that write a number are understood, too."""
    return int(value) if re.fullmatch("[0-9]{1,18}", str(value)) and not isinstance(value, float) else 0
