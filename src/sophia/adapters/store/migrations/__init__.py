"""Schema changes, one file each: expand or contract, never both."""
