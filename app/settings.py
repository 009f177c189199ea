"""The configuration file: every setting with its default and its help.

One TOML file, `capistream.toml` or what `--config` or CAPISTREAM_CONFIG names. Secrets are never in it: a secret is
`{ env = "NAME" }` or `{ file = "/path" }`, read when it is needed. `capistream config check` names every mistake,
`capistream config schema` prints the JSON schema for editors, docs/settings.md is generated from here.
"""

import hashlib
import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)

from app.errors import SettingsError
from app.events import Source

_DURATION = r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d)\s*"
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def _seconds(value: Any) -> Any:
    """`"10s"`, `"24h"`, `"30d"`, `"500ms"` or a number of seconds."""
    match = re.fullmatch(_DURATION, value, re.ASCII) if isinstance(value, str) else None
    if match:
        return float(match[1]) * _UNITS[match[2]]
    if isinstance(value, str | bool):
        raise ValueError("a duration is a number with ms, s, m, h or d, for example 10s")  # noqa: TRY004 (as below)
    return value


def _between(least: float, most: float) -> AfterValidator:
    """For durations: `Field(ge=...)` would say its part in the JSON schema of the text, too."""

    def check(value: float) -> float:
        if not least <= value <= most:
            raise ValueError(f"must be between {least:g} and {most:g} seconds")
        return value

    return AfterValidator(check)


def _network(value: str) -> str:
    ipaddress.ip_network(value)  # its ValueError says what is wrong
    return value


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        raise ValueError("no time zone is called so; an IANA name is, for example, Europe/Berlin") from None
    return value


Seconds = Annotated[
    float,
    Field(ge=0, allow_inf_nan=False),
    BeforeValidator(
        _seconds, json_schema_input_type=Annotated[float, Field(ge=0)] | Annotated[str, Field(pattern=f"^{_DURATION}$")]
    ),
]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Secret(Part):
    """Where a secret is read from: exactly one of the two. Files are read again whenever the secret is asked for."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    env: str | None = None
    """Name of an environment variable whose stripped content is the secret."""
    file: Path | None = None
    """Path of a file whose stripped content is the secret."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.env is None) == (self.file is None):
            raise ValueError("give either env or file")
        return self

    def read(self) -> str:
        """The secret. Raises SettingsError naming where it was looked for."""
        if self.env is not None:
            value = os.environ.get(self.env, "").strip()
            if not value:
                raise SettingsError([f"environment variable {self.env} is not set or empty"])
            return value
        assert self.file is not None
        try:
            value = self.file.read_text("utf-8").strip()
        except OSError as exc:
            raise SettingsError([f"secret file {self.file}: {exc.strerror}"]) from exc
        except UnicodeDecodeError:
            raise SettingsError([f"secret file {self.file} is not text in UTF-8"]) from None
        if not value:
            raise SettingsError([f"secret file {self.file} is empty"])
        return value


def _only_reference(value: Any) -> Any:
    if not isinstance(value, dict | Secret):
        # not echoed: it may be the secret itself
        raise ValueError(  # noqa: TRY004 (pydantic reads ValueError)
            'a secret is never in this file: write { env = "NAME" } or { file = "/path" }'
        )
    return value


SecretRef = Annotated[Secret, BeforeValidator(_only_reference)]


class Kafka(Part):
    brokers: str = "127.0.0.1:9092"
    """Bootstrap servers, comma-separated. The environment variable CAPISTREAM_BROKER wins."""
    prefix: Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{1,80}$")] = "capistream"
    """First part of the names of our topics, and of the consumer group."""
    partitions: Annotated[int, Field(ge=1, le=1000)] = 12
    """Of every topic on an event's way: the most workers that can share the work. Cannot be changed later."""
    replication: Annotated[int, Field(ge=1, le=9)] = 3
    """Copies of each partition that Kafka keeps."""
    create_topics: bool = True
    """Create missing topics at start. Off where only an administrator may."""
    session_timeout: Annotated[Seconds, _between(6, 1800)] = 10.0
    """A worker that the group has not heard of for so long loses its partitions."""


class Site(Part):
    """One shop or site; the write key tells the collector which."""

    write_key: Annotated[str, Field(min_length=8)]
    """Public: browsers send it. Good for pixel events only."""
    secret_key: SecretRef
    """For server events: whoever has it can claim sales."""
    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$")] | None = None
    """ISO 3166-1 alpha-2. National phone numbers without a country of their own are read as of here."""


Format = Literal["capistream", "segment", "meta", "ga4"]


class SourceTopic(Part):
    """An existing Kafka topic of yours that holds events."""

    topic: Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{1,249}$")]
    """Name of the topic. Any key, any number of partitions."""
    format: Format = "capistream"
    """How its values are written; docs/mapping.md has the tables."""
    site: Name
    """The site its events belong to, unless they name one themselves."""
    source: Source = "server"
    """Who sent the events of this topic, unless they say so themselves."""
    start: Literal["latest", "earliest"] = "latest"
    """Where to begin when the group has no committed offset yet."""
    backfill: bool = False
    """Its events are history that no destination has got yet: they are sent even when older than their horizon."""
    minor_units: bool = False
    """Amounts are in the currency's smallest unit (cents)."""
    time_zone: Annotated[str, AfterValidator(_zone)] | None = None
    """IANA name: zone of times that carry none. Without it such a time is refused."""


class EventRule(Part):
    """How copies of one event name are merged."""

    expect: list[Source] = []
    """Hold the first copy until one of each of these is there. Empty: send the first copy at once."""
    merge_window: Annotated[Seconds, _between(0, 3600)] = 10.0
    """How long a hold waits, counted from the first copy's record time."""
    wait_for: Source | None = None
    """Send nothing until a copy of this source confirms it, for example `server`: a purchase that only a browser claims then
    waits `confirm_within` and is parked after that. A copy that comes later, within the horizon, still confirms it."""
    confirm_within: Seconds = 24 * 3600.0
    """How long a conversion waits for `wait_for`, counted from the first copy's record time."""
    late: Literal["drop", "update"] = "drop"
    """What a copy means that comes after closing: `drop` counts it, `update` sends what it changes, as a revision, to
    destinations that can take one. `update` keeps the copies for the horizon."""
    horizon: Seconds = 48 * 3600.0
    """How long a key is remembered: later copies are recognised as duplicates for so long. A first copy that is older than
    this when it is read cannot be proved to be the first: it is parked."""
    different_people: Literal["apart", "merge"] = "apart"
    """Copies under one id that name different people (by e-mail, phone or user id): a delivery for each, or one for all."""

    @model_validator(mode="after")
    def _remembered_while_held(self) -> Self:
        for name in ("merge_window", "confirm_within"):
            if self.horizon < getattr(self, name) and (name == "merge_window" or self.wait_for):
                raise ValueError(f"horizon must not be shorter than {name}")
        return self


_PAIRED = EventRule(expect=["pixel", "server"], horizon=30 * 86400.0)
_LEAD = EventRule(expect=["pixel", "server"])
DEFAULT_RULES: dict[str, EventRule] = {
    "purchase": _PAIRED,
    "generate_lead": _LEAD,
    "sign_up": _LEAD,
    "subscribe": _LEAD,
}


class ConsentPolicy(Part):
    """What a destination needs before it may have an event."""

    needs: list[Literal["ad_storage", "analytics_storage", "ad_user_data", "ad_personalization"]] | None = None
    """Signals that must be granted. Default by the sink's purpose: advertising needs ad_storage and ad_user_data,
    analytics needs analytics_storage."""
    absent: Literal["require", "assume"] = "require"
    """What a signal that no copy carries means: `require` holds the event back, `assume` counts it as granted."""


BrowserTag = Literal["none", "same_id"]


class Destination(Part):
    """What every destination takes; each sink adds its own."""

    sink: str
    """Which platform."""
    mode: Literal["off", "live"] = "live"
    """`off` routes nothing to it."""
    endpoint: str
    """Base address of the platform's API; an emulator's address makes it a rehearsal."""
    events: dict[str, str | Literal[False]] = {}
    """Canonical name to the platform's name; false switches an event off. Adds to the sink's own table."""
    custom_events: bool = False
    """Also send events that no table names, under their own name."""
    browser_tag: BrowserTag | dict[str, BrowserTag] | None = None
    """Does the platform's own tag also report this event from the browser? `none`, or `same_id` when it gets our event id.
    One value, or one per event name (`default` for the rest)."""
    consent: ConsentPolicy = ConsentPolicy()
    """Which consent it needs."""
    concurrency: Annotated[int, Field(ge=1, le=256)] = 8
    """Requests in flight at once, per worker."""

    @field_validator("endpoint")
    @classmethod
    def _http(cls, value: str) -> str:
        if not re.match(r"^https?://[^/\s?#]+", value):
            raise ValueError("an address that begins with https:// (or http:// for an emulator)")
        return value.rstrip("/")

    def platform_name(self, table: Mapping[str, str], event_name: str) -> str | None:
        """The platform's name for an event, or None when this destination does not take it."""
        named = self.events.get(event_name)
        if named is False:
            return None
        if isinstance(named, str):
            return named
        return table.get(event_name) or (event_name if self.custom_events else None)

    def tag_for(self, event_name: str) -> BrowserTag:
        if isinstance(self.browser_tag, dict):
            return self.browser_tag.get(event_name) or self.browser_tag.get("default") or "none"
        return self.browser_tag or "none"


class Collector(Part):
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """Port to listen on."""
    max_body: Annotated[int, Field(ge=1024, le=64 << 20)] = 1 << 20
    """Largest request body in bytes, after decompression; larger is answered 413."""
    trusted_proxies: list[Annotated[str, AfterValidator(_network)]] = []
    """Networks (CIDR) whose X-Forwarded-For is believed."""
    origins: list[str] = ["*"]
    """Origins whose pages may post (CORS)."""


class View(Part):
    host: str = "127.0.0.1"
    """Address to listen on. The pages have no login yet: keep it private."""
    port: Annotated[int, Field(ge=0, le=65535)] = 6066
    """Port to listen on; when it is taken the next free one is used, with a message."""
    advertise: str | None = None
    """Address under which the other workers reach this one; default http://<host>:<port>."""


class Worker(Part):
    data_dir: Path = Path("/var/lib/capistream")
    """Local state (RocksDB): a cache of the changelogs, one folder per worker process."""
    max_lag_wait: Seconds = 300.0
    """A source partition further behind than this no longer holds up the closing of merges."""
    keep_variants: Literal["configured", "all"] = "configured"
    """Hash variants to keep: those that the configured destinations use, or all, for destinations added later."""
    stall_after: Annotated[Seconds, _between(60, 86400)] = 120.0
    """A worker that has something to do and gets nowhere for so long says so: `/readyz` answers 503. A halted or slow
    destination does not count."""
    restart_when_stuck: bool = False
    """Such a worker ends itself (exit status 70), for a supervisor to start it anew; not where that would not help: while
    Kafka is away."""


class Settings(Part):
    """The whole file."""

    kafka: Kafka = Kafka()
    sites: dict[Name, Site] = {}
    sources: dict[Name, SourceTopic] = {}
    events: dict[str, EventRule] = {}
    """Rules by canonical event name; `default` for names without a rule of their own."""
    destinations: dict[Name, SerializeAsAny[Destination]] = {}
    collector: Collector = Collector()
    view: View = View()
    worker: Worker = Worker()

    @field_validator("destinations", mode="before")
    @classmethod
    def _by_sink(cls, value: Any) -> Any:
        from sinks import SINKS

        if not isinstance(value, dict):
            return value
        built: dict[str, Any] = {}
        mistakes: list[Any] = []
        for name, raw in value.items():
            if isinstance(raw, Destination):
                built[name] = raw
                continue
            kind = raw.get("sink") if isinstance(raw, dict) else None
            if not isinstance(kind, str) or kind not in SINKS:
                mistakes.append(_mistake((name, "sink"), f"one of {', '.join(sorted(SINKS))}"))
                continue
            try:
                built[name] = SINKS[kind].Settings.model_validate(raw)
            except ValidationError as exc:
                mistakes += [_mistake((name, *e["loc"]), _plain(e)) for e in exc.errors()]
        if mistakes:
            raise ValidationError.from_exception_data("destinations", mistakes, hide_input=True)
        return built

    @field_validator("events", mode="before")
    @classmethod
    def _on_top_of_defaults(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {
            name: DEFAULT_RULES[name].model_dump() | rule if name in DEFAULT_RULES and isinstance(rule, dict) else rule
            for name, rule in value.items()
        }

    @property
    def brokers(self) -> str:
        return os.environ.get("CAPISTREAM_BROKER") or self.kafka.brokers

    @cached_property
    def rules(self) -> dict[str, EventRule]:
        return {**DEFAULT_RULES, **self.events}

    def rule(self, event_name: str) -> EventRule:
        return self.rules.get(event_name) or self.rules.get("default") or _NO_HOLD

    @cached_property
    def hash(self) -> str:
        """Names what decides about events, in receipts. Holds no secret, only where secrets are; ports do not count."""
        decides = self.model_dump(mode="json", include={"sites", "sources", "events", "destinations"})
        text = orjson.dumps(decides, option=orjson.OPT_SORT_KEYS)
        return hashlib.sha256(text).hexdigest()[:12]


_NO_HOLD = EventRule()


def _mistake(loc: tuple[Any, ...], message: str) -> dict[str, Any]:
    from pydantic_core import PydanticCustomError

    return {"type": PydanticCustomError("setting", "{message}", {"message": message}), "loc": loc, "input": None}


def parse(text: str, place: str = "capistream.toml") -> Settings:
    """Settings from TOML. Raises SettingsError with every mistake and its place."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise SettingsError([f"{place}: not TOML: {exc}"]) from exc
    try:
        settings = Settings.model_validate(raw)
    except ValidationError as exc:
        said: dict[str, list[str]] = {}
        for error in exc.errors():
            said.setdefault(_path(error["loc"]), []).append(_plain(error))
        raise SettingsError([f"{place}: {path}: {' or '.join(texts)}" for path, texts in said.items()]) from None
    mistakes = [f"{place}: {line}" for line in _cross_checks(settings)]
    if mistakes:
        raise SettingsError(mistakes)
    return settings


def _path(loc: tuple[int | str, ...]) -> str:
    """The place as people write it: without pydantic's names for a key, and for the members of a union."""
    parts = [str(part) for part in loc if not re.match(r"\[key\]$|(literal|dict)\[", str(part))]
    if parts[-1:] == ["str"]:
        parts.pop()
    return ".".join(parts) or "(top level)"


def _plain(error: Mapping[str, Any]) -> str:
    message: str = error["msg"]
    return {"extra_forbidden": "unknown setting", "missing": "missing", "model_type": "must be a table"}.get(
        error["type"], message.removeprefix("Value error, ")
    )


def _cross_checks(settings: Settings) -> list[str]:
    """What no single field can know."""
    mistakes = []
    for name, destination in settings.destinations.items():
        if destination.browser_tag is None and destination.mode != "off":
            mistakes.append(
                f"destinations.{name}.browser_tag: missing: say none, or same_id when the platform's own tag "
                "reports the same events from the browser with the same id"
            )
    topics: dict[str, str] = {}
    for name, source in settings.sources.items():
        if source.site not in settings.sites:
            mistakes.append(
                f"sources.{name}.site: no site is called so; sites are {', '.join(settings.sites) or 'none'}"
            )
        if source.topic in topics:
            mistakes.append(f"sources.{name}.topic: already read by sources.{topics[source.topic]}")
        topics[source.topic] = name
        prefix = re.escape(settings.kafka.prefix)
        if re.match(rf"{prefix}(\.|-.*-changelog$)", source.topic):
            mistakes.append(f"sources.{name}.topic: one of our own topics, by kafka.prefix")
    keys: dict[str, str] = {}
    for name, site in settings.sites.items():
        if site.write_key in keys:
            mistakes.append(f"sites.{name}.write_key: the same as of sites.{keys[site.write_key]}")
        keys[site.write_key] = name
    return mistakes


def secrets_missing(settings: Settings) -> list[str]:
    """Every secret that cannot be read now, with its place."""
    missing = []
    for place, secret in _secrets(settings, ""):
        try:
            secret.read()
        except SettingsError as exc:
            missing.append(f"{place}: {exc}")
    return missing


def _secrets(value: Any, place: str) -> list[tuple[str, Secret]]:
    if isinstance(value, Secret):
        return [(place, value)]
    if isinstance(value, BaseModel):
        value = {name: getattr(value, name) for name in type(value).model_fields}
    if isinstance(value, dict):
        return [found for k, v in value.items() for found in _secrets(v, f"{place}.{k}" if place else k)]
    return []


def default_path() -> Path:
    return Path(os.environ.get("CAPISTREAM_CONFIG") or "capistream.toml")


def load(path: Path | None = None) -> Settings:
    """Settings of a file. Raises SettingsError."""
    path = path or default_path()
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError:
        raise SettingsError([f"{path}: not text in UTF-8"]) from None
    except OSError as exc:
        raise SettingsError(
            [
                f"{path}: {exc.strerror}. Name the file with --config or CAPISTREAM_CONFIG; docs/capistream.toml is a sample"
            ]
        ) from exc
    return parse(text, str(path))


def json_schema() -> dict[str, Any]:
    """For editors: the file with every sink's own settings."""
    from sinks import SINKS

    schema = Settings.model_json_schema()
    options = []
    for kind, sink in sorted(SINKS.items()):
        one = sink.Settings.model_json_schema(ref_template="#/$defs/{model}")
        schema["$defs"].update(one.pop("$defs", {}))
        one["properties"]["sink"] = {"const": kind, "description": "Which platform."}
        schema["$defs"][f"destination_{kind}"] = one
        options.append({"$ref": f"#/$defs/destination_{kind}"})
    for by_name in (schema["properties"][part] for part in ("sites", "sources", "destinations")):
        ((names, one),) = by_name["patternProperties"].items()
        by_name["patternProperties"] = {names: {"oneOf": options} if "Destination" in one["$ref"] else one}
        by_name["additionalProperties"] = False  # other names are refused
    del schema["$defs"]["Destination"]
    return schema | {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "capistream.toml"}
