"""Pinterest Conversions API: events for an ad account, matched to people by e-mail or by IP address and user agent.

API version v5. Reference:
    https://developers.pinterest.com/docs/api/v5/events-create/                                    the request and its answers
    https://github.com/pinterest/api-description (v5/openapi.yaml)                                 the schema, strict at every level
    https://developers.pinterest.com/docs/track-conversions/track-conversions-in-the-api/          events, hashing, opt-out, the tag
    https://developers.pinterest.com/docs/reference/rate-limits/                                   rate limits
    https://help.pinterest.com/en/business/article/limited-data-processing                         LDP

Three things shape this file. One unknown field anywhere fails the whole request, so bodies are built from the fields of the
schema and from nothing else. Amounts are texts and hashes are lists, even of one. And Pinterest takes some events of a
request and refuses others, with HTTP 200 as with 422: what it took must not be sent again.

An event that arrives more than an hour after it happened is reported as offline, whatever it says of itself.
"""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal, Self

import orjson
from pydantic import Field, field_validator, model_validator

from app.consent import Flag
from app.destination import Destination
from app.events import Commerce, Context, Event, Item, Json, Source
from app.fields import SecretRef
from app.identity import is_sha256, letters_only, sha256
from sinks._base import (
    DAY,
    Delivered,
    Halt,
    HashedFields,
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
    answered,
    currency_code,
    hashed_lists,
    left_open,
    listed,
    one_for_all,
    person_ip,
    retry_after,
    whole_number,
)
from sinks._kinds import DIGESTS, FLAG, OBJECT, OBJECTS, TEXT, TEXTS, WHOLE, each, kinds
from sinks._places import hashes_of_places, us_state, us_zip

# A product page is `view_content` to the API. Pinterest's tag, and the catalogue ads that live on it, know it as a
# `page_visit` with product ids; a shop whose tag reports it so says `events = { page_view = false, view_item = "page_visit" }`.
#: Canonical name -> event. Pinterest has none for the rest (refund, login, view_cart, ...).
NAMES = {
    "page_view": "page_visit",
    "view_item": "view_content",
    "view_item_list": "view_category",
    "search": "search",
    "add_to_cart": "add_to_cart",
    "add_to_wishlist": "add_to_wishlist",
    "begin_checkout": "initiate_checkout",
    "add_payment_info": "add_payment_info",
    "purchase": "checkout",
    "generate_lead": "lead",
    "sign_up": "signup",
    "subscribe": "subscribe",
}

#: All that Pinterest documents. The last seven are newer than the published schema.
EVENT_NAMES = {
    *NAMES.values(),
    "app_install",
    "custom",
    "watch_video",
    "app_open",
    "contact",
    "customize_product",
    "find_location",
    "schedule",
    "start_trial",
    "submit_application",
}

#: An event that the advertiser defined. It serves audiences, and counts in no conversion report.
_OWN_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")

ActionSource = Literal["web", "app_ios", "app_android", "offline"]

#: Nothing in an event says which system an app runs on.
ACTION_SOURCES: Mapping[Source, ActionSource | None] = {
    "pixel": "web",
    "server": "web",
    "app": None,
    "offline": "offline",
    "crm": "offline",
}


#: Where the setting `map` may put something, and what: the fields of the schema.
FIELDS = {
    **each(TEXT, "", "event_name action_source event_id event_source_url partner_name language"),
    **each(TEXT, "", "app_id app_name app_version device_brand device_carrier device_model device_type os_version"),
    **kinds("", event_time=WHOLE, opt_out=FLAG, wifi=FLAG, app_info=OBJECT, device_info=OBJECT),
    **each(DIGESTS, "user_data.", "em ph fn ln ge db ct st zp country external_id hashed_maids"),
    **each(TEXT, "user_data.", "client_ip_address client_user_agent click_id partner_id"),
    **each(TEXT, "custom_data.", "value currency content_name content_category content_brand order_id search_string"),
    **each(TEXT, "custom_data.", "opt_out_type predicted_ltv np external_measurement_id"),
    **kinds("custom_data.", content_ids=TEXTS, contents=OBJECTS, num_items=WHOLE, external_measurement_vendor_id=WHOLE),
    **each(TEXT, "custom_data.contents[].", "id item_price item_name item_category item_brand"),
    "custom_data.contents[].quantity": WHOLE,
    **each(TEXT, "app_info.", "app_id app_name app_package_name app_store app_version user_agent"),
    **each(WHOLE, "app_info.", "install_time window_height window_width"),
    **each(
        TEXT, "device_info.", "brand carrier form_factor kernel_version locale model network_type os_family os_name"
    ),
    **each(TEXT, "device_info.", "os_release_name os_version timezone timezone_abbr type"),
    **each(
        WHOLE, "device_info.", "cpu_cores external_storage_free_space external_storage_size screen_height screen_width"
    ),
    **each(WHOLE, "device_info.", "storage_free_space storage_size"),
    **kinds("device_info.", languages=TEXTS, battery_level=WHOLE, screen_density=WHOLE),
}


#: Of a person: our identifier -> hash rule, Pinterest's field.
HASHED: HashedFields = {
    "email": ("plain", "em"),
    "phone": ("digits", "ph"),
    "first_name": ("plain", "fn"),
    "last_name": ("plain", "ln"),
    "birth_date": ("ymd", "db"),
    "gender": ("letter", "ge"),
}


class Settings(Destination):
    endpoint: str = "https://api.pinterest.com"
    """Base address of the API."""
    ad_account_id: Annotated[str, Field(pattern=r"^[0-9]{1,18}$")]
    """Id of the ad account."""
    access_token: SecretRef
    """Conversion access token from Ads Manager, which Pinterest advises, or an OAuth token with the scope ads:write."""
    custom_events: bool = False
    """Also send events that no table names, under their own name, and let `events` name such. Pinterest takes 1 to 100
    letters, digits, _ and -, a few such names for each advertiser, and reports none of them as conversions."""
    action_source: Mapping[Source, ActionSource] = {}
    """Where conversions happened, by source. Default: `web` for pixel and server, `offline` for offline and crm. Events of
    the source app are sent only when this says `app_ios` or `app_android`."""
    app_id: str | None = None
    """Of the app in its store, sent with events of apps."""
    content_id: Literal["item_id", "variant"] = "item_id"
    """Which field of an item is its id in the catalogue. An item without it is left out."""
    external_id: Literal["hash", "hash_lower", "omit"] = "hash"
    """How the shop's own id of a person is sent: hashed as it is, hashed in lower case, or not at all. The tag must send it in
    the same form."""
    limited_data_processing: bool = False
    """Marks all events for Limited Data Processing, which follows the privacy laws of US states."""
    partner_name: Annotated[str, Field(pattern=r"^ss-[a-z0-9_-]{1,60}$")] | None = None
    """Only for a party that sends on behalf of advertisers: the name agreed with Pinterest, which begins with `ss-`."""
    max_age_days: Annotated[float, Field(gt=0, le=400)] = 7
    """Older events are not sent. Pinterest tells no limit; it has refused events that were more than a year old."""

    @model_validator(mode="after")
    def _known_events(self) -> Self:
        for named in self.events.values():
            for name in [named] if isinstance(named, str) else named or []:
                if name not in EVENT_NAMES and not (self.custom_events and _OWN_NAME.fullmatch(name)):
                    raise ValueError(
                        f"events: Pinterest has no event {name!r}; custom_events = true lets one be your own"
                    )
        return self

    @field_validator("map")
    @classmethod
    def _known_fields(cls, value: dict[str, str]) -> dict[str, str]:
        for path in value:
            if path.removesuffix("[]") not in FIELDS:
                raise ValueError(f"Pinterest has no field {path}, and fails whole requests for one it does not know")
        return value


class Pinterest(Sink):
    kind: ClassVar[str] = "pinterest"
    title: ClassVar[str] = "Pinterest Conversions API"
    purpose: ClassVar[Purpose] = "advertising"
    terms: ClassVar[str] = "https://policy.pinterest.com/en-gb/ad-data-terms"
    flags: ClassVar[frozenset[Flag]] = frozenset({"opt_out"})
    names: ClassVar[Mapping[str, str]] = NAMES
    fields = FIELDS | kinds("", user_data=OBJECT, custom_data=OBJECT)
    places = Places(
        "data",
        event_id="event_id",
        order_id="custom_data.order_id",
        name="event_name",
        time="event_time",
        value="custom_data.value",
        currency="custom_data.currency",
        counts_once_by="event_id",
    )
    match = (
        MatchKey("click id (epik)", ("user_data.click_id",), ("ids.epik",), of_click=True),
        MatchKey("e-mail", ("user_data.em",), ("user.email",)),
        MatchKey("phone", ("user_data.ph",), ("user.phone",)),
        MatchKey("external id", ("user_data.external_id",), ("user.user_id",)),
        MatchKey(
            "IP address and user agent",
            ("user_data.client_ip_address+user_data.client_user_agent",),
            ("context.ip", "context.user_agent"),
        ),
        MatchKey("name", ("user_data.fn+user_data.ln",), ("user.first_name", "user.last_name")),
        MatchKey(
            "place",
            ("user_data.zp+user_data.country", "user_data.ct+user_data.country"),
            ("user.postal_code", "user.city"),
        ),
        MatchKey("birth date", ("user_data.db",), ("user.birth_date",)),
    )
    Settings: ClassVar[type[Destination]] = Settings
    lists_events: ClassVar[bool] = True
    variants: ClassVar[Mapping[str, str]] = {name: rule for name, (rule, _) in HASHED.items()}

    def __init__(self, settings: Any) -> None:
        super().__init__(settings)
        self.action_sources = {**ACTION_SOURCES, **settings.action_source}
        self.limits = Limits(
            events=1000,
            bytes=1_000_000,  # nothing is documented; other senders stay below 2 MB
            max_age=int(settings.max_age_days * DAY),
            # Pinterest knows events by their ids and names. Its reference does not tell for how long, and what others found
            # goes from 1 to 48 hours. Later than an hour a web event is an offline one, and those it does not know again
            dedup_window=3600,
            rate=5000 / 60,  # calls for one ad account
            api_version="v5",
        )

    def encode(self, event: Event, name: str) -> Payload | Skip:
        if name not in EVENT_NAMES and not _OWN_NAME.fullmatch(name):
            return Skip("the event name is not 1 to 100 letters, digits, _ and -")
        action_source = self.action_sources[event["source"]]
        if action_source is None:
            return Skip("an app's event, and the setting action_source does not say app_ios or app_android")
        user_data = _user_data(event, self.settings.external_id)
        if not matchable(user_data):
            return Skip("neither an e-mail address nor IP address and user agent together")
        if "pinterestbot" in user_data.get("client_user_agent", "").lower():
            return Skip("a visit of Pinterest's own crawler")
        body: Json = {
            "event_name": name,
            "action_source": action_source,
            "event_time": event["time"] // 1000,
            "event_id": event["event_id"],
            **_page(event.get("context", {}), action_source),
            "user_data": user_data,
        }
        if self.settings.app_id and action_source in ("app_ios", "app_android"):
            body["app_id"] = self.settings.app_id
        if self.settings.partner_name:
            body["partner_name"] = self.settings.partner_name
        if custom_data := _custom_data(event, name, self.settings):
            body["custom_data"] = custom_data
        if event.get("consent", {}).get("ad_personalization") == "denied":
            # Pinterest reads it as an opt-out of tracking: the nearest there is to Google's signal
            body["opt_out"] = True
        return Payload(event["event_id"], body, dedup_window=0 if action_source == "offline" else None)

    def request(self, batch: Sequence[Payload], secrets: Secrets) -> Request:
        return Request(
            "POST",
            f"{self.settings.endpoint}/v5/ad_accounts/{self.settings.ad_account_id}/events",
            {"Authorization": f"Bearer {secrets['access_token']}", "Content-Type": "application/json"},
            orjson.dumps({"data": listed(batch)}),
        )

    def test_request(self, batch: Sequence[Payload], secrets: Secrets) -> Request:
        """Answered like any other, and nothing is recorded."""
        request = self.request(batch, secrets)
        return Request(request.method, f"{request.url}?test=true", request.headers, request.body)

    def verdict(self, batch: Sequence[Payload], response: Response) -> list[Outcome]:
        answer = answered(response.body)
        results = _results(answer, len(batch)) if response.status in (200, 422) else None
        if results is None:
            return one_for_all(batch, _of_request(answer, response))
        request_id = _request_id(response)
        taken = Delivered(request_id)  # most often
        return [taken if result == _PROCESSED else _of_event(result, request_id) for result in results]


def _page(context: Context, action_source: str) -> Json:
    """The page, of web events only, and the person's language as two letters."""
    found: Json = {}
    if action_source == "web" and _is_page(url := context.get("url", "")):
        found["event_source_url"] = url
    if language := _language(context.get("language", "").lower()):
        found["language"] = language[1]
    return found


_is_page = re.compile("https?://[^/]").match
_language = re.compile(r"([a-z]{2})(?:[-_]|$)").match


# user_data


def _user_data(event: Event, external_id: str) -> Json:
    user, context = event.get("user", {}), event.get("context", {})
    found: Json = hashed_lists(user, HASHED)
    found |= _places(user)
    if external := _external_id(user.get("user_id", "").strip(), external_id):
        found["external_id"] = [external]
    if ip := person_ip(context.get("ip", "")):
        found["client_ip_address"] = ip
    if agent := context.get("user_agent", "").strip():
        found["client_user_agent"] = agent
    if click := event.get("ids", {}).get("epik"):
        found["click_id"] = click  # byte for byte: it is case-sensitive
    return found


def matchable(user_data: Json) -> bool:
    return "em" in user_data or {"client_ip_address", "client_user_agent"} <= user_data.keys()


def _written(city: str, region: str, postal_code: str, country: str) -> dict[str, str]:
    """City, state, postal code and country as Pinterest writes them; empty where they cannot be written so."""
    country = country.lower()
    two_letters = re.fullmatch(r"(?:[a-z]{2}-)?([a-z]{2})", region.strip().lower())
    return {
        "ct": letters_only(city, digits=True, spaces=False),
        "st": us_state(region) if country == "us" else two_letters[1] if two_letters else "",
        # the letters of British and Canadian codes are left out, too: Pinterest wants digits and nothing else
        "zp": us_zip(postal_code) if country == "us" else re.sub("[^0-9]", "", postal_code),
        "country": country if re.fullmatch("[a-z]{2}", country) else "",
    }


_places = hashes_of_places(_written, {"city": "ct", "region": "st", "postal_code": "zp"})


def _external_id(user_id: str, form: str) -> str:
    if form == "omit" or not user_id:
        return ""
    if is_sha256(user_id):
        return user_id[:64].lower()
    return sha256(user_id.lower() if form == "hash_lower" else user_id)


# custom_data


def _custom_data(event: Event, name: str, settings: Settings) -> Json:
    commerce = event.get("commerce", {})
    items = [item for item in commerce.get("items", ()) if _sellable(item, settings.content_id)]
    found = _money(commerce)
    if (order := commerce.get("transaction_id", "")).strip():
        found["order_id"] = order
    if (searched := commerce.get("search_term", "")).strip():
        found["search_string"] = searched
    if items:
        found["content_ids"] = list(dict.fromkeys([item[settings.content_id] for item in items]))
        found["contents"] = [_content(item, settings.content_id) for item in items]
        found["num_items"] = sum([item.get("quantity", 1) for item in items])
    category = _common(items, "category") or (commerce.get("list_name", "") if name == "view_category" else "")
    if category.strip():
        found["content_category"] = category
    if (item_name := _common(items, "item_name")).strip():
        found["content_name"] = item_name
    if (brand := _common(items, "brand")).strip():
        found["content_brand"] = brand
    if settings.limited_data_processing or event.get("consent", {}).get("limited"):
        found["opt_out_type"] = "LDP"
    return found


def _money(commerce: Commerce) -> Json:
    """Both or neither: without a currency Pinterest takes the advertiser's own for it."""
    currency = currency_code(commerce.get("currency", ""))
    if not currency or "value" not in commerce:
        return {}
    return {"value": decimal_text(commerce["value"]), "currency": currency}


@lru_cache(maxsize=4096)  # a shop has few prices
def decimal_text(number: float) -> str:
    """A number as Pinterest takes it: 59.98 is "59.98", 60.0 is "60", and no exponent."""
    return format(Decimal(str(number)).normalize() + 0, "f")


def _sellable(item: Item, content_id: Literal["item_id", "variant"]) -> bool:
    return bool(item.get(content_id, "").strip()) and item.get("quantity", 1) > 0


def _content(item: Item, content_id: Literal["item_id", "variant"]) -> Json:
    content: Json = {"id": item[content_id], "quantity": item.get("quantity", 1)}
    if "price" in item:
        content["item_price"] = decimal_text(item["price"])
    if (name := item.get("item_name", "")).strip():
        content["item_name"] = name
    if (category := item.get("category", "")).strip():
        content["item_category"] = category
    if (brand := item.get("brand", "")).strip():
        content["item_brand"] = brand
    return content


def _common(items: Sequence[Item], field: Literal["item_name", "category", "brand"]) -> str:
    """What all the items say, where they all say the same."""
    if len(items) == 1:
        return items[0].get(field, "")
    told = {item.get(field, "") for item in items}
    return told.pop() if len(told) == 1 else ""


# The answer. Texts of Pinterest can quote values, so none of them is passed on: codes, and words of ours.

_PROCESSED = {"status": "processed"}
LONGEST_RECEIPT = 512 * 1024  # bytes; no more is read of an answer
_NOT_ALL = 953
_THROTTLED = 8
_RAMPED_DOWN = 4197
_ACCOUNT = {
    2: "the token is invalid or has expired",
    3: "the token lacks the scope ads:write",
    29: "the token may not use this ad account",
}
_BAD_REQUEST = {4196: "the request is malformed, or has an unknown field"}

#: What the message of a failed event is about; the first that fits.
_FAILURES = (
    (r"\b(?:past|old|older|expired|future|timestamp|event[_ ]?time)\b", "the event's time is not taken"),
    (r"\bevent[_ ]?name\b", "the event name is not taken"),
    (r"\baction[_ ]?source\b", "the action source is not taken"),
    (r"\bhash(?!ed_maids)|\bsha-?256\b", "a personal field is not hashed"),
    (r"\buser_?data\b|\bem\b|\bhashed_maids\b|\bclient_ip_address\b|\bclient_user_agent\b", "user_data is not taken"),
    (r"\bcustom_?data\b|\bcurrency\b|\bcontents?\b|\bcontent_ids\b", "custom_data is not taken"),
)
_TEMPORARY = (
    r"\b(?:try again|temporar\w*|unavailable|overload\w*|rate limit\w*)\b"
    r"|\b(?:time[ -]?out|timed out|internal (?:server )?error)\b"
)


def _results(answer: Json, sent: int) -> list[Any] | None:
    """One result per event, in the order of the request; None where the counts do not say the same as the list."""
    receipt = answer.get("details", answer)
    events = receipt.get("events") if isinstance(receipt, dict) else None
    if not isinstance(events, list) or len(events) != sent:
        return None
    processed = sum(isinstance(one, dict) and one.get("status") == "processed" for one in events)
    counts = (receipt.get("num_events_received"), receipt.get("num_events_processed"))
    return events if counts == (sent, processed) else None


def _of_event(result: Any, request_id: str) -> Outcome:
    result = result if isinstance(result, dict) else {}
    if result.get("status") == "processed":
        warned = "with a warning, see the conversions in Ads Manager" if result.get("warning_message") else ""
        return Delivered("; ".join(note for note in (warned, request_id) if note))
    if result.get("status") != "failed":
        return Retry("neither processed nor failed", detail=request_id, unclear=True)
    message = result.get("error_message")
    message = message if isinstance(message, str) else ""
    if re.search(_TEMPORARY, message, re.IGNORECASE):
        return Retry("temporary trouble", detail=request_id)
    reasons = (reason for pattern, reason in _FAILURES if re.search(pattern, message, re.IGNORECASE))
    return Rejected(next(reasons, "Pinterest could not process it"), detail=request_id)


def _of_request(answer: Json, response: Response) -> Outcome:
    """Of all events alike: there was no result for each, or none that fits."""
    status = response.status
    code = whole_number(answer.get("code")) if status >= 400 else 0
    where = "; ".join(note for note in (f"Pinterest error {code}" if code else "", _request_id(response)) if note)
    after = retry_after(response)
    if status == 429 or code == _THROTTLED:
        return Retry("throttled", after if after is not None else _reset(response), where, throttled=True)
    if status >= 500:
        if code == _RAMPED_DOWN:
            return Retry("the endpoint takes no traffic", after if after is not None else 60.0, where)
        refused = code in _ACCOUNT or code in _BAD_REQUEST
        return Retry(f"HTTP {status}", after, where, unclear=left_open(response) and not refused)
    if code in _ACCOUNT or status in (401, 403):
        return Halt(_ACCOUNT.get(code, f"HTTP {status}"), where)
    if status in (404, 405):
        return Halt(f"HTTP {status}: are the endpoint and the ad account right?", where)
    if status == 413:
        return Rejected("HTTP 413: the request is too large", whole=True, detail=where)
    if status in (400, 422) and code not in (0, _NOT_ALL):
        return Rejected(_BAD_REQUEST.get(code, "the request is not valid"), whole=True, detail=where)
    if status in (200, 422) and len(response.body) >= LONGEST_RECEIPT:
        # cut off, and so unreadable each time: fewer events at once get a shorter one, and Pinterest knows them by their ids
        return Rejected("the receipt is too long to be read", whole=True, detail=where)
    # pages in HTML come from proxies on the way. A receipt that does not fit tells nothing of any event
    unclear = left_open(response) or code == _NOT_ALL  # some were processed, and which is not known
    return Retry(f"HTTP {status} without a receipt that fits", after, where, unclear=unclear)


def _request_id(response: Response) -> str:
    """Find the number by which Pinterest's support knows the request."""
    found = response.headers.get("X-Pinterest-Rid", "")
    return f"request {found}" if re.fullmatch("[0-9]{1,25}", found, re.ASCII) else ""


def _reset(response: Response) -> float | None:
    """Seconds until calls are allowed again."""
    found = response.headers.get("X-Ratelimit-Reset", "")
    return float(found) if re.fullmatch("[0-9]{1,4}", found, re.ASCII) else None
