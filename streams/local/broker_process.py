"""The watcher between RentStream and its embedded Kafka: the broker never outlives the program, however that ends.

It runs as a plain script in a process of its own (``streams/local/embedded_kafka.py`` starts it), holds the reading end of a pipe to
the program and the broker as its child. A byte on the pipe is an order; the end of the pipe, or another parent, means
that the program is gone, kill -9 included. Standard library only: it must start in milliseconds and never fail.
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
"""The order to end the broker at once, as a power cut would; the end of the pipe ends it in good order."""

_LOOK_EVERY = 0.25
_PATIENCE = 20.0
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> Callable[[], None]:
    """What the broker does before it runs: ask Linux to be killed when the watcher dies (elsewhere nothing)."""
    if not sys.platform.startswith("linux"):
        return lambda: None
    prctl: Any = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end(broker: "subprocess.Popen[bytes]", *, batch_size: bool) -> None:
    if not batch_size:
        broker.terminate()
        try:
            broker.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            pass
        else:
            return
    broker.kill()
    broker.wait()


def main(parent: int, lock: int, command: list[str]) -> int:
    """Run ``command`` while ``parent`` lives; all hold ``lock``, so that a free lock means: all gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asked = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    broker = subprocess.Popen(  # noqa: S603 - the command comes from streams/local/embedded_kafka.py
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        env={"LC_ALL": "C.UTF-8"},  # nothing of the user's own Java settings
        pass_fds=(lock,),
        preexec_fn=_die_with_parent(),  # noqa: PLW1509 - no threads here
    )
    sys.stdout.write(f"{broker.pid}\n")
    sys.stdout.flush()
    while broker.poll() is None:
        ready, _, _ = select.select([0], [], [], _LOOK_EVERY)
        if ready or asked or os.getppid() != parent:
            _end(broker, batch_size=bool(ready) and os.read(0, 1) == KILL)
    return broker.returncode


if __name__ == "__main__":
    sys.exit(abs(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])))
