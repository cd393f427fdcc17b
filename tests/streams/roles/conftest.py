"""Fixtures of the tests of roles."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.streams.roles.terminal import Terminal

QUIETED = ("httpx", "httpcore", "faust", "mode", "aiokafka")
"""Loggers whose level the command line sets."""


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    levels = {name: logging.getLogger(name).level for name in QUIETED}
    yield Terminal(tmp_path, {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"})
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
