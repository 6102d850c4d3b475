"""The tests; run them from the root of the repository."""
