"""Commands for the database of the store."""
