"""What the engine must be told; every number with its unit and the reason for its default."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Immutable settings of one engine: one consumer group member, in one process."""

    bootstrap_servers: str
    """``host:port`` of some brokers, separated by commas."""
    app_id: str
    """Consumer group, and first part of the name of every changelog. Another id is another, empty application."""
    worker: str
    """Name of this worker, unique in the group; with ``app_id`` it also names its folder below ``data_dir``."""
    data_dir: Path
    """Where the rows are kept on disk; may be lost at any time (the changelogs bring them back)."""
    partitions: int
    """Partitions of every topic and changelog that the engine reads or writes."""
    security: Mapping[str, Any] = field(default_factory=dict)
    """``security_protocol``, ``sasl_mechanism``, ``sasl_plain_username``, ``ssl_context``... as aiokafka takes them."""
    replication_factor: int = 1
    """Of changelogs, as far as Faust mentions it; topics are created elsewhere, the engine never does."""
    store: Literal["rocksdb", "memory"] = "rocksdb"
    """Where rows live: on disk, or (tests, demos) in memory, read back from the changelog at every start."""
    uvloop: bool = False
    """Run on uvloop (:func:`~streams.engine.run_worker` only)."""

    session_timeout: float = 10.0
    """Seconds without a heartbeat after which the broker gives our partitions to others: the pause after a kill."""
    heartbeat_interval: float = 1.0
    """Seconds between heartbeats."""
    rebalance_timeout: float = 60.0
    """Seconds that a member may take to finish its running batches when partitions move."""
    request_timeout: float = 40.0
    """Seconds after which a request to a broker is given up and made again."""
    commit_interval: float = 1.0
    """Seconds between commits of offsets: what a crash at most makes us do twice."""

    fetch_wait_ms: int = 50
    """Milliseconds that a broker may hold a fetch that finds nothing. Faust's own 1500 slow recovery down."""
    fetch_bytes: int = 4 * MIB
    """Bytes of one partition that a fetch brings at most."""
    batch_size: int = 2000
    """Records that a step gets at most at once, where its fold does not want fewer."""
    batch_bytes: int = 256 * 1024
    """Bytes of values that a step gets at most at once (a single larger record comes alone): nothing else of the
    process runs while a step does, so this bounds the pause."""
    queue_size: int = 16
    """Batches that wait for one fold before its partitions are not fetched any more."""
    produce_batch_bytes: int = 512 * 1024
    """Bytes of one produced batch; must stay below the topics' ``max.message.bytes`` (1 MiB by default)."""
    max_request_size: int = 8 * MIB
    """Bytes of the largest single record that may be written; a larger one stops the worker with a clear word."""
    compression: Literal["lz4"] | None = "lz4"
    """Of what the engine writes, changelogs included."""

    lease: float = 0.6
    """Part of ``session_timeout`` that the process may stand still before it must assume that others took over."""
    stuck_after: float = 300.0
    """Seconds that a rebalance or a recovery may go without any progress (a broker may be away for minutes)."""
    stalled_after: float = 300.0
    """Seconds that an owned partition may have records which nobody works on."""
    stop_timeout: float = 60.0
    """Seconds that a graceful stop may take."""

    state_max_age: float = 12 * 3600.0
    """Seconds after which rows left on disk are thrown away instead of being brought up to date: the changelog may have
    forgotten a deletion by then. Must be well below the changelogs' ``delete.retention.ms`` (a day by default)."""
    block_cache_bytes: int = 128 * MIB
    """RocksDB's cache of blocks, shared by all partitions of all tables of the process."""
    write_buffer_bytes: int = 8 * MIB
    """RocksDB's write buffer per partition and table."""
    write_buffers_bytes: int = 256 * MIB
    """RocksDB's write buffers of the whole process."""

    @property
    def servers(self) -> list[str]:
        return [server.strip() for server in self.bootstrap_servers.split(",") if server.strip()]

    @property
    def state_dir(self) -> Path:
        return self.data_dir / self.app_id / self.worker

    @property
    def fence_seconds(self) -> float:
        return self.session_timeout * self.lease
