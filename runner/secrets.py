"""Where the values of declared secrets come from; they stay in this process until an attempt needs one."""

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pipeline.errors import PipeError
from pipeline.plan import Leaf, Plan, SecretSource
from pipeline.stage import Login, Secret, SecretFile, SecretText
from runner.handover import Received, taken
from runner.hosts import Host
from runner.secret_stores.store import SecretStore, secret_in

__all__ = [
    "Secrets",
    "find_secrets",
    "look_up",
    "not_found",
    "read_file",
    "search_secrets",
    "variables",
    "wanted_secrets",
]

_KEY_MATERIAL = re.compile(
    r"[A-Za-z0-9+/=_-]{24,}"
    r"|(?<=-----\n)[^-\n]{8,}"
    r"|(?i:(?<=password)|(?<=token)|(?<=secret)|(?<=passwd)|(?<=pass)|(?<=pwd)|(?<=key))[\"']?\s*[:=>]\s*[\"']?([^\s\"'<]{4,})"
)
"""What is secret in a file of several lines: keys, and what stands behind `password`, `token`, `secret` or `key`.

Masking its every line would mask `apiVersion: v1` in all logs.
"""

_PARTS = {"text": ("",), "login": ("_USERNAME", "_PASSWORD"), "file": ("_FILE",), "ssh": ("_FILE",)}


@dataclass(frozen=True, slots=True)
class Secrets:
    """The values of a plan's secrets, by declared name. Files are named, not read."""

    values: Mapping[str, Secret]
    variables: frozenset[str]
    """Host variables that a value came from or could have come from: no process gets them."""
    origins: Mapping[str, str] = field(default_factory=dict)
    """Where each was found, in a few words."""

    def get(self, name: str) -> Secret:
        """The value of a declared secret. Raises KeyError when no leaf names it."""
        return self.values[name]

    def texts(self) -> Iterable[str]:
        """All texts that must never be seen."""
        for value in self.values.values():
            match value:
                case SecretText():
                    yield value.value
                case Login():
                    yield value.password
                case SecretFile():
                    text = value.path.read_text("utf-8", "surrogateescape").strip()
                    if len(text.splitlines()) == 1:
                        yield text
                    yield from (match[1] or match[0] for match in _KEY_MATERIAL.finditer(text))


def find_secrets(plan: Plan, host: Host, store: Path, *, last_only: bool = False) -> Secrets:
    """Find every secret that a leaf of the plan wants.

    The first place that has it wins: host variables, `secrets.env` in the store, then what `PIPE_SECRETS` names.
    What a host has handed over comes from nowhere else. `last_only`: nothing but `finally` will run, so only
    what that wants must be there.

    Raises:
        PipeError: some are missing, each on one line with the places that were tried and the stages that
            want it; a place cannot be read; or `secrets.env` may be read by others.
    """
    found, missing = search_secrets(plan, host, store, last_only=last_only)
    if missing:
        raise PipeError("\n".join(not_found(missing)))
    return found


def search_secrets(plan: Plan, host: Host, store: Path, *, last_only: bool = False) -> tuple[Secrets, dict[str, str]]:
    """The secrets that are there, and by name where each of the others was looked for.

    Raises:
        PipeError: a place cannot be read, or holds something else than was declared.
    """
    wanted = wanted_secrets(plan)
    needed = _wanted(plan.finally_) if last_only else wanted
    places = _places(host, store)
    values: dict[str, Secret] = {}
    origins: dict[str, str] = {}
    missing: dict[str, str] = {}
    for name in (name for name in plan.secrets if name in wanted):
        source = plan.secrets[name]
        for place in places:
            if (value := place.find(name, source)) is not None:
                values[name], origins[name] = value, place.label(name, source)
                break
        else:
            if name in needed:
                want = f"wanted by {', '.join(needed[name])}"
                missing[name] = f"{_tried(places, name, source)} ({want})"
    hidden = {each for name, source in plan.secrets.items() for each in variables(name, source)}
    hidden.update(*(place.hidden for place in places))
    return Secrets(values, frozenset(hidden), origins), missing


def not_found(missing: Mapping[str, str]) -> Iterator[str]:
    """A line on each secret that is missing, from its name and where it was looked for."""
    for name, tried in missing.items():
        yield f"secret '{name}' was not found: {tried}"


def _tried(places: Sequence["_Place"], name: str, source: SecretSource) -> str:
    labels = [place.label(name, source) for place in places]
    return labels[0] if len(labels) == 1 else f"neither {' nor '.join(labels)}"


# -- places ----------------------------------------------------------------------------------------


class _Place(Protocol):
    """One of the places where secrets may be."""

    @property
    def hidden(self) -> frozenset[str]:
        """Host variables that open it."""

    def label(self, name: str, source: SecretSource) -> str: ...

    def find(self, name: str, source: SecretSource) -> Secret | None: ...


def _places(host: Host, store: Path) -> list[_Place]:
    if host.given is not None:
        return [_Given(host.given)]
    file = store / "secrets.env"
    variables = [_Variables(host.environ, "the environment"), _Variables(read_file(file), str(file), in_file=True)]
    if not host.environ.get("PIPE_SECRETS"):
        return [*variables]
    from runner.secret_stores.named import named_stores

    return [*variables, *(_Store(each) for each in named_stores(host.environ))]


@dataclass(frozen=True)
class _Given:
    """What the server handed over."""

    received: Received
    hidden = frozenset[str]()

    def label(self, name: str, source: SecretSource) -> str:  # noqa: ARG002
        return "the server keeps none of that name for the project, see `pipe secrets set`"

    def find(self, name: str, source: SecretSource) -> Secret | None:
        return self.received.secret(name, source.kind)


@dataclass(frozen=True)
class _Variables:
    """Variables of the host, or lines of a file."""

    values: Mapping[str, str]
    where: str
    in_file: bool = False
    hidden = frozenset[str]()

    def label(self, name: str, source: SecretSource) -> str:
        return f"in {self.where}" if self.in_file else f"{' and '.join(variables(name, source))} in {self.where}"

    def find(self, name: str, source: SecretSource) -> Secret | None:
        return look_up(name, source, [self.values])


@dataclass(frozen=True)
class _Store:
    """A secret store that the host names."""

    store: SecretStore

    @property
    def hidden(self) -> frozenset[str]:
        return self.store.variables

    def label(self, name: str, source: SecretSource) -> str:  # noqa: ARG002
        return f"{name} in {self.store.address}"

    def find(self, name: str, source: SecretSource) -> Secret | None:
        document = self.store.read(name)
        if document is None:
            return None
        return taken(secret_in(document, source.kind, f"secret '{name}' of {self.store.address}"))


# -- variables -------------------------------------------------------------------------------------


def look_up(name: str, source: SecretSource, places: Iterable[Mapping[str, str]]) -> Secret | None:
    """A declared secret from the first place that has all of its variables; None if none has.

    Raises:
        PipeError: it is a file that cannot be read.
    """
    names = variables(name, source)
    found = next((place for place in places if all(place.get(n) for n in names)), None)
    return _value(name, source, [found[n] for n in names]) if found else None


def wanted_secrets(plan: Plan) -> dict[str, list[str]]:
    """The declared secrets that stages of the plan name, each with those stages."""
    return _wanted((*plan.leaves, *plan.finally_))


def _wanted(leaves: Iterable[Leaf]) -> dict[str, list[str]]:
    wanted: dict[str, list[str]] = {}
    for leaf in leaves:
        for name in () if leaf.never else leaf.secret_names:
            stages = wanted.setdefault(name, [])
            if leaf.stage not in stages:
                stages.append(leaf.stage)
    return wanted


def variables(name: str, source: SecretSource) -> tuple[str, ...]:
    """The host variables that a declared secret comes from."""
    if source.env:
        return source.env
    stem = "PIPE_SECRET_" + re.sub(r"[^A-Za-z0-9]", "_", name).upper()
    return tuple(stem + part for part in _PARTS[source.kind])


def _value(name: str, source: SecretSource, texts: list[str]) -> Secret:
    if source.kind == "login":
        return Login(*texts)
    if source.kind == "text":
        return SecretText(texts[0])
    path = Path(texts[0]).expanduser()
    if not (path.is_file() and os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids)):
        raise PipeError(f"secret '{name}': the file {path} does not exist or cannot be read")
    return SecretFile(path)


def read_file(file: Path, *, ours_alone: bool = False) -> dict[str, str]:
    """`NAME=value` lines; the value is everything after the `=`, one pair of quotes around it is taken off.

    `ours_alone`: others may write beside the file, so it has to be our own and no link.

    Raises:
        PipeError: a line is wrong, or others can have made it or can read it.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | (os.O_NOFOLLOW | os.O_NONBLOCK if ours_alone else 0))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise PipeError(f"{file}: {error.strerror}") from error
    with os.fdopen(descriptor) as lines:
        about = os.fstat(descriptor)
        if about.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise PipeError(f"{file} may be read by others: run `chmod 600 {file}`")
        if ours_alone and (about.st_uid != os.geteuid() or not stat.S_ISREG(about.st_mode)):
            raise PipeError(f"{file} is not the server's own: somebody else has made it")
        return _parsed(lines.read(), file)


def _parsed(text: str, file: Path) -> dict[str, str]:
    values: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = line.partition("=")
        name, value = name.strip().removeprefix("export ").strip(), value.strip()
        if not equals or not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise PipeError(f"{file}:{number}: write NAME=value")
        quoted = re.fullmatch(r"""(['"])(.*)\1""", value)
        if value[:1] in ("'", '"') and not quoted:
            raise PipeError(f"{file}:{number}: the value of {name} begins with a quote and does not end with it")
        values[name] = quoted[2] if quoted else value
    return values
