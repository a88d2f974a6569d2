"""Expected quality per arm: a hierarchical Bayesian model."""
