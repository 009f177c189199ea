"""Plays a traffic file: pixel copies by HTTP as a browser posts them, server copies by the real Segment SDK, the rest into Kafka.

The file's format is told in app/demo/generate.py. What a client library would do, this does too: the pixel's queue and the SDK
send again what was not acknowledged, so every event of the file arrives, or is refused with a reason.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from aiokafka import AIOKafkaProducer

from app.errors import CapistreamError
from app.events import Json
from app.settings import Settings

PATIENCE = 120.0  # seconds for one event to be acknowledged
_IDS = frozenset({"event_id", "transaction_id", "order_id", "refund_id"})


@dataclass(frozen=True)
class Target:
    """Where traffic goes."""

    collector: str
    write_key: str
    secret_key: str
    brokers: str
    topic: str | None  # the "existing" topic for lines that go by bus


@dataclass
class Sent:
    """What was acknowledged, by way; `refused` by reason."""

    pixel: int = 0
    segment: int = 0
    bus: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)  # never acknowledged: why

    @property
    def total(self) -> int:
        return self.pixel + self.segment + self.bus


def target(settings: Settings) -> Target:
    """From a configuration: its collector, its first site, its first source. Raises SettingsError."""
    if not settings.sites:
        raise CapistreamError("the configuration has no site, so there is no key to send with")
    site = next(iter(settings.sites.values()))
    source = next(iter(settings.sources.values()), None)
    return Target(
        collector=f"http://{settings.collector.host}:{settings.collector.port}",
        write_key=site.write_key,
        secret_key=site.secret_key.read(),
        brokers=settings.brokers,
        topic=source.topic if source else None,
    )


def load(path: Path) -> list[Json]:
    """The lines of a file. Raises CapistreamError naming the line that cannot be read."""
    lines = []
    for number, text in enumerate(path.read_bytes().splitlines(), 1):
        if not text.strip():
            continue
        try:
            line = orjson.loads(text)
            if line["via"] not in ("pixel", "segment", "bus"):
                raise ValueError("via")
            line["at"] = float(line["at"])
            line["body"]
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as exc:
            raise CapistreamError(f"{path}, line {number}: not a line of a traffic file: {exc!r}") from None
        lines.append(line)
    return lines


def renamed(body: Any, suffix: str) -> Any:
    """The same body with other ids, so that a file can be played again."""
    if isinstance(body, dict):
        return {
            k: f"{v}{suffix}" if k in _IDS and isinstance(v, str | int) else renamed(v, suffix) for k, v in body.items()
        }
    if isinstance(body, list):
        return [renamed(one, suffix) for one in body]
    return body


class Player:
    def __init__(self, to: Target, progress: Callable[[Sent], None] = lambda _: None) -> None:
        self.to, self.progress, self.sent = to, progress, Sent()
        self._tasks: set[asyncio.Task[None]] = set()

    async def play(self, lines: Iterable[Json], *, speed: float = 1.0, suffix: str = "") -> Sent:
        """Send every line at its time, and wait until all are acknowledged. `speed` 2 plays twice as fast."""
        lines, begun = list(lines), time.monotonic()
        segment = self._segment_client() if any(line["via"] == "segment" for line in lines) else None
        by_bus = any(line["via"] == "bus" for line in lines)
        if by_bus and self.to.topic is None:
            raise CapistreamError("the file has lines for the bus, but the configuration has no source topic")
        async with aiohttp.ClientSession() as http:
            bus = AIOKafkaProducer(bootstrap_servers=self.to.brokers, acks="all", linger_ms=5) if by_bus else None
            if bus is not None:
                await bus.start()
            try:
                for line in lines:
                    await asyncio.sleep(max(0.0, begun + line["at"] / speed - time.monotonic()))
                    body = renamed(line["body"], suffix) if suffix else line["body"]
                    lag = float(line.get("lag", 0.0))
                    if line["via"] == "pixel":
                        self._start(self._pixel(http, line, body, lag))
                    elif line["via"] == "segment":
                        self._track(segment, body, lag)
                    elif bus is not None:
                        self._start(self._bus(bus, body, lag))
                while self._tasks:
                    await asyncio.wait(self._tasks)
                if segment is not None:
                    await asyncio.to_thread(segment.join)  # sends what is queued, with the SDK's own retries
            finally:
                for task in self._tasks:
                    task.cancel()
                if bus is not None:
                    await bus.stop()
        return self.sent

    def _start(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pixel(self, http: aiohttp.ClientSession, line: Json, body: Json, lag: float) -> None:
        headers = {"User-Agent": line.get("user_agent", ""), "X-Forwarded-For": line.get("ip", "")}
        occurred, until, pause = time.time() - lag, time.monotonic() + PATIENCE, 0.2
        while True:
            stamped = {"time": int(occurred * 1000), **body, "sent_at": int(time.time() * 1000)}
            try:
                async with http.post(
                    f"{self.to.collector}/v1/events",
                    json={**stamped, "writeKey": self.to.write_key},
                    headers={k: v for k, v in headers.items() if v},
                    timeout=aiohttp.ClientTimeout(total=15),
                ) as response:
                    answer = orjson.loads(await response.read())
                    if response.status == 200:
                        self.sent.pixel += 1
                        break
                    if response.status < 500 and response.status != 429:
                        problem = (answer.get("refused") or [answer.get("error")])[0]
                        self.sent.refused[problem["reason"]] = self.sent.refused.get(problem["reason"], 0) + 1
                        break
                    why = f"HTTP {response.status}"
            except (aiohttp.ClientError, TimeoutError, OSError, orjson.JSONDecodeError) as exc:
                why = type(exc).__name__
            if time.monotonic() > until:
                self.sent.failed.append(f"pixel: {why}")
                break
            await asyncio.sleep(pause)
            pause = min(pause * 2, 5.0)
        self.progress(self.sent)

    async def _bus(self, bus: AIOKafkaProducer, body: Any, lag: float) -> None:
        occurred = int((time.time() - lag) * 1000)
        value = orjson.dumps({"time": occurred, **body}) if isinstance(body, dict) else str(body).encode()
        await bus.send_and_wait(self.to.topic, value)
        self.sent.bus += 1
        self.progress(self.sent)

    def _segment_client(self) -> Any:
        try:
            from segment.analytics.client import Client
        except ImportError:
            raise CapistreamError("segment-analytics-python is not installed: pip install 'capistream[demo]'") from None
        return Client(
            self.to.secret_key,
            host=self.to.collector,
            gzip=True,
            max_retries=100,
            timeout=15,
            on_error=lambda error, _batch: self.sent.failed.append(f"segment: {type(error).__name__}"),
        )

    def _track(self, client: Any, body: Json, lag: float) -> None:
        queued, _ = client.track(
            user_id=body.get("userId"),
            anonymous_id=body.get("anonymousId"),
            event=body["event"],
            properties=body.get("properties"),
            context=body.get("context"),
            timestamp=datetime.now(UTC) - timedelta(seconds=lag),
        )
        if queued:
            self.sent.segment += 1
        else:
            self.sent.failed.append("segment: queue full")
        self.progress(self.sent)
