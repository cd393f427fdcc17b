"""Describe dead letters: their entity, and which ones are alike."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from streams.view.tables import Moment

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.drop_table("dead_letters")
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
        sa.Column("fingerprint", sa.String(), nullable=False, comment="Equal for failures of the same kind."),
        sa.Column("connection", sa.String(), nullable=True),
        sa.Column("receiver", sa.String(), nullable=True),
        sa.Column("entity", sa.String(), nullable=True, comment="KIND:ID with the id in the PMS, or our id."),
        sa.Column("property_id", sa.BigInteger(), nullable=True, comment="Of a delivery."),
        sa.Column("operation", sa.String(), nullable=True, comment="Of a command."),
        sa.Column("replays", sa.Integer(), nullable=False),
        sa.Column("first_failed_at", Moment(), nullable=True),
        sa.Column("at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("org_id", "partition", "offset", name=op.f("pk_dead_letters")),
        comment="What was given up.",
    )
    op.create_index(op.f("ix_dead_letters_at"), "dead_letters", ["at"], unique=False)
    op.create_index(op.f("ix_dead_letters_org_id_at"), "dead_letters", ["org_id", "at"], unique=False)
    op.create_index(op.f("ix_dead_letters_org_id_entity"), "dead_letters", ["org_id", "entity"], unique=False)
    op.create_index(
        op.f("ix_dead_letters_org_id_fingerprint_at"), "dead_letters", ["org_id", "fingerprint", "at"], unique=False
    )
    op.create_index(
        op.f("ix_fetches_org_id_connection_kind_entity_at"),
        "fetches",
        ["org_id", "connection", "kind", "entity", "at"],
        unique=False,
    )
    # The letters are read from their topic again.
    op.execute("DELETE FROM view_positions WHERE topic = 'dead-letters'")


def downgrade() -> None:
    raise NotImplementedError("an older release builds the view again: rentstream view rebuild")
