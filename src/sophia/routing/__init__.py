"""Decide: features, constraints, rules, policy, cost, plan. Pure, synchronous, seeded."""
