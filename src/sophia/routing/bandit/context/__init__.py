"""The request as numbers: embedding, task posterior and surface features."""
