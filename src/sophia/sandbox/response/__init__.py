"""Answers on the wire, at a model's speed and with the faults of a script."""
