"""Programs that do not get all of a stage's environment."""

from collections.abc import Iterable

__all__ = ["unset"]


def unset(names: Iterable[str]) -> list[str]:
    """The words in front of a command that take variables out of its environment; none if there are none to take."""
    words = [word for name in sorted(set(names)) for word in ("-u", name)]
    return ["env", *words] if words else []
