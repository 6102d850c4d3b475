"""A server as the `pipe` command speaks to it: by its API alone."""
