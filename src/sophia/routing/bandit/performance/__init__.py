"""Answer length, latency and failure rate per arm."""
