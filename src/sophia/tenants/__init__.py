"""API keys and their budgets."""
