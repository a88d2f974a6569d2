"""The policy that learns while it serves, and its replay."""
