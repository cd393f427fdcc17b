"""Settings of the engine; every number with its unit and the reason for its default."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """The settings of one engine: one member of the consumer group, in one process."""

    bootstrap_servers: str
    """``host:port`` of some brokers, separated by commas."""
    app_id: str
    """Consumer group, and first part of the name of every changelog. Another id is another, empty application."""
    worker: str
    """Name of this worker, unique in the group; with ``app_id`` it also names its folder below ``data_dir``."""
    data_dir: Path
    """Folder of the rows on disk; may be lost at any time (they are rebuilt from the changelogs)."""
    partitions: int
    """Partitions of every topic and changelog that the engine reads or writes."""
    security: Mapping[str, Any] = field(default_factory=dict)
    """``security_protocol``, ``sasl_mechanism``, ``sasl_plain_username``, ``ssl_context``... as aiokafka takes them."""
    replication_factor: int = 1
    """Of changelogs, as Faust has it; the engine never creates topics."""
    store: Literal["rocksdb", "memory"] = "rocksdb"
    """Where rows are kept: on disk, or (tests, demos) in memory, read again from the changelog at every start."""
    uvloop: bool = sys.platform != "win32"
    """Whether `streams.engine.run_worker` uses uvloop: a seventh less CPU for single changes (`benchmarks.fleet`)."""

    standbys: int = 1
    """Workers beside the owner that keep the rows of a partition, as far as there are so many: when an owner is lost,
    one of them has only the last records of the changelogs to read. Each keeps as many rows on disk as the owner."""

    session_timeout: float = 10.0
    """Seconds without a heartbeat after which the broker assigns our partitions to others: the pause after a kill."""
    heartbeat_interval: float = 1.0
    """Seconds between heartbeats."""
    rebalance_timeout: float = 60.0
    """Seconds that a member may take to finish its batches when partitions move."""
    request_timeout: float = 40.0
    """Seconds after which a request to a broker is made again."""
    commit_interval: float = 1.0
    """Seconds between commits of offsets: work that is at most repeated after a crash."""

    fetch_wait_ms: int = 50
    """Milliseconds that a broker may hold a fetch that finds nothing. Faust's own 1500 make recovery slow."""
    fetch_bytes: int = 4 * MIB
    """Bytes of one partition in one fetch at most."""
    batch_size: int = 2000
    """Records of one step at most, where its fold does not declare fewer."""
    batch_bytes: int = 64 * 1024
    """Bytes of values of one step at most (a single larger record comes alone): nothing else of the process runs while
    a step does, so this bounds the pause."""
    queue_size: int = 16
    """Batches that wait for one fold before its partitions are no longer fetched."""

    stuck_after: float = 300.0
    """Seconds that a rebalance or a recovery may be without progress (a broker may be away for minutes)."""
    stalled_after: float = 300.0
    """Seconds that records of an owned partition may wait without being processed."""
    stop_timeout: float = 60.0
    """Seconds that a graceful stop may take."""

    state_max_age: float = 12 * 3600.0
    """Seconds after which rows left on disk are dropped instead of being brought up to date: compaction may have
    removed a tombstone by then. Must be well below the changelogs' ``delete.retention.ms`` (a day by default)."""
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
