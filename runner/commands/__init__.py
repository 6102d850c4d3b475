"""What each sub-command of `pipe` does; the command line itself only reads the words."""
