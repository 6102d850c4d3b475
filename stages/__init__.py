"""What a stage does: one kind a file, knowing nobody but its context."""
