"""Where Sophia meets the outside: upstreams, stores, telemetry and the clock."""
