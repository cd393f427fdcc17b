"""Child processes of `rentstream up`: started, watched, started again, and never left behind."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

FROM_PARENT = "RENTSTREAM_UNDER_UP"
"""Set for a child: its standard input is a pipe that closes when the parent is gone, however it went."""

QUICK = 5.0
"""Seconds of life under which a child that ended counts as one that cannot start."""


def end_with_parent(env: Mapping[str, str]) -> None:
    """In a child of `rentstream up`: ask this process to stop when the parent is gone, also after a kill -9."""
    if not env.get(FROM_PARENT):
        return

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 1024):
                pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()


@dataclass(frozen=True, slots=True)
class Role:
    """A process to keep alive: its name for people, the arguments of ``rentstream``, and its environment."""

    name: str
    arguments: Sequence[str]
    env: Mapping[str, str]


class Children:
    """Keeps the roles of `rentstream up` alive until it is told to stop them, in the reverse order of their start."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._running: list[tuple[Role, subprocess.Popen[bytes]]] = []
        self._watching: list[asyncio.Task[None]] = []
        self._stopping = False
        self.failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Set to one sentence when a role ends again and again as soon as it starts."""

    def start(self, role: Role) -> None:
        """Start a role and keep it alive."""
        self._watching.append(asyncio.create_task(self._keep(role)))

    def spawn(self, role: Role) -> subprocess.Popen[bytes]:
        """Start the process of a role once."""
        return subprocess.Popen(  # noqa: S603 -- our own program
            [sys.executable, "-m", "streams.cli", *role.arguments],
            env={**role.env, FROM_PARENT: "1"},
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    async def _keep(self, role: Role) -> None:
        loop = asyncio.get_running_loop()
        quick = 0
        while not self._stopping:
            began = loop.time()
            process = self.spawn(role)
            entry = (role, process)
            self._running.append(entry)
            code = await self._ended(process)
            self._running.remove(entry)
            if self._stopping:
                return
            quick = quick + 1 if loop.time() - began < QUICK else 0
            if code == 2 or quick >= 3:
                if not self.failed.done():
                    self.failed.set_result(f"{role.name} cannot start (it ended with {code}); its last words are above")
                return
            self._say(f"{role.name} ended with {code}; it is started again")
            await asyncio.sleep(min(5.0, 0.5 * 2**quick))

    async def _ended(self, process: subprocess.Popen[bytes]) -> int:
        while (code := process.poll()) is None:  # noqa: ASYNC110 -- a child has no awaitable end on every platform
            await asyncio.sleep(0.1)
        return code

    async def stop(self, within: float = 30.0) -> None:
        """Ask every child to finish what it does, last one first; kill what has not ended ``within`` seconds."""
        self._stopping = True
        for _, process in reversed(self._running):
            process.send_signal(signal.SIGTERM)
        deadline = asyncio.get_running_loop().time() + within
        for role, process in reversed(self._running):
            left = max(0.1, deadline - asyncio.get_running_loop().time())
            try:
                await asyncio.wait_for(self._ended(process), left)
            except TimeoutError:
                self._say(f"{role.name} did not end within {within:.0f} s and is killed")
                process.kill()
        await asyncio.gather(*self._watching, return_exceptions=True)
