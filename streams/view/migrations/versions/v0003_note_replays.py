"""Note after which replay a record was given up."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.add_column(
        "dead_letters",
        sa.Column("replay", sa.String(), nullable=True, comment="The replay that it was given up after."),
    )
    op.create_index(op.f("ix_dead_letters_org_id_replay"), "dead_letters", ["org_id", "replay"], unique=False)


def downgrade() -> None:
    raise NotImplementedError("an older release builds the view again: rentstream view rebuild")
