import logging

import pytest

from streams.engine.fatal import Exit, Fatal


def test_the_reason_is_logged_before_the_process_ends(caplog: pytest.LogCaptureFixture) -> None:
    reported: list[tuple[int, str]] = []
    left: list[int] = []
    fatal = Fatal(lambda code, reason: reported.append((code, reason)), left.append)

    with caplog.at_level(logging.CRITICAL), pytest.raises(SystemExit):
        fatal(Exit.STUCK, "no progress")

    assert reported == [(73, "no progress")]
    assert left == [73]
    assert fatal.reason == "no progress"
    assert "no progress" in caplog.text


def test_a_hook_that_fails_does_not_keep_the_process_alive() -> None:
    left: list[int] = []

    def broken(_code: int, _reason: str) -> None:
        raise RuntimeError

    with pytest.raises(SystemExit):
        Fatal(broken, left.append)(Exit.STUCK, "stuck")
    assert left == [73]
