"""Git: network work by the git program with fixed argument lists, local reading by GitPython."""
