"""What one server knows. A file from before there were versions keeps what it holds, and gets what it lacks."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.schema import CreateColumn

revision = "0001"
down_revision = None

_known = sa.MetaData()
sa.Table(
    "projects",
    _known,
    sa.Column("name", sa.Text(), primary_key=True),
    sa.Column("url", sa.Text(), nullable=False),
    sa.Column("file", sa.Text(), nullable=False),
    sa.Column("forge", sa.Text(), nullable=False),
    sa.Column("created", sa.Float(), nullable=False),
    sa.Column("secret", sa.LargeBinary(), nullable=False),
    sa.Column("login", sa.LargeBinary(), nullable=False),
    sa.Column("token", sa.LargeBinary(), nullable=False),
    sa.Column("trusted", sa.Text(), server_default="", nullable=False),
    sa.Column("followers", sa.Text(), server_default="", nullable=False),
    sa.Column("public_badge", sa.Boolean(), server_default=sa.false(), nullable=False),
)
sa.Table(
    "secrets",
    _known,
    sa.Column("project", sa.Text(), primary_key=True),
    sa.Column("name", sa.Text(), primary_key=True),
    sa.Column("kind", sa.Text(), nullable=False),
    sa.Column("sealed", sa.LargeBinary(), nullable=False),
    sa.Column("changed", sa.Float(), nullable=False),
)
sa.Table(
    "mirrors",
    _known,
    sa.Column("run", sa.Text(), primary_key=True),
    sa.Column("digest", sa.Text(), nullable=False),
)
sa.Table(
    "keeps",
    _known,
    sa.Column("project", sa.Text(), primary_key=True),
    sa.Column("what", sa.Text(), primary_key=True),
    sa.Column("most", sa.Integer(), nullable=False),
    sa.Column("days", sa.Integer(), nullable=False),
)
sa.Table(
    "uids",
    _known,
    sa.Column("project", sa.Text(), primary_key=True),
    sa.Column("uid", sa.Integer(), nullable=False, unique=True),
)
sa.Table(
    "deliveries",
    _known,
    sa.Column("id", sa.Text(), primary_key=True),
    sa.Column("project", sa.Text(), nullable=False),
    sa.Column("forge", sa.Text(), nullable=False),
    sa.Column("key", sa.Text(), nullable=False),
    sa.Column("received", sa.Float(), nullable=False),
    sa.Column("headers", sa.Text(), nullable=False),
    sa.Column("body", sa.LargeBinary(), nullable=False),
    sa.Column("size", sa.Integer(), nullable=False),
    sa.Column("state", sa.Text(), nullable=False),
    sa.Column("note", sa.Text(), nullable=False),
    sa.Column("copies", sa.Integer(), nullable=False),
    sa.Column("tries", sa.Integer(), nullable=False),
    sa.Column("due", sa.Float(), nullable=False),
    sa.Index("deliveries_due", "state", "due"),
    sa.Index(
        "deliveries_key",
        "project",
        "key",
        unique=True,
        sqlite_where=sa.text("state != 'refused'"),
        postgresql_where=sa.text("state != 'refused'"),
    ),
)
sa.Table(
    "runs",
    _known,
    sa.Column("id", sa.Text(), primary_key=True),
    sa.Column("project", sa.Text(), nullable=False),
    sa.Column("pipeline", sa.Text(), nullable=False),
    sa.Column("number", sa.Integer(), nullable=False),
    sa.Column("event", sa.Text(), nullable=False),
    sa.Column("found_by", sa.Text(), nullable=False),
    sa.Column("delivery", sa.Text(), nullable=False),
    sa.Column("ref", sa.Text(), nullable=False),
    sa.Column("commit", sa.Text(), nullable=False),
    sa.Column("file_commit", sa.Text(), server_default="", nullable=False),
    sa.Column("fetched_from", sa.Text(), server_default="", nullable=False),
    sa.Column("chain", sa.Text(), server_default="[]", nullable=False),
    sa.Column("trigger", sa.Text(), nullable=False),
    sa.Column("params", sa.Text(), nullable=False),
    sa.Column("state", sa.Text(), nullable=False),
    sa.Column("approved_by", sa.Text(), server_default="", nullable=False),
    sa.Column("outcome", sa.Text(), nullable=False),
    sa.Column("note", sa.Text(), nullable=False),
    sa.Column("pid", sa.Integer(), nullable=False),
    sa.Column("revived", sa.Integer(), nullable=False),
    sa.Column("follow_at", sa.Float(), server_default="0", nullable=False),
    sa.Column("followed", sa.Boolean(), server_default=sa.false(), nullable=False),
    sa.Column("traced", sa.Boolean(), server_default=sa.false(), nullable=False),
    sa.Column("created", sa.Float(), nullable=False),
    sa.Column("started", sa.Float(), nullable=False),
    sa.Column("ended", sa.Float(), nullable=False),
    sa.UniqueConstraint("project", "pipeline", "event"),
    sa.UniqueConstraint("project", "pipeline", "number"),
    sa.Index("runs_state", "state", "created"),
    sa.Index("runs_ended", "project", "pipeline", "ref", "ended"),
)
sa.Table(
    "refs",
    _known,
    sa.Column("project", sa.Text(), primary_key=True),
    sa.Column("ref", sa.Text(), primary_key=True),
    sa.Column("commit", sa.Text(), nullable=False),
    sa.Column("moves", sa.Integer(), nullable=False),
)
sa.Table(
    "times",
    _known,
    sa.Column("project", sa.Text(), primary_key=True),
    sa.Column("at", sa.Text(), primary_key=True),
    sa.Column("zone", sa.Text(), primary_key=True),
    sa.Column("looked", sa.Float(), nullable=False),
)
sa.Table(
    "statuses",
    _known,
    sa.Column("run", sa.Text(), primary_key=True),
    sa.Column("state", sa.Text(), nullable=False),
    sa.Column("description", sa.Text(), nullable=False),
    sa.Column("tries", sa.Integer(), nullable=False),
    sa.Column("due", sa.Float(), nullable=False),
    sa.Column("told", sa.Boolean(), nullable=False),
    sa.Column("note", sa.Text(), nullable=False),
    sa.Index("statuses_due", "told", "due"),
)
sa.Table(
    "people",
    _known,
    sa.Column("name", sa.Text(), primary_key=True),
    sa.Column("password", sa.Text(), nullable=False),
    sa.Column("identity", sa.Text(), unique=True),
    sa.Column("created", sa.Float(), nullable=False),
)
sa.Table(
    "grants",
    _known,
    sa.Column("person", sa.Text(), primary_key=True),
    sa.Column("role", sa.Text(), primary_key=True),
    sa.Column("scope", sa.Text(), primary_key=True),
)
sa.Table(
    "sessions",
    _known,
    sa.Column("digest", sa.Text(), primary_key=True),
    sa.Column("person", sa.Text(), nullable=False),
    sa.Column("address", sa.Text(), nullable=False),
    sa.Column("created", sa.Float(), nullable=False),
    sa.Column("seen", sa.Float(), nullable=False),
    sa.Index("sessions_person", "person"),
)
sa.Table(
    "links",
    _known,
    sa.Column("digest", sa.Text(), primary_key=True),
    sa.Column("person", sa.Text(), nullable=False),
    sa.Column("expires", sa.Float(), nullable=False),
)
sa.Table(
    "targets",
    _known,
    sa.Column("project", sa.Text(), primary_key=True),
    sa.Column("name", sa.Text(), primary_key=True),
    sa.Column("url", sa.LargeBinary(), nullable=False),
    sa.Column("service", sa.Text(), nullable=False),
    sa.Column("events", sa.Text(), nullable=False),
    sa.Column("created", sa.Float(), nullable=False),
)
sa.Table(
    "notifications",
    _known,
    sa.Column("run", sa.Text(), primary_key=True),
    sa.Column("event", sa.Text(), primary_key=True),
    sa.Column("target", sa.Text(), primary_key=True),
    sa.Column("project", sa.Text(), nullable=False),
    sa.Column("tries", sa.Integer(), nullable=False),
    sa.Column("due", sa.Float(), nullable=False),
    sa.Column("told", sa.Boolean(), nullable=False),
    sa.Column("note", sa.Text(), nullable=False),
    sa.Index("notifications_due", "told", "due"),
)
_tokens = sa.Table(
    "tokens",
    _known,
    sa.Column("id", sa.Text(), primary_key=True),
    sa.Column("digest", sa.Text(), nullable=False, unique=True),
    sa.Column("name", sa.Text(), nullable=False),
    sa.Column("person", sa.Text(), nullable=False),
    sa.Column("role", sa.Text(), nullable=False),
    sa.Column("scope", sa.Text(), nullable=False),
    sa.Column("created", sa.Float(), nullable=False),
    sa.Column("expires", sa.Float(), nullable=False),
    sa.Column("used", sa.Float(), nullable=False),
    sa.Index("tokens_person", "person"),
)
sa.Table(
    "audit",
    _known,
    sa.Column("id", sa.Integer(), primary_key=True),
    sa.Column("at", sa.Float(), nullable=False),
    sa.Column("who", sa.Text(), nullable=False),
    sa.Column("by", sa.Text(), nullable=False),
    sa.Column("address", sa.Text(), nullable=False),
    sa.Column("action", sa.Text(), nullable=False),
    sa.Column("what", sa.Text(), nullable=False),
    sa.Column("project", sa.Text(), nullable=False),
    sa.Column("detail", sa.Text(), nullable=False),
)


def upgrade() -> None:
    """From nothing, or from any file that has no version yet, to this version."""
    there = {name: _columns(name) for name in sa.inspect(op.get_bind()).get_table_names()}
    if "id" not in there.get("tokens", ("id",)):
        _renew_tokens()
        del there["tokens"]
    _known.create_all(op.get_bind())
    for table in _known.sorted_tables:
        if table.name in there:
            _complete(table, there[table.name])
    op.execute("""UPDATE runs SET file_commit = "commit" WHERE file_commit = ''""")
    _protect_audit(op.get_bind().dialect.name)


def _columns(table: str) -> set[str]:
    return {column["name"] for column in sa.inspect(op.get_bind()).get_columns(table)}


def _complete(table: sa.Table, there: set[str]) -> None:
    """Add what a table of an older program lacks."""
    for column in table.columns:
        if column.name not in there:
            op.execute(f"ALTER TABLE {table.name} ADD COLUMN {CreateColumn(column).compile(op.get_bind())}")
    for index in table.indexes:
        index.create(op.get_bind(), checkfirst=True)


def _renew_tokens() -> None:
    """Give tokens a new key, which no database can alter; they may do what they could, which was everything."""
    rows = op.get_bind().execute(sa.text("SELECT digest, name, created FROM tokens")).all()
    op.drop_table("tokens")
    _tokens.create(op.get_bind())
    same = {"person": "", "role": "admin", "scope": "", "expires": 0.0, "used": 0.0}
    for digest, name, created in rows:
        row = {"id": digest[:26], "digest": digest, "name": name, "created": created, **same}
        op.get_bind().execute(_tokens.insert().values(row))


def _protect_audit(dialect: str) -> None:
    """Let lines be added to the audit log, and none be changed or removed."""
    said = "the audit log is only added to"
    if dialect == "sqlite":
        for change in ("update", "delete"):
            op.execute(
                f"CREATE TRIGGER IF NOT EXISTS audit_no_{change} BEFORE {change} ON audit "
                f"BEGIN SELECT RAISE(ABORT, '{said}'); END"
            )
        return
    op.execute(
        "CREATE FUNCTION audit_is_only_added_to() RETURNS trigger LANGUAGE plpgsql "
        f"AS $$ BEGIN RAISE EXCEPTION '{said}'; END $$"
    )
    op.execute(
        "CREATE TRIGGER audit_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_is_only_added_to()"
    )
