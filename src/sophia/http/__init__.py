"""HTTP: wire formats and server frameworks are known here only."""
