# ruff: noqa: INP001 -- a script, not part of a package
"""Run a command as the foreground job of the terminal: ``foreground.py COMMAND ARGUMENT...``.

Ctrl-C sends SIGINT to every process of the foreground job. make would then print an error, even if the command ends
normally. So the command gets its own process group, receives Ctrl-C alone, and make sees its exit code. Without a
terminal, or in the background, the command replaces this process.
"""

import contextlib
import os
import signal
import subprocess
import sys


def main(command: list[str]) -> int:
    """Move the terminal to the command, and back when the command ends or is suspended; return its exit code."""
    terminal, own_group = _terminal(), os.getpgrp()
    if terminal is None:
        os.execvp(command[0], command)  # noqa: S606 -- the caller's command
    child = subprocess.Popen(command, process_group=0)  # noqa: S603 -- the caller's command
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # otherwise taking the terminal back suspends this process
    for forwarded in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(forwarded, lambda number, _frame: _send(child.pid, number))
    os.tcsetpgrp(terminal, child.pid)
    try:
        while True:
            _, status = os.waitpid(child.pid, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
            os.tcsetpgrp(terminal, own_group)
            os.killpg(own_group, signal.SIGSTOP)  # Ctrl-Z suspends make too; `fg` continues here
            os.tcsetpgrp(terminal, child.pid)
            _send(child.pid, signal.SIGCONT)
    finally:
        os.tcsetpgrp(terminal, own_group)


def _terminal() -> int | None:
    """Return a file descriptor of the terminal if this process is in its foreground, else None."""
    with contextlib.suppress(OSError):
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
        if os.tcgetpgrp(terminal) == os.getpgrp():
            return terminal
    return None


def _send(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
