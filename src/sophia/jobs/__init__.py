"""Timers that call one function each."""
