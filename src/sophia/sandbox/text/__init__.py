"""The text of the sandbox's answers, from templates or from a small local model."""
