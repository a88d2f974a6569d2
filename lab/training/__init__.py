"""Training of the shipped task and complexity models."""
