"""Events for tests: a complete and valid one, to override only what a test is about, and any that the schema allows."""

import copy
import hashlib
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

from hypothesis import strategies as st
from typing_extensions import is_typeddict

from app.events import CANONICAL_NAMES, Event
from app.prepare import NO_NAME
from sinks._base import Payload, Sink, Skip


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


_PURCHASE: dict[str, Any] = {
    "v": 1,
    "event_id": "order-1001",
    "event_name": "purchase",
    "site": "shop",
    "source": "server",
    "time": 1_795_420_800_123,
    "received": 1_795_420_801_456,
    "origin": {"topic": "orders", "partition": 3, "offset": 4711},
    "user": {
        "email": {"plain": sha("ada@example.com"), "gmail": sha("ada@example.com"), "strict": sha("ada@example.com")},
        "phone": {"e164": sha("+15550100199"), "digits": sha("15550100199")},
        "first_name": {"plain": sha("ada"), "letters": sha("ada"), "joined": sha("ada")},
        "last_name": {"plain": sha("lovelace"), "letters": sha("lovelace"), "joined": sha("lovelace")},
        "birth_date": {"ymd": sha("19970216")},
        "gender": {"letter": sha("f")},
        "street": {"plain": sha("1 main street")},
        "city": "Menlo Park",
        "region": "CA",
        "postal_code": "94025-1234",
        "country": "US",
        "user_id": "customer-7",
    },
    "context": {
        "ip": "203.0.113.7",
        "user_agent": "Mozilla/5.0 (X11; Linux x86_64)",
        "url": "https://shop.example.com/thanks",
        "referrer": "https://shop.example.com/checkout",
        "title": "Thank you",
        "language": "en-US",
    },
    "ids": {
        "ga_client_id": "1234567890.1699999999",
        "ga_session_id": "1795420000",
        "gclid": "Cj0KCQ-gclid",
        "fbp": "fb.1.1795420000000.1234567890",
        "fbc": "fb.1.1795410000000.AbCdEf",
        "fbclid": "AbCdEf",
        "ttclid": "E.C.P.ttclid",
        "ttp": "2J3K-ttp",
    },
    "commerce": {
        "value": 59.98,
        "currency": "USD",
        "tax": 4.5,
        "shipping": 5.0,
        "coupon": "WELCOME",
        "transaction_id": "1001",
        "items": [
            {
                "item_id": "SKU-1",
                "item_name": "Shirt",
                "brand": "Acme",
                "category": "Clothing",
                "variant": "red",
                "quantity": 2,
                "price": 29.99,
            }
        ],
    },
    "consent": {
        "ad_storage": "granted",
        "analytics_storage": "granted",
        "ad_user_data": "granted",
        "ad_personalization": "granted",
    },
    "tags": {"meta": {"ran": True, "event_id": "order-1001"}, "ga4": {"ran": True}},
}


def make_event(**overrides: Any) -> Event:
    """Build a purchase as the merge leaves it: server and pixel have told what they know.

    Overrides go into nested parts; None removes: make_event(commerce={"value": 5.0}, ids=None).
    """
    return merged(_PURCHASE, overrides)  # type: ignore[return-value]


def encode(sink: Sink, event: Event) -> Payload | Skip:
    """As deliver does it: under the first name that this destination has for the event."""
    names = sink.settings.platform_names(sink.names, event["event_name"])
    return sink.encode(event, names[0]) if names else Skip(NO_NAME)


def merged(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(dict(base))
    for name, value in overrides.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, Mapping):
            result[name] = merged(result[name] if isinstance(result.get(name), dict) else {}, value)
        else:
            result[name] = copy.deepcopy(value)
    return result


_TEXT = st.one_of(st.text(max_size=30), st.sampled_from(("x" * 500, "ada@example.com", " ", "https://", "0")))
_JSON_INT = st.integers(-(2**53) + 1, 2**53 - 1)
_JSON_FLOAT = st.one_of(st.floats(allow_nan=False, allow_infinity=False), _JSON_INT)
_HASHES = st.dictionaries(
    st.sampled_from(("plain", "gmail", "strict", "e164", "digits", "letters", "joined", "ymd", "letter", "given")),
    _TEXT.map(sha),
)
#: Values that mean something, for fields where any text is allowed but hardly any gets far.
_LIKELY: dict[str, st.SearchStrategy[Any]] = {
    "event_name": st.sampled_from(CANONICAL_NAMES),
    "currency": st.sampled_from(("EUR", "USD", "JPY")),
    "country": st.sampled_from(("US", "GB", "DE")),
    "region": st.sampled_from(("CA", "US-TX", "New York", "Bayern")),
    "postal_code": st.sampled_from(("94025-1234", "M1 1AE", "10115")),
    "places": st.dictionaries(st.sampled_from(("city", "region", "postal_code")), st.text("abc", min_size=1).map(sha)),
    "ip": st.sampled_from(("203.0.113.7", "2001:db8::1")),
    "url": st.sampled_from(("https://shop.example.com/", "android-app://x", "/thanks")),
    "ga_client_id": st.just("1234567890.1699999999"),
    "ga_session_id": st.just("1795420000"),
    "time": st.integers(1_700_000_000_000, 1_900_000_000_000),
    "tags": st.dictionaries(st.sampled_from(("ga4", "gtag", "meta")), st.fixed_dictionaries({"ran": st.booleans()})),
    "custom": st.dictionaries(st.text("abc_1", min_size=1, max_size=5), st.one_of(_TEXT, _JSON_INT), max_size=40),
}


def events() -> st.SearchStrategy[Event]:
    """Any Event that fits its schema and that JSON can carry."""
    return _any(Event)


def _any(hint: Any) -> st.SearchStrategy[Any]:
    if is_typeddict(hint):
        fields = {
            name: st.one_of(*[_LIKELY[name]] * 4, _any(field)) if name in _LIKELY else _any(field)
            for name, field in get_type_hints(hint).items()
            if name != "__pydantic_config__"
        }
        required = {name: field for name, field in fields.items() if name in hint.__required_keys__}
        return st.fixed_dictionaries(required, optional={k: v for k, v in fields.items() if k not in required})
    origin, args = get_origin(hint), get_args(hint)
    if hint == dict[str, str]:
        return _HASHES
    if origin is Literal:
        return st.sampled_from(args)
    if origin is list:
        return st.lists(_any(args[0]), max_size=3)
    if origin is dict:
        return st.dictionaries(_TEXT, _any(args[1]), max_size=3)
    if args:  # a union
        return st.one_of(*(_any(arg) for arg in args))
    return {str: _TEXT, int: _JSON_INT, float: _JSON_FLOAT, bool: st.booleans()}[hint]
