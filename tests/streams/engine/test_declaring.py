from collections.abc import Mapping
from pathlib import Path

import pytest

from streams.core.flows import RecordBatch, Step, View
from streams.engine import Engine, EngineSettings, NotHeld


def step(_batch: RecordBatch, _views: Mapping[str, View]) -> Step:
    return Step()


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(
        EngineSettings(bootstrap_servers="a:1, b:2", app_id="app.x", worker="w1", data_dir=tmp_path, partitions=4)
    )


def test_a_changelog_has_the_name_that_faust_expects(engine: Engine) -> None:
    assert engine.table("rows").changelog == "app.x-rows-changelog"
    assert engine.changelogs == ("app.x-rows-changelog",)


def test_a_table_has_one_writer(engine: Engine) -> None:
    rows = engine.table("rows")
    engine.fold("one", ["a"], rows, step)

    with pytest.raises(ValueError, match="two writers: one and two"):
        engine.fold("two", ["b"], rows, step)


def test_nothing_is_declared_twice(engine: Engine) -> None:
    rows = engine.table("rows")
    engine.fold("one", ["a"], rows, step)
    engine.scan("look", 1.0, lambda _views, _partition: ())

    with pytest.raises(ValueError, match="table rows"):
        engine.table("rows")
    with pytest.raises(ValueError, match="fold one"):
        engine.fold("one", ["a"], engine.table("others"), step)
    with pytest.raises(ValueError, match="scan look"):
        engine.scan("look", 1.0, lambda _views, _partition: ())
    with pytest.raises(ValueError, match="no topics"):
        engine.fold("none", [], engine.table("more"), step)


def test_an_engine_is_not_ready_before_it_runs(engine: Engine) -> None:
    assert not engine.ready
    assert not engine.status.started
    assert engine.status.partitions == frozenset()
    engine.stop()


def test_settings_have_servers_and_folder(engine: Engine, tmp_path: Path) -> None:
    assert engine.settings.servers == ["a:1", "b:2"]
    assert engine.settings.state_dir == tmp_path / "app.x" / "w1"
    assert issubclass(NotHeld, LookupError)
