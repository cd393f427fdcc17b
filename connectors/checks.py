"""The runner of connection tests: named checks with dependencies, run concurrently within one deadline.

A check returns a finding and does not have to handle every error: an exception and a missed deadline become failed
results, so that a test always ends with one result for each check. Every text passes through `_text`, which masks the
secrets of the tested connection.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel, SecretStr

from connectors.ports import Clock
from schemas.integrations import CheckResult, CheckStatus

_LOG: Final = logging.getLogger(__name__)

DEADLINE_SECONDS: Final = 9.5
"""When checks that still run are cancelled; together with `GRACE_SECONDS` a test takes at most ten seconds."""

GRACE_SECONDS: Final = 0.5
"""How long cancelled checks may take to close their connections."""

MASK: Final = "…"
SLOW_FIX: Final = "Run the test again; if it stays slow, check the network, the proxy and the system's status page."
BUG_FIX: Final = "Run the test again; if it fails in the same way, report it with the version of RentStream."


@dataclass(frozen=True, slots=True)
class Pass:
    """The check passed. ``detail`` is a sentence without its full stop."""

    detail: str


@dataclass(frozen=True, slots=True)
class Fail:
    """The check failed. ``detail`` as in `Pass`; ``fix`` is one or more whole sentences."""

    detail: str
    fix: str


Finding = Pass | Fail


@dataclass(frozen=True, slots=True)
class Check:
    """One check. It starts once every check in ``after`` has passed, and is skipped if one of them did not."""

    name: str
    run: Callable[[], Awaitable[Finding]]
    after: tuple[str, ...] = ()
    """Names of checks that are declared before this one."""


def secrets_of(settings: BaseModel) -> tuple[SecretStr, ...]:
    """Return every secret that the settings hold."""
    found: list[SecretStr] = []
    for _, value in settings:
        candidates = value if isinstance(value, tuple) else (value,)
        found += [one for one in candidates if isinstance(one, SecretStr)]
    return tuple(found)


def mask(text: str, secrets: Sequence[SecretStr]) -> str:
    """Return the text without the secrets."""
    values = {one.get_secret_value() for one in secrets} - {""}
    for value in sorted(values, key=len, reverse=True):  # a secret may contain another one
        text = text.replace(value, MASK)
    return text


async def run_checks(
    checks: Sequence[Check],
    clock: Clock,
    *,
    optional: Mapping[str, str] | None = None,
    hide: Sequence[SecretStr] = (),
    seconds: float = DEADLINE_SECONDS,
) -> tuple[CheckResult, ...]:
    """Run the checks and return a result for each one, in their order.

    ``optional`` maps each check that is not required to the reason, which a failed result repeats. The secrets in
    ``hide`` are masked in every text.
    """
    return await _Run(clock, optional or {}, tuple(hide), seconds).results(checks)


@dataclass(slots=True)
class _Run:
    """One run of a set of checks."""

    clock: Clock
    optional: Mapping[str, str]
    hide: tuple[SecretStr, ...]
    seconds: float
    started: dict[str, float] = field(default_factory=dict)
    """When each check started, by its name."""

    async def results(self, checks: Sequence[Check]) -> tuple[CheckResult, ...]:
        tasks: dict[str, asyncio.Task[CheckResult]] = {}
        for check in checks:
            before = [tasks[name] for name in check.after]
            tasks[check.name] = asyncio.create_task(self._one(check, before), name=f"check-{check.name}")
        deadline = asyncio.create_task(self.clock.sleep(self.seconds), name="check-deadline")
        try:
            await _until(deadline, tasks.values())
            finished = {name: task.result() for name, task in tasks.items() if task.done()}
        finally:
            await _cancel([deadline, *tasks.values()])
        return tuple(finished.get(check.name) or self._late(check, finished) for check in checks)

    async def _one(self, check: Check, before: Sequence[asyncio.Task[CheckResult]]) -> CheckResult:
        if before:
            await asyncio.wait(before)
        blocking = next((task.result() for task in before if task.result().status is not CheckStatus.PASSED), None)
        if blocking is not None:
            how = "failed" if blocking.status is CheckStatus.FAILED else "was skipped"
            return self._skipped(check.name, f"not tested, because the check {blocking.name} {how}")
        self.started[check.name] = self.clock.monotonic()
        try:
            finding = await check.run()
        except Exception as error:
            # Neither the message nor the traceback is logged: both may quote a header.
            _LOG.error("the check %s raised %s", check.name, type(error).__name__)
            finding = Fail(f"the check ended with an unexpected {type(error).__name__}", BUG_FIX)
        return self._result(check.name, finding)

    def _late(self, check: Check, finished: Mapping[str, CheckResult]) -> CheckResult:
        if check.name in self.started:
            return self._result(check.name, Fail(f"it did not finish within {self.seconds:g} s", SLOW_FIX))
        blocking = next(name for name in check.after if name not in finished)
        return self._skipped(check.name, f"not tested, because the check {blocking} did not finish in time")

    def _result(self, name: str, finding: Finding) -> CheckResult:
        reason = self.optional.get(name)
        failed = isinstance(finding, Fail)
        detail = finding.detail.rstrip(".") + (f" (not required: {reason})" if failed and reason else "")
        return CheckResult(
            name=name,
            status=CheckStatus.FAILED if failed else CheckStatus.PASSED,
            milliseconds=round((self.clock.monotonic() - self.started[name]) * 1000),
            detail=self._text(detail),
            fix=mask(finding.fix, self.hide) if isinstance(finding, Fail) else None,
            required=reason is None,
        )

    def _skipped(self, name: str, detail: str) -> CheckResult:
        return CheckResult(
            name=name,
            status=CheckStatus.SKIPPED,
            milliseconds=0,
            detail=self._text(detail),
            required=name not in self.optional,
        )

    def _text(self, detail: str) -> str:
        """Return a detail as one printable sentence without secrets."""
        masked = mask(detail, self.hide)
        printable = "".join(letter if letter.isprintable() else " " for letter in masked)
        return f"{printable[:1].upper()}{printable[1:]}."


async def _until(deadline: asyncio.Task[None], tasks: Iterable[asyncio.Task[CheckResult]]) -> None:
    """Wait until all tasks are done, at most until the deadline."""
    pending: set[asyncio.Task[CheckResult]] = set(tasks)
    while pending and not deadline.done():
        await asyncio.wait({deadline, *pending}, return_when=asyncio.FIRST_COMPLETED)
        pending = {task for task in pending if not task.done()}


async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel the tasks that still run, and wait at most `GRACE_SECONDS` for their end."""
    running = [task for task in tasks if not task.done()]
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running, timeout=GRACE_SECONDS)
