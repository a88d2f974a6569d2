"""A double for tests: a manual clock."""
