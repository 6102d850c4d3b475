"""How often the trace of a run was tried, and when it is next."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """From the version before to this one."""
    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("trace_tries", sa.Integer(), server_default="0", nullable=False))
        batch_op.add_column(sa.Column("trace_due", sa.Float(), server_default="0", nullable=False))
