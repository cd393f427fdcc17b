"""``rentstream replay``: plans a replay, has it carried out, and reports what became of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol, TypeVar

from connectors.clock import SystemClock
from connectors.ports import Clock
from schemas.replay import ReplayWish
from streams.backends.ports import BackendError
from streams.core.replays import ReplayState
from streams.directory.model import IntegrationError, Invalid
from streams.directory.writer import LogWriter
from streams.replays.book import TOPICS, Replay, ReplayBook
from streams.replays.planner import Planner, ReplayRequest
from streams.replays.service import Replays
from streams.roles.integrations import kafka_backend
from streams.roles.manage import READ_WITHIN, ManageFailed, ManageRefused, author
from streams.roles.view import opened
from streams.runners.global_ import Follow, within
from streams.settings import KafkaSettings, RentStreamSettings
from streams.view.queries import Queries
from streams.web.api.replay_models import Replay as Shown

T = TypeVar("T")

LOOK: Final = 0.5
"""Seconds between two looks at the progress."""

SHOWN: Final = 10
"""Entities of a plan that are shown as text."""

SILENT: Final = 120.0
"""Seconds without progress after which the command ends with an error: there may be no worker."""


class Bar(Protocol):
    """Shows progress (`click.progressbar`)."""

    def update(self, n_steps: int) -> None: ...


@asynccontextmanager
async def service(
    settings: RentStreamSettings, kafka: KafkaSettings, queries: Queries, clock: Clock
) -> AsyncIterator[Replays]:
    """Yield the service after all replays are read. Raise `ManageFailed`."""
    backend = kafka_backend(settings, kafka, "replay")
    book, producer = ReplayBook(), backend.producer()
    follower = Follow(backend, TOPICS, book, clock)
    following = asyncio.create_task(follower.run())
    try:
        try:
            await within(clock, producer.start(), READ_WITHIN)
            await within(clock, follower.caught_up(), READ_WITHIN)
        except (TimeoutError, BackendError) as error:
            reason = str(error) or follower.problem or f"not read within {READ_WITHIN:g} s"
            raise ManageFailed(
                f"the replays cannot be read ({reason}): check KAFKA_BOOTSTRAP_SERVERS, and create missing topics with "
                "`rentstream topics --apply`"
            ) from None
        planner = Planner(queries, backend, settings.partitions, clock)
        yield Replays(book, follower, LogWriter(producer, settings.partitions), planner, clock)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await producer.stop()


def run(settings: RentStreamSettings, kafka: KafkaSettings, action: Callable[[Replays, Queries], Awaitable[T]]) -> T:
    """Run one action and return its result.

    Raise `ManageFailed`, `ManageRefused`, and `connectors.settings.SettingsError`.
    """

    async def run_action(queries: Queries) -> T:
        async with service(settings, kafka, queries, SystemClock()) as replays:
            return await action(replays, queries)

    try:
        with opened(settings) as queries:
            return asyncio.run(run_action(queries))
    except Invalid as error:
        raise ManageRefused("\n  ".join(f"--{one.pointer[1:]} {one.detail}" for one in error.errors)) from None
    except IntegrationError as error:
        raise ManageFailed(str(error)) from None


async def planned(replays: Replays, request: ReplayRequest, *, store: bool) -> Replay:
    """Return the plan of a replay; not stored, it is only shown. Raise `IntegrationError`."""
    return await replays.plan(request, author(), store=store)


async def ordered(replays: Replays, org: str, replay: str, wish: ReplayWish) -> Replay:
    """Order something about a replay. Raise `IntegrationError`."""
    return await replays.order(org, replay, wish, author())


async def followed(replays: Replays, one: Replay, bar: Bar, clock: Clock) -> Replay:
    """Show the progress of a replay until it ends, is paused or cancelled. Raise `ManageFailed`."""
    shown, moved_at = one.position, clock.monotonic()
    bar.update(shown)
    while one.state is ReplayState.RUNNING:
        await clock.sleep(LOOK)
        one = await replays.get(one.plan.org, one.plan.id)
        if one.position > shown:
            bar.update(one.position - shown)
            shown, moved_at = one.position, clock.monotonic()
        elif clock.monotonic() - moved_at > SILENT:
            raise ManageFailed(
                f"replay {one.plan.id} made no progress for {SILENT:g} s: look whether a worker is running; "
                "it goes on by itself then"
            )
    return one


# ------------------------------------------------------------------------------------------------------------- output


def as_json(one: Replay, given_up_again: int | None) -> dict[str, Any]:
    """Return a replay for programs; it has the form of the API."""
    shown: dict[str, Any] = Shown.of(one, given_up_again).model_dump(mode="json", by_alias=True)
    return shown


def plan_lines(one: Replay) -> list[str]:
    """Return a plan for people."""
    plan = one.plan
    if not plan.matched:
        return ["nothing matches, so nothing is replayed"]
    lines = [f"{plan.source} of {plan.org}: {_counted(plan.matched)} found"]
    lines += list(_numbers({
        "to be replayed": plan.replayed,
        "superseded: made up for since, or by a later one": plan.superseded,
        "replayed three times before: name one with --id to do it once more": plan.exhausted,
        "nothing would process them again, or a schedule does": plan.unsuitable,
    }))  # fmt: skip
    if plan.replayed:
        lines.append(f"about {_duration(plan.replayed / plan.rate)} at {plan.rate} a second, behind live changes")
        lines += [
            f"    {key.records:7,}  {key.entity or 'several entities'}  {key.integration or ''}".rstrip()
            for key in plan.keys[:SHOWN]
        ]
        if plan.key_count > SHOWN:
            lines.append(f"    … and {plan.key_count - SHOWN:,} more entities (--json names 100)")
    if plan.compared:
        lines.append(f"what receivers will learn of {plan.compared:,} deliveries, as of now:")
        lines += [
            f"    {one.receiver} unit {one.unit_id}: {one.field} {_shown(one.known)} -> {_shown(one.now)}"
            for one in plan.differences[:SHOWN]
        ] or ["    nothing: they know it all"]
        if len(plan.differences) > SHOWN:
            lines.append(f"    … and {len(plan.differences) - SHOWN:,} more differences (--json has 200)")
    return lines


def report_lines(one: Replay, given_up_again: int | None) -> list[str]:
    """Return the report of a replay for people; its numbers add up to those of the plan."""
    plan, progress = one.plan, one.progress
    counts = {name: getattr(progress, name, 0) for name in ("replayed", "gone", "unreadable", "refused")}
    lines = [f"{plan.id}: {one.state}, {one.position:,} of {_counted(plan.replayed)} done"]
    lines += list(_numbers({
        "replayed": counts["replayed"],
        "no longer on their topic": counts["gone"],
        "cannot be read by this release either": counts["unreadable"],
        "of another org, or nothing processes them": counts["refused"],
        "not replayed yet": plan.replayed - one.position,
    }))  # fmt: skip
    if given_up_again:
        lines.append(f"of the replayed ones {given_up_again:,} were given up again: rentstream dead-letters list")
    return lines


def list_lines(found: list[Replay]) -> list[str]:
    """Return the replays of an org for people."""
    if not found:
        return ["nothing was ever replayed"]
    return [
        f"{one.plan.id}  {one.state:9}  {one.position:,} of {one.plan.replayed:,}  {one.plan.source}  "
        f"{' '.join(f'{part.name}={part.value}' for part in one.plan.filters)}  by {one.plan.by}"
        for one in found
    ]


def _shown(value: str | None) -> str:
    return "-" if value is None else value


def _numbers(counts: Mapping[str, int]) -> Iterator[str]:
    yield from (f"  {number:9,}  {text}" for text, number in counts.items() if number)


def _counted(number: int) -> str:
    return f"{number:,} record" if number == 1 else f"{number:,} records"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
