"""TikTok Events API 2.0: events of a pixel's web site, of an offline event set, or of a CRM event set.

2.0 is the generation of the payload; the address says Business API v1.3. Samples with `context`, `timestamp` or `pixel_code`
in the body are of the generation before, which takes other fields.

Reference:
    https://business-api.tiktok.com/portal/docs?id=1771101303285761    the request, its fields, the answer
    https://ads.tiktok.com/help/article/standard-events-parameters     event names and their parameters
    https://ads.tiktok.com/help/article/reserved-events                names that TikTok turns into others
    https://ads.tiktok.com/help/article/custom-events                  how names of one's own are written
    https://ads.tiktok.com/help/article/event-deduplication            pixel, event name and event id, 48 hours

Three things shape this file. TikTok answers HTTP 200 to right and wrong alike, so the code in the body decides, and the
status only where there is none. One bad event fails its whole request, so whatever would fail it is checked here first.
And much is told by TikTok's partners only: what could do harm if they were wrong is a setting, and off.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import unquote

import orjson
from pydantic import Field, field_validator

from app.consent import Flag
from app.destination import Destination
from app.events import Commerce, Context, Event, Item, Json, Scalar, Source, User
from app.fields import Seconds, SecretRef, between
from app.identity import is_sha256, letters_only, sha256
from sinks._base import (
    DAY,
    Delivered,
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
    answered,
    currency_code,
    hashed,
    is_blank,
    is_test,
    left_open,
    listed,
    one_for_all,
    person_ip,
    retry_after,
)
from sinks._kinds import (
    DIGEST,
    DIGEST_OR_DIGESTS,
    FLAG,
    NUMBER,
    OBJECT,
    OBJECTS,
    SCALAR,
    TEXT,
    TEXTS,
    WHOLE,
    each,
    kinds,
)
from sinks._places import hashes_of_places

API_VERSION = "v1.3"

FIELDS = {
    **each(TEXT, "", "event event_id"),
    **kinds("", event_time=WHOLE, user=OBJECT, page=OBJECT, properties=OBJECT, lead=OBJECT, limited_data_use=FLAG),
    **each(DIGEST_OR_DIGESTS, "user.", "email phone external_id"),
    **each(DIGEST, "user.", "first_name last_name zip_code"),
    **each(TEXT, "user.", "city state country ttclid ttp ip user_agent locale"),
    **each(TEXT, "page.", "url referrer"),
    **each(TEXT, "lead.", "lead_id lead_event_source"),
    **kinds("properties.", value=NUMBER, contents=OBJECTS, content_ids=TEXTS, num_items=WHOLE, predicted_ltv=NUMBER),
    **each(TEXT, "properties.", "currency content_type order_id shop_id search_string query description"),
    **each(TEXT, "properties.", "delivery_category customer_type"),
    **each(TEXT, "properties.contents[].", "content_id content_type content_name content_category brand"),
    **kinds("properties.contents[].", price=NUMBER, quantity=WHOLE),
    "properties.*": SCALAR,
}

#: Canonical name -> standard event. Not page_view: TikTok's own tag template writes Pageview, its help pages PageView.
NAMES = {
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

#: Custom names that TikTok would count as one of its standard events.
RESERVED = {
    "AddBilling",
    "Browse",
    "Checkout",
    "ClickForm",
    "ClickInDownloadPage",
    "ClickToDownload",
    "CompletePayment",
    "Consult",
    "ConsultByPhone",
    "Registration",
    "StartCheckout",
    "SubmitForm",
    "ViewConsultationPage",
    "ViewDownloadPage",
    "ViewForm",
}
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,49}")
_NOT_A_NAME = "is not 1 to 50 letters, digits, _ and -, of which the first is a letter"

# Not `app`, which TikTok opens to some advertisers only, and which is about an app's id, device and install: our events
# carry none of them.
EventSource = Literal["web", "offline", "crm"]

EVENT_SOURCES: Mapping[Source, EventSource] = {
    "pixel": "web",
    "server": "web",
    "offline": "offline",
    "crm": "crm",
}

UserField = Literal["first_name", "last_name", "zip_code", "city", "state", "country"]

#: Identifier -> hash rule. A phone is hashed with its plus; without it, nobody is found.
_CONTACT = {"email": "plain", "phone": "e164"}

#: Properties that the sink fills.
_OURS = {"value", "currency", "contents", "content_ids", "content_type", "order_id", "search_string"}

_EventSetId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{5,64}$")]


class Settings(Destination):
    endpoint: str = "https://business-api.tiktok.com"
    """Base address of the Business API."""
    pixel_code: Annotated[str, Field(pattern=r"^[A-Z0-9]{5,40}$")]
    """Code of the web site's pixel, from Events Manager."""
    access_token: SecretRef
    """Token that Events Manager generates under Events API, or that of an app of the Business API."""
    offline_event_set_id: _EventSetId | None = None
    """Where offline events go. Without it they are not sent."""
    crm_event_set_id: _EventSetId | None = None
    """Where CRM events go. Without it they are not sent."""
    event_source: Mapping[Source, EventSource] = {}
    """Where conversions happened, by source. Default: `web` for pixel and server, `offline` for offline, `crm` for crm. Events
    of an app are not sent unless this says what they are, as TikTok's `app` needs facts that events do not carry."""
    page_url: str | None = None
    """Page address for web events that have none, such as orders that only the back end saw. TikTok requires one of a web
    event, so without this setting such events are not sent."""
    test_event_code: str | None = None
    """The code shown in Events Manager under Test Events. Events with the label `test` are sent with it, and no others; without it
    they are not sent. TikTok does not say whether such events count as well: test with a pixel that no campaign uses."""
    content_id: Literal["item_id", "variant"] = "item_id"
    """Which field of an item is its id in the catalogue. An item without it is left out."""
    content_type: Literal["product", "product_group"] = "product"
    """What these ids are ids of."""
    external_id: Literal["hash", "hash_lower", "omit"] = "hash"
    """How the shop's own id of a person is sent: hashed as it is, hashed in lower case, or not at all. The pixel must send it
    in the same form."""
    user_fields: tuple[UserField, ...] = ()
    """More about a person, hashed or as TikTok's partners send it in clear (`city`, `state`, `country`). TikTok's reference
    does not list these fields."""
    properties: tuple[str, ...] = ()
    """Names of custom fields to send along, such as `description` or `customer_type`. TikTok forbids personal data in them."""
    lead_event_source: str | None = None
    """Name of your CRM, sent with the lead id of CRM events."""
    limited_data_use: bool = False
    """Marks web events for Limited Data Use, which follows the privacy laws of US states. Other events cannot be marked, so
    they are not sent then."""
    max_age: Annotated[Seconds, between(3600, 28 * DAY)] = 7.0 * DAY
    """How old an event may be. TikTok publishes no limit; others keep to seven days."""

    @field_validator("events")
    @classmethod
    def _names(cls, value: dict[str, str | list[str] | Literal[False]]) -> Any:
        for named in value.values():
            for name in [named] if isinstance(named, str) else named or []:
                if not _NAME.fullmatch(name):
                    raise ValueError(f"{name} {_NOT_A_NAME}")
        return value

    @field_validator("page_url")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is not None and not _PAGE.fullmatch(value):
            raise ValueError("a full address that begins with https:// (or http://)")
        return value

    @field_validator("properties")
    @classmethod
    def _free(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if taken := _OURS.intersection(value):
            raise ValueError(f"{', '.join(sorted(taken))}: filled from the event; `map` can fill it otherwise")
        return value


class TikTok(Sink):
    kind: ClassVar[str] = "tiktok"
    title: ClassVar[str] = "TikTok Events API"
    purpose: ClassVar[Purpose] = "advertising"
    terms: ClassVar[str] = "https://ads.tiktok.com/help/article/tiktok-advertiser-tools-and-related-terms"
    flags: ClassVar[frozenset[Flag]] = frozenset({"opt_out"})
    names: ClassVar[Mapping[str, str]] = NAMES
    fields = FIELDS
    places = Places(
        "data",
        event_id="event_id",
        order_id="properties.order_id",
        name="event",
        time="event_time",
        value="properties.value",
        currency="properties.currency",
        counts_once_by="event_id",
    )
    match = (
        MatchKey("click id (ttclid)", ("user.ttclid",), ("ids.ttclid",), of_click=True),
        MatchKey("e-mail", ("user.email",), ("user.email",)),
        MatchKey("phone", ("user.phone",), ("user.phone",)),
        MatchKey("browser id (ttp)", ("user.ttp",), ("ids.ttp",)),
        MatchKey("external id", ("user.external_id",), ("user.user_id",)),
        MatchKey("IP address and user agent", ("user.ip+user.user_agent",), ("context.ip", "context.user_agent")),
    )
    counts_tests: ClassVar[bool] = True  # TikTok does not say that they do not
    Settings: ClassVar[type[Destination]] = Settings
    lists_events: ClassVar[bool] = True
    variants: ClassVar[Mapping[str, str]] = {
        **_CONTACT,
        "first_name": "joined",
        "last_name": "joined",
    }

    def __init__(self, settings: Any) -> None:
        super().__init__(settings)
        self.event_sources = {**EVENT_SOURCES, **settings.event_source}
        self.event_source_ids: Mapping[EventSource, str | None] = {
            "web": settings.pixel_code,
            "offline": settings.offline_event_set_id,
            "crm": settings.crm_event_set_id,
        }
        self.limits = Limits(
            events=1000,
            bytes=1_000_000,  # nothing is documented; other senders stay below 1 MB
            max_age=int(settings.max_age),
            dedup_window=2 * DAY,
            timeout=12.0,  # slow answers are common; longer would hold up a rebalance
            api_version=API_VERSION,
        )

    @classmethod
    def marks_tests(cls, settings: Any) -> bool:
        return bool(settings.test_event_code)

    def encode(self, event: Event, name: str) -> Payload | Skip:
        """Where it happened makes the group, and whether it is a test: a request has one source, one id and at most one code."""
        if not _NAME.fullmatch(name):
            return Skip(f"the event name {_NOT_A_NAME}")
        if name in RESERVED and event["event_name"] not in self.settings.events:
            return Skip("TikTok would count this custom name as a standard event; name it in `events` if it is one")
        if not event["event_id"].strip():
            return Skip("no event id")
        place = self._place(event)
        if isinstance(place, Skip):
            return place
        event_source, event_source_id = place
        user = _user(event, self.settings)
        lead = _lead(event, self.settings.lead_event_source) if event_source == "crm" else {}
        if not matchable(user) and not lead:
            return Skip("too little to match a person by")
        body: Json = {
            "event": name,
            "event_time": event["time"] // 1000,  # in seconds
            "event_id": event["event_id"],
            "user": user,
        }
        if event_source == "web":
            page = body["page"] = _page(event.get("context", {}), self.settings.page_url)
            if "url" not in page:
                return Skip("a web event without page address")
        if properties := _properties(event, self.settings):
            body["properties"] = properties
        if lead:
            body["lead"] = lead
        if self._limited(event):
            body["limited_data_use"] = True
        group = (event_source, event_source_id, "test") if is_test(event) else (event_source, event_source_id)
        # TikTok tells of repetitions under one pixel code, and of no others
        return Payload(event["event_id"], body, group, None if event_source == "web" else 0)

    def request(self, batch: Sequence[Payload], secrets: Secrets) -> Request:
        return self._request(batch, secrets, self.settings.test_event_code if "test" in batch[0].group[2:] else None)

    def test_request(self, batch: Sequence[Payload], secrets: Secrets) -> Request | None:
        code = self.settings.test_event_code
        return self._request(batch, secrets, code) if code else None

    def verdict(self, batch: Sequence[Payload], response: Response) -> list[Outcome]:
        answer = answered(response.body)
        outcome = _outcome(answer, response)
        if named := _named(answer, batch):
            good = Retry("another event failed the request", 0.0, _where(answer))
            bad = replace(outcome, whole=False) if isinstance(outcome, Rejected) else outcome
            return [bad if index in named else good for index in range(len(batch))]
        return one_for_all(batch, outcome)

    def _place(self, event: Event) -> tuple[EventSource, str] | Skip:
        event_source = self.event_sources.get(event["source"])
        if event_source is None:
            return Skip("an app event; `event_source` can say what it is")
        event_source_id = self.event_source_ids[event_source]
        if event_source_id is None:
            return Skip(f"{event_source} events need the setting {event_source}_event_set_id")
        if self._limited(event) and event_source != "web":
            return Skip(f"limited data use is not for {event_source} events")
        return event_source, event_source_id

    def _limited(self, event: Event) -> bool:
        return self.settings.limited_data_use or event.get("consent", {}).get("limited", False)

    def _request(self, batch: Sequence[Payload], secrets: Secrets, test_event_code: str | None) -> Request:
        event_source, event_source_id, *_ = batch[0].group
        body = {
            "event_source": event_source,
            "event_source_id": event_source_id,
            **({"test_event_code": test_event_code} if test_event_code else {}),
            "data": listed(batch),
        }
        return Request(
            "POST",
            f"{self.settings.endpoint}/open_api/{API_VERSION}/event/track/",  # there is nothing without the last slash
            {"Access-Token": secrets["access_token"], "Content-Type": "application/json"},
            orjson.dumps(body),
        )


# page: a whole address with a host that is a name or a number

_PAGE = re.compile(r"https?://[\w.-]+(:[0-9]{1,5})?([/?#]\S*)?", re.IGNORECASE)


def _page(context: Context, instead: str | None) -> Json:
    page: Json = {}
    if _PAGE.fullmatch(url := context.get("url", "")):
        page["url"] = url
    elif instead:
        page["url"] = instead
    if _PAGE.fullmatch(referrer := context.get("referrer", "")):
        page["referrer"] = referrer
    return page


# user

_OF_NOTHING = sha256("")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*")


def _user(event: Event, settings: Settings) -> Json:
    user, ids, context = event.get("user", {}), event.get("ids", {}), event.get("context", {})
    found: Json = _hashes(user, _CONTACT)
    if external_id := _external_id(user.get("user_id", ""), settings.external_id):
        found["external_id"] = external_id
    # from a cookie it can come percent-encoded; a click id itself has no percent sign
    if (click := unquote(ids.get("ttclid", ""))).strip():
        found["ttclid"] = click
    if (browser := ids.get("ttp", "")).strip():
        found["ttp"] = browser
    if ip := person_ip(context.get("ip", "")):
        found["ip"] = ip
    if (agent := context.get("user_agent", "")).strip():
        found["user_agent"] = agent
    if _LANGUAGE.fullmatch(language := context.get("language", "")):
        found["locale"] = language
    if settings.user_fields:
        more = {**_hashes(user, TikTok.variants), **_address(user)}
        found |= {name: text for name in settings.user_fields if (text := more.get(name, "")).strip()}
    return found


def _hashes(user: User, variants: Mapping[str, str]) -> dict[str, str]:
    # shops that hash in the browser also hash empty fields, and all of these people would be one
    found = hashed(user, variants)
    return {name: one for name, one in found.items() if one != _OF_NOTHING} if _OF_NOTHING in found.values() else found


def _external_id(user_id: str, form: str) -> str:
    text = user_id.strip()
    if not text or form == "omit":
        return ""
    if is_sha256(text):
        digest = text[:64].lower()  # without the mark that Meta's libraries append
        return "" if digest == _OF_NOTHING else digest
    return sha256(text.lower() if form == "hash_lower" else text)


def _address(user: User) -> dict[str, str]:
    """Postal code, city, state and country: letters and digits in lower case, and nothing else."""
    region = re.sub(r"^[A-Z]{2}-", "", user.get("region", ""))  # US-CA as ISO 3166-2 writes it
    return {
        **{name: digest for name, (digest,) in _zip_code(user).items()},
        "city": letters_only(user.get("city", ""), digits=True, spaces=False),
        "state": letters_only(region, digits=True, spaces=False),
        "country": letters_only(user.get("country", ""), digits=True, spaces=False),
    }


_zip_code = hashes_of_places(
    lambda _city, _region, postal_code, _country: {"zip_code": letters_only(postal_code, digits=True, spaces=False)},
    {"postal_code": "zip_code"},
)


def matchable(user: Json) -> bool:
    """Whether TikTok could find anybody by it: its ids, a hash of a person's, or browser and address together."""
    return not user.keys().isdisjoint({"email", "phone", "external_id", "ttclid", "ttp"}) or (
        "ip" in user and "user_agent" in user
    )


def _lead(event: Event, crm: str | None) -> Json:
    """The lead's id as it was exported from TikTok. A CRM's name alone says nothing."""
    lead_id = event.get("ids", {}).get("lead_id", "")
    if not lead_id.strip():
        return {}
    return {"lead_id": lead_id, "lead_event_source": crm} if crm and crm.strip() else {"lead_id": lead_id}


# properties


def _properties(event: Event, settings: Settings) -> Json:
    commerce = event.get("commerce", {})
    found = _chosen(event.get("custom", {}), settings.properties) if settings.properties else {}
    found |= _money(commerce)
    if (order := commerce.get("transaction_id", "")).strip():
        found["order_id"] = order
    if (searched := commerce.get("search_term", "")).strip():
        found["search_string"] = searched
    if contents := _contents(commerce, settings):
        found["contents"] = contents
    return found


def _money(commerce: Commerce) -> Json:
    """Both or neither: a value without a currency is worth nothing."""
    currency = currency_code(commerce.get("currency", ""))
    return {"value": commerce["value"], "currency": currency} if currency and "value" in commerce else {}


def _contents(commerce: Commerce, settings: Settings) -> list[Json]:
    """Items that have their id in the catalogue. Ids are texts: a number fails the request (40002)."""
    content_id = settings.content_id
    items = [item for item in commerce.get("items", ()) if item.get(content_id, "").strip()]
    return [_content(item, item[content_id], settings.content_type) for item in items if item.get("quantity", 1) > 0]


def _content(item: Item, content_id: str, content_type: str) -> Json:
    content: Json = {"content_id": content_id, "content_type": content_type, "quantity": item.get("quantity", 1)}
    if (name := item.get("item_name", "")).strip():
        content["content_name"] = name
    if (category := item.get("category", "")).strip():
        content["content_category"] = category
    if (brand := item.get("brand", "")).strip():
        content["brand"] = brand
    if "price" in item:
        content["price"] = item["price"]
    return content


def _chosen(custom: Mapping[str, Scalar], names: Iterable[str]) -> Json:
    fit = {name: _fit(name, custom[name]) for name in names if name in custom}
    return {name: value for name, value in fit.items() if value is not None and not is_blank(value)}


def _fit(name: str, value: Scalar) -> Scalar | None:
    """A custom field as TikTok wants the property of that name, or nothing: the wrong type fails the request."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if name in ("shop_id", "description", "delivery_category", "query"):
        return str(value) if is_number or isinstance(value, str) else None
    if name == "customer_type":
        return value if value in ("new", "returning") else None
    if name == "predicted_ltv":
        return value if is_number else None
    if name == "num_items":
        return value if isinstance(value, int) and is_number and value >= 0 else None
    return value


# The answer. TikTok's messages can quote values, so none of them is passed on: codes, and words of ours.

_BAD_PARAMETER = 40002
_THROTTLED = 40100
_ACCOUNT = {
    40001: "the token may not use this pixel or event set",
    40104: "the token is missing",
    40105: "the token is invalid, expired or revoked",
}


def _outcome(answer: Json, response: Response) -> Outcome:
    """Of all events alike. The code first, as one code comes with several statuses."""
    code, status, after, where = _code(answer), response.status, retry_after(response), _where(answer)
    if code in (0, 20001) and 200 <= status < 300:
        # what TikTok left out of a partial success it does not tell in a form that could be relied on
        return Delivered(
            "; ".join(filter(None, ["only a part was taken (20001)" if code else "", _request_id(answer)]))
        )
    if code == _THROTTLED:  # also comes with HTTP 401
        return Retry("throttled", after, where, throttled=True)
    if code == 40001 or 40100 < code < 40200:  # all of 401xx is about tokens and accounts; a halt loses nothing
        return Halt(_ACCOUNT.get(code, "the token or the account is refused"), where)
    if code == _BAD_PARAMETER:
        return Rejected("a parameter is invalid", whole=True, detail=where)
    if 40000 <= code < 41000:
        return Rejected("TikTok refuses the event", whole=True, detail=where)
    if 50000 <= code < 60000:
        # the code takes the place of a status 500, which it often comes without
        return Retry("trouble at TikTok", after, where, unclear=left_open(response))
    if status == 413:
        return Rejected("HTTP 413: the request is too large", whole=True, detail=where)
    if status == 429 or status >= 500 or not where:  # pages in HTML come in incidents, from TikTok or on the way
        said = f"HTTP {status}" if status == 429 or status >= 500 else f"HTTP {status} without a code"
        return Retry(said, after, where, throttled=status == 429, unclear=left_open(response))
    return Retry("not known to us", after, where, unclear=left_open(response))


#: A place in `data` as TikTok writes it: "data.0.user", "data[0]", "Batch.0.properties.contents.0.content_id".
_PLACE = re.compile(r"(?<![\w.\[])(?:data|batch)[.\[]([0-9]{1,4})(?![0-9])", re.IGNORECASE)


def _named(answer: Json, batch: Sequence[Payload]) -> set[int]:
    """The events that a message says have failed their request; none where that is in doubt.

    Messages are no contract, and may quote an event. So one that names a place outside the batch is not believed, nor is
    any as long as an event of the batch has such a text itself: it could get others rejected.
    """
    message = answer.get("message")
    if _code(answer) != _BAD_PARAMETER or not isinstance(message, str):
        return set()
    named = {int(index) for index in _PLACE.findall(message)}
    if any(index >= len(batch) for index in named):
        return set()
    if any(_PLACE.search(payload.json.decode()) for payload in batch):
        return set()
    return named


def _code(answer: Json) -> int:
    code = answer.get("code")
    return code if type(code) is int else -1


def _where(answer: Json) -> str:
    """For details; empty where there is no code."""
    code = _code(answer)
    return ", ".join(filter(None, [f"TikTok code {code}", _request_id(answer)])) if code >= 0 else ""


def _request_id(answer: Json) -> str:
    """The id by which TikTok's support knows the request: a time, and hex digits."""
    found = answer.get("request_id")
    return f"request_id {found}" if isinstance(found, str) and re.fullmatch(r"[0-9A-Fa-f]{20,40}", found) else ""
