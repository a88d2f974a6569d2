"""Budgets over several processes: reservations per second, overspend and false refusals."""
