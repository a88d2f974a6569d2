"""Decisions explained: the stored trace, its JSON form, and refusals."""
