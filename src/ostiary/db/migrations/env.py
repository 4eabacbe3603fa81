"""Alembic's entry: runs on the connection it is given, inside its transaction."""

from alembic import context

from ostiary.db import schema

connection = context.config.attributes["connection"]
context.configure(
    connection=connection, target_metadata=schema.metadata, render_as_batch=connection.dialect.name == "sqlite"
)
context.run_migrations()
