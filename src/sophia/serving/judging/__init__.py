"""A judge model that scores sampled answers."""
