"""The databases of the view's tests: SQLite in a file, and a real PostgreSQL with a schema for each test."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from streams.view.database import Database, parse_url
from tests.postgres import postgres


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    with postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty database with the tables of the view."""
    if request.param == "sqlite":
        found = Database(parse_url(f"sqlite:///{tmp_path}/view.db"))
    else:
        url = parse_url(request.getfixturevalue("postgres_url"))
        name = f"view_{uuid.uuid4().hex}"
        admin = sa.create_engine(url, isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
        admin.dispose()
        found = Database(url.set(database=name))
    found.migrate()
    yield found
    found.close()
