"""The embedded Kafka needs Python only, loses no record, and stops when its program ends."""

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


async def _create_topic(servers: str, topic: str) -> None:
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


@pytest.mark.parametrize("method", ["stop", "kill"])
async def test_acknowledged_records_survive_a_restart(own_kafka: EmbeddedKafka, method: str) -> None:
    """Neither a stop nor a kill loses an acknowledged record, and the address does not change."""
    servers = own_kafka.bootstrap_servers
    await _create_topic(servers, "kept")
    await _write(servers, "kept", b"1", b"2")
    getattr(own_kafka, method)()
    assert not own_kafka.running
    assert own_kafka.bootstrap_servers == servers
    await own_kafka.start_async()
    assert own_kafka.bootstrap_servers == servers
    await _write(servers, "kept", b"3")
    assert await _read(servers, "kept") == [b"1", b"2", b"3"]


def test_the_cluster_id_survives_a_restart(own_kafka: EmbeddedKafka, tmp_path: Path) -> None:
    """A restart does not format the data folder again."""
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


def test_the_broker_ends_when_its_program_is_killed(tmp_path: Path) -> None:
    """After kill -9 of the program the broker ends by itself, and the next start needs no clean-up."""
    with subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path)], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        pid, servers = program.stdout.readline().split()

        with pytest.raises(BrokerError, match=f"Another RentStream .process {program.pid}. uses .*RENTSTREAM_DATA"):
            EmbeddedKafka(tmp_path).start()

        program.kill()
    with EmbeddedKafka(tmp_path) as restarted:  # waits for the lock, so the first broker has ended
        assert restarted.bootstrap_servers == servers
        assert restarted.pid != int(pid)
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can kill a child with its parent")
def test_the_broker_ends_when_its_watcher_is_killed(own_kafka: EmbeddedKafka) -> None:
    """After kill -9 of the watcher the kernel kills the broker."""
    assert own_kafka._watcher is not None
    os.kill(own_kafka._watcher.pid, signal.SIGKILL)
    own_kafka._watcher.wait()
    assert not own_kafka.running
    servers = own_kafka.bootstrap_servers
    own_kafka.stop()
    own_kafka.start()
    assert own_kafka.bootstrap_servers == servers


def test_a_port_in_use_is_refused_or_replaced(tmp_path: Path) -> None:
    """A configured port in use is an error that names it; the port of the last run is replaced by another."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        with pytest.raises(BrokerError, match=f"Port {taken} is used"):
            EmbeddedKafka(tmp_path, port=taken).start()

        (tmp_path / "kafka" / "port").write_text(str(taken))
        with EmbeddedKafka(tmp_path) as broker:
            assert broker.bootstrap_servers != f"127.0.0.1:{taken}"


def test_start_and_stop_are_idempotent(own_kafka: EmbeddedKafka) -> None:
    """Repeated calls change nothing; a second instance on the same data folder is refused."""
    pid = own_kafka.pid
    own_kafka.start()
    assert own_kafka.pid == pid
    with pytest.raises(BrokerError, match="Another RentStream"):
        EmbeddedKafka(own_kafka.log.parent.parent).start()
    own_kafka.stop()
    own_kafka.stop()


async def test_a_cancelled_start_leaves_no_broker(tmp_path: Path) -> None:
    """Ctrl-C while Kafka starts stops it again."""
    broker = EmbeddedKafka(tmp_path)
    starting = asyncio.create_task(broker.start_async())
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not broker.running
    with EmbeddedKafka(tmp_path) as restarted:
        assert restarted.bootstrap_servers == broker.bootstrap_servers


def test_a_failed_start_is_one_sentence(tmp_path: Path) -> None:
    """The error of a broker that cannot start names the cause and its log, without a stack trace."""
    with EmbeddedKafka(tmp_path) as broker:
        pass
    meta = tmp_path / "kafka" / "data" / "meta.properties"
    meta.write_text(meta.read_text().replace("node.id=1", "node.id=7"))
    with pytest.raises(BrokerError, match=r"cannot start \(Stored node id 7 .*\): see .*broker.log") as error:
        broker.start()
    assert "\n" not in str(error.value)
    assert not broker.running


def test_an_installed_java_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither PATH nor the environment variables of Java have an effect."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Xmx1k")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with EmbeddedKafka(tmp_path) as broker:
        assert broker.running


def test_an_unusable_data_folder_is_named(tmp_path: Path) -> None:
    """If a file exists in place of the folder, the error names the setting to change."""
    (tmp_path / "kafka").write_text("")
    with pytest.raises(BrokerError, match=r"cannot be written.*RENTSTREAM_DATA"):
        EmbeddedKafka(tmp_path).start()
