"""``rentstream topics``: the catalogue beside the cluster, for people and for scripts."""

from dataclasses import dataclass
from typing import Any

from streams import topology
from streams.backends.admin import TopicAdmin, TopicError
from streams.backends.clients import client_options
from streams.settings import KafkaSettings, RentStreamSettings


class TopicsFailed(RuntimeError):  # noqa: N818
    """The topics cannot be seen, or are not as they have to be; the sentences say what to do."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was found, or made."""

    made: tuple[str, ...]
    """Topics that were missing: made, or (without ``--apply``) to be made."""
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    lines: tuple[str, ...]
    data: dict[str, Any]
    summary: str


async def see_topics(settings: RentStreamSettings, kafka: KafkaSettings, *, make: bool) -> Report:
    """Compare the topics with the catalogue and, if asked, make the missing.

    Raise `TopicsFailed`, and `connectors.settings.SettingsError` if the certificates cannot be read.
    """
    specs = tuple(topology.all_topics(settings.delays))
    admin = TopicAdmin(
        kafka.bootstrap_servers or "",
        prefix=settings.prefix,
        partitions=settings.partitions,
        replication=kafka.replication_factor,
        security=client_options(kafka),
    )
    try:
        async with admin:
            plan = await (admin.apply(specs) if make else admin.plan(specs))
    except TopicError as error:
        raise TopicsFailed(str(error)) from None
    made = tuple(topic.name for topic in plan.missing)
    lines = [f"{'topic':44} {'cleanup':8} {'kept':10} says"]
    for spec in specs:
        name = settings.prefix + spec.name
        state = ("  (made)" if make else "  (missing)") if name in made else ""
        lines.append(f"{name:44} {spec.cleanup:8} {topology.kept(spec):10} {spec.description}{state}")
    lines += [f"note: {note}" for note in plan.notes]
    verb = "made" if make else "missing"
    summary = f"topics: {len(specs)} of {settings.partitions} partitions each, {len(made) or 'none'} {verb}"
    return Report(
        made=made,
        problems=plan.wrong,
        notes=plan.notes,
        lines=(*lines, summary),
        data={
            "partitions": settings.partitions,
            "topics": [
                {
                    "name": settings.prefix + spec.name,
                    "cleanup": spec.cleanup,
                    "retention_ms": spec.retention_ms,
                    "description": spec.description,
                    "missing": settings.prefix + spec.name in made and not make,
                }
                for spec in specs
            ],
            "made": list(made) if make else [],
            "problems": list(plan.wrong),
            "notes": list(plan.notes),
        },
        summary=summary,
    )
