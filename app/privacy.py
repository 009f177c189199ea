"""What is kept where, and who gets what: from the configuration and the code, for a data-protection officer. Pure.

`capistream config privacy` prints it, docs/privacy.md shows it for the sample configuration. What a destination gets is not told
from memory: complete events are encoded for it, each again with another value in one field, and what then differs came from there.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, get_type_hints
from urllib.parse import urlsplit

import orjson

from app import sample, topics
from app.consent import DEFAULT_NEEDS
from app.destination import ConsentPolicy, Destination
from app.events import Commerce, Context, Event, Ids, Item, Json
from app.identity import is_sha256, sha256
from app.prepare import Masked, prepare
from app.settings import Settings
from sinks import SINKS
from sinks._base import Payload, Sink

NOW = 1_795_420_800_000  # of the sample events, Unix milliseconds: the answer does not depend on when it is asked

_WHOLE = "whole events"
_WHOLE_EVENTS = """
**Whole events** hold, hashed: e-mail, phone, name, birth date, gender, street. In clear: city, region and postal code, unless
they came as hashes, country, the shop's own id of the person, IP address, user agent, page addresses and titles, cookies and
click ids, consent, the order, and the shop's own data. All of that is personal data, the hashes too.
"""
_IDS = "ids only: event id, order number, amount, outcome and reason"
_NOBODY = "nothing about a person"

#: What stands in a topic, after the prefix, and in which form; `to` and `outcomes` are of each destination.
_TOPICS: Mapping[str, str] = {
    "events": _WHOLE,
    "conversions": _WHOLE,
    "to": _WHOLE,
    "trace": "of each event the request to a platform, and its answer: see below what each is sent, here with the IP address cut, "
    "and without user agent and place; of destinations in shadow whole. Secrets are masked",
    "dead": "ids only: event id, reason, where it was read. No payload",
    "receipts": _IDS + ", and the consent it was decided on",
    "people": "digests of the identifiers of people who are forgotten",
    "clock": _NOBODY,
    "control": _NOBODY + "; which operator gave an order",
    "audit": "which user of the pages looked at which event id or order number, or did something; networks that they came from",
    "seen": "event ids, order numbers, and short marks made of hashed identifiers and cookies, which tell people apart; with "
    "`privacy.key`, keyed hashes of the identifiers; what late copies deny of consent",
    "held": _WHOLE,
    "outcomes": _IDS + "; whole events where they wait to be sent again",
}


@dataclass(frozen=True)
class Place:
    """Where something is kept."""

    place: str
    holds: str
    form: str
    kept: str
    read_by: str


@dataclass(frozen=True)
class Sent:
    """A field of the merged event on its way to a platform. An empty `field`: what tells which event it is, and how it is sent."""

    field: str
    sent_as: tuple[str, ...]
    form: str  # hashed, clear, or both


@dataclass(frozen=True)
class Relayed:
    """A data stream whose hits the collector hands on to Google as they come."""

    measurement_id: str
    host: str
    needs: tuple[str, ...]
    absent: str
    cookieless: bool  # pings without cookies go there although analytics_storage is denied
    visitor_ip: bool


@dataclass(frozen=True)
class Recipient:
    name: str
    platform: str
    mode: str
    host: str
    api_version: str
    purpose: str
    needs: tuple[str, ...]  # the consent that is asked for
    absent: str
    partial: str
    places: Mapping[str, Json]  # what is different for people of a place
    limited_to: tuple[str, ...] | None  # the setting `fields`
    terms: str
    sent: tuple[Sent, ...]


def as_json(settings: Settings) -> Json:
    told = {
        "configuration": settings.hash,
        "places": [asdict(one) for one in places(settings)],
        "sites": [{"site": name, "redact": one.redact, "url": one.url} for name, one in settings.sites.items()],
        "recipients": [asdict(recipient(settings, name)) for name in settings.destinations],
        "relayed": [asdict(one) for one in relayed(settings)],
    }
    plain: Json = orjson.loads(orjson.dumps(told))
    return plain


def page(settings: Settings) -> str:
    """The same as tables in Markdown."""
    text = f"Of configuration `{settings.hash}`.\n\n## What is kept where\n\n{_WHOLE_EVENTS.strip()}\n\n" + _table(
        ("Place", "Holds", "Form", "Kept", "Read by"), ([*asdict(one).values()] for one in places(settings))
    )
    text += "\n## What is taken out on arrival\n\n" + _table(
        ("Site or source", "Personal data in free text", "Page addresses"), _taken_out(settings)
    )
    found = [recipient(settings, name) for name in settings.destinations]
    text += "\n## Who gets what\n\n" + _table(
        ("Destination", "Platform", "Host", "API", "Purpose", "Consent asked for", "Terms"),
        (
            (
                f"[{r.name}](#{r.name})",
                r.platform,
                f"`{r.host}`",
                r.api_version or "-",
                r.purpose,
                _asked(r),
                r.terms or "your own",
            )
            for r in found
        ),
    )
    for one in found:
        text += f"\n### {one.name}\n\n" + _of_recipient(one)
    if streams := relayed(settings):
        text += "\n## What the collector hands on to Google Analytics as it comes\n\n" + _table(
            ("Data stream", "Host", "What", "Consent asked for"), (_of_stream(one) for one in streams)
        )
    return text


# What is kept


def places(settings: Settings) -> list[Place]:
    """Every place where something of an event stays, or might be thought to."""
    names = topics.names(settings)
    of_topics = [
        Place(f"topic `{one.name}`", one.holds, _holding(one.name, names), _kept(one), _readers(one.name, names))
        for one in topics.plan(settings)
    ]
    sources = [
        Place(
            f"topic `{one.topic}`",
            "your own source: we read it and never write it",
            "as you write it, clear data too",
            "as you set it",
            "workers",
        )
        for one in settings.sources.values()
    ]
    return [
        *sources,
        *of_topics,
        Place(
            f"folder `{settings.worker.data_dir}`",
            "a cache of the tables' changelogs, on each worker",
            "as in those",
            "as those; gone when the folder is",
            "that worker",
        ),
        *(
            [Place(f"folder `{settings.collector.spool}`", "what Kafka does not take from a collector, on its machine",
                   _TOPICS["events"], "until Kafka has it: minutes, as long as it is there", "that collector")]
            if settings.collector.spool
            else []
        ),
        Place("memory of collector and workers", "requests and records that are under way, the only place of clear personal data",
              "clear, until it is hashed", "moments; recent values up to the end of the process"
              + ("; hits that wait for GA4 up to 5 min" if relayed(settings) else ""), "that process"),
        Place("logs (standard error)", "what the programs do", "event ids, reasons and names of fields; never a value of a person",
              "as your log system does", "operators"),
        Place("pages and JSON of the worker", "what became of an id that somebody looks up, its copies and requests",
              "ids, cookies, click ids and page addresses; hashes shortened; IP addresses cut; user agents and places masked",
              "nothing is kept", _visitors(settings)),
        Place("metrics", "counts", _NOBODY, "as your metrics system does", "whoever reaches `/metrics`"),
        *(
            [Place("alerts", "which destination stopped, and why", _NOBODY, "as the receiver does", "the webhook's owner")]
            if settings.alerts.webhook
            else []
        ),
    ]  # fmt: skip


def _visitors(settings: Settings) -> str:
    view = settings.view
    if not (view.tokens or view.proxy):
        return f"whoever is on the worker's machine, port {view.port}: there is no login"
    ways = [f"whoever has a token ({', '.join(view.tokens)})"] if view.tokens else []
    return (
        " or ".join([*ways, *(["whoever the proxy lets through"] if view.proxy else [])])
        + "; each look-up is written down"
    )


def _holding(topic: str, names: topics.Names) -> str:
    """Raises KeyError for a topic that nobody has described here yet."""
    name = topic.removeprefix(names.prefix)[1:].removesuffix("-changelog")
    return _TOPICS[name if name in _TOPICS else name.split(".", 1)[0]]


def _kept(topic: topics.Topic) -> str:
    milliseconds, state = topic.config.get("retention.ms"), topic.name.endswith("-changelog")
    if milliseconds:
        return span(int(milliseconds) / 1000) + (" after the last change" if state else "")
    if state:
        return f"until it is decided, and up to {span(2 * topics.DAY / 1000)} until Kafka has compacted it"
    return "until replaced"


def _readers(topic: str, names: topics.Names) -> str:
    if topic in (names.conversions, names.receipts):
        return "your own consumers"
    return "operators, by `capistream dead`; workers" if topic == names.dead else "workers"


def span(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


# Who gets what


def recipient(settings: Settings, name: str) -> Recipient:
    one = settings.destinations[name]
    sink, policy = SINKS[one.sink](one), one.consent
    return Recipient(
        name=name,
        platform=sink.title,
        mode=one.mode,
        host=urlsplit(one.endpoint).hostname or "",
        api_version=sink.limits.api_version,
        purpose=sink.purpose,
        needs=_needs(policy, sink),
        absent=policy.absent,
        partial=policy.partial,
        places={place: part.model_dump(exclude_none=True) for place, part in policy.regions.items()},
        limited_to=one.fields,
        terms=sink.terms,
        sent=tuple(_sent(settings, name)),
    )


def relayed(settings: Settings) -> list[Relayed]:
    found = []
    for name, one in settings.collector.ga4.items():
        if one.relay:
            policy = settings.stream_policy(name)
            needs = DEFAULT_NEEDS["analytics"] if policy.needs is None else tuple(policy.needs)
            host = urlsplit(one.endpoint).hostname or ""
            found.append(Relayed(name, host, needs, policy.absent, one.cookieless, one.visitor_ip))
    return found


def _needs(policy: ConsentPolicy, sink: Sink) -> tuple[str, ...]:
    return tuple(DEFAULT_NEEDS[sink.purpose] if policy.needs is None else policy.needs)


Leaves = dict[str, Any]  # path in the request's body -> the first value there
_ORDER = ("user", "context", "ids", "commerce", "custom", "consent", "")


def _sent(settings: Settings, name: str) -> list[Sent]:
    """Each field of the event that makes a difference to a request, and where."""
    # what keeps events from it does not matter, nor does which of them
    tried = settings.destinations[name].model_copy(
        update={"mode": "live", "live_from": None, "live_until": None, "share": 1.0}
    )
    sink = SINKS[tried.sink](tried)
    origins: dict[str, set[str]] = {}  # path -> fields
    forms: dict[str, str] = {}
    for event in _events(settings, tried, sink):
        whole = _leaves(name, event, tried, sink)
        if whole.keys() <= origins.keys():
            continue
        forms |= {path: _form(value) for path, value in whole.items()}
        changed: dict[str, set[str]] = {path: set() for path in whole}
        missed: dict[str, set[str]] = {path: set() for path in whole}
        for field, other, less in _variants(event):
            for found, variant in ((changed, other), (missed, less)):
                leaves = _leaves(name, variant, tried, sink)
                for path in _different(whole, leaves, gone=not field.startswith("consent.")):
                    found[path].add(field)
        for path in whole:
            # a value of which only a part is sent may differ elsewhere: then what its absence changes tells
            origins.setdefault(path, set()).update(changed[path] or missed[path] or {""})
    for field, event, none in _alone(next(_events(settings, tried, sink))):
        whole = _leaves(name, event, tried, sink)
        for path in _different(whole, _leaves(name, none, tried, sink), gone=True):
            origins.setdefault(path, set()).add(field)
            forms[path] = _form(whole[path])
    origins = {path: some - {""} or {""} for path, some in origins.items()}
    fields = sorted({f for some in origins.values() for f in some}, key=lambda f: (_ORDER.index(f.split(".")[0]), f))
    return [_field(field, sorted(path for path, some in origins.items() if field in some), forms) for field in fields]


def _field(field: str, paths: list[str], forms: Mapping[str, str]) -> Sent:
    return Sent(field, tuple(paths), " and ".join(sorted({forms[path] for path in paths}, reverse=True)))


def _different(whole: Leaves, other: Leaves, *, gone: bool) -> Iterator[str]:
    """Where two requests differ; `gone`: also where one has nothing. An event that is not sent differs nowhere."""
    if other:
        yield from (p for p, value in whole.items() if (other[p] != value if p in other else gone))


def _form(value: Any) -> str:
    return "hashed" if isinstance(value, str) and is_sha256(value) else "clear"


def _leaves(name: str, event: Event, settings: Destination, sink: Sink) -> Leaves:
    """What a request for this event has where; nothing where the event is not sent."""
    result: Leaves = {}
    _, prepared = prepare(name, event, settings, sink, NOW / 1000)
    for one in prepared[:1]:
        if isinstance(one.found, Payload):
            _flatten(orjson.loads(sink.request([one.found], Masked()).body), "", result)
    return result


def _flatten(value: Any, path: str, into: Leaves) -> None:
    if isinstance(value, dict):
        for name, inner in value.items():
            _flatten(inner, f"{path}.{name}" if path else name, into)
    elif isinstance(value, list):
        for inner in value:
            _flatten(inner, f"{path}[]", into)
    else:
        into.setdefault(path, value)


def _events(settings: Settings, destination: Destination, sink: Sink) -> Iterator[Event]:
    """Complete events of every name and source, of people who agree and of people who opted out of a sale."""
    whole = _complete(sample.purchase(settings, NOW), destination)
    sources = ("server", "pixel", "app", "offline", "crm")
    names = sorted({*sink.names, *destination.events, "purchase"}, key=lambda name: name != "purchase")
    for opted_out in (False, True):
        for event_name in names:
            for source in sources:
                event = copy.deepcopy(whole) | {"event_name": event_name, "source": source}
                if opted_out:
                    event["consent"] = {**event["consent"], "gpc": True}
                yield event  # type: ignore[misc]


def _complete(event: Event, destination: Destination) -> Json:
    """With every field that an event can have, and own data under the names that the destination's settings speak of."""
    whole: Json = copy.deepcopy(dict(event))
    for part, shape in (("context", Context), ("ids", Ids), ("commerce", Commerce)):
        whole[part] = _filled(shape) | whole[part]
    whole["commerce"]["items"] = [_filled(Item) | item for item in whole["commerce"]["items"]]
    whole["ids"]["lead_id"] = "123456789012345"  # some platforms take numbers only
    whole["tags"] = {name: {"ran": False} for name in ("ga4", "gtag", destination.sink)}
    lists = [value for name, value in destination.model_dump().items() if isinstance(value, tuple) and name != "fields"]
    whole["custom"] = {str(text): f"own {text}" for some in lists for text in some} or {"anything": "own"}
    return whole


def _filled(shape: Any) -> Json:
    values = {name: {str: f"x-{name}", int: 1, float: 1.5}.get(hint) for name, hint in get_type_hints(shape).items()}
    return {name: value for name, value in values.items() if value is not None}


def _variants(event: Event) -> Iterator[tuple[str, Event, Event]]:
    """(a field, the event with another value there, and without any)."""
    whole: Any = event
    item = whole["commerce"]["items"][0]
    for part in _ORDER[:-1]:
        for name, value in whole[part].items():
            if name != "items":
                less = {k: v for k, v in whole[part].items() if k != name}
                yield f"{part}.{name}", _with(event, part, less | {name: _another(value)}), _with(event, part, less)
    for name, value in item.items():
        less = {k: v for k, v in item.items() if k != name}
        other, none = ({**whole["commerce"], "items": [one]} for one in (less | {name: _another(value)}, less))
        yield f"commerce.items.{name}", _with(event, "commerce", other), _with(event, "commerce", none)


def _alone(event: Event) -> Iterator[tuple[str, Event, Event]]:
    """(a cookie or click id, the event with no other, and with none): some are sent only where another is missing."""
    always = {"ga_client_id": event["ids"]["ga_client_id"]}
    for name, value in event["ids"].items():
        yield f"ids.{name}", _with(event, "ids", always | {name: value}), _with(event, "ids", always)


def _with(event: Event, part: str, content: Json) -> Event:
    whole: Any = {**event, part: content}
    return whole  # type: ignore[no-any-return]


def _another(value: Any) -> Any:
    """A value like this one, as far as that can be: of a text another last letter or digit."""
    if isinstance(value, dict):
        return {rule: sha256(digest) for rule, digest in value.items()}
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    known = {"granted": "denied", "US": "CA", "USD": "EUR"}
    if value in known:
        return known[value]
    last = value[-1]
    return value[:-1] + (str((int(last) + 1) % 10) if last.isdigit() else "a" if last != "a" else "b")


# For people


def _taken_out(settings: Settings) -> Iterator[tuple[str, str, str]]:
    told = {"mask": "masked", "drop": "dropped"}
    kept = {"full": "kept", "path": "without query and fragment", "origin": "the host alone"}
    for name, site in settings.sites.items():
        yield f"site {name}", told[site.redact], kept[site.url]
    for name, source in settings.sources.items():
        if source.redact or source.url:
            site = settings.sites[source.site]
            yield f"source {name}", told[source.redact or site.redact], kept[source.url or site.url]


def _asked(one: Recipient) -> str:
    needs = " and ".join(f"`{name}`" for name in one.needs) or "none"
    silent = "not told: held back" if one.absent == "require" else "not told: assumed"
    places = "".join(f"; {place}: {_of_place(part)}" for place, part in one.places.items())
    return f"{needs}; {silent}; in part: {one.partial}{places}"


def _of_stream(one: Relayed) -> tuple[str, ...]:
    what = "the hits of gtag and of the Measurement Protocol, with what the page put into them, and the browser's user agent"
    what += " and IP address" if one.visitor_ip else "; not its IP address"
    needs = " and ".join(f"`{name}`" for name in one.needs) or "none"
    silent = "not told: stays here" if one.absent == "require" else "not told: assumed"
    pings = "; denied: pings without cookies" if one.cookieless else ""
    return one.measurement_id, f"`{one.host}`", what, f"{needs}; {silent}{pings}"


def _of_place(part: Json) -> str:
    return ", ".join(f"{name} {' '.join(v) or 'none' if isinstance(v, list) else v}" for name, v in part.items())


def _of_recipient(one: Recipient) -> str:
    told = {"off": "Gets nothing (`off`).\n\n", "shadow": "Gets nothing: requests are only kept (`shadow`).\n\n"}
    text = told.get(one.mode, "")
    if one.limited_to is not None:
        text += f"Limited by `fields`: {', '.join(f'`{path}`' for path in one.limited_to) or 'nothing'}.\n\n"
    return text + _table(
        ("Of the event", "Form", "Sent as"),
        (
            (
                f"`{sent.field}`" if sent.field else "the event itself",
                sent.form,
                ", ".join(f"`{path}`" for path in sent.sent_as),
            )
            for sent in one.sent
        ),
    )


def _table(head: tuple[str, ...], rows: Any) -> str:
    lines = [head, tuple("---" for _ in head), *(tuple(row) for row in rows)]
    return "".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines)
