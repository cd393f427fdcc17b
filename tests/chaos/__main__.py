"""``python -m tests.chaos --rounds N --seed S [--stock] [--store memory|rocksdb]``: longer chaos runs, one per seed."""

import argparse
import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.chaos.cluster import NODES, Cluster
from tests.chaos.proxy import Link, ProxiedKafka
from tests.chaos.scenario import Plan, run
from tests.world.cluster import free_port

ALONE = "KILL,KILL,TERM,STOP,CUT,CUT-REQUESTS,CUT-ANSWERS"
TOGETHER = "KILL,TERM,STOP,BROKER,BROKER,BROKER"


@contextlib.contextmanager
def broker(bootstrap: str | None, cluster: Cluster | None = None) -> Iterator[tuple[str, dict[str, Link]]]:
    """Yield the given bootstrap servers, those of a cluster, or those of one embedded Kafka with links to workers."""
    if bootstrap:
        yield bootstrap, {}
        return
    if cluster is not None:
        asyncio.run(cluster.start())
        try:
            yield cluster.bootstrap_servers, {}
        finally:
            asyncio.run(cluster.kill())
        return
    links = {worker: Link(free_port(), free_port()) for worker in ("w1", "w2")}
    with (
        tempfile.TemporaryDirectory(prefix="chaos-kafka-") as folder,
        ProxiedKafka(Path(folder), *links.values()) as kafka,
    ):
        yield kafka.bootstrap_servers, links


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", help="host:port of a broker (otherwise the embedded one is started)")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds, starting at --seed")
    parser.add_argument("--rate", type=float, default=1000.0)
    parser.add_argument("--most", type=int, help="maximum number of events; with a high rate this creates a backlog")
    parser.add_argument("--kinds", help=f"faults (default: {ALONE}; of three brokers {TOGETHER})")
    parser.add_argument("--brokers", type=int, choices=[1, NODES], default=1)
    parser.add_argument("--session", type=float, default=6.0)
    parser.add_argument("--store", choices=["rocksdb", "memory"], default="rocksdb")
    parser.add_argument("--stock", action="store_true", help="use stock Faust, to see what it loses")
    parser.add_argument("--uvloop", action="store_true")
    parser.add_argument("--patience", type=float, default=90.0, help="seconds to wait until all events are processed")
    parser.add_argument("--trace", action="store_true", help="do not compact the changelogs")
    parser.add_argument("--keep", type=Path, help="folder for logs and state")
    options = parser.parse_args()
    failures = 0
    folder = tempfile.TemporaryDirectory(prefix="chaos-cluster-")
    cluster = Cluster(Path(folder.name)) if options.brokers == NODES else None
    kinds = options.kinds or (TOGETHER if cluster else ALONE)
    with folder, broker(options.bootstrap, cluster) as (bootstrap, links):
        for seed in range(options.seed, options.seed + options.seeds):
            plan = Plan(
                bootstrap=bootstrap,
                links=links,
                seed=seed,
                rounds=options.rounds,
                rate=options.rate,
                most=options.most,
                kinds=tuple(kinds.split(",")),
                cluster=cluster,
                session=options.session,
                store=options.store,
                stock=options.stock,
                uvloop=options.uvloop,
                trace=options.trace,
                patience=options.patience,
            )
            kept = options.keep / f"seed-{seed}" if options.keep else None
            if kept is not None:
                kept.mkdir(parents=True, exist_ok=True)
            report = asyncio.run(run(plan, kept))
            failures += not report.exact
            print(f"seed {seed}: {report}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
