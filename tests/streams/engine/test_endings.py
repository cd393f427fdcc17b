"""Tests of the end of a worker: reason in the log, exit code, and no lost record."""

import asyncio
import contextlib
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiokafka
import pytest

from tests.chaos.kafka import committed_offsets, make_topics, wait_until

pytestmark = pytest.mark.broker


class Subject:
    """A worker process, its topic, and the commits of its group."""

    def __init__(self, bootstrap: str, folder: Path, how: str) -> None:
        self.bootstrap, self.folder, self.how = bootstrap, folder, how
        self.name = f"ends-{how}-{time.time_ns()}"
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        await make_topics(self.bootstrap, 2, [f"{self.name}-events"], [f"{self.name}-rows-changelog"])
        arguments = ["--bootstrap", self.bootstrap, "--name", self.name, "--data", str(self.folder), "--how", self.how]
        with (self.folder / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.streams.engine.bad_worker", *arguments, stdout=log, stderr=log
            )

    async def send(self, *values: bytes) -> None:
        producer = aiokafka.AIOKafkaProducer(bootstrap_servers=self.bootstrap)
        await producer.start()
        for value in values:
            await producer.send_and_wait(f"{self.name}-events", value, key=b"k", partition=0)
        await producer.stop()

    async def committed(self) -> int | None:
        offsets = await committed_offsets(self.bootstrap, self.name)
        return offsets.get(aiokafka.TopicPartition(f"{self.name}-events", 0))

    async def exit_code(self, seconds: float = 30) -> int:
        assert self.process is not None
        return await asyncio.wait_for(self.process.wait(), seconds)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()


@contextlib.asynccontextmanager
async def subject(bootstrap: str, folder: Path, how: str) -> AsyncIterator[Subject]:
    made = Subject(bootstrap, folder, how)
    await made.start()
    try:
        yield made
    finally:
        if made.process is not None and made.process.returncode is None:
            made.process.kill()
            await made.process.wait()


async def is_committed(worker: Subject, offset: int) -> None:
    async def reached() -> bool:
        return await worker.committed() == offset

    await wait_until(reached, 30)


@pytest.mark.parametrize(
    ("how", "code", "reason"),
    [
        ("raise", 71, "cannot read poison"),
        ("oversized", 71, "over 8323072 bytes"),
        ("nowhere", 71, "fold copy failed: .* does not exist: create it with `rentstream topics --apply`"),
        ("blocked", 74, "event loop has been blocked|nothing has moved there"),
    ],
)
async def test_a_failed_batch_is_not_committed(kafka: str, tmp_path: Path, how: str, code: int, reason: str) -> None:
    async with subject(kafka, tmp_path, how) as worker:
        await worker.send(b"good")
        await is_committed(worker, 1)
        await worker.send(b"poison")

        assert await worker.exit_code(90) == code
        assert await worker.committed() == 1
        assert re.search(reason, worker.log)


@pytest.mark.parametrize(
    ("how", "code", "reason"), [("service", 1, "has had enough"), ("scan", 71, "scan look failed with ValueError")]
)
async def test_a_crash_of_a_part_ends_the_worker(kafka: str, tmp_path: Path, how: str, code: int, reason: str) -> None:
    async with subject(kafka, tmp_path, how) as worker:
        assert await worker.exit_code() == code
        assert reason in worker.log


async def test_a_worker_that_receives_a_signal_finishes_its_batch_and_commits(kafka: str, tmp_path: Path) -> None:
    async with subject(kafka, tmp_path, "slow") as worker:
        await worker.send(b"first")
        await is_committed(worker, 1)
        await worker.send(b"second")
        await asyncio.sleep(0.4)
        assert worker.process is not None
        worker.process.send_signal(signal.SIGTERM)
        asked = time.monotonic()

        assert await worker.exit_code() == 0
        assert time.monotonic() - asked < 10
        assert await worker.committed() == 2
