"""Fixtures for all tests: a shared Kafka, a Kafka per test, and unique topic names."""

import gc
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka.conn import AIOKafkaConnection

from streams.local.embedded_kafka import EmbeddedKafka


def pytest_collection_finish() -> None:
    """Exempt what was imported from garbage collection: full collections would be a tenth of the run in memory."""
    gc.collect()
    gc.freeze()


_connect = AIOKafkaConnection.connect


async def _connect_in_test(connection: Any) -> Any:
    connection.opened_in = os.environ.get("PYTEST_CURRENT_TEST")  # noqa: TID251 - set by pytest
    return await _connect(connection)


AIOKafkaConnection.connect = _connect_in_test


def pytest_sessionfinish() -> None:
    """Name the Kafka connections that are still open: the warning that follows does not say where they are from."""
    for one in gc.get_objects():
        if type(one) is AIOKafkaConnection and one.connected():
            print(f"\nstill open: a connection of {one._client_id!r} to port {one.port}, opened in {one.opened_in}")


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bootstrap servers of one Kafka for the whole run, started on first use.

    `RENTSTREAM_TEST_KAFKA` names an existing Kafka to use instead. Use `topic_prefix`, because tests share the topics.
    """
    servers = os.environ.get("RENTSTREAM_TEST_KAFKA")  # noqa: TID251 - the composition root of the tests
    if servers:
        yield servers
        return
    with EmbeddedKafka(tmp_path_factory.mktemp("rentstream"), warm=True) as broker:
        yield broker.bootstrap_servers


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[EmbeddedKafka]:
    """A started Kafka that the test can stop, kill and start again, with the same port and data."""
    with EmbeddedKafka(tmp_path / "rentstream") as broker:
        yield broker


@pytest.fixture
def topic_prefix() -> str:
    """A unique prefix for topics and groups, like `t3f9a1c.`."""
    return f"t{uuid.uuid4().hex[:6]}."
