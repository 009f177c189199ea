"""The destinations, the schema registry and the alerts' webhook: do they answer, and do they take our secrets?

Only what records nothing is asked. Where a platform has no such call its event is not tried: `capistream destinations test`.
"""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from urllib.parse import urlsplit

from app import destinations, registry, sending
from app.doctor.finding import Finding, listed, ok, problem, warning
from app.doctor.place import Place
from app.doctor.web import Answer, answers, head
from app.errors import CapistreamError, SettingsError, Unavailable
from app.events import Json
from app.settings import Settings
from sinks import SINKS

SOON, LAST_CALL = 60, 7  # days before a platform stops to answer, as in deploy/prometheus/alerts.yml
RUNBOOK = "docs/runbook.md"


@dataclass(frozen=True)
class Tried:
    """What became of an event that counts nowhere."""

    answer: Json | None = None  # of app/destinations.py; None where no event was sent
    why_not: str = ""
    proves_secret: bool = True
    failed: str = ""  # a mistake of the sink


async def check(place: Place) -> list[Finding]:
    seen = await answers(place)
    tried = dict(
        zip(seen, await asyncio.gather(*(_try(place.settings, name, one) for name, one in seen.items())), strict=True)
    )
    today = datetime.fromtimestamp(place.now, UTC).date()
    return [*judge_sunsets(place.settings, today), *judge_answers(seen, tried)]


async def _try(settings: Settings, name: str, seen: Answer) -> Tried | SettingsError:
    if seen.trouble:
        return Tried(why_not=seen.trouble)
    try:
        sending.secrets_of(settings.destinations[name])
    except SettingsError as exc:
        return Tried(why_not=str(exc))  # told with the secrets
    try:
        trial = destinations.trial(settings, name)
        if not trial.has_test_mode or trial.counts:
            return Tried(why_not=f"it would be counted: capistream destinations test {name}")
        return Tried(await destinations.send(trial), proves_secret=trial.sink.proves_secret)
    except SettingsError as exc:
        return exc
    except CapistreamError as exc:
        return Tried(why_not=str(exc))
    except Exception as exc:  # noqa: BLE001 (a mistake of one sink must not hide what the others say)
        return Tried(failed=type(exc).__name__)


async def check_registry(place: Place) -> list[Finding]:
    where = place.settings.registry
    if where is None:
        return []
    needs = [name for name, one in place.settings.sources.items() if one.encoding == "registry"]
    try:
        async with registry.connected(place.settings) as found:
            assert found is not None
            await found.reach()
    except Unavailable as exc:
        return [judge_registry(str(exc), needs)]
    return [judge_registry("", needs)]


async def check_alerts(place: Place) -> list[Finding]:
    secret = place.settings.alerts.webhook
    if secret is None:
        return []
    try:
        address = secret.read()
    except SettingsError:
        return []  # told with the secrets
    return [judge_alerts(address, await head(address) if _is_address(address) else None)]


def judge_sunsets(settings: Settings, today: date) -> Iterator[Finding]:
    fine = []
    for name, one in settings.destinations.items():
        limits = SINKS[one.sink](one).limits
        if one.mode == "off" or limits.sunset is None:
            continue
        left = (limits.sunset - today).days
        if left >= SOON:
            fine.append(f"{name} {limits.api_version} until {limits.sunset}")
            continue
        tell = problem if left < LAST_CALL else warning
        yield tell(
            f"destinations.{name}",
            f"API version {limits.api_version} "
            + (
                f"answers until {limits.sunset}, {left} days from now"
                if left >= 0
                else f"stopped to answer on {limits.sunset}"
            ),
            "update capistream, or set `api_version` after reading the platform's list of changes",
            f"{RUNBOOK}#capistreamapisunset",
        )
    if fine:
        yield ok("API versions", listed(fine))


def judge_answers(seen: Mapping[str, Answer], tried: Mapping[str, Tried | SettingsError]) -> Iterator[Finding]:
    for name, one in seen.items():
        what, found = f"destinations.{name}", tried[name]
        if one.trouble:
            yield problem(
                what,
                f"{one.host}: {one.trouble}",
                "is `endpoint` right; do this machine's name server, firewall and proxy let it through? Events wait meanwhile",
                f"{RUNBOOK}#capistreamdestinationretrying",
            )
        elif isinstance(found, SettingsError):
            yield problem(
                what,
                str(found),
                "write a good one where the setting says; no restart is needed",
                f"{RUNBOOK}#capistreamdestinationhalted",
            )
        elif found.failed:
            yield problem(
                what,
                f"its sink failed to make a request or to read the answer: {found.failed}",
                "report it to who made the sink; the worker would halt this destination",
                f"{RUNBOOK}#capistreamdestinationhalted",
            )
        elif found.answer is None:
            yield ok(what, f"{one.host} answers; no event tried: {found.why_not}")
        else:
            yield _judge_try(what, one.host, found.answer, proves_secret=found.proves_secret)


def _judge_try(what: str, host: str, answer: Json, *, proves_secret: bool) -> Finding:
    said = ": ".join(filter(None, (answer["outcome"], answer.get("reason", ""), answer.get("detail", ""))))
    if answer["ok"]:
        more = "" if proves_secret else "; it looks at the event alone, so whether the secret is right is not known"
        return ok(what, f"{host} takes a made-up purchase, which it does not count{more}")
    if answer["outcome"] == "halt":
        return problem(
            what,
            f"{host} refuses us: {said}",
            "renew the token or the account's rights; no restart is needed",
            f"{RUNBOOK}#capistreamdestinationhalted",
        )
    if answer["outcome"] in ("retry", "no_answer"):
        return warning(
            what, f"{host}: {said}", "try again; is it the platform?", f"{RUNBOOK}#capistreamdestinationretrying"
        )
    return warning(
        what,
        f"{host} does not take a made-up purchase: {said}",
        f"capistream destinations test {what.partition('.')[2]} shows the request and the answer",
        f"{RUNBOOK}#capistreamrejected",
    )


def judge_registry(trouble: str, needs: list[str]) -> Finding:
    if not trouble:
        return ok("registry", f"it answers; for {listed(needs) or 'no source'}")
    return problem(
        "registry",
        trouble,
        f"the records of {listed(needs) or 'its sources'} wait, and with them all merges: is registry.url right, does it run?",
        "docs/operations.md#is-a-worker-well",
    )


def judge_alerts(address: str, answer: Answer | None) -> Finding:
    """Says nothing of the address: it is a secret."""
    if answer is None:
        return problem("alerts.webhook", "no address that begins with https://", "copy it whole from your chat program")
    if answer.trouble:
        return problem(
            "alerts.webhook", answer.trouble, "does this machine reach it? else nobody is told when a destination halts"
        )
    if urlsplit(address).scheme != "https":
        return warning(
            "alerts.webhook", "http: its address, which is a secret, goes over the network in clear", "use https"
        )
    return ok("alerts.webhook", "its server answers; nothing was posted")


def _is_address(text: str) -> bool:
    parts = urlsplit(text)
    return parts.scheme in ("http", "https") and bool(parts.hostname)
