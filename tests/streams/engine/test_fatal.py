import logging
import threading

import pytest

from streams.engine.fatal import Exit, Fatal
from streams.engine.fence import Fence


def test_the_reason_is_logged_before_the_process_ends(caplog: pytest.LogCaptureFixture) -> None:
    reported: list[tuple[int, str]] = []
    left: list[int] = []
    fatal = Fatal(lambda code, reason: reported.append((code, reason)), left.append)

    with caplog.at_level(logging.CRITICAL), pytest.raises(SystemExit):
        fatal(Exit.FROZEN, "it stood still")

    assert reported == [(75, "it stood still")]
    assert left == [75]
    assert fatal.reason == "it stood still"
    assert "it stood still" in caplog.text


def test_a_hook_that_fails_does_not_keep_the_process_alive() -> None:
    left: list[int] = []

    def broken(_code: int, _reason: str) -> None:
        raise RuntimeError

    with pytest.raises(SystemExit):
        Fatal(broken, left.append)(Exit.STUCK, "stuck")
    assert left == [73]


def test_a_process_that_stood_still_may_not_write() -> None:
    left: list[int] = []
    now = [100.0]
    fence = Fence(3.0, Fatal(leave=left.append), clock=lambda: now[0])
    now[0] = 103.0
    fence.check()
    now[0] = 103.1

    with pytest.raises(SystemExit):
        fence.check()
    assert left == [75]


def test_a_fence_reads_the_clock_while_the_process_runs() -> None:
    ticked = threading.Event()
    fence = Fence(3.0, Fatal(leave=lambda _code: None), ticked.set)
    fence.start()

    assert ticked.wait(5)
    fence.check()
    fence.stop()
