"""The databases that can hold a store: SQLite's file in the data folder, or a PostgreSQL server."""
