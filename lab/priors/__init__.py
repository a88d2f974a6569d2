"""Quality priors fitted from published benchmarks."""
