"""Costs of attempts, known and unknown."""
