"""The folder of a worker: held by one process, and a sentence for what is wrong with it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from streams.engine.folder import FolderError, cause_of, held

HOLD = """
import sys
from pathlib import Path
from streams.engine.folder import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_worker_of_a_name_is_refused_and_the_next_is_not(tmp_path: Path) -> None:
    """Also after the first was killed: the kernel releases the folder."""
    folder = tmp_path / "app" / "w1"
    with subprocess.Popen([sys.executable, "-c", HOLD, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        first.stdout.readline()
        with pytest.raises(FolderError) as refused, held(folder, patience=0.1):
            pass
        first.kill()
    with held(folder):
        assert (folder / "lock").read_text() == str(os.getpid())

    assert str(refused.value) == (
        f"Another worker named w1 (process {first.pid}) uses {folder}: give this one another --name, or stop that one."
    )


@pytest.mark.parametrize("part", ["", "app", "app/w1", "app/w1/tables"])
def test_a_file_where_a_folder_belongs_is_one_sentence(tmp_path: Path, part: str) -> None:
    path = tmp_path / "data" / part
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("a file")
    with pytest.raises(FolderError, match="cannot be used") as refused, held(tmp_path / "data" / "app" / "w1"):
        pass
    assert re.fullmatch(r"[^\n]+\. RENTSTREAM_DATA names another folder\.", str(refused.value))


def test_the_cause_of_a_refused_write_has_a_way_out() -> None:
    error = Exception(
        "IO error: No space left on device: While appending to file: /data/4.log: No space left on device"
    )
    assert cause_of(error) == "the disk is full: free some space"
    assert cause_of(PermissionError(13, "Permission denied", "/data")) is not None
    assert cause_of(ValueError("another cause")) is None
