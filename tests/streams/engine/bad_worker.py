"""A worker process with one injected fault, which ends the process."""

import argparse
import asyncio
import logging
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import mode

from streams.core.flows import ProducerRecord, RecordBatch, Step, View
from streams.engine import Engine, EngineSettings, run_worker


class Crashing(mode.Service):  # type: ignore[misc]
    """A service that crashes soon after its start."""

    @mode.Service.task  # type: ignore[untyped-decorator]
    async def _crash_soon(self) -> None:
        await asyncio.sleep(0.2)
        raise RuntimeError("the service has had enough")


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("bootstrap", "name", "data", "how"):
        parser.add_argument(f"--{name}", required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    engine = Engine(
        EngineSettings(
            bootstrap_servers=options.bootstrap,
            app_id=options.name,
            worker="w1",
            data_dir=Path(options.data),
            partitions=2,
            store="memory",
            session_timeout=6.0,
            request_timeout=4.0,
            stalled_after=5.0 if options.how == "blocked" else 300.0,
        )
    )
    rows = engine.table("rows")

    def step(batch: RecordBatch, _views: Mapping[str, View]) -> Step:
        values = [record.value for record in batch.records]
        if options.how == "slow":
            time.sleep(1.0)
        if b"poison" in values and options.how == "raise":
            raise ValueError("cannot read poison")
        if b"poison" in values and options.how == "blocked":
            time.sleep(60)
        size = 9 << 20 if b"poison" in values and options.how == "oversized" else 8
        effects = [ProducerRecord("nowhere", b"k", b"v")] if b"poison" in values and options.how == "nowhere" else []
        return Step({record.key: b"x" * size for record in batch.records if record.key is not None}, effects)

    engine.fold("copy", [f"{options.name}-events"], rows, step)
    if options.how == "service":
        engine.service(Crashing)
    if options.how == "scan":

        def look(_views: Mapping[str, View], _partition: int) -> Iterable[ProducerRecord]:
            raise ValueError("cannot look")

        engine.scan("look", 60.0, look, on_assigned=True)
    return run_worker(engine)


if __name__ == "__main__":
    sys.exit(main())
