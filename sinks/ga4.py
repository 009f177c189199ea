"""Google Analytics 4: web events, beside those that gtag reports from the browser or in its place.

There are two ways in. The Measurement Protocol has no version and needs a secret of the data stream only. Reference, below
https://developers.google.com/analytics/devguides/collection/:
    protocol/ga4/reference           the request, its limits, reserved names
    protocol/ga4/reference/events    event names and their parameters
    protocol/ga4/sending-events      time, sessions, consent
    protocol/ga4/validating-events   the validation server
    ga4/uid-data                     user_data: how each value is written before it is hashed
The Data Manager API, which Google names for new integrations, takes the events of many people in one request and says what
is wrong with them, and wants OAuth. It is in sinks/_data_manager.py; which field is where:
https://developers.google.com/data-manager/api/devguides/events/analytics/measurement-protocol/upgrade/field-mappings
Purchases: https://support.google.com/analytics/answer/12313109, a transaction id counts once.

Three things shape this file. The Measurement Protocol answers 204 to whatever it gets, right or wrong, so all is checked here,
and a part may be put to the validation server, too (`check_share`).
GA4 knows no event id: but for purchases, which it knows by their transaction id, two reports of one event are two events. And
a client id that no browser had is a new visitor from nowhere, so none is ever made up.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import quote_plus

import orjson
from pydantic import Field, field_validator, model_validator

from app.consent import Flag, place_of
from app.destination import Destination
from app.events import CANONICAL_NAMES, Commerce, Consent, Event, Item, Json, User
from app.fields import SecretRef
from app.identity import letters_only, redact
from sinks import _data_manager as data_manager
from sinks._base import (
    DAY,
    Delivered,
    Followed,
    Halt,
    Limits,
    MatchKey,
    Outcome,
    Payload,
    Places,
    Purpose,
    Rejected,
    Request,
    Response,
    Retry,
    Secrets,
    Sink,
    Skip,
    hashed,
    left_open,
    listed,
    one_for_all,
    retry_after,
)
from sinks._kinds import NUMBER, OBJECT, OBJECTS, SCALAR, TEXT, each, kinds

#: The canonical names are GA4's own; `subscribe` is a custom event there.
NAMES = {name: name for name in CANONICAL_NAMES}

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")
_OF_COOKIE = re.compile(r"^GA1\.[0-9]\.")  # before the client id in the cookie _ga
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
_MOST_ITEM_BYTES = 100_000  # of all items; what else an event can have fits beside them in the largest request
_NEVER_TOO_LONG = 20  # items: each has 6 texts of 100 characters, of which JSON may write one in 6 bytes
_AROUND = 100  # bytes of a request that are neither of its events nor common to them
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
FIELDS = {
    **kinds("", name=TEXT, params=OBJECT),
    **kinds("params.", items=OBJECTS, value=NUMBER, tax=NUMBER, shipping=NUMBER, engagement_time_msec=NUMBER),
    **each(TEXT, "params.", "currency transaction_id coupon affiliation search_term payment_type shipping_tier method"),
    **each(TEXT, "params.", "item_list_id item_list_name page_location page_title page_referrer"),
    "params.*": SCALAR,
    **kinds("params.items[].", price=NUMBER, quantity=NUMBER, discount=NUMBER),
    "params.items[].*": SCALAR,
}
#: Google knows purchases again by their transaction id, and nothing else.
PLACES = Places(
    "events",
    event_id="params.event_id",
    order_id="params.transaction_id",
    name="name",
    time="timestamp_micros",
    value="params.value",
    currency="params.currency",
    shared=("client_id", "user_id", "timestamp_micros", "user_data", "user_agent", "ip_override", "consent"),
    counts_once_by="order_id",
    counts_once=("purchase",),
)
#: What has a field of its own in the Data Manager API.
_OWN_FIELDS = {"transaction_id": "transactionId", "currency": "currency", "value": "conversionValue"}
_OURS = {"session_id", "engagement_time_msec", "debug_mode", "items", *_COMMERCE.values(), *_CONTEXT.values()}


@lru_cache(maxsize=1024)
def event_name_allowed(name: str) -> bool:
    return param_name_allowed(name) and name not in _RESERVED_EVENTS and not name.startswith("app_store_")


def param_name_allowed(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and not name.startswith(_RESERVED_PREFIXES)


class Settings(Destination):
    endpoint: str = "https://www.google-analytics.com"
    """Base address; `https://region1.google-analytics.com` keeps the processing in the EU. With `data_manager` the default is
    https://datamanager.googleapis.com."""
    measurement_id: Annotated[str, Field(pattern=r"^G-[A-Z0-9]{4,20}$")]
    """Of the web data stream."""
    via: Literal["measurement_protocol", "data_manager"] = "measurement_protocol"
    """Which interface. `measurement_protocol` needs `api_secret`, and GA4 never says what it thinks of an event. `data_manager`
    needs `property_id` and `credentials`, sends many people's events in one request, and learns what was wrong with them; `map`
    then names fields of that interface."""
    api_secret: SecretRef | None = None
    """Measurement Protocol API secret of that data stream. GA4 does not say when it is wrong."""
    property_id: Annotated[str, Field(pattern=r"^[0-9]{5,20}$")] | None = None
    """Number of the property that the data stream belongs to, for `data_manager`."""
    credentials: SecretRef | None = None
    """For `data_manager`: JSON of a service account's key, or of a user (`authorized_user`, with a refresh token), who is an Editor
    or Administrator of the property."""
    quota_project: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9:.-]{1,80}$")] | None = None
    """For `data_manager`: Cloud project that the requests are counted for, for credentials of a user that were made elsewhere."""
    gtag: Literal["supplement", "replace"] = "supplement"
    """`supplement`: gtag runs in the browser, client and session are gtag's, and what `browser_tag` says that it reports is not
    sent again. `replace`: gtag does not run; every event is sent, with user agent and IP address. Whoever reports from the browser
    then has to give `ga_client_id` and `ga_session_id`: an event without a client is not sent, as GA4 would make a new visitor of
    it."""
    user_id: bool = False
    """Send the shop's own id of a person as `user_id`. Turn it on when gtag is given the same id."""
    user_data: bool = False
    """Send hashed e-mail, phone, name and street, where the person granted ad_user_data. The property must have
    user-provided data collection turned on."""
    device_and_place: bool = False
    """Send user agent and IP address. Without them GA4 takes device and place from what gtag sent for the same client
    id. With `gtag = "replace"` there is no such thing, and the default is true."""
    engagement_time_msec: Annotated[int, Field(ge=1)] = 1
    """Engagement that each event adds, in milliseconds. Without any, people do not count as active."""
    debug_mode: bool = False
    """Shows the events in DebugView. They still count."""
    check_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Which part of the requests is also put to GA4's validation server, at the same `endpoint`: 0.01 is a hundredth. GA4 says yes
    to whatever it gets; that server says what is wrong, and `capistream_complaints_total` and the log tell it. It changes no
    outcome, nothing waits for it, and it counts no event. For `measurement_protocol`: `data_manager` tells by itself."""

    @model_validator(mode="before")
    @classmethod
    def _follow_from_others(cls, given: Any) -> Any:
        """What another setting tells already."""
        if not isinstance(given, dict):
            return given
        given = dict(given)
        if given.get("via") == "data_manager":
            given.setdefault("endpoint", data_manager.ENDPOINT)
        if given.get("gtag") == "replace":
            given.setdefault("browser_tag", "none")
            given.setdefault("device_and_place", True)
        return given

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needed = ("api_secret",) if self.via == "measurement_protocol" else ("property_id", "credentials")
        for name in needed:
            if getattr(self, name) is None:
                raise ValueError(f"{name}: missing, and {self.via} needs it")
        if self.check_share and self.via == "data_manager":
            raise ValueError("check_share: data_manager has no use for it, as it tells by itself what was wrong")
        tags = self.browser_tag.values() if isinstance(self.browser_tag, dict) else [self.browser_tag]
        if self.gtag == "replace" and "same_id" in tags:
            raise ValueError('browser_tag: where gtag is replaced it reports nothing: say "none"')
        return self

    @field_validator("events")
    @classmethod
    def _allowed(
        cls, value: dict[str, str | list[str] | Literal[False]]
    ) -> dict[str, str | list[str] | Literal[False]]:
        for named in value.values():
            for name in [named] if isinstance(named, str) else named or []:
                if not event_name_allowed(name):
                    raise ValueError(f"{name} is reserved by GA4, or is not 1 to 40 letters, digits and _")
        return value


class Ga4(Sink):
    kind: ClassVar[str] = "ga4"
    title: ClassVar[str] = "Google Analytics 4"
    purpose: ClassVar[Purpose] = "analytics"
    terms: ClassVar[str] = "https://business.safety.google/adsprocessorterms/"
    vendor = 755  # Google Advertising Products
    flags: ClassVar[frozenset[Flag]] = frozenset({"opt_out", "signals"})
    names: ClassVar[Mapping[str, str]] = NAMES
    Settings: ClassVar[type[Destination]] = Settings
    lists_events: ClassVar[bool] = True
    variants: ClassVar[Mapping[str, str]] = {
        "email": "gmail",
        "phone": "e164",
        "first_name": "letters",
        "last_name": "letters",
        "street": "plain",
    }

    def __init__(self, settings: Any) -> None:
        super().__init__(settings)
        self.managed = settings.via == "data_manager"
        self.fields = data_manager.FIELDS if self.managed else FIELDS
        self.match = _match(settings, self.managed)
        self.places = replace(data_manager.places("eventName"), counts_once=("purchase",)) if self.managed else PLACES
        self.scopes = (data_manager.SCOPE,) if self.managed else ()
        self.proves_secret = self.managed
        self.check_share = settings.check_share
        self.limits = Limits(
            events=data_manager.MOST_EVENTS if self.managed else 25,
            bytes=data_manager.MOST_BYTES if self.managed else 130_000,
            max_age=3 * DAY,  # the Measurement Protocol dates older events to 72 hours ago, the other refuses them
            dedup_window=0,  # purchases are protected by their transaction id, for a time that Google does not tell
            timeout=data_manager.TIMEOUT if self.managed else 10.0,
            rate=data_manager.RATE if self.managed else None,
            api_version="v1" if self.managed else "",
        )

    def encode(self, event: Event, name: str) -> Payload | Skip:
        """In the Measurement Protocol, what belongs to the request as a whole, the time among it, makes the group."""
        if not event_name_allowed(name):
            return Skip("the event name is reserved by GA4, or is not 1 to 40 letters, digits and _")
        client_id = _OF_COOKIE.sub("", event.get("ids", {}).get("ga_client_id", "")).strip()
        if not client_id:
            return Skip("no GA4 client id")
        transaction_id = _unless_blank(event.get("commerce", {}).get("transaction_id", ""))
        if name in ("purchase", "refund") and len(transaction_id) > _LENGTH:
            return Skip(f"the transaction id is longer than {_LENGTH} characters")  # cut, two orders could be one
        if name == "refund" and not transaction_id:
            return Skip("a refund without the transaction id of its purchase")
        if event.get("tags", {}).get(self.settings.measurement_id, {}).get("relayed"):
            return Skip("gtag's own report was relayed by the collector")
        if self.settings.tag_for(event["event_name"]) == "same_id" and not _gtag_missing(event):
            if name != "purchase":
                return Skip("gtag already reported it")
            if not transaction_id:
                return Skip("gtag already reported it, and without a transaction id both would count")
        # Google does not say for how long it knows a transaction id; nothing is sent that is older than this
        window = self.limits.max_age if name == "purchase" and transaction_id else 0
        if self.managed:
            happened = data_manager.timestamp(event["time"])
            body = self._ingested(event, name, client_id, happened)
            return Payload(event["event_id"], body, dedup_window=window) if happened else Skip("the time is no date")
        common = orjson.dumps(self._shared(event, client_id))
        overhead = len(common) + _AROUND
        said = orjson.dumps({"name": name, "params": _params(event, self.settings)})
        if overhead + len(said) > self.limits.bytes:  # GA4 would drop it without a word
            return Skip("larger than GA4 takes a request")
        return Payload(event["event_id"], said, (common.decode(),), window, overhead)

    def told(self, payload: Payload) -> Json:
        return payload.body if self.managed else {**orjson.loads(payload.group[0]), **payload.body}

    def request(self, batch: Sequence[Payload], secrets: Secrets) -> Request:
        return self._ingest(batch, secrets) if self.managed else self._collect(batch, secrets, "mp/collect", {})

    def test_request(self, batch: Sequence[Payload], secrets: Secrets) -> Request:
        """To GA4's validation server, which looks neither at the secret nor at the measurement id."""
        if self.managed:
            return self._ingest(batch, secrets, validate_only=True)
        return self._validate(batch, secrets)

    def check(self, batch: Sequence[Payload], secrets: Secrets) -> Request | None:
        return None if self.managed else self._validate(batch, secrets)

    def complaints(self, response: Response) -> Sequence[str]:
        messages = _validation_messages(response.body) if response.status == 200 else None
        return sorted({_complaint(message) for message in messages or []})

    def verdict(self, batch: Sequence[Payload], response: Response) -> list[Outcome]:
        return data_manager.verdict(batch, response) if self.managed else one_for_all(batch, _verdict(response))

    def follow_up(self, reference: str, secrets: Secrets) -> Request:
        return data_manager.follow_up(self.settings.endpoint, self._headers(secrets), reference)

    def followed(self, response: Response) -> Followed | None:
        return data_manager.followed(response)

    def _validate(self, batch: Sequence[Payload], secrets: Secrets) -> Request:
        """Strictly: what GA4 would repair in silence is told, too."""
        return self._collect(batch, secrets, "debug/mp/collect", {"validation_behavior": "ENFORCE_RECOMMENDATIONS"})

    def _collect(self, batch: Sequence[Payload], secrets: Secrets, path: str, more: Mapping[str, str]) -> Request:
        query = f"measurement_id={self.settings.measurement_id}&api_secret={quote_plus(secrets['api_secret'])}"
        common, rest = batch[0].group[0], orjson.dumps({**more, "events": listed(batch)})
        return Request(
            "POST",
            f"{self.settings.endpoint}/{path}?{query}",
            {"Content-Type": "application/json"},
            common[:-1].encode() + b"," + rest[1:],  # one object of the two
        )

    def _ingest(self, batch: Sequence[Payload], secrets: Secrets, *, validate_only: bool = False) -> Request:
        destination = {
            "operatingAccount": data_manager.account("GOOGLE_ANALYTICS_PROPERTY", self.settings.property_id),
            "productDestinationId": self.settings.measurement_id,
        }
        return data_manager.ingest(
            self.settings.endpoint, self._headers(secrets), destination, batch, validate_only=validate_only
        )

    def _headers(self, secrets: Secrets) -> dict[str, str]:
        return data_manager.headers(secrets["credentials"], self.settings.quota_project)

    def _ingested(self, event: Event, name: str, client_id: str, happened: str) -> Json:
        """The event for the Data Manager API: what has no field of its own there is a parameter, and a text."""
        params = _params(event, self.settings)
        user, consent = event.get("user", {}), event.get("consent", {})
        told: Json = {"eventName": name, "clientId": client_id, "eventTimestamp": happened, "eventSource": "WEB"}
        if user_id := self._user_id(user):
            told["userId"] = user_id
        for ours, theirs in _OWN_FIELDS.items():
            if ours in params:
                told[theirs] = params.pop(ours)
        if self._may_have_user_data(event) and (people := _identifiers(user)):
            told["userData"] = {"userIdentifiers": people}
        if self.settings.device_and_place and (device := data_manager.device(event.get("context", {}))):
            told["eventDeviceInfo"] = device
        if signals := data_manager.consent(consent):
            told["consent"] = signals
        if cart := _cart(params.pop("items", []), params.pop("coupon", None)):
            told["cartData"] = cart
        told["additionalEventParameters"] = _as_texts(params)
        return told

    def _shared(self, event: Event, client_id: str) -> Json:
        """What is said of all events of a request: who it was, when and where, as far as the settings allow. In one order."""
        user, context, consent = event.get("user", {}), event.get("context", {}), event.get("consent", {})
        shared: Json = {"client_id": client_id, "timestamp_micros": event["time"] * 1000}
        if user_id := self._user_id(user):
            shared["user_id"] = user_id
        if self._may_have_user_data(event) and (user_data := _user_data(user)):
            shared["user_data"] = user_data
        if self.settings.device_and_place:
            if agent := context.get("user_agent"):
                shared["user_agent"] = agent
            if ip := context.get("ip"):
                shared["ip_override"] = ip
        if signals := _signals(consent):
            shared["consent"] = signals
        return shared

    def _user_id(self, user: User) -> str:
        found = _unless_blank(user.get("user_id", "")) if self.settings.user_id else ""
        return found if len(found) <= 256 else ""

    def _may_have_user_data(self, event: Event) -> bool:
        """Advertising within analytics: it needs more than the destination's own consent."""
        if not self.settings.user_data:
            return False
        said = event.get("consent", {}).get("ad_user_data")
        return said == "granted" or (said is None and self.settings.consent.at(place_of(event)).absent == "assume")


def _match(settings: Settings, managed: bool) -> tuple[MatchKey, ...]:
    """An event without a client id is not sent, so all have one. What the settings leave out is not missed."""
    data = data_manager.MATCH if managed else _MATCH
    found = [_USER_ID] * settings.user_id + [key for key in data if key.name != _DEVICE] * settings.user_data
    found += [key for key in data if key.name == _DEVICE] * settings.device_and_place
    return (*([] if managed else [_SESSION]), *found)


_DEVICE = "IP address and user agent"
_USER_ID = MatchKey("user id", ("userId", "user_id"), ("user.user_id",))
_SESSION = MatchKey("session id", ("params.session_id",), ("ids.ga_session_id",))  # else it is in no session of anybody
_MATCH = (
    MatchKey("e-mail", ("user_data.sha256_email_address",), ("user.email",)),
    MatchKey("phone", ("user_data.sha256_phone_number",), ("user.phone",)),
    MatchKey(_DEVICE, ("ip_override+user_agent",), ("context.ip", "context.user_agent")),
)


def _gtag_missing(event: Event) -> bool:
    """Tell whether the browser's copy says that gtag did not run."""
    told = [tag["ran"] for key, tag in event.get("tags", {}).items() if key in ("ga4", "gtag") and "ran" in tag]
    return bool(told) and not any(told)


def _signals(consent: Consent) -> Json:
    """Signals not given are left out: GA4 then uses what gtag last told of that client."""
    told: Json = {}
    if said := consent.get("ad_user_data"):
        told["ad_user_data"] = said.upper()
    if said := consent.get("ad_personalization"):
        told["ad_personalization"] = said.upper()
    return told


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
            "country": country if re.fullmatch("[A-Z]{2}", country := user.get("country", "")) else "",
        }
    address = {name: text for name, text in address.items() if text}
    lists = {
        "sha256_email_address": [found[key] for key in ("email",) if key in found],
        "sha256_phone_number": [found[key] for key in ("phone",) if key in found],
        "address": [address] if address else [],
    }
    return {name: values for name, values in lists.items() if values}


def _identifiers(user: User) -> list[Json]:
    """Those of the Data Manager API, the address with what only Analytics reads of one."""
    street = hashed(user, Ga4.variants).get("street")
    more = {
        "addressLine": street,
        "city": letters_only(user.get("city", ""), digits=False),
        "administrativeArea": letters_only(user.get("region", ""), digits=False),
    }
    rest = {name: text for name, text in more.items() if text}
    return [
        {"address": one["address"] | rest} if "address" in one else one for one in data_manager.user_identifiers(user)
    ]


# events[].params


def _params(event: Event, settings: Settings) -> Json:
    """At most 25: what makes the event count, what it is about, the page, then custom fields by name."""
    params: Json = {}
    if _SESSION_ID.fullmatch(session_id := event.get("ids", {}).get("ga_session_id", "")):
        params["session_id"] = session_id
    params["engagement_time_msec"] = settings.engagement_time_msec
    if settings.debug_mode:
        params["debug_mode"] = True
    if commerce := event.get("commerce"):
        params |= _commerce(commerce)
    if context := event.get("context"):
        params |= _renamed(context, _CONTEXT)
    if custom := event.get("custom"):
        extra = {name: name for name in custom if name not in _OURS and param_name_allowed(name)}
        fit = sorted(_renamed(custom, extra).items())
        params |= fit[: _MOST_PARAMS - len(params)]
    return params


_SESSION_ID = re.compile("[1-9][0-9]{0,19}")


def _commerce(commerce: Commerce) -> Json:
    found = _renamed(commerce, _COMMERCE)
    if not _CURRENCY.fullmatch(commerce.get("currency", "")):
        found.pop("currency", None)
        found.pop("value", None)  # GA4 takes none without a currency
    if items := _items(commerce.get("items", ())):
        found["items"] = items
    return found


_CURRENCY = re.compile("[A-Z]{3}")


def _items(given: Sequence[Item]) -> list[Json]:
    """The first that GA4 takes: 200, and fewer of great length rather than none of the event."""
    items = [item for one in given if "item_id" in (item := _renamed(one, _ITEM)) or "item_name" in item]
    if len(items) <= _NEVER_TOO_LONG:
        return items
    sizes = itertools.accumulate(len(orjson.dumps(item)) + 1 for item in items)
    return [item for item, size in zip(items, sizes, strict=True) if size <= _MOST_ITEM_BYTES][:_MOST_ITEMS]


def _renamed(fields: Mapping[str, Any], names: Mapping[str, str]) -> Json:
    """Fields under GA4's names, fit to be sent: texts cut and without e-mail addresses, nothing blank."""
    found: Json = {}
    for ours, theirs in names.items():
        if ours in fields:
            value = fields[ours]
            fit = _fit(value, _LENGTHS.get(theirs, _LENGTH)) if isinstance(value, str) else value
            if fit != "":
                found[theirs] = fit
    return found


def _unless_blank(text: str) -> str:
    return text if text.strip() else ""


def _fit(text: str, longest: int) -> str:
    # an e-mail address in a parameter or page address is a breach for which Google deletes data
    return _unless_blank(redact(text)[:longest])


# The same for the Data Manager API


def _cart(items: Sequence[Json], coupon: str | None) -> Json:
    cart: Json = {"couponCodes": [coupon]} if coupon else {}
    if items:
        cart["items"] = [_line(item) for item in items]
    return cart


def _line(item: Json) -> Json:
    line = {theirs: item[ours] for ours, theirs in _OWN_OF_ITEMS.items() if ours in item}
    if rest := {name: value for name, value in item.items() if name not in _OWN_OF_ITEMS}:
        line["additionalItemParameters"] = _as_texts(rest)
    return line


_OWN_OF_ITEMS = {"item_id": "itemId", "quantity": "quantity", "price": "unitPrice"}


def _as_texts(params: Json) -> list[Json]:
    return [
        {"parameterName": name, "value": value if isinstance(value, str) else orjson.dumps(value).decode()}
        for name, value in params.items()
    ]


# The answer of the Measurement Protocol


def _verdict(response: Response) -> Outcome:
    status = response.status
    if 200 <= status < 300:
        messages = _validation_messages(response.body) if response.body else None  # of the validation server
        if messages:
            return Rejected(f"GA4 would not take it: {', '.join(_validation_codes(messages))}", whole=True)
        if messages is not None:
            return Delivered("valid; the secret and the measurement id were not looked at")
        return _RECEIVED  # GA4 itself says nothing
    if status < 400 or status in (408, 425, 429) or status >= 500:
        return Retry(f"HTTP {status}", retry_after(response), throttled=status == 429, unclear=left_open(response))
    if status in (401, 403, 404, 405):
        return Halt(f"HTTP {status}: not what GA4 answers; is the endpoint right?")
    return Rejected(f"HTTP {status}", whole=True)


_RECEIVED = Delivered("received; GA4 confirms no more than that")


def _validation_messages(body: bytes) -> list[Any] | None:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    messages = answer.get("validationMessages") if isinstance(answer, dict) else None
    return messages if isinstance(messages, list) else None


def _validation_codes(messages: Sequence[Any]) -> list[str]:
    return sorted({_validation_code(message) for message in messages})


def _validation_code(message: Any) -> str:
    """Such as NAME_INVALID. The descriptions beside it quote values."""
    code = str(message.get("validationCode")) if isinstance(message, dict) else ""
    return code if re.fullmatch("[A-Z_]{1,40}", code) else "UNKNOWN"


_STEP = r"[A-Za-z_][A-Za-z0-9_]{0,39}(\[\])*"  # of a path: a field's name, and whether it is a list


def _complaint(message: Any) -> str:
    """The code, and the field without its place in a list; of a path that is none nothing is told."""
    given = message.get("fieldPath") if isinstance(message, dict) else None
    path = re.sub(r"\[[0-9]+\]", "[]", given)[:_LENGTH] if isinstance(given, str) else ""
    named = re.fullmatch(rf"{_STEP}(\.{_STEP})*", path)
    return f"{_validation_code(message)} at {path}" if named else _validation_code(message)
