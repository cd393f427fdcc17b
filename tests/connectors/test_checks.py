"""Tests of the runner of checks: order, deadline, and one result without secrets for each check."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest
from pydantic import BaseModel, SecretStr

from connectors.checks import DEADLINE_SECONDS, GRACE_SECONDS, Check, Fail, Finding, Pass, run_checks, secrets_of
from connectors.clock import SystemClock
from connectors.ports import Checked
from schemas.integrations import CheckResult, CheckStatus
from tests.connectors.test_budget import MovableClock, settle

PASSED, FAILED, SKIPPED = CheckStatus.PASSED, CheckStatus.FAILED, CheckStatus.SKIPPED


def giving(finding: Finding) -> Callable[[], Awaitable[Finding]]:
    async def run() -> Finding:
        return finding

    return run


GOOD = giving(Pass("all is well"))
BAD = giving(Fail("no route", "Check the cable."))


async def never() -> Finding:
    await asyncio.Event().wait()
    raise AssertionError


def statuses(results: tuple[CheckResult, ...]) -> list[CheckStatus]:
    return [result.status for result in results]


async def test_results_have_the_order_of_the_checks() -> None:
    """Each result has a sentence of detail, and a failed one also a fix."""
    results = await run_checks([Check("a", GOOD), Check("b", BAD), Check("c", GOOD, ("a",))], SystemClock())

    assert [result.name for result in results] == ["a", "b", "c"]
    assert statuses(results) == [PASSED, FAILED, PASSED]
    assert [result.detail for result in results] == ["All is well.", "No route.", "All is well."]
    assert [result.fix for result in results] == [None, "Check the cable.", None]


async def test_checks_that_depend_on_a_failed_one_are_skipped() -> None:
    """Checks that depend on a skipped one are skipped as well; none of them runs."""
    checks = [Check("a", BAD), Check("b", never, ("a",)), Check("c", never, ("b",)), Check("d", GOOD)]
    results = await run_checks(checks, SystemClock())

    assert statuses(results) == [FAILED, SKIPPED, SKIPPED, PASSED]
    assert results[1].detail == "Not tested, because the check a failed."
    assert results[2].detail == "Not tested, because the check b was skipped."


async def test_independent_checks_run_concurrently() -> None:
    """Each of the two checks ends only after the other one has started."""
    one, two = asyncio.Event(), asyncio.Event()

    async def first() -> Finding:
        one.set()
        await two.wait()
        return Pass("met")

    async def second() -> Finding:
        two.set()
        await one.wait()
        return Pass("met")

    assert statuses(await run_checks([Check("a", first), Check("b", second)], SystemClock())) == [PASSED, PASSED]


async def test_a_check_that_misses_the_deadline_fails() -> None:
    """Finished checks keep their results; checks that depend on the late one are skipped."""
    clock = MovableClock()
    checks = [Check("a", GOOD), Check("b", never, ("a",)), Check("c", never, ("b",))]
    running = asyncio.create_task(run_checks(checks, clock))
    await clock.advance(DEADLINE_SECONDS - 0.1)
    assert not running.done()
    await clock.advance(0.1)
    results = await running

    assert DEADLINE_SECONDS + GRACE_SECONDS <= 10
    assert statuses(results) == [PASSED, FAILED, SKIPPED]
    assert results[1].detail == "It did not finish within 9.5 s."
    assert results[1].fix
    assert results[1].milliseconds == 9500
    assert results[2].detail == "Not tested, because the check b did not finish in time."


async def test_a_check_that_ignores_its_cancellation_does_not_delay_the_result() -> None:
    """The runner stops waiting for it after `GRACE_SECONDS`."""
    clock, released = MovableClock(), asyncio.Event()

    async def stubborn() -> Finding:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue
        return Pass("late")

    running = asyncio.create_task(run_checks([Check("a", stubborn)], clock, seconds=1))
    await clock.advance(1)
    results = await asyncio.wait_for(running, 5)
    released.set()
    await settle()

    assert statuses(results) == [FAILED]


async def test_an_exception_is_a_failed_check_without_its_message(caplog: pytest.LogCaptureFixture) -> None:
    """A message may quote a header, so it is neither in the result nor in the log."""

    async def broken() -> Finding:
        raise ValueError("header x-key: hunter2")

    with caplog.at_level(logging.DEBUG):
        results = await run_checks([Check("a", broken)], SystemClock())

    assert statuses(results) == [FAILED]
    assert results[0].detail == "The check ended with an unexpected ValueError."
    assert "hunter2" not in repr(results) + caplog.text
    assert "ValueError" in caplog.text


async def test_secrets_are_masked_in_every_text() -> None:
    """A secret that contains another one is masked completely."""
    leaking = giving(Fail("key hunter2hunter3 \n of hunter2", "Do not use hunter2."))
    hide = [SecretStr("hunter2"), SecretStr("hunter2hunter3"), SecretStr("")]
    (result,) = await run_checks([Check("a", leaking)], SystemClock(), hide=hide)

    assert result.detail == "Key …   of …."
    assert result.fix == "Do not use …."


async def test_a_failed_optional_check_is_a_warning() -> None:
    """Its detail has the reason, and the test passes; with a skipped required check the test does not pass."""
    optional = {"b": "the rest works"}
    warned = await run_checks([Check("a", GOOD), Check("b", BAD)], SystemClock(), optional=optional)
    skipped = await run_checks([Check("b", BAD), Check("c", GOOD, ("b",))], SystemClock(), optional=optional)
    failed = await run_checks([Check("a", BAD)], SystemClock(), optional=optional)

    assert warned[1].detail == "No route (not required: the rest works)."
    assert [result.required for result in warned] == [True, False]
    assert Checked(warned).passed
    assert not Checked(skipped).passed
    assert not Checked(failed).passed


async def test_cancellation_cancels_the_checks() -> None:
    """A cancelled test leaves no task behind."""
    running = asyncio.create_task(run_checks([Check("a", never), Check("b", never, ("a",))], MovableClock()))
    await settle()
    running.cancel()
    await asyncio.wait({running})

    assert running.cancelled()
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("check-")]


def test_secrets_of_settings_are_found_in_fields_and_tuples() -> None:

    class Some(BaseModel):
        name: str = "n"
        one: SecretStr = SecretStr("1")
        none: SecretStr | None = None
        several: tuple[SecretStr, ...] = (SecretStr("2"), SecretStr("3"))

    assert [secret.get_secret_value() for secret in secrets_of(Some())] == ["1", "2", "3"]
