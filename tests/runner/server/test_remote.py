"""The `pipe` command speaks to a server as it does to runs on its own machine."""
