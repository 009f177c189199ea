"""Which copies are of one conversion, and in which partition they meet.

The key of a conversion is (id, site, event name). The id is the order number for purchases and refunds that have one, the
event id for everything else. The partition follows from the id alone (murmur2, as Kafka's own clients hash), so whoever
knows the id knows the partition, in every topic and table of ours. Where one id turns out to mean several conversions, all
but one of them have a fourth part in their key, which sets them apart; they stay in the partition of the id.
"""

from aiokafka.partitioner import murmur2

from app.events import Commerce, Event

#: Control characters are refused in all three parts, so the separator is safe.
SEPARATOR = "\x1f"


def conversion_id(event: Event) -> str:
    """The id that copies of this event share."""
    event_id = event["event_id"]
    if apart := event.get("apart"):
        event_id = event_id.removesuffix(f".{apart}")
    return order(event["event_name"], event.get("commerce", {})) or event_id


def order(event_name: str, commerce: Commerce) -> str:
    """The id of a conversion that its order number names; of any other an empty text."""
    if event_name not in ORDERS or not (order := commerce.get("transaction_id")):
        return ""
    if event_name == "purchase":
        return order
    # a colon inside the order number must not make "1" and "2:3" the same as "1:2" and "3"
    order = order.replace("%", "%25").replace(":", "%3A")
    refund = commerce.get("refund_id")
    return f"{order}:{refund}" if refund else order


ORDERS = frozenset({"purchase", "refund"})  # names of events that the order number tells apart


def key(event: Event) -> bytes:
    told = joined(conversion_id(event), event["site"], event["event_name"])
    return told + f"{SEPARATOR}{event['apart']}".encode() if "apart" in event else told


def joined(conversion: str, site: str, event_name: str) -> bytes:
    """The key that has these parts."""
    return f"{conversion}{SEPARATOR}{site}{SEPARATOR}{event_name}".encode()


def parts(key: bytes) -> tuple[str, str, str]:
    """(id, site, event name) of a key."""
    conversion, site, name, *_apart = key.decode().split(SEPARATOR)
    return conversion, site, name


def apart(key: bytes) -> str:
    """What sets this conversion apart from others under its id; most often nothing."""
    return "" if key.count(b"\x1f") < 3 else key.decode().split(SEPARATOR)[3]


def set_apart(event: Event, mark: str, label: str) -> Event:
    """The same event as one of several conversions under one id: its own key, and its own id for the platforms."""
    labels = sorted({*event.get("labels", ()), label})
    return {**event, "event_id": f"{event['event_id']}.{mark}", "apart": mark, "labels": labels}


_SHARES = 10_000  # parts into which a share divides the conversions


def chosen(conversion: str, share: float) -> bool:
    """Is this conversion in a share (0 to 1) of all? A larger share has all that a smaller one has."""
    return share >= 1 or partition(conversion, _SHARES) < share * _SHARES


def partition(conversion: str, partitions: int) -> int:
    return int(murmur2(conversion.encode()) & 0x7FFFFFFF) % partitions
