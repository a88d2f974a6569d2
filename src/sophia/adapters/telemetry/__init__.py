"""Metrics, traces and logs; they never contain prompts or keys."""
