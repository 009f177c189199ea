"""Google Analytics 4, Measurement Protocol: web events beside those that gtag reports from the browser.

It has no API version. Reference, below https://developers.google.com/analytics/devguides/collection/:
    protocol/ga4/reference           the request, its limits, reserved names
    protocol/ga4/reference/events    event names and their parameters
    protocol/ga4/sending-events      time, sessions, consent
    ga4/uid-data                     user_data: how each value is written before it is hashed
Purchases: https://support.google.com/analytics/answer/12313109, a transaction id counts once.

Three things shape this file. GA4 answers 204 to whatever it gets, right or wrong, so all is checked here. It knows no
event id: but for purchases, which it knows by their transaction id, two reports of one event are two events. And a
client id that gtag did not make is a new visitor from nowhere, so none is ever made up.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlencode

import orjson
from pydantic import Field, field_validator

from app.consent import judge
from app.events import CANONICAL_NAMES, Consent, Event, Item, Json, Scalar, User
from app.identity import letters_only, redact
from app.settings import ConsentPolicy, Destination, SecretRef
from sinks._base import (
    DAY,
    Delivered,
    Halt,
    Limits,
    Outcome,
    Payload,
    Purpose,
    Rejected,
    Request,
    Response,
    Retry,
    Skip,
    hashed,
    one_for_all,
    retry_after,
)

#: The canonical names are GA4's own; `subscribe` is a custom event there.
NAMES = {name: name for name in CANONICAL_NAMES}

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")
_RESERVED_PREFIXES = ("firebase_", "ga_", "google_")
_RESERVED_EVENTS = {
    "ad_activeview",
    "ad_click",
    "ad_exposure",
    "ad_impression",
    "ad_query",
    "adunit_exposure",
    "app_clear_data",
    "app_install",
    "app_remove",
    "app_update",
    "error",
    "first_open",
    "first_visit",
    "in_app_purchase",
    "notification_dismiss",
    "notification_foreground",
    "notification_open",
    "notification_receive",
    "os_update",
    "screen_view",
    "session_start",
    "user_engagement",
}
_MOST_PARAMS = 25
_MOST_ITEMS = 200
_LENGTH = 100  # characters of a text, but for these
_LENGTHS = {"page_location": 1000, "page_referrer": 420, "page_title": 300}

_COMMERCE: Mapping[str, str] = {
    "currency": "currency",
    "value": "value",
    "transaction_id": "transaction_id",
    "tax": "tax",
    "shipping": "shipping",
    "coupon": "coupon",
    "affiliation": "affiliation",
    "search_term": "search_term",
    "payment_type": "payment_type",
    "shipping_tier": "shipping_tier",
    "method": "method",
    "list_id": "item_list_id",
    "list_name": "item_list_name",
}
_CONTEXT: Mapping[str, str] = {"url": "page_location", "title": "page_title", "referrer": "page_referrer"}
_ITEM: Mapping[str, str] = {
    "item_id": "item_id",
    "item_name": "item_name",
    "brand": "item_brand",
    "category": "item_category",
    "variant": "item_variant",
    "coupon": "coupon",
    "quantity": "quantity",
    "price": "price",
    "discount": "discount",
}
_OURS = {"session_id", "engagement_time_msec", "debug_mode", "items", *_COMMERCE.values(), *_CONTEXT.values()}


def event_name_allowed(name: str) -> bool:
    return param_name_allowed(name) and name not in _RESERVED_EVENTS and not name.startswith("app_store_")


def param_name_allowed(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and not name.startswith(_RESERVED_PREFIXES)


class Settings(Destination):
    endpoint: str = "https://www.google-analytics.com"
    """Base address; `https://region1.google-analytics.com` keeps the processing in the EU."""
    measurement_id: Annotated[str, Field(pattern=r"^G-[A-Z0-9]{4,20}$")]
    """Of the web data stream."""
    api_secret: SecretRef
    """Measurement Protocol API secret of that data stream. GA4 does not say when it is wrong."""
    user_id: bool = False
    """Send the shop's own id of a person as `user_id`. Turn it on when gtag is given the same id."""
    user_data: bool = False
    """Send hashed e-mail, phone, name and street, where the person granted ad_user_data. The property must have
    user-provided data collection turned on."""
    device_and_place: bool = False
    """Send user agent and IP address. Without them GA4 takes device and place from what gtag sent for the same client
    id, which is enough unless gtag does not run."""
    engagement_time_msec: Annotated[int, Field(ge=1)] = 1
    """Engagement that each event adds, in milliseconds. Without any, people do not count as active."""
    debug_mode: bool = False
    """Shows the events in DebugView. They still count."""

    @field_validator("events")
    @classmethod
    def _allowed(cls, value: dict[str, str | Literal[False]]) -> dict[str, str | Literal[False]]:
        for name in value.values():
            if name is not False and not event_name_allowed(name):
                raise ValueError(f"{name} is reserved by GA4, or is not 1 to 40 letters, digits and _")
        return value


class Ga4:
    kind: ClassVar[str] = "ga4"
    title: ClassVar[str] = "Google Analytics 4"
    purpose: ClassVar[Purpose] = "analytics"
    takes_revisions: ClassVar[bool] = False
    Settings: ClassVar[type[Destination]] = Settings
    variants: ClassVar[Mapping[str, str]] = {
        "email": "gmail",
        "phone": "e164",
        "first_name": "letters",
        "last_name": "letters",
        "street": "plain",
    }

    def __init__(self, settings: Any) -> None:
        self.settings = settings
        self.limits = Limits(
            events=25,
            bytes=130_000,
            max_age=3 * DAY,  # GA4 dates older events to 72 hours ago
            dedup_window=0,  # purchases are protected by their transaction id, for a time that Google does not tell
        )

    def encode(self, event: Event) -> Payload | Skip:
        """One event in a request of its own; `request` joins those whose other parts are equal, the time among them."""
        name = self.settings.platform_name(NAMES, event["event_name"])
        if not name:
            return Skip("no name for GA4; name one in `events`, or set custom_events")
        if not event_name_allowed(name):
            return Skip("the event name is reserved by GA4, or is not 1 to 40 letters, digits and _")
        client_id = re.sub(r"^GA1\.[0-9]\.", "", event.get("ids", {}).get("ga_client_id", "")).strip()
        if not client_id:
            return Skip("no GA4 client id")
        transaction_id = event.get("commerce", {}).get("transaction_id", "")
        if name in ("purchase", "refund") and len(transaction_id) > _LENGTH:
            return Skip(f"the transaction id is longer than {_LENGTH} characters")  # cut, two orders could be one
        if self.settings.tag_for(event["event_name"]) == "same_id" and not _gtag_missing(event):
            if name != "purchase":
                return Skip("gtag already reported it")
            if not transaction_id:
                return Skip("gtag already reported it, and without a transaction id both would count")
        shared = {
            "client_id": client_id,
            "timestamp_micros": event["time"] * 1000,
            **self._person(event),
            **_consent(event.get("consent", {})),
        }
        group = (orjson.dumps(shared, option=orjson.OPT_SORT_KEYS).decode(),)
        params = _params(event, self.settings)
        return Payload(event["event_id"], {**shared, "events": [{"name": name, "params": params}]}, group)

    def request(self, batch: Sequence[Payload], token: str) -> Request:
        query = urlencode({"measurement_id": self.settings.measurement_id, "api_secret": token})
        body = {**batch[0].body, "events": [one for payload in batch for one in payload.body["events"]]}
        return Request(
            "POST",
            f"{self.settings.endpoint}/mp/collect?{query}",
            {"Content-Type": "application/json"},
            orjson.dumps(body),
        )

    def verdict(self, batch: Sequence[Payload], response: Response) -> list[Outcome]:
        return one_for_all(batch, _verdict(response))

    def _person(self, event: Event) -> Json:
        """Who it was and where, as far as the settings allow."""
        user, context = event.get("user", {}), event.get("context", {})
        person: Json = {}
        if self.settings.user_id and 0 < len(user.get("user_id", "")) <= 256:
            person["user_id"] = user["user_id"]
        if self.settings.user_data and self._may_have_user_data(event):
            person["user_data"] = _user_data(user)
        if self.settings.device_and_place:
            person["user_agent"] = context.get("user_agent")
            person["ip_override"] = context.get("ip")
        return {name: value for name, value in person.items() if value}

    def _may_have_user_data(self, event: Event) -> bool:
        """Advertising within analytics: it needs more than the destination's own consent."""
        policy = ConsentPolicy(needs=["ad_user_data"], absent=self.settings.consent.absent)
        return judge(event.get("consent", {}), "advertising", policy).allowed


def _gtag_missing(event: Event) -> bool:
    """Tell whether the browser's copy says that gtag did not run."""
    told = [tag["ran"] for key, tag in event.get("tags", {}).items() if key in ("ga4", "gtag") and "ran" in tag]
    return bool(told) and not any(told)


_NO_SIGNAL = ConsentPolicy(needs=[])


def _consent(consent: Consent) -> Json:
    """Signals not given are left out: GA4 then uses what gtag last told of that client."""
    if not judge(consent, "advertising", _NO_SIGNAL).allowed:  # Global Privacy Control, or a string nobody could read
        return {"consent": {"ad_user_data": "DENIED", "ad_personalization": "DENIED"}}
    told: Json = {}
    if "ad_user_data" in consent:
        told["ad_user_data"] = consent["ad_user_data"].upper()
    if "ad_personalization" in consent:
        told["ad_personalization"] = consent["ad_personalization"].upper()
    return {"consent": told} if told else {}


def _user_data(user: User) -> Json:
    found = hashed(user, Ga4.variants)
    address = {
        "sha256_first_name": found.get("first_name"),
        "sha256_last_name": found.get("last_name"),
        "sha256_street": found.get("street"),
    }
    if any(address.values()):  # a town alone is nobody's address
        address |= {
            "city": letters_only(user.get("city", ""), digits=False),
            "region": letters_only(user.get("region", ""), digits=False),
            "postal_code": re.sub("[.~]", "", user.get("postal_code", "")).strip(),
            "country": user.get("country"),
        }
    address = {name: text for name, text in address.items() if text}
    lists = {
        "sha256_email_address": [found[key] for key in ("email",) if key in found],
        "sha256_phone_number": [found[key] for key in ("phone",) if key in found],
        "address": [address] if address else [],
    }
    return {name: values for name, values in lists.items() if values}


# events[].params


def _params(event: Event, settings: Settings) -> Json:
    """At most 25: what makes the event count, what it is about, the page, then custom fields by name."""
    session_id = event.get("ids", {}).get("ga_session_id", "")
    ours: Json = {
        "session_id": session_id if re.fullmatch("[0-9]{1,20}", session_id) else None,
        "engagement_time_msec": settings.engagement_time_msec,
        "debug_mode": settings.debug_mode or None,
        **_commerce(event),
        **_renamed(event.get("context", {}), _CONTEXT),
    }
    params = {name: value for name, value in ours.items() if value is not None}
    custom = sorted(_renamed(event.get("custom", {})).items())
    extra = [(name, value) for name, value in custom if name not in _OURS and param_name_allowed(name)]
    return params | dict(extra[: _MOST_PARAMS - len(params)])


def _commerce(event: Event) -> Json:
    commerce = event.get("commerce", {})
    found = _renamed(commerce, _COMMERCE)
    if not re.fullmatch("[A-Z]{3}", commerce.get("currency", "")):
        found.pop("currency", None)
        found.pop("value", None)  # GA4 takes none without a currency
    items = [_item(item) for item in commerce.get("items", ()) if item.get("item_id") or item.get("item_name")]
    return found | ({"items": items[:_MOST_ITEMS]} if items else {})


def _item(item: Item) -> Json:
    return _renamed(item, _ITEM)


def _renamed(fields: Mapping[str, Any], names: Mapping[str, str] | None = None) -> Json:
    """Fields under GA4's names, fit to be sent: texts cut and without e-mail addresses, nothing empty."""
    names = {name: name for name in fields} if names is None else names
    fit = {ga4: _fit(ga4, fields[ours]) for ours, ga4 in names.items() if ours in fields}
    return {name: value for name, value in fit.items() if value != ""}


def _fit(name: str, value: Scalar) -> Scalar:
    # an e-mail address in a parameter or page address is a breach for which Google deletes data
    return redact(value)[: _LENGTHS.get(name, _LENGTH)] if isinstance(value, str) else value


def _verdict(response: Response) -> Outcome:
    status = response.status
    if 200 <= status < 300:
        # only https://www.google-analytics.com/debug as endpoint says anything
        if codes := _validation_codes(response.body):
            return Rejected(f"GA4 would not take it: {', '.join(codes)}", whole=True)
        return Delivered("received; GA4 confirms no more than that")
    if status < 400 or status in (408, 429) or status >= 500:
        return Retry(f"HTTP {status}", retry_after(response))
    if status in (401, 403, 404, 405):
        return Halt(f"HTTP {status}: not what GA4 answers; is the endpoint right?")
    return Rejected(f"HTTP {status}", whole=True)


def _validation_codes(body: bytes) -> list[str]:
    """Codes such as NAME_INVALID. The descriptions beside them quote values."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return []
    messages = answer.get("validationMessages") if isinstance(answer, dict) else None
    if not isinstance(messages, list):
        return []
    codes = [str(message.get("validationCode")) if isinstance(message, dict) else "" for message in messages]
    return sorted({code if re.fullmatch("[A-Z_]{1,40}", code) else "UNKNOWN" for code in codes})
