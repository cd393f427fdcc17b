"""Note after which replay a record was given up, which entity it was to read, where batches are, and holds."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from streams.view.tables import Moment

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    for column in (
        sa.Column("kind", sa.String(), nullable=True, comment="Of an entity that is to be read."),
        sa.Column("pms_id", sa.BigInteger(), nullable=True, comment="The id of the entity that is to be read."),
        sa.Column("replay", sa.String(), nullable=True, comment="The replay that it was given up after."),
    ):
        op.add_column("dead_letters", column)
    op.add_column(
        "delivery_attempts",
        sa.Column("partition", sa.Integer(), nullable=True, comment="Where the batch is on its topic."),
    )
    op.add_column("delivery_attempts", sa.Column("offset", sa.BigInteger(), nullable=True))
    op.create_index(op.f("ix_dead_letters_org_id_replay"), "dead_letters", ["org_id", "replay"], unique=False)
    op.create_table(
        "holds",
        sa.Column("org_id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("integration", sa.String(), autoincrement=False, nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("since", Moment(), nullable=False),
        sa.Column("until", Moment(), nullable=False, comment="When the next call is tried."),
        sa.Column(
            "refused", sa.Boolean(), nullable=False, comment="Whether a person has to correct the configuration."
        ),
        sa.Column("version", sa.Integer(), nullable=False, comment="Of the integration: another version is not held."),
        sa.PrimaryKeyConstraint("org_id", "integration", name=op.f("pk_holds")),
        comment="Integrations that are not called at the moment.",
    )
    # The letters, the batches and the holds are read from their topics again.
    op.execute("DELETE FROM dead_letters")
    op.execute(
        "DELETE FROM view_positions WHERE topic IN ('dead-letters', 'deliveries.batches', 'integrations.status')"
    )


def downgrade() -> None:
    raise NotImplementedError("an older release builds the view again: rentstream view rebuild")
