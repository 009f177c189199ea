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
    conversion-leads-integration/payload-specification   what a CRM tells of a lead
Error codes: https://developers.facebook.com/docs/marketing-api/error-reference
and https://developers.facebook.com/docs/graph-api/overview/rate-limiting

Two things shape this file. One bad event fails its whole request, so whatever would fail it is checked here first. And
Meta throttles with HTTP 400, so the code in the answer decides, not the status.
"""

import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Annotated, Any, ClassVar, Literal

import orjson
from pydantic import Field, field_validator

from app.consent import Flag
from app.destination import Destination
from app.events import Commerce, Context, Event, Ids, Json, Scalar, Source
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
    is_blank,
    is_test,
    left_open,
    listed,
    one_for_all,
    person_ip,
    retry_after,
    whole_number,
)
from sinks._kinds import (
    DIGEST_OR_DIGESTS,
    FLAG,
    ID,
    IDS,
    NUMBER,
    OBJECT,
    OBJECTS,
    SCALAR,
    TEXT,
    TEXT_OR_TEXTS,
    TEXTS,
    WHOLE,
    each,
    kinds,
)
from sinks._places import hashes_of_places, us_state, us_zip

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


FIELDS = {
    **each(TEXT, "", "event_name event_id action_source event_source_url referrer_url"),
    **kinds("", event_time=WHOLE, opt_out=FLAG, user_data=OBJECT, custom_data=OBJECT),
    **kinds("data_processing_options", **{"": TEXTS, "_country": WHOLE, "_state": WHOLE}),
    **each(DIGEST_OR_DIGESTS, "user_data.", "em ph fn ln db ge ct st zp country"),
    **each(TEXT, "user_data.", "client_ip_address client_user_agent fbp fbc"),
    **kinds("user_data.", external_id=TEXT_OR_TEXTS, lead_id=WHOLE),
    **kinds("custom_data.", value=NUMBER, content_ids=IDS, contents=OBJECTS, num_items=WHOLE, predicted_ltv=NUMBER),
    **each(TEXT, "custom_data.", "currency content_type content_name content_category order_id search_string status"),
    **each(TEXT, "custom_data.", "delivery_category"),
    **kinds("custom_data.contents[].", id=ID, quantity=WHOLE, item_price=NUMBER),
    **each(TEXT, "custom_data.contents[].", "title description brand category delivery_category"),
    "custom_data.*": SCALAR,
}

#: Fields of custom_data that the sink fills.
_OURS = {"value", "currency", "contents", "content_ids", "content_type", "order_id", "search_string"}


#: Of a person: our identifier -> hash rule, Meta's field.
HASHED: HashedFields = {
    "email": ("plain", "em"),
    "phone": ("digits", "ph"),
    "first_name": ("plain", "fn"),
    "last_name": ("plain", "ln"),
    "birth_date": ("ymd", "db"),
    "gender": ("letter", "ge"),
}


class Settings(Destination):
    endpoint: str = "https://graph.facebook.com"
    """Base address of the Graph API."""
    dataset_id: Annotated[str, Field(pattern=r"^[0-9]{5,20}$")]
    """Id of the dataset; the id of a pixel is one."""
    access_token: SecretRef
    """Token of a system user who may use the dataset, or the one that Events Manager generates for it."""
    app_secret: SecretRef | None = None
    """Secret of the app that the token belongs to, where its settings say that calls must be proved with it."""
    api_version: Annotated[str, Field(pattern=r"^v[0-9]+\.[0-9]+$")] = "v26.0"
    """Version of the Graph API."""
    test_event_code: str | None = None
    """The code shown in Events Manager under Test events. Events with the label `test` are sent with it, and no others; without it
    they are not sent. Meta shows them under Test events, and still counts them."""
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
    """Names of custom fields to send along. Meta forbids personal data in them. A field that Meta takes as another type, such as
    a text in `num_items`, is left out."""
    lead_event_source: Annotated[str, Field(min_length=1)] | None = None
    """Name of the CRM, for Conversion Leads: events of the source crm with the lead id of a Lead Ad then say that they are
    such a lead's. Meta knows the stages of a lead by event names of your own: see `custom_events`."""
    limited_data_use: bool = False
    """Marks all events for Limited Data Use, which follows the privacy laws of US states."""
    limited_data_use_state: LduState | None = None
    """The state whose law applies. Without it Meta locates the person by IP address; an event without one is marked by
    the person's own region, and not sent where that is no such state."""

    @field_validator("custom_data")
    @classmethod
    def _free(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if taken := _OURS.intersection(value):
            raise ValueError(f"{', '.join(sorted(taken))}: filled from the event; `map` can fill it otherwise")
        return value


class Meta(Sink):
    kind: ClassVar[str] = "meta"
    title: ClassVar[str] = "Meta Conversions API"
    purpose: ClassVar[Purpose] = "advertising"
    terms: ClassVar[str] = "https://www.facebook.com/legal/terms/businesstools"
    flags: ClassVar[frozenset[Flag]] = frozenset({"opt_out"})
    names: ClassVar[Mapping[str, str]] = NAMES
    counts_tests: ClassVar[bool] = True
    fields = FIELDS
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
        MatchKey("click id (fbc)", ("user_data.fbc",), ("ids.fbc", "ids.fbclid"), of_click=True),
        MatchKey("e-mail", ("user_data.em",), ("user.email",)),
        MatchKey("phone", ("user_data.ph",), ("user.phone",)),
        MatchKey("browser id (fbp)", ("user_data.fbp",), ("ids.fbp",)),
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
        MatchKey("lead id", ("user_data.lead_id",), ("ids.lead_id",)),
    )
    Settings: ClassVar[type[Destination]] = Settings
    lists_events: ClassVar[bool] = True
    variants: ClassVar[Mapping[str, str]] = {name: rule for name, (rule, _) in HASHED.items()}

    def __init__(self, settings: Any) -> None:
        super().__init__(settings)
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

    @classmethod
    def marks_tests(cls, settings: Any) -> bool:
        return bool(settings.test_event_code)

    def encode(self, event: Event, name: str) -> Payload | Skip:
        """The code of a test is said of a whole request, so tests are a group of their own."""
        user_data = _user_data(event, self.settings.external_id)
        if not matchable(user_data):
            return Skip("too little to match a person by")
        custom_data = _custom_data(event, name, self.settings)
        if name == "Purchase" and "value" not in custom_data:
            return Skip("a purchase without a value and its currency")
        pages = _pages(event.get("context", {}))
        action_source = self._action_source(event, pages)
        if action_source == "skip":
            return Skip("a website event without page address or user agent")
        body: Json = {
            "event_name": name,
            "event_time": event["time"] // 1000,  # in seconds; milliseconds would fail the request
            "event_id": event["event_id"],
            "action_source": action_source,
            **pages,
            "user_data": user_data,
        }
        if custom_data:
            body["custom_data"] = custom_data
        consent = event.get("consent", {})
        if consent.get("ad_personalization") == "denied":
            # attribution yes, personalised delivery no: the nearest there is to Google's signal
            body["opt_out"] = True
        if self.settings.limited_data_use or consent.get("limited"):
            privacy = self._limited_data_use(event, user_data)
            if isinstance(privacy, Skip):
                return privacy
            body |= privacy
        return Payload(event["event_id"], body, ("test",) if is_test(event) else ())

    def request(self, batch: Sequence[Payload], secrets: Secrets) -> Request:
        return self._request(batch, secrets, self.settings.test_event_code if "test" in batch[0].group else None)

    def _request(self, batch: Sequence[Payload], secrets: Secrets, test_event_code: str | None) -> Request:
        body: Json = {"data": listed(batch)}
        if test_event_code:
            body["test_event_code"] = test_event_code
        if self.settings.app_secret:
            proof = hmac.digest(secrets["app_secret"].encode(), secrets["access_token"].encode(), "sha256")
            body["appsecret_proof"] = proof.hex()
        return Request(
            "POST",
            f"{self.settings.endpoint}/{self.settings.api_version}/{self.settings.dataset_id}/events",
            {"Authorization": f"Bearer {secrets['access_token']}", "Content-Type": "application/json"},
            orjson.dumps(body),
        )

    def verdict(self, batch: Sequence[Payload], response: Response) -> list[Outcome]:
        return one_for_all(batch, _verdict(len(batch), response))

    def usage(self, response: Response) -> float:
        """The highest of Meta's percentages: calls, CPU time and time, of the app, the ad account and each business."""
        whole = [answered(response.headers.get(name, "").encode()) for name in ("X-App-Usage", "X-Ad-Account-Usage")]
        percents = [_percent(row.get(key)) for row in (*whole, *_usage_rows(response)) for key in _USED]
        return min(max(percents) / 100, 1.0)

    def test_request(self, batch: Sequence[Payload], secrets: Secrets) -> Request | None:
        """Shown under Test events, and counted like any other; without a code it would only be counted."""
        code = self.settings.test_event_code
        return self._request(batch, secrets, code) if code else None

    def _action_source(self, event: Event, pages: Json) -> str:
        action_source: str = self.action_sources[event["source"]]
        has_page = "event_source_url" in pages and event.get("context", {}).get("user_agent", "").strip()
        if action_source == "website" and not has_page:
            action_source = self.settings.without_page
        return action_source

    def _limited_data_use(self, event: Event, user_data: Json) -> Json | Skip:
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


_is_page = re.compile("https?://[^/]").match


def _pages(context: Context) -> Json:
    """Addresses count with their scheme only."""
    pages: Json = {}
    if _is_page(url := context.get("url", "")):
        pages["event_source_url"] = url
    if _is_page(referrer := context.get("referrer", "")):
        pages["referrer_url"] = referrer
    return pages


# user_data

_NEITHER = [sha256("n")]  # a gender that Meta has no letter for


def _user_data(event: Event, external_id: str) -> Json:
    user, ids, context = event.get("user", {}), event.get("ids", {}), event.get("context", {})
    found: Json = hashed_lists(user, HASHED)
    if found.get("ge") == _NEITHER:
        del found["ge"]
    found |= _places(user)
    if external := _external_id(user.get("user_id", ""), external_id):
        found["external_id"] = [external]
    if ip := person_ip(context.get("ip", "")):
        found["client_ip_address"] = ip
    if agent := context.get("user_agent", "").strip():
        found["client_user_agent"] = agent
    if (fbp := ids.get("fbp", "")).strip():
        found["fbp"] = fbp
    if (fbc := _fbc(ids, context.get("url", ""), event["time"])).strip():
        found["fbc"] = fbc
    if lead_id := _lead_id(ids.get("lead_id", "")):
        found["lead_id"] = lead_id
    return found


def _written(city: str, region: str, postal_code: str, country: str) -> dict[str, str]:
    """City, state, postal code and country as Meta writes them; empty where they cannot be written so."""
    country = country.lower()
    return {
        "ct": letters_only(city, digits=False, spaces=False),
        "st": us_state(region) if country == "us" else letters_only(region, digits=True, spaces=False),
        "zp": us_zip(postal_code) if country == "us" else _NO_PART_OF_A_CODE.sub("", postal_code).lower(),
        "country": country if _COUNTRY.fullmatch(country) else "",
    }


_COUNTRY = re.compile("[a-z]{2}")
_NO_PART_OF_A_CODE = re.compile(r"[\s-]")
_places = hashes_of_places(_written, {"city": "ct", "region": "st", "postal_code": "zp"})


def _external_id(user_id: str, form: str) -> str:
    if form == "omit":
        return ""
    if form == "raw":
        return user_id
    # as github.com/facebook/capi-param-builder does it; what arrives hashed stays
    text = "".join(user_id.split()).lower()
    return text if not text or is_sha256(text) else sha256(text)


def _fbc(ids: Ids, url: str, time: int) -> str:
    """Give the cookie, else what it would be: fb, index 1 as of a server, milliseconds, the click id as it came.

    Another click id in the page's own address is newer than the cookie, and takes its place.
    """
    fbc, fbclid = ids.get("fbc", ""), ids.get("fbclid", "")
    clicked = fbclid and f"fbclid={fbclid}" in url and fbclid not in fbc
    return f"fb.1.{time}.{fbclid}" if clicked or (fbclid and not fbc) else fbc


def _lead_id(text: str) -> int | None:
    """Ids of Lead Ads are integers; others may use the same name."""
    return int(text) if text and re.fullmatch(r"[0-9]{5,18}", text) else None


#: An event whose identifiers all lie in one of these fails with 100/2804050.
_TOO_LITTLE = (
    {"ct", "country", "st", "zp", "ge", "client_user_agent"},
    {"db", "client_user_agent"},
    {"fn", "ge"},
    {"ln", "ge"},
)


_TOGETHER_TOO_LITTLE = frozenset[str]().union(*_TOO_LITTLE)


def matchable(user_data: Json) -> bool:
    if not user_data.keys() <= _TOGETHER_TOO_LITTLE:  # most often, and quickly seen
        return True
    return not any(user_data.keys() <= too_little for too_little in _TOO_LITTLE)


# custom_data


def _custom_data(event: Event, name: str, settings: Settings) -> Json:
    commerce = event.get("commerce", {})
    found = _chosen(event.get("custom", {}), settings.custom_data) if settings.custom_data else {}
    found |= _money(commerce)
    if contents := _contents(commerce, settings.content_id):
        found["content_type"] = settings.content_type
        found["content_ids"] = list(dict.fromkeys([content["id"] for content in contents]))
        found["contents"] = contents
        if name == "InitiateCheckout":
            found["num_items"] = sum(content["quantity"] for content in contents)
    if (order := commerce.get("transaction_id", "")).strip():
        found["order_id"] = order
    if (searched := commerce.get("search_term", "")).strip():
        found["search_string"] = searched
    if settings.lead_event_source:
        found |= _lead(event, settings.lead_event_source)
    return found


def _chosen(custom: Mapping[str, Scalar], names: Iterable[str]) -> Json:
    return {name: custom[name] for name in names if name in custom and _fits(name, custom[name])}


def _fits(key: str, value: Scalar) -> bool:
    return not is_blank(value) and FIELDS.get(f"custom_data.{key}", SCALAR).fits(value)


def _lead(event: Event, crm: str) -> Json:
    """What makes an event one of Conversion Leads, beside the lead id in user_data."""
    if event["source"] != "crm" or not _lead_id(event.get("ids", {}).get("lead_id", "")):
        return {}
    return {"event_source": "crm", **({"lead_event_source": crm} if crm.strip() else {})}


def _money(commerce: Commerce) -> Json:
    """Both or neither: a value without a currency fails the request (100/2804023)."""
    currency = currency_code(commerce.get("currency", ""))
    return {"value": commerce["value"], "currency": currency} if currency and "value" in commerce else {}


def _contents(commerce: Commerce, content_id: Literal["item_id", "variant"]) -> list[Json]:
    """Items that have an id: one without fails the request (100/2804008)."""
    contents: list[Json] = []
    for item in commerce.get("items", ()):
        item_id, quantity = item.get(content_id, ""), item.get("quantity", 1)
        if item_id.strip() and quantity > 0:
            content: Json = {"id": item_id, "quantity": quantity}
            if "price" in item:
                content["item_price"] = item["price"]
            contents.append(content)
    return contents


# The answer. Texts of Meta are localised and can quote values, so none of them is passed on: codes, and words of ours.

_TROUBLE = {1: "unknown trouble", 2: "temporary trouble", 5000: "temporary trouble", 21009: "temporary trouble"}
_THROTTLED = {4, 17, 32, 341, 368, 613, *range(80000, 80015)}
_ACCOUNT = {
    3: "the app may not make this call",
    10: "the token lacks the permission",
    102: "the token is invalid or has expired",
    104: "the app demands an appsecret_proof, or app_secret is not its secret",
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
    answer = answered(response.body)
    error = answer.get("error")
    if response.status == 429 or response.status >= 500:
        unclear = left_open(response) and not _refused(error)
        return Retry(
            f"HTTP {response.status}", retry_after(response), throttled=response.status == 429, unclear=unclear
        )
    if isinstance(error, dict):
        return _failure(error, response)
    if response.status == 413:
        return Rejected("HTTP 413: the request is too large", whole=True)
    received = answer.get("events_received")
    if response.status != 200 or type(received) is not int:  # not `true` either, which counts as 1
        # pages in HTML come in incidents, from Meta's front or from a proxy on the way
        reason = f"HTTP {response.status} without a receipt"
        return Retry(reason, retry_after(response), unclear=left_open(response))
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


def _refused(error: Any) -> bool:
    """Is it an error of Meta's for which nothing is taken? Of trouble at Meta nobody knows how far the events came."""
    code = whole_number(error.get("code")) if isinstance(error, dict) else 0
    return code == 100 or code in _THROTTLED or code in _ACCOUNT


def _failure(error: Json, response: Response) -> Outcome:
    code, subcode = whole_number(error.get("code")), whole_number(error.get("error_subcode"))
    trace = _trace(error)
    where = f"Meta error {code}" + (f"/{subcode}" if subcode else "") + (f", fbtrace_id {trace}" if trace else "")
    after = retry_after(response)
    if code in _THROTTLED:
        return Retry("throttled", after if after is not None else _regain(response), where, throttled=True)
    if code in _TROUBLE or error.get("is_transient") is True:
        return Retry(_TROUBLE.get(code, "temporary trouble"), after, where, unclear=left_open(response))
    if (code, subcode) == _NO_DATASET:
        return Halt("there is no such dataset, or the token may not use it", detail=where)
    if code in _ACCOUNT:
        return Halt(_ACCOUNT[code], where)
    if code == 100:
        return Rejected(_BAD_EVENT.get(subcode, "a parameter is invalid"), whole=True, detail=where)
    if response.status in (401, 403):
        return Halt(f"HTTP {response.status}", where)
    # What is wrong with an event always came as 100. The rest is about Meta or the account, and retrying loses nothing
    return Retry("not known to us", after, where, unclear=left_open(response))


def _trace(answer: Json) -> str:
    """Find the id by which Meta's support knows the request."""
    trace = answer.get("fbtrace_id")
    return trace if isinstance(trace, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,40}", trace) else ""


_USED = ("call_count", "total_cputime", "total_time", "acc_id_util_pct")


def _usage_rows(response: Response) -> list[Json]:
    """{"<business>": [{"call_count": <percent>, ..., "estimated_time_to_regain_access": <minutes>}, ...], ...}."""
    usage = answered(response.headers.get("X-Business-Use-Case-Usage", "").encode())
    return [row for rows in usage.values() if isinstance(rows, list) for row in rows if isinstance(row, dict)]


def _percent(value: Any) -> float:
    return max(0.0, float(value)) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


def _regain(response: Response) -> float | None:
    """Seconds until calls are allowed again."""
    minutes = max(
        (whole_number(row.get("estimated_time_to_regain_access")) for row in _usage_rows(response)), default=0
    )
    return minutes * 60.0 if minutes > 0 else None
