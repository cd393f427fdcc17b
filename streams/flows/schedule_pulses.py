"""``schedule_pulses``: asks regularly what changed in each account."""

from collections.abc import Iterator, Mapping

from connectors.ports import Clock
from schemas import topics
from schemas.pms import PulseStep
from schemas.rent_roll import AccountRow
from streams.core.flows import Barrier, Emit, View
from streams.core.pulse import since
from streams.core.rent_roll import account_key, scope
from streams.core.rows import look_up
from streams.core.spread import Share, share_of, until_next
from streams.directory.directory import Directory
from streams.topology import RENT_ROLL


class SchedulePulses:
    """Starts a pulse of every enabled connection that was swept completely once, at an interval.

    The intervals of the accounts are spread, and those of one account stay what they are when its owner changes.
    """

    def __init__(
        self, directory: Directory, every: float, partitions: int, clock: Clock, share: Share = share_of
    ) -> None:
        """``every``: seconds between two pulses of a connection; 0: none."""
        self._share = share
        self._directory = directory
        self._every = every
        self._partitions = partitions
        self._clock = clock
        self._due: dict[tuple[str, str], float] = {}
        """When the next pulse is due, by `Clock.monotonic`: the time of day may step."""

    def step(self, views: Mapping[str, View], partition: int) -> Iterator[Emit | Barrier]:
        """Emit the pulses that are due on this partition; remember them once they are durable."""
        if not self._every:
            return
        following: dict[tuple[str, str], float] = {}
        now, at = self._clock.now(), self._clock.monotonic()
        for one in self._directory.on_partition(partition, self._partitions).connections:
            key = (one.org, one.name)
            if not one.enabled or at < self._due.get(key, float("-inf")):
                continue
            wait = until_next(now.timestamp(), self._every, self._share(f"{one.org}/{one.name}"))
            if self._due.setdefault(key, at + wait) > at:
                continue
            account = look_up(views[RENT_ROLL], AccountRow, account_key(scope(one.org, one.name)))
            if account is None:
                continue  # its first sweep is not complete
            usual = self._due[key] + self._every
            following[key] = usual if usual > at else at + wait
            begin = since(account)
            yield Emit(topics.PULSES, one.org, PulseStep(org=one.org, connection=one.name, since=begin, started_at=now))
        if following:
            yield Barrier.DURABLE
            self._due |= following
