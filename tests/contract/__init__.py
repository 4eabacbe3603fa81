"""The same promise kept by every implementation: SQLite and PostgreSQL, process and Valkey."""
