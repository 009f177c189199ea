"""Who gets which partitions: Faust's assignor, among workers that have the same topics and tables.

Faust lets each topic be shared by those members that subscribe to it. So with a destination that only some workers know,
partition n of its topic and of its table would go to another worker than partition n of everything else: conversions of one
half would never be meant for it, and its table would have two writers. Therefore one group has one set of topics. Members
with another set get no partitions, say so, and take over when those who have the work are gone.

Nothing of this is on the wire but what Faust writes anyway: the leader sees who subscribes to what and who had partitions
before, a member sees which topics the others have been given.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from faust.assignor.client_assignment import ClientAssignment, ClientMetadata
from faust.assignor.partition_assignor import PartitionAssignor

from app import metrics

log = structlog.get_logger()


@dataclass(frozen=True)
class Member:
    topics: frozenset[str]
    had: int = 0  # partitions, in the assignment before


def workers(members: Mapping[str, Member]) -> set[str]:
    """The ids of those who share the work: all with the same topics as each other.

    Who has the work keeps it, whoever joins: a worker that was started with a wrong configuration must not take it away. Where
    nobody has any, the larger party gets it; of equal ones that with more topics, as it leaves nothing unread.
    """
    parties: dict[frozenset[str], set[str]] = defaultdict(set)
    for name, one in members.items():
        parties[one.topics].add(name)
    if not parties:
        return set()

    def weight(topics: frozenset[str]) -> tuple[int, int, int, list[str]]:
        names = parties[topics]
        return sum(members[name].had for name in names), len(names), len(topics), sorted(topics)

    return parties[max(parties, key=weight)]


@dataclass(frozen=True)
class Apart:
    """This worker has no work, because others have it, and have other topics."""

    others: tuple[str, ...]  # their addresses
    lacks: tuple[str, ...]  # topics that they have and this one has not
    adds: tuple[str, ...]  # topics that this one has and they have not

    def told(self) -> str:
        """A sentence for people."""
        has = [
            f"have {', '.join(self.lacks)}" if self.lacks else "",
            f"lack {', '.join(self.adds)}" if self.adds else "",
        ]
        return f"other workers ({', '.join(self.others)}) {' and '.join(filter(None, has))}; it takes over when they are stopped"


def apart(mine: Iterable[str], theirs: Mapping[str, Iterable[str]]) -> Apart | None:
    """`theirs`: the topics that each address has partitions of; empty where there is nobody else."""
    own, given = set(mine), {topic for topics in theirs.values() for topic in topics}
    if not given or own == given:
        return None
    others = sorted(url for url, topics in theirs.items() if topics)
    return Apart(tuple(others), tuple(sorted(given - own)), tuple(sorted(own - given)))


class Assignor(PartitionAssignor):
    #: Why this worker has no work, if that is why.
    apart: Apart | None = None
    _topics: frozenset[str] = frozenset()

    def metadata(self, topics: set[str]) -> Any:
        self._topics = frozenset(topics)
        return super().metadata(topics)

    def sharing(self, members: Mapping[str, Any]) -> dict[str, Any]:
        """Those members (id to what they said when they joined) that get partitions."""
        chosen = workers({name: self._member(said) for name, said in members.items()})
        return {name: said for name, said in members.items() if name in chosen}

    def _member(self, said: Any) -> Member:
        return Member(frozenset(said.subscription), len(self._get_client_metadata(said).assignment.active_tps))

    def assign(self, cluster: Any, member_metadata: Mapping[str, Any]) -> Any:
        sharing = self.sharing(member_metadata)
        assigned = super().assign(cluster, sharing)
        waiting = {name: said for name, said in member_metadata.items() if name not in sharing}
        if not waiting:
            return assigned
        urls = sorted(self._get_client_metadata(said).url for said in waiting.values())
        log.warning("group.members_wait", workers=urls, why="they have other topics than those who have the work")
        some = ClientMetadata.loads(self._decompress(next(iter(assigned.values())).user_data))
        return assigned | {name: self._nothing(said, some) for name, said in waiting.items()}

    def _nothing(self, said: Any, given: Any) -> Any:
        """No partitions, and what the others have been given."""
        told = ClientMetadata(
            assignment=ClientAssignment(actives={}, standbys={}),
            url=self._get_client_metadata(said).url,
            changelog_distribution=given.changelog_distribution,
            external_topic_distribution=given.external_topic_distribution,
            topic_groups=given.topic_groups,
        )
        return ConsumerProtocolMemberAssignment(self.version, [], self._compress(told.dumps()))

    def on_assignment(self, assignment: Any) -> None:
        super().on_assignment(assignment)
        self.apart = None
        if not self._assignment.actives:  # one of the same party, for whom no partition was left, has empty lists there
            given = (self.changelog_distribution, self.external_topic_distribution)
            urls = {url for one in given for url in one}
            self.apart = apart(
                self._topics, {u: {t for one in given for t, ps in one.get(u, {}).items() if ps} for u in urls}
            )
        metrics.APART.set(self.apart is not None)
        if self.apart:
            log.error("worker.waits", workers=self.apart.others, lacks=self.apart.lacks, adds=self.apart.adds)
