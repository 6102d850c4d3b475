"""Which kinds of stage are installed, here and by other distributions; none is imported before it is asked for."""

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Final, TypeAlias

from pipeline.errors import PipeError, nearest
from pipeline.stage import Outputs, Stage

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["BrokenKind", "UnknownKind", "installed", "kind", "names"]

GROUP: Final = "pipe.stages"
"""The entry points by which other distributions announce kinds."""

Kind: TypeAlias = type[Stage[Outputs]]

# entry points of our own would cost every start the reading of all that is installed
_OURS: Final = {
    "checkout": "stages.checkout:Checkout",
    "deploy": "stages.deploy:Deploy",
    "helm": "stages.helm:Helm",
    "image": "stages.image:Image",
    "mail": "stages.mail:Mail",
    "maven": "stages.maven:Maven",
    "npm": "stages.npm:Npm",
    "probe": "stages.probe:Probe",
    "push": "stages.push:Push",
    "release": "stages.release:Release",
    "rollback": "stages.rollback:Rollback",
    "shell": "stages.shell:Shell",
    "ticket": "stages.ticket:Ticket",
}


class UnknownKind(PipeError):
    """No installed distribution has a kind of that name."""

    def __init__(self, name: str) -> None:
        hint = nearest(name, names())
        super().__init__(f"there is no kind '{name}'" + (f"; {hint}" if hint else ""))


class BrokenKind(PipeError):
    """A distribution announces a kind that cannot be used."""

    def __init__(self, entry: "EntryPoint", reason: str) -> None:
        owner = f" of {entry.dist.name}" if entry.dist else ""
        super().__init__(
            f"the kind '{entry.name}' cannot be loaded: entry point '{entry.value}'{owner}: {reason}; "
            "repair or uninstall that package"
        )


def names() -> tuple[str, ...]:
    """The names of all installed kinds, sorted; imports none of them."""
    return tuple(sorted({*_OURS, *_others()}))


@cache
def kind(name: str) -> Kind:
    """Import one kind.

    Raises:
        UnknownKind: no such kind is installed.
        BrokenKind: its module cannot be imported, or what it names is no kind.
    """
    if name in _OURS:
        module, _, attribute = _OURS[name].partition(":")
        found: Kind = getattr(import_module(module), attribute)
        return found
    try:
        return _loaded(_others()[name])
    except KeyError:
        raise UnknownKind(name) from None


def installed() -> Mapping[str, Kind]:
    """All installed kinds by name; each is imported when it is looked up."""
    return _Installed()


class _Installed(Mapping[str, Kind]):
    def __getitem__(self, name: str) -> Kind:
        if name not in self:
            raise KeyError(name)
        return kind(name)

    def __contains__(self, name: object) -> bool:
        return name in _OURS or name in _others()

    def __iter__(self) -> Iterator[str]:
        return iter(names())

    def __len__(self) -> int:
        return len(names())


@cache
def _others() -> "Mapping[str, EntryPoint]":
    from importlib.metadata import entry_points

    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        if entry.name in _OURS:
            raise BrokenKind(entry, "pipe has a kind of that name itself")
        other = found.setdefault(entry.name, entry)
        if other.value != entry.value:
            raise BrokenKind(entry, f"'{other.value}' has that name already")
    return found


def _loaded(entry: "EntryPoint") -> Kind:
    try:
        loaded: object = entry.load()
    except Exception as error:
        raise BrokenKind(entry, f"{type(error).__name__}: {error}") from error
    if not (isinstance(loaded, type) and issubclass(loaded, Stage)):
        raise BrokenKind(entry, "it is no Stage")
    return loaded
