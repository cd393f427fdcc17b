"""``rentstream``: every command, its words and its exit codes (0 done, 1 failed, 2 wrong use)."""

import asyncio
import json
import logging
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import click
from pydantic import SecretStr

from connectors.clock import SystemClock
from connectors.settings import SettingsError, seconds
from streams import __version__
from streams.settings import KafkaSettings, RentStreamSettings, environment


class Failed(click.ClickException):
    """Something outside failed; the sentence says what and what to do."""

    exit_code = 1

    def show(self, file: Any = None) -> None:
        click.echo(f"rentstream: {self.format_message()}", file=file, err=True)


class WrongUse(Failed):
    """A setting or an argument is wrong."""

    exit_code = 2


def settled(read: Callable[[], Any]) -> Any:
    """Read settings, or end with one line for each that is wrong."""
    try:
        return read()
    except SettingsError as error:
        raise WrongUse("these settings cannot be used:\n  " + "\n  ".join(error.lines)) from None


def logs(verbose: bool) -> None:
    """Log to standard error, one line each; others' chatter only when it warns."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    for name in ("httpx", "httpcore", "faust", "mode"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # aiokafka calls an error what it mends by itself a moment later; what lasts is said by the shells and the engine.
    logging.getLogger("aiokafka").setLevel(logging.WARNING if verbose else logging.CRITICAL)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="rentstream")
@click.option("-v", "--verbose", is_flag=True, help="Log what happens, not only what is wrong.")
@click.pass_context
def cli(context: click.Context, verbose: bool) -> None:
    """Keep listing receivers equal to what a property management system says."""
    logs(verbose)
    context.obj = settled(environment)


def need_kafka(env: Mapping[str, str]) -> KafkaSettings:
    """Read the Kafka settings of a role that does not start one itself."""
    kafka: KafkaSettings = settled(lambda: KafkaSettings.read(env))
    if kafka.bootstrap_servers is None:
        raise WrongUse(
            "KAFKA_BOOTSTRAP_SERVERS is not set: name a cluster (host:port), "
            "or use `rentstream up`, which starts a Kafka of its own"
        )
    return kafka


@cli.command()
@click.option("--demo", is_flag=True, help="With stand-ins of Buildium and RentSync and a portfolio to look at.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="Stream workers to start.")
@click.option("--for", "lasts", type=float, default=None, hidden=True, help="Stop after so many seconds.")
@click.pass_obj
def up(env: Mapping[str, str], demo: bool, workers: int, lasts: float | None) -> None:
    """Start everything on this machine and keep it alive until Ctrl-C."""
    from streams.roles.up import UpFailed, run_up  # noqa: PLC0415 -- a role loads only what it runs

    settings = settled(lambda: RentStreamSettings.read(env))
    kafka = settled(lambda: KafkaSettings.read(env))
    try:
        run_up(env, settings, kafka, demo=demo, workers=workers, lasts=lasts)
    except SettingsError as error:
        raise WrongUse("these settings cannot be used:\n  " + "\n  ".join(error.lines)) from None
    except UpFailed as error:
        raise Failed(str(error)) from None


@cli.command()
@click.option("--only", type=click.Choice(["ingress"]), default=None, help="One part of the web role alone.")
@click.pass_obj
def http(env: Mapping[str, str], only: str | None) -> None:
    """Run the web role: webhooks come in, lag and metrics go out."""
    from streams.local.processes import end_with_parent  # noqa: PLC0415
    from streams.roles.web import WebFailed, run_web  # noqa: PLC0415

    del only  # the ingress is all that the web role has so far
    settings, kafka = settled(lambda: RentStreamSettings.read(env)), need_kafka(env)
    end_with_parent(env)
    try:
        run_web(env, settings, kafka)
    except SettingsError as error:
        raise WrongUse("these settings cannot be used:\n  " + "\n  ".join(error.lines)) from None
    except WebFailed as error:
        raise Failed(str(error)) from None


@cli.command()
@click.option("--name", default=None, help="Name of this worker, unique in its group; its state is kept under it.")
@click.pass_obj
def worker(env: Mapping[str, str], name: str | None) -> None:
    """Run one stream worker; start as many as there are partitions."""
    from streams.local.processes import end_with_parent  # noqa: PLC0415
    from streams.roles.worker import WorkerFailed, run_worker_role  # noqa: PLC0415

    settings, kafka = settled(lambda: RentStreamSettings.read(env)), need_kafka(env)
    end_with_parent(env)
    try:
        code = run_worker_role(env, settings, kafka, name)
    except SettingsError as error:
        raise WrongUse("these settings cannot be used:\n  " + "\n  ".join(error.lines)) from None
    except WorkerFailed as error:
        raise Failed(str(error)) from None
    sys.exit(code)


@cli.command()
@click.option("--apply", "make", is_flag=True, help="Make the topics that are missing.")
@click.option("--json", "as_json", is_flag=True, help="Print data.")
@click.pass_obj
def topics(env: Mapping[str, str], make: bool, as_json: bool) -> None:
    """Show the topics and their settings, or make them; refuse to go on with wrong ones."""
    from streams.roles.topics import TopicsFailed, see_topics  # noqa: PLC0415

    settings, kafka = settled(lambda: RentStreamSettings.read(env)), need_kafka(env)
    try:
        report = asyncio.run(see_topics(settings, kafka, make=make))
    except SettingsError as error:
        raise WrongUse("these settings cannot be used:\n  " + "\n  ".join(error.lines)) from None
    except TopicsFailed as error:
        raise Failed(str(error)) from None
    if as_json:
        click.echo(json.dumps(report.data, indent=2))
    else:
        click.echo("\n".join(report.lines))
    if report.problems:
        raise Failed("the topics are not as they have to be:\n  " + "\n  ".join(report.problems))


def jwt_secret(env: Mapping[str, str]) -> SecretStr:
    """Return the secret that signs tokens."""
    given = env.get("RENTSTREAM_JWT_SECRET", "")
    if not given.strip():
        raise WrongUse(
            "RENTSTREAM_JWT_SECRET is not set: it signs the token, and the web role verifies it with the same"
        )
    return SecretStr(given)


@cli.command()
@click.option("--org", default="default", show_default=True, help="The org that the token is for.")
@click.option("--scope", "scopes", multiple=True, metavar="SCOPE", help="What it may do; may be repeated. None: all.")
@click.option("--expires", default="1h", show_default=True, help="How long it is valid: a number with s, m, h or d.")
@click.option("--subject", default="rentstream-cli", show_default=True, help="Who uses it; named in the audit trail.")
@click.pass_obj
def token(env: Mapping[str, str], org: str, scopes: tuple[str, ...], expires: str, subject: str) -> None:
    """Print a bearer token (JWT) for local use, signed with RENTSTREAM_JWT_SECRET."""
    from streams.web.api.tokens import InvalidToken, issue  # noqa: PLC0415

    secret = jwt_secret(env)
    try:
        lasts = timedelta(seconds=seconds(expires))
    except (ValueError, OverflowError):
        raise WrongUse("--expires takes a number with a unit: s, m, h or d, such as 1h") from None
    try:
        text = settled(lambda: issue(secret, subject, org, scopes or None, lasts, SystemClock().now()))
    except InvalidToken as error:
        raise WrongUse(f"such a token would be refused: {error}") from None
    click.echo(text)


@cli.command("stand-ins")
@click.option("--buildium", "buildium_at", default="127.0.0.1:4010", show_default=True, help="host:port")
@click.option("--rentsync", "rentsync_at", default="127.0.0.1:4020", show_default=True, help="host:port")
@click.pass_obj
def stand_ins(env: Mapping[str, str], buildium_at: str, rentsync_at: str) -> None:
    """Serve the stand-ins of Buildium and RentSync, for a demonstration on several machines."""
    from streams.local.demo import serve_stand_ins  # noqa: PLC0415

    del env
    try:
        asyncio.run(serve_stand_ins(click.echo, buildium_at, rentsync_at))
    except OSError as error:
        raise Failed(f"the stand-ins cannot be served at {buildium_at} and {rentsync_at}: {error.strerror}") from None


def main() -> None:
    """Run; whatever goes wrong is said in words."""
    try:
        cli(standalone_mode=True)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
