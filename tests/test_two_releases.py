"""Two releases side by side: the former commit's writer and this reader, and the other way round, in two processes."""

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from schemas.avro import schema_of
from schemas.codec import RECORDS, decode, encode
from tests.schemas.samples import sample

ROOT = Path(__file__).parents[1]

FORMER = """
import json, sys
from schemas.avro import schema_of
from schemas.codec import RECORDS, UnknownWriter, decode, encode
from tests.schemas.samples import sample

def reading(value):
    try:
        return type(decode(bytes.fromhex(value))).__name__
    except UnknownWriter:
        return "unknown writer"

written = {one.__name__: encode(one.model_validate(sample(schema_of(one)))).hex() for one in RECORDS}
read = {name: reading(value) for name, value in json.load(sys.stdin).items()}
print(json.dumps({"written": written, "read": read}))
"""


def git(*arguments: str) -> bytes:
    found = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True)
    return found.stdout


def former_commit() -> str:
    """Return the newest commit whose records had other schemas."""
    if git("status", "--porcelain", "schemas/avsc").strip():
        return "HEAD"
    return git("log", "-1", "--format=%H", "--", "schemas/avsc").decode().strip() + "^"


@pytest.fixture(scope="module")
def former(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """What the former commit wrote, and what it made of each record of this one, by the names of the records."""
    tree = tmp_path_factory.mktemp("former")
    if not (ROOT / ".git").exists() or (ROOT / ".git" / "shallow").exists():
        pytest.skip("there is no history to take the former commit from")
    with tarfile.open(fileobj=io.BytesIO(git("archive", former_commit(), "schemas"))) as archive:
        archive.extractall(tree, filter="data")
    ours = {one.__name__: encode(one.model_validate(sample(schema_of(one)))).hex() for one in RECORDS}
    env = {**os.environ, "PYTHONPATH": f"{tree}{os.pathsep}{ROOT}"}  # noqa: TID251 - for another process
    command = [sys.executable, "-c", FORMER]
    run = subprocess.run(command, input=json.dumps(ours), cwd=tree, env=env, capture_output=True, text=True, check=True)
    found: dict[str, dict[str, str]] = json.loads(run.stdout)
    return found


def test_this_release_reads_all_that_the_former_one_writes(former: dict[str, Any]) -> None:
    """A record that this one does not have any more is the only exception: there must be none."""
    assert former["written"]
    for name, value in former["written"].items():
        assert type(decode(bytes.fromhex(value))).__name__ == name


def test_the_former_release_reads_what_this_one_writes_or_waits_for_an_upgrade(former: dict[str, Any]) -> None:
    """It takes nothing for damaged; what it cannot read are the records whose schemas changed."""
    own = {one.__name__: encode(one.model_validate(sample(schema_of(one)))).hex()[:20] for one in RECORDS}
    for name, outcome in former["read"].items():
        unchanged = former["written"].get(name, "")[:20] == own[name]
        assert outcome == (name if unchanged else "unknown writer")
    assert "unknown writer" in former["read"].values()
    assert set(former["read"].values()) != {"unknown writer"}
