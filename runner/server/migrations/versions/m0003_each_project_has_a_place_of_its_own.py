"""Each project has a place of its own, and runs from before a project are of a former one of its name."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """From the version before to this one."""
    op.create_table(
        "places",
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("place"),
    )
    with op.batch_alter_table("projects", schema=None) as batch_op:
        batch_op.add_column(sa.Column("place", sa.Text(), server_default="", nullable=False))
    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("place", sa.Text(), server_default="", nullable=False))
    op.execute("ALTER TABLE uids RENAME COLUMN project TO place")
    # until now a project was where every former one of its name had been
    op.execute("UPDATE projects SET place = name")
    op.execute("UPDATE runs SET place = project")
    named = "SELECT name FROM projects UNION SELECT project FROM runs UNION SELECT place FROM uids"
    op.execute(f"INSERT INTO places (place, project) SELECT name, name FROM ({named}) AS named")  # noqa: S608
    for table, since in (("runs", "created"), ("deliveries", "received")):
        later = f"(SELECT 1 FROM projects WHERE projects.name = {table}.project AND projects.created > {table}.{since})"  # noqa: S608
        op.execute(f"UPDATE {table} SET project = project || '~0' WHERE EXISTS {later}")  # noqa: S608
    there = "EXISTS (SELECT 1 FROM runs WHERE runs.project = keeps.project || '~0')"
    kept = f"SELECT project || '~0', what, most, days FROM keeps WHERE {there}"  # noqa: S608
    op.execute(f"INSERT INTO keeps (project, what, most, days) {kept}")
