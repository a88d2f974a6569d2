"""Doubles for tests: an in-memory store and a manual clock."""
