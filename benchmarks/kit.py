"""What the benchmarks share: a broker, contestants as processes of their own, and figures as ratios of one run.

The machine is whatever it is: a figure counts beside the reference that ran right before it, and processor seconds
count more than seconds where others use the cores too.
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

WITHIN = 400.0
"""Seconds that a contestant may take."""


@contextlib.contextmanager
def broker(bootstrap: str | None) -> Iterator[str]:
    """Give the broker that was named, or start the embedded one on a folder that goes with it."""
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
            answer = await client.create_topics(
                [NewTopic(name, partitions, 1, topic_configs={"max.message.bytes": str(8 << 20)}) for name in names]
            )
            if failed := [error for error in answer.topic_errors if error[1] not in {0, 36}]:
                raise RuntimeError(f"topics cannot be made: {failed}")
        finally:
            await client.close()

    asyncio.run(make())


# ------------------------------------------------------------------------------------------------------ contestants


class Stopwatch:
    """A contestant's own clock: seconds, and processor seconds of all its threads."""

    def __init__(self) -> None:
        self.began: float | None = None
        self._cpu = 0.0

    def start(self) -> None:
        if self.began is None:
            self.began, self._cpu = time.perf_counter(), time.process_time()

    def say(self, **more: Any) -> None:
        """Tell the process that waits for it."""
        assert self.began is not None
        seconds, cpu = time.perf_counter() - self.began, time.process_time() - self._cpu
        # Faust takes ``sys.stdout`` for its log.
        print(json.dumps({"seconds": seconds, "cpu": cpu, **more}), file=sys.__stdout__, flush=True)


def contend(module: str, contestant: str, bootstrap: str, *arguments: str) -> dict[str, Any]:
    """Run ``python -m module --contestant ...`` on one core, and hear what it says of itself."""
    core = max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    with tempfile.TemporaryDirectory(prefix="bench-") as data:
        command = [sys.executable, "-m", module, "--contestant", contestant, "--bootstrap", bootstrap, "--data", data]
        if core is not None and shutil.which("taskset"):
            command = ["taskset", "-c", str(core), *command]
        found = subprocess.run([*command, *arguments], check=False, capture_output=True, text=True, timeout=WITHIN)
    lines = [line for line in found.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise RuntimeError(f"{contestant} said nothing:\n{found.stdout}\n{found.stderr[-4000:]}")
    said: dict[str, Any] = json.loads(lines[-1])
    return said


@dataclass(slots=True)
class Rates:
    """What the rounds of one contestant came to; the middle one counts."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def add(self, events: int, said: dict[str, Any]) -> None:
        self.wall.append(events / said["seconds"])
        self.cpu.append(events / said["cpu"])

    @property
    def a_second(self) -> float:
        return statistics.median(self.wall)

    @property
    def a_cpu_second(self) -> float:
        return statistics.median(self.cpu)


# ---------------------------------------------------------------------------------------------------------- figures


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure beside its aim."""

    what: str
    value: float
    unit: str
    aim: str = ""
    met: bool | None = None

    def __str__(self) -> str:
        verdict = "" if self.met is None else ("yes" if self.met else "NO")
        value = f"{self.value:,.0f}" if abs(self.value) >= 100 else f"{self.value:,.2f}"
        return f"{self.what:<58}{value:>10} {self.unit:<10}{self.aim:<12}{verdict}"


def at_least(what: str, value: float, unit: str, aim: float) -> Figure:
    return Figure(what, value, unit, f">= {aim:,g}", value >= aim)


def at_most(what: str, value: float, unit: str, aim: float) -> Figure:
    return Figure(what, value, unit, f"<= {aim:,g}", value <= aim)


def show(figures: Sequence[Figure]) -> None:
    print(f"\n{'':<58}{'measured':>10} {'':<10}{'aim':<12}met")
    for figure in figures:
        print(figure)
    print(flush=True)


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Make a parser with what every benchmark takes."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--bootstrap", help="host:port of a broker (otherwise the embedded one is started)")
    made.add_argument("--quick", action="store_true", help="less of everything: to see that it runs")
    for hidden in ("contestant", "data"):
        made.add_argument(f"--{hidden}", help=argparse.SUPPRESS)
    return made
