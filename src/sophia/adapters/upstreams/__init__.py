"""Places that answer calls: OpenRouter, and anything that speaks OpenAI's protocol."""
