"""`--output`: which renderer is meant; it is imported when it is chosen."""

import sys
from collections.abc import Mapping
from io import TextIOWrapper

from runner.sinks.sink import Renderer

__all__ = ["renderer"]


def renderer(output: str, environ: Mapping[str, str]) -> Renderer:
    """The renderer for `auto`, `tty`, `plain` or `json`; it writes to stdout."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    if output == "auto":
        on_screen = sys.stdout.isatty() and environ.get("TERM") != "dumb" and not environ.get("CI")
        output = "tty" if on_screen else "plain"
    if output == "json":
        from runner.sinks.json_lines import JsonLines

        return JsonLines(sys.stdout.buffer)
    if output == "tty":
        from runner.sinks.tty import Tty

        return Tty(sys.stdout, colour="NO_COLOR" not in environ)
    from runner.sinks.groups import groups_for
    from runner.sinks.plain import Plain

    return Plain(sys.stdout, groups_for(environ))
