"""Watcher process of the embedded Kafka: stops the broker when RentStream ends, even after ``kill -9``.

``streams/local/embedded_kafka.py`` starts it as a plain script. The watcher starts the broker as its child and reads
commands from a pipe to the program. End of file on the pipe, or a changed parent process, means that the program has
ended. Uses the standard library only, so that it starts in milliseconds and has no import that could fail.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

KILL = b"k"
"""Command byte: kill the broker immediately (SIGKILL). End of file on the pipe stops it gracefully instead."""

_POLL_SECONDS = 0.25
_SHUTDOWN_SECONDS = 20.0
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> Callable[[], None]:
    """Return the hook that runs in the broker before exec: on Linux it requests SIGKILL when the watcher dies."""
    if not sys.platform.startswith("linux"):
        return lambda: None
    prctl: Any = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _stop(broker: "subprocess.Popen[bytes]", *, graceful: bool) -> None:
    """Stop the broker: SIGTERM first if ``graceful``, SIGKILL if it is still running after the shutdown timeout."""
    if graceful:
        broker.terminate()
        try:
            broker.wait(_SHUTDOWN_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        else:
            return
    broker.kill()
    broker.wait()


def main(parent: int, lock: int, command: list[str]) -> int:
    """Run ``command`` until process ``parent`` ends, and return its exit code.

    The broker inherits the file descriptor ``lock``, so that the lock is free only after every process has ended.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    terminated = []
    signal.signal(signal.SIGTERM, lambda *_: terminated.append(True))
    broker = subprocess.Popen(  # noqa: S603 - the command comes from streams/local/embedded_kafka.py
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        env={"LC_ALL": "C.UTF-8"},  # keep the user's Java settings out
        pass_fds=(lock,),
        preexec_fn=_die_with_parent(),  # noqa: PLW1509 - this process has no threads
    )
    sys.stdout.write(f"{broker.pid}\n")
    sys.stdout.flush()
    while broker.poll() is None:
        ready, _, _ = select.select([0], [], [], _POLL_SECONDS)
        if ready or terminated or os.getppid() != parent:
            killed = bool(ready) and os.read(0, 1) == KILL
            _stop(broker, graceful=not killed)
    return broker.returncode


if __name__ == "__main__":
    sys.exit(abs(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])))
