"""What every test may ask for: a real Kafka that the run shares, one of its own, names that collide with none."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.local.embedded_kafka import EmbeddedKafka


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bootstrap servers of one Kafka for the run, started when first asked for.

    `RENTSTREAM_TEST_KAFKA` names another one to use instead. Take a `topic_prefix`, since topics are shared.
    """
    given = os.environ.get("RENTSTREAM_TEST_KAFKA")  # noqa: TID251 - the root of the tests
    if given:
        yield given
        return
    with EmbeddedKafka(tmp_path_factory.mktemp("rentstream"), warm=True) as broker:
        yield broker.bootstrap_servers


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[EmbeddedKafka]:
    """A Kafka that the test may stop, kill and start again (same port, same data); started."""
    with EmbeddedKafka(tmp_path / "rentstream") as broker:
        yield broker


@pytest.fixture
def topic_prefix() -> str:
    """A prefix for topics and groups that no other test has, like `t3f9a1c.`."""
    return f"t{uuid.uuid4().hex[:6]}."
