"""OpenRouter's API as the sandbox serves it: requests, models, prices, pages and errors."""
