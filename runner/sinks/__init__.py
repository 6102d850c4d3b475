"""Readers of a run's events and logs: they may lag or fail, the engine never waits for one."""
