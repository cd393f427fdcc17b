"""The folder of a worker on disk: used by one process at a time, and what to do when the disk takes nothing."""

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PATIENCE: Final = 5.0
"""Seconds to wait for the folder: the former process may be about to end."""

_CAUSES: Final = (
    ("No space left on device", "the disk is full: free some space"),
    ("Disk quota exceeded", "the disk quota is used up: raise it, or free some space"),
    ("Read-only file system", "the file system is read-only: mount it for writing"),
    ("Permission denied", "this user may not write there: change the owner of the folder, or run as its owner"),
    ("File too large", "no file may grow further: raise the limit (`ulimit -f`)"),
    ("Not a directory", "a part of this path is a file"),
)
"""Words of the system, and what they mean with what to do."""


class FolderError(RuntimeError):
    """The folder of a worker cannot be used; the text states the reason and what to do."""


def cause_of(error: Exception) -> str | None:
    """Return why the disk refuses to be written, with what to do; null if an error has another cause."""
    text = str(error)
    return next((cause for words, cause in _CAUSES if words in text), None)


@contextlib.contextmanager
def held(folder: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Hold the folder of a worker, which is created if need be. Raise `FolderError`.

    The kernel releases it when the process ends, however it ends.
    """
    try:
        for one in (folder, folder / "tables"):
            one.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=one) as file:
                file.write(bytes(4096))
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        why = cause_of(error) or str(error)
        raise FolderError(f"{folder} cannot be used, {why}. RENTSTREAM_DATA names another folder.") from error
    try:
        _acquire(lock, folder, patience)
        os.ftruncate(lock, 0)
        os.pwrite(lock, b"%d" % os.getpid(), 0)
        yield
    finally:
        os.close(lock)


def _acquire(lock: int, folder: Path, patience: float) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            owner = os.pread(lock, 20, 0).decode(errors="replace") or "unknown"
            raise FolderError(
                f"Another worker named {folder.name} (process {owner}) uses {folder}: "
                "give this one another --name, or stop that one."
            ) from None
        return
