"""Helm releases: the program, what it records in the cluster, and what is to be said of both."""
