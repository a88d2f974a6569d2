"""The gateway benchmark: one gateway at a time on one core, peers beside it, ratios inside a round."""
