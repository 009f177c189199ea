"""Meta Conversions API: events for a dataset (a pixel id is a dataset id), matched to people by hashed identifiers.

API version v26.0, released 2026-07-29. Meta has announced no day for its end; see SUNSETS.

Reference, below https://developers.facebook.com/docs/marketing-api/conversions-api/:
    using-the-api                                    the request, its batch, the age of events
    parameters/server-event                          the event, action_source, Limited Data Use
    parameters/customer-information-parameters       user_data: how each value is written before it is hashed
    parameters/fbp-and-fbc                           the two cookies
    parameters/custom-data                           custom_data
    deduplicate-pixel-and-server-events              event name and event id, 48 hours
    best-practices                                   which identifiers are too little
Error codes: https://developers.facebook.com/docs/marketing-api/error-reference
and https://developers.facebook.com/docs/graph-api/overview/rate-limiting

Two things shape this file. One bad event fails its whole request, so whatever would fail it is checked here first. And
Meta throttles with HTTP 400, so the code in the answer decides, not the status.
"""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Annotated, Any, ClassVar, Literal

import orjson
from pydantic import Field

from app.events import Commerce, Event, Ids, Json, Source, User
from app.identity import is_sha256, letters_only, sha256
from app.settings import Destination, SecretRef
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

#: Canonical name -> standard event. Meta has none for the rest (refund, login, view_cart, ...).
NAMES = {
    "page_view": "PageView",
    "view_item": "ViewContent",
    "view_item_list": "ViewContent",
    "search": "Search",
    "add_to_cart": "AddToCart",
    "add_to_wishlist": "AddToWishlist",
    "begin_checkout": "InitiateCheckout",
    "add_payment_info": "AddPaymentInfo",
    "purchase": "Purchase",
    "generate_lead": "Lead",
    "sign_up": "CompleteRegistration",
    "subscribe": "Subscribe",
}

# Not `app`, which needs app_data.extinfo, 16 facts about the phone (100/2804043), and not `business_messaging`, which
# needs a channel: our events carry neither.
ActionSource = Literal["website", "email", "phone_call", "chat", "physical_store", "system_generated", "other"]

ACTION_SOURCES: Mapping[Source, ActionSource] = {
    "pixel": "website",
    "server": "website",
    "app": "other",
    "offline": "physical_store",
    "crm": "system_generated",
}

#: When an API version stops answering, where a day is known.
SUNSETS = {"v24.0": date(2026, 10, 6)}

LduState = Literal["CA", "CO", "CT", "FL", "OR", "TX", "MT", "DE", "NE", "NH", "NJ", "MN", "MD", "RI"]

#: The states that Limited Data Use knows, by the number Meta gave them.
LDU_STATES: Mapping[str, int] = {
    "CA": 1000,
    "CO": 1001,
    "CT": 1002,
    "FL": 1003,
    "OR": 1004,
    "TX": 1005,
    "MT": 1006,
    "DE": 1007,
    "NE": 1008,
    "NH": 1009,
    "NJ": 1010,
    "MN": 1011,
    "MD": 1012,
    "RI": 1013,
}


class Settings(Destination):
    endpoint: str = "https://graph.facebook.com"
    """Base address of the Graph API."""
    dataset_id: Annotated[str, Field(pattern=r"^[0-9]{5,20}$")]
    """Id of the dataset; the id of a pixel is one."""
    access_token: SecretRef
    """Token of a system user who may use the dataset, or the one that Events Manager generates for it."""
    api_version: Annotated[str, Field(pattern=r"^v[0-9]+\.[0-9]+$")] = "v26.0"
    """Version of the Graph API."""
    test_event_code: str | None = None
    """Shows the events in Events Manager under Test events. They still count: leave it out in production."""
    action_source: Mapping[Source, ActionSource] = {}
    """Where conversions happened, by source. Default: `website` for pixel and server, `physical_store` for offline,
    `system_generated` for crm, and `other` for app, as Meta's `app` needs facts about the phone that events do not
    carry."""
    without_page: Literal["other", "system_generated", "skip"] = "other"
    """What becomes of a website event without page address or user agent, such as an order that only the back end saw.
    Meta requires both of a website event and neither of any other, so it goes out under this action source instead of
    not at all; `skip` does not send it."""
    content_id: Literal["item_id", "variant"] = "item_id"
    """Which field of an item is its id in the catalogue. An item without it is left out."""
    content_type: Literal["product", "product_group"] = "product"
    """What these ids are ids of."""
    external_id: Literal["hash", "raw", "omit"] = "hash"
    """How the shop's own id of a person is sent: hashed as Meta's libraries do it (without white space, in lower case),
    as it is, or not at all. The pixel must send it in the same form."""
    custom_data: tuple[str, ...] = ()
    """Names of custom fields to send along. Meta forbids personal data in them."""
    limited_data_use: bool = False
    """Marks all events for Limited Data Use, which follows the privacy laws of US states."""
    limited_data_use_state: LduState | None = None
    """The state whose law applies. Without it Meta locates the person by IP address; an event without one is marked by
    the person's own region, and not sent where that is no such state."""


class Meta:
    kind: ClassVar[str] = "meta"
    title: ClassVar[str] = "Meta Conversions API"
    purpose: ClassVar[Purpose] = "advertising"
    takes_revisions: ClassVar[bool] = False
    Settings: ClassVar[type[Destination]] = Settings
    variants: ClassVar[Mapping[str, str]] = {
        "email": "plain",
        "phone": "digits",
        "first_name": "plain",
        "last_name": "plain",
        "birth_date": "ymd",
        "gender": "letter",
    }

    def __init__(self, settings: Any) -> None:
        self.settings = settings
        self.action_sources = {**ACTION_SOURCES, **settings.action_source}
        self.limits = Limits(
            events=1000,
            bytes=1_000_000,  # nothing is documented; other senders stay below 1 MB
            max_age=7 * DAY,
            max_age_by_source={s: 62 * DAY for s, action in self.action_sources.items() if action == "physical_store"},
            dedup_window=2 * DAY,
            api_version=settings.api_version,
            sunset=SUNSETS.get(settings.api_version),
        )

    def encode(self, event: Event) -> Payload | Skip:
        name = self.settings.platform_name(NAMES, event["event_name"])
        if not name:
            return Skip("Meta has no such event; name one in `events`, or set custom_events")
        user_data = _user_data(event, self.settings.external_id)
        if not matchable(user_data):
            return Skip("too little to match a person by")
        custom_data = _custom_data(event, name, self.settings)
        if name == "Purchase" and "value" not in custom_data:
            return Skip("a purchase without a value and its currency")
        action_source = self._action_source(event)
        if action_source == "skip":
            return Skip("a website event without page address or user agent")
        privacy = self._limited_data_use(event, user_data)
        if isinstance(privacy, Skip):
            return privacy
        body = {
            "event_name": name,
            "event_time": event["time"] // 1000,  # in seconds; milliseconds would fail the request
            "event_id": event["event_id"],
            "action_source": action_source,
            **_pages(event),
            "user_data": user_data,
            **({"custom_data": custom_data} if custom_data else {}),
            # attribution yes, personalised delivery no: the nearest there is to Google's signal
            **({"opt_out": True} if event.get("consent", {}).get("ad_personalization") == "denied" else {}),
            **privacy,
        }
        return Payload(event["event_id"], body)

    def request(self, batch: Sequence[Payload], token: str) -> Request:
        body: Json = {"data": [payload.body for payload in batch]}
        if self.settings.test_event_code:
            body["test_event_code"] = self.settings.test_event_code
        return Request(
            "POST",
            f"{self.settings.endpoint}/{self.settings.api_version}/{self.settings.dataset_id}/events",
            {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            orjson.dumps(body),
        )

    def verdict(self, batch: Sequence[Payload], response: Response) -> list[Outcome]:
        return one_for_all(batch, _verdict(len(batch), response))

    def _action_source(self, event: Event) -> str:
        action_source: str = self.action_sources[event["source"]]
        has_page = "event_source_url" in _pages(event) and event.get("context", {}).get("user_agent")
        if action_source == "website" and not has_page:
            action_source = self.settings.without_page
        return action_source

    def _limited_data_use(self, event: Event, user_data: Json) -> Json | Skip:
        if not self.settings.limited_data_use:
            return {}
        state: str | None = self.settings.limited_data_use_state
        if state is None and "client_ip_address" in user_data:
            return _ldu(country=0, state=0)
        user = event.get("user", {})
        if state is None and user.get("country", "").upper() == "US":
            state = us_state(user.get("region", "")).upper()
        if state is None or state not in LDU_STATES:
            return Skip("limited data use needs an IP address or a state")
        return _ldu(country=1, state=LDU_STATES[state])


def _ldu(*, country: int, state: int) -> Json:
    return {
        "data_processing_options": ["LDU"],
        "data_processing_options_country": country,
        "data_processing_options_state": state,
    }


def _pages(event: Event) -> Json:
    """Addresses count with their scheme only."""
    context = event.get("context", {})
    pages = {"event_source_url": context.get("url", ""), "referrer_url": context.get("referrer", "")}
    return {name: page for name, page in pages.items() if re.match(r"https?://[^/]", page)}


# user_data


def _user_data(event: Event, external_id: str) -> Json:
    user, ids, context = event.get("user", {}), event.get("ids", {}), event.get("context", {})
    found = hashed(user, Meta.variants)
    digests = {
        "em": found.get("email"),
        "ph": found.get("phone"),
        "fn": found.get("first_name"),
        "ln": found.get("last_name"),
        "db": found.get("birth_date"),
        "ge": found.get("gender"),
        **{name: sha256(text) for name, text in _address(user).items()},
        "external_id": _external_id(user.get("user_id", ""), external_id),
    }
    clear = {
        "client_ip_address": _address_of_person(context.get("ip", "")),
        "client_user_agent": context.get("user_agent"),
        "fbp": ids.get("fbp"),
        "fbc": _fbc(ids, event["time"]),
        "lead_id": _lead_id(ids.get("lead_id", "")),
    }
    return {name: [digest] for name, digest in digests.items() if digest} | {k: v for k, v in clear.items() if v}


def _address(user: User) -> dict[str, str]:
    """City, state, postal code and country as Meta writes them; those that cannot be written so are left out."""
    country = user.get("country", "").lower()
    region, postal_code = user.get("region", ""), user.get("postal_code", "")
    written = {
        "ct": letters_only(user.get("city", ""), digits=False, spaces=False),
        "st": us_state(region) if country == "us" else letters_only(region, digits=True, spaces=False),
        "zp": us_zip(postal_code) if country == "us" else re.sub(r"[\s-]", "", postal_code).lower(),
        "country": country if re.fullmatch("[a-z]{2}", country) else "",
    }
    return {name: text for name, text in written.items() if text}


_US_STATES = (
    "al alabama|ak alaska|az arizona|ar arkansas|ca california|co colorado|ct connecticut|de delaware|"
    "dc district of columbia|fl florida|ga georgia|hi hawaii|id idaho|il illinois|in indiana|ia iowa|ks kansas|"
    "ky kentucky|la louisiana|me maine|md maryland|ma massachusetts|mi michigan|mn minnesota|ms mississippi|"
    "mo missouri|mt montana|ne nebraska|nv nevada|nh new hampshire|nj new jersey|nm new mexico|ny new york|"
    "nc north carolina|nd north dakota|oh ohio|ok oklahoma|or oregon|pa pennsylvania|pr puerto rico|"
    "ri rhode island|sc south carolina|sd south dakota|tn tennessee|tx texas|ut utah|vt vermont|va virginia|"
    "wa washington|wv west virginia|wi wisconsin|wy wyoming"
)
_US_CODES = {name: code for code, _, name in (state.partition(" ") for state in _US_STATES.split("|"))}


def us_state(region: str) -> str:
    """Two lower-case letters, from a code (CA, US-CA) or a name; an empty text where it is neither."""
    text = letters_only(region.replace("-", " "), digits=True).removeprefix("us ")
    return text if re.fullmatch("[a-z]{2}", text) else _US_CODES.get(text, "")


def us_zip(postal_code: str) -> str:
    match = re.fullmatch(r"([0-9]{5})(?:[ -]?[0-9]{4})?", postal_code.strip())
    return match[1] if match else ""


def _external_id(user_id: str, form: str) -> str:
    if form == "omit":
        return ""
    if form == "raw":
        return user_id
    # as github.com/facebook/capi-param-builder does it; what arrives hashed stays
    text = "".join(user_id.split()).lower()
    return text if not text or is_sha256(text) else sha256(text)


def _address_of_person(ip: str) -> str:
    try:
        return str(ipaddress.ip_address(ip.strip()))
    except ValueError:
        return ""


def _fbc(ids: Ids, time: int) -> str:
    """Give the cookie, else what it would be: fb, index 1 as of a server, milliseconds, the click id as it came."""
    if fbc := ids.get("fbc"):
        return fbc
    return f"fb.1.{time}.{ids['fbclid']}" if ids.get("fbclid") else ""


def _lead_id(text: str) -> int | None:
    """Ids of Lead Ads are integers; others may use the same name."""
    return int(text) if re.fullmatch(r"[0-9]{5,18}", text) else None


#: An event whose identifiers all lie in one of these fails with 100/2804050.
_TOO_LITTLE = (
    {"ct", "country", "st", "zp", "ge", "client_user_agent"},
    {"db", "client_user_agent"},
    {"fn", "ge"},
    {"ln", "ge"},
)


def matchable(user_data: Json) -> bool:
    return not any(user_data.keys() <= too_little for too_little in _TOO_LITTLE)


# custom_data


def _custom_data(event: Event, name: str, settings: Settings) -> Json:
    commerce = event.get("commerce", {})
    custom = event.get("custom", {})
    known: Json = {
        **_money(commerce),
        **_contents(commerce, settings),
        "order_id": commerce.get("transaction_id"),
        "search_string": commerce.get("search_term"),
    }
    if name == "InitiateCheckout":
        known["num_items"] = sum(content["quantity"] for content in known.get("contents", ())) or None
    chosen = {key: custom[key] for key in settings.custom_data if key in custom}
    return chosen | {key: value for key, value in known.items() if value not in (None, "")}


def _money(commerce: Commerce) -> Json:
    """Both or neither: a value without a currency fails the request (100/2804023)."""
    currency = commerce.get("currency", "").upper()
    if "value" not in commerce or not re.fullmatch("[A-Z]{3}", currency):
        return {}
    return {"value": commerce["value"], "currency": currency}


def _contents(commerce: Commerce, settings: Settings) -> Json:
    """Items that have an id: one without fails the request (100/2804008)."""
    contents: list[Json] = []
    for item in commerce.get("items", ()):
        if item.get(settings.content_id) and item.get("quantity", 1) > 0:
            content: Json = {"id": item[settings.content_id], "quantity": item.get("quantity", 1)}
            contents.append(content | ({"item_price": item["price"]} if "price" in item else {}))
    if not contents:
        return {}
    ids = list(dict.fromkeys(content["id"] for content in contents))
    return {"content_type": settings.content_type, "content_ids": ids, "contents": contents}


# The answer. Texts of Meta are localised and can quote values, so none of them is passed on: codes, and words of ours.

_TROUBLE = {1: "unknown trouble", 2: "temporary trouble", 5000: "temporary trouble", 21009: "temporary trouble"}
_THROTTLED = {4, 17, 32, 341, 368, 613, *range(80000, 80015)}
_ACCOUNT = {
    3: "the app may not make this call",
    10: "the token lacks the permission",
    102: "the token is invalid or has expired",
    104: "the app demands an appsecret_proof",
    190: "the token is invalid or has expired",
    803: "there is no such dataset",
    2635: "this API version has ended",
} | dict.fromkeys(range(200, 300), "the token lacks the permission")
_NO_DATASET = (100, 33)
_BAD_EVENT = {
    2804003: "the event is too old",
    2804004: "the event lies in the future",
    2804008: "an item has no id",
    2804009: "a purchase has no value",
    2804016: "a personal field is not hashed",
    2804023: "a value has no currency",
    2804043: "app_data has no operating system",
    2804050: "too little to match a person by",
}


def _verdict(sent: int, response: Response) -> Outcome:
    """Of all events alike: a request passes or fails as a whole."""
    if response.status == 429 or response.status >= 500:
        return Retry(f"HTTP {response.status}", retry_after(response))
    answer = _object(response.body)
    error = answer.get("error")
    if isinstance(error, dict):
        return _failure(error, response)
    if response.status == 413:
        return Rejected("HTTP 413: the request is too large", whole=True)
    received = answer.get("events_received")
    if response.status != 200 or not isinstance(received, int):
        # pages in HTML come in incidents, from Meta's front or from a proxy on the way
        return Retry(f"HTTP {response.status} without a receipt", retry_after(response))
    if received < sent:
        # never seen. Split, so that the events that are missing stand alone; Meta knows the others by their ids
        return Rejected("Meta counted fewer events", whole=True, detail=f"{received} of {sent}")
    warnings = answer.get("messages")
    notes = [
        f"fbtrace_id {trace}" if (trace := _trace(answer)) else "",
        f"warnings: {len(warnings)}, see Events Manager" if isinstance(warnings, list) and warnings else "",
        "this API version ends soon" if "X-Ad-Api-Version-Warning" in response.headers else "",
    ]
    return Delivered("; ".join(note for note in notes if note))


def _failure(error: Json, response: Response) -> Outcome:
    code, subcode = _number(error.get("code")), _number(error.get("error_subcode"))
    trace = _trace(error)
    where = f"Meta error {code}" + (f"/{subcode}" if subcode else "") + (f", fbtrace_id {trace}" if trace else "")
    after = retry_after(response)
    if code in _THROTTLED:
        return Retry("throttled", after if after is not None else _regain(response), where)
    if code in _TROUBLE or error.get("is_transient") is True:
        return Retry(_TROUBLE.get(code, "temporary trouble"), after, where)
    if (code, subcode) == _NO_DATASET:
        return Halt("there is no such dataset, or the token may not use it", detail=where)
    if code in _ACCOUNT:
        return Halt(_ACCOUNT[code], where)
    if code == 100:
        return Rejected(_BAD_EVENT.get(subcode, "a parameter is invalid"), whole=True, detail=where)
    if response.status in (401, 403):
        return Halt(f"HTTP {response.status}", where)
    # What is wrong with an event always came as 100. The rest is about Meta or the account, and retrying loses nothing
    return Retry("not known to us", after, where)


def _object(body: bytes) -> Json:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _number(value: Any) -> int:
    return value if type(value) is int else 0


def _trace(answer: Json) -> str:
    """Find the id by which Meta's support knows the request."""
    trace = answer.get("fbtrace_id")
    return trace if isinstance(trace, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,40}", trace) else ""


def _regain(response: Response) -> float | None:
    """Seconds until calls are allowed again: {"<business>": [{"estimated_time_to_regain_access": <minutes>, ...}]}."""
    usage = _object(response.headers.get("X-Business-Use-Case-Usage", "").encode())
    rows = [row for rows in usage.values() if isinstance(rows, list) for row in rows if isinstance(row, dict)]
    minutes = max((_number(row.get("estimated_time_to_regain_access")) for row in rows), default=0)
    return minutes * 60.0 if minutes > 0 else None
