"""The oracle: what was sent and acknowledged, and therefore has to arrive; and the verdict on what did.

Every conversion's content follows from its id, so a delivery can be judged by itself. A copy that was acknowledged is an
obligation; one that was not may arrive or not, but never changed.
"""

import hashlib
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

WINDOW = 3.0  # seconds: merge_window of the demo's configuration
SLACK = 0.5  # seconds: a record is stamped before it is in Kafka by at most so much (app/clock.py)

CONSENT = dict.fromkeys(("ad_storage", "analytics_storage", "ad_user_data", "ad_personalization"), "granted")


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def number(conversion: str) -> int:
    return int(sha(conversion)[:8], 16)


def value(conversion: str) -> float:
    return round(1 + number(conversion) % 100_000 / 100, 2)


def copy(conversion: str, name: str, source: str) -> dict[str, Any]:
    """One copy's body: the server knows the person, the pixel the browser."""
    body: dict[str, Any] = {"event_name": name, "event_id": conversion, "consent": CONSENT}
    commerce: dict[str, Any] = {"value": value(conversion), "currency": "EUR"}
    if name == "purchase":
        commerce["transaction_id"] = f"T-{conversion}"
    if source == "server":
        body["user"] = {"email": f"{conversion}@example.com"}
        commerce["items"] = [{"item_id": f"SKU-{number(conversion) % 97}", "quantity": 1, "price": value(conversion)}]
    else:
        body["ids"] = {"fbp": f"fb.1.1795420000000.{1 + number(conversion)}"}
        body["context"] = {"url": f"https://shop.example/{conversion}"}
    return body | {"commerce": commerce}


@dataclass(frozen=True)
class Acknowledged:
    """One copy that Kafka or the collector said it has. Its record time lies between `sent` and `acked`."""

    source: str
    way: str  # collector, bus
    sent: float  # when the attempt that succeeded began; for the bus, the record's own timestamp
    acked: float


@dataclass
class Conversion:
    id: str
    name: str
    copies: list[Acknowledged] = field(default_factory=list)

    def must_have(self) -> set[str]:
        """The sources whose copies certainly lay inside the hold, and were in Kafka within the slack."""
        if self.name != "purchase" or not self.copies:
            return set()
        first = min(c.sent for c in self.copies)
        latest_first = min(c.acked if c.way == "collector" else c.sent for c in self.copies)
        prompt = all(c.acked - c.sent < SLACK for c in self.copies if c.sent <= latest_first + WINDOW)
        if not prompt:
            return set()  # a broker was away: told apart, and counted as in flight
        return {c.source for c in self.copies if (c.acked if c.way == "collector" else c.sent) <= first + WINDOW}


@dataclass(frozen=True)
class Fault:
    """Something that was done to the system, and how long its effects explain a repeated delivery."""

    at: float
    until: float
    what: str


#: What may make a delivery come twice, as promise P2 allows: whoever had sent it could not record it any more.
DOUBLING = ("kill", "term", "stop", "exit", "broker", "reset", "slow", "offsets")


@dataclass
class Verdict:
    conversions: int
    copies: int
    lost: list[str]
    unexplained: list[str]
    explained: dict[str, int]
    split: list[str]
    in_flight: int
    wrong: list[str]
    repeated_requests: int

    @property
    def good(self) -> bool:
        return not (self.lost or self.unexplained or self.split or self.wrong)


class Oracle:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rnd = random.Random(seed)
        self.conversions: dict[str, Conversion] = {}

    def new(self) -> Conversion:
        identity = f"s{self.seed}-{len(self.conversions)}"
        name = self.rnd.choice(("purchase", "purchase", "add_to_cart"))
        one = self.conversions[identity] = Conversion(identity, name)
        return one

    def plan(self, one: Conversion) -> list[tuple[float, str, str]]:
        """(delay in seconds, source, way) of its copies: any order, some alone, some repeated."""
        rnd = self.rnd
        first, second = rnd.sample(("pixel", "server"), 2)
        ways = {source: rnd.choice(("collector", "bus")) for source in (first, second)}
        copies = [(0.0, first, ways[first])]
        if rnd.random() > 0.1:
            copies.append((rnd.uniform(0, WINDOW - 1.0), second, ways[second]))
        for _ in range(rnd.choice((0, 0, 0, 0, 1, 2))):
            source = rnd.choice((first, second)) if len(copies) > 1 else first
            copies.append((rnd.uniform(0, 2 * WINDOW), source, ways[source]))
        return copies

    def obligated(self) -> list[Conversion]:
        return [one for one in self.conversions.values() if one.copies]

    def judge(self, accepted: Sequence[Mapping[str, Any]], faults: Sequence[Fault]) -> Verdict:
        """`accepted` is the platform's own list of what it took, in order."""
        got: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for entry in accepted:
            got[str(entry["event_id"])].append(entry)
        explained: dict[str, int] = defaultdict(int)
        unexplained, split, wrong = [], [], []
        for identity, entries in got.items():
            one = self.conversions.get(identity)
            if one is None:
                wrong.append(f"{identity}: never issued")
                continue
            for entry in entries:
                wrong += [f"{identity}: {what}" for what in differences(one, entry["event"])]
            for earlier in entries[:-1]:
                why = explanation(float(earlier["received"]), faults)
                if why is None:
                    unexplained.append(identity)
                else:
                    explained[why] += 1
        in_flight = 0
        for one in self.obligated():
            if one.id in got and one.name == "purchase":
                missing = one.must_have() - sources(got[one.id][0]["event"])
                if missing:
                    split.append(f"{one.id} lacks {', '.join(sorted(missing))}")
                in_flight += not one.must_have()
        return Verdict(
            conversions=len(self.obligated()),
            copies=sum(len(one.copies) for one in self.obligated()),
            lost=[one.id for one in self.obligated() if one.id not in got],
            unexplained=unexplained,
            explained=dict(explained),
            split=split,
            in_flight=in_flight,
            wrong=wrong,
            repeated_requests=sum(len(entries) - 1 for entries in got.values()),
        )


def sources(event: Mapping[str, Any]) -> set[str]:
    """Whose copies are in a delivered event."""
    found = set()
    if "em" in event["user_data"]:
        found.add("server")
    if "fbp" in event["user_data"]:
        found.add("pixel")
    return found


def differences(one: Conversion, event: Mapping[str, Any]) -> list[str]:
    """What in a delivered event is not what was sent."""
    user, custom = event["user_data"], event.get("custom_data", {})
    expected = {
        "value": (custom.get("value"), value(one.id)),
        "currency": (custom.get("currency"), "EUR"),
        "name": (event["event_name"], {"purchase": "Purchase", "add_to_cart": "AddToCart"}[one.name]),
    }
    if "em" in user:
        expected["em"] = (user["em"], [sha(f"{one.id}@example.com")])
    if "fbp" in user:
        expected["fbp"] = (user["fbp"], f"fb.1.1795420000000.{1 + number(one.id)}")
    if one.name == "purchase":
        expected["order"] = (custom.get("order_id"), f"T-{one.id}")
    return [f"{name} is {is_!r}, not {should!r}" for name, (is_, should) in expected.items() if is_ != should]


def explanation(accepted_at: float, faults: Sequence[Fault]) -> str | None:
    """The fault that may have kept the record of a delivery from being written: it struck while that was under way."""
    for fault in faults:
        if fault.what.startswith(DOUBLING) and fault.at - 2.0 <= accepted_at <= fault.until:
            return fault.what.split()[0]
    return None
