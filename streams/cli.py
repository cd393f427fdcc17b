"""The command ``rentstream`` with its subcommands; exit codes: 0 done, 1 failed, 2 wrong use."""

import asyncio
import json
import logging
import re
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click
from pydantic import SecretStr

from connectors.clock import SystemClock
from connectors.settings import SettingsError, seconds
from schemas.replay import ReplayWish
from streams import __version__
from streams.settings import KafkaSettings, RentStreamSettings, environment

if TYPE_CHECKING:
    from streams.directory.model import IntegrationState
    from streams.directory.service import Integrations
    from streams.replays.book import Replay
    from streams.replays.planner import ReplayRequest
    from streams.replays.service import Replays
    from streams.view.queries import Queries

T = TypeVar("T")


class Failed(click.ClickException):
    """A command failed; the text states the reason and what to do."""

    exit_code = 1

    def show(self, file: Any = None) -> None:
        click.echo(f"rentstream: {self.format_message()}", file=file, err=True)


class WrongUse(Failed):
    """A setting or an argument is not valid."""

    exit_code = 2


def read_settings(read: Callable[[], Any]) -> Any:
    """Return the result of ``read``. Raise `WrongUse` with one line for each invalid setting."""
    try:
        return read()
    except SettingsError as error:
        raise WrongUse("these settings cannot be used:\n  " + "\n  ".join(error.lines)) from None


def configure_logging(verbose: bool) -> None:
    """Log to standard error, one line for each record; of libraries only warnings and errors."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    for name in ("httpx", "httpcore", "faust", "mode"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # aiokafka logs transient conditions as errors; persistent ones are reported by the runners and the engine.
    logging.getLogger("aiokafka").setLevel(logging.WARNING if verbose else logging.CRITICAL)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="rentstream")
@click.option("-v", "--verbose", is_flag=True, help="Log information too, not only warnings.")
@click.pass_context
def cli(context: click.Context, verbose: bool) -> None:
    """Keep listing receivers equal to the rent roll of a property management system."""
    configure_logging(verbose)
    context.obj = read_settings(environment)


def require_kafka(env: Mapping[str, str]) -> KafkaSettings:
    """Return the Kafka settings of a role. Raise `WrongUse` if no cluster is configured."""
    kafka: KafkaSettings = read_settings(lambda: KafkaSettings.read(env))
    if kafka.bootstrap_servers is None:
        raise WrongUse(NO_KAFKA)
    return kafka


NO_KAFKA = (
    "KAFKA_BOOTSTRAP_SERVERS is not set: set it to the brokers of a cluster (host:port), "
    "or use `rentstream up`, which starts an embedded Kafka"
)


def find_kafka(env: Mapping[str, str], settings: RentStreamSettings) -> KafkaSettings:
    """Return the Kafka settings of a command, by default those of a `rentstream up` on this machine."""
    from streams.local.discovery import embedded_servers  # noqa: PLC0415

    kafka: KafkaSettings = read_settings(lambda: KafkaSettings.read(env))
    if kafka.bootstrap_servers is not None:
        return kafka
    servers = embedded_servers(settings.data)
    if servers is None:
        raise WrongUse(f"{NO_KAFKA}; none runs under {settings.data} at the moment")
    return kafka.model_copy(update={"bootstrap_servers": servers})


@cli.command()
@click.option("--demo", is_flag=True, help="Use stand-ins of Buildium and RentSync with a sample portfolio.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="Number of workers.")
@click.option("--for", "lasts", type=float, default=None, hidden=True, help="Stop after so many seconds.")
@click.pass_obj
def up(env: Mapping[str, str], demo: bool, workers: int, lasts: float | None) -> None:
    """Start every role on this machine and run until Ctrl-C."""
    from streams.roles.up import UpFailed, run_up  # noqa: PLC0415 -- a command imports only its own role

    settings = read_settings(lambda: RentStreamSettings.read(env))
    kafka = read_settings(lambda: KafkaSettings.read(env))
    try:
        run_up(env, settings, kafka, demo=demo, workers=workers, lasts=lasts)
    except SettingsError as error:
        raise WrongUse("these settings cannot be used:\n  " + "\n  ".join(error.lines)) from None
    except UpFailed as error:
        raise Failed(str(error)) from None


@cli.command()
@click.option(
    "--only", type=click.Choice(["ingress", "console"]), default=None, help="Run only one part of the web role."
)
@click.pass_obj
def http(env: Mapping[str, str], only: Literal["ingress", "console"] | None) -> None:
    """Run the web role: webhooks, the API, the console, and metrics with consumer lag.

    `--only ingress` leaves out the console and does not fill the query view; `--only console` leaves out the webhooks.
    """
    from streams.local.processes import end_with_parent  # noqa: PLC0415
    from streams.roles.web import WebFailed, run_web  # noqa: PLC0415

    settings, kafka = read_settings(lambda: RentStreamSettings.read(env)), require_kafka(env)
    end_with_parent(env)
    try:
        run_web(env, settings, kafka, only)
    except SettingsError as error:
        raise WrongUse("these settings cannot be used:\n  " + "\n  ".join(error.lines)) from None
    except WebFailed as error:
        raise Failed(str(error)) from None


def _worker_name(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Return the name of a worker, which names a folder on disk and a Kafka client. Raise `WrongUse`."""
    del context, parameter
    if value is not None and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", value):
        raise WrongUse("--name needs 1 to 64 letters, digits, dots, dashes or underscores, and no dot or dash at first")
    return value


@cli.command()
@click.option(
    "--name",
    default=None,
    callback=_worker_name,
    help="Name of the worker, unique in its group; its state on disk has that name.",
)
@click.pass_obj
def worker(env: Mapping[str, str], name: str | None) -> None:
    """Run one worker; there can be as many as partitions."""
    from streams.local.processes import end_with_parent  # noqa: PLC0415
    from streams.roles.worker import WorkerFailed, run_worker_role  # noqa: PLC0415

    settings, kafka = read_settings(lambda: RentStreamSettings.read(env)), require_kafka(env)
    end_with_parent(env)
    try:
        code = run_worker_role(env, settings, kafka, name)
    except SettingsError as error:
        raise WrongUse("these settings cannot be used:\n  " + "\n  ".join(error.lines)) from None
    except WorkerFailed as error:
        raise Failed(str(error)) from None
    sys.exit(code)


@cli.command()
@click.option("--apply", "create", is_flag=True, help="Create missing topics.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def topics(env: Mapping[str, str], create: bool, as_json: bool) -> None:
    """Show the topics and their settings; fail if one has wrong settings."""
    from streams.roles.topics import TopicsFailed, compare_topics  # noqa: PLC0415

    settings, kafka = read_settings(lambda: RentStreamSettings.read(env)), require_kafka(env)
    try:
        report = asyncio.run(compare_topics(settings, kafka, create=create))
    except SettingsError as error:
        raise WrongUse("these settings cannot be used:\n  " + "\n  ".join(error.lines)) from None
    except TopicsFailed as error:
        raise Failed(str(error)) from None
    if as_json:
        click.echo(json.dumps(report.data, indent=2))
    else:
        click.echo("\n".join(report.lines))
    if report.problems:
        raise Failed("the topics have wrong settings:\n  " + "\n  ".join(report.problems))


@cli.command()
@click.option("--org", default="default", show_default=True, help="The org of the token.")
@click.option(
    "--scope", "scopes", multiple=True, metavar="SCOPE", help="A scope; may be repeated. Default: all scopes."
)
@click.option("--expires", default="1h", show_default=True, help="Validity: a number with s, m, h or d.")
@click.option(
    "--subject", default="rentstream-cli", show_default=True, help="The user of the token, for the history of changes."
)
@click.pass_obj
def token(env: Mapping[str, str], org: str, scopes: tuple[str, ...], expires: str, subject: str) -> None:
    """Print a bearer token (JWT) for local use, signed with RENTSTREAM_JWT_SECRET."""
    from streams.local.kept_secrets import jwt_secret  # noqa: PLC0415
    from streams.web.api.tokens import InvalidToken, issue  # noqa: PLC0415

    secret = read_settings(lambda: jwt_secret(RentStreamSettings.read(env)))
    try:
        lasts = timedelta(seconds=seconds(expires))
    except (ValueError, OverflowError):
        raise WrongUse("--expires needs a number with a unit: s, m, h or d, such as 1h") from None
    try:
        text = read_settings(lambda: issue(secret, subject, org, scopes or None, lasts, SystemClock().now()))
    except InvalidToken as error:
        raise WrongUse(f"the API would refuse this token: {error}") from None
    click.echo(text)


@cli.group()
@click.option("--org", default="default", show_default=True, help="The org of the integrations.")
@click.pass_context
def integrations(context: click.Context, org: str) -> None:
    """List, change and test stored integrations. Stored secrets are never printed."""
    context.obj = ManagedOrg(context.obj, org)


@dataclass(frozen=True)
class ManagedOrg:
    """The org of the commands of `integrations`, and the environment."""

    env: Mapping[str, str]
    org: str

    def run(self, action: Callable[["Integrations"], Awaitable[T]]) -> T:
        """Run an action on the service and return its result. Raise `WrongUse` or `Failed`."""
        from streams.roles import manage  # noqa: PLC0415

        settings = read_settings(lambda: RentStreamSettings.read(self.env))
        kafka = find_kafka(self.env, settings)
        try:
            return manage.run(self.env, settings, kafka, action)
        except SettingsError as error:
            raise WrongUse("these settings cannot be used:\n  " + "\n  ".join(error.lines)) from None
        except manage.ManageRefused as error:
            raise WrongUse(str(error)) from None
        except manage.ManageFailed as error:
            raise Failed(str(error)) from None

    def show(self, state: "IntegrationState", *, as_json: bool) -> None:
        """Print an integration."""
        from streams.roles import manage  # noqa: PLC0415

        url = manage.base_url(self.env, read_settings(lambda: RentStreamSettings.read(self.env)))
        if as_json:
            click.echo(json.dumps(manage.as_json(state, url), indent=2))
        else:
            click.echo("\n".join(manage.details(state, url)))


def choose_org(context: click.Context, _: click.Parameter, org: str | None) -> None:
    """Accept ``--org`` after the command as well as before it."""
    if org is not None:
        context.obj = replace(context.obj, org=org)


org_option = click.option(
    "--org", expose_value=False, callback=choose_org, help="The org of the integrations.  [default: default]"
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON in the form of the API.")


@integrations.command("list")
@org_option
@json_option
@click.pass_obj
def list_integrations(managed: ManagedOrg, as_json: bool) -> None:
    """List the integrations of the org."""
    from streams.roles import manage  # noqa: PLC0415

    states = managed.run(lambda service: service.list(managed.org))
    if as_json:
        url = manage.base_url(managed.env, read_settings(lambda: RentStreamSettings.read(managed.env)))
        click.echo(json.dumps([manage.as_json(one, url) for one in states], indent=2))
    else:
        click.echo("\n".join(manage.table(states)) if states else f"{managed.org} has no integrations")


@integrations.command()
@click.argument("name")
@org_option
@json_option
@click.pass_obj
def show(managed: ManagedOrg, name: str, as_json: bool) -> None:
    """Show one integration."""
    managed.show(managed.run(lambda service: service.get(managed.org, name)), as_json=as_json)


def property_ids(_: click.Context, __: click.Parameter, texts: tuple[str, ...]) -> tuple[int, ...] | None:
    """Return the ids of properties, none for ``none``, and null where the option is not given."""
    if texts == ("none",):
        return ()
    wrong = [text for text in texts if not text.isdecimal()]
    if wrong:
        raise click.BadParameter(f"{wrong[0]!r} is not the id of a property; give a whole number, or none alone")
    return tuple(int(text) for text in texts) or None


@integrations.command()
@click.argument("name")
@org_option
@click.option("--system", default=None, help="The system (buildium, rentsync); required for a new integration.")
@click.option("--mode", type=click.Choice(["sandbox", "production"]), default=None, help="Mode of the credentials.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting in camelCase; may be repeated.")
@click.option("--unset", multiple=True, metavar="NAME", help="A setting to reset to its default; may be repeated.")
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    metavar="NAME=VALUE",
    help="A secret; for the value - a line of standard input is read. May be repeated.",
)
@click.option("--remove-secret", "removed", multiple=True, metavar="NAME", help="A secret to remove; may be repeated.")
@click.option(
    "--properties", type=click.Choice(["on", "off"]), default=None, help="Whether properties are synced by default."
)
@click.option(
    "--property-on",
    "on",
    multiple=True,
    metavar="ID",
    callback=property_ids,
    help="Id of a property to sync; replaces the list, and `none` empties it.",
)
@click.option(
    "--property-off",
    "off",
    multiple=True,
    metavar="ID",
    callback=property_ids,
    help="Id of a property not to sync; replaces the list, and `none` empties it.",
)
@json_option
@click.pass_obj
def put(
    managed: ManagedOrg,
    name: str,
    system: str | None,
    mode: str | None,
    settings: tuple[str, ...],
    unset: tuple[str, ...],
    secrets: tuple[str, ...],
    removed: tuple[str, ...],
    properties: str | None,
    on: tuple[int, ...] | None,
    off: tuple[int, ...] | None,
    as_json: bool,
) -> None:
    """Create an integration, or change some of its settings. A new one is disabled."""
    from streams.roles import manage  # noqa: PLC0415

    try:
        changes = {key: manage.json_value(value) for key, value in manage.assignments(settings, "--set").items()}
        new_secrets = manage.assignments(secrets, "--secret")
    except manage.ManageRefused as error:
        raise WrongUse(str(error)) from None
    values: dict[str, SecretStr | tuple[SecretStr, ...] | None] = dict.fromkeys(removed)
    for key, value in new_secrets.items():
        values[key] = SecretStr(sys.stdin.readline().rstrip("\r\n") if value == "-" else value)
    state, created = managed.run(
        lambda service: manage.put(
            service,
            managed.org,
            name,
            system=system,
            mode=mode,
            changes=changes,
            unset=unset,
            secrets=values,
            properties_default=None if properties is None else properties == "on",
            properties_on=on,
            properties_off=off,
        )
    )
    managed.show(state, as_json=as_json)
    if created and not as_json:
        click.echo(f"created and disabled: run `integrations check {name}`, then `integrations enable {name}`")


@integrations.command()
@click.argument("name")
@org_option
@json_option
@click.pass_obj
def enable(managed: ManagedOrg, name: str, as_json: bool) -> None:
    """Enable an integration."""
    from streams.roles import manage  # noqa: PLC0415

    managed.show(managed.run(lambda service: service.enable(managed.org, name, manage.author())), as_json=as_json)


@integrations.command()
@click.argument("name")
@org_option
@json_option
@click.pass_obj
def disable(managed: ManagedOrg, name: str, as_json: bool) -> None:
    """Disable an integration; its settings and secrets are kept."""
    from streams.roles import manage  # noqa: PLC0415

    managed.show(managed.run(lambda service: service.disable(managed.org, name, manage.author())), as_json=as_json)


@integrations.command()
@click.argument("name")
@org_option
@json_option
@click.pass_obj
def check(managed: ManagedOrg, name: str, as_json: bool) -> None:
    """Test the connection of an integration without changing anything in its system."""
    from streams.roles import manage  # noqa: PLC0415

    report = managed.run(lambda service: service.check(managed.org, name))
    if as_json:
        click.echo(json.dumps(manage.check_as_json(report), indent=2))
    else:
        click.echo("\n".join(manage.check_lines(report)))
    if not report.passed:
        sys.exit(1)


@integrations.command("rotate-webhook-secret")
@click.argument("name")
@org_option
@click.option(
    "--secret", default=None, metavar="VALUE", help="The new secret, or - to read standard input. Default: generated."
)
@click.option("--remove", default=None, metavar="TIME", help="Remove the secret that was set at this time.")
@json_option
@click.pass_obj
def rotate_webhook_secret(
    managed: ManagedOrg, name: str, secret: str | None, remove: str | None, as_json: bool
) -> None:
    """Add a webhook secret and keep the present ones, or remove one that is no longer used."""
    from streams.roles import manage  # noqa: PLC0415

    if remove is not None:
        since = manage.moment(remove)
        if since is None or secret is not None:
            raise WrongUse(
                "--remove needs the time of a secret in the form of `integrations show --json`, and no --secret"
            )
        state = managed.run(lambda service: service.remove_webhook_secret(managed.org, name, since, manage.author()))
        managed.show(state, as_json=as_json)
        return
    value = sys.stdin.readline().rstrip("\r\n") if secret == "-" else secret  # noqa: S105 -- a dash
    new = None if value is None else SecretStr(value)
    state, made = managed.run(lambda service: service.rotate_webhook_secret(managed.org, name, new, manage.author()))
    managed.show(state, as_json=as_json)
    if made is not None:
        click.echo(f"new webhook secret, shown only once: {made.get_secret_value()}", err=as_json)


def at_terminal() -> bool:
    """Return whether a person can answer a question."""
    return sys.stdin.isatty()


@integrations.command()
@click.argument("name")
@org_option
@click.option("--yes", is_flag=True, help="Delete without a confirmation, which only a terminal is asked for.")
@click.pass_obj
def delete(managed: ManagedOrg, name: str, yes: bool) -> None:
    """Delete an integration with its secrets."""
    from streams.roles import manage  # noqa: PLC0415

    if not yes and at_terminal():
        click.confirm(f"Delete integration {name} of {managed.org} with its secrets?", abort=True)
    managed.run(lambda service: service.delete(managed.org, name, manage.author()))
    click.echo(f"deleted {managed.org}/{name}")


@integrations.command()
@click.pass_obj
def reencrypt(managed: ManagedOrg) -> None:
    """Encrypt the secrets of all orgs with the first of RENTSTREAM_ENCRYPTION_KEYS."""
    from streams.roles import manage  # noqa: PLC0415

    count = managed.run(lambda service: service.reencrypt(manage.author()))
    click.echo(f"{count} integrations are encrypted with the first key; they no longer need the older keys")


@cli.command()
@click.option("--org", default="default", show_default=True, help="The org of the connections.")
@click.option("--connection", default=None, metavar="NAME", help="One connection.  [default: all enabled ones]")
@click.option("--property", "property_id", default=None, type=click.IntRange(1), metavar="ID", help="One property.")
@click.option(
    "--confirm-removals", is_flag=True, help="Remove what no longer exists in the account, however much that is."
)
@click.option("--wait/--no-wait", default=True, show_default=True, help="Report progress until the end.")
@click.pass_obj
def sync(
    env: Mapping[str, str],
    org: str,
    connection: str | None,
    property_id: int | None,
    confirm_removals: bool,
    wait: bool,
) -> None:
    """Read accounts in full now, or one property; what receivers do not know follows."""
    from streams.roles import sync as role  # noqa: PLC0415

    if confirm_removals and property_id is not None:
        raise WrongUse("--confirm-removals is about a full read: leave out --property")
    request = role.Request(org, connection, property_id, confirm_removals, wait)
    if not ManagedOrg(env, org).run(lambda service: role.sync(service, request, SystemClock(), click.echo)):
        sys.exit(1)


@cli.command()
@click.option("--org", default="default", show_default=True, help="The org of the receivers.")
@click.option("--receiver", default=None, metavar="NAME", help="One receiver.  [default: all]")
@click.option("--connection", default=None, metavar="NAME", help="One connection.  [default: all]")
@click.option("--property", "property_id", default=None, type=click.IntRange(1), metavar="ID", help="One property.")
@click.option("--dry-run", is_flag=True, help="Show what would be sent again, and stop.")
@click.option("--yes", is_flag=True, help="Begin without a confirmation, which only a terminal is asked for.")
@click.pass_obj
def resend(
    env: Mapping[str, str],
    org: str,
    receiver: str | None,
    connection: str | None,
    property_id: int | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Send receivers all of what they should know again: a snapshot of each property, changed or not."""
    from streams.roles import manage  # noqa: PLC0415
    from streams.roles import resend as role  # noqa: PLC0415

    settings = read_settings(lambda: RentStreamSettings.read(env))
    try:
        found = read_settings(lambda: role.targets(settings, role.Request(org, receiver, connection, property_id)))
    except manage.ManageFailed as error:
        raise Failed(str(error)) from None
    click.echo("\n".join(role.lines(found)))
    if dry_run:
        return
    if not yes and at_terminal():
        click.confirm("Send all of that again?", abort=True)
    ManagedOrg(env, org).run(lambda service: role.resend(service, org, found, SystemClock(), click.echo))


@cli.command()
@click.option("--org", default="default", show_default=True, help="The org whose integrations and syncs are shown.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def status(env: Mapping[str, str], org: str, as_json: bool) -> None:
    """Show what is fresh, what waits and what failed; exit with 1 if anything needs a person."""
    from streams.roles import manage  # noqa: PLC0415
    from streams.roles import status as role  # noqa: PLC0415

    settings = read_settings(lambda: RentStreamSettings.read(env))
    kafka = find_kafka(env, settings)
    try:
        found = role.run(env, settings, kafka, org)
    except SettingsError as error:
        raise WrongUse("these settings cannot be used:\n  " + "\n  ".join(error.lines)) from None
    except manage.ManageFailed as error:
        raise Failed(str(error)) from None
    if as_json:
        click.echo(json.dumps(role.as_json(found, manage.base_url(env, settings)), indent=2))
    else:
        click.echo("\n".join(role.lines(found)))
    if not found.is_well:
        sys.exit(1)


@cli.command("check")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def check_all(env: Mapping[str, str], as_json: bool) -> None:
    """Read every setting and try every connection; exit with 0 only if all is well."""
    from streams.roles import check as role  # noqa: PLC0415

    findings = role.run(env)
    if as_json:
        click.echo(json.dumps(role.as_json(findings), indent=2))
    else:
        click.echo("\n".join(role.lines(findings)))
    if not findings.is_well:
        sys.exit(1)


@cli.command()
@click.argument("entity")
@click.option("--org", default="default", show_default=True, help="The org of the entity.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def why(env: Mapping[str, str], entity: str, org: str, as_json: bool) -> None:
    """Show what happened to ENTITY: unit:ID or property:ID of the PMS, or our id of a property, an owner, an operation.

    It goes back as far as the topics are kept.
    """
    from streams.core.timeline import subject_of  # noqa: PLC0415
    from streams.roles import manage  # noqa: PLC0415
    from streams.roles import why as role  # noqa: PLC0415

    try:
        subject = subject_of(entity)
    except ValueError as error:
        raise WrongUse(str(error)) from None
    settings = read_settings(lambda: RentStreamSettings.read(env))
    kafka = find_kafka(env, settings)
    try:
        timeline = read_settings(lambda: role.run(settings, kafka, org, subject))
    except manage.ManageFailed as error:
        raise Failed(str(error)) from None
    if as_json:
        click.echo(json.dumps(role.as_json(timeline), indent=2))
    elif timeline.occurrences:
        click.echo("\n".join(role.lines(timeline)))
    if not timeline.occurrences:
        raise Failed(f"no record of org {org} is about {entity}; older ones may have left their topics")


@cli.group()
def dead_letters() -> None:
    """Inspect what was given up."""


def _moment_option(context: click.Context, parameter: click.Parameter, value: str | None) -> datetime | None:
    """Parse a time. Raise `WrongUse`."""
    from streams.roles import manage  # noqa: PLC0415

    del context
    found = None if value is None else manage.moment(value)
    if value is not None and found is None:
        raise WrongUse(f"--{parameter.name} needs a time with its time zone, such as 2026-03-01T12:00:00Z")
    return found


def letter_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that name dead letters."""
    options = (
        click.option("--since", callback=_moment_option, metavar="TIME", help="Given up, or written, then or later."),
        click.option("--until", callback=_moment_option, metavar="TIME", help="Given up, or written, before then."),
        click.option("--origin", metavar="TOPIC", help="The topic that they were on, such as deliveries.batches."),
        click.option("--reason", metavar="WORD", help="Such as rejected, exhausted, unauthorized or bug."),
        click.option("--fingerprint", metavar="HEX", help="Of one cause."),
        click.option("--entity", metavar="KIND:ID", help="Such as property:1001, or our id of a property or an owner."),
        click.option("--integration", metavar="NAME", help="The connection or the receiver."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@dead_letters.command("list")
@click.option("--org", default="default", show_default=True, help="The org of the records.")
@click.option("--all", "everything", is_flag=True, help="Also what has been made up for since.")
@letter_options
@click.option("--limit", default=1000, show_default=True, type=click.IntRange(1, 1_000_000), help="The newest ones.")
@json_option
@click.pass_obj
def list_dead_letters(
    env: Mapping[str, str], /, org: str, everything: bool, limit: int, as_json: bool, **wanted: Any
) -> None:
    """List what was given up and is still owed, by cause."""
    from streams.roles import dead_letters as role  # noqa: PLC0415
    from streams.roles import manage  # noqa: PLC0415
    from streams.view.queries import LetterFilter  # noqa: PLC0415

    settings = read_settings(lambda: RentStreamSettings.read(env))
    chosen = LetterFilter(open=None if everything else True, **wanted)
    try:
        letters, groups = read_settings(lambda: role.find(settings, org, chosen, limit))
    except manage.ManageFailed as error:
        raise Failed(str(error)) from None
    if as_json:
        click.echo(json.dumps(role.as_json(letters), indent=2))
    else:
        click.echo("\n".join(role.lines(letters, groups, everything=everything)))


@dead_letters.command("show")
@click.argument("letter", metavar="ID")
@click.option("--org", default="default", show_default=True, help="The org of the record.")
@json_option
@click.pass_obj
def show_dead_letter(env: Mapping[str, str], letter: str, org: str, as_json: bool) -> None:
    """Show one record that was given up, with its content."""
    from streams.core.dead_letters import place_of  # noqa: PLC0415
    from streams.roles import dead_letters as role  # noqa: PLC0415
    from streams.roles import manage  # noqa: PLC0415
    from streams.view.queries import LetterFilter  # noqa: PLC0415

    try:
        place = place_of(letter)
    except ValueError as error:
        raise WrongUse(str(error)) from None
    settings = read_settings(lambda: RentStreamSettings.read(env))
    kafka = find_kafka(env, settings)
    try:
        found, _ = read_settings(lambda: role.find(settings, org, LetterFilter(place=place), 1))
        if not found:
            raise Failed(
                f"org {org} has no dead letter {letter}; `rentstream dead-letters list --all` shows which it has"
            )
        body = role.content_as_json(role.content(settings, kafka, place))
    except manage.ManageFailed as error:
        raise Failed(str(error)) from None
    if as_json:
        click.echo(json.dumps({**role.as_json(found)[0], **body}, indent=2))
    else:
        click.echo("\n".join(role.letter_lines(found[0], body)))


@cli.group(invoke_without_command=True)
@click.option("--org", default="default", show_default=True, help="The org of the records.")
@click.option("--topic", default=None, metavar="TOPIC", help="Where the records are.  [default: dead-letters]")
@click.option("--id", "letter", metavar="ID", help="One record: PARTITION-OFFSET, such as 3-1042.")
@letter_options
@click.option("--rate", default=None, type=int, metavar="NUMBER", help="Records a second at most.  [default: 20]")
@click.option("--dry-run", is_flag=True, help="Show the plan, and stop.")
@click.option("--yes", is_flag=True, help="Begin without a confirmation, which only a terminal is asked for.")
@json_option
@click.pass_context
def replay(
    context: click.Context,
    /,
    org: str,
    topic: str | None,
    letter: str | None,
    rate: int | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **filters: Any,
) -> None:
    """Have records processed again: open dead letters, or those that the options name.

    The plan is shown first. It is carried out by the workers, behind live changes, and goes on if this command ends.
    """
    from streams.core.dead_letters import place_of  # noqa: PLC0415
    from streams.replays.planner import ReplayRequest  # noqa: PLC0415
    from streams.view.queries import LetterFilter  # noqa: PLC0415

    replays = ManagedReplays(context.obj, org)
    if context.invoked_subcommand is not None:
        context.obj = replays
        return
    try:
        place = None if letter is None else place_of(letter)
    except ValueError as error:
        raise WrongUse(str(error)) from None
    filtered = place is not None or any(value is not None for value in filters.values())
    wanted = LetterFilter(open=None if filtered else True, place=place, **filters)
    chosen: dict[str, Any] = {name: value for name, value in (("source", topic), ("rate", rate)) if value is not None}
    replays.replay(ReplayRequest(org, wanted, **chosen), dry_run=dry_run, yes=yes, as_json=as_json)


@dataclass(frozen=True)
class ManagedReplays:
    """The org of the commands of `replay`, and the environment."""

    env: Mapping[str, str]
    org: str

    def run(self, action: Callable[["Replays", "Queries"], Awaitable[T]]) -> T:
        """Run an action on the service and return its result. Raise `WrongUse` or `Failed`."""
        from streams.roles import manage  # noqa: PLC0415
        from streams.roles import replay as role  # noqa: PLC0415

        settings = read_settings(lambda: RentStreamSettings.read(self.env))
        kafka = find_kafka(self.env, settings)
        try:
            return role.run(settings, kafka, action)
        except SettingsError as error:
            raise WrongUse("these settings cannot be used:\n  " + "\n  ".join(error.lines)) from None
        except manage.ManageRefused as error:
            raise WrongUse(str(error)) from None
        except manage.ManageFailed as error:
            raise Failed(str(error)) from None

    def replay(self, request: "ReplayRequest", *, dry_run: bool, yes: bool, as_json: bool) -> None:
        """Plan a replay, show the plan, and run it once it is approved."""
        from streams.roles import replay as role  # noqa: PLC0415

        one = self.run(lambda replays, _: role.planned(replays, request, store=not dry_run))
        if dry_run and as_json:
            click.echo(json.dumps(role.as_json(one, 0), indent=2))
            return
        if not as_json:
            click.echo("\n".join(role.plan_lines(one)))
        if dry_run:
            return
        if not one.plan.replayed:
            self.order(one.plan.id, ReplayWish.CANCEL)
            return
        if not yes and at_terminal() and not click.confirm("Replay them?"):
            self.order(one.plan.id, ReplayWish.CANCEL)
            raise click.Abort
        self.order(one.plan.id, ReplayWish.RUN)
        self.follow(one.plan.id, as_json=as_json)

    def order(self, replay_id: str, wish: ReplayWish) -> "Replay":
        """Order something about a replay; return it."""
        from streams.roles import replay as role  # noqa: PLC0415

        return self.run(lambda replays, _: role.ordered(replays, self.org, replay_id, wish))

    def follow(self, replay_id: str, *, as_json: bool) -> None:
        """Show the progress of a replay until it ends, then its report."""
        from streams.roles import replay as role  # noqa: PLC0415

        async def follow(replays: "Replays", queries: "Queries") -> tuple["Replay", int]:
            one = await replays.get(self.org, replay_id)
            with click.progressbar(length=one.plan.replayed, label=replay_id, file=sys.stderr) as bar:
                one = await role.followed(replays, one, bar, SystemClock())
            return one, queries.given_up_again(self.org, replay_id)

        self.show(*self.run(follow), as_json=as_json)

    def show(self, one: "Replay", given_up_again: int | None, *, as_json: bool) -> None:
        """Print the report of a replay."""
        from streams.roles import replay as role  # noqa: PLC0415

        if as_json:
            click.echo(json.dumps(role.as_json(one, given_up_again), indent=2))
        else:
            click.echo("\n".join(role.report_lines(one, given_up_again)))


@replay.command("list")
@json_option
@click.pass_obj
def list_replays(managed: ManagedReplays, as_json: bool) -> None:
    """List the replays of the org, the newest first."""
    from streams.roles import replay as role  # noqa: PLC0415

    async def found(replays: "Replays", queries: "Queries") -> "list[tuple[Replay, int]]":
        return [(one, queries.given_up_again(managed.org, one.plan.id)) for one in replays.list(managed.org)]

    all_of = managed.run(found)
    if as_json:
        click.echo(json.dumps([role.as_json(*one) for one in all_of], indent=2))
    else:
        click.echo("\n".join(role.list_lines([one for one, _ in all_of])))


@replay.command("show")
@click.argument("replay_id", metavar="ID")
@json_option
@click.pass_obj
def show_replay(managed: ManagedReplays, replay_id: str, as_json: bool) -> None:
    """Show the report of a replay."""

    async def found(replays: "Replays", queries: "Queries") -> "tuple[Replay, int]":
        return await replays.get(managed.org, replay_id), queries.given_up_again(managed.org, replay_id)

    managed.show(*managed.run(found), as_json=as_json)


@replay.command("resume")
@click.argument("replay_id", metavar="ID")
@json_option
@click.pass_obj
def resume_replay(managed: ManagedReplays, replay_id: str, as_json: bool) -> None:
    """Approve a replay that was planned, or go on with a paused one, and follow it."""
    managed.order(replay_id, ReplayWish.RUN)
    managed.follow(replay_id, as_json=as_json)


@replay.command("pause")
@click.argument("replay_id", metavar="ID")
@click.pass_obj
def pause_replay(managed: ManagedReplays, replay_id: str) -> None:
    """Pause a replay."""
    managed.show(managed.order(replay_id, ReplayWish.PAUSE), None, as_json=False)


@replay.command("cancel")
@click.argument("replay_id", metavar="ID")
@click.pass_obj
def cancel_replay(managed: ManagedReplays, replay_id: str) -> None:
    """End a replay without the rest of its plan."""
    managed.show(managed.order(replay_id, ReplayWish.CANCEL), None, as_json=False)


@cli.group()
def view() -> None:
    """Maintain the query view, the SQL tables of what the topics hold."""


@view.command("rebuild")
@click.pass_obj
def rebuild_view(env: Mapping[str, str]) -> None:
    """Drop the view and build it again from the topics. Nothing else is affected."""
    from streams.roles import manage  # noqa: PLC0415
    from streams.roles import view as role  # noqa: PLC0415

    settings = read_settings(lambda: RentStreamSettings.read(env))
    kafka = find_kafka(env, settings)
    try:
        role.run_rebuild(env, settings, kafka, click.echo)
    except SettingsError as error:
        raise WrongUse("these settings cannot be used:\n  " + "\n  ".join(error.lines)) from None
    except manage.ManageFailed as error:
        raise Failed(str(error)) from None


@view.command("fill", hidden=True)
@click.pass_obj
def fill_view(env: Mapping[str, str]) -> None:
    """Fill the view until stopped; the web role runs this."""
    from streams.local.processes import end_with_parent  # noqa: PLC0415
    from streams.roles import view as role  # noqa: PLC0415

    settings, kafka = read_settings(lambda: RentStreamSettings.read(env)), require_kafka(env)
    end_with_parent(env)
    try:
        role.run_fill(env, settings, kafka)
    except SettingsError as error:
        raise WrongUse("these settings cannot be used:\n  " + "\n  ".join(error.lines)) from None


@cli.command("stand-ins")
@click.option("--buildium", "buildium_at", default="127.0.0.1:4010", show_default=True, help="host:port")
@click.option("--rentsync", "rentsync_at", default="127.0.0.1:4020", show_default=True, help="host:port")
@click.pass_obj
def stand_ins(env: Mapping[str, str], buildium_at: str, rentsync_at: str) -> None:
    """Serve the stand-ins of Buildium and RentSync, for a demo on several machines."""
    from streams.local.demo import serve_stand_ins  # noqa: PLC0415

    del env
    try:
        asyncio.run(serve_stand_ins(click.echo, buildium_at, rentsync_at))
    except OSError as error:
        raise Failed(f"the stand-ins cannot be served at {buildium_at} and {rentsync_at}: {error.strerror}") from None


def main() -> None:
    """Run the command line, and exit with 130 after Ctrl-C."""
    try:
        cli(standalone_mode=True)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
