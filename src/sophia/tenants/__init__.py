"""Who may ask, for which models, and how much it may cost."""
