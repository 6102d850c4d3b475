"""Executing a plan: processes, journal, sinks and the command line."""
