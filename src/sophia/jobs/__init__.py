"""Background jobs, one function each, called by a timer."""
