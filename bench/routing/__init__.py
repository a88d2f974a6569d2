"""Routing measured on real outcomes: which policy to trust, and how much."""
