"""Servers that answer calls: OpenRouter, and any other with OpenAI's protocol."""
