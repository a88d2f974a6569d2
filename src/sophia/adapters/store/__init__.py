"""What outlives the process: the ledger, keys, decisions and feedback."""
