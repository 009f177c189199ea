"""Which copies are of one conversion, and in which partition they meet.

The key of a conversion is (id, site, event name). The id is the order number for purchases and refunds that have one, the
event id for everything else. The partition follows from the id alone (murmur2, as Kafka's own clients hash), so whoever
knows the id knows the partition, in every topic and table of ours.
"""

from aiokafka.partitioner import murmur2

from app.events import Event

#: Control characters are refused in all three parts, so the separator is safe.
SEPARATOR = "\x1f"


def conversion_id(event: Event) -> str:
    """The id that copies of this event share."""
    commerce = event.get("commerce", {})
    order = commerce.get("transaction_id")
    if order and event["event_name"] == "purchase":
        return order
    if order and event["event_name"] == "refund":
        # a colon inside the order number must not make "1" and "2:3" the same as "1:2" and "3"
        order = order.replace("%", "%25").replace(":", "%3A")
        refund = commerce.get("refund_id")
        return f"{order}:{refund}" if refund else order
    return event["event_id"]


def key(event: Event) -> bytes:
    return SEPARATOR.join((conversion_id(event), event["site"], event["event_name"])).encode()


def parts(key: bytes) -> tuple[str, str, str]:
    """(id, site, event name) of a key."""
    conversion, site, name = key.decode().split(SEPARATOR)
    return conversion, site, name


def partition(conversion: str, partitions: int) -> int:
    return int(murmur2(conversion.encode()) & 0x7FFFFFFF) % partitions
