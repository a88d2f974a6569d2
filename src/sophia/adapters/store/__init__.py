"""Durable storage in SQLite: the ledger, keys, decisions, feedback and lessons."""
