"""Implementations of the ports: upstreams, store, telemetry, budgets and the clock."""
