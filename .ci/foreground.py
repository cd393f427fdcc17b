# ruff: noqa: INP001 -- a script, not part of a package
"""Runs a command as the job in the foreground of the terminal: ``foreground.py COMMAND ARGUMENT...``.

Ctrl-C reaches every process of the foreground job. Make would answer it with an error of its own, however well the
command ends; so the command becomes a job of its own, hears Ctrl-C alone, and make sees how it ended. Without a
terminal (or in the background of one) there is nothing to arrange, and the command takes this process's place.
"""

import contextlib
import os
import signal
import subprocess
import sys


def main(command: list[str]) -> int:
    """Give the terminal to the command, and take it back when the command ends or is suspended."""
    terminal, ours = _terminal(), os.getpgrp()
    if terminal is None:
        os.execvp(command[0], command)  # noqa: S606 -- the caller's command
    child = subprocess.Popen(command, process_group=0)  # noqa: S603 -- the same
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # or taking the terminal back would suspend us
    for told in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(told, lambda number, _frame: _tell(child.pid, number))
    os.tcsetpgrp(terminal, child.pid)
    try:
        while True:
            _, status = os.waitpid(child.pid, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
            os.tcsetpgrp(terminal, ours)
            os.killpg(ours, signal.SIGSTOP)  # Ctrl-Z suspends make too; here we go on after `fg`
            os.tcsetpgrp(terminal, child.pid)
            _tell(child.pid, signal.SIGCONT)
    finally:
        os.tcsetpgrp(terminal, ours)


def _terminal() -> int | None:
    """Open the terminal that we are in the foreground of, if there is one."""
    with contextlib.suppress(OSError):
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
        if os.tcgetpgrp(terminal) == os.getpgrp():
            return terminal
    return None


def _tell(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
