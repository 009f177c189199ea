"""One request to a platform: made by the sink, signed, sent, and its answer understood. Whatever goes wrong is an outcome."""

import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from email.utils import formatdate
from typing import TYPE_CHECKING

import aiohttp
import structlog

from app import metrics, trace
from app.delivery import Clock
from app.destination import Destination
from app.errors import CapistreamError, SettingsError, Unavailable
from app.fields import Secret
from app.lossless import Lost
from app.prepare import Masked
from app.trace import Exchange
from sinks._base import Followed, Halt, Outcome, Payload, Request, Response, Retry, Sink

if TYPE_CHECKING:
    from app.tokens import GoogleTokens

log = structlog.get_logger()

LONGEST_ANSWER = 512 * 1024  # bytes that are read of an answer
SECRETS_FOR = 1.0  # seconds for which a secret is not read again
CONNECT = 0.5  # part of a request's time that connecting may take: after that nothing can have been taken
_MASKED = Masked()


class Sender:
    """Of one destination. `http` gives the session to send with."""

    def __init__(
        self,
        name: str,
        settings: Destination,
        sink: Sink,
        tokens: "GoogleTokens",
        http: Callable[[], Awaitable[aiohttp.ClientSession]],
        clock: Clock,
    ) -> None:
        self.name, self.settings, self.sink = name, settings, sink
        self._tokens, self._http, self._clock = tokens, http, clock
        self._read: tuple[float, dict[str, str]] = (-math.inf, {})
        self._mistrusted = False  # do the secrets have to be read, and tokens be got, anew?
        self.answers = 0  # a time-out is one, too

    async def attempt(self, payloads: Sequence[Payload], may_go: Callable[[], Awaitable[None]]) -> Exchange:
        """An outcome for each, and how it came to that.

        Nothing awaits between `may_go`, which raises Lost where it may not, and the sending.
        """
        try:
            secrets = await self._secrets()
            await may_go()
            request = self._signed(self.sink.request(payloads, secrets), secrets)
        except Lost:
            raise
        except SettingsError as exc:
            return self._all(payloads, Halt(f"no secret: {exc}"))
        except Unavailable as exc:
            return self._all(payloads, Retry(f"no access token: {exc}"))
        except Exception as exc:  # a mistake of the sink halts its destination, never the worker
            log.exception("sink.failed", destination=self.name)
            return self._all(payloads, Halt(f"the sink made no request: {type(exc).__name__}"))
        at, begun = self._clock.unix(), time.perf_counter()
        answer = await self._send(request)
        seconds, status = time.perf_counter() - begun, _status(answer)
        self.answers += 1
        metrics.REQUEST_SECONDS.labels(self.name).observe(seconds)
        metrics.ATTEMPTS.labels(self.name, str(status)).inc()
        if isinstance(answer, Retry):
            return replace(self._all(payloads, answer), at=at, seconds=seconds)
        try:
            outcomes, usage = self.sink.verdict(payloads, answer), self.sink.usage(answer)
            if len(outcomes) != len(payloads):
                raise ValueError("another number of outcomes than of events")
        except Exception as exc:
            log.exception("sink.failed", destination=self.name)
            halt = Halt(f"the sink did not understand the answer: {type(exc).__name__}", unclear=True)
            return replace(self._all(payloads, halt), at=at, seconds=seconds, status=status, body=answer.body)
        self._mistrusted = any(isinstance(one, Halt) for one in outcomes)
        return Exchange(outcomes, usage, at, seconds, status, answer.body)

    def _all(self, payloads: Sequence[Payload], outcome: Outcome) -> Exchange:
        self._mistrusted = isinstance(outcome, Halt)
        return Exchange([outcome] * len(payloads))

    def told(self, exchange: Exchange) -> str:
        """What the platform answered, fit to be kept."""
        return trace.answer(exchange.body, self._read[1])

    def rehearse(self, payloads: Sequence[Payload]) -> Request | Halt:
        """The request as it would be sent, without secrets."""
        try:
            return self.sink.request(payloads, _MASKED)
        except Exception as exc:
            log.exception("sink.failed", destination=self.name)
            return Halt(f"the sink made no request: {type(exc).__name__}")

    async def check(self, payloads: Sequence[Payload]) -> Sequence[str]:
        """What the platform's validation finds wrong with these; nothing where it does not answer."""
        secrets = await self._secrets()
        request = self.sink.check(payloads, secrets)
        if request is None:
            return ()
        answer = await self._send(self._signed(request, secrets))
        metrics.CHECKS.labels(self.name, str(_status(answer))).inc()
        return self.sink.complaints(answer) if isinstance(answer, Response) else ()

    async def ask(self, reference: str, may_go: Callable[[], Awaitable[None]]) -> Followed | None:
        """What became of a request that the platform has queued. None: not yet, or nobody answers. Raises Lost."""
        try:
            secrets = await self._secrets()
            request = self.sink.follow_up(reference, secrets)
            await may_go()
            answer = await self._send(self._signed(request, secrets))
            return self.sink.followed(answer) if isinstance(answer, Response) else None
        except Lost:
            raise
        except CapistreamError as exc:
            log.warning("delivery.not_asked", destination=self.name, error=str(exc))
        except Exception:  # a mistake of the sink
            log.exception("sink.failed", destination=self.name)
        return None

    def _signed(self, request: Request, secrets: dict[str, str]) -> Request:
        return self.sink.signed(request, secrets, self._clock.unix())

    async def _send(self, request: Request) -> Response | Retry:
        return await send(await self._http(), request, self.sink.limits.timeout)

    async def _secrets(self) -> dict[str, str]:
        """The destination's secrets, read anew: a repaired one works at the next attempt. Raises SettingsError, Unavailable."""
        at, known = self._read
        if self._clock.steady() - at > SECRETS_FOR or self._mistrusted:
            known = secrets_of(self.settings)
            self._read = self._clock.steady(), known
        if not self.sink.scopes:
            return known
        if self._mistrusted:
            self._tokens.forget(known["credentials"], self.sink.scopes)  # it may have been revoked before its end
        return {**known, "credentials": await self._tokens.get(known["credentials"], self.sink.scopes)}


def secrets_of(settings: Destination) -> dict[str, str]:
    """By the names of the settings, read now. Raises SettingsError."""
    return {name: _of_one_line(name, value) for name, value in settings if isinstance(value, Secret)}


def _of_one_line(name: str, secret: Secret) -> str:
    """The secret; it goes into headers and addresses, but for a credential of Google's, which is a file. Raises SettingsError."""
    value = secret.read()
    if name != "credentials" and not value.isprintable():
        raise SettingsError([f"{name} has a line break or another character that no header can hold"])
    return value


async def send(session: aiohttp.ClientSession, request: Request, seconds: float) -> Response | Retry:
    """What came back within this time, or what it means that nothing did."""
    try:
        async with session.request(
            request.method,
            request.url,
            headers=dict(request.headers),
            data=request.body,
            timeout=aiohttp.ClientTimeout(total=seconds, sock_connect=seconds * CONNECT),
            allow_redirects=False,
        ) as response:
            headers: Mapping[str, str] = response.headers
            if "Date" not in headers:  # that of its receipt, then (RFC 9110, 6.6.1)
                headers = response.headers.copy()
                headers["Date"] = formatdate(usegmt=True)
            return Response(response.status, headers, await _body(response))
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as exc:
        return Retry(f"no connection: {type(exc).__name__}")
    except (aiohttp.ClientError, TimeoutError, OSError) as exc:
        # not its text: it can hold the address, and so the secret
        return Retry(f"no answer: {type(exc).__name__}", unclear=True)


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """At most LONGEST_ANSWER of it, however it drips."""
    body = bytearray()
    while chunk := await response.content.readany():
        body += chunk
        if len(body) >= LONGEST_ANSWER:
            response.close()  # the rest would block the connection for the next request
            break
    return bytes(body[:LONGEST_ANSWER])


def _status(answer: Response | Retry) -> int:
    return answer.status if isinstance(answer, Response) else 0
