"""The older interface to Google Ads, `uploadClickConversions` of the Google Ads API: only for accounts that had it before.

Who had not imported conversions before 2026-06-15 is refused with CUSTOMER_NOT_ALLOWLISTED_FOR_THIS_FEATURE. An API version
lives for about a year.

Reference, below https://developers.google.com/google-ads/api/:
    docs/conversions/upload-offline    the conversions, and what is wrong with one
    rest/reference/rest/v26/customers/uploadClickConversions
    docs/best-practices/error-types    errors by what is to be done

It can take some conversions of a request and refuse others, and says so in a 200.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson

from app.events import Event, Json, User
from sinks._base import (
    Delivered,
    Halt,
    MatchKey,
    Outcome,
    Payload,
    Places,
    Rejected,
    Request,
    Response,
    Retry,
    Secrets,
    answered,
    hashed,
    left_open,
    listed,
    one_for_all,
    retry_after,
)
from sinks._data_manager import VARIANTS, money, products
from sinks._kinds import DIGEST, NUMBER, OBJECT, OBJECTS, TEXT, WHOLE, each, kinds

ENDPOINT = "https://googleads.googleapis.com"
SCOPE = "https://www.googleapis.com/auth/adwords"
#: 2000 are allowed. Each is repeated in the answer, and with these the answer is short enough to be read to its end.
MOST_EVENTS = 50

FIELDS = {
    **each(TEXT, "", "conversionAction conversionDateTime orderId currencyCode gclid gbraid wbraid"),
    **kinds("", conversionValue=NUMBER, userIdentifiers=OBJECTS, consent=OBJECT, cartData=OBJECT),
    **each(DIGEST, "userIdentifiers[].", "hashedEmail hashedPhoneNumber"),
    "consent.adUserData": TEXT,
    **each(TEXT, "cartData.", "merchantId feedCountryCode feedLanguageCode"),
    **kinds("cartData.", localTransactionCost=NUMBER, items=OBJECTS),
    **kinds("cartData.items[].", productId=TEXT, quantity=WHOLE, unitPrice=NUMBER),
}

MATCH = (
    MatchKey("e-mail", ("userIdentifiers.hashedEmail",), ("user.email",)),
    MatchKey("phone", ("userIdentifiers.hashedPhoneNumber",), ("user.phone",)),
)
PLACES = Places(
    "conversions",
    order_id="orderId",
    name="conversionAction",
    time="conversionDateTime",
    value="conversionValue",
    currency="currencyCode",
    counts_once_by="order_id",
)

_LATER = 6 * 3600.0


# The request


def conversion(
    event: Event, action: str, number: str, happened: str, clicks: Json, people: Sequence[Json], settings: Any
) -> Json:
    """One conversion. Its date must stay the same when it is sent again, as must its order id."""
    commerce = event.get("commerce", {})
    value = money(commerce)
    said = event.get("consent", {}).get("ad_user_data")
    return {
        "conversionAction": f"customers/{settings.customer_id}/conversionActions/{action}",
        "conversionDateTime": f"{happened[:10]} {happened[11:19]}+00:00",
        "orderId": number,
        **({"conversionValue": value["conversionValue"], "currencyCode": value["currency"]} if value else {}),
        **clicks,
        **({"userIdentifiers": list(people)} if people else {}),
        **({"consent": {"adUserData": said.upper()}} if said else {}),
        **_cart(event, settings),
    }


def user_identifiers(user: User) -> list[Json]:
    """Neither names nor addresses: these are for another kind of upload."""
    found = hashed(user, VARIANTS)
    names = (("email", "hashedEmail"), ("phone", "hashedPhoneNumber"))
    return [{theirs: found[ours]} for ours, theirs in names if ours in found]


def _cart(event: Event, settings: Any) -> Json:
    """Only with the Merchant Center account, by which Google knows the products."""
    if not settings.cart or not settings.merchant_id:
        return {}
    commerce = event.get("commerce", {})
    items = products(commerce, settings.item_id, "productId")
    country = settings.feed_label if re.fullmatch("[A-Z]{2}", settings.feed_label or "") else None
    told = {
        "merchantId": settings.merchant_id,
        "feedCountryCode": country,
        "feedLanguageCode": settings.feed_language,
        "localTransactionCost": commerce.get("discount"),
    }
    return {"cartData": {k: v for k, v in told.items() if v is not None} | {"items": items}} if items else {}


def request(batch: Sequence[Payload], secrets: Secrets, settings: Any, *, validate_only: bool = False) -> Request:
    body = {
        "conversions": listed(batch),
        "partialFailure": True,
        **({"validateOnly": True} if validate_only else {}),
    }
    headers = {
        "Authorization": f"Bearer {secrets['credentials']}",
        "Content-Type": "application/json",
        "developer-token": secrets.get("developer_token"),
        "login-customer-id": settings.login_customer_id,
        "x-goog-user-project": settings.quota_project,
    }
    return Request(
        "POST",
        f"{settings.endpoint}/{settings.api_version}/customers/{settings.customer_id}:uploadClickConversions",
        {name: value for name, value in headers.items() if value},
        orjson.dumps(body),
    )


# The answer. Its texts can quote values, so codes and words of ours are all that is passed on.

#: Google has the conversion.
_KNOWN = {
    "CLICK_CONVERSION_ALREADY_EXISTS",
    "DUPLICATE_CLICK_CONVERSION_IN_REQUEST",
    "ORDER_ID_ALREADY_IN_USE",
    "DUPLICATE_ORDER_ID",
}
_TOO_NEW = {"TOO_RECENT_EVENT", "TOO_RECENT_CONVERSION_ACTION", "TOO_RECENT_CALL"}
_THROTTLED = {"RESOURCE_EXHAUSTED", "RESOURCE_TEMPORARILY_EXHAUSTED"}
_TROUBLE = {"INTERNAL_ERROR", "TRANSIENT_ERROR", "DEADLINE_EXCEEDED", "CONCURRENT_MODIFICATION"}
_ACCOUNT = {
    "CUSTOMER_NOT_ALLOWLISTED_FOR_THIS_FEATURE": 'Google lets this account no longer use the older API: api = "data_manager"',
    "NO_CONVERSION_ACTION_FOUND": "there is no such conversion action in the account",
    "INVALID_CONVERSION_ACTION": "there is no such conversion action in the account",
    "INVALID_CONVERSION_ACTION_TYPE": "the conversion action is of another type",
    "CUSTOMER_NOT_ACCEPTED_CUSTOMER_DATA_TERMS": "the customer data terms are not accepted in the account",
    "CUSTOMER_NOT_ENABLED_ENHANCED_CONVERSIONS_FOR_LEADS": "enhanced conversions for leads are off in the account",
    "CUSTOMER_DATA_POLICY_PROHIBITS_ENHANCED_CONVERSIONS": "the account may not use enhanced conversions",
    "UNSUPPORTED_VERSION": "this API version has ended",
}
#: Kinds of errors that are about who asks, and not about what is sent.
_ABOUT_CALLER = {"authenticationError", "authorizationError", "notAllowlistedError", "customerError", "headerError"}
_BAD_EVENT = {
    "CLICK_NOT_FOUND": "no click of such a person is known",
    "EXPIRED_EVENT": "the click is too old",
    "EVENT_NOT_FOUND": "there is no such click",
    "UNPARSEABLE_GCLID": "the click id is none",
    "UNPARSEABLE_GBRAID": "the click id is none",
    "UNPARSEABLE_WBRAID": "the click id is none",
    "CONVERSION_PRECEDES_EVENT": "it lies before its click",
    "INVALID_CUSTOMER_FOR_CLICK": "the click belongs to another account",
    "UNAUTHORIZED_CUSTOMER": "the click belongs to another account",
    "ONE_PER_CLICK_CONVERSION_ACTION_NOT_PERMITTED_WITH_BRAID": "the conversion action takes no gbraid and no wbraid",
    "CONVERSION_TRACKING_NOT_ENABLED_AT_IMPRESSION_TIME": "conversions were not tracked yet at its click",
}


def verdict(batch: Sequence[Payload], response: Response) -> list[Outcome]:
    status, after = response.status, retry_after(response)
    answer = answered(response.body)
    if status == 429 or status >= 500 or status in (408, 409):
        unclear = left_open(response)
        return one_for_all(batch, Retry(f"HTTP {status}", after, throttled=status == 429, unclear=unclear))
    if status == 200:
        return _taken(batch, response, answer)
    errors = _errors(answer.get("error"))
    if status == 413:
        return one_for_all(batch, Rejected("HTTP 413: the request is too large", whole=True))
    if status in (401, 403, 404):
        told = next((_outcome(error) for error in errors), None)
        words = (
            "Google does not take the access token"
            if status == 401
            else f"HTTP {status}: the account or endpoint is wrong"
        )
        return one_for_all(batch, told if isinstance(told, Halt) else Halt(words))
    if errors:
        return _by_event(batch, errors)
    if isinstance(answer.get("error"), dict):
        return one_for_all(batch, Rejected("Google refuses the request", whole=True, detail=f"HTTP {status}"))
    return one_for_all(batch, Retry(f"HTTP {status} without a word of Google's", after, unclear=left_open(response)))


def _taken(batch: Sequence[Payload], response: Response, answer: Json) -> list[Outcome]:
    failure = answer.get("partialFailureError")
    if failure is not None:
        if errors := _errors(failure):
            return _by_event(batch, errors, others=Delivered())
        return one_for_all(batch, Rejected("Google refuses some conversions without saying which", whole=True))
    results = answer.get("results")
    if isinstance(results, list) and len(results) >= len(batch):
        return one_for_all(batch, Delivered())
    if response.body.strip() == b"{}":
        return one_for_all(batch, Delivered("valid; Google kept nothing"))  # as to `validateOnly`
    return one_for_all(batch, Retry("HTTP 200 without a receipt", retry_after(response), unclear=True))


def _by_event(batch: Sequence[Payload], errors: Sequence[Json], others: Outcome | None = None) -> list[Outcome]:
    """Each error to its event. What is not about an event is about all, and so is a halt, unless others were taken.

    `others` is what became of those that no error is about; None: nothing was taken.
    """
    found: dict[int, Outcome] = {}
    for error in errors:
        outcome, index = _outcome(error), _index(error)
        if isinstance(outcome, Halt) and others is None:
            return one_for_all(batch, outcome)
        if not 0 <= index < len(batch):
            return one_for_all(batch, _of_nobody(outcome, len(batch), taken=others is not None))
        found.setdefault(index, outcome)
    rest = others or Retry("another event failed the request", after=0.0)
    return [found.get(index, rest) for index in range(len(batch))]


def _of_nobody(outcome: Outcome, sent: int, *, taken: bool) -> Outcome:
    """Of all, as it does not say which of them it means. `taken`: Google took what no error is about."""
    if isinstance(outcome, Rejected):
        return Rejected(outcome.reason, True, outcome.detail)
    if isinstance(outcome, Delivered) and sent > 1:
        return Rejected("Google has one of them already, and does not say which", True, outcome.detail)
    return replace(outcome, unclear=taken) if isinstance(outcome, Retry) else outcome


def _outcome(error: Json) -> Outcome:
    kind, code = _code(error)
    where = f"Google Ads error {code}"
    if code in _KNOWN:
        return Delivered(f"Google has it already: {code}")
    if code in _TOO_NEW:
        return Retry("the click or the conversion action is too new", _LATER, where)
    if code in _THROTTLED:
        return Retry("throttled", detail=where, throttled=True)
    if code in _TROUBLE:
        return Retry("trouble at Google", detail=where)
    if code in _ACCOUNT or kind in _ABOUT_CALLER:
        return Halt(_ACCOUNT.get(code, "the account may not do this"), where)
    return Rejected(_BAD_EVENT.get(code, "a field is invalid"), detail=where)


def _errors(status: Any) -> list[Json]:
    """Those of the GoogleAdsFailure in a google.rpc.Status."""
    details = _objects(status.get("details")) if isinstance(status, dict) else []
    return [error for detail in details for error in _objects(detail.get("errors"))]


def _code(error: Json) -> tuple[str, str]:
    """("conversionUploadError", "UNPARSEABLE_GCLID")."""
    told = error.get("errorCode")
    kind, code = next(iter(told.items()), ("", "")) if isinstance(told, dict) else ("", "")
    return kind, code if isinstance(code, str) and re.fullmatch("[A-Z][A-Z0-9_]{0,90}", code) else "UNKNOWN"


def _index(error: Json) -> int:
    """Which conversion of the request it is about; -1 for none. Protobuf's JSON may leave out a 0."""
    location = error.get("location")
    elements = _objects(location.get("fieldPathElements")) if isinstance(location, dict) else []
    for element in elements:
        if element.get("fieldName") == "conversions":
            index = element.get("index", 0)
            return int(index) if re.fullmatch("[0-9]{1,5}", str(index)) else -1
    return -1


def _objects(value: Any) -> list[Json]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
