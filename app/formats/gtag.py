"""What gtag.js sends to `/g/collect`: an address with a query string, and for several events at once a line of its own for each.

Google does not document this protocol. What the parameters mean is as people have found it:
    www.thyngster.com/ga4-measurement-protocol-cheatsheet
    github.com/d8a-tech/d8a, docs/docs/articles/tracking-protocols/ga4-gtag.md
`ep.` and `epn.` carry the event's parameters, texts and numbers, under the names that the Measurement Protocol has for them.

A hit has no id and no time of its own. `ep.event_id` is taken when the page gave gtag one, else the transaction id for orders,
else an id made from the hit, which can meet no other copy. Where analytics_storage is denied gtag makes up a client for each
page, which is nobody's: such a client and session are left out.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import orjson

from app.errors import BadEvent
from app.events import SIGNALS, Json
from app.formats import ga4
from app.formats._table import Ignored, Table, an_id, as_json, at, obj, put, text
from app.signals import Unreadable, google

EVENT_NAMES: dict[str, str] = {}  # our names are GA4's

MOST_EVENTS = 100  # of one hit; gtag sends far fewer
MOST_PARAMS = 500  # of one event
MOST_ITEMS = 200  # that GA4 takes

#: What tells GA4 how long somebody stayed, and nothing that a platform counts.
ONLY_GA4 = frozenset({"user_engagement", "session_start", "first_visit"})

_PARAMS = tuple(
    (theirs.removeprefix("event.params."), ours) for theirs, ours in ga4.FIELDS if theirs.startswith("event.params.")
)
_PERSON = (
    *(
        (f"{hashed}{theirs}", f"user.{ours}")
        for theirs, ours in (("email_address", "email"), ("email", "email"), ("phone_number", "phone"))
        for hashed in ("", "sha256_")
    ),
    *(
        (f"address.{number}{theirs}", f"user.{ours}")
        for theirs, ours in (
            ("first_name", "first_name"),
            ("sha256_first_name", "first_name"),
            ("last_name", "last_name"),
            ("sha256_last_name", "last_name"),
            ("street", "street"),
            ("sha256_street", "street"),
            ("city", "city"),
            ("region", "region"),
            ("postal_code", "postal_code"),
            ("country", "country"),
        )
        for number in ("", "0.")
    ),
)

FIELDS: Table = (
    ("cid", "ids.ga_client_id"),
    ("sid", "ids.ga_session_id"),
    ("uid", "user.user_id"),
    ("dl", "context.url"),
    ("dr", "context.referrer"),
    ("dt", "context.title"),
    ("ul", "context.language"),
    *((f"{kind}.{theirs}", ours) for theirs, ours in _PARAMS if theirs != "session_id" for kind in ("ep", "epn")),
    ("cu", "commerce.currency"),
    *((f"ep.user_data.{theirs}", ours) for theirs, ours in _PERSON),
)

#: Of a product, `pr1` to `pr200`: parts after a tilde, each begins with two letters.
ITEM_FIELDS: Table = (
    ("id", "item_id"),
    ("nm", "item_name"),
    ("br", "brand"),
    ("ca", "category"),
    ("va", "variant"),
    ("cp", "coupon"),
    ("qt", "quantity"),
    ("pr", "price"),
    ("ds", "discount"),
)

_USED = {theirs for theirs, _ in FIELDS} | {"ep.debug_mode", "ep.ga_debug", "epn.engagement_time_msec"}
_ITEM = re.compile(r"pr([1-9][0-9]{0,2})")


def split(body: Any) -> list[Any]:
    """The single events of a hit, {"query": text, "lines": text}: parameters by name, each with what is said once for all."""
    hit = obj(body, "")
    for name in ("query", "lines"):
        if not isinstance(hit.get(name), str):
            raise BadEvent("wrong_type", name, "must be text")
    lines = [line for line in hit["lines"].splitlines() if line.strip()]
    if len(lines) > MOST_EVENTS:
        raise BadEvent("too_many", "", f"more than {MOST_EVENTS} events in one hit")
    shared = _parsed(hit["query"])
    if not lines:
        return [shared] if shared else []
    return [{**shared, **_parsed(line), "#": str(number)} for number, line in enumerate(lines)]


def draft(one: Any) -> Json | Ignored:
    name = text(one, "en")
    if name in ONLY_GA4:
        return Ignored(name)
    result: Json = {"event_name": name}
    said = consent(one)
    nobodys = ("cid", "sid") if said.get("analytics_storage") == "denied" else ()
    for theirs, ours in FIELDS:
        if one.get(theirs) and theirs not in nobodys:
            put(result, ours, one[theirs])
    if items := _items(one):
        put(result, "commerce.items", items)
    if said:
        result["consent"] = said
    if not an_id(result.get("event_id")):
        _fall_back(one, result)
    if custom := dict(_custom(one)):
        result["custom"] = custom
    return result


def consent(one: Mapping[str, str]) -> Json:
    """What a hit says of consent, with Google's own two parameters read into the four signals. Unreadable counts as denied."""
    said: Json = {}
    for name, read, tells in (("gcs", google.gcs, SIGNALS[:2]), ("gcd", google.gcd, SIGNALS)):
        if not one.get(name):
            continue
        try:
            signals = dict(read(one[name]))
        except Unreadable:
            signals = dict.fromkeys(tells, "denied")
        for signal, value in signals.items():
            said[signal] = "denied" if "denied" in (value, said.get(signal)) else value
    if one.get("npa") == "1":  # no personalised ads
        said["ad_personalization"] = "denied"
    for theirs, ours in (("us_privacy", "us_privacy"), ("gpp", "gpp"), ("gdpr_consent", "tcf")):
        if one.get(theirs) and not (ours == "tcf" and one.get("gdpr") == "0"):
            said[ours] = one[theirs]
    if place := one.get("ur") or one.get("sst.uc"):
        said["region"] = place
    return said


def _parsed(query: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(query, keep_blank_values=True, max_num_fields=MOST_PARAMS))
    except ValueError:
        raise BadEvent("too_many", "", f"more than {MOST_PARAMS} parameters") from None


def _items(one: Mapping[str, str]) -> list[Json]:
    numbers = sorted(int(match[1]) for name in one if (match := _ITEM.fullmatch(name)))
    return [item for number in numbers[:MOST_ITEMS] if (item := _item(one[f"pr{number}"]))]


def _item(packed: str) -> Json:
    """`idSKU-1~nmShirt~pr29.99`; a tilde in a value is written twice."""
    parts = [part.replace("\0", "~") for part in packed.replace("\0", "").replace("~~", "\0").split("~")]
    values = {part[:2]: part[2:] for part in reversed(parts)}
    return {ours: values[theirs] for theirs, ours in ITEM_FIELDS if values.get(theirs)}


def _custom(one: Mapping[str, str]) -> list[tuple[str, Any]]:
    """Parameters that no row names; of a person none."""
    return [
        (name.partition(".")[2], _number(value) if name.startswith("epn.") else value)
        for name, value in one.items()
        if name.startswith(("ep.", "epn.")) and name not in _USED and not name.startswith("ep.user_data.")
    ]


def _number(value: str) -> Any:
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value


def _fall_back(one: Mapping[str, str], result: Json) -> None:
    order = at(result, "commerce.transaction_id")
    if result["event_name"] in ("purchase", "refund") and an_id(order):
        result["event_id"] = order
    else:
        content = as_json(one, orjson.OPT_SORT_KEYS)
        result["event_id"] = "gtag-" + hashlib.sha256(content).hexdigest()[:32]
        result["pairs"] = False
