"""Features of a prompt: counts, language, task type and complexity."""
