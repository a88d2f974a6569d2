"""Models: their names, abilities and dated prices."""
