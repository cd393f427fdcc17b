"""The embedded Kafka is a real one that needs nothing, loses nothing, and never outlives its program."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.local.embedded_kafka import BrokerError, EmbeddedKafka

pytestmark = pytest.mark.broker


async def _make(servers: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 1, 1)])
    finally:
        await admin.close()


async def _write(servers: str, topic: str, *values: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=servers) as producer:
        for value in values:
            await producer.send_and_wait(topic, value, partition=0)


async def _read(servers: str, topic: str) -> list[bytes]:
    async with AIOKafkaConsumer(bootstrap_servers=servers, auto_offset_reset="earliest") as consumer:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        end = (await consumer.end_offsets([partition]))[partition]
        values: list[bytes] = []
        while len(values) < end:
            values.append((await consumer.getone()).value)
        return values


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_what_was_written_is_there_after_the_next_start(own_kafka: EmbeddedKafka, end: str) -> None:
    """Neither a stop nor a kill loses a record that was acknowledged, and the address stays."""
    servers = own_kafka.bootstrap_servers
    await _make(servers, "kept")
    await _write(servers, "kept", b"1", b"2")
    getattr(own_kafka, end)()
    assert not own_kafka.running
    assert own_kafka.bootstrap_servers == servers
    await own_kafka.start_async()
    assert own_kafka.bootstrap_servers == servers
    await _write(servers, "kept", b"3")
    assert await _read(servers, "kept") == [b"1", b"2", b"3"]


def test_the_identity_stays(own_kafka: EmbeddedKafka, tmp_path: Path) -> None:
    """A restart is the same cluster."""
    meta = tmp_path / "rentstream" / "kafka" / "data" / "meta.properties"
    before = meta.read_text()
    own_kafka.stop()
    own_kafka.start()
    assert meta.read_text() == before


PROGRAM = """
import pathlib, signal, sys
from streams.local.embedded_kafka import EmbeddedKafka
kafka = EmbeddedKafka(pathlib.Path(sys.argv[1]))
kafka.start()
print(kafka.pid, kafka.bootstrap_servers, flush=True)
signal.pause()
"""


def test_a_program_that_is_killed_takes_its_broker_along(tmp_path: Path) -> None:
    """After kill -9 of the program the broker ends by itself, and the next start needs no help."""
    with subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path)], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        pid, servers = program.stdout.readline().split()

        with pytest.raises(BrokerError, match=f"Another RentStream .process {program.pid}. runs on .*RENTSTREAM_DATA"):
            EmbeddedKafka(tmp_path).start()

        program.kill()
    with EmbeddedKafka(tmp_path) as next_one:  # waits for the lock, so the first broker is gone
        assert next_one.bootstrap_servers == servers
        assert next_one.pid != int(pid)
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux ends a child with its parent")
def test_a_killed_watcher_takes_the_broker_along(own_kafka: EmbeddedKafka) -> None:
    """The watcher's own death is no way for a broker to stay."""
    assert own_kafka._watcher is not None
    os.kill(own_kafka._watcher.pid, signal.SIGKILL)
    own_kafka._watcher.wait()
    assert not own_kafka.running
    servers = own_kafka.bootstrap_servers
    own_kafka.stop()
    own_kafka.start()
    assert own_kafka.bootstrap_servers == servers


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    """The sentence names the port; a port that only was taken since the last run is given up for another."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        with pytest.raises(BrokerError, match=f"Port {taken} is taken"):
            EmbeddedKafka(tmp_path, port=taken).start()

        (tmp_path / "kafka" / "port").write_text(str(taken))
        with EmbeddedKafka(tmp_path) as broker:
            assert broker.bootstrap_servers != f"127.0.0.1:{taken}"


def test_a_second_start_of_the_same_one_changes_nothing(own_kafka: EmbeddedKafka) -> None:
    """Start is idempotent, stop too; a second object on the same data is refused."""
    pid = own_kafka.pid
    own_kafka.start()
    assert own_kafka.pid == pid
    with pytest.raises(BrokerError, match="Another RentStream"):
        EmbeddedKafka(own_kafka.log.parent.parent).start()
    own_kafka.stop()
    own_kafka.stop()


async def test_a_start_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    """A Ctrl-C while Kafka starts ends it, too."""
    broker = EmbeddedKafka(tmp_path)
    starting = asyncio.create_task(broker.start_async())
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not broker.running
    with EmbeddedKafka(tmp_path) as next_one:
        assert next_one.bootstrap_servers == broker.bootstrap_servers


def test_data_that_kafka_refuses(tmp_path: Path) -> None:
    """A broker that ends while it starts is one sentence with its log, not a stack trace."""
    with EmbeddedKafka(tmp_path) as broker:
        pass
    meta = tmp_path / "kafka" / "data" / "meta.properties"
    meta.write_text(meta.read_text().replace("node.id=1", "node.id=7"))
    with pytest.raises(BrokerError, match=r"cannot start \(Stored node id 7 .*\): see .*broker.log") as refused:
        broker.start()
    assert "\n" not in str(refused.value)
    assert not broker.running


def test_no_java_of_the_machine_matters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing on PATH and nothing in Java's own variables is used."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Xmx1k")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with EmbeddedKafka(tmp_path) as broker:
        assert broker.running


def test_a_data_folder_that_cannot_be(tmp_path: Path) -> None:
    """Where a file is in the way the sentence names the setting."""
    (tmp_path / "kafka").write_text("")
    with pytest.raises(BrokerError, match=r"cannot be written.*RENTSTREAM_DATA"):
        EmbeddedKafka(tmp_path).start()
