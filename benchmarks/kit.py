"""Shared parts of the benchmarks: a broker, candidates as separate processes, and results relative to a reference.

Absolute numbers depend on the machine, so every result is compared with a reference of the same run. CPU seconds are
more reliable than wall-clock seconds when other programs use the cores.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

TIMEOUT = 400.0
"""Seconds until a candidate is aborted."""


@contextlib.contextmanager
def broker(bootstrap: str | None) -> Iterator[str]:
    """Yield the given bootstrap servers, or those of an embedded Kafka with a temporary data folder."""
    if bootstrap:
        yield bootstrap
        return
    from streams.local.embedded_kafka import EmbeddedKafka

    with tempfile.TemporaryDirectory(prefix="bench-kafka-") as folder, EmbeddedKafka(Path(folder)) as kafka:
        yield kafka.bootstrap_servers


def make_topics(bootstrap: str, partitions: int, names: Sequence[str]) -> None:
    async def make() -> None:
        client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        await client.start()
        try:
            response = await client.create_topics(
                [NewTopic(name, partitions, 1, topic_configs={"max.message.bytes": str(8 << 20)}) for name in names]
            )
            if failed := [error for error in response.topic_errors if error[1] not in {0, 36}]:
                raise RuntimeError(f"cannot create topics: {failed}")
        finally:
            await client.close()

    asyncio.run(make())


# ------------------------------------------------------------------------------------------------------- candidates


class Stopwatch:
    """Measures wall-clock and CPU seconds of a candidate process."""

    def __init__(self) -> None:
        self.started: float | None = None
        self._cpu = 0.0

    def start(self) -> None:
        if self.started is None:
            self.started, self._cpu = time.perf_counter(), time.process_time()

    def report(self, **more: Any) -> None:
        """Print the measurement as JSON for the parent process."""
        assert self.started is not None
        seconds, cpu = time.perf_counter() - self.started, time.process_time() - self._cpu
        # Faust replaces ``sys.stdout`` by its log.
        print(json.dumps({"seconds": seconds, "cpu": cpu, **more}), file=sys.__stdout__, flush=True)


def run_candidate(module: str, candidate: str, bootstrap: str, *arguments: str) -> dict[str, Any]:
    """Run ``python -m module --candidate ...`` on one core and return its measurement.

    Raise `RuntimeError` with its output if it printed none.
    """
    core = max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    with tempfile.TemporaryDirectory(prefix="bench-") as data:
        command = [sys.executable, "-m", module, "--candidate", candidate, "--bootstrap", bootstrap, "--data", data]
        if core is not None and shutil.which("taskset"):
            command = ["taskset", "-c", str(core), *command]
        result = subprocess.run([*command, *arguments], check=False, capture_output=True, text=True, timeout=TIMEOUT)
    lines = [line for line in result.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise RuntimeError(f"{candidate} printed no measurement:\n{result.stdout}\n{result.stderr[-4000:]}")
    measured: dict[str, Any] = json.loads(lines[-1])
    return measured


@dataclass(slots=True)
class Rates:
    """Rates of all rounds of one candidate; the median counts."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def add(self, events: int, measured: dict[str, Any]) -> None:
        self.wall.append(events / measured["seconds"])
        self.cpu.append(events / measured["cpu"])

    @property
    def per_second(self) -> float:
        return statistics.median(self.wall)

    @property
    def per_cpu_second(self) -> float:
        return statistics.median(self.cpu)


# ---------------------------------------------------------------------------------------------------------- results


@dataclass(frozen=True, slots=True)
class Result:
    """One measured value and its target."""

    name: str
    value: float
    unit: str
    target: str = ""
    met: bool | None = None

    def __str__(self) -> str:
        verdict = "" if self.met is None else ("yes" if self.met else "NO")
        value = f"{self.value:,.0f}" if abs(self.value) >= 100 else f"{self.value:,.2f}"
        return f"{self.name:<58}{value:>10} {self.unit:<10}{self.target:<12}{verdict}"


def at_least(name: str, value: float, unit: str, target: float) -> Result:
    return Result(name, value, unit, f">= {target:,g}", value >= target)


def at_most(name: str, value: float, unit: str, target: float) -> Result:
    return Result(name, value, unit, f"<= {target:,g}", value <= target)


def show(results: Sequence[Result]) -> None:
    """Print a table of results and targets."""
    print(f"\n{'':<58}{'measured':>10} {'':<10}{'target':<12}met")
    for result in results:
        print(result)
    print(flush=True)


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with the arguments of every benchmark."""
    created = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    created.add_argument("--bootstrap", help="host:port of a broker (otherwise the embedded one is started)")
    created.add_argument("--quick", action="store_true", help="a short run, to check that the benchmark works")
    for hidden in ("candidate", "data"):
        created.add_argument(f"--{hidden}", help=argparse.SUPPRESS)
    return created
