"""A real PostgreSQL for tests, in a folder of its own, as the system has it."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

FOLDERS = [str(one) for one in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
SUPERUSER = "postgres"


def program(name: str) -> str | None:
    """Return the path of a program of PostgreSQL; the distribution does not put all of them on the PATH."""
    return shutil.which(name, path=os.pathsep.join([*FOLDERS, os.environ.get("PATH", "")]))  # noqa: TID251


@contextmanager
def postgres() -> Iterator[str]:
    """Yield the URL of a database; skip the test where there is no PostgreSQL, except in CI."""
    initdb, server = program("initdb"), program("postgres")
    if initdb is None or server is None:
        assert not os.environ.get("CI"), "install postgresql"  # noqa: TID251 - the composition root of the tests
        pytest.skip("there is no PostgreSQL: install it")
    # The server does not run as root. Its folder is not below pytest's, which no other user may enter, and its path is
    # short, since that of a socket is limited.
    user = SUPERUSER if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as name:
        if user is not None:
            shutil.chown(name, user, user)
        with _running(Path(name), user, initdb, server) as url:
            yield url


@contextmanager
def _running(home: Path, user: str | None, initdb: str, server: str) -> Iterator[str]:
    data, run = (
        home / "data",
        {"user": user, "group": user, "cwd": home, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL},
    )
    subprocess.run([initdb, "-D", data, "-A", "trust", "-U", SUPERUSER, "--no-sync"], check=True, **run)  # type: ignore[call-overload]
    options = ["-c", "listen_addresses=", "-c", "fsync=off", "-k", str(home)]
    process = subprocess.Popen([server, "-D", data, *options], **run)  # type: ignore[call-overload]
    try:
        deadline = time.monotonic() + 30
        while not (home / ".s.PGSQL.5432").exists():
            assert process.poll() is None, "PostgreSQL ended"
            assert time.monotonic() < deadline, "PostgreSQL did not start"
            time.sleep(0.05)
        yield f"postgresql://{SUPERUSER}@/{SUPERUSER}?host={home}"
    finally:
        process.terminate()
        process.wait(30)
