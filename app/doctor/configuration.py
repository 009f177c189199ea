"""The configuration: does it load, are its secrets there and nobody else's, and does it say something that is seldom meant?

`capistream config check` refuses what cannot work. What can, and most often is a mistake, is told here.
"""

import os
import stat
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509

from app import bus, forget, settings
from app.destination import Destination
from app.doctor.finding import Finding, listed, ok, problem, warning
from app.doctor.place import Place
from app.errors import SettingsError
from app.fields import Secret
from app.letters import when
from app.settings import Settings
from sinks import SINKS

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PLACEHOLDERS = ("changeme", "change-me", "secret", "password", "todo", "xxx", "your-", "<")
SOON = 14  # days before the end of our certificate
#: Of a TC string's purposes, those for which legitimate interest is no ground: consent.py reads them by consent alone.
BY_CONSENT_ALONE = (1, 3, 4, 5, 6)


@dataclass(frozen=True)
class SecretSeen:
    place: str  # the setting
    error: str = ""  # why it cannot be read
    value: str = field(default="", repr=False)
    file: Path | None = None
    mode: int | None = None  # the file's permissions


def load(path: Path | None) -> tuple[Settings | None, list[Finding]]:
    """The settings, if there are any, and what is wrong with the file; all mistakes at once."""
    path = path or settings.default_path()
    try:
        loaded = settings.load(path)
    except SettingsError as exc:
        return None, [
            problem("configuration", line, "correct it; docs/settings.md tells what each setting means")
            for line in exc.mistakes
        ]
    said = f"{len(loaded.sites)} sites, {len(loaded.sources)} sources, {len(loaded.destinations)} destinations"
    found = [ok("configuration", f"{path}: {said}, hash {loaded.hash}")]
    if path.stat().st_mode & stat.S_IWOTH:
        found.append(
            warning(str(path), "everybody on this machine may change it, and so where events go", f"chmod o-w {path}")
        )
    if loaded.brokers != loaded.kafka.brokers:
        found.append(ok("kafka.brokers", f"{loaded.brokers}, by the environment variable CAPISTREAM_BROKER"))
    return loaded, found


async def check_secrets(place: Place) -> list[Finding]:
    seen = [_seen(where, secret) for where, secret in settings._secrets(place.settings, "")]
    return [
        *judge_secrets(seen, short_key=_short_key(place.settings), contained=contained(os.environ)),
        *judge_certificate(place.settings, _ends(place.settings), place.now),
    ]


async def check_meaning(place: Place) -> list[Finding]:
    return list(judge_meaning(place.settings, datetime.fromtimestamp(place.now, UTC)))


# -- secrets


def secrets(loaded: Settings) -> list[str]:
    """All that can be read, to be kept out of what is told."""
    return [one.value for where, secret in settings._secrets(loaded, "") if (one := _seen(where, secret)).value]


def _seen(where: str, secret: Secret) -> SecretSeen:
    mode = None
    if secret.file is not None:
        with suppress(OSError):  # reading it says why
            mode = stat.S_IMODE(secret.file.stat().st_mode)
    try:
        return SecretSeen(where, "", secret.read(), secret.file, mode)
    except SettingsError as exc:
        return SecretSeen(where, str(exc), "", secret.file, mode)


def _short_key(loaded: Settings) -> str:
    try:
        forget.prints(loaded)
    except SettingsError as exc:
        return str(exc)
    return ""


def contained(environment: Mapping[str, str]) -> bool:
    """Is this a container? There nobody else is on the machine."""
    return "KUBERNETES_SERVICE_HOST" in environment or any(map(os.path.exists, ("/.dockerenv", "/run/.containerenv")))


def judge_secrets(seen: Sequence[SecretSeen], *, short_key: str, contained: bool) -> Iterator[Finding]:
    good = 0
    for one in seen:
        if one.error:
            yield problem(
                one.place, one.error, "give it to this user: the variable, or the file and the right to read it"
            )
            continue
        good += 1
        if what := odd_shape(one.place, one.value):
            tell = warning if one.value.isprintable() else problem  # no request can be made of that
            yield tell(one.place, what, "is it what the platform gave you, whole, and nothing else?")
        if one.mode is not None and one.mode & (stat.S_IWOTH | (0 if contained else stat.S_IROTH)):
            what = "change" if one.mode & stat.S_IWOTH else "read"
            yield warning(
                one.place,
                f"everybody on this machine may {what} {one.file} (mode {one.mode:04o})",
                f"chmod o-rwx {one.file}; if the service's user then cannot read it, chgrp it to that user's group",
            )
    if short_key and not any(one.error for one in seen if one.place.startswith("privacy.")):
        yield problem("privacy.key", short_key.removeprefix("privacy.key: "), "openssl rand -hex 32")
    if good == len(seen):
        yield ok("secrets", f"{good} of {len(seen)} can be read")


def odd_shape(place: str, value: str) -> str:
    """What no platform's secret looks like; an empty text where nothing is odd. Never quotes it."""
    if place.endswith(".credentials"):  # JSON, which the token endpoint judges
        return ""
    if value[:1] == value[-1:] and value[:1] in "\"'":
        return "in quotes, which are sent as part of it"
    if value.lower().startswith("bearer "):
        return "begins with Bearer, which we add ourselves"
    if not value.isprintable():
        return "has a line break, or another character that no header can hold"
    if " " in value:
        return "has a blank in it"
    if value.lower().startswith(PLACEHOLDERS):
        return "looks like a placeholder"
    if len(value) < 8:
        return f"has {len(value)} characters"
    return ""


def _ends(loaded: Settings) -> float | None:
    """When our own certificate for Kafka does, in Unix seconds; None where there is none that can be read."""
    tls = loaded.kafka.tls
    if tls is None or tls.certificate is None:
        return None
    try:
        return x509.load_pem_x509_certificate(tls.certificate.read_bytes()).not_valid_after_utc.timestamp()
    except (OSError, ValueError):
        return None


def judge_certificate(loaded: Settings, ends: float | None, now: float) -> Iterator[Finding]:
    for line in bus.unreadable(loaded):
        yield problem("kafka.tls", line, "correct the setting, or the file", "docs/kafka.md#connect")
    if ends is None:
        return
    days, said = (ends - now) / 86_400, when(int(ends * 1000))
    if days >= SOON:
        yield ok("kafka.tls.certificate", f"good until {said}")
        return
    tell = warning if days > 0 else problem
    yield tell(
        "kafka.tls.certificate",
        f"{'ends' if days > 0 else 'ended'} on {said}" + (f", {days:.0f} days from now" if days > 0 else ""),
        "put a new one in its place: it is read for each new connection",
        "docs/kafka.md#certificates-mutual-tls",
    )


# -- what is seldom meant


def judge_meaning(loaded: Settings, now: datetime) -> Iterator[Finding]:
    found = [*_in_and_out(loaded), *_told(loaded)]
    for name, one in loaded.destinations.items():
        if one.mode != "off":
            found += [*_destination(f"destinations.{name}", one, now), *_consent(f"destinations.{name}.consent", one)]
    found += _twice(loaded)
    yield from found
    if not found:
        yield ok("meaning", "nothing in it is seldom meant")


def _in_and_out(loaded: Settings) -> Iterator[Finding]:
    on = [name for name, one in loaded.destinations.items() if one.mode != "off"]
    if not loaded.sites:
        yield warning("sites", "there are none: nobody can send anything", "add [sites.NAME]")
    if not on:
        yield warning(
            "destinations", "none is on: nothing is sent", 'add [destinations.NAME], or take mode = "off" away'
        )
    for name, rule in loaded.events.items():
        if rule.expect and not rule.merge_window:
            yield warning(
                f"events.{name}.merge_window",
                "0, so no copy waits for those in `expect`",
                "give it some seconds, or take `expect` away",
            )


def _told(loaded: Settings) -> Iterator[Finding]:
    if loaded.alerts.webhook is None:
        yield warning(
            "alerts.webhook",
            "not set: nobody is told when a destination halts",
            'webhook = { env = "NAME" } in [alerts], or the alerts of deploy/prometheus',
            "docs/operations.md#a-destination-stops",
        )
    if loaded.privacy.key is None:
        yield warning(
            "privacy.key",
            "not set: an erasure does not find rows that outlive the data of their event",
            'key = { env = "NAME" } in [privacy], made by: openssl rand -hex 32',
            "docs/privacy.md",
        )


def _destination(what: str, one: Destination, now: datetime) -> Iterator[Finding]:
    address = urlsplit(one.endpoint)
    if address.scheme == "http" and one.mode == "live":
        here = address.hostname in LOOPBACK
        yield warning(
            f"{what}.endpoint",
            "on this machine, an emulator? no platform gets anything"
            if here
            else "http: hashes, addresses and secrets go over the network in clear",
            'take `endpoint` away for the platform itself, or set mode = "shadow"' if here else "use https",
        )
    if not one.share:
        yield warning(f"{what}.share", "0: nothing is sent there", 'raise it, or say mode = "off"')
    if one.live_from and one.live_from > now:
        yield warning(
            f"{what}.live_from",
            f"in the future ({when(int(one.live_from.timestamp() * 1000))}): nothing is sent there before",
            "leave it, if that is meant",
        )


def _consent(what: str, one: Destination) -> Iterator[Finding]:
    policy, sink = one.consent, SINKS[one.sink]
    if policy.needs == []:
        yield warning(
            f"{what}.needs",
            "empty: events go there whatever the person said, opt-outs of US laws aside",
            "take it away for the default of the platform's purpose, or name signals",
            "docs/consent.md",
        )
    elif policy.absent == "assume":
        yield warning(
            f"{what}.absent",
            '"assume" everywhere: who was not asked, or of whom nobody told, counts as having consented, in the EEA and UK too',
            'say it where the law allows it: regions = { US = { absent = "assume" } }',
            "docs/consent.md",
        )
    if vain := [purpose for purpose in policy.legitimate_interest if purpose in BY_CONSENT_ALONE]:
        yield warning(
            f"{what}.legitimate_interest",
            f"names purposes {', '.join(map(str, vain))}, for which TCF knows consent alone: that has no effect",
            "take them away",
            "docs/consent.md",
        )
    partial = {policy.partial, *(region.partial for region in policy.regions.values())}
    if "flag" in partial and not sink.flags:
        yield warning(
            f"{what}.partial",
            f'"flag", and {sink.title} can be told nothing: such events are held back',
            'say "strip" or "drop"',
            "docs/consent.md",
        )


def _twice(loaded: Settings) -> Iterator[Finding]:
    """Two live destinations for one account count each conversion twice."""
    accounts: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for name, one in loaded.destinations.items():
        if one.mode == "live":
            accounts[account(one)].append(name)
    for names in accounts.values():
        if len(names) > 1:
            yield warning(
                f"destinations.{names[0]}",
                f"goes to the same account as {listed(names[1:])}: each conversion is counted once for each",
                "take one away, or let `events` and `share` part them",
            )


def account(one: Destination) -> tuple[object, ...]:
    """What tells a destination's account: the settings that its sink asks for, secrets aside, and the address."""
    own = [
        getattr(one, name)
        for name, field in type(one).model_fields.items()
        if field.is_required() and name not in Destination.model_fields and not isinstance(getattr(one, name), Secret)
    ]
    return one.sink, one.endpoint, *map(str, own)
