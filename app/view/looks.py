"""Looks at a shop's list of orders, as the page Reconcile keeps them: in memory only, few, and not for long.

Of an uploaded list the file is gone as soon as it is read. What stays is what app/orders.py reads of it: number, time, amount and
currency of each order. It is not written anywhere, since such a list is the shop's own business, and can be uploaded again.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import structlog

from app import control, orders, reconcile
from app.errors import CapistreamError
from app.events import Json
from app.orders import Orders
from app.reconcile import CLASSES, GROUPS, Known, Report
from app.settings import Settings
from app.view.lookup import iso

log = structlog.get_logger()

LOOKS = 8  # that a worker keeps
ORDERS = 200_000  # of all of them together
KEPT = 3600.0  # seconds
PATIENCE = 300.0  # seconds for Kafka to tell all that it has of a list
AT_ONCE = 1.5  # seconds within which most is told, and nobody has to look how far it is
PAGE = 200  # orders on a page
NO_DAY = "none"  # instead of the day of orders without one


@dataclass(frozen=True)
class Asked:
    """What somebody wants to know of a list."""

    to: str
    zone: str
    threshold: float
    columns: dict[str, str]
    by: str


@dataclass
class Look:
    asked: Asked
    orders: int
    id: str = field(default_factory=lambda: secrets.token_hex(6))
    at: int = field(default_factory=control.now)
    read: int = 0  # records of Kafka by now
    report: Report | None = None
    failed: str = ""

    def as_json(self) -> Json:
        return {
            "look": self.id,
            "destination": self.asked.to,
            "by": self.asked.by,
            "at": iso(self.at),
            "listed": self.orders,
            "read": self.read,
            "finished": self.report is not None or bool(self.failed),
            "failed": self.failed,
        }


def told(look: Look, kind: str = "", day: str = "", page: int = 1, reason: str = "") -> Json:
    """The numbers of a look, and one page of the orders of a class or group, a day or a reason; without any of them of none."""
    said = look.as_json()
    if look.report is None:
        return said
    on = None if not day else "" if day == NO_DAY else day
    chosen = look.report.of(kind, on, reason) if kind or day or reason else []
    pages = max(1, -(-len(chosen) // PAGE))
    page = min(max(1, page), pages)
    shown = chosen[(page - 1) * PAGE : page * PAGE]
    return said | {
        "report": look.report.summary,
        "class": kind if kind in CLASSES or kind in GROUPS else "",
        "day": day,
        "reason": reason,
        "total": len(chosen),
        "page": page,
        "pages": pages,
        "orders": [one.as_json() for one in shown],
    }


class Looks:
    """Those of this worker."""

    def __init__(self, settings: Settings, aside: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        """`aside` lets a coroutine run beside everything else."""
        self._settings, self._aside = settings, aside
        self._known: dict[str, Look] = {}
        self._busy = False

    def get(self, name: str) -> Look | None:
        self._forget()
        return self._known.get(name)

    def all(self) -> list[Look]:
        """The newest first."""
        self._forget()
        return list(self._known.values())[::-1]

    async def list_of(self, text: bytes, asked: Asked) -> Orders:
        """What the file says; in a thread, as a long one takes its time. Raises CapistreamError."""
        listed = await asyncio.to_thread(orders.read, text, asked.columns, asked.zone)
        if not listed.orders:
            raise CapistreamError("; ".join(["there is no order in this list", *listed.complaints()[:5]]))
        return listed

    async def begin(self, listed: Orders, asked: Asked) -> Look:
        """Returns when it is over, or goes on beside everything else. Raises CapistreamError while another is made."""
        if self._busy:
            raise CapistreamError("another list is being looked at; wait until that is over")
        look = Look(asked, len(listed.orders))
        self._known[look.id] = look
        self._forget()
        self._busy, over = True, asyncio.Event()
        self._aside(self._run(look, listed, over))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), AT_ONCE)
        return look

    async def _run(self, look: Look, listed: Orders, over: asyncio.Event) -> None:
        def progress() -> None:
            look.read += 1000

        try:
            async with asyncio.timeout(PATIENCE):
                known = await reconcile.read(self._settings, look.asked.to, listed, progress)
            look.report = await asyncio.to_thread(self._report, look.asked, listed, known)
        except TimeoutError:
            look.failed = "Kafka did not give all in time: take a list of fewer days, or `capistream reconcile`"
        except CapistreamError as exc:
            look.failed = str(exc)
        except Exception as exc:
            log.exception("view.look_failed", look=look.id)
            look.failed = type(exc).__name__
        finally:
            self._busy = False
            over.set()

    def _report(self, asked: Asked, listed: Orders, known: Known) -> Report:
        """In a thread, with its numbers: of a long list they take a second."""
        found = reconcile.report(self._settings, asked.to, listed, known, control.now(), asked.threshold)
        _ = found.summary
        return found

    def _forget(self) -> None:
        """The oldest ones: those that are too old, and those that are too many. One that is being made stays."""
        oldest = time.time() - KEPT
        for look in list(self._known.values()):
            many = len(self._known) > LOOKS or sum(one.orders for one in self._known.values()) > ORDERS
            if look.as_json()["finished"] and (many or look.at / 1000 < oldest):
                del self._known[look.id]
