"""Applying manifests, judging rollouts and saying why one fails."""
