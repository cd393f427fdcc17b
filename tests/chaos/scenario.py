"""The chaos scenario: two workers under load, of which random ones are killed, stopped or frozen."""

import asyncio
import contextlib
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.cluster import NODES, Cluster
from tests.chaos.kafka import Load, drained, in_sync, last_values, make_topics, wait_until
from tests.chaos.proxy import Direction, Link, Proxy
from tests.chaos.tally import ROW, Tally, topics


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Parameters of a run; the same seed leads to the same faults."""

    bootstrap: str
    seed: int = 1
    rounds: int = 8
    kinds: tuple[str, ...] = ("KILL", "KILL", "TERM", "STOP")
    pause: tuple[float, float] = (0.3, 4.0)
    rate: float = 1000.0
    most: int | None = None
    """Maximum number of events; with a high rate this creates a backlog."""
    keys: int = 800
    partitions: int = 8
    session: float = 6.0
    store: str = "rocksdb"
    stock: bool = False
    uvloop: bool = False
    patience: float = 90.0
    links: Mapping[str, Link] = field(default_factory=dict)
    """How each worker is connected, for the kinds `CUTS`; without: directly."""
    cluster: Cluster | None = None
    """The brokers, for the kind ``BROKER``, which kills one of them."""
    trace: bool = False
    """Do not compact the changelogs, to analyze a failure."""


CUTS: Mapping[str, Direction] = {"CUT": "both", "CUT-REQUESTS": "requests", "CUT-ANSWERS": "answers"}
"""Faults of the network, by the direction that is cut."""


@dataclass(slots=True)
class Report:
    """Result of a run."""

    events: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    exits: Counter[str] = field(default_factory=Counter)
    drained: bool = False
    wrong_keys: int = 0
    lost_updates: int = 0
    wrong_echoes: int = 0
    seconds: float = 0.0
    examples: list[str] = field(default_factory=list)

    @property
    def exact(self) -> bool:
        return self.drained and self.wrong_keys == 0 and self.wrong_echoes == 0

    def __str__(self) -> str:
        verdict = "exact" if self.exact else "WRONG"
        return (
            f"{verdict}: {self.events} events, {dict(self.faults)}, exits {dict(self.exits)}, drained {self.drained}, "
            f"wrong keys {self.wrong_keys}, lost updates {self.lost_updates}, wrong echoes {self.wrong_echoes}, "
            f"{self.seconds:.0f} s {self.examples}"
        )


class Workers:
    """The worker processes, by name."""

    def __init__(self, plan: Plan, name: str, folder: Path) -> None:
        self._plan, self._name, self.folder = plan, name, folder
        self.running: dict[str, asyncio.subprocess.Process] = {}
        self._log_start: dict[str, int] = {}
        self.proxies = {worker: Proxy(link.listener, link.proxy) for worker, link in plan.links.items()}

    async def start(self, worker: str, bootstrap: str | None = None) -> None:
        plan = self._plan
        if worker in plan.links:
            bootstrap = f"127.0.0.1:{plan.links[worker].proxy}"
        arguments = [
            *(
                "--bootstrap",
                bootstrap or plan.bootstrap,
                "--name",
                self._name,
                "--worker",
                worker,
                "--data",
                str(self.folder),
            ),
            *("--partitions", str(plan.partitions), "--session", str(plan.session), "--store", plan.store),
            *(["--stock"] if plan.stock else []),
            *(["--uvloop"] if plan.uvloop else []),
        ]
        with (self.folder / f"{worker}.log").open("ab") as output:
            self._log_start[worker] = output.tell()
            self.running[worker] = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.chaos.worker", *arguments, stdout=output, stderr=output
            )

    async def signal(self, worker: str, number: signal.Signals, patience: float = 55) -> int | None:
        """Send a signal and return the exit code; kill the worker and return None if it does not end in time."""
        process = self.running[worker]
        process.send_signal(number)
        try:
            return await asyncio.wait_for(process.wait(), patience)
        except TimeoutError:
            process.send_signal(signal.SIGUSR1)
            await asyncio.sleep(1)
            process.kill()
            await process.wait()
            print(f"{worker} did not end:\n{self.log(worker)[-20_000:]}")
            return None

    def assigned(self, worker: str) -> bool:
        """Return whether it had partitions since its start (stock Faust does not log them)."""
        return b"owns [" in (self.folder / f"{worker}.log").read_bytes()[self._log_start[worker] :]

    def log(self, worker: str) -> str:
        return (self.folder / f"{worker}.log").read_text(errors="replace")

    async def close(self) -> None:
        for process in self.running.values():
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGCONT)
                    process.kill()
                await process.wait()


async def run(plan: Plan, folder: Path | None = None) -> Report:
    """Run a plan, with logs and state in ``folder`` (default: a temporary folder), and return its report."""
    with contextlib.ExitStack() as stack:
        folder = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        return await _run(plan, folder)


async def _run(plan: Plan, folder: Path) -> Report:
    started, report = time.monotonic(), Report()
    name = f"chaos-{'stock-' if plan.stock else ''}{plan.seed}-{time.time_ns() // 1_000_000}"
    events, echoes = topics(name)
    changelogs = [f"{name}-tally-changelog", f"{name}-echo-changelog"]
    plain, compacted = ([events, echoes, *changelogs], []) if plan.trace else ([events, echoes], changelogs)
    await make_topics(plan.bootstrap, plan.partitions, plain, compacted, NODES if plan.cluster else 1)
    rng = random.Random(plan.seed)
    workers = Workers(plan, name, folder)
    load = Load(
        plan.bootstrap,
        events,
        partitions=plan.partitions,
        keys=plan.keys,
        rate=plan.rate,
        seed=plan.seed,
        most=plan.most,
    )
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(workers.close)
        for proxy in workers.proxies.values():
            await stack.enter_async_context(proxy)
        for worker in ("w1", "w2"):
            await workers.start(worker)
        load.start()
        await asyncio.sleep(4)
        for _ in range(plan.rounds):
            await asyncio.sleep(rng.uniform(*plan.pause))
            await _inject_fault(plan, rng, workers, report)
            if plan.cluster is not None:
                await wait_until(lambda: in_sync(plan.bootstrap, [*plain, *compacted], NODES), plan.patience, 0.5)
        await asyncio.sleep(2)
        await load.stop()
        watched = [events] if plan.stock else [events, echoes]
        with contextlib.suppress(TimeoutError):
            await wait_until(lambda: drained(plan.bootstrap, name, watched, plan.partitions), plan.patience, 1.0)
            report.drained = True
        for worker, process in workers.running.items():
            if process.returncode is None:
                report.exits[f"end {await workers.signal(worker, signal.SIGTERM)}"] += 1
            else:
                report.exits[f"unexpected {process.returncode}"] += 1
    report.events = load.sent
    await _compare(plan, changelogs, load.expected, report)
    report.seconds = time.monotonic() - started
    return report


async def _inject_fault(plan: Plan, rng: random.Random, workers: Workers, report: Report) -> None:
    worker, kind, wait = (
        rng.choice(["w1", "w2"]),
        rng.choice(plan.kinds),
        rng.choice([0, 0, 1, plan.session + 2]),
    )
    if kind == "BROKER":
        assert plan.cluster is not None
        report.faults[kind] += 1
        node = rng.choice(plan.cluster.nodes)
        await asyncio.to_thread(node.kill)
        await asyncio.sleep(rng.uniform(0, plan.session + 4))
        await node.start_async()
        return
    process = workers.running[worker]
    if process.returncode is not None:
        report.exits[f"unexpected {process.returncode}"] += 1
    else:
        report.faults[kind] += 1
        if kind in CUTS:
            workers.proxies[worker].cut(CUTS[kind])
            await asyncio.sleep(rng.uniform(1, plan.session + 8))
            workers.proxies[worker].heal()
            return
        if kind == "STOP":
            when = "" if workers.assigned(worker) else " during its start"
            process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(plan.session + rng.uniform(2, 4))
            process.send_signal(signal.SIGCONT)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), 5)
            report.exits[f"STOP {process.returncode}{when}"] += 1
            if process.returncode is None:  # as it should be: it joins again
                return
        else:
            report.exits[f"{kind} {await workers.signal(worker, signal.Signals[f'SIG{kind}'])}"] += 1
            await asyncio.sleep(wait)
    await workers.start(worker)


async def _compare(plan: Plan, changelogs: list[str], expected: dict[bytes, Tally], report: Report) -> None:
    tallies = await last_values(plan.bootstrap, changelogs[0], plan.partitions)
    for key, tally in expected.items():
        row = tallies.get(key)
        actual = ROW.unpack(row) if row is not None else (0, 0, 0)
        if actual != tally:
            report.wrong_keys += 1
            report.lost_updates += max(0, tally[1] - actual[1])
            if len(report.examples) < 3:
                report.examples.append(f"{key!r}: expected {tally}, got {actual}")
    if not plan.stock:
        echoes = await last_values(plan.bootstrap, changelogs[1], plan.partitions)
        for key, tally in expected.items():
            row = echoes.get(key)
            report.wrong_echoes += (ROW.unpack(row)[0] if row is not None else 0) != tally[0]
