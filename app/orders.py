"""A shop's own list of its orders, as CSV: what `capistream reconcile` and its page begin with. Pure.

Of each row the order number, the time, the amount and the currency are read, and nothing else: such lists have names and addresses,
too. Columns, delimiters, times and amounts are read as in every export: app/exports.py.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from zoneinfo import ZoneInfo

from app import exports
from app.errors import CapistreamError
from app.exports import Sent, Unread

MOST = 100_000  # orders of one list
MOST_UNREAD = 1_000  # rows that are told one by one
COLUMNS = ("order_id", "time", "value", "currency")


@dataclass(frozen=True, slots=True)
class Order:
    id: str
    line: int
    time: int | None = None  # Unix milliseconds
    day: str = ""  # ISO 8601, in the zone of the list; empty where the list tells no time
    value: float | None = None
    currency: str = ""


@dataclass
class Orders:
    zone: str
    orders: dict[str, Order] = field(default_factory=dict)  # by id, each once
    refunds: dict[str, int] = field(default_factory=dict)  # id -> line of the first row with an amount below zero
    repeated: int = 0  # further rows of an order, as of its items
    unread: list[Unread] = field(default_factory=list)  # rows that cannot be used, and what is odd about others
    more_unread: int = 0  # of these that are not kept
    columns: dict[str, str] = field(default_factory=dict)  # what was read where

    def complaints(self) -> list[str]:
        """In words, of which none is a value of the list."""
        return [*map(str, self.unread), *([f"{self.more_unread} more rows like these"] if self.more_unread else [])]

    def complain(self, one: Unread) -> None:
        if len(self.unread) < MOST_UNREAD:
            self.unread.append(one)
        else:
            self.more_unread += 1


def read(text: bytes, columns: Mapping[str, str], zone: str) -> Orders:
    """`columns` names columns by our fields; `zone`, an IANA name, is that of times that carry none, and that of the days.

    Raises CapistreamError where nothing of the list can be read, or where it is too long.
    """
    # not UTF-8: Excel in the west of Europe. What is read is ASCII but for the names of columns
    named, rows = exports.table(exports.decoded(text, "cp1252"), columns, zone)
    found, days = Orders(zone, columns={name: named[name] for name in COLUMNS if name in named}), ZoneInfo(zone)
    if "order_id" not in named:
        raise CapistreamError("the first row names no column with order numbers; name it: --column order_id=COLUMN")
    for line, row in rows:
        if isinstance(row, Unread):
            found.complain(row)
        elif why := _no_order(row.order_id):
            found.complain(Unread(line, named["order_id"], why))
        elif (order := _order(row, line, days)) is None:
            found.complain(Unread(line, named["time"], "is no time that we can read"))
        else:
            _add(found, order, named)
        if len(found.orders) > MOST:
            raise CapistreamError(f"more than {MOST:,} orders: give the list in parts, such as one of each week")
    return found


def _no_order(number: str) -> str:
    """Why it is none; empty: it is one."""
    if not number:
        return "names no order"
    if re.fullmatch(r"\d([.,]\d+)?E\+\d+", number):
        return "was cut by a spreadsheet: give that column the format text"
    return "is too long for an order number" if len(number) > 500 else ""


def _order(row: Sent, line: int, days: ZoneInfo) -> Order | None:
    """None for a time that no calendar has."""
    try:
        day = "" if row.time is None else datetime.fromtimestamp(row.time / 1000, days).date().isoformat()
    except (ValueError, OverflowError, OSError):
        return None
    return Order(row.order_id, line, row.time, day, row.value, row.currency)


def _add(found: Orders, order: Order, named: Mapping[str, str]) -> None:
    """Lists may have a row for each item of an order, and for what was paid back: the first row of an order tells its amount."""
    if order.value is not None and order.value < 0:
        found.refunds.setdefault(order.id, order.line)
        return
    known = found.orders.get(order.id)
    if known is None:
        found.orders[order.id] = order
        return
    found.repeated += 1
    if known.value is None:
        found.orders[order.id] = replace(known, value=order.value, currency=known.currency or order.currency)
    elif order.value not in (None, known.value):
        why = f"is that of the order in line {known.line}, with another amount: the first counts"
        found.complain(Unread(order.line, named["order_id"], why))
