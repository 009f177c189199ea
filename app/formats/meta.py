"""Meta's server event JSON: one event, or the body of a Conversions API request with `data`.

https://developers.facebook.com/docs/marketing-api/conversions-api/parameters
"""

from collections.abc import Mapping
from typing import Any

from app.events import Json
from app.formats._table import Ignored, Reader, Table, an_id, at, items, obj, put, rest, text

EVENT_NAMES = {
    "PageView": "page_view",
    "ViewContent": "view_item",
    "Search": "search",
    "AddToCart": "add_to_cart",
    "AddToWishlist": "add_to_wishlist",
    "InitiateCheckout": "begin_checkout",
    "AddPaymentInfo": "add_payment_info",
    "Purchase": "purchase",
    "Lead": "generate_lead",
    "CompleteRegistration": "sign_up",
    "Subscribe": "subscribe",
}

#: Who tells, by where the sale was made; a website's back end is a server.
SOURCES = {"website": "server", "app": "app", "physical_store": "offline", "system_generated": "crm"}

FIELDS: Table = (
    ("event_id", "event_id"),
    ("event_time", "time"),
    ("event_source_url", "context.url"),
    ("referrer_url", "context.referrer"),
    ("user_data.client_ip_address", "context.ip"),
    ("user_data.client_user_agent", "context.user_agent"),
    ("user_data.fbp", "ids.fbp"),
    ("user_data.fbc", "ids.fbc"),
    ("user_data.lead_id", "ids.lead_id"),
    ("custom_data.value", "commerce.value"),
    ("custom_data.currency", "commerce.currency"),
    ("custom_data.order_id", "commerce.transaction_id"),
    ("custom_data.search_string", "commerce.search_term"),
)

#: user_data keys that are one value or a list; the first of a list is taken
USER_FIELDS: Table = (
    ("em", "email"),
    ("ph", "phone"),
    ("fn", "first_name"),
    ("ln", "last_name"),
    ("db", "birth_date"),
    ("ge", "gender"),
    ("ct", "city"),
    ("st", "region"),
    ("zp", "postal_code"),
    ("country", "country"),
    ("external_id", "user_id"),
)

ITEM_FIELDS: Table = (
    ("id", "item_id"),
    ("title", "item_name"),
    ("brand", "brand"),
    ("category", "category"),
    ("quantity", "quantity"),
    ("item_price", "price"),
)

_USED = {theirs.split(".")[1] for theirs, _ in FIELDS if theirs.startswith("custom_data.")} | {
    "contents",
    "content_ids",
}


_FIELDS, _ITEM_FIELDS = Reader(FIELDS), Reader(ITEM_FIELDS)


def split(body: Any) -> list[Any]:
    if isinstance(body, Mapping) and isinstance(body.get("data"), list):
        return list(body["data"])
    return [body]


def draft(one: Any) -> Json | Ignored:
    event = obj(one, "")
    name = text(event, "event_name")
    result: Json = {"event_name": EVENT_NAMES.get(name, name)}
    source = SOURCES.get(str(event.get("action_source")))
    if (
        source and source != "server"
    ):  # a website's events may as well come from our own pixel: the topic's setting says
        result["source"] = source
    _FIELDS.apply(event, result)
    user = obj(event.get("user_data") or {}, "user_data")
    for theirs, ours in USER_FIELDS:
        value = user.get(theirs)
        value = value[0] if isinstance(value, list) and value else value
        if value not in (None, "", []):
            put(result, f"user.{ours}", value)
    custom = obj(event.get("custom_data") or {}, "custom_data")
    products = custom.get("content_ids")
    if custom.get("contents") is not None:
        put(result, "commerce.items", items(custom["contents"], _ITEM_FIELDS, "custom_data.contents"))
    elif products is not None:
        products = products if isinstance(products, list) else [products]
        put(result, "commerce.items", [{"item_id": product} for product in products if product is not None])
    if not an_id(result.get("event_id")) and name == "Purchase" and an_id(at(result, "commerce.transaction_id")):
        result["event_id"] = result["commerce"]["transaction_id"]
    if event.get("opt_out") is True:  # measured, and nothing else: as sinks/meta.py says it
        put(result, "consent.ad_personalization", "denied")
    extra = rest(custom, _USED)
    if extra:
        result["custom"] = extra
    return result
