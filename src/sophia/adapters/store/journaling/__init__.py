"""A journal for each process that serves: its files, its thread, and the lock of its number."""
