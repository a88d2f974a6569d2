"""Targets: models at upstreams, their health, what a failure means, and the order to ask them."""
