"""Do: one request from admission to settlement. Everything is decided elsewhere."""
