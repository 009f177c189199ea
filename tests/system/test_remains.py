"""After an erasure nothing of the person is on any disk of ours when the time is over that `capistream forget` tells.

Kafka's own rounds are made shorter than by default, and so are the times of the configuration: what is told is still the bound.
"""

import asyncio
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from app import identity, settings
from app.demo import run
from app.kafka import Kafka
from tests.system.conftest import System
from tests.system.test_delivery import outcome, subscribed

pytestmark = [pytest.mark.fault, pytest.mark.long, pytest.mark.timeout(1500)]

ADDRESS = "gone-for-good@example.com"
SHORT = '[trace]\nkeep = "60s"\n\n[kafka]\nkeep_events = "60s"\nreplay_window = "60s"\ncompact_within = "60s"'
ROUNDS = {
    "log.retention.check.interval.ms": "2000",
    "log.segment.delete.delay.ms": "1000",
    "log.cleaner.backoff.ms": "1000",
}


class ShortLived(run.Demo):
    """The demo's system, which keeps nothing for long."""

    async def _create_topics(self, copies: int) -> None:
        path = self.folder / "capistream.toml"
        text = path.read_text().replace("[kafka]", SHORT)
        path.write_text(text)
        self.config = settings.parse(text, str(path))
        await super()._create_topics(copies)


def digests() -> list[bytes]:
    return [one.encode() for one in set(identity.hashes("email", ADDRESS, None).values())]


def where(folder: Path, config: Any) -> set[str]:
    """Folders with a file that holds one of them, but for the entries and the bus of the shop itself."""
    ours = (f"{config.kafka.prefix}.people-", next(iter(config.sources.values())).topic + "-")
    wanted, found = digests(), set()
    for path in folder.rglob("*"):
        if path.is_file() and not path.parent.name.startswith(ours) and path.suffix not in (".index", ".timeindex"):
            try:
                content = path.read_bytes()
            except FileNotFoundError:  # just deleted
                continue
            if any(one in content for one in wanted):
                found.add(path.parent.name)
    return found


async def test_nothing_of_an_erased_person_is_on_a_disk_after_the_time_that_is_told(tmp_path, monkeypatch):
    folder = tmp_path / "system"
    folder.mkdir()
    with Kafka(tmp_path / "kafka", properties=ROUNDS) as kafka:
        monkeypatch.setenv("CAPISTREAM_BROKER", kafka.brokers)
        demo = ShortLived(say=lambda _: None, folder=folder, destinations=("meta", "ga4"))
        try:
            await demo.start()
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as http:
                system = System(demo, http)
                for number in range(3):
                    event = subscribed(f"remains-{number}", user={"email": ADDRESS})
                    await system.post(event, key="secret_key")
                for number in range(3):
                    assert (await outcome(system, f"remains-{number}"))["state"] == "delivered"
                names = {f"{demo.config.kafka.prefix}.{name}" for name in ("events", "conversions", "to.meta")}
                planted = {one.rsplit("-", 1)[0] for one in where(tmp_path, demo.config)}
                assert names <= planted, "nothing to look for"

                status, told = await system.post({"email": ADDRESS}, key="secret_key", path="/v1/forget")
                assert status == 200
                longest = max(one["most"] for one in told["remains"])
                begun = time.monotonic()
                while left := where(tmp_path, demo.config):
                    assert time.monotonic() - begun < longest, left
                    await asyncio.sleep(2)
        finally:
            await asyncio.to_thread(demo.stop)
