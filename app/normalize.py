"""One pure function from bytes to events: decode, map, validate, hash.

The collector calls it for what it is sent, the normalize agent for the customer's own topics, so personal data is hashed by
the first process of ours that sees it. Nothing is dropped in silence: what cannot be taken comes back as `Refused` with a
reason and a field, what was taken without a part of it names that part in `drops`.
"""

import ipaddress
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import orjson
from pydantic import TypeAdapter, ValidationError

from app import browser_ids, formats, identity, plain, proxies, reading, redaction, schemas, signals, traffic
from app import consent as consenting
from app.errors import BadEvent, SettingsError
from app.events import FORMAT_VERSION, OWN_LABELS, SIGNALS, Draft, Event, Json, Origin, Source
from app.formats import NOT_AN_ID, Ignored, as_json, order_id
from app.plain import AMOUNTS, ITEM_NUMBERS, MOST, Plain
from app.reading import Carried, Rules
from app.redaction import PageUrl, Redact
from app.schemas import Schemas
from app.settings import Settings, SourceTopic
from app.signals import Unreadable, google

MAX_BYTES = 60_000  # of one event, as JSON: a row holds 16 copies at most, and Kafka takes 1 MB
MAX_EVENTS = 5_000  # of one body: each may become a dead letter
MAX_DEPTH = 64  # levels of objects and lists
FUTURE_TOLERANCE = timedelta(hours=1)  # a server's clock may be off by so much; more is a mistake
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
OLDEST = datetime(2015, 1, 1, tzinfo=UTC)
_FUTURE, _OLDEST = int(FUTURE_TOLERANCE.total_seconds() * 1000), int(OLDEST.timestamp() * 1000)
#: ISO 4217 currencies whose smallest unit is not a hundredth.
_NO_MINOR_UNIT = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_THOUSANDTHS = "BHD IQD JOD KWD LYD OMR TND"
_EXPONENTS = dict.fromkeys(_NO_MINOR_UNIT.split(), 0) | dict.fromkeys(_THOUSANDTHS.split(), 3)
_ADDRESS = 100  # characters of the longest IP address, with what people put behind it
_POSTAL_CODE = 10  # characters of the longest, which is grouped like some countries' phone numbers: 07001-1234
_OF_A_PERSON = ("user.", "ids.", "context.ip")
_SIGNALS = frozenset(SIGNALS)
_USERS_PLACES = ("city", "region", "postal_code")
_NOT_HASHED = frozenset({"country", "user_id", *_USERS_PLACES})
#: Of commerce: catalogues know these by their digits.
_CATALOGUE_IDS = ("item_id", "list_id")
#: The largest whole number that every reader of JSON reads alike.
_EXACT = 1 << 53
#: URL parameters that are click ids, by our name
_URL_IDS = {
    "gclid": "gclid",
    "gbraid": "gbraid",
    "wbraid": "wbraid",
    "fbclid": "fbclid",
    "ttclid": "ttclid",
    "epik": "epik",
    "ScCid": "sc_click_id",
    "rdt_cid": "rdt_cid",
    "li_fat_id": "li_fat_id",
    "msclkid": "msclkid",
    "twclid": "twclid",
}
#: Most addresses have none, and to take one apart is dear. A name may be percent-encoded.
_MAY_HAVE_CLICK_ID = re.compile("|".join(("%", *_URL_IDS)))
#: Of the context: what is an address, or is written by programs alone.
_PAGES = ("url", "referrer")
_NO_PLAIN_TEXTS = ("ip", "user_agent", *_PAGES)
_CURRENCY = re.compile("[A-Z]{3}")
_COUNTRY = re.compile("[A-Z]{2}")
_META_MARK = re.compile(r"\.[A-Z][\w-](?:[\w-]{6})?$", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
#: A field's name as programs write them, and without long numbers: what else stands there may be anybody's name or number.
_FIELD_NAME = re.compile(r"(?!.*\d{6})[^\W\d][\w$:.-]{0,63}")
_DRAFT: TypeAdapter[Draft] = TypeAdapter(Draft)
_NO_SCHEMAS: Schemas = {}
#: A tuple, as every value of every event is asked: `dict | list` is made anew each time, and slower.
_NESTED = (dict, list)


@dataclass(frozen=True)
class Inlet:
    """How one source is read."""

    name: str
    format: str
    site: str
    source: Source
    sources: frozenset[str] = frozenset({"pixel", "server", "app", "offline", "crm"})  # what events may say they are
    country: str | None = None
    minor_units: bool = False
    time_zone: str | None = None
    backfill: bool = False
    keep: Mapping[str, frozenset[str]] | None = None  # identifier -> hash rules to keep; None: all
    made_up_id: str = ""  # for events that carry none; without it they are refused
    categories: Mapping[str, Sequence[str]] = field(default_factory=dict)  # of the site's consent manager -> signals
    gpc: bool = False  # the browser said Global Privacy Control with its request
    prefetch: bool = False  # and that nobody looks at its page yet
    internal: Sequence[proxies.Network] = ()  # whose people are our own
    ours: bool = False  # the connection is from there
    redact: Redact = "mask"  # what becomes of personal data in free text
    url: PageUrl = "full"  # how much of page addresses is kept
    encoding: str = "json"  # or registry
    rules: Rules = reading.AS_IT_IS
    elsewhere: Mapping[str, "Inlet"] = field(default_factory=dict)  # the same for other sites that its events may name


@dataclass(frozen=True)
class Normalized:
    event: Event
    drops: tuple[tuple[str, str], ...] = ()  # (field, reason): parts that could not be used

    @cached_property
    def json(self) -> bytes:
        """The event, as rows hold it. Raises BadEvent."""
        return as_json(self.event)


@dataclass(frozen=True)
class Refused:
    """An event that cannot be taken; see BadEvent. `index` is its place in the body."""

    reason: str
    field: str
    detail: str
    index: int = 0


Result = Normalized | Refused | Ignored


def inlet_of(settings: Settings, name: str, topic: SourceTopic) -> Inlet:
    """Raises SettingsError for a time zone that is none."""
    if topic.time_zone is not None:
        try:
            ZoneInfo(topic.time_zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise SettingsError([f"sources.{name}.time_zone: no time zone is called so (IANA name)"]) from None
    inlet = Inlet(
        name=name,
        format=topic.format,
        site=topic.site,
        source=topic.source,
        encoding=topic.encoding,
        country=settings.sites[topic.site].country,
        minor_units=topic.minor_units,
        time_zone=topic.time_zone,
        backfill=topic.backfill,
        categories=settings.sites[topic.site].categories,
        keep=wanted_variants(settings),
        internal=settings.traffic.networks,
        redact=topic.redact or settings.sites[topic.site].redact,
        url=topic.url or settings.sites[topic.site].url,
        rules=reading.rules(topic.map, topic.filter),
    )
    if "site" not in topic.map:
        return inlet
    others = {name: one for name, one in settings.sites.items() if name != topic.site}
    elsewhere = {
        name: replace(
            inlet,
            site=name,
            country=one.country,
            categories=one.categories,
            redact=topic.redact or one.redact,
            url=topic.url or one.url,
        )
        for name, one in others.items()
    }
    return replace(inlet, elsewhere=elsewhere)


def wanted_variants(settings: Settings) -> Mapping[str, frozenset[str]] | None:
    """The hash rules that the configured destinations use; None for all."""
    from sinks import SINKS

    if settings.worker.keep_variants == "all":
        return None
    keep: dict[str, set[str]] = {name: set() for name in identity.RULES}
    for destination in settings.destinations.values():
        for name, rule in SINKS[destination.sink].variants.items():
            keep[name].add(rule)
    return {name: frozenset(rules) for name, rules in keep.items()}


def parse(value: bytes | None) -> Any:
    """JSON. Raises BadEvent; the text never quotes the value."""
    if not value:
        raise BadEvent("empty", "", "the body is empty")
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as exc:
        raise BadEvent("not_json", "", f"not JSON, at character {exc.pos}") from None


def read(value: bytes, inlet: Inlet) -> Any:
    """A body of this source's format, in the way that takes least. Raises BadEvent."""
    found = plain.read(value) if inlet.format == "capistream" and inlet.rules is reading.AS_IT_IS else None
    return parse(value) if found is None else found


def normalize(
    body: Any,
    inlet: Inlet,
    received: int,
    origin: Origin,
    extra: Json | None = None,
    carried: Carried = reading.NOTHING,
) -> list[Result]:
    """The events of one body, as `parse` or `read` gives it, in order. `received` is the record time in Unix milliseconds.

    `extra` is what the collector knows of the connection (ip, user agent): it wins over what the sender says. `carried` is
    what the record has beside its value.
    """
    results: list[Result] = []
    is_plain = isinstance(body, Plain)
    try:
        body, carried = reading.opened(body, carried)
        ones: list[Any] = plain.drafts(body) if isinstance(body, Plain) else formats.split(inlet.format, body)
    except BadEvent as exc:
        return [Refused(exc.reason, exc.field, exc.detail)]
    if not ones:
        return [Refused("empty", "", "there is no event in it")]
    if len(ones) > MAX_EVENTS:
        return [Refused("too_many", "", f"more than {MAX_EVENTS} events in one body")]
    headers, cut = reading.kept(carried.headers)
    place: Origin = {**origin, "headers": headers} if headers else origin
    for index, one in enumerate(ones):
        try:
            draft = one if is_plain else reading.draft(one, inlet.format, inlet.rules, carried)
            if isinstance(draft, Ignored):
                results.append(draft)
                continue
            work = _Work(_for_site(inlet, draft.get("site")), received, place)
            if cut:
                work.drops.append(("origin.headers", "too_large"))
            results.append(work.event(draft, extra, is_plain=is_plain))
        except BadEvent as exc:
            results.append(Refused(exc.reason, exc.field, exc.detail, index))
        except RecursionError:
            results.append(Refused("too_deep", "", "nested too deeply", index))
    return results


def _for_site(inlet: Inlet, site: Any) -> Inlet:
    return inlet.elsewhere.get(site, inlet) if isinstance(site, str) else inlet


def normalize_bytes(
    value: bytes | None,
    inlet: Inlet,
    received: int,
    origin: Origin,
    carried: Carried = reading.NOTHING,
    known: Schemas = _NO_SCHEMAS,
) -> list[Result]:
    """The same, from a record's value. `known` has every schema that a source with a registry names in it."""
    try:
        body = read(value or b"", inlet) if inlet.encoding == "json" else schemas.decoded(value, known)
    except BadEvent as exc:
        return [Refused(exc.reason, exc.field, exc.detail)]
    return normalize(body, inlet, received, origin, carried=carried)


@dataclass
class _Work:
    """One event on its way; collects what had to be dropped."""

    inlet: Inlet
    received: int
    origin: Origin
    drops: list[tuple[str, str]] = field(default_factory=list)
    clean: bool = False  # nothing personal is in its texts, nor in its ids: they need not be looked at one by one
    clean_pages: Collection[str] = ()  # nor in these of its context
    room: int = MAX_BYTES  # for own data, in characters

    def event(self, raw: Json, extra: Json | None, *, is_plain: bool) -> Normalized:
        inlet, draft = self.inlet, self._draft(raw, is_plain=is_plain)
        if extra:
            draft["context"] = {**draft.get("context", {}), **extra}  # type: ignore[typeddict-item]
        event: Json = {
            "v": FORMAT_VERSION,
            "event_id": "",
            "event_name": _clean_name(draft["event_name"].strip()),
            "site": inlet.site,
            "source": self._source(draft),
            "time": 0,
            "received": self.received,
            "origin": self.origin,
        }
        if draft.get("site", inlet.site) != inlet.site:
            raise BadEvent("unknown_site", "site", "is not the site of this source")
        event["time"] = self._time(draft, event["source"])
        given = _given_ids(draft)
        self._look(draft, given)
        ids = self._ids(given)
        commerce = self._commerce(draft)
        event["event_id"] = self._event_id(draft, event["event_name"], commerce)
        if "pairs" in draft:
            event["pairs"] = False
        context = self._context(draft)
        for name, part in (
            ("user", self._user(draft)),
            ("context", context),
            ("ids", ids),
            ("commerce", commerce),
            ("consent", draft.get("consent")),
            ("tags", self._tags(draft)),
            ("labels", self._labels(draft, context)),
            ("custom", self._custom(draft.get("custom", {}))),
        ):
            if part:
                event[name] = part
        if self.drops and (lost := {name: why for name, why in self.drops if name.startswith(_OF_A_PERSON)}):
            event["unusable"] = lost
        done = Normalized(event, tuple(self.drops))  # type: ignore[arg-type]
        _must_fit(MAX_BYTES - len(done.json))
        return done

    def _draft(self, raw: Json, *, is_plain: bool) -> Draft:
        """A copy, of fields that we know, each of its type. Raises BadEvent."""
        exact: Any = raw if is_plain else plain.draft(raw)
        if exact is None:
            given: Any = _without_nulls(raw)
            self._readable_consent(given)
            return _validated(given)
        if "custom" in exact:
            exact["custom"] = _without_nulls(exact["custom"], 1)
        self._readable_consent(exact)
        draft: Draft = exact
        return draft

    def _look(self, draft: Draft, given: Sequence[tuple[str, str]]) -> None:
        """One look at all texts and ids of it: as a rule nothing personal is in any of them."""
        context: Any = draft.get("context", {})
        commerce: Any = draft.get("commerce", {})
        texts = [value for value in commerce.values() if type(value) is str]
        for item in commerce.get("items", ()):
            texts += [value for value in item.values() if type(value) is str]
        pages = {}
        for name, text in context.items():
            if name not in _NO_PLAIN_TEXTS:
                texts.append(text)
            elif name in _PAGES and self.inlet.url == "full" and (rest := redaction.plain_page(text)) is not None:
                pages[name] = rest
        ids = [text for _, text in given]
        ids.append(str(draft.get("event_id", "")))
        if redaction.clean(texts, ids, pages.values()):
            self.clean, self.clean_pages = True, pages.keys()

    def _labels(self, draft: Draft, context: Json) -> list[str]:
        told: set[str] = set()
        if "labels" in draft:
            told = {label for one in draft["labels"] if (label := self._text("labels", one)) is not None} - OWN_LABELS
        if self.inlet.backfill:
            told.add("backfill")
        if traffic.is_robot(context.get("user_agent", "")):
            told.add("bot")
        if self.inlet.prefetch:
            told.add("prefetch")
        if self.inlet.ours or traffic.is_internal(draft.get("context", {}).get("ip", ""), self.inlet.internal):
            told.add("internal")
        return sorted(told)

    def _tags(self, draft: Draft) -> Json:
        found: Json = {}
        for name, tag in draft.get("tags", {}).items():
            given = {"event_id": self._id("tags", tag["event_id"])} if "event_id" in tag else {}
            found[self._id("tags", name)] = {**tag, **given}
        return found

    def _source(self, draft: Draft) -> str:
        source = draft.get("source") or self.inlet.source
        if source not in self.inlet.sources:
            raise BadEvent("source_not_allowed", "source", f"this key may not send {source} events")
        return source

    def _readable_consent(self, raw: Json) -> None:
        """A signal that cannot be read counts as denied; it must not cost the event."""
        consent = raw.get("consent")
        if consent is not None and not _is_plain(consent):
            raw["consent"] = self._consent(consent)
        if self.inlet.gpc:
            raw["consent"] = {**raw.get("consent", {}), "gpc": True}

    def _consent(self, consent: Any) -> Json:
        """What can be read of it, each part for the worse where that is in doubt."""
        if not isinstance(consent, Mapping):
            self.drops.append(("consent", "unreadable"))
            return dict.fromkeys(SIGNALS, "denied")
        readable = dict(consent)
        for name in SIGNALS:
            if name in readable:
                value = readable[name]
                value = {True: "granted", False: "denied"}.get(value, value) if isinstance(value, bool) else value
                value = value.strip().lower() if isinstance(value, str) else value
                readable[name] = value if value in ("granted", "denied") else self._unreadable(name, "denied")
        self._read_googles(readable)
        if "region" in readable:
            place = str(readable.pop("region")).strip().upper()
            if consenting.is_place(place):
                readable["region"] = place
            else:
                self.drops.append(("consent.region", "not_a_region"))
        for name in ("tcf", "gpp", "us_privacy"):
            if name in readable and not signals.looks_like(name, readable[name]):
                # policy counts such a string as denied; what it is instead may be personal, and is not kept
                readable[name] = self._unreadable(name, "unreadable")
        if "gpc" in readable and _yes(readable["gpc"]) is None:
            readable["gpc"] = self._unreadable("gpc", True)
        if "categories" in readable:
            given = readable["categories"]
            said = {name: _yes(value) for name, value in given.items()} if isinstance(given, Mapping) else {}
            if None in said.values() or not isinstance(given, Mapping):
                self._unreadable("categories", None)
            readable["categories"] = {name: value is True for name, value in said.items()}
            self._read_categories(readable)
            readable["categories"] = {
                self._name("consent.categories", name): said for name, said in readable["categories"].items()
            }
        return readable

    def _read_googles(self, readable: Json) -> None:
        """Google's parameters say the same four signals in another way; a denial in any of them counts."""
        for name, read, tells in (("gcs", google.gcs, SIGNALS[:2]), ("gcd", google.gcd, SIGNALS)):
            if name not in readable:
                continue
            try:
                said = read(str(readable.pop(name)))
            except Unreadable:
                said = dict.fromkeys(tells, self._unreadable(name, "denied"))
            _add_signals(readable, said)

    def _read_categories(self, readable: Json) -> None:
        """A category of the settings that this consent leaves out is one that nobody agreed to."""
        for category, means in self.inlet.categories.items():
            said = "granted" if readable["categories"].get(category) else "denied"
            _add_signals(readable, dict.fromkeys(means, said))

    def _unreadable(self, name: str, instead: Any) -> Any:
        self.drops.append((f"consent.{name}", "unreadable"))
        return instead

    def _event_id(self, draft: Draft, event_name: str, commerce: Json) -> str:
        given, clean = str(draft.get("event_id", "")), self.clean
        if given.strip().lower() in NOT_AN_ID:
            if of_order := order_id(event_name, commerce):
                return of_order
            given, clean = self.inlet.made_up_id or given, False
        return _clean_id(given, "event_id", clean=clean)

    def _time(self, draft: Draft, source: str) -> int:
        if "time" not in draft:
            return self.received
        time = milliseconds(draft["time"], "time", self.inlet.time_zone)
        if source == "pixel" and "sent_at" in draft:
            # a browser's clock may be off by years, but not by more between two readings
            time += self.received - milliseconds(draft["sent_at"], "sent_at", self.inlet.time_zone)
        if time > self.received + _FUTURE:
            raise BadEvent("time_in_future", "time", "lies more than an hour ahead of its receipt")
        if time < _OLDEST:
            raise BadEvent("time_out_of_range", "time", "lies before 2015")
        return min(time, self.received)

    def _ids(self, given: Sequence[tuple[str, str]]) -> Json:
        ids: Json = {}
        for name, text in given:
            if name == "ga_client_id" and not self.clean and redaction.in_an_id(text):
                raise BadEvent("personal_id", "ids.ga_client_id", "looks like an e-mail address or phone number")
            if name in ids or text.strip().lower() in NOT_AN_ID:
                continue
            if len(text) > 1000 or _has_control(text):
                self.drops.append((f"ids.{name}", "malformed"))
            elif not self.clean and redaction.in_an_id(text):
                self.drops.append((f"ids.{name}", "personal"))
            else:
                ids[name] = text
        return ids

    def _commerce(self, draft: Draft) -> Json:
        commerce: Any = draft.get("commerce")
        if not commerce:
            return {}
        commerce = {name: value for name, value in commerce.items() if value != ""}
        for name in ("transaction_id", "refund_id"):
            if name in commerce:
                if commerce[name].strip().lower() in NOT_AN_ID:
                    del commerce[name]
                else:
                    _clean_id(commerce[name], f"commerce.{name}", clean=self.clean)
        if "currency" in commerce:
            commerce["currency"] = _currency(commerce["currency"].strip())
        elif "value" in commerce:
            raise BadEvent("no_currency", "commerce.currency", "is missing, and there is a value")
        if self.inlet.minor_units:
            _to_major_units(commerce)
        if "items" in commerce:
            items = commerce["items"]
            if not self.clean:
                items = [self._texts(item, "commerce.items") for item in items]
            commerce["items"] = [item for item in items if item]
        return commerce if self.clean else self._texts(commerce, "commerce")

    def _texts(self, part: Json, place: str) -> Json:
        """Without what is personal in its texts."""
        told: Json = {}
        for name, value in part.items():
            if name in _CATALOGUE_IDS:
                told[name] = self._id(f"{place}.{name}", value)
            else:
                told[name] = self._text(f"{place}.{name}", value) if isinstance(value, str) else value
        return {name: value for name, value in told.items() if value is not None}

    def _text(self, place: str, text: str) -> str | None:
        """Without what is personal in it; None where such a text is dropped."""
        found = redaction.masked(text)
        return text if found == text else self._personal(place, found)

    def _id(self, place: str, text: str) -> str:
        """What stands for something else, without what no id can be."""
        found = redaction.of_an_id(text)
        if found != text:
            self._personal(place, found)
        return found

    def _name(self, place: str, name: str) -> str:
        """A name that the sender chose."""
        found = redaction.masked(name)
        if found != name:
            self._personal(place, found)
        return found

    def _personal(self, place: str, instead: str) -> str | None:
        if (place, "personal") not in self.drops:
            self.drops.append((place, "personal"))
        return instead if self.inlet.redact == "mask" else None

    def _custom(self, custom: Mapping[str, Any], prefix: str = "") -> Json:
        """Own data as scalars: objects become dotted names, lists become JSON text; without what is personal."""
        result: Json = {}
        for name, value in custom.items():
            place = prefix + self._name("custom", name)  # by itself: joined to others it may look like something else
            self._take_room(place)  # that of an object comes again with each of its members
            if isinstance(value, Mapping):
                result.update(self._custom(value, place + "."))
            elif (told := self._own(place, value)) is not None:
                result[redaction.masked(place)] = as_json(told).decode() if isinstance(told, list) else told
        return result

    def _own(self, name: str, value: Any) -> Any:
        """A value of own data in a field of this name; None where it is dropped."""
        if isinstance(value, list):
            return [told for one in value if (told := self._own(name, one)) is not None]
        if isinstance(value, dict):
            outer = name[-redaction.LONGEST_NAME :]  # more of it nobody looks at
            told = {self._name("custom", k): self._own(f"{outer}.{k}", v) for k, v in value.items()}
            return {k: v for k, v in told.items() if v is not None}
        if redaction.named(name, value):
            return self._personal("custom", identity.REDACTED)
        if isinstance(value, str):
            self._take_room(value)
            return self._text("custom", value)
        if type(value) is int and redaction.masked(str(value)) != str(value):  # a card's number
            return self._personal("custom", identity.REDACTED)
        return value

    def _take_room(self, text: str) -> None:
        """Before anybody looks at it. Raises BadEvent."""
        self.room -= len(text)
        _must_fit(self.room)

    def _user(self, draft: Draft) -> Json:
        given: Any = draft.get("user")
        if not given:
            return {}
        user: Json = {}
        if "country" in given:
            country = identity.country(given["country"].strip())
            if _COUNTRY.fullmatch(country):
                user["country"] = country
            elif country:
                self.drops.append(("user.country", "not_two_letters"))
        region = user.get("country") or self.inlet.country
        if "user_id" in given:
            user_id = str(given["user_id"]).strip()
            if user_id.lower() not in NOT_AN_ID:
                user["user_id"] = redaction.of_a_person(user_id, region)
        for name in _USERS_PLACES:
            if name in given:
                self._place(name, given[name].strip(), user)
        for name, value in given.items():
            if name in _NOT_HASHED or not (text := value.strip()):
                continue
            try:
                keep = None if self.inlet.keep is None else self.inlet.keep.get(name, frozenset())
                if found := identity.hashes(name, text, region, keep):
                    user[name] = found
            except identity.Unusable as exc:
                self.drops.append((f"user.{name}", str(exc)))
        return user

    def _place(self, name: str, text: str, user: Json) -> None:
        try:
            digest = identity.place(text)
        except identity.Unusable as exc:
            self.drops.append((f"user.{name}", str(exc)))
            return
        if digest:
            user.setdefault("places", {})[name] = digest
        elif identity.looks_personal(text) or (len(text) > _POSTAL_CODE and redaction.masked(text) != text):
            self.drops.append((f"user.{name}", "personal"))
        elif text:
            user[name] = text[:100]

    def _context(self, draft: Draft) -> Json:
        context: Json = {}
        given: Any = draft.get("context", {})
        for name, text in given.items():
            if name == "ip":
                continue
            # before they are cut: half an address is not found any more
            if told := text if name in self.clean_pages else self._of_page(name, text):
                context[name] = told[: 1000 if name == "user_agent" else 2000]
        if given.get("ip"):
            ip = given["ip"].strip()
            # longer ones are not worth a place in the cache, either
            address, of_a_person = _address(ip) if len(ip) <= _ADDRESS else ("", False)
            if of_a_person:
                context["ip"] = address
            else:
                self.drops.append(("context.ip", "private" if address else "not_an_address"))
        return context

    def _of_page(self, name: str, text: str) -> str | None:
        place = f"context.{name}"
        if name == "user_agent":
            found, personal = _user_agent(text) if len(text) <= 500 else _user_agent.__wrapped__(text)
            if personal:
                self._personal(place, found)
            return found
        if name not in _NO_PLAIN_TEXTS:
            return text if self.clean else self._text(place, text)
        found = redaction.page(text, self.inlet.url, self.inlet.redact)
        if self.inlet.url == "full" and found != text:
            self._personal(place, found)
        return found


@lru_cache(maxsize=4096)  # many people have the same
def _user_agent(text: str) -> tuple[str, bool]:
    """What is kept of it, and whether that is less because something personal was in it."""
    told = _CONTROL.sub("", text.encode(errors="replace").decode())  # a header may be no UTF-8
    found = redaction.of_an_id(told)
    return found, found != told


@lru_cache(maxsize=1 << 14)  # one visitor has many events
def _address(text: str) -> tuple[str, bool]:
    """The address, empty for what is none, and whether it may be a person's. Without an interface's name, and without the mark
    that Meta's parameter builder appends.
    """
    bare = identity.redact(text).strip().partition("%")[0]  # what then is no address is dropped
    if found := proxies.of_the_internet(bare):
        return found, True
    for one in (bare, _META_MARK.sub("", bare)):
        try:
            parsed = ipaddress.IPv6Address(one) if ":" in one else ipaddress.IPv4Address(one)
        except ValueError:
            continue
        parsed = getattr(parsed, "ipv4_mapped", None) or parsed
        return str(parsed), proxies.is_of_a_person(parsed)
    return "", False


def _must_fit(room: int) -> None:
    """`room` is what is left of MAX_BYTES. Raises BadEvent."""
    if room < 0:
        raise BadEvent("too_large", "", f"larger than {MAX_BYTES} bytes")


def _is_plain(consent: Any) -> bool:
    """Are some of the four signals all that it says, and as we write them?"""
    return (
        isinstance(consent, dict)
        and consent.keys() <= _SIGNALS
        and all(said in ("granted", "denied") for said in consent.values())
    )


def _validated(raw: Json) -> Draft:
    """The same of anything. Raises BadEvent with the first field that is wrong."""
    _typed(raw)
    try:
        draft = _DRAFT.validate_python(raw)
    except ValidationError as exc:
        first = exc.errors(include_input=False, include_url=False)[0]
        reason = {"missing": "missing", "extra_forbidden": "unknown_field"}.get(first["type"], "wrong_type")
        place = _place(part for part in first["loc"] if part not in ("str", "int", "float"))
        detail = {"missing": "is missing", "unknown_field": "is not known; your own data goes into custom"}.get(
            reason, first["msg"]
        )
        raise BadEvent(reason, place, detail) from None
    if place := _amount_that(lambda amount: not -MOST < amount < MOST, draft.get("commerce", {})):
        raise BadEvent("wrong_type", place, f"must be a number below {MOST:.0e}")
    return draft


def _place(parts: Iterable[int | str]) -> str:
    """A path to a field; a name that is not our own may be personal data, too."""
    named = (part if isinstance(part, int) or _FIELD_NAME.fullmatch(part) else identity.REDACTED for part in parts)
    return ".".join(map(str, named))[:200]


def _without_nulls(value: Any, depth: int = 0) -> Any:
    """A copy of an object or list without nulls. Raises BadEvent for one nested too deeply."""
    if depth > MAX_DEPTH:
        raise BadEvent("too_deep", "", "nested too deeply")
    if isinstance(value, dict):
        return {
            k: _without_nulls(v, depth + 1) if isinstance(v, _NESTED) else v for k, v in value.items() if v is not None
        }
    return [_without_nulls(v, depth + 1) if isinstance(v, _NESTED) else v for v in value if v is not None]


def _yes(value: Any) -> bool | None:
    """True or false in one of its spellings; None for what cannot be read."""
    said = str(value).strip().lower() if isinstance(value, str | int) else ""
    return {"true": True, "false": False, "1": True, "0": False}.get(said)


def _add_signals(readable: Json, said: Mapping[str, str]) -> None:
    """The same signals, said in another way: a denial in either counts."""
    for signal, value in said.items():
        readable[signal] = "denied" if "denied" in (value, readable.get(signal)) else value


def _typed(raw: Json) -> None:
    """What validation would take for another type. Raises BadEvent, naming the field.

    A truth value is no amount, and no id. A number as an id is its digits, as long as it still has them all.
    """
    commerce, ids = raw.get("commerce"), raw.get("ids")
    for place, part, names in (
        ("", raw, ("event_id",)),
        ("commerce.", commerce, ("transaction_id", "refund_id")),
        ("user.", raw.get("user"), ("user_id",)),
        ("ids.", ids, tuple(ids) if isinstance(ids, dict) else ()),
    ):
        if not isinstance(part, dict):
            continue
        for name in names:
            value = part.get(name)
            if isinstance(value, bool):
                del part[name]
            elif isinstance(value, float):
                if abs(value) >= _EXACT:
                    raise BadEvent("wrong_type", _place((place + name,)), "is too large for a number: send it as text")
                part[name] = str(int(value)) if value.is_integer() else str(value)
    if isinstance(commerce, dict) and (place := _amount_that(lambda amount: isinstance(amount, bool), commerce)):
        raise BadEvent("wrong_type", place, "must be a number")


def _amount_that(is_wrong: Callable[[Any], bool], commerce: Mapping[str, Any]) -> str:
    """The place of the first such number, or an empty text."""
    for name in AMOUNTS:
        if name in commerce and is_wrong(commerce[name]):
            return f"commerce.{name}"
    items = commerce.get("items")
    for i, item in enumerate(items if isinstance(items, list) else ()):
        for name in ITEM_NUMBERS if isinstance(item, dict) else ():
            if name in item and is_wrong(item[name]):
                return f"commerce.items.{i}.{name}"
    return ""


def _currency(value: str) -> str:
    """Raises BadEvent."""
    code = value.upper()
    if not _CURRENCY.fullmatch(code):
        raise BadEvent("bad_currency", "commerce.currency", "must be three letters (ISO 4217)")
    return code


def _clean_id(value: str, place: str, most: int = 200, *, clean: bool = False) -> str:
    """An id byte for byte. Raises BadEvent when it cannot be one. `clean`: nothing personal is in it, as is known already."""
    if value.strip().lower() in NOT_AN_ID:
        raise BadEvent("missing", place, "is missing")
    if len(value) > most:
        raise BadEvent("too_long", place, f"has more than {most} characters")
    if _has_control(value):
        raise BadEvent("control_character", place, "has a control character")
    if not clean and redaction.in_an_id(value):
        raise BadEvent("personal_id", place, "looks like an e-mail address or phone number")
    return value


def _has_control(text: str) -> bool:
    return not text.isprintable() and _CONTROL.search(text) is not None


def _given_ids(draft: Draft) -> list[tuple[str, str]]:
    """By name, as a platform's API wants them; those of the page's address behind the others."""
    given: Any = draft.get("ids", {})
    ids = [*given.items()]
    url = draft.get("context", {}).get("url", "")
    if "?" in url and _MAY_HAVE_CLICK_ID.search(url):
        ids += _click_ids(url).items()
    return [(name, browser_ids.bare(name, value)) for name, value in ids]


@lru_cache(maxsize=1024)
def _clean_name(value: str) -> str:
    """The name of an event: pages and metrics show it. Raises BadEvent."""
    name = _clean_id(value, "event_name", most=100)
    if redaction.masked(name) != name:
        raise BadEvent("personal_id", "event_name", "looks like an e-mail address or phone number")
    return name


def milliseconds(value: str | float, place: str, zone: str | None) -> int:
    """Unix milliseconds. Numbers are told apart by size: seconds, milliseconds, microseconds or nanoseconds."""
    if isinstance(value, str) and re.fullmatch(r"\s*\d{1,30}(\.\d{1,30})?\s*", value):
        value = float(value) if "." in value else int(value)
    if isinstance(value, int | float):
        for limit, factor, divisor in ((1e11, 1000, 1), (1e14, 1, 1), (1e17, 1, 1000), (1e20, 1, 1_000_000)):
            if 0 <= value < limit:
                return int(value * factor // divisor)  # of whole numbers exact: no digit of a millisecond changes
        raise BadEvent("time_out_of_range", place, "is no time that we can read")
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        raise BadEvent("bad_time", place, "is neither ISO 8601 nor a number") from None
    if moment.tzinfo is None:
        if zone is None:
            raise BadEvent("no_time_zone", place, "has no time zone, and the source names none")
        moment = moment.replace(tzinfo=ZoneInfo(zone))
    try:
        return (moment - _EPOCH) // timedelta(milliseconds=1)
    except (OverflowError, ValueError):
        raise BadEvent("time_out_of_range", place, "is no time that we can read") from None


def _to_major_units(commerce: Json) -> None:
    factor = 10 ** _EXPONENTS.get(commerce.get("currency", ""), 2)
    for amounts, names in (
        ([commerce], AMOUNTS),
        (commerce.get("items", []), ("price", "discount")),
    ):
        for one in amounts:
            for name in names:
                if name in one:
                    one[name] = round(one[name] / factor, 3)


def _click_ids(url: str) -> Mapping[str, str]:
    try:
        query = parse_qsl(urlsplit(url).query)
    except ValueError:
        return {}
    return {_URL_IDS[name]: value for name, value in query if name in _URL_IDS and 0 < len(value) <= 1000}
