"""The command line: arguments that cannot be used are refused in one sentence, before anything starts."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from streams.cli import cli


@pytest.mark.parametrize("name", ["", " ", "../../x", "a/b", ".hidden", "-x", "w" * 65, "wörker"])
def test_a_name_that_is_no_name_of_a_worker_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names a folder on disk and a client of Kafka."""
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["worker", "--name", name])

    assert result.exit_code == 2
    assert "--name needs 1 to 64 letters" in result.output
    assert not any(tmp_path.iterdir())
