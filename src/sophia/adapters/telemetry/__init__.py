"""What others can see of Sophia: metrics, traces and logs, never prompts or keys."""
