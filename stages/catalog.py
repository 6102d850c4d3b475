"""Which kinds of stage are installed, here and by other distributions; none is imported before it is asked for."""

from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TypeAlias

from pipeline.errors import PipeError, nearest
from pipeline.stage import Outputs, Stage

__all__ = ["BrokenKind", "UnknownKind", "installed", "kind", "names"]

GROUP = "pipe.stages"
Kind: TypeAlias = type[Stage[Outputs]]


class UnknownKind(PipeError):
    """No installed distribution has a kind of that name."""

    def __init__(self, name: str) -> None:
        hint = nearest(name, names())
        super().__init__(f"there is no kind '{name}'" + (f"; {hint}" if hint else ""))


class BrokenKind(PipeError):
    """A distribution announces a kind that cannot be used."""

    def __init__(self, entry: EntryPoint, reason: str) -> None:
        owner = f" of {entry.dist.name}" if entry.dist else ""
        super().__init__(
            f"the kind '{entry.name}' cannot be loaded: entry point '{entry.value}'{owner}: {reason}; "
            "repair or uninstall that package"
        )


def names() -> tuple[str, ...]:
    """The names of all installed kinds, sorted; imports none of them."""
    return tuple(sorted(_entries()))


@cache
def kind(name: str) -> Kind:
    """Import one kind.

    Raises:
        UnknownKind: no such kind is installed.
        BrokenKind: its module cannot be imported, or what it names is no kind.
    """
    try:
        entry = _entries()[name]
    except KeyError:
        raise UnknownKind(name) from None
    return _loaded(entry)


def installed() -> Mapping[str, Kind]:
    """All installed kinds by name; each is imported when it is looked up."""
    return _Installed()


class _Installed(Mapping[str, Kind]):
    def __getitem__(self, name: str) -> Kind:
        if name not in _entries():
            raise KeyError(name)
        return kind(name)

    def __contains__(self, name: object) -> bool:
        return name in _entries()

    def __iter__(self) -> Iterator[str]:
        return iter(names())

    def __len__(self) -> int:
        return len(_entries())


@cache
def _entries() -> Mapping[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        other = found.setdefault(entry.name, entry)
        if other.value != entry.value:
            raise BrokenKind(entry, f"'{other.value}' has that name already")
    return found


def _loaded(entry: EntryPoint) -> Kind:
    try:
        loaded: object = entry.load()
    except Exception as error:
        raise BrokenKind(entry, f"{type(error).__name__}: {error}") from error
    if not (isinstance(loaded, type) and issubclass(loaded, Stage)):
        raise BrokenKind(entry, "it is no Stage")
    return loaded
