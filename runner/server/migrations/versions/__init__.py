"""The migrations, in the order of their numbers; `python -m tests.migrate WORDS` writes the next one."""
