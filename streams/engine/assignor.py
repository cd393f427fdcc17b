"""Which worker owns which partitions, and which one keeps standby rows of them.

Every partition has one owner, and standby rows at workers beside it (`streams.engine.standby`). The leader of the group
decides with `place`. Faust's own assignor puts the standby rows of one worker's partitions together at another one, so
that most of them are of no use when the first of three workers is lost; and it lets the consumer of the group read
the changelogs of standby rows.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from faust.assignor.client_assignment import ClientAssignment, ClientMetadata
from faust.assignor.partition_assignor import PartitionAssignor
from faust.types import TP

STANDBY = "standby:"
"""Before the names of topics with standby rows: Faust would have the consumer of the group read a plain changelog."""


@dataclass(frozen=True, slots=True)
class Share:
    """The partitions of one worker."""

    owned: frozenset[int] = frozenset()
    standby: frozenset[int] = frozenset()

    @property
    def rows(self) -> frozenset[int]:
        """Return the partitions whose rows the worker has."""
        return self.owned | self.standby


def place(before: Mapping[str, Share], partitions: int, standbys: int) -> dict[str, Share]:
    """Return the new shares of the members of the group, from what each had before (nothing, if it is new).

    The numbers of owned partitions differ by one at most. A partition stays where it is as far as that allows; else it
    goes to a member that has its rows, if one has room. Standby rows are where there will be room: if an owner is lost,
    all of its partitions can go to members that have their rows.
    """
    members = sorted(before)
    owner: dict[int, str] = {}
    owned: Counter[str] = Counter(dict.fromkeys(members, 0))
    most = -(-partitions // len(members))

    def give(partition: int, member: str) -> None:
        owned[owner.get(partition, "")] -= 1
        owner[partition] = member
        owned[member] += 1

    for member in members:
        for partition in sorted(before[member].owned):
            if partition < partitions and partition not in owner and owned[member] < most:
                give(partition, member)
    for partition in range(partitions):
        if partition not in owner:
            free = [one for one in members if owned[one] < most]
            give(partition, min(free, key=lambda one: (partition not in before[one].rows, owned[one], one)))
    while True:
        full, empty = max(members, key=owned.__getitem__), min(members, key=owned.__getitem__)
        if owned[full] - owned[empty] <= 1:
            break
        movable = (partition for partition, one in owner.items() if one == full)
        give(min(movable, key=lambda one: (one not in before[empty].rows, one)), empty)
    kept = _standbys(before, owner, min(standbys, len(members) - 1))
    return {
        member: Share(frozenset(one for one, by in owner.items() if by == member), frozenset(kept[member]))
        for member in members
    }


def _standbys(before: Mapping[str, Share], owner: Mapping[int, str], standbys: int) -> dict[str, set[int]]:
    kept: dict[str, set[int]] = {member: set() for member in sorted(before)}
    owned = Counter(owner.values())
    most = -(-len(owner) // max(1, len(kept) - 1))
    """How many partitions a member owns at most after another one was lost."""
    pairs: Counter[tuple[str, str]] = Counter()
    """How many partitions of an owner, the first name, another member has standby rows of."""
    for partition in sorted(owner):
        by = owner[partition]
        for _ in range(standbys):
            others = [one for one in kept if one != by and partition not in kept[one]]

            def cost(one: str, partition: int = partition, by: str = by) -> tuple[bool, bool, int, int, str]:
                after = owned[one] + pairs[by, one]
                return after >= most, partition not in before[one].rows, after, len(kept[one]), one

            chosen = min(others, key=cost)
            kept[chosen].add(partition)
            pairs[by, chosen] += 1
    return kept


class Assignor(PartitionAssignor):  # type: ignore[misc]
    """Faust's protocol in the group, with shares of `place`; the consumer is assigned what its worker owns only."""

    def _perform_assignment(self, cluster: Any, member_metadata: Mapping[str, Any]) -> Any:
        clients = {member: self._get_client_metadata(metadata) for member, metadata in member_metadata.items()}
        subscriptions = {member: list(metadata.subscription) for member, metadata in member_metadata.items()}
        self._update_member_urls(clients)
        topics = {topic for subscription in subscriptions.values() for topic in subscription}
        made = {member: ClientAssignment(actives={}, standbys={}) for member in clients}
        groups = self._get_copartitioned_groups(topics, cluster, subscriptions)
        for partitions, together in sorted(groups.items()):
            for group in together:
                before = {
                    member: _share(client.assignment, group)
                    for member, client in clients.items()
                    if group.issubset(subscriptions[member])
                }
                for member, share in place(before, partitions, self.replicas).items():
                    made[member].actives |= {topic: sorted(share.owned) for topic in group}
                    made[member].standbys |= {STANDBY + topic: sorted(share.standby) for topic in group}
        return self._protocol_assignments(made, {}, {}, {})  # what routes requests between workers is not used

    def on_assignment(self, assignment: Any) -> None:
        metadata = ClientMetadata.loads(self._decompress(assignment.user_data))
        self._assignment = metadata.assignment
        self._active_tps = self._assignment.active_tps

    def assigned_standbys(self) -> set[TP]:
        """Return none: the recovery of Faust does not read them."""
        return set()

    def standbys(self) -> frozenset[TP]:
        """Return the partitions of all topics that this worker keeps standby rows of, if they are changelogs."""
        return frozenset(TP(tp.topic.removeprefix(STANDBY), tp.partition) for tp in self._assignment.standby_tps)


def _share(assignment: ClientAssignment, topics: Iterable[str]) -> Share:
    """Return what a member had of some topics, which are all assigned alike; a new topic is not assigned yet."""

    def first(found: Mapping[str, list[int]], prefix: str = "") -> frozenset[int]:
        return next((frozenset(found[prefix + topic]) for topic in topics if found.get(prefix + topic)), frozenset())

    return Share(first(assignment.actives), first(assignment.standbys, STANDBY))
