"""THE CATALOGUE of the view's tables: what each row is, what identifies it, and how long it is kept.

Every table but `POSITIONS` and `STATE` belongs to orgs, and every primary key and every index begins with the org.
Times are UTC. On PostgreSQL the tables are in the schema ``public``.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    TypeDecorator,
    text,
)

METADATA: Final = MetaData(naming_convention={"pk": "pk_%(table_name)s", "ix": "ix_%(table_name)s_%(column_0_N_name)s"})


class Moment(TypeDecorator[datetime]):
    """A point in time; SQLite knows no time zones, so it is stored as UTC there."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.astimezone(UTC) if dialect.name != "sqlite" else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        del dialect
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _key(name: str, kind: Any = String) -> "Column[Any]":
    return Column(name, kind, primary_key=True, autoincrement=False)


def _names(*names: str) -> "list[Column[Any]]":
    return [_key(name) for name in names]


POSITIONS: Final = Table(
    "view_positions",
    METADATA,
    _key("topic"),
    _key("partition", Integer),
    Column("next_offset", BigInteger, nullable=False),
    comment="How far each partition is in the view; written in one transaction with the rows.",
)

STATE: Final = Table(
    "view_state",
    METADATA,
    _key("name"),
    Column("at", Moment, nullable=False),
    comment="as_of: everything that was written before is in the view.",
)

TERMS: Final = Table(
    "view_terms",
    METADATA,
    *_names("org_id", "connection"),
    Column("terms", String, nullable=False),
    comment="The settings of each connection that its units were derived with.",
)

OPERATIONS: Final = Table(
    "sync_operations",
    METADATA,
    _key("org_id"),
    _key("id"),
    Column("connection", String),
    Column("type", String, comment="CREATE, UPDATE or DELETE"),
    Column("entity", String, comment="property or owner"),
    Column("local_id", String),
    Column("buildium_id", BigInteger),
    Column("status", String, nullable=False, server_default="PENDING", comment="or IN_PROGRESS, COMPLETED, FAILED"),
    Column("error_code", String),
    Column("error", Text),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("last_attempt", Moment),
    Column("next_attempt", Moment),
    Column("data", JSON(none_as_null=True), comment="What was asked for."),
    Column("created_at", Moment),
    Column("updated_at", Moment),
    Index(None, "org_id", "entity", "local_id", "created_at"),
    Index(None, "org_id", "status", "updated_at"),
    comment="What upstream apps asked for, and what became of it.",
)

ACCOUNTS: Final = Table(
    "accounts",
    METADATA,
    *_names("org_id", "connection"),
    Column("first_sweep", String),
    Column("completed_at", Moment),
    Column("entities", Integer, nullable=False),
    Column("held_removals", Integer, nullable=False),
    Column("raw", LargeBinary, nullable=False, comment="The row of table rent-roll."),
    comment="Connections that were read in full.",
)

PROPERTIES: Final = Table(
    "properties",
    METADATA,
    *_names("org_id", "connection"),
    _key("property_id", BigInteger),
    Column("name", String),
    Column("address", String),
    Column("is_active", Boolean, nullable=False),
    Column("gone", Boolean, nullable=False),
    Column("version", Integer, nullable=False),
    Column("fetched_at", Moment, nullable=False),
    Column("raw", LargeBinary, nullable=False, comment="The row of table rent-roll."),
    comment="Properties as they were fetched last.",
)

UNITS: Final = Table(
    "rent_roll",
    METADATA,
    *_names("org_id", "connection"),
    _key("unit_id", BigInteger),
    Column("property_id", BigInteger, nullable=False),
    Column("code", String, nullable=False),
    Column("building", String),
    Column("state", String, nullable=False, comment="available, rented, unavailable or removed"),
    Column("status", String, nullable=False, comment="The finer status."),
    Column("is_available", Boolean, nullable=False),
    Column("available_on", Date),
    Column("when_available", String),
    Column("rent", Numeric(14, 2, asdecimal=True)),
    Column("size", Integer),
    Column("bedrooms", Numeric(5, 2, asdecimal=True)),
    Column("bathrooms", Numeric(5, 2, asdecimal=True)),
    Column("doubts", JSON, nullable=False),
    Column("version", Integer, nullable=False),
    Column("fetched_at", Moment, nullable=False),
    Column("offered", Boolean, nullable=False, comment="False as long as not everything was read that decides it."),
    Column("digest", LargeBinary, comment="Of what a receiver gets; equal to the one in known_units if it knows it."),
    Column("changes_on", Date, comment="The next day on which it may change without an event."),
    Column("search", String, nullable=False),
    Column("raw", LargeBinary, nullable=False, comment="The row of table rent-roll."),
    Index(None, "org_id", "property_id", "connection", "unit_id"),
    Index(None, "org_id", "state", "connection", "unit_id"),
    Index(
        "ix_rent_roll_not_offered",
        "org_id",
        "connection",
        sqlite_where=text("offered = 0"),
        postgresql_where=text("NOT offered"),
    ),
    Index(
        "ix_rent_roll_changes_on",
        "org_id",
        "connection",
        "changes_on",
        sqlite_where=text("changes_on IS NOT NULL"),
        postgresql_where=text("changes_on IS NOT NULL"),
    ),
    comment="The current rent roll, one row a unit.",
)

DELIVERIES: Final = Table(
    "deliveries",
    METADATA,
    *_names("org_id", "receiver", "connection"),
    _key("property_id", BigInteger),
    Column("phase", String, nullable=False, comment="idle, in_flight, waiting or owed"),
    Column("version", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("mode", String),
    Column("sync_id", String),
    Column("batch_id", String),
    Column("cut_at", Moment),
    Column("owed_since", Moment, comment="When the oldest change was seen that the receiver may not know."),
    Column("acknowledged_at", Moment),
    Column("next_attempt", Moment),
    Column("given_up_at", Moment),
    Column("error", Text),
    Index(None, "org_id", "property_id", "receiver", "connection"),
    Index(None, "org_id", "phase"),
    comment="What each receiver knows of each property.",
)

KNOWN: Final = Table(
    "known_units",
    METADATA,
    *_names("org_id", "receiver", "connection"),
    _key("unit_id", BigInteger),
    Column("property_id", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    comment="What each receiver acknowledged of each unit.",
)

ATTEMPTS: Final = Table(
    "delivery_attempts",
    METADATA,
    *_names("org_id", "receiver", "connection"),
    _key("property_id", BigInteger),
    _key("version", Integer),
    _key("attempt", Integer),
    Column("batch_id", String),
    Column("sync_id", String),
    Column("mode", String),
    Column("units", Integer),
    Column("cut_at", Moment),
    Column("seen_at", Moment),
    Column("result", String, comment="Null as long as there is no answer."),
    Column("http_status", Integer),
    Column("reason", String),
    Column("detail", Text),
    Column("ended_at", Moment),
    Column("next_attempt", Moment),
    Column("partition", Integer, comment="Where the batch is on its topic."),
    Column("offset", BigInteger),
    Column("at", Moment, comment="When it was cut."),
    Index(None, "org_id", "property_id", "at"),
    Index(None, "org_id", "at"),
    Index(None, "at"),
    comment="Batches that were sent, and what receivers answered.",
)

WEBHOOKS: Final = Table(
    "webhooks",
    METADATA,
    _key("org_id"),
    _key("partition", Integer),
    _key("offset", BigInteger),
    Column("connection", String, nullable=False),
    Column("event", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("entity", BigInteger),
    Column("occurred_at", Moment),
    Column("ignored", String),
    Column("at", Moment, nullable=False),
    Index(None, "org_id", "entity", "at"),
    Index(None, "org_id", "at"),
    Index(None, "at"),
    comment="Webhooks that were accepted.",
)

FETCHES: Final = Table(
    "fetches",
    METADATA,
    _key("org_id"),
    _key("partition", Integer),
    _key("offset", BigInteger),
    Column("connection", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("entity", BigInteger, comment="The first one."),
    Column("entities", Integer, nullable=False),
    Column("missing", Integer, nullable=False, comment="How many of them do not exist."),
    Column("seen_at", Moment),
    Column("at", Moment, nullable=False),
    Index(None, "org_id", "at"),
    Index(None, "org_id", "connection", "kind", "entity", "at"),
    Index(None, "at"),
    comment="Reads of single entities and pulses; those of sweeps are in sweeps.",
)

SWEEPS: Final = Table(
    "sweeps",
    METADATA,
    *_names("org_id", "connection", "sweep"),
    Column("started_at", Moment, nullable=False),
    Column("entities", Integer, nullable=False),
    Column("pages", Integer, nullable=False),
    Column("torn", Boolean, nullable=False, comment="The account changed while it was read."),
    Column("denied", JSON, nullable=False, comment="Kinds of entities that the credentials may not read."),
    Column("at", Moment, nullable=False, comment="When it ended."),
    Index(None, "org_id", "at"),
    Index(None, "at"),
    comment="Full reads of accounts that ended.",
)

PROGRESS: Final = Table(
    "sweep_progress",
    METADATA,
    *_names("org_id", "connection"),
    Column("sweep", String, nullable=False),
    Column("started_at", Moment, nullable=False),
    Column("stage", String, nullable=False),
    Column("number", Integer, nullable=False),
    Column("stages", Integer, nullable=False),
    Column("read", Integer, nullable=False),
    Column("total", Integer),
    Column("failed", Text),
    Column("at", Moment, nullable=False),
    comment="How far the last full read of each account is, or why it failed.",
)

DEAD_LETTERS: Final = Table(
    "dead_letters",
    METADATA,
    _key("org_id"),
    _key("partition", Integer),
    _key("offset", BigInteger),
    Column("origin", String, nullable=False),
    Column("flow", String),
    Column("reason", String),
    Column("attempts", Integer, nullable=False),
    Column("message", Text),
    Column("fingerprint", String, nullable=False, comment="Equal for failures of the same kind."),
    Column("connection", String),
    Column("receiver", String),
    Column("entity", String, comment="KIND:ID with the id in the PMS, or our id."),
    Column("kind", String, comment="Of an entity that is to be read."),
    Column("pms_id", BigInteger, comment="The id of the entity that is to be read."),
    Column("property_id", BigInteger, comment="Of a delivery."),
    Column("operation", String, comment="Of a command."),
    Column("replays", Integer, nullable=False),
    Column("replay", String, comment="The replay that it was given up after."),
    Column("first_failed_at", Moment),
    Column("at", Moment, nullable=False),
    Index(None, "org_id", "at"),
    Index(None, "org_id", "fingerprint", "at"),
    Index(None, "org_id", "entity"),
    Index(None, "org_id", "replay"),
    Index(None, "at"),
    comment="What was given up.",
)

HOLDS: Final = Table(
    "holds",
    METADATA,
    *_names("org_id", "integration"),
    Column("reason", String, nullable=False),
    Column("detail", Text, nullable=False),
    Column("since", Moment, nullable=False),
    Column("until", Moment, nullable=False, comment="When the next call is tried."),
    Column("refused", Boolean, nullable=False, comment="Whether a person has to correct the configuration."),
    Column("version", Integer, nullable=False, comment="Of the integration: another version is not held."),
    comment="Integrations that are not called at the moment.",
)

INTEGRATIONS: Final = Table(
    "integrations",
    METADATA,
    *_names("org_id", "name"),
    Column("system", String, nullable=False),
    Column("role", String, nullable=False),
    Column("mode", String, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("settings", JSON, nullable=False),
    Column("secrets", JSON, nullable=False, comment="Names and times, never a value."),
    Column("version", Integer, nullable=False),
    Column("created_at", Moment, nullable=False),
    comment="Stored integrations, without secrets.",
)

KEPT: Final[Mapping[Table, timedelta]] = {
    ATTEMPTS: timedelta(days=7),
    WEBHOOKS: timedelta(days=7),
    FETCHES: timedelta(days=3),
    SWEEPS: timedelta(days=3),
    DEAD_LETTERS: timedelta(days=30),
}
"""How long rows of history are kept, by their column ``at``.

That is not longer than their topics are kept, so that a rebuilt view is equal to the one before. `OPERATIONS` stay.
"""
