"""Policies evaluated on tables of outcomes."""
