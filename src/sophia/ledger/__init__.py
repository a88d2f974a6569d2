"""Costs of attempts."""
