"""What a system has sent, or would have sent, to a platform: an export of the old system, and our own traces and receipts.

An export is a CSV file with a row for each event, or JSON with the bodies of its requests, as they were sent or anywhere inside
the lines of a log. Which place of a body says what is told by the sink (`places`), so both systems are read alike. Or it is
another capistream's receipts.

Bodies stay as they are, in memory only: other systems log people in clear, too.
"""

import codecs
import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import orjson

from app import redaction
from app.errors import BadEvent, CapistreamError
from app.events import Json
from app.formats import NOT_AN_ID
from app.normalize import milliseconds
from app.preview import documents
from sinks._base import Places

FIELDS = ("order_id", "event_id", "name", "time", "value", "currency")
SENT = ("delivered", "accepted")  # outcomes of what a platform has from us
WOULD = ("shadowed", *SENT)
MAX_DEPTH = 12  # levels of a log's line in which a body is looked for

#: What exports call these, without case and signs. The first that a file has is taken.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "order_id": ("orderid", "transactionid", "ordernumber", "orderno", "order", "transaction", "ecommercetransactionid",
                 "incrementid"),
    "event_id": ("eventid", "deduplicationid", "dedupid"),
    "name": ("eventname", "event", "conversionname", "conversionaction"),
    "time": ("eventtime", "eventtimestamp", "conversiontime", "conversiondatetime", "timestamp", "time", "datetime",
             "createdat", "date", "orderdate", "purchasedate", "datecreated", "paidat"),
    "value": ("value", "conversionvalue", "revenue", "purchaserevenue", "amount", "total", "ordertotal", "grandtotal",
              "totalprice", "orderamount"),
    "currency": ("currency", "currencycode", "conversioncurrency"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sent:
    """One event at one platform. What is not known is empty, or None."""

    order_id: str = ""
    event_id: str = ""
    name: str = ""  # the platform's; an export may have ours
    time: int | None = None  # of the event, in Unix milliseconds
    value: float | None = None
    currency: str = ""
    body: bytes = b""  # the event as JSON, where all of it is known
    event_name: str = ""  # ours; empty in an export
    outcome: str = ""  # ours
    reason: str = ""  # ours


class Unread(NamedTuple):
    """What cannot be used of an export, without any of its values."""

    line: int
    field: str
    why: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.field} {self.why}"


@dataclass
class Export:
    sent: list[Sent] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)  # of a CSV file: what was read where
    without: int = 0  # lines of JSON in which there is no event of this platform


def read(text: bytes, name: str, places: Places | None, columns: Mapping[str, str], zone: str | None = None) -> Export:
    """What went to the destination of this name, with a sink of these places.

    `columns` names columns by our fields; `zone` is the IANA name of the zone of times that carry none.

    Raises CapistreamError where nothing of the file can be read.
    """
    if text.lstrip()[:1] in (b"{", b"["):
        if columns:
            raise CapistreamError("--column: this file is JSON, and has no columns")
        return _json(text, name, places, zone)
    return _csv(text, columns, zone)


def columns(given: Iterable[str]) -> dict[str, str]:
    """Of options FIELD=COLUMN. Raises CapistreamError."""
    named = dict(one.partition("=")[::2] for one in given)
    if wrong := [name for name in named if name not in FIELDS or not named[name]]:
        raise CapistreamError(f"--column: FIELD=COLUMN, with FIELD one of {', '.join(FIELDS)}, not {wrong[0]}")
    return named


def zone(name: str | None, option: str = "--time-zone") -> str | None:
    """Raises CapistreamError for a time zone that is none."""
    try:
        return ZoneInfo(name).key if name else None
    except (KeyError, ValueError, OSError):
        raise CapistreamError(f"{option}: an IANA name, for example Europe/Berlin") from None


# JSON


def _json(text: bytes, name: str, places: Places | None, zone: str | None) -> Export:
    export = Export()
    for line, document in documents(text):
        try:
            value = orjson.loads(document)
        except orjson.JSONDecodeError:
            export.unread.append(Unread(line, "line", "is not JSON"))
            continue
        if _is_receipt(value):
            if value["destination"] == name and value["outcome"] in SENT:
                export.sent.append(replace(of_receipt(value), event_name="", outcome="", reason=""))
            continue
        if places is None:
            raise CapistreamError("the sink of this destination does not tell where its requests say what: give CSV")
        bodies = list(_bodies(value, places))
        export.without += not bodies
        for event in bodies:
            try:
                export.sent.append(of_event(event, places, zone))
            except BadEvent as exc:
                export.unread.append(Unread(line, exc.field, exc.detail))
    return export


def _is_receipt(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() >= {"destination", "outcome", "event_time", "site"}


def _bodies(value: Any, places: Places, depth: int = 0) -> list[Json]:
    """The events of every request body in a value, wherever it stands, also as text; or the value, where it is an event."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            return []
    if depth > MAX_DEPTH or not isinstance(value, dict | list):
        return []
    if isinstance(value, list):
        return [one for part in value for one in _bodies(part, places, depth + 1)]
    if found := [one for one in events_of(value, places) if _told(one, places)]:
        return found
    inner = [one for part in value.values() for one in _bodies(part, places, depth + 1)]
    return inner or ([value] if _told(value, places) > 1 else [])


def events_of(body: Json, places: Places) -> Iterator[Json]:
    """Each event of a request's body, with what the body says for all of them."""
    events = body.get(places.events)
    shared = {name: body[name] for name in places.shared if name in body}
    for event in events if isinstance(events, list) else ():
        if isinstance(event, dict):
            yield {**shared, **event}


def _told(value: Json, places: Places) -> int:
    """How much of what makes an event an object says: what happened, which event it is, and when."""
    identified = at(value, places.event_id) is not None or at(value, places.order_id) is not None
    return sum((identified, *(at(value, place) is not None for place in (places.name, places.time))))


def of_event(event: Json, places: Places, zone: str | None = None) -> Sent:
    """An event of a request's body. Raises BadEvent for a time or an amount that is none."""
    said = {name: at(event, getattr(places, name)) for name in FIELDS}
    return replace(_sent(said, zone), body=orjson.dumps(event))


def at(value: Any, path: str) -> Any:
    """What stands there; None for nothing, and for an empty path."""
    for part in path.split("."):
        while isinstance(value, list) and len(value) == 1:
            value = value[0]
        if not isinstance(value, dict):
            return None
        value = value.get(part)
    return value


# CSV


def _csv(text: bytes, columns: Mapping[str, str], zone: str | None) -> Export:
    export = Export()
    export.columns, rows = table(decoded(text), columns, zone)
    for _, one in rows:
        if isinstance(one, Unread):
            export.unread.append(one)
        else:
            export.sent.append(one)
    return export


def decoded(text: bytes, otherwise: str = "") -> str:
    """UTF-8, or what a spreadsheet calls Unicode text; else the encoding `otherwise`. Raises CapistreamError without one."""
    try:
        if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return text.decode("utf-16")
        return text.decode("utf-8-sig")
    except UnicodeDecodeError:
        if otherwise:
            return text.decode(otherwise, errors="replace")
        raise CapistreamError("the file is not UTF-8") from None


def table(
    text: str, columns: Mapping[str, str], zone: str | None
) -> tuple[dict[str, str], Iterator[tuple[int, Sent | Unread]]]:
    """(our field -> the name of its column, the rows with the number of their line); empty rows are left out.

    The rows raise CapistreamError where the text is no CSV.
    """
    first, _, after = text.partition("\n")
    told = re.fullmatch(r"sep=(.)", first.strip(), re.IGNORECASE)  # a line for spreadsheets, which is no row
    head = after.partition("\n")[0] if told else first
    delimiter = told[1] if told else max(",;\t|", key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    if told:
        next(reader)
    try:
        header = [name.strip() for name in next(reader, [])]
    except csv.Error as exc:
        raise CapistreamError(f"line {reader.line_num} is no CSV: {exc}") from None
    found = _columns(header, columns)
    return {name: header[index] for name, index in found.items()}, _rows(reader, header, found, zone)


def _rows(
    reader: Any, header: Sequence[str], found: Mapping[str, int], zone: str | None
) -> Iterator[tuple[int, Sent | Unread]]:
    try:
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            said = {name: row[index].strip() for name, index in found.items() if index < len(row)}
            try:
                yield reader.line_num, _sent(said, zone)
            except BadEvent as exc:
                column = header[found[exc.field]] if exc.field in found else exc.field
                yield reader.line_num, Unread(reader.line_num, column, exc.detail)
    except csv.Error as exc:
        raise CapistreamError(f"line {reader.line_num} is no CSV: {exc}") from None


def _columns(header: Sequence[str], wanted: Mapping[str, str]) -> dict[str, int]:
    """Our field -> index of its column. Raises CapistreamError, without what the first row says: it may be of a person."""
    for name, column in wanted.items():
        if column not in header:
            raise CapistreamError(f"--column: {name}: the first row names no column {column}")
    found = {name: header.index(column) for name, column in wanted.items()}
    plain = [re.sub("[^a-z]", "", name.lower()) for name in header]
    for name, known in COLUMNS.items():
        free = (plain.index(one) for one in known if one in plain and plain.index(one) not in found.values())
        if name not in found and (index := next(free, None)) is not None:
            found[name] = index
    if not found.keys() & {"order_id", "event_id"}:
        raise CapistreamError(
            "the first row names no column that looks like an order number or an event id; name one: "
            "--column order_id=COLUMN or event_id=COLUMN"
        )
    return found


# Values


def _sent(said: Mapping[str, Any], zone: str | None) -> Sent:
    """Raises BadEvent, whose field is one of FIELDS."""
    currency = _text(said.get("currency")).upper()
    if currency and not re.fullmatch("[A-Z]{3}", currency):
        raise BadEvent("bad_currency", "currency", "is not three letters (ISO 4217)")
    return Sent(
        _an_id(said.get("order_id")),
        _an_id(said.get("event_id")),
        _text(said.get("name")).rpartition("/")[2],  # of a name of Google's: customers/1/conversionActions/2
        _time(said.get("time"), zone),
        _amount(said.get("value")),
        currency,
    )


def _text(value: Any) -> str:
    return str(value).strip() if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def _an_id(value: Any) -> str:
    text = _text(value)
    return "" if text.lower() in NOT_AN_ID else text


def _time(value: Any, zone: str | None) -> int | None:
    if value is None or value == "":
        return None
    if isinstance(value, int | float):
        return milliseconds(value, "time", zone)
    text = str(value).replace(" UTC", "Z")  # as BigQuery writes it
    text = re.sub(r" ([+-]\d\d:?\d\d)$", r"\1", text)  # as Shopify writes a zone
    if found := _DAY_FIRST.match(text):
        day, month, year, clock = found.groups()
        text = f"{year}-{month:0>2}-{day:0>2}" + (f" {clock:0>5}" if clock else "") + text[found.end() :]
    return milliseconds(text, "time", zone)


#: 1.5.2026, 9:05: with dots the day is always the first.
_DAY_FIRST = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})(?:,? (\d{1,2}:\d\d))?")


#: 1234.5 and 1,234.50; 1234,5 and 1.234,50
_POINT = re.compile(r"[+-]?(\d{1,3}(,\d{3})+|\d+)?(\.\d+)?")
_COMMA = re.compile(r"[+-]?(\d{1,3}(\.\d{3})+,\d+|\d+,\d{1,2})")
#: What stands around an amount, and between its thousands: €, EUR, spaces of any kind, '.
_MONEY = re.compile(r"^[A-Z]{3}(?=[\s\d+-])|(?<=[\s\d])[A-Z]{3}$|[\s'\N{RIGHT SINGLE QUOTATION MARK}€$£¥]")


def _amount(value: Any) -> float | None:
    if value is None or value == "":
        return None
    text = _MONEY.sub("", _text(value)).replace("\N{MINUS SIGN}", "-")
    if _COMMA.fullmatch(text):
        text = text.replace(".", "").replace(",", ".")
    try:
        amount = float(text.replace(",", "") if _POINT.fullmatch(text) else text)
    except ValueError:
        amount = math.nan
    if not math.isfinite(amount):
        raise BadEvent("wrong_type", "value", "is no number")
    return amount


# Our own


def of_trace(row: Json, places: Places | None) -> Sent | None:
    """A row of capistream.trace, or a line of `capistream preview --json`; None for what is neither, and for a failed attempt."""
    outcome, body = _text(row.get("outcome")) or "shadowed", row.get("body")
    try:
        body = orjson.loads(body) if isinstance(body, str) else body
    except orjson.JSONDecodeError:  # too long to be kept whole
        body = None
    if outcome in ("retry", "halt") or (body is None and "outcome" not in row):
        return None
    known = Sent(
        _an_id(row.get("transaction_id")),
        _an_id(row.get("event_id")),
        _text(row.get("name")),
        event_name=_text(row.get("event_name")),
        outcome=outcome,
        reason=_text(row.get("reason")),
    )
    events = list(events_of(body, places)) if places and isinstance(body, dict) else []
    if places is None or len(events) != 1:
        return known
    said = of_event(events[0], places)
    return replace(
        said,
        order_id=known.order_id or said.order_id,
        event_id=known.event_id,
        name=said.name or known.name,
        event_name=known.event_name,
        outcome=outcome,
        reason=known.reason,
        # of what was really sent the row leaves out what tells of the person in clear: app/trace.py
        body=said.body if outcome == "shadowed" else b"",
    )


def of_receipt(row: Json) -> Sent:
    """A row of capistream.receipts."""
    time, value = row.get("event_time"), row.get("value")
    return Sent(
        _an_id(row.get("transaction_id")),
        _an_id(row.get("event_id")),
        _text(row.get("name")),
        time if isinstance(time, int) else None,
        float(value) if isinstance(value, int | float) else None,
        _text(row.get("currency")),
        event_name=_text(row.get("event_name")),
        outcome=_text(row.get("outcome")),
        reason=_text(row.get("reason")),
    )


class Ours:
    """What became of our events at one destination, by conversion and name: the request in shadow, or the receipt."""

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, str], Sent] = {}

    def add_trace(self, key: bytes, row: Json, places: Places | None) -> None:
        if sent := of_trace(row, places):
            self._known[key, _text(row.get("name"))] = sent

    def add_receipt(self, key: bytes, row: Json) -> None:
        """After all traces: they say what was sent, the receipt says what became of it.

        What was sent, or would have been, stays so: a later row may be of a late copy.
        """
        sent = of_receipt(row)
        known = self._known.get((key, sent.name))
        if known and sent.outcome in WOULD and (known.body or known.time is not None):
            sent = replace(known, outcome=sent.outcome, reason="")
        if known is None or known.outcome not in WOULD or sent.outcome in WOULD:
            self._known[key, sent.name] = sent

    def all(self) -> Iterable[Sent]:
        """A conversion that was held back at first, and sent when its consent came, is one that was sent."""
        sent = {key for (key, _), one in self._known.items() if one.outcome in WOULD}
        return [one for (key, _), one in self._known.items() if one.outcome in WOULD or key not in sent]


def shown_id(text: str) -> str:
    """An id to show: an old system may have people's addresses for ids."""
    return "[redacted]" if redaction.in_an_id(text) else text
