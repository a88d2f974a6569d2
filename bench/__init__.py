"""Benchmarks of Sophia: they import sophia, nothing imports them."""
