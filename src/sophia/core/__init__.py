"""Nouns and seams of Sophia: standard library only, no I/O."""
