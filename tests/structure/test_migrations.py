"""The migrations make exactly the schema, and the newest one is the one that is stated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from ostiary.db import schema
from ostiary.db.database import Database
from ostiary.db.migrate import HEAD, alembic_config, migrate


def test_head_is_the_newest_revision() -> None:
    script = ScriptDirectory.from_config(alembic_config())
    assert script.get_heads() == [HEAD]


def test_history_has_no_branch() -> None:
    revisions = list(ScriptDirectory.from_config(alembic_config()).walk_revisions())
    assert not any(revision.is_branch_point or revision.is_merge_point for revision in revisions)


def differences(connection: Connection) -> list[Any]:
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
    return [row for row in compare_metadata(context, schema.metadata) if "alembic_version" not in str(row)]


async def test_migrations_make_the_schema(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    await migrate(database)
    async with database.read() as tx:
        assert await tx.run_sync(differences) == []
    await database.close()


async def test_a_difference_would_be_seen(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    await migrate(database)
    async with database.transaction() as tx:
        await tx.exec_driver_sql("ALTER TABLE users ADD COLUMN forgotten TEXT")
    async with database.read() as tx:
        assert await tx.run_sync(differences)
    await database.close()
