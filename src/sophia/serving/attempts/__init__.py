"""Upstream attempts: reservation, dispatch, failover, the answer and its bill."""
