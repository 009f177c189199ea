"""What is sent. Every conversion's content follows from its id, so that a delivery can be judged by itself."""

import hashlib
import random
from dataclasses import dataclass, field
from typing import Any

SITE = "shop"
SOURCES = ("pixel", "server")
WINDOW = 3.0  # seconds: merge_window of the demo's configuration
_SIGNALS = ("ad_storage", "analytics_storage", "ad_user_data", "ad_personalization")
_BROWSER = "Mozilla/5.0"
_ADDRESS = "203.0.113.9"


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Attempt:
    """One try to hand over a copy. The copy's record time lies between its begin and its end."""

    source: str
    way: str  # collector, bus
    begun: float  # for the bus, the record's own timestamp
    ended: float
    origin: str  # where an acknowledged copy lies: request id, or topic/partition/offset; else empty

    @property
    def acknowledged(self) -> bool:
        return bool(self.origin)


@dataclass
class Conversion:
    id: str
    name: str = "purchase"
    denies: frozenset[str] = frozenset()  # sources whose copies deny advertising
    same_id: bool = True  # else only the order number tells that the two copies are one purchase
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def acknowledged(self) -> list[Attempt]:
        return [attempt for attempt in self.attempts if attempt.acknowledged]

    @property
    def number(self) -> int:
        return int(sha(self.id)[:8], 16)

    @property
    def meeting_id(self) -> str:
        """What the copies of this conversion have in common: order number or event id."""
        return f"T-{self.id}" if self.name == "purchase" else self.id

    @property
    def key(self) -> bytes:
        """Its key in our topics."""
        return f"{self.meeting_id}\x1f{SITE}\x1f{self.name}".encode()

    def event_id(self, source: str) -> str:
        return self.id if self.same_id or source == "pixel" else f"{self.id}-s"

    def value(self, source: str) -> float:
        """The back end knows the price that was paid; the page shows another."""
        return round(1 + self.number % 100_000 / 100 + (0.5 if source == "pixel" else 0), 2)

    def consent(self, sources: frozenset[str] | set[str]) -> dict[str, str]:
        """Of these copies merged: denied by one is denied."""
        advertising = "denied" if self.denies & sources else "granted"
        return dict.fromkeys(_SIGNALS, advertising) | {"analytics_storage": "granted"}

    def copy(self, source: str) -> dict[str, Any]:
        """One copy's body: the server knows the order and the person, the pixel the browser."""
        body: dict[str, Any] = {
            "event_name": self.name,
            "event_id": self.event_id(source),
            "consent": self.consent({source}),
            "ids": {"ga_client_id": self.client_id},
            "custom": {"conversion": self.id},
        }
        commerce: dict[str, Any] = {"value": self.value(source), "currency": "EUR"}
        if self.name == "purchase":
            commerce["transaction_id"] = self.meeting_id
        if source == "server":
            body["user"] = {"email": f"{self.id}@example.com"}
            commerce["items"] = [self.item]
        else:
            body["ids"]["fbp"] = self.cookie
            body["context"] = {"url": self.page, "ip": _ADDRESS, "user_agent": _BROWSER}
        return body | {"commerce": commerce}

    @property
    def client_id(self) -> str:
        return f"{1 + self.number}.1795420000"

    @property
    def cookie(self) -> str:
        return f"fb.1.1795420000000.{1 + self.number}"

    @property
    def page(self) -> str:
        return f"https://shop.example/{self.id}"

    @property
    def item(self) -> dict[str, Any]:
        return {"item_id": f"SKU-{self.number % 97}", "quantity": 1, "price": self.value("server")}

    # -- what a platform has to get when copies of these sources were merged; only the time of the event is not in it

    def at_meta(self, sources: set[str]) -> dict[str, Any]:
        knows_order, knows_browser = _who_knows(sources)
        custom: dict[str, Any] = {"value": self.value(knows_order), "currency": "EUR"}
        event: dict[str, Any] = {
            "event_name": {"purchase": "Purchase", "add_to_cart": "AddToCart"}[self.name],
            "event_id": self.event_id(knows_browser),
            "action_source": "website" if "pixel" in sources else "other",
            "user_data": {},
            "custom_data": custom,
        }
        if self.name == "purchase":
            custom["order_id"] = self.meeting_id
        if "server" in sources:
            event["user_data"]["em"] = [sha(f"{self.id}@example.com")]
            custom |= {"content_type": "product", "content_ids": [self.item["item_id"]]}
            custom["contents"] = [{"id": self.item["item_id"], "quantity": 1, "item_price": self.item["price"]}]
        if "pixel" in sources:
            browser = {"fbp": self.cookie, "client_ip_address": _ADDRESS, "client_user_agent": _BROWSER}
            event["user_data"] |= browser
            event["event_source_url"] = self.page
        return event

    def at_ga4(self, sources: set[str]) -> dict[str, Any]:
        knows_order, _ = _who_knows(sources)
        params: dict[str, Any] = {"engagement_time_msec": 1, "conversion": self.id}
        params |= {"value": self.value(knows_order), "currency": "EUR"}
        if self.name == "purchase":
            params["transaction_id"] = self.meeting_id
        if "server" in sources:
            params["items"] = [self.item]
        if "pixel" in sources:
            params["page_location"] = self.page
        return {
            "client_id": self.client_id,
            "consent": self.ga4_consent(sources),
            "name": self.name,
            "params": params,
        }

    def ga4_consent(self, sources: frozenset[str] | set[str]) -> dict[str, str]:
        told = self.consent(sources)
        return {name: told[name].upper() for name in ("ad_user_data", "ad_personalization")}


def _who_knows(sources: set[str]) -> tuple[str, str]:
    """(whose money, whose cookies and event id)."""
    return ("server" if "server" in sources else "pixel"), ("pixel" if "pixel" in sources else "server")


def draw(rnd: random.Random, identity: str) -> Conversion:
    name = rnd.choice(("purchase", "purchase", "add_to_cart"))
    denies = rnd.choices((frozenset(), frozenset(SOURCES), frozenset({rnd.choice(SOURCES)})), (88, 6, 6))[0]
    return Conversion(identity, name, denies, same_id=name != "purchase" or rnd.random() < 0.5)


def plan(rnd: random.Random) -> list[tuple[float, str, str]]:
    """(delay in seconds, source, way) of its copies: in any order, some alone, some repeated, some too late to be merged."""
    first, second = rnd.sample(SOURCES, 2)
    ways = {source: rnd.choice(("collector", "bus")) for source in SOURCES}
    copies = [(0.0, first, ways[first])]
    if rnd.random() > 0.1:
        copies.append((rnd.uniform(0, WINDOW + 0.5), second, ways[second]))
    for _ in range(rnd.choice((0, 0, 0, 0, 1, 2))):
        source = rnd.choice((first, second)) if len(copies) > 1 else first
        copies.append((rnd.uniform(0, 4 * WINDOW), source, rnd.choice(("collector", "bus"))))
    return copies
