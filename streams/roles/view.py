"""``rentstream view``: the process that fills the query view, and a rebuild of the view with its progress."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from connectors.clock import SystemClock
from streams import topology
from streams.backends.ports import BackendError
from streams.roles.integrations import kafka_backend, known
from streams.roles.manage import READ_WITHIN, ManageFailed
from streams.runners.global_ import until_one_ends, within
from streams.settings import KafkaSettings, RentStreamSettings
from streams.view.database import Database, ViewUnavailable, url_of
from streams.view.projection import projections
from streams.view.projector import Projector
from streams.view.queries import Queries

LOOK: float = 1.0
"""Seconds between two lines of progress."""

NICE = 10
"""How much later than other processes the process that fills the view gets a processor."""

REST = 3.0
"""Seconds of rest after each second of writing: priorities do not count between sessions on every system."""

Echo = Callable[[str], None]


@contextmanager
def opened(settings: RentStreamSettings) -> Iterator[Queries]:
    """Open the query view for reads; SQLite alone would create a file. Raise `ManageFailed` and `SettingsError`."""
    url = url_of(settings)
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists():
        raise ManageFailed(
            f"there is no query view in {url.database}: run this where the web role runs, which fills the view, "
            "or set DATABASE_URL to its database"
        )
    database = Database(url)
    try:
        yield Queries(database)
    finally:
        database.close()


async def rebuild(env: Mapping[str, str], settings: RentStreamSettings, kafka: KafkaSettings, echo: Echo) -> None:
    """Build the view again, and return when everything is in it that was on the topics at the start.

    A web role that runs meanwhile takes part. Raise `ManageFailed` and `connectors.settings.SettingsError`.
    """
    clock = SystemClock()
    database = Database(url_of(settings))
    integrations = known(env, settings, kafka_backend(settings, kafka, "view-integrations"), clock)
    backend = kafka_backend(settings, kafka, "view")
    projector = Projector(database, backend, projections(topology.APP), integrations.directory, clock)
    tasks = [asyncio.create_task(integrations.follower.run())]
    try:
        await within(clock, integrations.follower.caught_up(), READ_WITHIN)
        echo(f"the view in {database.shown} is dropped, and built from the topics")
        await asyncio.to_thread(database.drop)
        tasks.append(asyncio.create_task(projector.run()))
        await _watch(projector, clock, echo)
    except (TimeoutError, BackendError) as error:
        reason = str(error) or integrations.follower.problem or f"not read within {READ_WITHIN:g} s"
        raise ManageFailed(f"the cluster cannot be read ({reason}): check KAFKA_BOOTSTRAP_SERVERS") from None
    except ViewUnavailable as error:
        raise ManageFailed(f"{error}: check DATABASE_URL") from None
    finally:
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        database.close()


async def fill(env: Mapping[str, str], settings: RentStreamSettings, kafka: KafkaSettings) -> None:
    """Keep the view up to date until SIGTERM or SIGINT. Raise `connectors.settings.SettingsError`."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    clock = SystemClock()
    database = Database(url_of(settings))
    integrations = known(env, settings, kafka_backend(settings, kafka, "view-integrations"), clock)
    backend = kafka_backend(settings, kafka, "view")
    projector = Projector(database, backend, projections(topology.APP), integrations.directory, clock, rest=REST)

    async def project() -> None:
        # Settings of integrations decide what a unit is.
        await integrations.follower.caught_up()
        await projector.run()

    async def stop() -> None:
        await stopping.wait()

    try:
        await until_one_ends(integrations.follower.run(), project(), stop())
    finally:
        database.close()


def run_fill(env: Mapping[str, str], settings: RentStreamSettings, kafka: KafkaSettings) -> None:
    """Keep the view up to date, after everything else that runs on this machine; see `fill`."""
    os.nice(NICE)
    asyncio.run(fill(env, settings, kafka))


async def _watch(projector: Projector, clock: SystemClock, echo: Echo) -> None:
    """Print the progress until the view is complete. Raise `ManageFailed` if it does not go on."""
    started = moved_at = clock.monotonic()
    records = 0
    while projector.as_of is None:
        await clock.sleep(LOOK if projector.records else LOOK / 10)
        now = clock.monotonic()
        if projector.records != records:
            moved_at, records = now, projector.records
            of = "" if projector.expected is None else f" of {max(records, projector.expected):,}"
            if projector.as_of is None:
                echo(f"{records:,}{of} records")
        elif now - moved_at > READ_WITHIN:
            raise ManageFailed(f"the view cannot be built: {projector.problem or 'no record arrives'}")
    echo(f"the view is complete: {projector.records:,} records in {clock.monotonic() - started:.1f} s")


def run_rebuild(env: Mapping[str, str], settings: RentStreamSettings, kafka: KafkaSettings, echo: Echo) -> None:
    """Build the view again; see `rebuild`."""
    asyncio.run(rebuild(env, settings, kafka, echo))
