"""One operation on the learned policy per module, for commands."""
