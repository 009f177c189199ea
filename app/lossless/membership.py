"""Are our partitions still ours? A lease that only the broker's own answers extend.

The broker gives a silent member's partitions away after `broker_session_timeout`. So for that long after a request that
proved our membership *was sent* nobody else can have them; after that, no side effect until it is proved again.
"""

import asyncio
import time
from typing import Any

from aiokafka.coordinator.protocol import ConsumerProtocol
from aiokafka.errors import ConsumerStoppedError, KafkaError, UnknownTopicOrPartitionError
from aiokafka.structs import OffsetAndMetadata
from faust.transport.drivers import aiokafka as stock

from app.bus import START_MAX
from app.lossless import fetcher, runs

REJOIN_MAX = 300.0  # seconds until a topic that was missing in the last assignment is looked for again
COMMIT_MAX = 5.0  # seconds for one try
SAFETY = 1.0  # seconds of the session that are not counted on
FETCH_WAIT = 300  # milliseconds that Kafka may hold a fetch for which there is nothing yet


class ConsumerThread(stock.AIOKafkaConsumerThread):
    """Faust's thread around aiokafka's consumer: with the lease, a leader that waits for metadata, and runs."""

    _missed = 0  # assignments in a row without the metadata of some topic
    _proved = 0.0  # monotonic time at which the last request that proved our membership was sent

    def lease_left(self) -> float:
        """Seconds during which the broker cannot have given our partitions away; negative when the lease has lapsed."""
        return float(self._proved + self.app.conf.broker_session_timeout - SAFETY - time.monotonic())

    @property
    def generation(self) -> int:
        """The coordinator's own: -1 as soon as the broker no longer knows us, long before Faust hears of it."""
        return int(self._consumer._coordinator.generation)

    async def on_start(self) -> None:
        await super().on_start()
        fetcher.pace(self._consumer._fetcher, self.app.beats)
        coordinator = self._consumer._coordinator
        heartbeat, join, assign = (
            coordinator._do_heartbeat,
            coordinator._on_join_complete,
            coordinator._perform_assignment,
        )

        async def do_heartbeat() -> Any:
            sent = time.monotonic()
            answer = await heartbeat()
            # A coordinator that is still loading after a broker's restart answers every heartbeat with "no error", even
            # one of a member that it expelled long ago. So a heartbeat extends a running lease and never revives one.
            if answer and (self.lease_left() > 0 or await self._prove(coordinator)):
                self._proved = sent
            return answer

        async def on_join_complete(*args: Any) -> Any:
            self._proved = time.monotonic()
            return await join(*args)

        async def perform_assignment(response: Any) -> Any:
            await self._wait_for_metadata(coordinator, response)
            return await assign(response)

        coordinator._do_heartbeat = do_heartbeat
        coordinator._on_join_complete = on_join_complete
        coordinator._perform_assignment = perform_assignment

    def _create_worker_consumer(self, transport: Any) -> Any:
        # Stock reads aborted records, too, unless it writes transactions itself. The customer's producers may write them.
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"  # looked at when it starts
        # Kafka answers the requests of a connection one after the other, so where a log ends is told when the fetch before is
        # answered. Stock lets that take 1.5 s, and a recovery asks three times, the clock each second.
        consumer._fetch_max_wait_ms = FETCH_WAIT
        self.app.bus.attend(consumer._client, START_MAX)
        return consumer

    async def _fetch_records(
        self, consumer: Any, active_partitions: Any, timeout: float | None = None, max_records: int | None = None
    ) -> dict[Any, runs.Run]:
        """Replaces stock's, which gives records only: `runs.py` says why that is not enough."""
        if not self.consumer.flow_active:
            return {}
        if consumer._closed or consumer._fetcher._closed:
            raise ConsumerStoppedError
        with consumer._subscription.fetch_context():
            known = self.consumer._read_offset
            return await runs.fetch(consumer, active_partitions, known, timeout or 0, max_records or 1)

    async def log_ends(self, tps: list[Any]) -> dict[Any, int]:
        ends: dict[Any, int] = await self.call_thread(runs.log_ends, self._consumer, tps)
        return ends

    async def _wait_for_metadata(self, coordinator: Any, response: Any) -> None:
        # A broker that has just come back may not know its topics yet. The assignor would leave them out with a warning,
        # and nobody would read them before the next metadata refresh, minutes later.
        members = {name: ConsumerProtocol.METADATA.decode(said) for name, *_, said in response.members}
        sharing, cluster = self.app.assignor.sharing(members), coordinator._cluster
        topics = {topic for said in sharing.values() for topic in said.subscription}
        # as stock does next
        coordinator._client.set_topics({topic for said in members.values() for topic in said.subscription})
        await coordinator._client._maybe_wait_metadata()
        until = time.monotonic() + self.app.conf.broker_session_timeout / 2
        while missing := [topic for topic in topics if not cluster.partitions_for_topic(topic)]:
            self.log.warning("assignment waits for metadata of %s", missing)
            if time.monotonic() > until:
                # somebody may have deleted it for good: the others must not be disturbed all the time
                self._missed += 1
                pause = min(REJOIN_MAX, 2.0**self._missed)
                asyncio.get_running_loop().call_later(pause, coordinator.request_rejoin)
                return
            await coordinator._client.force_metadata_update()
            await asyncio.sleep(0.2)
        self._missed = 0

    async def _prove(self, coordinator: Any) -> bool:
        """Commit what may be committed anyway: the broker refuses that to a stale member, and while it is loading."""
        subscription = coordinator._subscription.subscription
        if subscription is None or subscription.assignment is None:
            return False
        offsets = {
            stock.ensure_aiokafka_TP(tp): OffsetAndMetadata(offset, "")
            for tp, offset in self.consumer.committable().items()
        }
        if not offsets:
            return False
        try:
            await self._commit_once(subscription.assignment, offsets)
        except (KafkaError, TimeoutError) as exc:
            self.log.warning("membership not proved: %r", exc)
            return False
        self.log.info("membership proved again")
        return True

    async def _commit(self, offsets: Any) -> bool:
        # Stock crashes the worker on any error; a refused or failed commit only means that work is done again.
        subscription = self._consumer._subscription.subscription
        if subscription is None or subscription.assignment is None:
            return False
        mine = self.assignment()
        wanted = {
            stock.ensure_aiokafka_TP(tp): OffsetAndMetadata(offset, "") for tp, offset in offsets.items() if tp in mine
        }
        try:
            await self._commit_once(subscription.assignment, wanted)
        except (KafkaError, TimeoutError) as exc:
            self.log.warning("commit refused: %r", exc)
            if isinstance(exc, UnknownTopicOrPartitionError):  # the others are committed; next time without it
                await self._consumer._client.force_metadata_update()
            return False
        return True

    async def _commit_once(self, assignment: Any, offsets: Any) -> None:
        """One try: what aiokafka repeats until it works, it repeats for ever when the topic was deleted."""
        coordinator = self._consumer._coordinator
        async with asyncio.timeout(COMMIT_MAX):
            await coordinator.ensure_coordinator_known()
            async with coordinator._commit_lock:
                await coordinator._do_commit_offsets(assignment, offsets)

    def exists(self, topic: str) -> bool:
        """Does the topic exist, as far as is known here?"""
        return bool(self._consumer._client.cluster.partitions_for_topic(topic))
