"""Alembic runs the migrations of the view on the connection that `streams.view.database` passes in."""

from alembic import context

from streams.view.database import VERSION_TABLE
from streams.view.tables import METADATA

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=METADATA, version_table=VERSION_TABLE)
with context.begin_transaction():
    context.run_migrations()
