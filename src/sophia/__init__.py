"""Sophia: one base_url in front of OpenRouter's models, the right one for each request."""

__version__ = "0.1.0"
