"""Routing policies that the product's own policy is compared with."""
