"""Gateway benchmark: one gateway at a time on one core, compared within a round."""
