"""``rentstream topics``: compare the topics of the cluster with the catalogue, as text or as data."""

from dataclasses import dataclass
from typing import Any

from streams import topology
from streams.backends.admin import TopicAdmin, TopicError
from streams.backends.clients import client_options
from streams.settings import KafkaSettings, RentStreamSettings


class TopicsFailed(RuntimeError):  # noqa: N818
    """The topics cannot be read or created, or have wrong settings; the text states what to do."""


@dataclass(frozen=True, slots=True)
class Report:
    """The differences, and the topics that were created."""

    missing: tuple[str, ...]
    """Topics that were missing; with ``--apply`` they are created now."""
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    lines: tuple[str, ...]
    data: dict[str, Any]
    summary: str


async def compare_topics(settings: RentStreamSettings, kafka: KafkaSettings, *, create: bool) -> Report:
    """Compare the topics with the catalogue; if ``create`` is set, create the missing ones.

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
            plan = await (admin.apply(specs) if create else admin.plan(specs))
    except TopicError as error:
        raise TopicsFailed(str(error)) from None
    missing = tuple(topic.name for topic in plan.missing)
    lines = [f"{'topic':44} {'cleanup':8} {'retention':10} content"]
    for spec in specs:
        name = settings.prefix + spec.name
        state = ("  (created)" if create else "  (missing)") if name in missing else ""
        lines.append(f"{name:44} {spec.cleanup:8} {topology.kept(spec):10} {spec.description}{state}")
    lines += [f"note: {note}" for note in plan.notes]
    verb = "created" if create else "missing"
    summary = f"topics: {len(specs)} with {settings.partitions} partitions each, {len(missing) or 'none'} {verb}"
    return Report(
        missing=missing,
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
                    "missing": settings.prefix + spec.name in missing and not create,
                }
                for spec in specs
            ],
            "created": list(missing) if create else [],
            "problems": list(plan.wrong),
            "notes": list(plan.notes),
        },
        summary=summary,
    )
