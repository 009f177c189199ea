"""The Segment spec: track, page and screen calls, single or in a batch. https://segment.com/docs/connections/spec/

RudderStack's SDKs and Jitsu's send the same; what they add is below, too.

The id is `properties.event_id`, else the order id for orders, else `messageId`, which no other copy can know: such an
event is marked as one that cannot pair.
"""

import math
from collections.abc import Mapping
from typing import Any

from app.errors import BadEvent
from app.events import Ids, Json
from app.formats._table import Ignored, Reader, Table, an_id, at, items, obj, order_id, put, rest, spread, text

#: https://segment.com/docs/connections/spec/ecommerce/v2/ and the names of the B2B and lead specs
EVENT_NAMES = {
    "Products Searched": "search",
    "Product List Viewed": "view_item_list",
    "Product Viewed": "view_item",
    "Product Added": "add_to_cart",
    "Product Removed": "remove_from_cart",
    "Product Added to Wishlist": "add_to_wishlist",
    "Cart Viewed": "view_cart",
    "Checkout Started": "begin_checkout",
    "Checkout Step Completed": "add_shipping_info",
    "Payment Info Entered": "add_payment_info",
    "Order Completed": "purchase",
    "Order Refunded": "refund",
    "Signed Up": "sign_up",
    "Signed In": "login",
    "Lead Generated": "generate_lead",
    "Lead Captured": "generate_lead",
    "Subscription Started": "subscribe",
    "Page Viewed": "page_view",
}

_BY_LOWER = {name.lower(): ours for name, ours in EVENT_NAMES.items()}

_IDS: Table = tuple(
    (f"{place}.{name}", f"ids.{name}") for name in Ids.__annotations__ for place in ("properties", "context.ids")
)

FIELDS: Table = (
    ("properties.event_id", "event_id"),
    ("timestamp", "time"),
    ("originalTimestamp", "time"),
    ("sentAt", "sent_at"),
    ("userId", "user.user_id"),
    *((f"{place}.email", "user.email") for place in ("properties", "traits", "context.traits")),
    *((f"{place}.phone", "user.phone") for place in ("properties", "traits", "context.traits")),
    *(
        (f"context.traits.{theirs}", f"user.{ours}")
        for theirs, ours in (
            ("firstName", "first_name"),
            ("first_name", "first_name"),
            ("firstname", "first_name"),  # RudderStack's
            ("lastName", "last_name"),
            ("last_name", "last_name"),
            ("lastname", "last_name"),
            ("birthday", "birth_date"),
            ("gender", "gender"),
            ("address.street", "street"),
            ("address.city", "city"),
            ("address.state", "region"),
            ("address.postalCode", "postal_code"),
            ("address.postal_code", "postal_code"),
            ("address.postalcode", "postal_code"),  # RudderStack's
            ("address.zip", "postal_code"),
            ("address.country", "country"),
        )
    ),
    ("context.ip", "context.ip"),
    ("context.userAgent", "context.user_agent"),
    ("context.page.url", "context.url"),
    ("properties.url", "context.url"),
    ("context.page.referrer", "context.referrer"),
    ("properties.referrer", "context.referrer"),
    ("context.page.title", "context.title"),
    ("properties.title", "context.title"),
    ("context.locale", "context.language"),
    *_IDS,
    # Jitsu's
    ("context.clientIds.fbp", "ids.fbp"),
    ("context.clientIds.fbc", "ids.fbc"),
    ("context.clientIds.ga4.clientId", "ids.ga_client_id"),
    ("integrations.Google Analytics 4.clientId", "ids.ga_client_id"),
    ("integrations.Google Analytics 4.sessionId", "ids.ga_session_id"),
    ("properties.revenue", "commerce.value"),
    ("properties.value", "commerce.value"),
    ("properties.total", "commerce.value"),
    ("properties.currency", "commerce.currency"),
    ("properties.tax", "commerce.tax"),
    ("properties.shipping", "commerce.shipping"),
    ("properties.discount", "commerce.discount"),
    ("properties.coupon", "commerce.coupon"),
    ("properties.order_id", "commerce.transaction_id"),
    ("properties.refund_id", "commerce.refund_id"),
    ("properties.affiliation", "commerce.affiliation"),
    ("properties.query", "commerce.search_term"),
    ("properties.payment_method", "commerce.payment_type"),
    ("properties.shipping_method", "commerce.shipping_tier"),
    ("properties.method", "commerce.method"),
    ("properties.list_id", "commerce.list_id"),
    ("properties.list_name", "commerce.list_name"),
    ("context.consent", "consent"),
    ("context.tags", "tags"),
    ("context.labels", "labels"),
    ("context.site", "site"),
)

ITEM_FIELDS: Table = (
    ("product_id", "item_id"),
    ("sku", "item_id"),
    ("name", "item_name"),
    ("brand", "brand"),
    ("category", "category"),
    ("variant", "variant"),
    ("coupon", "coupon"),
    ("quantity", "quantity"),
    ("price", "price"),
    ("discount", "discount"),
)

#: single-product calls carry the product's fields as properties
_ONE_PRODUCT = frozenset({"view_item", "add_to_cart", "remove_from_cart", "add_to_wishlist"})
_PROPERTIES = {theirs.split(".")[1] for theirs, _ in FIELDS if theirs.startswith("properties.")} | {"products"}


_FIELDS, _ITEM_FIELDS = Reader(FIELDS), Reader(ITEM_FIELDS)


def split(body: Any) -> list[Any]:
    if isinstance(body, Mapping) and isinstance(body.get("batch"), list):
        shared = {k: body[k] for k in ("sentAt", "context") if k in body}
        return spread(shared, body["batch"])
    return [body]


def draft(one: Any) -> Json | Ignored:
    call = obj(one, "")
    kind = call.get("type")
    if kind is None or kind == "":
        kind = "track" if "event" in call else None
    if kind in ("identify", "group", "alias"):
        return Ignored(str(kind))
    properties = obj(call.get("properties") or {}, "properties")
    obj(call.get("context") or {}, "context")
    result: Json = {}
    if kind in ("page", "screen"):
        result["event_name"] = "page_view"
    elif kind == "track":
        name = text(call, "event")
        result["event_name"] = _BY_LOWER.get(name.strip().lower(), name)
    else:
        text(call, "type")
        raise BadEvent("unknown_type", "type", "must be track, page, screen, identify, group or alias")
    _FIELDS.apply(call, result)
    sessions = at(call, "context.clientIds.ga4.sessionIds")
    if isinstance(sessions, Mapping) and len(sessions) == 1:  # of several, nobody can tell whose
        put(result, "ids.ga_session_id", next(iter(sessions.values())))
    if isinstance(consent := result.get("consent"), Mapping):
        result["consent"] = _with_categories(consent)
    used = set(_PROPERTIES)
    if properties.get("products") is not None:
        put(result, "commerce.items", items(properties["products"], _ITEM_FIELDS, "properties.products"))
    elif result["event_name"] in _ONE_PRODUCT and ("product_id" in properties or "sku" in properties):
        put(result, "commerce.items", items([properties], _ITEM_FIELDS, "properties"))
        used |= {theirs for theirs, _ in ITEM_FIELDS}
        price, quantity = _number(properties.get("price")), _number(properties.get("quantity", 1))
        if price is not None and quantity is not None and properties.get("currency"):
            put(result, "commerce.value", round(price * quantity, 6))
    if not an_id(result.get("event_id")):
        _fall_back(call, result)
    custom = rest(properties, used)
    if custom:
        result["custom"] = custom
    return result


def _with_categories(consent: Mapping[str, Any]) -> Json:
    """Segment's own consent wrappers write `categoryPreferences`."""
    rest_of_it = {k: v for k, v in consent.items() if k != "categoryPreferences"}
    return (
        {"categories": consent["categoryPreferences"], **rest_of_it} if len(rest_of_it) < len(consent) else rest_of_it
    )


def _number(value: Any) -> float | None:
    """An amount, also as text; None for what is none."""
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _fall_back(call: Mapping[str, Any], result: Json) -> None:
    if of_order := order_id(result["event_name"], result.get("commerce", {})):
        result["event_id"] = of_order
    elif an_id(call.get("messageId")):
        result["event_id"] = call["messageId"]
        result["pairs"] = False
