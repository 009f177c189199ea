"""The two shapes an event has, and the one place that names their fields.

`Draft` is an event as people write it: our own JSON format, with clear e-mail and phone. It exists in memory only.
`Event` is what `app.normalize` makes of it and what every later stage, topic and sink speaks: canonical names, times in
milliseconds, personal data as hashes (a hash is still personal data). Both are plain dictionaries at run time, because
most records are only carried from topic to topic; the types are for readers, mypy and the published JSON schema
(docs/event.schema.json is generated from here).

A part or field that is not known is absent; `null` never appears in an `Event`.
"""

from typing import Annotated, Any, Literal, Required

from msgspec import Meta
from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

FORMAT_VERSION = 1

Source = Literal["pixel", "server", "app", "offline", "crm"]
Signal = Literal["granted", "denied"]
Json = dict[str, Any]
#: As large as every reader of JSON can take it.
Whole = Annotated[int, Meta(ge=-(2**53), le=2**53)]
Scalar = str | Whole | float | bool

#: Labels that only we set; a source's own are dropped.
OWN_LABELS = frozenset({"backfill", "several_people", "hot_id"})

_STRICT = ConfigDict(extra="forbid", coerce_numbers_to_str=True)

#: The e-commerce names of GA4 that we know; any other name is a custom event and passes unchanged.
CANONICAL_NAMES = (
    "page_view",
    "view_item",
    "view_item_list",
    "view_cart",
    "search",
    "add_to_wishlist",
    "add_to_cart",
    "remove_from_cart",
    "begin_checkout",
    "add_shipping_info",
    "add_payment_info",
    "purchase",
    "refund",
    "generate_lead",
    "sign_up",
    "login",
    "subscribe",
)


def _doc(text: str) -> Any:
    return Field(description=text)


class Item(TypedDict, total=False):
    __pydantic_config__ = _STRICT  # type: ignore[misc]

    item_id: Annotated[str, _doc("The product's id in the catalogue")]
    item_name: str
    brand: str
    category: str
    variant: str
    coupon: str
    quantity: Annotated[Whole, _doc("Pieces; absent means 1")]
    price: Annotated[float, _doc("Of one piece, in major units of the event's currency")]
    discount: Annotated[float, _doc("Of one piece, in major units")]


class Context(TypedDict, total=False):
    __pydantic_config__ = _STRICT  # type: ignore[misc]

    ip: Annotated[str, _doc("Of the person, never of a server; private addresses are dropped")]
    user_agent: Annotated[str, _doc("Of the person's browser or app")]
    url: Annotated[str, _doc("Of the page the event happened on")]
    referrer: str
    title: Annotated[str, _doc("Of the page")]
    language: Annotated[str, _doc("BCP 47")]


class Ids(TypedDict, total=False):
    """First-party cookies and click ids, byte for byte as the platform gave them."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]

    ga_client_id: Annotated[str, _doc("GA4 client id: the _ga cookie without its GA1.1. prefix")]
    ga_session_id: Annotated[str, _doc("GA4 session id: digits")]
    gclid: str
    gbraid: str
    wbraid: str
    fbp: str
    fbc: str
    fbclid: str
    ttclid: str
    ttp: str
    epik: str
    sc_click_id: str
    scid: str
    rdt_cid: str
    rdt_uuid: str
    li_fat_id: str
    msclkid: str
    twclid: str
    lead_id: str


class Commerce(TypedDict, total=False):
    __pydantic_config__ = _STRICT | ConfigDict(json_schema_extra={"dependentRequired": {"value": ["currency"]}})  # type: ignore[misc]

    value: Annotated[float, _doc("Major units; needs a currency")]
    currency: Annotated[str, _doc("ISO 4217, upper case")]
    tax: float
    shipping: float
    discount: float
    coupon: str
    transaction_id: Annotated[str, _doc("The order number")]
    refund_id: Annotated[str, _doc("Tells partial refunds of one order apart")]
    affiliation: str
    items: list[Item]
    search_term: str
    payment_type: str
    shipping_tier: str
    method: Annotated[str, _doc("How somebody signed up or logged in")]
    list_id: str
    list_name: str


#: Of Google consent mode: what every other way of saying it comes down to.
SIGNALS = ("ad_storage", "analytics_storage", "ad_user_data", "ad_personalization")


class _Consent(TypedDict, total=False):
    __pydantic_config__ = _STRICT  # type: ignore[misc]

    ad_storage: Signal
    analytics_storage: Signal
    ad_user_data: Signal
    ad_personalization: Signal
    tcf: Annotated[str, _doc("IAB TCF v2 string")]
    gpp: Annotated[str, _doc("IAB GPP string")]
    us_privacy: Annotated[str, _doc("IAB US privacy string, four characters")]
    gpc: Annotated[bool, _doc("Global Privacy Control was on")]
    categories: Annotated[dict[str, bool], _doc("A consent manager's own categories")]
    region: Annotated[str, _doc("Where the person was asked: ISO 3166, a country or a part of it, such as US-CA")]


#: What stands for a string, or for a region, where the copies of a conversion have different ones.
CONTRADICTORY = "contradictory"


class DraftConsent(_Consent, total=False):
    """What the person said, as the source reports it; absent means not told."""

    gcs: Annotated[str, _doc("Google consent mode as Google's tags send it: G111")]
    gcd: Annotated[str, _doc("The same, newer: 11r1r1r1r5")]


class Consent(_Consent, total=False):
    """What the person said; absent means not told. A sink finds all of it read into the four signals: app/consent.py."""

    limited: Annotated[bool, _doc("Only before a sink: the platform must be told that the person opted out")]


class DraftTag(TypedDict, total=False):
    """A platform's own tag in the browser: the third sender."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]

    ran: Annotated[bool, _doc("The tag was on the page and was called for this event")]
    event_id: Annotated[str, _doc("The id it was given")]
    blocked: Annotated[bool, _doc("The page calls it, but its script did not come")]


class Tag(DraftTag, total=False):
    """The same, and what only we know of it. Of gtag the key may be a measurement id."""

    relayed: Annotated[bool, _doc("Our collector handed on the tag's own report: the platform must not get it again")]


class DraftUser(TypedDict, total=False):
    """Clear text: in memory only."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]

    email: Annotated[str, _doc("Clear, or already a SHA-256 in hex")]
    phone: Annotated[str, _doc("E.164, or national together with `country`; or a SHA-256")]
    first_name: str
    last_name: str
    birth_date: Annotated[str, _doc("YYYY-MM-DD or YYYYMMDD")]
    gender: Annotated[str, _doc("f, m, n, female, male or non-binary")]
    street: str
    city: str
    region: str
    postal_code: str
    country: Annotated[str, _doc("ISO 3166-1 alpha-2")]
    user_id: Annotated[str | int, _doc("The shop's own id of the person")]


class Draft(TypedDict, total=False):
    """Our own JSON format: what the pixel and `format = "capistream"` sources send."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]

    event_name: Required[Annotated[str, Field(json_schema_extra={"minLength": 1, "maxLength": 100})]]
    event_id: Annotated[str | int, _doc("Needed, but for purchases and refunds with a `transaction_id`")]
    site: Annotated[str, _doc("The source's, or the key's: nothing else is taken")]
    source: Annotated[Source, _doc("A public write key is for `pixel` alone, a secret key for all others")]
    time: Annotated[str | int | float, _doc("ISO 8601 with zone, or Unix seconds, milliseconds or microseconds")]
    sent_at: Annotated[str | int | float, _doc("The sender's clock when it sent: corrects `time` of browsers")]
    user: DraftUser
    context: Context
    ids: Ids
    commerce: Commerce
    consent: DraftConsent
    tags: dict[str, DraftTag]
    labels: list[str]
    custom: dict[str, Any]
    pairs: Annotated[Literal[False], _doc("The id was made up for this call: no other copy carries it")]


#: One identifier in its hash variants: rule name -> SHA-256 in lower-case hex. Rules are in app/identity.py;
#: `given` is a hash that arrived as a hash, so nobody knows the rule.
Hashes = dict[str, str]


class User(TypedDict, total=False):
    __pydantic_config__ = _STRICT  # type: ignore[misc]

    email: Annotated[Hashes, _doc("Variants: plain, gmail, strict, given")]
    phone: Annotated[Hashes, _doc("Variants: e164, digits, given")]
    first_name: Annotated[Hashes, _doc("Variants: plain, letters, joined, given")]
    last_name: Annotated[Hashes, _doc("Variants: plain, letters, joined, given")]
    birth_date: Annotated[Hashes, _doc("Variants: ymd, given")]
    gender: Annotated[Hashes, _doc("Variants: letter, given")]
    street: Annotated[Hashes, _doc("Variants: plain, given")]
    city: str
    region: str
    postal_code: str
    places: Annotated[Hashes, _doc("City, region and postal code that arrived as hashes, by these names")]
    country: Annotated[str, _doc("ISO 3166-1 alpha-2, upper case")]
    user_id: Annotated[str, _doc("As given; a SHA-256 where it looked like an e-mail or phone")]


class Origin(TypedDict, total=False):
    """Where the copy was read: a record of the customer's Kafka, or a request to the collector."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]

    topic: str
    partition: Whole
    offset: Whole
    request: Annotated[str, _doc("The collector's id of the request")]
    headers: Annotated[
        dict[str, str], _doc("Of the record: CloudEvents attributes (ce_*) and trace context; at most 2,000 characters")
    ]


class Event(TypedDict, total=False):
    """One copy of a conversion, or after the merge the conversion itself."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]

    v: Required[Annotated[Literal[1], _doc("Version of this format")]]
    event_id: Required[Annotated[str, _doc("Byte for byte what the browser tag was given; platforms get this")]]
    event_name: Required[Annotated[str, _doc("Canonical (GA4) or custom")]]
    site: Required[str]
    source: Required[Source]
    time: Required[Annotated[Whole, _doc("When it happened, Unix milliseconds")]]
    received: Required[Annotated[Whole, _doc("Record time, Unix milliseconds: receipt, or the record's timestamp")]]
    origin: Origin
    pairs: Annotated[Literal[False], _doc("Present when the id was made up per call: it can meet no other copy")]
    revision: Annotated[Whole, _doc("0 or absent: first delivery")]
    apart: Annotated[str, _doc("Sets this conversion apart from others under the same id; event_id ends with it")]
    user: User
    context: Context
    ids: Ids
    commerce: Commerce
    consent: Consent
    tags: dict[str, Tag]
    labels: Annotated[list[str], _doc("bot, prefetch, internal, test; ours: backfill, several_people, hot_id")]
    custom: dict[str, Scalar]
    unusable: Annotated[
        dict[str, str],
        _doc(
            "Of a copy: fields that its source told of the person and that cannot be used, with the reason, never a value"
        ),
    ]
