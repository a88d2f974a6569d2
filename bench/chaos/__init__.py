"""Faults of upstreams, played to Sophia and to other gateways by the same program."""
