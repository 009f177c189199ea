"""When Kafka is asked for which topics, and on which connection. aiokafka asks for all of them again and again.

A topic that trickles is then answered record by record, and each answer costs a millisecond until it is a batch. So a topic may
have a beat: it is asked for once in each, and what has come by then, in all of its partitions, goes through the stages after it,
and over the wire, together. The first record after a pause waits for no beat, as Kafka was asked before, and who is behind for
none either.

A broker is asked for several partitions in one request, and answers the requests of a connection one after the other. So the
topics of each beat have a connection of their own.
"""

import copy
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from aiokafka.consumer.fetcher import Fetcher as Stock


def pace(fetcher: Any, beats: Mapping[str, float], clock: Callable[[], float] = time.monotonic) -> None:
    """From now on this fetcher asks for each of these topics once in its beat, in seconds."""
    fetcher.__class__ = _Fetcher
    fetcher.beats, fetcher.clock, fetcher.next = beats, clock, {}


def aside(fetcher: Any, group: str) -> Any:
    """The same fetcher, with connections of their own for what it sends: nothing waits for a fetch that waits for records."""
    other = copy.copy(fetcher)
    other._client = _Aside(fetcher._client, group)
    return other


class _Aside:
    """A client that sends on the connections of a group."""

    def __init__(self, client: Any, group: str) -> None:
        self._client, self._group = client, group

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def send(self, node_id: int, request: Any) -> Any:
        return await self._client.send(node_id, request, group=self._group)


class _Broker(NamedTuple):
    """As it is asked for the topics of a beat. It may be asked for other topics at the same time."""

    number: int
    beat: float


class _Some(NamedTuple):
    """Partitions of an assignment."""

    assignment: Any
    tps: list[Any]

    def state_value(self, tp: Any) -> Any:
        return self.assignment.state_value(tp)


class _Fetcher(Stock):
    beats: Mapping[str, float]  # topic -> seconds
    clock: Callable[[], float]
    next: dict[float, float]  # beat -> when the next one begins
    _in_flight: set[Any]  # brokers with a fetch under way

    def _get_actions_per_node(self, assignment: Any) -> Any:
        """What there is to do now: (fetches by broker, offsets to ask for by broker, seconds until there may be more, ...)."""
        others, paced = list[Any](), dict[float, list[Any]]()
        for tp in assignment.tps:
            beat = self.beats.get(tp.topic)
            # where to begin is asked for with the others
            if beat and assignment.state_value(tp).has_valid_position:
                paced.setdefault(beat, []).append(tp)
            else:
                others.append(tp)
        fetches, asked, pause, unknown, resumed = super()._get_actions_per_node(_Some(assignment, others))
        for beat, tps in paced.items():
            now, next_ = self.clock(), self.next.get(beat, 0.0)
            if now < next_ and not any(self._is_behind(assignment, tp) for tp in tps):
                pause = min(pause, next_ - now + 0.001)  # the loop counts in milliseconds
                continue
            its, _, its_pause, its_unknown, its_resumed = self._actions_in(beat, _Some(assignment, tps))
            if its:
                self.next[beat] = (
                    int(now / beat) + 1
                ) * beat  # those of all workers, and of all topics, begin together
            fetches += [(_Broker(number, beat), request) for number, request in its]
            pause, unknown, resumed = min(pause, its_pause), unknown or its_unknown, resumed + its_resumed
        return fetches, asked, pause, unknown, resumed

    def _actions_in(self, beat: float, some: _Some) -> Any:
        """Only a fetch of the same beat that is under way is waited for."""
        all_ = self._in_flight
        self._in_flight = {one.number for one in all_ if isinstance(one, _Broker) and one.beat == beat}
        try:
            return super()._get_actions_per_node(some)
        finally:
            self._in_flight = all_

    def _is_behind(self, assignment: Any, tp: Any) -> bool:
        """Is there more in Kafka than the last answer brought? Not while that is still here."""
        state = assignment.state_value(tp)
        return tp not in self._records and state.lso is not None and state.position < state.lso

    async def _proc_fetch_request(self, assignment: Any, node_id: Any, request: Any) -> Any:
        if isinstance(node_id, _Broker):
            apart = aside(self, f"beats of {node_id.beat:g} s")
            return await Stock._proc_fetch_request(apart, assignment, node_id.number, request)
        return await super()._proc_fetch_request(assignment, node_id, request)
