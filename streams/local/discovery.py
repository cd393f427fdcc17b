"""Finds the embedded Kafka of a `rentstream up` that runs on this machine, for commands beside it."""

import fcntl
from pathlib import Path


def embedded_servers(data: Path) -> str | None:
    """Return ``host:port`` of the embedded Kafka that runs on the data folder ``data``; null if none does.

    The broker holds a lock on its folder as long as it lives, and wrote its port there before it started.
    """
    folder = data.absolute() / "kafka"
    try:
        with (folder / "lock").open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return f"127.0.0.1:{int((folder / 'port').read_text())}"
    except (OSError, ValueError):
        return None
    return None
