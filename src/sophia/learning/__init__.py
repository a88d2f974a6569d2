"""Learning from feedback: reliability, online policy, rollout, snapshots and evaluation."""
