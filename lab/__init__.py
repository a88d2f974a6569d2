"""Training, baselines, prior fitting and policy evaluation on tables; not part of the wheel."""
