"""A configuration with its topics on the session's Kafka, and the commands run on it."""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from click.testing import CliRunner, Result

from app import intake, records, topics
from app.cli import main
from app.settings import Settings, parse

PARTITIONS = 2
CONFIG = """
[kafka]
brokers = "{brokers}"
prefix = "{prefix}"
partitions = 2
replication = 1

[sites.shop]
write_key = "wk_12345678"
secret_key = {{ env = "NOBODY_SETS_THIS" }}

[sources.orders]
topic = "{prefix}-orders"
site = "shop"
format = "capistream"

[destinations.ads]
sink = "meta"
endpoint = "{endpoint}"
dataset_id = "1234567890"
access_token = {{ env = "ADS_TOKEN" }}
browser_tag = "none"

[destinations.stats]
sink = "ga4"
endpoint = "{endpoint}"
measurement_id = "G-ABC123XYZ"
api_secret = {{ env = "STATS_SECRET" }}
browser_tag = "none"
"""


class Place:
    """Where commands work."""

    def __init__(self, brokers: str, prefix: str, folder: Path) -> None:
        self.brokers, self.prefix, self.path = brokers, prefix, folder / "capistream.toml"
        self.config: Settings
        self.configure()

    def configure(self, endpoint: str = "http://127.0.0.1:1") -> None:
        text = CONFIG.format(brokers=self.brokers, prefix=self.prefix, endpoint=endpoint)
        self.path.write_text(text)
        self.config = parse(text)

    async def create(self) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.brokers)
        await admin.start()
        try:
            # for ever: times of test records are of long ago, and Kafka may be somebody else's, who looks for old ones
            forever = {"retention.ms": "-1"}
            await topics.create(admin, [topics.Topic(f"{self.prefix}-orders", "", "", "", PARTITIONS, forever)], 1)
        finally:
            await admin.close()
        await topics.apply(self.config)

    def write(self, topic: str, rows: Iterable[intake.Row], partition: int = 0) -> None:
        async def run() -> None:
            async with records.writer(self.config) as write:
                await write({(topic, partition): list(rows)})

        asyncio.run(run())

    def read(self, topic: str) -> list[Any]:
        """Its records, in the order of partition and offset."""

        async def run() -> list[Any]:
            async with records.reader(self.config) as reader:
                return [one async for one in records.everything(reader, topic, range(PARTITIONS))]

        return sorted(asyncio.run(run()), key=lambda one: (one.partition, one.offset))

    def run(self, *command: str, **more: Any) -> Result:
        return CliRunner().invoke(main, [*command, "--config", str(self.path)], **more)

    def json(self, *command: str) -> list[Any]:
        result = self.run(*command, "--json")
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return [orjson.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def place(kafka: Any, prefix: str, tmp_path: Path) -> Place:
    one = Place(kafka.brokers, prefix, tmp_path)
    asyncio.run(one.create())
    return one
