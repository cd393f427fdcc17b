"""One worker of the chaos test application, on the engine or (``--stock``) on stock Faust."""

import argparse
import asyncio
import logging
import signal
import sys
from functools import partial
from pathlib import Path

from streams.core.observer import NullObserver
from streams.engine import Engine, EngineSettings, run_worker
from tests.chaos.tally import count, echo, tally, topics


class Owned(NullObserver):
    """Prints which partitions the worker owns."""

    def partitions_assigned(self, partitions: frozenset[int], seconds: float) -> None:
        print("owns", sorted(partitions), f"{seconds:.2f}", flush=True)


def on_engine(options: argparse.Namespace) -> int:
    events, echoes = topics(options.name)
    settings = EngineSettings(
        bootstrap_servers=options.bootstrap,
        app_id=options.name,
        worker=options.worker,
        data_dir=Path(options.data),
        partitions=options.partitions,
        store=options.store,
        session_timeout=options.session,
        uvloop=options.uvloop,
    )
    engine = Engine(settings, Owned())
    rows, echoed = engine.table("tally"), engine.table("echo")
    engine.fold("tally", [events], rows, partial(tally, echoes))
    engine.fold("echo", [echoes], echoed, echo, reads=[rows])
    return run_worker(engine)


def on_stock_faust(options: argparse.Namespace) -> None:
    """Run the same count on stock Faust: one agent, one table, one row per event."""
    import faust

    events, _ = topics(options.name)
    data = Path(options.data) / options.worker
    data.mkdir(parents=True, exist_ok=True)
    app = faust.App(
        options.name,
        broker=f"kafka://{options.bootstrap}",
        store="memory://" if options.store == "memory" else "rocksdb://",
        datadir=data,
        canonical_url=f"http://{options.worker}:6066",
        topic_partitions=options.partitions,
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        broker_session_timeout=options.session,
        broker_heartbeat_interval=1.0,
        broker_commit_interval=1.0,
        web_enabled=False,
        worker_redirect_stdouts=False,
    )
    table = app.Table("tally", key_type=bytes, value_type=bytes, partitions=options.partitions)

    async def run(stream: object) -> None:
        async for event in stream.events():  # type: ignore[attr-defined]
            row, new = count(table.get(event.key), event.value)
            if new:
                table[event.key] = row

    app.agent(app.topic(events, key_type=bytes, value_type=bytes, value_serializer="raw", key_serializer="raw"))(run)
    sys.argv = ["faust", "worker", "-l", "warn", "--without-web"]
    app.main()


def _show_tasks(number: int, frame: object) -> None:
    """Print where every task of the event loop is."""
    del number, frame
    for task in asyncio.all_tasks(asyncio.get_running_loop()):
        task.print_stack(limit=8, file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("bootstrap", "name", "worker", "data"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("--session", type=float, default=6.0)
    parser.add_argument("--store", choices=["rocksdb", "memory"], default="rocksdb")
    parser.add_argument("--stock", action="store_true")
    parser.add_argument("--uvloop", action="store_true")
    options = parser.parse_args()
    # A worker that does not stop is asked where it is (`tests.chaos.scenario.Workers.signal`).
    signal.signal(signal.SIGUSR1, _show_tasks)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    if options.stock:
        on_stock_faust(options)
        return 0
    return on_engine(options)


if __name__ == "__main__":
    sys.exit(main())
