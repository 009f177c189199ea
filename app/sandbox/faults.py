"""The fault switches: how a platform misbehaves on request.

Switches are set per destination: a platform ("meta") or one account of it ("meta:123"), where the narrower one wins.
Draws come from a seeded generator, so that a run with one request at a time can be repeated.
"""

import random
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from app.sandbox import _checks as must
from app.sandbox._base import Answer, Platform, Problem
from app.sandbox._checks import Check, Problems

#: In this order; the first that strikes is the answer, and nothing is kept of the request.
REFUSALS = ("reset_before", "status_429", "throttle_200", "throttle_400", "throttle_401", "status_500", "html_error")

#: Refusals that any platform can give; a platform says in its `failures` how it gives the others.
COMMON = ("reset_before", "html_error")

HTML = (
    b"<!DOCTYPE html><html><head><title>Error</title></head><body><h1>Sorry, something went wrong.</h1></body></html>"
)


@dataclass(frozen=True)
class Switches:
    """All off. Probabilities are per request and from 0 to 1."""

    latency_ms: float = 0  # every request waits
    status_429: float = 0  # HTTP 429
    retry_after: float = 0  # seconds, the Retry-After header of a 429; 0: no header
    throttle_200: float = 0  # throttled by a code in an HTTP 200
    throttle_400: float = 0  # the same in an HTTP 400
    throttle_401: float = 0  # the same in an HTTP 401
    status_500: float = 0  # HTTP 500
    html_error: float = 0  # an HTML page where JSON was expected
    html_status: int = 502  # the HTTP status of that page
    reset_before: float = 0  # the connection is cut and nothing kept
    reset_after: float = 0  # everything is kept and the connection cut
    partial: float = 0  # per event: a good event fails alone
    queue_s: float = 0  # seconds until a platform that takes requests first tells what became of them
    expired_token: bool = False  # no token is good any more
    seed: int = 0


@dataclass(frozen=True)
class Strike:
    """What befalls one request."""

    latency: float = 0  # seconds
    refusal: str = ""  # one of REFUSALS
    reset_after: bool = False
    switches: Switches = Switches()


def _probability(value: Any, path: str) -> Problems:
    if not must.is_number(value) or not 0 <= value <= 1:
        yield Problem(path, "must be a probability from 0 to 1")


def _between(least: float, most: float) -> Check:
    def run(value: Any, path: str) -> Problems:
        if not must.is_number(value) or not least <= value <= most:
            yield Problem(path, f"must be a number from {least} to {most}")

    return run


def _html_status(value: Any, path: str) -> Problems:
    yield from must.whole()(value, path)
    yield from _between(200, 599)(value, path)


REQUEST = must.record(
    {
        "destination": must.text,
        "latency_ms": _between(0, 600_000),
        "retry_after": _between(0, 86_400),
        "queue_s": _between(0, 86_400),
        **dict.fromkeys((*REFUSALS, "reset_after", "partial"), _probability),
        "html_status": _html_status,
        "expired_token": must.flag,
        "seed": must.whole(),
    },
    required=("destination",),
)


class Faults:
    def __init__(self, platforms: Iterable[Platform]) -> None:
        self._platforms = {platform.name: platform for platform in platforms}
        self._set: dict[str, tuple[Switches, random.Random]] = {}

    def set(self, body: Any) -> list[Problem]:
        """Replace a destination's switches: those not named are off. Nothing changes when there are problems."""
        problems = [*REQUEST(body, ""), *self._unable(body)]
        if not problems:
            switches = Switches(**{key: value for key, value in body.items() if key != "destination"})
            self._set[body["destination"]] = (switches, random.Random(switches.seed))  # noqa: S311  faults, no secrets
        return problems

    def _unable(self, body: Any) -> Problems:
        """Switches for what the platform cannot do."""
        destination = body.get("destination") if isinstance(body, dict) else None
        if not isinstance(destination, str):
            return
        platform = self._platforms.get(destination.partition(":")[0])
        if platform is None:
            yield Problem("destination", "must be a platform or platform:account, of: " + ", ".join(self._platforms))
            return
        for key in REFUSALS:
            if body.get(key) and key not in (*COMMON, *platform.failures):
                yield Problem(key, f"does not happen on {platform.name}")
        if body.get("queue_s") and not platform.queues:
            yield Problem("queue_s", f"does not happen on {platform.name}: it answers at once")
        if body.get("partial") and not platform.partial:
            yield Problem("partial", f"does not happen on {platform.name}: it fails requests as a whole or not at all")

    def clear(self, destination: str | None = None) -> None:
        if destination is None:
            self._set.clear()
        else:
            self._set.pop(destination, None)

    def show(self) -> dict[str, Any]:
        return {destination: asdict(switches) for destination, (switches, _) in sorted(self._set.items())}

    def expired(self, platform: str, account: str) -> bool:
        switches, _ = self._of(platform, account)
        return switches.expired_token

    def spoils(self, platform: str, account: str) -> bool:
        switches, dice = self._of(platform, account)
        return dice.random() < switches.partial if switches.partial else False

    def queue(self, platform: str, account: str) -> float:
        switches, _ = self._of(platform, account)
        return switches.queue_s

    def strike(self, platform: str, account: str) -> Strike:
        switches, dice = self._of(platform, account)
        struck = [key for key in (*REFUSALS, "reset_after") if _happens(getattr(switches, key), dice)]
        return Strike(
            latency=switches.latency_ms / 1000,
            refusal=next((key for key in struck if key in REFUSALS), ""),
            reset_after="reset_after" in struck,
            switches=switches,
        )

    def answer(self, platform: str, strike: Strike) -> Answer | None:
        """The platform's words for a refusal; None: it says nothing and hangs up."""
        if strike.refusal == "reset_before":
            return None
        if strike.refusal == "html_error":
            return Answer(strike.switches.html_status, HTML, "text/html")
        answer = self._platforms[platform].failures[strike.refusal]
        if strike.refusal == "status_429" and strike.switches.retry_after:
            headers: Mapping[str, str] = {**answer.headers, "Retry-After": f"{strike.switches.retry_after:g}"}
            return Answer(answer.status, answer.body, answer.content_type, headers)
        return answer

    def _of(self, platform: str, account: str) -> tuple[Switches, random.Random]:
        return self._set.get(f"{platform}:{account}") or self._set.get(platform) or _CALM


def _happens(probability: float, dice: random.Random) -> bool:
    return probability > 0 and dice.random() < probability


_CALM = (Switches(), random.Random(0))  # noqa: S311  never drawn from
