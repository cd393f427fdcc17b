"""The query view of the world in memory, as it would be if it had caught up with everything."""

import sqlalchemy as sa

from schemas import topics
from streams.backends.memory import MemoryBroker
from streams.core.flows import Record
from streams.topology import APP
from streams.view.database import Database
from streams.view.projection import projections
from streams.view.queries import Queries
from tests.streams.view.parts import View, record
from tests.world.folds import Tables


def view_of(broker: MemoryBroker, tables: Tables) -> Queries:
    """Return a view of all records and rows that are there now."""
    database = Database(sa.make_url("sqlite+pysqlite:///:memory:"))
    database.migrate()
    view = View(database, broker.clock.now().date())
    changelogs = {topics.changelog(APP, table).name for table, _ in tables}
    for topic in projections(APP):
        if topic not in changelogs:
            view.write(*broker.read(topic))
    rows: list[Record] = [
        record(topics.changelog(APP, table).name, value, key, partition=partition)
        for (table, partition), found in tables.items()
        for key, value in found.items()
        if topics.changelog(APP, table).name in projections(APP)
    ]
    view.write(*rows)
    view.writer.caught_up(broker.clock.now())
    return Queries(database)
