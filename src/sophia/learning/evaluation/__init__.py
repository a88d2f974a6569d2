"""Off-policy evaluation on the ledger's decisions."""
