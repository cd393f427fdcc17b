"""The database of the view: SQLite in a file, or PostgreSQL; connections, migrations and upserts."""

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import StaticPool

from connectors.settings import SettingsError
from streams.settings import RentStreamSettings
from streams.view import tables

log = logging.getLogger("streams.view")

DEFAULT_FILE: Final = "rentstream.db"
"""Name of the SQLite file in the data folder."""
BUSY_SECONDS: Final = 5.0
"""How long a writer of SQLite waits for another one."""
POOL: Final = 10
"""Connections of PostgreSQL that a process keeps."""

_DRIVERS: Final[Mapping[str, str]] = {
    "sqlite": "sqlite+pysqlite",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}


class ViewUnavailable(Exception):  # noqa: N818 -- named after the state
    """The database cannot be used at the moment; the sentence contains no password."""


def url_of(settings: RentStreamSettings) -> sa.URL:
    """Return the URL of the view's database; by default a file in the data folder. Raise `SettingsError`."""
    if settings.database_url is None:
        return sa.URL.create(_DRIVERS["sqlite"], database=str(settings.data / DEFAULT_FILE))
    return parse_url(settings.database_url.get_secret_value())


def parse_url(text: str) -> sa.URL:
    """Return the URL of a database. Raise `SettingsError`, which shows no password."""
    try:
        url = sa.make_url(text)
    except SQLAlchemyError:
        raise SettingsError([f"DATABASE_URL is no URL of a database: {_ALLOWED}"]) from None
    driver = _DRIVERS.get(url.drivername)
    if driver is None:
        raise SettingsError([f"DATABASE_URL begins with {url.drivername!r}: {_ALLOWED}"])
    return url.set(drivername=driver)


_ALLOWED: Final = "use sqlite:///path/to/file.db or postgresql://user:password@host:5432/database"


class Database:
    """Connections to one database. Safe for use in several threads."""

    def __init__(self, url: sa.URL) -> None:
        self.url = url
        self._migrated = threading.Lock()
        self.engine = _engine(url)
        insert = sqlite.insert if url.get_backend_name() == "sqlite" else postgresql.insert
        self._insert: Any = insert

    @property
    def shown(self) -> str:
        """Return the URL for logs, without its password and its query."""
        plain = self.url.set(drivername=self.url.get_backend_name(), query={})
        return plain.render_as_string(hide_password=True)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """Yield a connection in a transaction that is committed at the end. Raise `ViewUnavailable`."""
        try:
            with self.engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise ViewUnavailable(self.reason(error)) from error

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Yield a connection for reads, which see one state of the database. Raise an error of SQLAlchemy."""
        with self.engine.connect() as connection:
            reading = connection.execution_options(writes=False)
            with reading.begin():
                yield reading

    def reason(self, error: SQLAlchemyError) -> str:
        """Return a sentence about an error, without the password."""
        return f"{self.shown} cannot be used ({reason_of(error)})"

    def migrate(self) -> None:
        """Create the tables, or bring those of an older release up to date. Raise `ViewUnavailable`."""
        with self._migrated, self.transaction() as connection:
            if self.url.get_backend_name() == "postgresql":
                # Several processes may start at the same time; the lock ends with the transaction.
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(5402381)"))
            command.upgrade(migrations(connection), "head")

    def drop(self) -> None:
        """Drop everything that the view consists of; `migrate` creates it again. Raise `ViewUnavailable`."""
        with self.transaction() as connection:
            tables.METADATA.drop_all(connection)
            sa.Table(VERSION_TABLE, sa.MetaData()).drop(connection, checkfirst=True)

    def insert_new(self, table: sa.Table) -> Any:
        """Return the statement that inserts a row unless there is one with its primary key."""
        return self._insert(table).on_conflict_do_nothing()

    def upsert(
        self,
        table: sa.Table,
        columns: Sequence[str],
        *,
        newer_by: str | None = None,
        first_by: str | None = None,
    ) -> Any:
        """Return the statement that sets these columns of a row by its primary key, and inserts a row that is new."""
        key = [column.name for column in table.primary_key]
        statement = self._insert(table)
        changed = {name: statement.excluded[name] for name in columns if name not in key}
        where = None
        if newer_by is not None:
            where = sa.or_(table.c[newer_by].is_(None), table.c[newer_by] <= statement.excluded[newer_by])
        elif first_by is not None:
            where = table.c[first_by].is_(None)
        return statement.on_conflict_do_update(index_elements=key, set_=changed, where=where)


VERSION_TABLE: Final = "view_version"
"""Where Alembic keeps which migration was applied last."""


def migrations(connection: sa.Connection) -> Config:
    """Return the configuration of Alembic for a connection, which is in a transaction."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def reason_of(error: SQLAlchemyError) -> str:
    """Return the first line of the driver's words, or the name of the error."""
    original = getattr(error, "orig", None)
    text = str(original or type(error).__name__).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _engine(url: sa.URL) -> sa.Engine:
    if url.get_backend_name() != "sqlite":
        return sa.create_engine(
            url, pool_size=POOL, max_overflow=0, pool_timeout=BUSY_SECONDS, pool_pre_ping=True,
            connect_args={"connect_timeout": 5, "application_name": "rentstream"},
        )  # fmt: skip
    connect_args = {"timeout": BUSY_SECONDS, "check_same_thread": False}
    if url.database in (None, "", ":memory:"):
        engine = sa.create_engine(url, connect_args=connect_args, poolclass=StaticPool)
    else:
        Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(url, connect_args=connect_args, pool_size=POOL, max_overflow=0)

    @sa.event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions are begun below: the driver begins them too late
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def on_begin(connection: sa.Connection) -> None:
        writes = connection.get_execution_options().get("writes", True)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
