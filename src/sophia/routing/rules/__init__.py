"""Routing rules: reading, conditions and coverage."""
