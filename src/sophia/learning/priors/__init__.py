"""Quality priors of models: reading, and evidence from probes."""
