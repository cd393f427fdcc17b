"""Create the tables of the query view."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from streams.view.tables import Moment

revision: str = "0001"
down_revision: str | None = None
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("org_id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("connection", sa.String(), autoincrement=False, nullable=False),
        sa.Column("first_sweep", sa.String(), nullable=True),
        sa.Column("completed_at", Moment(), nullable=True),
        sa.Column("entities", sa.Integer(), nullable=False),
        sa.Column("held_removals", sa.Integer(), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False, comment="The row of table rent-roll."),
        sa.PrimaryKeyConstraint("org_id", "connection", name=op.f("pk_accounts")),
        comment="Connections that were read in full.",
    )
    op.create_table(
        "dead_letters",
        sa.Column("org_id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("partition", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("offset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("origin", sa.String(), nullable=False),
        sa.Column("flow", sa.String(), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("first_failed_at", Moment(), nullable=True),
        sa.Column("at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("org_id", "partition", "offset", name=op.f("pk_dead_letters")),
        comment="What was given up.",
    )
    op.create_index(op.f("ix_dead_letters_at"), "dead_letters", ["at"], unique=False)
    op.create_index(op.f("ix_dead_letters_org_id_at"), "dead_letters", ["org_id", "at"], unique=False)
    op.create_table(
        "deliveries",
        sa.Column("org_id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("receiver", sa.String(), autoincrement=False, nullable=False),
        sa.Column("connection", sa.String(), autoincrement=False, nullable=False),
        sa.Column("property_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("phase", sa.String(), nullable=False, comment="idle, in_flight, waiting or owed"),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("mode", sa.String(), nullable=True),
        sa.Column("sync_id", sa.String(), nullable=True),
        sa.Column("batch_id", sa.String(), nullable=True),
        sa.Column("cut_at", Moment(), nullable=True),
        sa.Column(
            "owed_since",
            Moment(),
            nullable=True,
            comment="When the oldest change was seen that the receiver may not know.",
        ),
        sa.Column("acknowledged_at", Moment(), nullable=True),
        sa.Column("next_attempt", Moment(), nullable=True),
        sa.Column("given_up_at", Moment(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("org_id", "receiver", "connection", "property_id", name=op.f("pk_deliveries")),
        comment="What each receiver knows of each property.",
    )
    op.create_index(op.f("ix_deliveries_org_id_phase"), "deliveries", ["org_id", "phase"], unique=False)
    op.create_index(
        op.f("ix_deliveries_org_id_property_id_receiver_connection"),
        "deliveries",
        ["org_id", "property_id", "receiver", "connection"],
        unique=False,
    )
    op.create_table(
        "delivery_attempts",
        sa.Column("org_id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("receiver", sa.String(), autoincrement=False, nullable=False),
        sa.Column("connection", sa.String(), autoincrement=False, nullable=False),
        sa.Column("property_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("batch_id", sa.String(), nullable=True),
        sa.Column("sync_id", sa.String(), nullable=True),
        sa.Column("mode", sa.String(), nullable=True),
        sa.Column("units", sa.Integer(), nullable=True),
        sa.Column("cut_at", Moment(), nullable=True),
        sa.Column("seen_at", Moment(), nullable=True),
        sa.Column("result", sa.String(), nullable=True, comment="Null as long as there is no answer."),
        sa.Column("http_status", sa.Integer(), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("ended_at", Moment(), nullable=True),
        sa.Column("next_attempt", Moment(), nullable=True),
        sa.Column("at", Moment(), nullable=True, comment="When it was cut."),
        sa.PrimaryKeyConstraint(
            "org_id", "receiver", "connection", "property_id", "version", "attempt", name=op.f("pk_delivery_attempts")
        ),
        comment="Batches that were sent, and what receivers answered.",
    )
    op.create_index(op.f("ix_delivery_attempts_at"), "delivery_attempts", ["at"], unique=False)
    op.create_index(op.f("ix_delivery_attempts_org_id_at"), "delivery_attempts", ["org_id", "at"], unique=False)
    op.create_index(
        op.f("ix_delivery_attempts_org_id_property_id_at"),
        "delivery_attempts",
        ["org_id", "property_id", "at"],
        unique=False,
    )
    op.create_table(
        "fetches",
        sa.Column("org_id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("partition", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("offset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("connection", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("entity", sa.BigInteger(), nullable=True, comment="The first one."),
        sa.Column("entities", sa.Integer(), nullable=False),
        sa.Column("missing", sa.Integer(), nullable=False, comment="How many of them do not exist."),
        sa.Column("seen_at", Moment(), nullable=True),
        sa.Column("at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("org_id", "partition", "offset", name=op.f("pk_fetches")),
        comment="Reads of single entities and pulses; those of sweeps are in sweeps.",
    )
    op.create_index(op.f("ix_fetches_at"), "fetches", ["at"], unique=False)
    op.create_index(op.f("ix_fetches_org_id_at"), "fetches", ["org_id", "at"], unique=False)
    op.create_table(
        "integrations",
        sa.Column("org_id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(), autoincrement=False, nullable=False),
        sa.Column("system", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("mode", sa.String(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("secrets", sa.JSON(), nullable=False, comment="Names and times, never a value."),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("org_id", "name", name=op.f("pk_integrations")),
        comment="Stored integrations, without secrets.",
    )
    op.create_table(
        "known_units",
        sa.Column("org_id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("receiver", sa.String(), autoincrement=False, nullable=False),
        sa.Column("connection", sa.String(), autoincrement=False, nullable=False),
        sa.Column("unit_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("property_id", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("org_id", "receiver", "connection", "unit_id", name=op.f("pk_known_units")),
        comment="What each receiver acknowledged of each unit.",
    )
    op.create_table(
        "properties",
        sa.Column("org_id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("connection", sa.String(), autoincrement=False, nullable=False),
        sa.Column("property_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(), nullable=True),
        sa.Column("address", sa.String(), nullable=True),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("gone", sa.Boolean(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("fetched_at", Moment(), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False, comment="The row of table rent-roll."),
        sa.PrimaryKeyConstraint("org_id", "connection", "property_id", name=op.f("pk_properties")),
        comment="Properties as they were fetched last.",
    )
    op.create_table(
        "rent_roll",
        sa.Column("org_id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("connection", sa.String(), autoincrement=False, nullable=False),
        sa.Column("unit_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("property_id", sa.BigInteger(), nullable=False),
        sa.Column("code", sa.String(), nullable=False),
        sa.Column("building", sa.String(), nullable=True),
        sa.Column("state", sa.String(), nullable=False, comment="available, rented, unavailable or removed"),
        sa.Column("status", sa.String(), nullable=False, comment="The finer status."),
        sa.Column("is_available", sa.Boolean(), nullable=False),
        sa.Column("available_on", sa.Date(), nullable=True),
        sa.Column("when_available", sa.String(), nullable=True),
        sa.Column("rent", sa.Numeric(precision=14, scale=2), nullable=True),
        sa.Column("size", sa.Integer(), nullable=True),
        sa.Column("bedrooms", sa.Numeric(precision=5, scale=2), nullable=True),
        sa.Column("bathrooms", sa.Numeric(precision=5, scale=2), nullable=True),
        sa.Column("doubts", sa.JSON(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("fetched_at", Moment(), nullable=False),
        sa.Column(
            "offered", sa.Boolean(), nullable=False, comment="False as long as not everything was read that decides it."
        ),
        sa.Column(
            "digest",
            sa.LargeBinary(),
            nullable=True,
            comment="Of what a receiver gets; equal to the one in known_units if it knows it.",
        ),
        sa.Column(
            "changes_on", sa.Date(), nullable=True, comment="The next day on which it may change without an event."
        ),
        sa.Column("search", sa.String(), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False, comment="The row of table rent-roll."),
        sa.PrimaryKeyConstraint("org_id", "connection", "unit_id", name=op.f("pk_rent_roll")),
        comment="The current rent roll, one row a unit.",
    )
    op.create_index(
        "ix_rent_roll_changes_on",
        "rent_roll",
        ["org_id", "connection", "changes_on"],
        unique=False,
        sqlite_where=sa.text("changes_on IS NOT NULL"),
        postgresql_where=sa.text("changes_on IS NOT NULL"),
    )
    op.create_index(
        "ix_rent_roll_not_offered",
        "rent_roll",
        ["org_id", "connection"],
        unique=False,
        sqlite_where=sa.text("offered = 0"),
        postgresql_where=sa.text("NOT offered"),
    )
    op.create_index(
        op.f("ix_rent_roll_org_id_property_id_connection_unit_id"),
        "rent_roll",
        ["org_id", "property_id", "connection", "unit_id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_rent_roll_org_id_state_connection_unit_id"),
        "rent_roll",
        ["org_id", "state", "connection", "unit_id"],
        unique=False,
    )
    op.create_table(
        "sweep_progress",
        sa.Column("org_id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("connection", sa.String(), autoincrement=False, nullable=False),
        sa.Column("sweep", sa.String(), nullable=False),
        sa.Column("started_at", Moment(), nullable=False),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("stages", sa.Integer(), nullable=False),
        sa.Column("read", sa.Integer(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=True),
        sa.Column("failed", sa.Text(), nullable=True),
        sa.Column("at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("org_id", "connection", name=op.f("pk_sweep_progress")),
        comment="How far the last full read of each account is, or why it failed.",
    )
    op.create_table(
        "sweeps",
        sa.Column("org_id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("connection", sa.String(), autoincrement=False, nullable=False),
        sa.Column("sweep", sa.String(), autoincrement=False, nullable=False),
        sa.Column("started_at", Moment(), nullable=False),
        sa.Column("entities", sa.Integer(), nullable=False),
        sa.Column("pages", sa.Integer(), nullable=False),
        sa.Column("torn", sa.Boolean(), nullable=False, comment="The account changed while it was read."),
        sa.Column("denied", sa.JSON(), nullable=False, comment="Kinds of entities that the credentials may not read."),
        sa.Column("at", Moment(), nullable=False, comment="When it ended."),
        sa.PrimaryKeyConstraint("org_id", "connection", "sweep", name=op.f("pk_sweeps")),
        comment="Full reads of accounts that ended.",
    )
    op.create_index(op.f("ix_sweeps_at"), "sweeps", ["at"], unique=False)
    op.create_index(op.f("ix_sweeps_org_id_at"), "sweeps", ["org_id", "at"], unique=False)
    op.create_table(
        "sync_operations",
        sa.Column("org_id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("connection", sa.String(), nullable=True),
        sa.Column("type", sa.String(), nullable=True, comment="CREATE, UPDATE or DELETE"),
        sa.Column("entity", sa.String(), nullable=True, comment="property or owner"),
        sa.Column("local_id", sa.String(), nullable=True),
        sa.Column("buildium_id", sa.BigInteger(), nullable=True),
        sa.Column(
            "status", sa.String(), server_default="PENDING", nullable=False, comment="or IN_PROGRESS, COMPLETED, FAILED"
        ),
        sa.Column("error_code", sa.String(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_attempt", Moment(), nullable=True),
        sa.Column("next_attempt", Moment(), nullable=True),
        sa.Column("data", sa.JSON(none_as_null=True), nullable=True, comment="What was asked for."),
        sa.Column("created_at", Moment(), nullable=True),
        sa.Column("updated_at", Moment(), nullable=True),
        sa.PrimaryKeyConstraint("org_id", "id", name=op.f("pk_sync_operations")),
        comment="What upstream apps asked for, and what became of it.",
    )
    op.create_index(
        op.f("ix_sync_operations_org_id_entity_local_id_created_at"),
        "sync_operations",
        ["org_id", "entity", "local_id", "created_at"],
        unique=False,
    )
    op.create_index(
        op.f("ix_sync_operations_org_id_status_updated_at"),
        "sync_operations",
        ["org_id", "status", "updated_at"],
        unique=False,
    )
    op.create_table(
        "view_positions",
        sa.Column("topic", sa.String(), autoincrement=False, nullable=False),
        sa.Column("partition", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("next_offset", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("topic", "partition", name=op.f("pk_view_positions")),
        comment="How far each partition is in the view; written in one transaction with the rows.",
    )
    op.create_table(
        "view_state",
        sa.Column("name", sa.String(), autoincrement=False, nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_view_state")),
        comment="as_of: everything that was written before is in the view.",
    )
    op.create_table(
        "view_terms",
        sa.Column("org_id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("connection", sa.String(), autoincrement=False, nullable=False),
        sa.Column("terms", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("org_id", "connection", name=op.f("pk_view_terms")),
        comment="The settings of each connection that its units were derived with.",
    )
    op.create_table(
        "webhooks",
        sa.Column("org_id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("partition", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("offset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("connection", sa.String(), nullable=False),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("entity", sa.BigInteger(), nullable=True),
        sa.Column("occurred_at", Moment(), nullable=True),
        sa.Column("ignored", sa.String(), nullable=True),
        sa.Column("at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("org_id", "partition", "offset", name=op.f("pk_webhooks")),
        comment="Webhooks that were accepted.",
    )
    op.create_index(op.f("ix_webhooks_at"), "webhooks", ["at"], unique=False)
    op.create_index(op.f("ix_webhooks_org_id_at"), "webhooks", ["org_id", "at"], unique=False)
    op.create_index(op.f("ix_webhooks_org_id_entity_at"), "webhooks", ["org_id", "entity", "at"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_webhooks_org_id_entity_at"), table_name="webhooks")
    op.drop_index(op.f("ix_webhooks_org_id_at"), table_name="webhooks")
    op.drop_index(op.f("ix_webhooks_at"), table_name="webhooks")
    op.drop_table("webhooks")
    op.drop_table("view_terms")
    op.drop_table("view_state")
    op.drop_table("view_positions")
    op.drop_index(op.f("ix_sync_operations_org_id_status_updated_at"), table_name="sync_operations")
    op.drop_index(op.f("ix_sync_operations_org_id_entity_local_id_created_at"), table_name="sync_operations")
    op.drop_table("sync_operations")
    op.drop_index(op.f("ix_sweeps_org_id_at"), table_name="sweeps")
    op.drop_index(op.f("ix_sweeps_at"), table_name="sweeps")
    op.drop_table("sweeps")
    op.drop_table("sweep_progress")
    op.drop_index(op.f("ix_rent_roll_org_id_state_connection_unit_id"), table_name="rent_roll")
    op.drop_index(op.f("ix_rent_roll_org_id_property_id_connection_unit_id"), table_name="rent_roll")
    op.drop_index(
        "ix_rent_roll_not_offered",
        table_name="rent_roll",
        sqlite_where=sa.text("offered = 0"),
        postgresql_where=sa.text("NOT offered"),
    )
    op.drop_index(
        "ix_rent_roll_changes_on",
        table_name="rent_roll",
        sqlite_where=sa.text("changes_on IS NOT NULL"),
        postgresql_where=sa.text("changes_on IS NOT NULL"),
    )
    op.drop_table("rent_roll")
    op.drop_table("properties")
    op.drop_table("known_units")
    op.drop_table("integrations")
    op.drop_index(op.f("ix_fetches_org_id_at"), table_name="fetches")
    op.drop_index(op.f("ix_fetches_at"), table_name="fetches")
    op.drop_table("fetches")
    op.drop_index(op.f("ix_delivery_attempts_org_id_property_id_at"), table_name="delivery_attempts")
    op.drop_index(op.f("ix_delivery_attempts_org_id_at"), table_name="delivery_attempts")
    op.drop_index(op.f("ix_delivery_attempts_at"), table_name="delivery_attempts")
    op.drop_table("delivery_attempts")
    op.drop_index(op.f("ix_deliveries_org_id_property_id_receiver_connection"), table_name="deliveries")
    op.drop_index(op.f("ix_deliveries_org_id_phase"), table_name="deliveries")
    op.drop_table("deliveries")
    op.drop_index(op.f("ix_dead_letters_org_id_at"), table_name="dead_letters")
    op.drop_index(op.f("ix_dead_letters_at"), table_name="dead_letters")
    op.drop_table("dead_letters")
    op.drop_table("accounts")
