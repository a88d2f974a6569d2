"""The stored trace of a decision, its replay, and refusals."""
