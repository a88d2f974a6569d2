"""The learned policy's part in a decision."""
