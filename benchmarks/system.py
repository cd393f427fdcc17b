"""The whole system for a benchmark: roles as processes, stand-ins in the process of the benchmark."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from connectors.buildium.standin import BuildiumStandIn, Portfolio, RateLimit
from connectors.clock import SystemClock
from connectors.rentsync.standin import RentSyncStandIn
from connectors.serving import running
from streams.local.demo import API_KEY, demo_env

READY_TIMEOUT = 120.0


@dataclass(frozen=True, slots=True)
class System:
    """A running system."""

    buildium: BuildiumStandIn
    rentsync: RentSyncStandIn
    url: str
    """Base URL of the web role."""
    prefix: str
    """Topic prefix."""
    worker: subprocess.Popen[bytes]

    def peak_mib(self) -> float | None:
        """Return the peak memory of the worker in MiB, or None if /proc is not available."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.worker.pid}/status").read_text(encoding="ascii").splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) / 1024
        return None

    def cpu(self) -> float:
        """Return the CPU seconds of the worker, or 0 if /proc is not available."""
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{self.worker.pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return 0.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def system(bootstrap: str, portfolio: Portfolio) -> AsyncIterator[System]:
    """Start the web role and one worker with stand-ins, wait until they are ready, and stop them afterwards."""
    buildium = BuildiumStandIn(portfolio, limit=RateLimit())
    rentsync = RentSyncStandIn(API_KEY, SystemClock())
    prefix = f"bench{time.time_ns()}."
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        async with running(buildium.app) as buildium_url, running(rentsync.app) as rentsync_url:
            http, web_admin, worker_admin = (f"127.0.0.1:{free_port()}" for _ in range(3))
            env = {
                **os.environ,  # noqa: TID251 -- the roles need PATH and the like
                **demo_env(buildium_url, rentsync_url),
                "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
                "RENTSTREAM_HTTP": http,
                "RENTSTREAM_DATA": folder,
                "RENTSTREAM_TOPIC_PREFIX": prefix,
                "RENTSTREAM_SWEEP_EVERY": "1d",
                "RENTSTREAM_PULSE_EVERY": "0",
            }
            topics = await asyncio.create_subprocess_exec(
                *[sys.executable, "-m", "streams.cli", "topics", "--apply"],
                env=env,
                stdout=asyncio.subprocess.DEVNULL,
            )
            if await topics.wait():
                raise RuntimeError("cannot create the topics")
            roles = {("http",): web_admin, ("worker", "--name", "bench"): worker_admin}
            processes = [
                subprocess.Popen(
                    [sys.executable, "-m", "streams.cli", *arguments],
                    env={**env, "RENTSTREAM_ADMIN": admin},
                    stdout=subprocess.DEVNULL,
                )
                for arguments, admin in roles.items()
            ]
            try:
                await asyncio.gather(*(ready(admin) for admin in roles.values()))
                yield System(buildium, rentsync, f"http://{http}", prefix, processes[1])
            finally:
                for process in reversed(processes):
                    process.send_signal(signal.SIGTERM)
                for process in processes:
                    try:
                        await asyncio.to_thread(process.wait, 30)
                    except subprocess.TimeoutExpired:
                        process.kill()


async def ready(admin: str) -> None:
    """Wait until the role with this admin address is ready. Raise `RuntimeError` after a timeout."""
    started = time.monotonic()
    async with httpx.AsyncClient(timeout=2.0, trust_env=False) as client:
        while time.monotonic() - started < READY_TIMEOUT:
            with contextlib.suppress(httpx.HTTPError):
                if (await client.get(f"http://{admin}/readyz")).status_code == httpx.codes.OK:
                    return
            await asyncio.sleep(0.1)
    raise RuntimeError(f"the role at {admin} was not ready within {READY_TIMEOUT:.0f} s")
