"""The database of the view: migrations lead to the declared tables, and what is wrong is one sentence."""

import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from connectors.settings import SettingsError
from streams.settings import RentStreamSettings
from streams.view import tables
from streams.view.database import VERSION_TABLE, Database, ViewUnavailable, parse_url, url_of


def test_migrations_lead_to_the_declared_tables(database: Database) -> None:
    with database.transaction() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, tables.METADATA) == []
        names = set(sa.inspect(connection).get_table_names())
    assert names == {*tables.METADATA.tables, VERSION_TABLE}


def test_migrations_may_run_again_and_at_the_same_time(database: Database) -> None:
    database.drop()
    others = [Database(database.url) for _ in range(4)]
    threads = [threading.Thread(target=one.migrate) for one in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    database.migrate()
    with database.reading() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(tables.UNITS)) == 0
    for one in others:
        one.close()


def test_a_drop_leaves_nothing(database: Database) -> None:
    database.drop()
    with database.transaction() as connection:
        assert sa.inspect(connection).get_table_names() == []


def test_every_table_of_orgs_has_the_org_first_in_its_keys() -> None:
    """A query without an org does not exist, so no index serves one; but history is deleted by its time."""
    ours = {tables.POSITIONS, tables.STATE}
    for table in set(tables.METADATA.tables.values()) - ours:
        assert next(iter(table.primary_key)).name == "org_id"
        for index in table.indexes:
            first = next(iter(index.columns)).name
            assert first == "org_id" or (first == "at" and table in tables.KEPT), index


def test_the_default_is_a_file_in_the_data_folder(tmp_path: Path) -> None:
    settings = RentStreamSettings.read({"RENTSTREAM_DATA": str(tmp_path)})
    assert url_of(settings).database == str(tmp_path / "rentstream.db")
    given = RentStreamSettings.read({"DATABASE_URL": "postgres://ann:canary@db.example/rent"})
    assert url_of(given).drivername == "postgresql+psycopg"
    assert "canary" not in repr(given)
    assert "canary" not in Database(url_of(given)).shown


@pytest.mark.parametrize("text", ["mysql://ann:canary@db/x", "canary", "", "sqlite"])
def test_a_url_of_another_database_is_refused(text: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse_url(text)
    (line,) = refused.value.lines
    assert line.startswith("DATABASE_URL ")
    assert "canary" not in line


def test_a_database_that_cannot_be_reached_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    wrong = [f"sqlite:///{tmp_path}/folder", "postgresql://ann:canary@127.0.0.1:1/rent"]
    for text in wrong:
        database = Database(parse_url(text))
        with pytest.raises(ViewUnavailable, match="cannot be used") as refused:
            database.migrate()
        assert "canary" not in str(refused.value)
        assert "\n" not in str(refused.value)
        database.close()
