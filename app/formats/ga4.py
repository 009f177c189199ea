"""The body of GA4's Measurement Protocol: one client, up to 25 events.

https://developers.google.com/analytics/devguides/collection/protocol/ga4/reference
GA4 has no event id. `params.event_id` is taken when there is one, else the transaction id for orders, else an id made from
the content and its timestamp, which survives a repetition of the same body but can meet no other copy.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

from app.events import Json
from app.formats._table import Ignored, Reader, Table, an_id, as_json, items, obj, order_id, put, rest, spread, text

EVENT_NAMES: dict[str, str] = {}  # our names are GA4's

FIELDS: Table = (
    ("event.timestamp_micros", "time"),
    ("timestamp_micros", "time"),
    ("client_id", "ids.ga_client_id"),
    ("event.params.session_id", "ids.ga_session_id"),
    ("user_id", "user.user_id"),
    ("user_data.sha256_email_address", "user.email"),
    ("user_data.sha256_phone_number", "user.phone"),
    ("ip_override", "context.ip"),
    ("user_agent", "context.user_agent"),
    ("device.language", "context.language"),
    ("user_data.address.sha256_first_name", "user.first_name"),
    ("user_data.address.sha256_last_name", "user.last_name"),
    ("user_data.address.sha256_street", "user.street"),
    ("user_data.address.city", "user.city"),
    ("user_data.address.region", "user.region"),
    ("user_data.address.postal_code", "user.postal_code"),
    ("user_data.address.country", "user.country"),
    ("user_location.city", "user.city"),
    ("user_location.country_id", "user.country"),
    ("event.params.event_id", "event_id"),
    ("event.params.page_location", "context.url"),
    ("event.params.page_referrer", "context.referrer"),
    ("event.params.page_title", "context.title"),
    ("event.params.language", "context.language"),
    ("event.params.value", "commerce.value"),
    ("event.params.currency", "commerce.currency"),
    ("event.params.tax", "commerce.tax"),
    ("event.params.shipping", "commerce.shipping"),
    ("event.params.coupon", "commerce.coupon"),
    ("event.params.transaction_id", "commerce.transaction_id"),
    ("event.params.affiliation", "commerce.affiliation"),
    ("event.params.search_term", "commerce.search_term"),
    ("event.params.payment_type", "commerce.payment_type"),
    ("event.params.shipping_tier", "commerce.shipping_tier"),
    ("event.params.method", "commerce.method"),
    ("event.params.item_list_id", "commerce.list_id"),
    ("event.params.item_list_name", "commerce.list_name"),
)

ITEM_FIELDS: Table = (
    ("item_id", "item_id"),
    ("item_name", "item_name"),
    ("item_brand", "brand"),
    ("item_category", "category"),
    ("item_variant", "variant"),
    ("coupon", "coupon"),
    ("quantity", "quantity"),
    ("price", "price"),
    ("discount", "discount"),
)

_USED = {theirs.rsplit(".", 1)[1] for theirs, _ in FIELDS if theirs.startswith("event.params.")} | {
    "items",
    "engagement_time_msec",
    "debug_mode",
}


_FIELDS, _ITEM_FIELDS = Reader(FIELDS), Reader(ITEM_FIELDS)


def split(body: Any) -> list[Any]:
    """One entry per event: the shared parts with that event under `event`."""
    if isinstance(body, Mapping) and isinstance(body.get("events"), list):
        shared = {k: v for k, v in body.items() if k != "events"}
        return spread(shared, [{"event": event} for event in body["events"]])
    return [{"event": body}]


def draft(one: Any) -> Json | Ignored:
    event = obj(one["event"], "events")
    params = obj(event.get("params") or {}, "params")
    result: Json = {"event_name": text(event, "name")}
    _FIELDS.apply(_first_of_lists(one), result)
    if params.get("items") is not None:
        put(result, "commerce.items", items(params["items"], _ITEM_FIELDS, "params.items"))
    consent = one.get("consent")
    if isinstance(consent, Mapping):
        for signal in ("ad_user_data", "ad_personalization"):
            if consent.get(signal) is not None:
                put(result, f"consent.{signal}", consent[signal])
    elif consent is not None:
        result["consent"] = consent  # unreadable, which is not the same as absent
    if not an_id(result.get("event_id")):
        _fall_back(one, result)
    custom = rest(params, _USED)
    if custom:
        result["custom"] = custom
    return result


def _first_of_lists(one: Mapping[str, Any]) -> Mapping[str, Any]:
    user_data = one.get("user_data")
    if not isinstance(user_data, Mapping):
        return one
    firsts = {k: next(iter(v), None) if isinstance(v, list) else v for k, v in user_data.items()}
    return {**one, "user_data": firsts}


def _fall_back(one: Mapping[str, Any], result: Json) -> None:
    if of_order := order_id(result["event_name"], result.get("commerce", {})):
        result["event_id"] = of_order
    elif "time" in result:
        content = as_json(one, orjson.OPT_SORT_KEYS)
        result["event_id"] = "ga4-" + hashlib.sha256(content).hexdigest()[:32]
        result["pairs"] = False
