"""The data plane: OpenAI's and OpenRouter's shapes under /v1 and /api/v1."""
