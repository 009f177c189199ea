"""Google Ads conversions, through the Data Manager API (v1): how conversions are imported since 2026-06-15.

The older interface, `uploadClickConversions` of the Google Ads API, takes only accounts that have used it before that
day; it is in upload_clicks.py, and `api = "upload_clicks"` turns it on.

Reference, below https://developers.google.com/data-manager/api/:
    devguides/events/send-events                          events, their identifiers, transaction ids
    devguides/events/google-ads/conversion-adjustments    the same transaction id again, with another value
    devguides/events/google-ads/offline/upgrade           what is where, for those who know the older interface
Click ids: https://support.google.com/google-ads/answer/10417364. The rest is in sinks/_data_manager.py.

Google Ads has no event names: a conversion action is the event, so `events` maps each name to the numeric id of an action
(`ctId` in the address of its page in Google Ads), or several. There are two kinds of them, and two ways to be counted twice:

    conversions = "import"      an action of the kind "import from clicks", which only this sender reports to. Where gtag
                                reports the same sales to an action of its own, exactly one of the two may be primary: the
                                bidding learns from primary actions, and from two of them it learns every sale twice.
    conversions = "with_tag"    the tag's own action. gtag must give the same transaction id, byte for byte: the order number
                                of a purchase, else our event id. Google joins the two; an id that the tag never told is a
                                conversion of its own. That action stays primary, and there is no other.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from app.consent import Flag
from app.destination import Destination, Names
from app.events import Commerce, Event, Ids, Json, Source
from app.fields import Seconds, SecretRef, between
from sinks import _data_manager as data_manager
from sinks._base import (
    DAY,
    Followed,
    Limits,
    MatchKey,
    Outcome,
    Payload,
    Purpose,
    Request,
    Response,
    Secrets,
    Sink,
    Skip,
)
from sinks.google_ads import upload_clicks

_ACTION = re.compile("[1-9][0-9]{0,19}")
_DIGITS = re.compile("[0-9]+")
_LONGEST_ID = 512

SOURCES: Mapping[Source, str] = {
    "pixel": "WEB",
    "server": "WEB",
    "app": "APP",
    "offline": "IN_STORE",
    "crm": "OTHER",
}

_AS_SHOWN = r"^([0-9]{3})-?([0-9]{3})-?([0-9]{4})$"


def _number(value: Any) -> Any:
    """The number that Google Ads shows as 123-456-7890."""
    found = re.fullmatch(_AS_SHOWN, value) if isinstance(value, str) else None
    return "".join(found.groups()) if found else value


Customer = Annotated[
    str,
    Field(pattern=r"^[0-9]{10}$"),
    BeforeValidator(_number, json_schema_input_type=Annotated[str, Field(pattern=_AS_SHOWN)]),
]


class Settings(Destination):
    endpoint: str = data_manager.ENDPOINT
    """Base address of the API; with `upload_clicks` the default is https://googleads.googleapis.com."""
    customer_id: Customer
    """Number of the Google Ads account that owns the conversion actions, ten digits, with dashes or without: no manager account,
    and no account below it."""
    login_customer_id: Customer | None = None
    """Number of the manager account through which the credential may use that account, where it does so."""
    credentials: SecretRef
    """JSON of a service account's key, or of a user (`authorized_user`, with a refresh token). The service account's e-mail
    address, or the user, must be a user of the Google Ads account or of its manager."""
    quota_project: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9:.-]{1,80}$")] | None = None
    """Cloud project that the requests are counted for, for credentials of a user that were made elsewhere."""
    events: dict[str, Names] = {}
    """Event name to the numeric id of a conversion action, or a list of them: the event is sent to each. Other events are not
    sent. False switches an event off."""
    custom_events: bool = False
    """Not possible here: Google Ads has no event names, and every event needs its conversion action in `events`."""
    conversions: Literal["import", "with_tag"] = "import"
    """`import`: the conversion actions are of the kind import from clicks, and only this sender reports to them. If gtag reports
    the same conversions to actions of its own, one of the two must be secondary. `with_tag`: they are the tag's own actions, gtag
    gives the same transaction id, and Google makes one conversion of the two; that action stays primary."""
    transaction_id_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{0,20}$")] = "o_"
    """Put before ids that are digits only, which Google has been seen to refuse; of imports only, as gtag's ids must stay what they
    are. An empty text puts nothing there. A conversion whose id changes counts again: do not change it later."""
    action_source: Mapping[Source, Literal["WEB", "APP", "IN_STORE", "PHONE", "MESSAGE", "OTHER"]] = {}
    """Where conversions happened, by source. Default: WEB for pixel and server, APP for app, IN_STORE for offline, OTHER for crm.
    The tag's conversion actions take WEB only."""
    user_data: bool = True
    """Send hashed e-mail, phone and name with country and postal code, unless the person denied ad_user_data. The customer data
    terms must be accepted in the account, and enhanced conversions for leads be on."""
    device: bool = False
    """Send the IP address and user agent of the conversion."""
    braids: bool = True
    """Send gbraid and wbraid, the click ids of iOS, where there is no gclid. Turn it off for conversion actions that count one
    conversion per click: these do not take them."""
    cart: bool = True
    """Send the items of a purchase, for reports by product."""
    item_id: Literal["item_id", "variant"] = "item_id"
    """Which field of an item is its id in Merchant Center. An item without it is left out."""
    merchant_id: Annotated[str, Field(pattern=r"^[0-9]{1,20}$")] | None = None
    """Number of the Merchant Center account that has the items."""
    feed_label: Annotated[str, Field(pattern=r"^[A-Z0-9_-]{1,20}$")] | None = None
    """Label of the items' feed, often the country: DE."""
    feed_language: Annotated[str, Field(pattern=r"^[a-z]{2}$")] | None = None
    """Language of the items' feed, ISO 639-1: de."""
    max_age: Annotated[Seconds, between(3600, 365 * DAY)] = 90.0 * DAY
    """Older events are not sent. Google does not tell its limit; no click counts for longer than 90 days."""
    status_after: Annotated[Seconds, between(1, DAY)] = 1800.0
    """Google queues what it takes. This much later it is asked what became of it, and again while it does not know."""
    api: Literal["data_manager", "upload_clicks"] = "data_manager"
    """`upload_clicks` is the older Google Ads API, for accounts that used it before 2026-06-15; others are refused there. It cannot
    restate a value, and takes no names and addresses."""
    api_version: Annotated[str, Field(pattern=r"^v[0-9]+$")] = "v26"
    """Version of the older Google Ads API."""
    developer_token: SecretRef | None = None
    """Of the older Google Ads API."""

    @model_validator(mode="before")
    @classmethod
    def _follow_from_others(cls, given: Any) -> Any:
        """What another setting tells already: the address from the API, the browser's tag from the kind of conversions."""
        if not isinstance(given, dict):
            return given
        given = dict(given)
        if given.get("api") == "upload_clicks":
            given.setdefault("endpoint", upload_clicks.ENDPOINT)
        given.setdefault("browser_tag", "same_id" if given.get("conversions") == "with_tag" else "none")
        return given

    @field_validator("events")
    @classmethod
    def _actions(cls, value: dict[str, Names]) -> dict[str, Names]:
        for named in value.values():
            for name in [named] if isinstance(named, str) else named or []:
                if not _ACTION.fullmatch(name):
                    raise ValueError(
                        "a conversion action is given by its number, in quotes; a label (AW-1/x) is of the tag"
                    )
        return value

    @field_validator("custom_events")
    @classmethod
    def _no_custom_events(cls, value: bool) -> bool:
        if value:
            raise ValueError("Google Ads has no event names: give each event its conversion action in `events`")
        return value

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if not any(self.events.values()):
            raise ValueError('events: name a conversion action for at least one event: { purchase = "1234567890" }')
        if self.api == "upload_clicks" and self.conversions == "with_tag":
            raise ValueError('conversions: the older API only imports; "with_tag" needs the Data Manager API')
        return self


_CLICKS: tuple[Literal["gclid", "gbraid", "wbraid"], ...] = ("gclid", "gbraid", "wbraid")
_CLICK = MatchKey(
    "click id (gclid, gbraid or wbraid)",
    tuple(f"{where}{name}" for name in _CLICKS for where in ("adIdentifiers.", "")),
    tuple(f"ids.{name}" for name in _CLICKS),
    of_click=True,
)


class GoogleAds(Sink):
    kind: ClassVar[str] = "google_ads"
    title: ClassVar[str] = "Google Ads"
    purpose: ClassVar[Purpose] = "advertising"
    terms: ClassVar[str] = "https://support.google.com/adspolicy/answer/7475709"
    vendor = 755  # Google Advertising Products
    flags: ClassVar[frozenset[Flag]] = frozenset({"opt_out", "signals"})
    Settings: ClassVar[type[Destination]] = Settings
    lists_events: ClassVar[bool] = True
    variants: ClassVar[Mapping[str, str]] = data_manager.VARIANTS
    # The same transaction id with another value replaces the value, in the order in which Google gets them: no event says
    # when it was changed, so there is no `lastUpdatedTimestamp`.
    takes_revisions: ClassVar[bool] = True

    def __init__(self, settings: Any) -> None:
        super().__init__(settings)
        self.older = settings.api == "upload_clicks"
        self.fields = upload_clicks.FIELDS if self.older else data_manager.FIELDS
        self.places = upload_clicks.PLACES if self.older else data_manager.places("destinations.productDestinationId")
        self.match = (_CLICK, *(upload_clicks.MATCH if self.older else data_manager.MATCH))
        self.scopes = (upload_clicks.SCOPE if self.older else data_manager.SCOPE,)
        self.sources = {**SOURCES, **settings.action_source}
        self.limits = Limits(
            events=upload_clicks.MOST_EVENTS if self.older else data_manager.MOST_EVENTS,
            bytes=data_manager.MOST_BYTES,
            max_age=int(settings.max_age),
            dedup_window=int(settings.max_age),  # an id counts once, and nothing older is sent
            timeout=data_manager.TIMEOUT,
            follow_up_after=settings.status_after,
            rate=None if self.older else data_manager.RATE,
            api_version=settings.api_version if self.older else "v1",
        )

    def encode(self, event: Event, name: str) -> Payload | Skip:
        """`name` is the conversion action, for which a request is made of its own."""
        if not _ACTION.fullmatch(name):
            return Skip("the name is not the number of a conversion action")
        source = self.sources[event["source"]]
        if self.settings.conversions == "with_tag" and source != "WEB":
            return Skip("it did not happen on the web, and the tag's conversion action takes nothing else")
        if self.older and event.get("revision"):
            return Skip("this API cannot restate a conversion")
        number = self._transaction_id(event)
        if not number.strip() or len(number) > _LONGEST_ID:
            return Skip(f"no transaction id, or one of more than {_LONGEST_ID} characters")
        happened = data_manager.timestamp(event["time"])
        if not happened:
            return Skip("the time is no date")
        clicks = _clicks(event.get("ids", {}), braids=self.settings.braids)
        people = self._identifiers(event)
        if not clicks and not people:
            return Skip("neither a click id nor anything to match a person by")
        if self.older:
            older = upload_clicks.conversion(event, name, number, happened, clicks, people, self.settings)
            return Payload(event["event_id"], older)
        commerce, consent = event.get("commerce", {}), event.get("consent", {})
        body: Json = {
            "transactionId": number,
            "eventTimestamp": happened,
            "eventSource": source,
            **data_manager.money(commerce),
        }
        if clicks:
            body["adIdentifiers"] = clicks
        if people:
            body["userData"] = {"userIdentifiers": people}
        if said := data_manager.consent(consent):
            body["consent"] = said
        if self.settings.cart and (cart := _cart(commerce, self.settings)):
            body["cartData"] = cart
        if device := self._device(event):
            body["eventDeviceInfo"] = device
        return Payload(event["event_id"], body, (name,))

    def request(self, batch: Sequence[Payload], secrets: Secrets) -> Request:
        return self._request(batch, secrets)

    def test_request(self, batch: Sequence[Payload], secrets: Secrets) -> Request:
        return self._request(batch, secrets, validate_only=True)

    def verdict(self, batch: Sequence[Payload], response: Response) -> list[Outcome]:
        return upload_clicks.verdict(batch, response) if self.older else data_manager.verdict(batch, response)

    def follow_up(self, reference: str, secrets: Secrets) -> Request:
        return data_manager.follow_up(self.settings.endpoint, self._headers(secrets), reference)

    def followed(self, response: Response) -> Followed | None:
        return data_manager.followed(response)

    def _request(self, batch: Sequence[Payload], secrets: Secrets, *, validate_only: bool = False) -> Request:
        if self.older:
            return upload_clicks.request(batch, secrets, self.settings, validate_only=validate_only)
        (action,) = batch[0].group
        manager = self.settings.login_customer_id
        destination = {
            "operatingAccount": data_manager.account("GOOGLE_ADS", self.settings.customer_id),
            **({"loginAccount": data_manager.account("GOOGLE_ADS", manager)} if manager else {}),
            "productDestinationId": action,
        }
        return data_manager.ingest(
            self.settings.endpoint, self._headers(secrets), destination, batch, validate_only=validate_only
        )

    def _headers(self, secrets: Secrets) -> dict[str, str]:
        return data_manager.headers(secrets["credentials"], self.settings.quota_project)

    def _transaction_id(self, event: Event) -> str:
        """The order number of a purchase, else the event id, which tells apart what shares an order number."""
        number = event.get("commerce", {}).get("transaction_id", "")
        if event["event_name"] != "purchase" or "apart" in event or not number.strip():
            number = event["event_id"]
        if self.settings.conversions == "import" and _DIGITS.fullmatch(number):
            return f"{self.settings.transaction_id_prefix}{number}"
        return number

    def _may_tell_of_person(self, event: Event) -> bool:
        """Where the settings need another consent, a denial of this one leaves the click alone."""
        return event.get("consent", {}).get("ad_user_data") != "denied"

    def _identifiers(self, event: Event) -> list[Json]:
        if not self.settings.user_data or not self._may_tell_of_person(event):
            return []
        make = upload_clicks.user_identifiers if self.older else data_manager.user_identifiers
        return make(event.get("user", {}))

    def _device(self, event: Event) -> Json:
        if not self.settings.device or not self._may_tell_of_person(event):
            return {}
        return data_manager.device(event.get("context", {}))


def _clicks(ids: Ids, *, braids: bool) -> Json:
    """One click id: gclid where there is one. Google takes no two, and none has white space."""
    for name in _CLICKS if braids else _CLICKS[:1]:
        click = ids.get(name, "")
        if _NO_SPACE.fullmatch(click):
            return {name: click}
    return {}


_NO_SPACE = re.compile(r"\S+")


def _cart(commerce: Commerce, settings: Settings) -> Json:
    products = data_manager.products(commerce, settings.item_id, "merchantProductId")
    if not products:
        return {}
    told = {
        "merchantId": settings.merchant_id,
        "merchantFeedLabel": settings.feed_label,
        "merchantFeedLanguageCode": settings.feed_language,
        "transactionDiscount": commerce.get("discount"),
        "couponCodes": [coupon] if (coupon := commerce.get("coupon", "").strip()) else None,
    }
    return {name: value for name, value in told.items() if value is not None} | {"items": products}
