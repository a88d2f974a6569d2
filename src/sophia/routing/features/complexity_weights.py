"""The trained line of `complexity`, in log-odds; written by `lab/training/complexity.py`."""

BIAS = -1.4770
WEIGHTS = (0.4221, -5.5246, 0.0000, 2.1823, 4.0890, 1.2544, 0.2252, 0.0693, 0.3359)
