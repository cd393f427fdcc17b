"""``watch_syncs``: finds operations that no record would end any more, and has them tried again.

A push, its outcome or its retry may be lost. The fold repeats the push then; the PMS is not changed twice, because what
was made already is found (`connectors.ports.PropertyGateway`).
"""

from collections.abc import Iterator, Mapping

from connectors.ports import Clock
from schemas import topics
from schemas.commands import Command, CommandAction, SyncRow
from streams.core import sync
from streams.core.delivery.recall import LOST_AFTER
from streams.core.flows import Emit, View
from streams.core.rows import look_up, readable
from streams.directory.directory import Directory
from streams.topology import SYNC_STATES


class WatchSyncs:
    """Emits a retry of every operation that has been under way for longer than the ladder explains."""

    def __init__(self, directory: Directory, partitions: int, clock: Clock) -> None:
        self._directory = directory
        self._partitions = partitions
        self._clock = clock

    def step(self, views: Mapping[str, View], partition: int) -> Iterator[Emit | None]:
        """Look at the open operations of a partition; yield null between them, so that other work may go on."""
        view, now = views[SYNC_STATES], self._clock.now()
        for org in self._directory.on_partition(partition, self._partitions).orgs:
            for key, _ in view.scan(sync.open_of(org)):
                entity, own_id = sync.entity_of(key)
                row_key = sync.entity_key(org, entity, own_id)
                row = look_up(view, SyncRow, row_key)
                if row is None or now < max(row.changed_at, row.next_attempt_at or row.changed_at) + LOST_AFTER:
                    yield None
                    continue
                current = readable(Command, row_key, row.current)
                if current is None:
                    continue
                yield Emit(
                    topics.COMMANDS,
                    org,
                    Command(
                        org=org,
                        connection=row.connection,
                        action=CommandAction.RETRY,
                        operation=current.operation,
                        entity=entity,
                        id=own_id,
                        at=now,
                        version=row.version,
                        attempt=row.attempt,
                        held=True,
                    ),
                )
