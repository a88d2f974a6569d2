"""Feedback, explicit and implicit, handed to the learned policy."""
