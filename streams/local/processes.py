"""Supervise the child processes of `rentstream up`: start, restart and stop them."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

SUPERVISED = "RENTSTREAM_UNDER_UP"
"""Environment variable of a child: its standard input is a pipe that closes when the parent process ends."""

MIN_UPTIME = 5.0
"""Seconds; a child that ends earlier counts as one that failed to start."""

MAX_START_FAILURES = 3
WRONG_USE = 2
"""Exit code for wrong settings or arguments, where a restart cannot help."""


def end_with_parent(env: Mapping[str, str]) -> None:
    """Send SIGTERM to this process when its parent ends, even after ``kill -9``; do nothing if it is not supervised."""
    if not env.get(SUPERVISED):
        return

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 1024):
                pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A child process: its name in messages, the arguments of ``rentstream``, and its environment."""

    name: str
    arguments: Sequence[str]
    env: Mapping[str, str]


class Supervisor:
    """Restarts child processes that end, until `stop` ends them in the reverse order of their start."""

    def __init__(self, echo: Callable[[str], None]) -> None:
        self._echo = echo
        self._running: list[tuple[ProcessSpec, subprocess.Popen[bytes]]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self.failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Resolves to one sentence when a child fails to start repeatedly."""

    def start(self, spec: ProcessSpec) -> None:
        """Start a child and restart it whenever it ends."""
        self._tasks.append(asyncio.create_task(self._supervise(spec)))

    def spawn(self, spec: ProcessSpec) -> subprocess.Popen[bytes]:
        """Start the process once."""
        return subprocess.Popen(  # noqa: S603 -- our own program
            [sys.executable, "-m", "streams.cli", *spec.arguments],
            env={**spec.env, SUPERVISED: "1"},
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    async def _supervise(self, spec: ProcessSpec) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while not self._stopping:
            started = loop.time()
            process = self.spawn(spec)
            entry = (spec, process)
            self._running.append(entry)
            code = await self._wait(process)
            self._running.remove(entry)
            if self._stopping:
                return
            failures = failures + 1 if loop.time() - started < MIN_UPTIME else 0
            if code == WRONG_USE or failures >= MAX_START_FAILURES:
                if not self.failed.done():
                    self.failed.set_result(f"{spec.name} cannot start (exit code {code}); see its output above")
                return
            self._echo(f"{spec.name} ended with exit code {code} and is restarted")
            await asyncio.sleep(min(5.0, 0.5 * 2**failures))

    async def _wait(self, process: subprocess.Popen[bytes]) -> int:
        while (code := process.poll()) is None:  # noqa: ASYNC110 -- Popen has no awaitable wait
            await asyncio.sleep(0.1)
        return code

    async def stop(self, within: float = 30.0) -> None:
        """Send SIGTERM to every child, the last one first; kill those that do not end ``within`` seconds."""
        self._stopping = True
        for _, process in reversed(self._running):
            process.send_signal(signal.SIGTERM)
        deadline = asyncio.get_running_loop().time() + within
        for spec, process in reversed(self._running):
            remaining = max(0.1, deadline - asyncio.get_running_loop().time())
            try:
                async with asyncio.timeout(remaining):
                    await self._wait(process)
            except TimeoutError:
                self._echo(f"{spec.name} did not end within {within:.0f} s and is killed")
                process.kill()
        await asyncio.gather(*self._tasks, return_exceptions=True)
