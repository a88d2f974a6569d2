"""Routing benchmark on tables of recorded outcomes."""
