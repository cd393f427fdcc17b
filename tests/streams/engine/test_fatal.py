import logging
import time

import pytest

from streams.engine.fatal import Exit, Fatal
from streams.engine.fence import Fence


def test_the_reason_is_said_before_the_process_ends(caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[int, str]] = []
    left: list[int] = []
    fatal = Fatal(lambda code, reason: told.append((code, reason)), left.append)

    with caplog.at_level(logging.CRITICAL), pytest.raises(SystemExit):
        fatal(Exit.FROZEN, "it stood still")

    assert told == [(75, "it stood still")]
    assert left == [75]
    assert fatal.reason == "it stood still"
    assert "it stood still" in caplog.text


def test_a_hook_that_fails_keeps_nobody_alive() -> None:
    left: list[int] = []

    def broken(_code: int, _reason: str) -> None:
        raise RuntimeError

    with pytest.raises(SystemExit):
        Fatal(broken, left.append)(Exit.STUCK, "stuck")
    assert left == [73]


def test_a_process_that_stood_still_may_not_write(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []
    lease = Fence(3.0, Fatal(leave=left.append))
    lease.check()
    monkeypatch.setattr("streams.engine.fence.clock", lambda: time.monotonic() + 10_000_000)

    with pytest.raises(SystemExit):
        lease.check()
    assert left == [75]


def test_a_lease_ticks_while_the_process_runs() -> None:
    ticks: list[None] = []
    lease = Fence(3.0, Fatal(leave=lambda _code: None), lambda: ticks.append(None))
    lease.start()
    time.sleep(0.7)
    lease.check()
    lease.stop()

    assert ticks
