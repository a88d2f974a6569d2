"""Checked answers and escalation to a better model."""
