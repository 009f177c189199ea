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
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)

from app import mistakes, proxies, reading, schemas, traffic
from app.bearer import PROVIDERS, TokenProvider
from app.destination import Absent, ConsentPolicy, Destination, Place, SignalName
from app.errors import SettingsError
from app.events import Source
from app.fields import Bytes, Expression, Name, Part, Seconds, Secret, SecretRef, between, http_address
from app.redaction import PageUrl, Redact


def _network(value: str) -> str:
    ipaddress.ip_network(value)  # its ValueError says what is wrong
    return value


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        raise ValueError("no time zone is called so; an IANA name is, for example, Europe/Berlin") from None
    return value


def _start(value: Any) -> str:
    """`latest`, `earliest`, or a time as ISO 8601 text; TOML has times of its own."""
    if value in ("latest", "earliest"):
        return str(value)
    try:
        at = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except (TypeError, ValueError):
        at = None
    if at is None or at.tzinfo is None:
        raise ValueError("'latest' or 'earliest', or a time with zone, for example 2026-01-31T12:00:00Z")
    return at.isoformat()


class Tls(Part):
    """Encrypts the connections to Kafka. Empty, it trusts whoever the system trusts. Changed files are used for new connections."""

    ca: Path | None = None
    """File with the certificates (PEM) of whoever signed the brokers' own, where the system does not know them."""
    certificate: Path | None = None
    """File with our own certificate (PEM, with those between it and the authority): who we are to Kafka, by mutual TLS."""
    key: Path | None = None
    """File with its private key (PEM), where that is not in the file of the certificate."""
    key_password: SecretRef | None = None
    """Of an encrypted private key."""
    check_hostname: bool = True
    """Does a broker's certificate have to name the host that we connect to? Without, whoever has any certificate of the
    authority's can pass for a broker."""


class Sasl(Part):
    """Who we are to Kafka, by SASL."""

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]
    """As the brokers' listener has it. PLAIN and OAUTHBEARER send what must stay secret, so they need `[kafka.tls]`."""
    user: str | None = None
    """For PLAIN and SCRAM. Of Confluent Cloud the API key."""
    password: SecretRef | None = None
    """For PLAIN and SCRAM. Read again for each connection. Of Confluent Cloud the API secret."""
    token: SerializeAsAny[TokenProvider] | None = None
    """For OAUTHBEARER: who gives tokens, `[kafka.sasl.token]` with `provider = "oauth"`, `"msk_iam"`, or that of an installed
    package."""

    @field_validator("token", mode="before")
    @classmethod
    def _by_provider(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        kind = value.get("provider")
        if not isinstance(kind, str) or kind not in PROVIDERS:
            found: list[Any] = [mistakes.mistake(("provider",), f"one of {', '.join(sorted(PROVIDERS))}")]
            raise ValidationError.from_exception_data("token", found, hide_input=True)
        try:
            return PROVIDERS[kind].model_validate(value)
        except ValidationError as exc:
            found = mistakes.below(PROVIDERS[kind], exc)
        raise ValidationError.from_exception_data("token", found, hide_input=True)


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
    """Create missing topics at start. Off where only an administrator may: `capistream topics plan` tells what there has to be."""
    session_timeout: Annotated[Seconds, between(6, 1800)] = 10.0
    """A worker that the group has not heard of for so long loses its partitions."""
    keep_events: Annotated[Seconds, between(60, 90 * 86400)] = 3 * 86400.0
    """Retention of `<prefix>.events` and `<prefix>.conversions`, as topics are made. Longer than any outage of the workers: what
    they have not read by then is lost."""
    replay_window: Annotated[Seconds, between(60, 90 * 86400)] = 7 * 86400.0
    """How long `<prefix>.to.<destination>` keeps what its destination is through with. Dead letters can be replayed for so long;
    what is not finished yet stays, up to the topic's retention."""
    compact_within: Annotated[Seconds, between(60, 7 * 86400)] = 86400.0
    """Within which time Kafka compacts changelogs, and what was deleted there is gone (`max.compaction.lag.ms`, as topics are
    made). Shorter is more work for the brokers."""
    tls: Tls | None = None
    """Encrypt the connections; see below. Default: in clear."""
    sasl: Sasl | None = None
    """Log in to Kafka; see below. Default: nobody asks who we are, but where a certificate of ours tells it."""


class Site(Part):
    """One shop or site; the write key tells the collector which."""

    write_key: Annotated[str, Field(min_length=8)]
    """Public: browsers send it. Good for pixel events only."""
    secret_key: SecretRef
    """For server events: whoever has it can claim sales."""
    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$")] | None = None
    """ISO 3166-1 alpha-2. National phone numbers without a country of their own are read as of here."""
    categories: dict[str, Annotated[list[SignalName], Field(min_length=1)]] = {}
    """Categories of the site's consent manager to the signals that they grant or deny: `C0004 = ["ad_storage", "ad_user_data"]`.
    Without this, categories decide nothing. One that a consent leaves out counts as denied."""
    redact: Redact = "mask"
    """What becomes of personal data where none belongs: e-mail addresses, phone numbers, cards and IBANs in page addresses, titles,
    search terms, names of items and `custom`, and fields of `custom` that are called like a person's data. `mask` puts
    `[redacted]` in their place, `drop` leaves the field or the parameter out. [privacy.md](privacy.md) tells what is found."""
    url: PageUrl = "full"
    """How much of page addresses and referrers is kept: all (`full`), without query and fragment (`path`), or the host alone
    (`origin`). Click ids are read before that, and campaign parameters (`utm_...`) always stay."""
    silence_denies: bool = False
    """Does the consent manager keep the pixel from running when somebody denies? Then an order that only the back end tells of may
    be of such a person, and no destination's `absent = "assume"` holds for this site."""


Format = Literal["capistream", "segment", "meta", "ga4", "map"]


class SourceTopic(Part):
    """An existing Kafka topic of yours that holds events."""

    topic: Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{1,249}$")]
    """Name of the topic. Any key, any number of partitions."""
    format: Format = "capistream"
    """What its values say; docs/mapping.md has the tables. Of `map` the setting `map` alone makes an event: docs/sources.md."""
    encoding: Literal["json", "registry"] = "json"
    """How its values are encoded: JSON, or in Confluent's wire format by a schema of `[registry]`, which may be Avro, Protobuf or
    JSON Schema. docs/sources.md tells what their types become."""
    site: Name
    """The site its events belong to; others may be theirs only where `map` fills `site`."""
    source: Source = "server"
    """Who sent the events of this topic, unless they say so themselves."""
    map: dict[Annotated[str, AfterValidator(reading.a_place)], Expression] = {}
    """Fields of the event to JMESPath expressions over the value, and over `_key`, `_headers` and `_timestamp` of the record. What
    one finds replaces what the format read; what finds nothing changes nothing. `"commerce.items[]"` names a list, and
    `"commerce.items[].item_id"` is asked of each of its members. docs/sources.md has examples."""
    filter: Expression | None = None
    """JMESPath expression over the same. Where it finds nothing, false or something empty, the event is ignored, and counted."""
    start: Annotated[str, BeforeValidator(_start)] = "latest"
    """Where to begin when the group has no committed offset yet: `latest`, `earliest`, or at a time such as
    `2026-01-31T12:00:00Z`. Where history would go to a live destination, the first worker wants `--backfill`."""
    backfill: bool = False
    """Its events are history that no destination has got yet: they are sent even when older than their horizon."""
    minor_units: bool = False
    """Amounts are in the currency's smallest unit (cents)."""
    time_zone: Annotated[str, AfterValidator(_zone)] | None = None
    """IANA name: zone of times that carry none. Without it such a time is refused."""
    redact: Redact | None = None
    """Default: as the site says."""
    url: PageUrl | None = None
    """Default: as the site says."""

    @property
    def start_time(self) -> int | None:
        """Unix milliseconds, where `start` is a time."""
        return (
            None if self.start in ("latest", "earliest") else int(datetime.fromisoformat(self.start).timestamp() * 1000)
        )


class Registry(Part):
    """A schema registry with Confluent's interface, for sources with `encoding = "registry"`."""

    url: Annotated[str, Field(pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$")]
    """Address, such as `https://registry.example:8081`; of Apicurio with its path, `…/apis/ccompat/v7`."""
    user: str | None = None
    """For basic auth; of Confluent Cloud the API key."""
    password: SecretRef | None = None
    """For basic auth; of Confluent Cloud the API secret."""
    ca: Path | None = None
    """File with the certificates (PEM) of whoever signed the registry's own, where the system does not know them."""


class EventRule(Part):
    """How copies of one event name are merged."""

    expect: list[Source] = []
    """Hold the first copy until one of each of these is there. Empty: send the first copy at once."""
    merge_window: Annotated[Seconds, between(0, 3600)] = 10.0
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


MeasurementId = Annotated[str, Field(pattern=r"^G-[A-Z0-9]{4,20}$")]


class Ga4Stream(Part):
    """A web data stream of GA4 whose hits come to the collector, as `/g/collect` and `/mp/collect`. Each hit goes on to Google as
    it came, and a copy of it into the pipeline. [clients.md](clients.md) tells how.
    """

    site: Name
    """The site whose hits these are."""
    relay: bool = True
    """Hand the hits on to Google. A `ga4` destination of the same measurement id then sends no event that was handed on. Off:
    GA4 gets what that destination sends, and lacks sessions and modelling."""
    endpoint: Annotated[str, AfterValidator(http_address)] = "https://www.google-analytics.com"
    """Where to: `https://region1.google-analytics.com` keeps the processing in the EU."""
    consent: ConsentPolicy | None = None
    """Which consent a hit needs to be handed on, for analytics. Default: as the `ga4` destination of this measurement id, where
    there is one."""
    cookieless: bool = False
    """Also hand on the pings that gtag sends without cookies where analytics_storage is denied: GA4 models with them. Whether that
    may be is a question of law, not of technology. Everybody else gets of such a ping what its consent allows."""
    visitor_ip: bool = True
    """Tell Google the visitor's IP address, by which it finds country and city. Off: everybody is where the collector is."""
    copies: Literal["all", "with_id", "none"] = "all"
    """Which events of gtag enter the pipeline: `all`, those `with_id` (an `event_id` that the page gives gtag, or a transaction
    id), or `none`. Where our pixel reports the same events, `with_id` keeps them from counting twice."""
    api_secret: SecretRef | None = None
    """The Measurement Protocol API secret by which `/mp/collect` knows your back end. Without it that route takes nothing for this
    stream."""

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if not self.relay and self.copies == "none":
            raise ValueError('copies: "none" without relay throws every hit away')
        return self


def _route(value: str) -> str:
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]{1,60}){1,8}", value) or any(
        part in (".", "..") for part in value.split("/")
    ):
        raise ValueError("a path such as /v1/events: begins with a slash, has none at its end, and no . or .. in it")
    return value


RoutePath = Annotated[str, AfterValidator(_route)]


class Routes(Part):
    """Where the collector answers. Blockers know paths, too; a test of ours holds these defaults against EasyPrivacy, the list that
    most of them ship, and those of `/g/collect` alone are on it. Where a proxy leads a path of the shop to the collector, the
    path that pages see is the proxy's.
    """

    own: RoutePath = "/v1/events"
    """Our own JSON, from the pixel and from servers."""
    script: RoutePath = "/v1"
    """Folder of the pixel's script, `collector.script`."""
    segment: RoutePath = "/v1"
    """Prefix of the calls of the Segment spec: `/v1/track`, and of `/v1/projects/<write key>/settings`."""
    jitsu: RoutePath = "/api/s"
    """Prefix of the same calls as Jitsu sends them, and with `/s2s` for its servers."""
    gtag: RoutePath = "/g/collect"
    """What gtag.js sends to; it knows no other path, so change it only where a proxy does."""
    measurement_protocol: RoutePath = "/mp/collect"
    """GA4's Measurement Protocol."""
    forget: RoutePath = "/v1/forget"
    """Erasures, with the secret key."""


class Collector(Part):
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """Port to listen on."""
    processes: Annotated[int, Field(ge=1, le=64)] = 1
    """How many processes share the port. Each has a spool and limits of its own; `/metrics` of any tells of all."""
    max_body: Annotated[int, Field(ge=1024, le=64 << 20)] = 1 << 20
    """Largest request body in bytes, after decompression; larger is answered 413."""
    trusted_proxies: list[Annotated[str, AfterValidator(_network)]] = []
    """Networks (CIDR) whose X-Forwarded-For is believed."""
    origins: list[str] = ["*"]
    """Origins whose pages may post, such as `https://www.shop.example`: others are answered 403. `*` is every page."""
    rate: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 50.0
    """Events a second that each process takes from one address on the internet (of IPv6: one /64 network), after `burst`; more is
    answered 429. Requests with a secret key are not limited. 0: no limit."""
    burst: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    """Events that such an address may send at once."""
    spool: Path | None = None
    """Folder for what Kafka does not take: it is answered for when it is on this disk, and goes to Kafka later, by itself.
    [deploy.md](deploy.md) tells what it takes. Default: none, and 503 while Kafka is away."""
    spool_size: Bytes = 1 << 30
    """The most bytes that each process keeps there; then 503."""
    address: Annotated[str, AfterValidator(http_address)] | None = None
    """Public address of the collector, as pages reach it: `https://collect.shop.example`, or with a path. analytics-next is told to
    send there; without it the page has to say so."""
    ga4: dict[MeasurementId, Ga4Stream] = {}
    """Data streams of GA4, by measurement id."""
    script: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,40}\.js$")] = "capi.js"
    """Name of the pixel's script. Blockers know many names; yours they do not."""
    routes: Routes = Routes()
    """Where it answers; see below."""

    @model_validator(mode="after")
    def _routes_apart(self) -> Self:
        from app.collector import routes

        if wrong := routes.mistakes(routes.of(self)):
            raise ValueError(f"routes: {'; '.join(wrong)}")
        return self


def _cookie_domain(value: str) -> str:
    from app.collector import domains

    if value in ("site", "host"):
        return value
    domain = value.lower().lstrip(".")
    if domains.registrable(domain) == "":
        raise ValueError(
            "a public suffix or no domain: browsers refuse such a cookie; site, host, or a domain of yours"
        )
    return domain


CookieName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] | Literal[False]


class Cookies(Part):
    """First-party cookies that the collector sets and reads for events of browsers: [pixel.md](pixel.md)."""

    domain: Annotated[str, AfterValidator(_cookie_domain)] = "site"
    """For whom they are: `site` is the domain that its owner registered, by the public suffix list, and all below it; `host` the
    page's host alone; or a domain of yours, where pages of others keep to `host`."""
    client: CookieName = "cs_id"
    """Name of the cookie with our client id, for browsers that have none of Google Analytics (`_ga`); `false` sets none."""
    clicks: CookieName = "cs_clicks"
    """Name of the cookie with the click ids of all platforms, as they came; `false` sets none."""
    fbp: CookieName = "_fbp"
    """Name of the cookie with Meta's browser id. Meta's tag knows it as `_fbp`; `false` reads that one and sets none."""
    fbc: CookieName = "_fbc"
    """The same with Meta's click id."""
    client_lifetime: Annotated[Seconds, between(60, 400 * 86400)] = 395 * 86400.0
    """How long the client id lives. Nothing prolongs it."""
    click_lifetime: Annotated[Seconds, between(60, 400 * 86400)] = 90 * 86400.0
    """How long the other three live, from when they were made."""
    same_site: Literal["lax", "strict", "none"] = "lax"
    """Their SameSite. `none` is for shops that run in a frame of another site."""
    secure: bool = True
    """Over HTTPS only, and on this machine."""
    absent: Absent = "require"
    """What a signal means that the event does not carry: `require` neither sets nor reads a cookie, `assume` counts it as granted.
    The client id and `_ga` need analytics_storage, all others ad_storage."""
    regions: dict[Place, Absent] = {}
    """The same for people of a country or a part of one: `{ US = "assume" }`."""

    @model_validator(mode="after")
    def _safe_abroad(self) -> Self:
        if self.same_site == "none" and not self.secure:
            raise ValueError('same_site = "none" needs secure = true: browsers refuse it otherwise')
        return self


class Traffic(Part):
    """Events without a person whom a platform should hear of, of any source: such an event is labelled, and merged as any other. Of
    what is dropped no destination gets anything; the pages and the receipts say why.
    """

    bots: Literal["drop", "keep"] = "drop"
    """Label `bot`: the user agent is a robot's, by the list of [crawler-user-agents](https://github.com/monperrus/crawler-user-agents),
    browsers without a screen (HeadlessChrome) among them. Libraries for HTTP are none: apps report with them."""
    prefetch: Literal["drop", "keep"] = "drop"
    """Label `prefetch`: the browser said that it fetches in advance (`Sec-Purpose`, `X-Moz`)."""
    internal: Literal["drop", "keep"] = "drop"
    """Label `internal`: the person's address is in `internal_networks`."""
    internal_networks: list[Annotated[str, AfterValidator(_network)]] = []
    """Networks (CIDR) of your own people: offices, test machines."""

    @cached_property
    def networks(self) -> tuple[proxies.Network, ...]:
        return tuple(ipaddress.ip_network(one) for one in self.internal_networks)

    @property
    def dropped(self) -> frozenset[traffic.Label]:
        said: dict[traffic.Label, str] = {"bot": self.bots, "prefetch": self.prefetch, "internal": self.internal}
        return frozenset(label for label, what in said.items() if what == "drop")


class Token(Part):
    """Somebody, or a program, that logs in to the pages with a token."""

    role: Literal["viewer", "operator"] = "viewer"
    """A viewer looks; an operator also changes things: replays, pauses, drops."""
    token: SecretRef
    """The token: 16 characters or more, random ones, such as `openssl rand -hex 24` makes. Read at start."""


class Proxy(Part):
    """A proxy that logs people in and names them in headers of its requests, which it takes out of theirs."""

    networks: Annotated[list[Annotated[str, AfterValidator(_network)]], Field(min_length=1)]
    """Networks (CIDR) that the proxy's requests come from. Whoever else can connect from there can claim to be anybody."""
    user: str = "X-Forwarded-User"
    """Header that names the user."""
    groups: str = "X-Forwarded-Groups"
    """Header with the user's groups, separated by commas."""
    viewers: list[str] = []
    """Groups whose members are viewers. Empty: everybody whom the proxy names."""
    operators: list[str] = []
    """Groups whose members are operators."""


class View(Part):
    """The worker's pages, and their JSON. Who may see them is told by `tokens` and `proxy`; without either of them only somebody on
    the worker's own machine may. [view.md](view.md) has more.
    """

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Field(ge=0, le=65535)] = 6066
    """Port to listen on; when it is taken the next free one is used, with a message."""
    advertise: str | None = None
    """Address under which the other workers reach this one; default http://<host>:<port>."""
    tokens: dict[Name, Token] = {}
    """Who logs in with a token, by the name that the audit log calls them."""
    proxy: Proxy | None = None
    """A proxy in front of the pages that logs people in."""
    key: SecretRef | None = None
    """A secret of 16 characters or more, the same for all workers: signs what they ask each other, and forms. Default: made of the
    tokens. Needed where there is a proxy and no token. Read at start."""
    journey_retention: Annotated[Seconds, between(3600, 400 * 86400)] = 30 * 86400.0
    """How long after its first copy a conversion can be looked up, at least; never shorter than its horizon, and a day. State grows
    with it, by about 160 bytes for each conversion of this time."""


class Trace(Part):
    """What was said to a platform and what it answered, for each event: [view.md](view.md). It costs about 2 kB in Kafka for each
    event and destination, and a worker a tenth of what delivering costs it.
    """

    requests: Literal["all", "failed", "none"] = "all"
    """Which requests are kept: all, only those that the platform did not take, or none. What destinations in shadow would have
    sent is kept always."""
    share: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Of which part of the conversions those are kept that were taken, chosen by their ids. What was not taken is kept of all."""
    keep: Annotated[Seconds, between(60, 30 * 86400)] = 86400.0
    """For how long, as the topic is made."""


class Worker(Part):
    data_dir: Path = Path("/var/lib/capistream")
    """Local state (RocksDB): a cache of the changelogs, one folder per worker process."""
    max_lag_wait: Seconds = 300.0
    """A source partition further behind than this no longer holds up the closing of merges."""
    keep_variants: Literal["configured", "all"] = "configured"
    """Hash variants to keep: those that the configured destinations use, or all, for destinations added later."""
    stall_after: Annotated[Seconds, between(60, 86400)] = 120.0
    """A worker that has something to do and gets nowhere for so long says so: `/readyz` answers 503. A halted or slow
    destination does not count."""
    restart_when_stuck: bool = False
    """Such a worker ends itself (exit status 70), for a supervisor to start it anew; not where that would not help: while
    Kafka is away."""


class Alerts(Part):
    webhook: SecretRef | None = None
    """Address that gets a POST when a destination halts, pauses or goes on: `{"text": …, "destination": …, "state": …,
    "reason": …}`, as chat programs take it. A secret, since such addresses carry their own key."""


class Privacy(Part):
    key: SecretRef | None = None
    """A secret of 16 characters or more. With it, what rows that outlive an event's data say of the person are keyed hashes
    (HMAC-SHA256), and `capistream forget` finds these rows, too. Read at start."""
    previous_keys: list[SecretRef] = []
    """Keys that `key` has replaced: rows that carry hashes under them are still found. One can be dropped after the longest
    horizon."""


class Settings(Part):
    """The whole file."""

    kafka: Kafka = Kafka()
    sites: dict[Name, Site] = {}
    sources: dict[Name, SourceTopic] = {}
    registry: Registry | None = None
    events: dict[str, EventRule] = {}
    """Rules by canonical event name; `default` for names without a rule of their own."""
    destinations: dict[Name, SerializeAsAny[Destination]] = {}
    collector: Collector = Collector()
    cookies: Cookies = Cookies()
    traffic: Traffic = Traffic()
    view: View = View()
    trace: Trace = Trace()
    worker: Worker = Worker()
    alerts: Alerts = Alerts()
    privacy: Privacy = Privacy()

    @field_validator("destinations", mode="before")
    @classmethod
    def _by_sink(cls, value: Any) -> Any:
        from sinks import SINKS

        if not isinstance(value, dict):
            return value
        built: dict[str, Any] = {}
        found: list[Any] = []
        for name, raw in value.items():
            if isinstance(raw, Destination):
                built[name] = raw
                continue
            kind = raw.get("sink") if isinstance(raw, dict) else None
            if not isinstance(kind, str) or kind not in SINKS:
                found.append(mistakes.mistake((name, "sink"), f"one of {', '.join(sorted(SINKS))}"))
                continue
            try:
                built[name] = SINKS[kind].Settings.model_validate(raw)
            except ValidationError as exc:
                found += mistakes.below(SINKS[kind].Settings, exc, name)
        if found:
            raise ValidationError.from_exception_data("destinations", found, hide_input=True)
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

    @model_validator(mode="after")
    def _tell_who_is_silent(self) -> Self:
        policies = [one.consent for one in self.destinations.values()]
        policies += [one.consent for one in self.collector.ga4.values() if one.consent is not None]
        for policy in policies:
            policy.never_assume(name for name, site in self.sites.items() if site.silence_denies)
        return self

    @model_validator(mode="after")
    def _tell_whose_events_are_dropped(self) -> Self:
        for one in self.destinations.values():
            one.drop_by_default(self.traffic.dropped)
        return self

    def stream_policy(self, measurement_id: str) -> ConsentPolicy:
        """Of a stream of GA4: its own, else that of the `ga4` destination for the same data stream, else the general one."""
        own = self.collector.ga4[measurement_id].consent
        if own is not None:
            return own
        policies = (
            one.consent
            for one in self.destinations.values()
            if one.sink == "ga4" and getattr(one, "measurement_id", "") == measurement_id
        )
        return next(policies, ConsentPolicy())

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
        decides = self.model_dump(mode="json", include={"sites", "sources", "events", "traffic", "destinations"})
        text = orjson.dumps(decides, option=orjson.OPT_SORT_KEYS)
        return hashlib.sha256(text).hexdigest()[:12]


_NO_HOLD = EventRule()


def parse(text: str, place: str = "capistream.toml") -> Settings:
    """Settings from TOML. Raises SettingsError with every mistake and its place."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise SettingsError([f"{place}: not TOML: {exc}"]) from exc
    try:
        settings = Settings.model_validate(raw)
    except ValidationError as exc:
        said = mistakes.said(Settings, exc)
        raise SettingsError(
            [f"{place}: {'.'.join(at) or '(top level)'}: {what}" for at, what in said.items()]
        ) from None
    found = [f"{place}: {line}" for line in _cross_checks(settings)]
    if found:
        raise SettingsError(found)
    return settings


def _cross_checks(settings: Settings) -> list[str]:
    """What no single field can know."""
    mistakes = [f"kafka.{line}" for line in _kafka_mistakes(settings)]
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
        mistakes += [f"sources.{name}.map: {what}" for what in reading.mistakes(source.format, source.map)]
        if source.encoding == "registry":
            mistakes += [f"sources.{name}.encoding: {what}" for what in _no_registry(settings)]
        prefix = re.escape(settings.kafka.prefix)
        if re.match(rf"{prefix}(\.|-.*-changelog$)", source.topic):
            mistakes.append(f"sources.{name}.topic: one of our own topics, by kafka.prefix")
    for name, stream in settings.collector.ga4.items():
        if stream.site not in settings.sites:
            mistakes.append(
                f"collector.ga4.{name}.site: no site is called so; sites are {', '.join(settings.sites) or 'none'}"
            )
    view = settings.view
    if view.proxy and not view.tokens and view.key is None:
        mistakes.append("view.key: missing: with a proxy and no tokens workers have nothing else to know each other by")
    keys: dict[str, str] = {}
    for name, site in settings.sites.items():
        if site.write_key in keys:
            mistakes.append(f"sites.{name}.write_key: the same as of sites.{keys[site.write_key]}")
        keys[site.write_key] = name
    return mistakes


def _kafka_mistakes(settings: Settings) -> list[str]:
    tls, sasl = settings.kafka.tls, settings.kafka.sasl
    whose = " (so says CAPISTREAM_BROKER)" if settings.brokers != settings.kafka.brokers else ""
    mistakes = [
        f"brokers: {one.strip()!r}{whose} is no address: write host:port, and commas between several"
        for one in settings.brokers.split(",")
        if not re.fullmatch(r"\s*([^\s:/\[\]]+|\[[0-9a-fA-F:.]+\])(:\d{1,5})?\s*", one)
    ]
    if tls and tls.key and not tls.certificate:
        mistakes.append("tls.certificate: missing: tls.key is of no use without it")
    if tls and tls.key_password and not tls.certificate:
        mistakes.append("tls.certificate: missing: tls.key_password is of no use without it")
    if sasl is None:
        return mistakes
    needs, others = (
        (("token",), ("user", "password")) if sasl.mechanism == "OAUTHBEARER" else (("user", "password"), ("token",))
    )
    mistakes += [f"sasl.{one}: missing: {sasl.mechanism} needs it" for one in needs if getattr(sasl, one) is None]
    mistakes += [f"sasl.{one}: not for {sasl.mechanism}" for one in others if getattr(sasl, one) is not None]
    if sasl.token and (missing := sasl.token.missing()):
        mistakes.append(f"sasl.token.provider: {missing}")
    # a proxy on the same machine may encrypt for us
    if not tls and not sasl.mechanism.startswith("SCRAM") and not all(map(_is_loopback, settings.brokers.split(","))):
        mistakes.append(
            f"sasl.mechanism: {sasl.mechanism} without [kafka.tls] would show everybody on the way our secret"
        )
    return mistakes


def _is_loopback(broker: str) -> bool:
    host = broker.strip().rpartition(":")[0].strip("[]") or broker.strip()
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _no_registry(settings: Settings) -> list[str]:
    missing = [] if settings.registry else ["needs a part [registry] with the url of your schema registry"]
    if packages := schemas.missing_packages():
        missing.append(f"needs `pip install 'capistream[registry]'`; not found: {', '.join(packages)}")
    return missing


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
    if isinstance(value, list):
        value = {str(n): one for n, one in enumerate(value)}
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
    schema["$defs"]["Collector"]["properties"]["ga4"]["additionalProperties"] = False
    del schema["$defs"]["Destination"]
    _schema_of_tokens(schema)
    return schema | {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "capistream.toml"}


def _schema_of_tokens(schema: dict[str, Any]) -> None:
    options = []
    for kind, provider in sorted(PROVIDERS.items()):
        one = provider.model_json_schema(ref_template="#/$defs/{model}")
        schema["$defs"].update(one.pop("$defs", {}))
        one["properties"]["provider"] = {"const": kind, "description": "Who gives the tokens."}
        one["required"] = sorted({*one.get("required", []), "provider"})
        schema["$defs"][f"token_{kind}"] = one
        options.append({"$ref": f"#/$defs/token_{kind}"})
    token = schema["$defs"]["Sasl"]["properties"]["token"]
    token["anyOf"] = [*options, {"type": "null"}]
    del schema["$defs"]["TokenProvider"]
